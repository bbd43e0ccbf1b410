//! The gate: may this nexus do this class of command on this logical unit, now?
//!
//! One [`Gate`] per nexus and logical unit. **Admission** is an increment of an in-flight counter followed by a load
//! of the gate word; **fencing** is a store of the gate word followed by a wait for the counters. All four are
//! sequentially consistent, so either the admission sees the new word or the fence sees the counter: a task that was
//! admitted under the old word is waited for, and one that comes later is judged by the new one.
//!
//! **No starvation.** Tasks that are still allowed after the change keep coming, so one counter might never be seen
//! at zero. There are two; new tasks enter the one named by `epoch`. A drain waits for the idle counter (stragglers
//! that read the epoch long ago), flips the epoch, and waits for the other. The waits can end because nothing new
//! enters the counter that is waited for, but for a task that had read the epoch just before the flip.
//!
//! Drains of one gate are serialised by the logical unit's lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use event_listener::{Event, listener};
use reservation::access::Column;

/// What an initiator may do with a logical unit, whatever is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Grant {
    /// The logical unit does not exist for this initiator.
    #[default]
    None = 0,
    /// The medium and the private region are write protected.
    ReadOnly = 1,
    /// Everything, within what reservations allow.
    ReadWrite = 2,
}

impl From<volume::Access> for Grant {
    fn from(access: volume::Access) -> Self {
        match access {
            volume::Access::None => Grant::None,
            volume::Access::Ro => Grant::ReadOnly,
            volume::Access::Rw => Grant::ReadWrite,
        }
    }
}

/// The word that admission loads: grant, column of the access table, and the bits that send a command down the slow
/// path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GateWord(u32);

impl GateWord {
    const GRANT: u32 = 0b11;
    const COLUMN_SHIFT: u32 = 2;
    const COLUMN: u32 = 0x3f << Self::COLUMN_SHIFT;
    /// The logical unit is a mailbox: the nexus writes in its window only.
    pub const WINDOWED: u32 = 1 << 8;
    /// A unit attention condition is pending for this nexus.
    pub const ATTENTION: u32 = 1 << 9;
    /// The logical unit is not ready (stopped, sanitizing, failed closed).
    pub const NOT_READY: u32 = 1 << 10;
    /// Software write protect is set in the Control mode page.
    pub const WRITE_PROTECTED: u32 = 1 << 11;
    /// The nexus has been detached, or the logical unit removed.
    pub const GONE: u32 = 1 << 12;
    const SLOW: u32 = Self::ATTENTION | Self::NOT_READY | Self::WRITE_PROTECTED | Self::GONE;

    /// A word with this grant and access column and no slow-path bit.
    pub fn new(grant: Grant, column: Column) -> Self {
        Self(grant as u32 | u32::from(column.code()) << Self::COLUMN_SHIFT)
    }

    /// Would a nexus that goes from this word to `after` lose access to something?
    pub fn narrows_to(self, after: Self) -> bool {
        after.grant() < self.grant()
            || self.column().narrows_to(after.column())
            || after.has(Self::WINDOWED) && !self.has(Self::WINDOWED)
    }

    /// The same word with `bits` set or cleared.
    pub fn with(self, bits: u32, set: bool) -> Self {
        Self(if set { self.0 | bits } else { self.0 & !bits })
    }

    /// Are all of `bits` set?
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Does anything beyond grant and column have to be looked at?
    pub fn is_slow(self) -> bool {
        self.0 & Self::SLOW != 0
    }

    /// Is the nexus fenced, or confined to a window? Then what it does to the logical unit as a whole must end with itself.
    pub fn is_restricted(self) -> bool {
        self.has(Self::WINDOWED) || self.column() == Column::Fenced
    }

    /// The grant.
    pub fn grant(self) -> Grant {
        match self.0 & Self::GRANT {
            0 => Grant::None,
            1 => Grant::ReadOnly,
            _ => Grant::ReadWrite,
        }
    }

    /// The column of the access table that applies.
    pub fn column(self) -> Column {
        // The code was put there by `new`; anything else would fail closed.
        Column::from_code(((self.0 & Self::COLUMN) >> Self::COLUMN_SHIFT) as u8)
            .unwrap_or(Column::NotReady)
    }
}

impl std::fmt::Debug for GateWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}/{:?}/bits {:#x}",
            self.grant(),
            self.column(),
            self.0 & Self::SLOW
        )
    }
}

/// Gate word and in-flight counters of one nexus and logical unit, on cache lines of their own.
#[repr(align(128))]
pub struct Gate {
    word: AtomicU32,
    epoch: AtomicU32,
    in_flight: [AtomicU64; 2],
    drained: Event,
}

impl Gate {
    /// A gate that starts with `word`.
    pub fn new(word: GateWord) -> Self {
        Self {
            word: AtomicU32::new(word.0),
            epoch: AtomicU32::new(0),
            in_flight: [AtomicU64::new(0), AtomicU64::new(0)],
            drained: Event::new(),
        }
    }

