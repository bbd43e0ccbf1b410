//! The history of a world, and every crash in it.

use super::SimWorld;
use super::disk::Disk;
use super::image::{Change, Image};
use super::random::Random;

/// What happened.
#[derive(Clone)]
pub(super) enum Event {
    /// A write or zeroes were given to a disk; something of it may be on the medium from here on.
    Begin {
        disk: usize,
        operation: u64,
        change: Change,
    },
    /// It was done.
    Land { disk: usize, operation: u64 },
    /// It was answered.
    Complete { disk: usize, operation: u64 },
    /// A flush ended that covers what had completed at `since`.
    Flush { disk: usize, since: u64 },
    /// The test's own: something was acknowledged.
    Mark(u64),
}

impl Event {
    /// Whether a crash after it leaves something else than one before it.
    fn counts(&self) -> bool {
        matches!(
            self,
            Event::Begin { .. } | Event::Flush { .. } | Event::Mark(_)
        )
    }
}

/// A point of a crash and what the disks may hold after it.
pub struct Crash {
    /// The last mark before it.
    pub mark: Option<u64>,
    /// Content of each disk.
    pub images: Vec<Image>,
}

impl SimWorld {
    /// Starts the history: what the disks hold now counts as durable. To be called when nothing is in flight.
    pub fn record(&self) {
        let mut inner = self.inner.lock();
        inner.log.clear();
        inner.recording = true;
        for disk in &mut inner.disks {
            disk.durable = disk.image.clone();
            disk.cached.clear();
        }
        inner.initial = inner.disks.clone();
    }

    /// Notes in the history that something was acknowledged.
    pub fn mark(&self, mark: u64) {
        self.inner.lock().log(Event::Mark(mark));
    }

    /// Number of writes, flushes and marks since [`SimWorld::record`], and how many of them are flushes.
    pub fn history(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let flushes = |event: &&Event| matches!(event, Event::Flush { .. });
        (
            inner.log.iter().filter(|event| event.counts()).count(),
            inner.log.iter().filter(flushes).count(),
        )
    }

    /// Calls `check` with crash images after every event of the history: one with all unflushed writes lost, one with all
    /// of them there, and `samples` random ones, chosen by `seed`.
    pub fn crashes(&self, samples: u32, seed: u64, mut check: impl FnMut(Crash)) {
        let (log, mut disks): (Vec<Event>, Vec<Disk>) = {
            let inner = self.inner.lock();
            (inner.log.clone(), inner.initial.clone())
        };
        let mut random = Random::new(seed);
        // Given to the disk, but not landed: (disk, operation, change).
        let mut under_way: Vec<(usize, u64, Change)> = Vec::new();
        let mut mark = None;
        for event in log {
            let counts = event.counts();
            match event {
                Event::Begin {
                    disk,
                    operation,
                    change,
                } => under_way.push((disk, operation, change)),
                Event::Land { disk, operation } => {
                    if let Some(at) = under_way.iter().position(|(_, o, _)| *o == operation) {
                        let (.., change) = under_way.remove(at);
                        disks[disk].land(operation, change);
                    }
                }
                Event::Complete { disk, operation } => disks[disk].complete(operation),
                Event::Flush { disk, since } => disks[disk].flushed(since),
                Event::Mark(new) => mark = Some(new),
            }
            if !counts {
                continue;
            }
            for sample in 0..samples + 2 {
                let images = disks.iter().enumerate().map(|(number, disk)| {
                    let theirs = under_way.iter().filter(|(disk, ..)| *disk == number);
                    let changes: Vec<Change> = theirs.map(|(.., change)| change.clone()).collect();
                    match sample {
                        0 => disk.durable.clone(),
                        1 => {
                            let mut image = disk.image.clone();
                            changes.iter().for_each(|change| change.apply(&mut image));
                            image
                        }
                        _ => disk.after_power_cut(&changes, &mut random),
                    }
                });
                let images = images.collect();
                check(Crash { mark, images });
            }
        }
    }
}
