//! Opening a device and taking hold of it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, StatxFlags, flock, fstat,
    ioctl_blksszget, openat, seek, statx,
};
use rustix::io::Errno;
use volume::block_device::IO_ALIGNMENT_BYTES;

use super::{
    Caching, FileDevice, GroupFlush, HeldFile, InlineWrites, Kind, OpenError, OpenOptions,
};

pub(super) fn open(path: &Path, options: OpenOptions) -> Result<FileDevice, OpenError> {
    let failed = |error: Errno| OpenError::Io {
        path: path.to_owned(),
        source: error.into(),
    };
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let kind = kind_of(path)?;
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
    Ok(FileDevice {
        file: HeldFile::new(fd),
        path: path.to_owned(),
        kind,
        caching: options.caching,
        size_bytes,
        alignment_bytes,
        memory_alignment_bytes,
        nowait_read: AtomicBool::new(options.caching == Caching::PageCache),
        nowait_write: AtomicBool::new(options.caching == Caching::PageCache),
        inline_writes: InlineWrites::default(),
        never_block: AtomicBool::new(false),
        no_punch: AtomicBool::new(false),
        no_zero_range: AtomicBool::new(false),
        flush: GroupFlush::default(),
    })
}

fn kind_of(path: &Path) -> Result<Kind, OpenError> {
    let metadata = std::fs::metadata(path).map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    let file_type = FileType::from_raw_mode(std::os::unix::fs::MetadataExt::mode(&metadata));
    kind_of_type(file_type).ok_or_else(|| OpenError::Unsuitable {
        path: path.to_owned(),
    })
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
