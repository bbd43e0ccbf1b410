//! Reading, writing and flushing.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite, pwritev2};
use volume::block_device::aligned_buffer;

use super::descriptor::DeviceFd;
use super::{Caching, FileDevice, Work};
use crate::driver::{Operation, Request};
use crate::executor::Core;
use crate::join::JoinError;

/// The reactor that polls.
pub(super) fn core() -> io::Result<Rc<Core>> {
    Core::current().ok_or_else(|| {
        io::Error::new(
            ErrorKind::Unsupported,
            "device I/O was polled outside a reactor",
        )
    })
}

/// Checks that a range lies in the device and is aligned.
pub(super) fn check_range(
    device: &FileDevice,
    offset_bytes: u64,
    length_bytes: u64,
) -> io::Result<()> {
    let end = offset_bytes.checked_add(length_bytes);
    if end.is_none_or(|end| end > device.size_bytes) {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "range outside of the device",
        ));
    }
    let mask = device.alignment_bytes as u64 - 1; // a power of two
    if (offset_bytes | length_bytes) & mask != 0 {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "range not aligned for direct I/O",
        ));
    }
    Ok(())
}

pub(super) fn interrupted(error: JoinError) -> io::Error {
    io::Error::other(error)
}

fn is_aligned(device: &FileDevice, address: *const u8) -> bool {
    address.addr() & (device.memory_alignment_bytes - 1) == 0 // a power of two
}

pub(super) async fn read(
    device: &FileDevice,
    offset_bytes: u64,
    mut buf: BytesMut,
) -> (io::Result<()>, BytesMut) {
    if let Err(error) = check_range(device, offset_bytes, buf.len() as u64) {
        return (Err(error), buf);
    }
    if buf.is_empty() {
        return (Ok(()), buf);
    }
    let mut filled_bytes = 0;
    if device.caching == Caching::PageCache {
        filled_bytes = read_cached(device, offset_bytes, &mut buf);
        if filled_bytes == buf.len() {
            return (Ok(()), buf);
        }
    } else if !is_aligned(device, buf.as_ptr()) {
        let (result, bounce) =
            read_slowly(device, offset_bytes, aligned_buffer(buf.len()), 0).await;
        if result.is_ok() {
            buf.copy_from_slice(&bounce);
        }
        return (result, buf);
    }
    read_slowly(device, offset_bytes, buf, filled_bytes).await
}

/// Takes what the page cache has, without waiting; the number of bytes.
fn read_cached(device: &FileDevice, offset_bytes: u64, buf: &mut BytesMut) -> usize {
    if !device.nowait_read.load(Ordering::Relaxed) {
        return 0;
    }
    let Ok(file) = device.file.borrow() else {
        return 0; // the other way says so
    };
    let slices = &mut [IoSliceMut::new(buf)];
    match preadv2(&*file, slices, offset_bytes, ReadWriteFlags::NOWAIT) {
        Ok(count) => count,
        Err(error) => {
            note_refusal(&device.nowait_read, error);
            0
        }
    }
}

fn note_refusal(supported: &AtomicBool, error: Errno) {
    if matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) {
        supported.store(false, Ordering::Relaxed);
    }
}

async fn read_slowly(
    device: &FileDevice,
    offset_bytes: u64,
    mut buf: BytesMut,
    mut filled_bytes: usize,
) -> (io::Result<()>, BytesMut) {
    let core = match core() {
        Ok(core) => core,
        Err(error) => return (Err(error), buf),
    };
    while filled_bytes < buf.len() {
        let fd = match device.file.hold() {
            Ok(fd) => fd,
            Err(error) => return (Err(error), buf),
        };
        if device.takes_thread(&core, Work::Transfer) {
            return read_in_thread(device, fd, offset_bytes, buf, filled_bytes).await;
        }
        let request = Request::Read {
            fd,
            offset_bytes: offset_bytes + filled_bytes as u64,
            buf,
            filled_bytes,
        };
        let completion = Operation::start(&core, request).await;
        buf = match completion.request {
            Request::Read { buf, .. } => buf,
            _ => return (Err(ErrorKind::InvalidData.into()), BytesMut::new()), // cannot be: it comes back as it went
        };
        match completion.result {
            Ok(0) => return (Err(ErrorKind::UnexpectedEof.into()), buf),
            Ok(count) => filled_bytes += count,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return (Err(error.into()), buf),
        }
    }
    (Ok(()), buf)
}

