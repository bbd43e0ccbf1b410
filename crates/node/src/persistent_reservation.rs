//! Registering a key through the kernel (`IOC_PR_REGISTER`, `linux/pr.h`): the kernel knows how for SCSI disks, NVMe
//! namespaces and multipath devices (there on all paths), so that no program has to be there for it. The kernel sets
//! APTPL: the key outlives a loss of power of the head.
//!
//! The only `unsafe` of this crate: an ioctl cannot be told to the compiler otherwise.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};

/// `struct pr_registration` of `linux/pr.h`.
#[repr(C)]
struct Registration {
    old_key: u64,
    new_key: u64,
    flags: u32,
    pad: u32,
}

/// `PR_FL_IGNORE_KEY`: REGISTER AND IGNORE EXISTING KEY (SPC-4 5.12.7).
const IGNORE_KEY: u32 = 1;

// SAFETY: the request number says that the kernel reads `size_of::<Registration>()` bytes, which is the structure that
// `as_ptr` points to; it is borrowed for the whole call and the kernel writes nothing into it. The layout is that of
// `linux/pr.h`, by `repr(C)` and without implicit padding.
unsafe impl Ioctl for Registration {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<Registration>(b'p', 200)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// Registers `key` on a disk, whatever was registered before; 0 ends the registration.
///
/// # Errors
/// Of open(2) and the ioctl; `PermissionDenied` for a reservation conflict: this member is fenced.
pub fn register(disk: &Path, key: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(disk)?;
    let registration = Registration {
        old_key: 0,
        new_key: key,
        flags: IGNORE_KEY,
        pad: 0,
    };
    // SAFETY: see the implementation of `Ioctl`; a device that does not know the request answers ENOTTY.
    let status = unsafe { rustix::ioctl::ioctl(file.as_fd(), registration) }?;
    match status {
        0 => Ok(()),
        // PR_STS_RESERVATION_CONFLICT
        0x18 => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "reservation conflict",
        )),
        status => Err(io::Error::other(format!(
            "the disk answers status {status:#x}"
        ))),
    }
}
