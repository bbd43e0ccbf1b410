//! Exclusion on ranges of logical blocks for COMPARE AND WRITE, ORWRITE and WRITE ATOMIC.
//!
//! The lock is *biased* towards its absence: until such a command has been seen, ordinary I/O only loads one word.
//! The first one turns the lock on, so that every new transfer registers its range here, waits until all I/O that had
//! not seen it on has ended (the caller drains the gates), and arms the lock: only then are exclusive ranges granted,
//! to others that come meanwhile too. After [`IDLE_SHARED`] ordinary transfers in a row with no exclusive one the lock
//! turns itself off again.
//!
//! Ordinary transfers share with each other. Ranges are granted in order of arrival, so none starves.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use event_listener::{Event, listener};
use parking_lot::Mutex;

/// Number of shared acquisitions without an exclusive one after which the lock turns itself off.
pub const IDLE_SHARED: u32 = 4096;

#[derive(Clone, Copy)]
struct Entry {
    id: u64,
    start: u64,
    end: u64,
    exclusive: bool,
}

impl Entry {
    fn conflicts(&self, other: &Entry) -> bool {
        (self.exclusive || other.exclusive) && self.start < other.end && other.start < self.end
    }
}

#[derive(Default)]
struct Table {
    /// In order of arrival; an entry is granted when none before it conflicts.
    entries: Vec<Entry>,
    next_id: u64,
    shared_since_exclusive: u32,
    /// Every transfer in flight is registered: exclusive ranges may be granted. Only true while the lock is on.
    armed: bool,
}

impl Table {
    fn granted(&self, id: u64) -> bool {
        let Some(at) = self.entries.iter().position(|e| e.id == id) else {
            return false;
        };
        !self.entries[..at]
            .iter()
            .any(|earlier| earlier.conflicts(&self.entries[at]))
    }
}

/// The lock of one logical unit.
#[derive(Default)]
pub struct RangeLock {
    on: AtomicBool,
    table: Mutex<Table>,
    released: Event,
}

impl RangeLock {
    /// Must ordinary transfers register? To be loaded after entering the gate.
    pub fn is_on(&self) -> bool {
        self.on.load(SeqCst)
    }

    /// May exclusive ranges be asked for?
    pub fn is_armed(&self) -> bool {
        self.table.lock().armed
    }

    /// Turns the lock on: ordinary transfers register from now on. The caller then drains every gate of the logical
    /// unit and calls [`RangeLock::arm`].
    pub fn turn_on(&self) {
        self.on.store(true, SeqCst);
    }

    /// All transfers that had not seen the lock on have ended: exclusive ranges are granted from now on.
    pub fn arm(&self) {
        let mut table = self.table.lock();
        table.shared_since_exclusive = 0;
        table.armed = true;
    }

    /// Registers an ordinary transfer of `length` blocks at `start`, and waits until no earlier exclusive range
    /// overlaps it. `None` when the lock is off: then there is nothing to wait for.
    pub async fn shared(&self, start: u64, length: u64) -> Option<RangeGuard<'_>> {
        if !self.is_on() {
            return None;
        }
        let guard = {
            let mut table = self.table.lock();
            table.shared_since_exclusive = table.shared_since_exclusive.saturating_add(1);
            if table.armed
                && table.shared_since_exclusive > IDLE_SHARED
                && !table.entries.iter().any(|e| e.exclusive)
            {
                // An exclusive range looks at `armed` under this mutex, so none can slip in.
                table.armed = false;
                self.on.store(false, SeqCst);
            }
            self.insert(&mut table, start, length, false)
        };
        guard.granted().await;
        Some(guard)
    }

    /// Registers an exclusive range and waits until it is alone. `None` when the lock is off (again), or not armed
    /// yet: the caller turns it on, drains, arms it, and tries again.
    pub async fn exclusive(&self, start: u64, length: u64) -> Option<RangeGuard<'_>> {
        let guard = {
            let mut table = self.table.lock();
            if !table.armed {
                return None;
            }
            table.shared_since_exclusive = 0;
            self.insert(&mut table, start, length, true)
        };
        guard.granted().await;
        Some(guard)
    }

    fn insert(
        &self,
        table: &mut Table,
        start: u64,
        length: u64,
        exclusive: bool,
    ) -> RangeGuard<'_> {
        let id = table.next_id;
        table.next_id += 1;
        table.entries.push(Entry {
            id,
            start,
            end: start.saturating_add(length),
            exclusive,
        });
        RangeGuard { lock: self, id }
    }
}

