//! Exclusive locks on ranges of a volume, for what must read, change and write back.

use std::ops::Range;

use event_listener::Event;
use parking_lot::Mutex;

/// The ranges that are locked now.
#[derive(Default)]
pub(crate) struct RangeLock {
    held: Mutex<Vec<Range<u64>>>,
    released: Event,
}

/// A locked range; unlocked when dropped.
pub(crate) struct RangeGuard<'a> {
    lock: &'a RangeLock,
    range: Range<u64>,
}

impl RangeLock {
    /// Waits until nothing that overlaps `range` is locked, and locks it. An empty range overlaps nothing.
    pub(crate) async fn lock(&self, range: Range<u64>) -> RangeGuard<'_> {
        loop {
            if let Some(guard) = self.try_lock(&range) {
                return guard;
            }
            let released = self.released.listen();
            // Between the look above and listening it may have been released.
            if let Some(guard) = self.try_lock(&range) {
                return guard;
            }
            released.await;
        }
    }

    fn try_lock(&self, range: &Range<u64>) -> Option<RangeGuard<'_>> {
        let mut held = self.held.lock();
        if held
            .iter()
            .any(|other| other.start < range.end && range.start < other.end)
        {
            return None;
        }
        held.push(range.clone());
        Some(RangeGuard {
            lock: self,
            range: range.clone(),
        })
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut held = self.lock.held.lock();
        if let Some(index) = held.iter().position(|range| *range == self.range) {
            held.swap_remove(index);
        }
        drop(held);
        self.lock.released.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn overlapping_ranges_wait_and_others_do_not() {
        block_on(async {
            let lock = RangeLock::default();
            let first = lock.lock(0..10).await;
            let _apart = lock.lock(10..20).await;
            let mut overlapping = Box::pin(lock.lock(9..10));
            assert!(poll_once(&mut overlapping).await.is_none());
            drop(first);
            assert!(poll_once(&mut overlapping).await.is_some());
            assert_eq!(lock.held.lock().len(), 1, "guards release what they locked");
        });
    }
}