    /// Enters the gate: counts the caller as in flight and returns the word to judge it by. The caller judges, and
    /// calls [`Gate::leave`] at once when denied, else when its last I/O has ended.
    pub fn enter(&self) -> (u8, GateWord) {
        let epoch = (self.epoch.load(SeqCst) & 1) as u8;
        self.in_flight[usize::from(epoch)].fetch_add(1, SeqCst);
        (epoch, GateWord(self.word.load(SeqCst)))
    }

    /// Leaves the gate that was entered in `epoch`.
    pub fn leave(&self, epoch: u8) {
        if self.in_flight[usize::from(epoch & 1)].fetch_sub(1, SeqCst) == 1 {
            self.drained.notify(usize::MAX);
        }
    }

    /// The current word.
    pub fn word(&self) -> GateWord {
        GateWord(self.word.load(SeqCst))
    }

    /// Sets or clears slow-path bits.
    pub fn set(&self, bits: u32, set: bool) {
        if set {
            self.word.fetch_or(bits, SeqCst);
        } else {
            self.word.fetch_and(!bits, SeqCst);
        }
    }

    /// Publishes grant, column and [`GateWord::WINDOWED`] of `word`, leaving the other bits as they are.
    pub fn publish(&self, word: GateWord) {
        const PUBLISHED: u32 = GateWord::GRANT | GateWord::COLUMN | GateWord::WINDOWED;
        let mut current = self.word.load(SeqCst);
        while let Err(actual) = self.word.compare_exchange(
            current,
            current & !PUBLISHED | word.0 & PUBLISHED,
            SeqCst,
            SeqCst,
        ) {
            current = actual;
        }
    }

    /// Number of tasks in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight[0].load(SeqCst) + self.in_flight[1].load(SeqCst)
    }

    /// Waits until every task that entered before the call has left. Must not run twice at once on one gate.
    pub async fn drain(&self) {
        let epoch = (self.epoch.load(SeqCst) & 1) as usize;
        self.idle(1 - epoch).await;
        self.epoch.store(1 - epoch as u32, SeqCst);
        self.idle(epoch).await;
    }

    async fn idle(&self, epoch: usize) {
        loop {
            if self.in_flight[epoch].load(SeqCst) == 0 {
                return;
            }
            listener!(self.drained => drained);
            if self.in_flight[epoch].load(SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::pin::pin;

    #[test]
    fn word_round_trips() {
        for grant in [Grant::None, Grant::ReadOnly, Grant::ReadWrite] {
            for column in Column::ALL {
                let word = GateWord::new(grant, column).with(GateWord::ATTENTION, true);
                assert_eq!((word.grant(), word.column()), (grant, column));
                assert!(word.is_slow() && word.has(GateWord::ATTENTION));
                assert!(!word.with(GateWord::ATTENTION, false).is_slow());
            }
        }
    }

    #[test]
    fn publish_keeps_the_bits_it_does_not_own() {
        let gate = Gate::new(GateWord::new(Grant::ReadWrite, Column::Holder));
        gate.set(GateWord::ATTENTION | GateWord::NOT_READY, true);
        gate.publish(GateWord::new(Grant::ReadOnly, Column::WriteExclusive));
        let word = gate.word();
        assert_eq!(
            (word.grant(), word.column()),
            (Grant::ReadOnly, Column::WriteExclusive)
        );
        assert!(word.has(GateWord::ATTENTION | GateWord::NOT_READY));
    }

    #[test]
    fn drain_waits_for_what_was_admitted_and_not_for_what_came_later() {
        block_on(async {
            let gate = Gate::new(GateWord::new(Grant::ReadWrite, Column::Open));
            let (first, _) = gate.enter();
            let mut drain = pin!(gate.drain());
            assert!(poll_once(&mut drain).await.is_none());
            let (second, _) = gate.enter();
            assert_ne!(first, second, "the epoch was flipped");
            assert!(poll_once(&mut drain).await.is_none());
            gate.leave(first);
            assert!(poll_once(&mut drain).await.is_some());
            assert_eq!(gate.in_flight(), 1);
            gate.leave(second);
        });
    }

    #[test]
    fn drain_waits_for_a_straggler_of_the_idle_epoch() {
        block_on(async {
            let gate = Gate::new(GateWord::new(Grant::ReadWrite, Column::Open));
            let (epoch, _) = gate.enter();
            // As if this task had read the epoch before an earlier drain flipped it.
            gate.epoch.store(1 - u32::from(epoch), SeqCst);
            let mut drain = pin!(gate.drain());
            assert!(poll_once(&mut drain).await.is_none());
            gate.leave(epoch);
            assert!(poll_once(&mut drain).await.is_some());
        });
    }
}
