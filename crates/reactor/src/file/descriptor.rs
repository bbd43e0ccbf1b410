//! The descriptor of a device's file, which may have to be closed elsewhere.
//!
//! close(2) waits for the device where it writes back (a block device that is closed for the last time) or tells a
//! server (FUSE, network file systems). A reactor does not wait for that: it gives the descriptor to a thread. Whoever
//! opens the same file anew in this process waits until it is closed, so that it is not told that the file is in use.
//!
//! The advisory lock is given up with the last descriptor by name: a process that another thread is just starting has
//! copies of all descriptors for a moment, and the lock with them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::executor::Core;

/// What names a file or block device in this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    /// The device that the file system is on; of a block device, the device itself.
    pub(super) device: u64,
    /// Number in the file system; 0 of a block device.
    pub(super) inode: u64,
}

/// An open device file.
#[derive(Debug)]
pub(crate) struct DeviceFd {
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    /// Present when closing may wait.
    slow_to_close: Option<FileIdentity>,
    /// One for all descriptors of the open file, which share its lock.
    lock: Arc<()>,
}

/// Files that are being closed, each once for each descriptor.
static CLOSING: Mutex<Vec<FileIdentity>> = Mutex::new(Vec::new());
static CLOSED: Condvar = Condvar::new();

fn closing() -> MutexGuard<'static, Vec<FileIdentity>> {
    // A list, right at every point.
    CLOSING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits, for `patience` at most, until no descriptor of `file` is being closed.
pub(super) fn wait_until_closed(file: FileIdentity, patience: Duration) {
    let waited = CLOSED.wait_timeout_while(closing(), patience, |list| list.contains(&file));
    drop(waited);
}

impl DeviceFd {
    /// With `slow_to_close`, a reactor never closes it itself.
    pub(super) fn new(fd: OwnedFd, slow_to_close: Option<FileIdentity>) -> Self {
        Self {
            fd: Some(fd),
            slow_to_close,
            lock: Arc::default(),
        }
    }

    /// Another descriptor of the same open file.
    pub(super) fn duplicate(&self) -> Result<Self, rustix::io::Errno> {
        let fd = rustix::io::fcntl_dupfd_cloexec(self, 0)?;
        Ok(Self {
            fd: Some(fd),
            slow_to_close: self.slow_to_close,
            lock: self.lock.clone(),
        })
    }
}

impl AsFd for DeviceFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.as_fd(),
            // Only `drop` takes it.
            None => unreachable!("a device file without a descriptor"),
        }
    }
}

impl AsRawFd for DeviceFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Closes one of the descriptors that share `lock`.
fn close(fd: OwnedFd, lock: Arc<()>) {
    if Arc::into_inner(lock).is_some() {
        // It fails only where closing does the same.
        let _ = flock(&fd, FlockOperation::Unlock);
    }
    drop(fd);
}

impl Drop for DeviceFd {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        let lock = std::mem::take(&mut self.lock);
        let file = match self.slow_to_close {
            Some(file) if Core::current().is_some() => file,
            _ => return close(fd, lock), // it does not wait, or may
        };
        closing().push(file);
        let close = move || {
            close(fd, lock);
            let mut list = closing();
            if let Some(at) = list.iter().position(|other| *other == file) {
                list.swap_remove(at);
            }
            drop(list);
            CLOSED.notify_all();
        };
        let started = std::thread::Builder::new()
            .name("device-close".to_owned())
            .spawn(close);
        if let Err(error) = started {
            // The closure was dropped, and the descriptor closed with it, on this thread.
            tracing::error!(%error, "cannot start a thread to close a device");
            let mut list = closing();
            if let Some(at) = list.iter().position(|other| *other == file) {
                list.swap_remove(at);
            }
        }
    }
}
