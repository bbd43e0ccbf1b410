//! One disk: what it holds, what of that is durable, and what happens to an operation.

use std::io;
use std::ops::Range;

use super::fault::{Effect, Fault, Operations};
use super::image::{Change, Image};
use super::random::Random;

/// What was written and is not durable yet.
#[derive(Clone)]
pub(super) struct Cached {
    pub(super) operation: u64,
    pub(super) change: Change,
    /// When it completed, in numbers of [`Disk::tick`]; `None` while it has not.
    pub(super) completed: Option<u64>,
}

#[derive(Clone)]
pub(super) struct Disk {
    pub(super) size_bytes: u64,
    pub(super) alignment_bytes: usize,
    /// What a read finds.
    pub(super) image: Image,
    /// What is left for certain after a power cut.
    pub(super) durable: Image,
    /// The difference, in the order in which it landed.
    pub(super) cached: Vec<Cached>,
    /// Counts completions, so that a flush knows which came before it.
    pub(super) tick: u64,
    pub(super) fail_reads: bool,
    pub(super) fail_writes: bool,
    pub(super) fail_flushes: bool,
    /// Writes that still succeed before they all fail.
    pub(super) fuse: Option<u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) dead: bool,
    /// Counts its power cycles: what had it open before finds nobody there.
    pub(super) connection: u64,
    /// Latencies are so many times the usual ones.
    pub(super) slowness: u32,
    /// One change in so many takes very long; 0 for none.
    pub(super) stragglers: u64,
}

/// What an operation is to do.
#[derive(Clone)]
pub(super) enum Task {
    Read { offset_bytes: u64 },
    Change(Change),
    Flush,
}

/// What becomes of an operation, decided when it is given to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Met(Effect),
}

pub(super) fn failure() -> io::Error {
    io::Error::other("simulated failure")
}

impl Disk {
    pub(super) fn new(size_bytes: u64, alignment_bytes: usize, image: Image) -> Disk {
        Disk {
            size_bytes,
            alignment_bytes,
            durable: image.clone(),
            image,
            cached: Vec::new(),
            tick: 0,
            fail_reads: false,
            fail_writes: false,
            fail_flushes: false,
            fuse: None,
            faults: Vec::new(),
            dead: false,
            connection: 0,
            slowness: 1,
            stragglers: 0,
        }
    }

    /// Decides what becomes of `task`, which comes through a handle of this connection.
    pub(super) fn fate(
        &mut self,
        task: &Task,
        connection: u64,
        touched: Option<&Range<u64>>,
    ) -> Fate {
        let mut kind = Operations {
            reads: false,
            writes: false,
            zeroes: false,
            flushes: false,
        };
        let fails = match task {
            Task::Read { .. } => {
                kind.reads = true;
                self.fail_reads
            }
            Task::Change(change) => {
                kind.writes = matches!(change, Change::Write { .. });
                kind.zeroes = !kind.writes;
                self.fail_writes || self.burns()
            }
            Task::Flush => {
                kind.flushes = true;
                self.fail_flushes
            }
        };
        if fails || self.dead || self.connection != connection {
            return Fate::Met(Effect::Error);
        }
        match super::fault::met(&mut self.faults, kind, touched) {
            Some(effect) => Fate::Met(effect),
            None => Fate::Done,
        }
    }

    /// Counts a write on the fuse; true when it has burnt down.
    fn burns(&mut self) -> bool {
        match &mut self.fuse {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// A change reaches the disk (its cache).
    pub(super) fn land(&mut self, operation: u64, change: Change) {
        change.apply(&mut self.image);
        self.cached.push(Cached {
            operation,
            change,
            completed: None,
        });
    }

    /// An operation ended well.
    pub(super) fn complete(&mut self, operation: u64) {
        self.tick += 1;
        let tick = self.tick;
        let landed = self.cached.iter_mut().rev();
        if let Some(cached) = landed.into_iter().find(|c| c.operation == operation) {
            cached.completed = Some(tick);
        }
    }

    /// Makes durable what had completed at `since` (a value of [`Disk::tick`]), and what that was written over: a cache
    /// that holds the newer data has nothing older to write later.
    pub(super) fn flushed(&mut self, since: u64) {
        let mut covered: Vec<bool> = self
            .cached
            .iter()
            .map(|cached| cached.completed.is_some_and(|tick| tick <= since))
            .collect();
        for index in (0..covered.len()).rev() {
            if !covered[index] {
                let range = self.cached[index].change.range();
                covered[index] = (index + 1..covered.len()).any(|later| {
                    let newer = self.cached[later].change.range();
                    covered[later] && newer.start < range.end && range.start < newer.end
                });
            }
        }
        let durable = &mut self.durable;
        let mut covered = covered.into_iter();
        self.cached.retain(|cached| {
            let covered = covered.next().unwrap_or(false);
            if covered {
                cached.change.apply(durable);
            }
            !covered
        });
    }

    /// A flush that begins now fails: some of what it was to make durable never will be.
    pub(super) fn lose_some(&mut self, random: &mut Random) {
        self.cached
            .retain(|cached| cached.completed.is_none() || random.one_in(2));
    }

    /// What was lost is not to be seen any more.
    pub(super) fn forget(&mut self) {
        self.image = self.durable.clone();
        for cached in &self.cached {
            cached.change.apply(&mut self.image);
        }
    }

    /// The disk alone loses power and gets it again.
    pub(super) fn power_cycle(&mut self, random: &mut Random) {
        self.image = self.after_power_cut(&[], random);
        self.durable = self.image.clone();
        self.cached.clear();
        self.dead = false;
        self.connection += 1;
    }

    /// What a power cut leaves: everything durable, and of the rest, and of what had not landed yet (`under_way`), any
    /// part in any order.
    pub(super) fn after_power_cut(&self, under_way: &[Change], random: &mut Random) -> Image {
        let mut image = self.durable.clone();
        let mut changes: Vec<&Change> = self.cached.iter().map(|cached| &cached.change).collect();
        changes.extend(under_way);
        // One cut in eight loses all of it and one keeps all that had landed: extremes that chance would seldom hit.
        match random.below(8) {
            0 => {}
            1 => self
                .cached
                .iter()
                .for_each(|cached| cached.change.apply(&mut image)),
            _ => {
                random.shuffle(&mut changes);
                for change in changes {
                    change.tear(&mut image, random);
                }
            }
        }
        image
    }

    /// The same disk with power again.
    pub(super) fn restarted(&self, image: Image) -> Disk {
        Disk {
            faults: self.faults.clone(),
            dead: self.dead,
            connection: self.connection,
            slowness: self.slowness,
            stragglers: self.stragglers,
            ..Disk::new(self.size_bytes, self.alignment_bytes, image)
        }
    }
}
