//! Zeroing, deallocating, and what is allocated.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use volume::block_device::{Allocation, IO_ALIGNMENT_BYTES, aligned_buffer};

use super::io::{check_range, core, interrupted, write};
use super::{FileDevice, Kind, Work};
use crate::driver::{Operation, Request};

/// Size of the buffer when zeroes have to be written.
const ZERO_CHUNK_BYTES: usize = 256 * 1024;

/// Zeroes a range. The kernel is asked for the cheapest way that is certain to read back as zeroes: punch a hole
/// (on a block device: a discard that zeroes), zero the range, and at last plain writes.
pub(super) async fn write_zeroes(
    device: &FileDevice,
    offset_bytes: u64,
    length_bytes: u64,
    deallocate: bool,
) -> io::Result<()> {
    check_range(device, offset_bytes, length_bytes)?;
    let end_bytes = offset_bytes + length_bytes; // checked above
    let unit = match device.kind {
        Kind::Regular => 1,
        // fallocate(2) on a block device takes whole logical blocks only; 4 KiB holds for all of them.
        Kind::Block => IO_ALIGNMENT_BYTES as u64,
    };
    let inner_start = offset_bytes.next_multiple_of(unit).min(end_bytes);
    let inner_end = (end_bytes / unit * unit).max(inner_start);
    write_plain(device, offset_bytes, inner_start).await?;
    if inner_start < inner_end {
        zero_inner(device, inner_start, inner_end, deallocate).await?;
    }
    write_plain(device, inner_end, end_bytes).await
}

async fn zero_inner(device: &FileDevice, start: u64, end: u64, deallocate: bool) -> io::Result<()> {
    let ways = [
        (
            deallocate,
            &device.no_punch,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        ),
        (
            true,
            &device.no_zero_range,
            FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        ),
    ];
    for (wanted, refused, mode) in ways {
        if !wanted || refused.load(Ordering::Relaxed) {
            continue;
        }
        match allocate(device, mode, start, end - start).await? {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => refused.store(true, Ordering::Relaxed),
            Err(error) => return Err(error.into()),
        }
    }
    write_plain(device, start, end).await
}

/// fallocate; the outer error is ours, the inner one the kernel's.
async fn allocate(
    device: &FileDevice,
    mode: FallocateFlags,
    offset_bytes: u64,
    length_bytes: u64,
) -> io::Result<Result<(), Errno>> {
    let core = core()?;
    if !device.takes_thread(&core, Work::Waiting) {
        loop {
            let request = Request::Allocate {
                fd: device.file.hold()?,
                mode,
                offset_bytes,
                length_bytes,
            };
            match Operation::start(&core, request).await.result {
                Err(Errno::INTR | Errno::AGAIN) => {}
                other => return Ok(other.map(drop)),
            }
        }
    }
    let fd = device.file.hold()?;
    let work =
        move || rustix::io::retry_on_intr(|| fallocate(&*fd, mode, offset_bytes, length_bytes));
    device
        .threads
        .run_if_wanted(work)
        .await
        .map_err(interrupted)
}

async fn write_plain(device: &FileDevice, start: u64, end: u64) -> io::Result<()> {
    if start == end {
        return Ok(());
    }
    let longest = (end - start).min(ZERO_CHUNK_BYTES as u64);
    let zeroes: Bytes = aligned_buffer(longest as usize).freeze(); // at most ZERO_CHUNK_BYTES
    let mut offset = start;
    while offset < end {
        let length = (end - offset).min(longest);
        write(device, offset, zeroes.slice(..length as usize)).await?;
        offset += length;
    }
    Ok(())
}

/// Asks the file system with `SEEK_DATA` and `SEEK_HOLE`. A block device cannot tell.
pub(super) async fn allocation(
    device: &FileDevice,
    offset_bytes: u64,
    length_bytes: u64,
) -> io::Result<Allocation> {
    let end_bytes = offset_bytes.checked_add(length_bytes);
    let Some(end_bytes) = end_bytes.filter(|&end| end <= device.size_bytes && end > offset_bytes)
    else {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "range outside of the device",
        ));
    };
    let whole = |allocated| Allocation {
        allocated,
        length_bytes,
    };
    if device.kind == Kind::Block {
        return Ok(whole(true));
    }
    let fd = device.file.hold()?;
    // Both may have to read the file's metadata. The file position they move is used by nobody.
    let work = move || match seek(&*fd, SeekFrom::Data(offset_bytes)) {
        Ok(data) if data > offset_bytes => Ok((false, data)),
        Ok(_) => seek(&*fd, SeekFrom::Hole(offset_bytes)).map(|hole| (true, hole)),
        Err(Errno::NXIO) => Ok((false, end_bytes)),
        Err(error) => Err(error),
    };
    core()?; // no more than the others does this work outside of a reactor
    let asked = device.threads.run_if_wanted(work).await;
    match asked.map_err(interrupted)? {
        Ok((allocated, until)) => Ok(Allocation {
            allocated,
            // A hole made meanwhile can put `until` at the offset itself; the answer still covers a byte.
            length_bytes: until.clamp(offset_bytes + 1, end_bytes) - offset_bytes,
        }),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(whole(true)),
        Err(error) => Err(error.into()),
    }
}
