//! Whether a file may be handed to a ring.
//!
//! A ring tries an operation on the thread that submits it and asks the file not to wait. Some file systems have no way
//! to be asked, and wait all the same: FUSE does, as its files can be polled, which io_uring takes for a promise. A
//! device that hangs there would stop the reactor, and with it everything that the reactor serves. Others answer at once
//! only by taking one of the ring's own few threads, which all files share.
//!
//! So a ring gets files of local file systems that say that they can go without waiting (`FMODE_NOWAIT`: they take
//! `RWF_NOWAIT`, preadv2(2)), and block devices that say so. All else is done by threads of the device.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;

use rustix::fs::fstatfs;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use volume::block_device::{IO_ALIGNMENT_BYTES, aligned_buffer};

use super::Kind;

/// Local file systems that keep the promise (`linux/magic.h`, statfs(2)): ext4, XFS, btrfs, F2FS.
const LOCAL: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];
/// Those that wait for no device at all: tmpfs, ramfs.
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// True when submitting an operation may wait for the device.
pub(super) fn may_block(fd: &OwnedFd, kind: Kind) -> bool {
    match kind {
        Kind::Block => !takes_nowait(fd),
        Kind::Regular => {
            let Ok(system) = fstatfs(fd) else { return true };
            let magic = u64::try_from(system.f_type).unwrap_or(0);
            let trusted = MEMORY.contains(&magic) || (LOCAL.contains(&magic) && takes_nowait(fd));
            !trusted
        }
    }
}

/// Asks for a page without waiting: the kernel refuses the flag itself where the file does not know it.
fn takes_nowait(fd: &OwnedFd) -> bool {
    let mut page = aligned_buffer(IO_ALIGNMENT_BYTES);
    let slices = &mut [IoSliceMut::new(&mut page)];
    let asked = preadv2(fd, slices, 0, ReadWriteFlags::NOWAIT);
    !matches!(asked, Err(Errno::OPNOTSUPP | Errno::NOSYS))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn of(path: &str) -> bool {
        may_block(&File::open(path).unwrap().into(), Kind::Regular)
    }

    #[test]
    fn files_that_no_known_file_system_vouches_for_may_block() {
        assert!(of("/proc/self/status"));
        assert!(of("/sys/kernel/mm/transparent_hugepage/enabled"));
    }

    #[test]
    fn files_in_memory_do_not() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [0; 8192]).unwrap();
        assert!(!of(path.to_str().unwrap()));
    }
}
