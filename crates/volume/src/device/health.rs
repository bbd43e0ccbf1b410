//! What is known about the state of a device: whether it is used, and what has gone wrong on it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a device is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceHealth {
    /// It is used.
    Online,
    /// Every operation fails at once, until the device is opened anew.
    Failed {
        /// Why: what broke, or who said so.
        reason: String,
    },
}

/// What has gone wrong on a device since the daemon opened it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceErrors {
    /// Reads that failed.
    pub reads: u64,
    /// Writes that failed, zeroing included.
    pub writes: u64,
    /// Flushes that failed.
    pub flushes: u64,
    /// Operations that were given up because they took too long.
    pub hangs: u64,
}

impl DeviceErrors {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.reads
            .saturating_add(self.writes)
            .saturating_add(self.flushes)
            .saturating_add(self.hangs)
    }
}

/// The counters behind [`DeviceErrors`].
#[derive(Default)]
pub(super) struct ErrorCounters {
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) hangs: AtomicU64,
}

impl ErrorCounters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> DeviceErrors {
        DeviceErrors {
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            flushes: self.flushes.load(Ordering::Relaxed),
            hangs: self.hangs.load(Ordering::Relaxed),
        }
    }
}
