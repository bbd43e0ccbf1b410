//! What the sectors of a volume may hold.
//!
//! Every write has a number, and fills its sectors with it; zeroes are number 0. The model keeps, for each sector, which
//! numbers a read may return now, and which a power cut may leave. It narrows with every answer: what a read returned
//! while nothing was being written must be returned again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::SECTOR;

/// A write.
struct Write {
    sectors: Range<u64>,
    value: u64,
    begun: u64,
    ended: Option<u64>,
}

/// One sector; only those that were ever written.
#[derive(Clone)]
struct Sector {
    /// What a read may return.
    now: BTreeSet<u64>,
    /// What a power cut may leave.
    left: BTreeSet<u64>,
}

impl Default for Sector {
    fn default() -> Self {
        Sector {
            now: BTreeSet::from([0]),
            left: BTreeSet::from([0]),
        }
    }
}

#[derive(Default)]
pub(super) struct Model {
    clock: u64,
    writes: Vec<Write>,
    sectors: BTreeMap<u64, Sector>,
}

/// A read or flush under way.
pub(super) struct Begun {
    at: u64,
    before: BTreeMap<u64, BTreeSet<u64>>,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A write begins; its number in the model.
    pub(super) fn write_begins(&mut self, sectors: Range<u64>, value: u64) -> usize {
        let begun = self.tick();
        for sector in sectors.clone() {
            let sector = self.sectors.entry(sector).or_default();
            sector.now.insert(value);
            sector.left.insert(value);
        }
        self.writes.push(Write {
            sectors,
            value,
            begun,
            ended: None,
        });
        self.writes.len() - 1
    }

    /// A write was answered; `durable` if that was promised.
    pub(super) fn write_ends(&mut self, number: usize, durable: bool) {
        let now = self.tick();
        self.writes[number].ended = Some(now);
        let begun = self.writes[number].begun;
        for sector in self.writes[number].sectors.clone() {
            let left: BTreeSet<u64> = self
                .writes
                .iter()
                .enumerate()
                .filter(|(other, write)| {
                    *other == number
                        || write.sectors.contains(&sector)
                            && write.ended.is_none_or(|ended| ended > begun)
                })
                .map(|(_, write)| write.value)
                .collect();
            if let Some(sector) = self.sectors.get_mut(&sector) {
                if durable {
                    sector.left.clone_from(&left);
                }
                sector.now = left;
            }
        }
    }

    /// A write failed: its sectors hold anything of before or of it.
    pub(super) fn write_fails(&mut self, number: usize) {
        let now = self.tick();
        self.writes[number].ended = Some(now);
    }

    /// A read of `sectors`, or with `None` a flush, begins.
    pub(super) fn begin(&mut self, sectors: Option<Range<u64>>) -> Begun {
        let at = self.tick();
        let before = match sectors {
            Some(sectors) => sectors
                .map(|sector| {
                    (
                        sector,
                        self.sectors.get(&sector).cloned().unwrap_or_default(),
                    )
                })
                .map(|(number, sector)| (number, sector.now))
                .collect(),
            None => self
                .sectors
                .iter()
                .map(|(number, sector)| (*number, sector.now.clone()))
                .collect(),
        };
        Begun { at, before }
    }

    /// Writes of a sector that were not over at `at`.
    fn later(&self, sector: u64, at: u64) -> BTreeSet<u64> {
        self.writes
            .iter()
            .filter(|write| {
                write.sectors.contains(&sector) && write.ended.is_none_or(|ended| ended > at)
            })
            .map(|write| write.value)
            .collect()
    }

    /// A read returned `data`.
    pub(super) fn read_ends(&mut self, begun: Begun, data: &[u8], what: &str) {
        self.tick();
        for ((sector, before), bytes) in begun.before.into_iter().zip(data.chunks_exact(SECTOR)) {
            let value = value_of(bytes)
                .unwrap_or_else(|| panic!("{what}: sector {sector} is torn in itself"));
            let later = self.later(sector, begun.at);
            assert!(
                before.contains(&value) || later.contains(&value),
                "{what}: sector {sector} is {value}, may be {before:?} or {later:?}"
            );
            if later.is_empty() && value != 0 || self.sectors.contains_key(&sector) {
                let state = self.sectors.entry(sector).or_default();
                if later.is_empty() {
                    state.now = BTreeSet::from([value]);
                }
            }
        }
    }

    /// A flush was answered.
    pub(super) fn flush_ends(&mut self, begun: Begun) {
        self.tick();
        for (number, before) in begun.before {
            let later = self.later(number, begun.at);
            if let Some(sector) = self.sectors.get_mut(&number) {
                sector.left = before.union(&later).copied().collect();
            }
        }
    }

    /// The process was killed, or the power cut.
    pub(super) fn crash(&mut self, power: bool) {
        let now = self.tick();
        for write in &mut self.writes {
            write.ended.get_or_insert(now);
        }
        if power {
            for sector in self.sectors.values_mut() {
                sector.now.clone_from(&sector.left);
            }
        }
        // What is durable of what may be there is not known until it is flushed again.
        self.writes.clear();
    }
}

/// The number that a sector is filled with.
fn value_of(bytes: &[u8]) -> Option<u64> {
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    bytes
        .chunks_exact(8)
        .all(|word| word == first)
        .then(|| u64::from_le_bytes(first))
}

/// Sectors filled with a number.
pub(super) fn content(value: u64, sectors: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(sectors as usize * SECTOR / 8)
}
