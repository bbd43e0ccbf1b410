//! What goes wrong with a disk, and when.

use std::ops::Range;
use std::time::Duration;

/// What happens to an operation that a [`Fault`] meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails and nothing of it is done.
    Error,
    /// It fails, and a write or zeroes may have been done in part.
    ErrorInPart,
    /// A flush fails, and some of what it was to make durable never will be: the kernel tells of a lost write once. What
    /// the disk's cache shows stays until [`SimWorld::forget`](super::SimWorld::forget) or a crash. For other
    /// operations as [`Effect::Error`].
    ErrorAndLoss,
    /// It does not end for this long, for ever with `None` (until [`SimWorld::resume`](super::SimWorld::resume)); what
    /// it was to write lands when the hang ends, also when nobody waits for it any more.
    Hang(Option<Duration>),
    /// It succeeds, but nothing of it is done: a lost write, a flush that lies.
    Lose,
    /// A write lands somewhere in this range of the disk (at a multiple of 512) and not where it should.
    Misdirect(Range<u64>),
    /// So many bits are wrong: of what a read returns, once; of what a write leaves, for good.
    Corrupt(u32),
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations {
    /// Reads.
    pub reads: bool,
    /// Writes.
    pub writes: bool,
    /// Zeroes (UNMAP, hole punching).
    pub zeroes: bool,
    /// Flushes.
    pub flushes: bool,
}

impl Operations {
    /// Every kind.
    pub const ALL: Operations = Operations {
        reads: true,
        writes: true,
        zeroes: true,
        flushes: true,
    };
    /// Reads only.
    pub const READS: Operations = Operations {
        reads: true,
        writes: false,
        zeroes: false,
        flushes: false,
    };
    /// Writes and zeroes.
    pub const CHANGES: Operations = Operations {
        reads: false,
        writes: true,
        zeroes: true,
        flushes: false,
    };
    /// Flushes only.
    pub const FLUSHES: Operations = Operations {
        reads: false,
        writes: false,
        zeroes: false,
        flushes: true,
    };
}

/// A rule for operations that are given to a disk from now on. The first rule that meets an operation counts.
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    operations: Operations,
    range: Range<u64>,
    skip: u64,
    times: u64,
}

impl Fault {
    /// `effect` on every operation of the disk, from now on.
    pub fn new(effect: Effect) -> Fault {
        Fault {
            effect,
            operations: Operations::ALL,
            range: 0..u64::MAX,
            skip: 0,
            times: u64::MAX,
        }
    }

    /// Only for these kinds.
    pub fn on(self, operations: Operations) -> Fault {
        Fault { operations, ..self }
    }

    /// Only for reads, writes and zeroes that touch this range of bytes.
    pub fn range(self, range: Range<u64>) -> Fault {
        Fault { range, ..self }
    }

    /// Spares the first `skip` operations that it would meet.
    pub fn after(self, skip: u64) -> Fault {
        Fault { skip, ..self }
    }

    /// Ends after so many operations.
    pub fn times(self, times: u64) -> Fault {
        Fault { times, ..self }
    }

    /// Ends after one operation.
    pub fn once(self) -> Fault {
        self.times(1)
    }

    /// Whether it meets this operation; counts it.
    fn meets(&mut self, kind: Operations, touched: Option<&Range<u64>>) -> bool {
        let kind_meets = self.operations.reads && kind.reads
            || self.operations.writes && kind.writes
            || self.operations.zeroes && kind.zeroes
            || self.operations.flushes && kind.flushes;
        let place_meets =
            touched.is_none_or(|at| at.start < self.range.end && self.range.start < at.end);
        if !kind_meets || !place_meets || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// The effect of the first of `faults` that meets an operation; spent ones are removed.
pub(super) fn met(
    faults: &mut Vec<Fault>,
    kind: Operations,
    touched: Option<&Range<u64>>,
) -> Option<Effect> {
    let effect = faults
        .iter_mut()
        .find_map(|fault| fault.meets(kind, touched).then(|| fault.effect.clone()));
    faults.retain(|fault| fault.times > 0);
    effect
}