/// A registered range; dropping it lets the next ones in.
pub struct RangeGuard<'a> {
    lock: &'a RangeLock,
    id: u64,
}

impl RangeGuard<'_> {
    async fn granted(&self) {
        loop {
            if self.lock.table.lock().granted(self.id) {
                return;
            }
            listener!(self.lock.released => released);
            if self.lock.table.lock().granted(self.id) {
                return;
            }
            released.await;
        }
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut table = self.lock.table.lock();
        table.entries.retain(|entry| entry.id != self.id);
        drop(table);
        self.lock.released.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::pin::pin;

    #[test]
    fn off_until_turned_on() {
        block_on(async {
            let lock = RangeLock::default();
            assert!(lock.shared(0, 8).await.is_none());
            assert!(lock.exclusive(0, 8).await.is_none());
            lock.turn_on();
            assert!(lock.exclusive(0, 8).await.is_none(), "not armed");
            lock.arm();
            assert!(lock.exclusive(0, 8).await.is_some());
        });
    }

    #[test]
    fn exclusive_excludes_overlap_only() {
        block_on(async {
            let lock = RangeLock::default();
            lock.turn_on();
            lock.arm();
            let held = lock.exclusive(8, 8).await.unwrap();
            let _before = lock.shared(0, 8).await.unwrap();
            let _after = lock.exclusive(16, 8).await.unwrap();
            let mut inside = pin!(lock.shared(15, 1));
            assert!(poll_once(&mut inside).await.is_none());
            drop(held);
            assert!(poll_once(&mut inside).await.is_some());
        });
    }

    #[test]
    fn shared_ranges_overlap_and_an_exclusive_one_is_not_overtaken() {
        block_on(async {
            let lock = RangeLock::default();
            lock.turn_on();
            lock.arm();
            let a = lock.shared(0, 8).await.unwrap();
            let b = lock.shared(4, 8).await.unwrap();
            let mut exclusive = pin!(lock.exclusive(6, 1));
            assert!(poll_once(&mut exclusive).await.is_none());
            let mut late = pin!(lock.shared(6, 1));
            assert!(poll_once(&mut late).await.is_none(), "queued behind");
            drop(a);
            assert!(poll_once(&mut exclusive).await.is_none());
            drop(b);
            let held = poll_once(&mut exclusive).await.unwrap();
            assert!(poll_once(&mut late).await.is_none());
            drop(held);
            assert!(poll_once(&mut late).await.is_some());
        });
    }

    #[test]
    fn turns_itself_off_when_unused() {
        block_on(async {
            let lock = RangeLock::default();
            lock.turn_on();
            lock.arm();
            drop(lock.exclusive(0, 1).await);
            for _ in 0..=IDLE_SHARED {
                assert!(lock.is_on());
                drop(lock.shared(0, 1).await);
            }
            assert!(!lock.is_on());
        });
    }

    #[test]
    fn a_waiter_that_gives_up_leaves_no_trace() {
        block_on(async {
            let lock = RangeLock::default();
            lock.turn_on();
            lock.arm();
            let held = lock.shared(0, 8).await;
            {
                let mut waiter = pin!(lock.exclusive(0, 8));
                assert!(poll_once(&mut waiter).await.is_none());
            }
            let _next = poll_once(lock.shared(0, 8)).await.expect("not blocked");
            drop(held);
        });
    }
}
