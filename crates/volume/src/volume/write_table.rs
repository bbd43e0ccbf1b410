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
    /// By ticket.
    list: Vec<Entry>,
}

/// The table of one volume.
#[derive(Default)]
pub(crate) struct WriteTable {
    entries: Mutex<Entries>,
}

/// A range in use; given back when dropped.
pub(crate) struct RangeGuard<'a> {
    table: &'a WriteTable,
    ticket: u64,
}

impl Entries {
    /// Whether somebody with an earlier ticket is in the way.
    fn blocked(&self, ticket: u64) -> Option<bool> {
        let at = self
            .list
            .binary_search_by_key(&ticket, |entry| entry.ticket)
            .ok()?;
        let (before, rest) = self.list.split_at(at);
        let own = rest.first()?;
        Some(before.iter().any(|other| conflict(other, own)))
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
        let free = !entries.list.iter().any(|other| conflict(other, &entry));
        entries.list.push(entry);
        let guard = RangeGuard {
            table: self,
            ticket,
        };
        (guard, free)
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
            .filter(|entry| entry.usage == Use::Write)
            .map(|entry| &entry.range)
    }
}

impl RangeGuard<'_> {
    async fn wait(&self) {
        poll_fn(|context| {
            let mut entries = self.table.entries.lock();
            // The entry is there as long as the guard.
            if !entries.blocked(self.ticket).unwrap_or(false) {
                return Poll::Ready(());
            }
            if let Ok(at) = entries
                .list
                .binary_search_by_key(&self.ticket, |entry| entry.ticket)
            {
                let waker = &mut entries.list[at].waker;
                if !waker
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(context.waker()))
                {
                    *waker = Some(context.waker().clone());
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
        if let Ok(at) = entries
            .list
            .binary_search_by_key(&self.ticket, |entry| entry.ticket)
        {
            let gone = entries.list.remove(at);
            for later in &mut entries.list[at..] {
                if conflict(&gone, later) {
                    wakers.extend(later.waker.take());
                }
            }
        }
        drop(entries);
        for waker in wakers {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

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
