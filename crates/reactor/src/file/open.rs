//! Opening a device and taking hold of it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, StatxFlags, flock, fstat,
    ioctl_blksszget, openat, seek, statx,
};
use rustix::io::Errno;
use volume::block_device::IO_ALIGNMENT_BYTES;

use super::descriptor::{self, DeviceFd, FileIdentity};
use super::submission;
use super::{
    Caching, DEVICE_THREADS, FileDevice, GroupFlush, HeldFile, InlineWrites, Kind, Lane, OpenError,
    OpenOptions, Pool,
};

/// How long an open waits for an earlier descriptor of the same file that this process is closing.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn open(path: &Path, options: OpenOptions) -> Result<FileDevice, OpenError> {
    let failed = |error: Errno| OpenError::Io {
        path: path.to_owned(),
        source: error.into(),
    };
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let (kind, identity) = look_at(path)?;
    descriptor::wait_until_closed(identity, CLOSING_PATIENCE);
    if kind == Kind::Block {
        // Without O_CREAT: the kernel's exclusive claim on the device (open(2)).
        flags |= OFlags::EXCL;
    }
    if options.caching == Caching::Direct {
        flags |= OFlags::DIRECT;
    }
    let fd = openat(rustix::fs::CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::BUSY => OpenError::InUse {
            path: path.to_owned(),
        },
        Errno::INVAL if options.caching == Caching::Direct => OpenError::NoDirectIo {
            path: path.to_owned(),
        },
        error => failed(error),
    })?;
    if kind_of_type(FileType::from_raw_mode(fstat(&fd).map_err(failed)?.st_mode)) != Some(kind) {
        // It was replaced between the two looks.
        return Err(OpenError::Unsuitable {
            path: path.to_owned(),
        });
    }
    // NONBLOCK was for the open only (a FIFO in its place must not hang us); reads and writes shall wait.
    rustix::io::ioctl_fionbio(&fd, false).map_err(failed)?;
    flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        Errno::WOULDBLOCK => OpenError::InUse {
            path: path.to_owned(),
        },
        error => failed(error),
    })?;
    let size_bytes = match kind {
        Kind::Regular => u64::try_from(fstat(&fd).map_err(failed)?.st_size).unwrap_or(0),
        Kind::Block => seek(&fd, SeekFrom::End(0)).map_err(failed)?,
    };
    let (alignment_bytes, memory_alignment_bytes) = match options.caching {
        Caching::PageCache => (1, 1),
        Caching::Direct => direct_alignment(&fd, kind).map_err(failed)?,
    };
    let blocks = submission::may_block(&fd, kind);
    // A local file system closes at once; a block device writes back first.
    let slow_to_close = (blocks || kind == Kind::Block).then_some(identity);
    let nowait = options.caching == Caching::PageCache && !blocks;
    Ok(FileDevice {
        file: HeldFile::new(DeviceFd::new(fd, slow_to_close)),
        path: path.to_owned(),
        kind,
        caching: options.caching,
        size_bytes,
        alignment_bytes,
        memory_alignment_bytes,
        nowait_read: AtomicBool::new(nowait),
        nowait_write: AtomicBool::new(nowait),
        inline_writes: InlineWrites::default(),
        blocks,
        never_block: AtomicBool::new(false),
        lane: Lane::default(),
        threads: Pool::new("device", DEVICE_THREADS),
        no_punch: AtomicBool::new(false),
        no_zero_range: AtomicBool::new(false),
        flush: GroupFlush::default(),
    })
}

fn look_at(path: &Path) -> Result<(Kind, FileIdentity), OpenError> {
    let metadata = std::fs::metadata(path).map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    match kind_of_type(FileType::from_raw_mode(metadata.mode())) {
        Some(Kind::Regular) => {
            let (device, inode) = (metadata.dev(), metadata.ino());
            Ok((Kind::Regular, FileIdentity { device, inode }))
        }
        Some(Kind::Block) => {
            let (device, inode) = (metadata.rdev(), 0);
            Ok((Kind::Block, FileIdentity { device, inode }))
        }
        None => Err(OpenError::Unsuitable {
            path: path.to_owned(),
        }),
    }
}

fn kind_of_type(file_type: FileType) -> Option<Kind> {
    match file_type {
        FileType::RegularFile => Some(Kind::Regular),
        FileType::BlockDevice => Some(Kind::Block),
        _ => None,
    }
}

/// Alignment of offsets and lengths, and of memory, for direct I/O.
fn direct_alignment(fd: &OwnedFd, kind: Kind) -> Result<(usize, usize), Errno> {
    let known = |bytes: u32| {
        let bytes = bytes as usize;
        (bytes.is_power_of_two() && bytes <= IO_ALIGNMENT_BYTES).then_some(bytes)
    };
    let stat = statx(
        fd.as_fd(),
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::from_bits_retain(0x2000),
    ); // STATX_DIOALIGN
    let told = stat.ok().and_then(|stat| {
        let memory = known(stat.stx_dio_mem_align)?;
        Some((known(stat.stx_dio_offset_align)?, memory))
    });
    if let Some(told) = told {
        return Ok(told);
    }
    match kind {
        Kind::Block => {
            let sector = known(ioctl_blksszget(fd)?).unwrap_or(IO_ALIGNMENT_BYTES);
            Ok((sector, sector))
        }
        Kind::Regular => Ok((IO_ALIGNMENT_BYTES, IO_ALIGNMENT_BYTES)),
    }
}