async fn read_in_thread(
    device: &FileDevice,
    fd: Arc<DeviceFd>,
    offset_bytes: u64,
    mut buf: BytesMut,
    mut filled_bytes: usize,
) -> (io::Result<()>, BytesMut) {
    let work = move || {
        while filled_bytes < buf.len() {
            match pread(
                &*fd,
                &mut buf[filled_bytes..],
                offset_bytes + filled_bytes as u64,
            ) {
                Ok(0) => return (Err(ErrorKind::UnexpectedEof.into()), buf),
                Ok(count) => filled_bytes += count,
                Err(Errno::INTR) => {}
                Err(error) => return (Err(error.into()), buf),
            }
        }
        (Ok(()), buf)
    };
    match device.threads.run_if_wanted(work).await {
        Ok(outcome) => outcome,
        Err(error) => (Err(interrupted(error)), BytesMut::new()),
    }
}

pub(super) async fn write(
    device: &FileDevice,
    offset_bytes: u64,
    mut data: Bytes,
) -> io::Result<()> {
    check_range(device, offset_bytes, data.len() as u64)?;
    if data.is_empty() {
        return Ok(());
    }
    let core = core()?;
    let mut offset_bytes = offset_bytes;
    if device.caching == Caching::PageCache {
        let count = write_cached(device, offset_bytes, &data);
        data.advance(count);
        offset_bytes += count as u64;
        if data.is_empty() {
            return Ok(());
        }
    } else if !is_aligned(device, data.as_ptr()) {
        let mut bounce = aligned_buffer(data.len());
        bounce.copy_from_slice(&data);
        data = bounce.freeze();
    }
    if device.takes_lane()
        && let Some(result) = write_in_lane(device, offset_bytes, data.clone()).await
    {
        return result;
    }
    if device.takes_thread(&core, Work::Transfer) {
        return write_in_thread(device, offset_bytes, data).await;
    }
    while !data.is_empty() {
        let request = Request::Write {
            fd: device.file.hold()?,
            offset_bytes,
            data: data.clone(),
        };
        let completion = Operation::start(&core, request).await;
        match completion.result {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                data.advance(count);
                offset_bytes += count as u64;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Puts what it can into the page cache, without waiting if that can be had; the number of bytes.
fn write_cached(device: &FileDevice, offset_bytes: u64, data: &Bytes) -> usize {
    let nowait = device.nowait_write.load(Ordering::Relaxed);
    if device.blocks || !nowait && device.never_block.load(Ordering::Relaxed) {
        return 0;
    }
    let Ok(file) = device.file.borrow() else {
        return 0; // the other way says so
    };
    let written = if nowait {
        let slices = &[IoSlice::new(data)];
        let written = pwritev2(&*file, slices, offset_bytes, ReadWriteFlags::NOWAIT);
        if let Err(error) = written {
            note_refusal(&device.nowait_write, error);
        }
        Some(written)
    } else {
        let write = || pwrite(&*file, data, offset_bytes);
        device.inline_writes.run(offset_bytes, data.len(), write)
    };
    // What failed is tried again by the other way, which reports the error.
    written.and_then(Result::ok).unwrap_or(0)
}

/// Writes all of `data`, waiting as long as it takes.
fn write_all(fd: &DeviceFd, mut offset_bytes: u64, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match pwrite(fd, data, offset_bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                data = &data[count..];
                offset_bytes += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn write_in_thread(device: &FileDevice, offset_bytes: u64, data: Bytes) -> io::Result<()> {
    let fd = device.file.hold()?;
    let work = move || write_all(&fd, offset_bytes, &data);
    device
        .threads
        .run_if_wanted(work)
        .await
        .map_err(interrupted)?
}

/// `None` when the lane has no thread and none can be started: nothing is written.
async fn write_in_lane(
    device: &FileDevice,
    offset_bytes: u64,
    data: Bytes,
) -> Option<io::Result<()>> {
    let fd = match device.file.hold() {
        Ok(fd) => fd,
        Err(error) => return Some(Err(error)),
    };
    let work = move || write_all(&fd, offset_bytes, &data);
    match device.lane.run(work) {
        Ok(waiting) => Some(waiting.await.map_err(interrupted).flatten()),
        Err(error) => {
            tracing::warn!(%error, "cannot start a device's thread");
            None
        }
    }
}

/// fdatasync, once.
pub(super) async fn datasync(device: &FileDevice) -> io::Result<()> {
    let core = core()?;
    if !device.takes_thread(&core, Work::Waiting) {
        let request = Request::Datasync {
            fd: device.file.hold()?,
        };
        Operation::start(&core, request).await.result?;
        return Ok(());
    }
    let fd = device.file.hold()?;
    let work = move || rustix::fs::fdatasync(&*fd).map_err(io::Error::from);
    device
        .threads
        .run_if_wanted(work)
        .await
        .map_err(interrupted)?
}
