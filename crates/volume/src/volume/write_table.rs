//! The write table: which ranges of a volume are being read and written now.
//!
//! Overlapping writes exclude each other, so that all plexes end with the same one of them. A write waits for reads
//! that overlap it and a read for writes: otherwise a read could return what one plex has already and another has
//! not, and after a crash the other one counts. First come, first served: whoever asks is in the table at once and
//! waits for those before it that overlap, so that nobody starves.
//!
//! One short mutex: the table holds what is in flight (tens of entries), and an uncontended lock costs less than
//! anything that would avoid it. A one-plex volume takes no part unless its device needs whole blocks.

use std::future::poll_fn;
use std::ops::Range;
use std::task::{Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use slab::Slab;

/// What somebody does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Reads it.
    Read,
    /// Writes it, or must see that nobody else does.
    Write,
}

struct Entry {
    ticket: u64,
    range: Range<u64>,
    usage: Use,
    /// Of somebody who waits.
    waker: Option<Waker>,
}

#[derive(Default)]
struct Entries {
    next_ticket: u64,
    /// In no order.
    list: Slab<Entry>,
    /// Of the entries, by their keys: what can be searched fast. Empty where there is none.
    ranges: Vec<Range<u64>>,
    /// Entries with a waker.
    waiting: usize,
}

/// The table of one volume.
#[derive(Default)]
pub(crate) struct WriteTable {
    entries: Mutex<Entries>,
}

/// A range in use; given back when dropped.
pub(crate) struct RangeGuard<'a> {
    table: &'a WriteTable,
    key: usize,
}

impl Entries {
    fn insert(&mut self, entry: Entry) -> usize {
        let range = entry.range.clone();
        let key = self.list.insert(entry);
        match self.ranges.get_mut(key) {
            Some(vacant) => *vacant = range,
            None => self.ranges.push(range), // a slab has no holes behind its last entry
        }
        key
    }

    fn remove(&mut self, key: usize) -> Entry {
        self.ranges[key] = 0..0;
        self.list.remove(key)
    }

    /// Whether somebody uses a part of the range.
    fn is_touched(&self, range: &Range<u64>) -> bool {
        // All of them, without a branch: faster than to stop early.
        self.ranges.iter().fold(false, |touched, other| {
            touched | ((other.start < range.end) & (range.start < other.end))
        })
    }

    /// Whether somebody with an earlier ticket is in the way.
    fn is_blocked(&self, own: &Entry) -> bool {
        self.list
            .iter()
            .any(|(_, other)| other.ticket < own.ticket && conflict(other, own))
    }
}

fn conflict(a: &Entry, b: &Entry) -> bool {
    (a.usage == Use::Write || b.usage == Use::Write)
        && a.range.start < b.range.end
        && b.range.start < a.range.end
}

impl WriteTable {
    /// Waits until nobody who came earlier is in the way, and takes the range. An empty range is in nobody's way.
    pub(crate) async fn take(&self, range: Range<u64>, usage: Use) -> RangeGuard<'_> {
        let (guard, free) = self.enter(range, usage);
        if !free {
            guard.wait().await;
        }
        guard
    }

    /// Enters the range; the second value says whether it is ours already.
    fn enter(&self, range: Range<u64>, usage: Use) -> (RangeGuard<'_>, bool) {
        let mut entries = self.entries.lock();
        let ticket = entries.next_ticket;
        entries.next_ticket += 1;
        let entry = Entry {
            ticket,
            range,
            usage,
            waker: None,
        };
        let free = !entries.is_touched(&entry.range) || !entries.is_blocked(&entry);
        let key = entries.insert(entry);
        (RangeGuard { table: self, key }, free)
    }

    /// Holds the table still: nobody enters or leaves it meanwhile. For the sweep of the region log.
    pub(crate) fn frozen(&self) -> Frozen<'_> {
        Frozen(self.entries.lock())
    }
}

/// The table, held still.
pub(crate) struct Frozen<'a>(MutexGuard<'a, Entries>);

impl Frozen<'_> {
    /// The ranges that are being written, or that somebody waits to write.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0
            .list
            .iter()
            .filter(|(_, entry)| entry.usage == Use::Write)
            .map(|(_, entry)| &entry.range)
    }
}

