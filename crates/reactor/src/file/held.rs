//! The open file of a device: who still uses it, and what was given up on it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use arc_swap::{ArcSwapOption, Guard};
use pin_project_lite::pin_project;

use super::descriptor::DeviceFd;

/// Every operation holds the file until it has ended, also one that nobody waits for any more. When one is given up, those
/// that begin later get a duplicate of it: who then still holds the old one began before.
pub(super) struct HeldFile {
    /// `None` when it is closed.
    file: ArcSwapOption<DeviceFd>,
    /// What was in use when an operation was given up.
    retired: Mutex<Vec<Weak<DeviceFd>>>,
}

/// The file, for as long as no other task runs.
pub(super) struct Borrowed(Guard<Option<Arc<DeviceFd>>>);

impl std::ops::Deref for Borrowed {
    type Target = DeviceFd;

    fn deref(&self) -> &DeviceFd {
        match &*self.0 {
            Some(file) => file,
            // `HeldFile::borrow`, the only constructor, looked, and a guard's content does not change.
            None => unreachable!("a guard without a file"),
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("the device is closed")
}

impl HeldFile {
    pub(super) fn new(file: DeviceFd) -> Self {
        Self {
            file: ArcSwapOption::from_pointee(file),
            retired: Mutex::default(),
        }
    }

    /// The file, for a call that returns at once.
    pub(super) fn borrow(&self) -> io::Result<Borrowed> {
        let guard = self.file.load();
        if guard.is_none() {
            return Err(closed());
        }
        Ok(Borrowed(guard))
    }

    /// The file, for an operation.
    pub(super) fn hold(&self) -> io::Result<Arc<DeviceFd>> {
        self.file.load_full().ok_or_else(closed)
    }

    /// Operations that hold it.
    pub(super) fn in_flight(&self) -> u64 {
        let current = self.file.load();
        let current = current
            .as_ref()
            .map_or(0, |file| Arc::strong_count(file) - 1);
        self.abandoned() + current as u64
    }

    /// Operations given up that hold it, and those that began before the last of them was given up.
    pub(super) fn abandoned(&self) -> u64 {
        let mut retired = self.retired();
        retired.retain(|file| file.strong_count() > 0);
        retired.iter().map(|file| file.strong_count() as u64).sum()
    }

    /// Notes that an operation is given up.
    fn abandon(&self) {
        let mut retired = self.retired();
        let Some(old) = self.file.load_full() else {
            return;
        };
        if Arc::strong_count(&old) == 2 {
            return; // ours and this one: what was given up had not begun, or has ended
        }
        retired.push(Arc::downgrade(&old));
        match old.duplicate() {
            Ok(duplicate) => self.file.store(Some(Arc::new(duplicate))),
            Err(error) => {
                // It stays in use, and counted with what was given up: too many, never too few.
                tracing::error!(%error, "a device file cannot be duplicated");
            }
        }
    }

    /// Closes it when the operations that hold it have ended.
    pub(super) fn close(&self) {
        let mut retired = self.retired();
        if let Some(old) = self.file.swap(None) {
            retired.push(Arc::downgrade(&old));
        }
    }

    fn retired(&self) -> std::sync::MutexGuard<'_, Vec<Weak<DeviceFd>>> {
        // A list of references, right at every point.
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation and notes when its future is dropped before the end.
    pub(super) fn watch<F: Future>(&self, operation: F) -> Watching<'_, F> {
        Watching {
            operation,
            watched: Watched {
                file: self,
                ended: false,
            },
        }
    }
}

pin_project! {
    /// An operation that is watched. (Not an async block, which would have room for the operation twice.)
    pub(super) struct Watching<'a, F> {
        #[pin]
        operation: F,
        // Dropped after the operation: see `HeldFile::abandon`.
        watched: Watched<'a>,
    }
}

impl<F: Future> Future for Watching<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.operation.poll(context);
        this.watched.ended = polled.is_ready();
        polled
    }
}

struct Watched<'a> {
    file: &'a HeldFile,
    ended: bool,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.file.abandon();
        }
    }
}