impl RangeGuard<'_> {
    async fn wait(&self) {
        poll_fn(|context| {
            let mut entries = self.table.entries.lock();
            let entries = &mut *entries;
            // The entry is there as long as the guard.
            if !entries.is_blocked(&entries.list[self.key]) {
                return Poll::Ready(());
            }
            match &mut entries.list[self.key].waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => {
                    *none = Some(context.waker().clone());
                    entries.waiting += 1;
                }
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut wakers = smallvec::SmallVec::<[Waker; 4]>::new();
        let mut entries = self.table.entries.lock();
        let gone = entries.remove(self.key);
        entries.waiting -= usize::from(gone.waker.is_some());
        if entries.waiting > 0 {
            for (_, later) in &mut entries.list {
                if later.ticket > gone.ticket && conflict(&gone, later) {
                    wakers.extend(later.waker.take());
                }
            }
            entries.waiting -= wakers.len();
        }
        drop(entries);
        for waker in wakers {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::SeqCst;
    use std::task::{Context, Wake};

    use futures_lite::future::{block_on, poll_once};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[test]
    fn writes_wait_for_what_overlaps_and_reads_for_writes() {
        block_on(async {
            let table = WriteTable::default();
            let first = table.take(0..10, Use::Write).await;
            let _apart = table.take(10..20, Use::Write).await;
            let mut write = Box::pin(table.take(9..10, Use::Write));
            let mut read = Box::pin(table.take(0..5, Use::Read));
            assert!(poll_once(&mut write).await.is_none());
            assert!(poll_once(&mut read).await.is_none());
            drop(first);
            let write = poll_once(&mut write).await.unwrap();
            let read = poll_once(&mut read).await.unwrap();
            let _beside = poll_once(Box::pin(table.take(0..9, Use::Read)))
                .await
                .unwrap();
            let mut later = Box::pin(table.take(0..1, Use::Write));
            assert!(
                poll_once(&mut later).await.is_none(),
                "a write waits for reads"
            );
            drop((write, read));
            assert!(poll_once(&mut later).await.is_none());
        });
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    proptest! {
        /// Beside a list in order of coming: somebody has his range when nobody before him is in the way, and whoever
        /// waited is woken then.
        #[test]
        fn as_a_list_in_order(steps in vec((any::<bool>(), 0..40u64, 1..12u64, any::<bool>(), any::<Index>()), 1..80)) {
            let table = WriteTable::default();
            let mut list = Vec::new();
            for (comes, start, length, writes, who) in steps {
                if comes || list.is_empty() {
                    let usage = if writes { Use::Write } else { Use::Read };
                    let range = start..start + length;
                    let woken = Arc::new(Woken(AtomicBool::new(true)));
                    let taking = Box::pin(table.take(range.clone(), usage));
                    list.push((range, usage, Some(taking), None, woken));
                } else {
                    let gone = list.remove(who.index(list.len()));
                    drop(gone);
                }
                for at in 0..list.len() {
                    let (before, rest) = list.split_at_mut(at);
                    let (range, usage, taking, guard, woken) = &mut rest[0];
                    let Some(future) = taking else { continue };
                    let free = !before.iter().any(|(other, other_usage, ..)| {
                        (*usage == Use::Write || *other_usage == Use::Write)
                            && range.start < other.end
                            && other.start < range.end
                    });
                    let was_woken = woken.0.swap(false, SeqCst);
                    let waker = Waker::from(woken.clone());
                    let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                    prop_assert_eq!(polled.is_ready(), free);
                    prop_assert!(was_woken || !free, "not woken");
                    if let Poll::Ready(taken) = polled {
                        (*taking, *guard) = (None, Some(taken));
                    }
                }
            }
            drop(list);
            prop_assert!(table.entries.lock().list.is_empty());
            prop_assert_eq!(table.entries.lock().waiting, 0);
        }
    }

    #[test]
    fn first_come_first_served_and_who_gives_up_is_in_nobodys_way() {
        block_on(async {
            let table = WriteTable::default();
            let read = table.take(0..10, Use::Read).await;
            let mut write = Box::pin(table.take(0..10, Use::Write));
            assert!(poll_once(&mut write).await.is_none());
            let mut late = Box::pin(table.take(5..6, Use::Read));
            assert!(poll_once(&mut late).await.is_none(), "not past the write");
            drop(write);
            assert!(poll_once(&mut late).await.is_some());
            drop(read);
            assert!(table.entries.lock().list.is_empty());
        });
    }
}
