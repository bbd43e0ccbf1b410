//! Free space of a device, derived from the extents in use, and where new extents go.
//!
//! Data extents are multiples of 1 MiB and taken first-fit from the bottom; private regions are multiples of 64 KiB and
//! taken from the top, so that they do not fragment the space that volumes grow into.

use std::collections::BTreeMap;

use thiserror::Error;

/// Alignment and granularity of data extents in bytes.
pub const DATA_UNIT_BYTES: u64 = 1 << 20;
/// Alignment and granularity of private extents in bytes.
pub const PRIVATE_UNIT_BYTES: u64 = 64 << 10;

/// A run of bytes of a device: first byte and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// First byte.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
}

impl Run {
    fn end(&self) -> u64 {
        self.offset_bytes + self.length_bytes
    }
}

/// The extents in use are impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the extent of {} bytes at {} is outside the data area or overlaps another", run.length_bytes, run.offset_bytes)]
pub struct Overlap {
    /// The extent.
    pub run: Run,
}

/// The free runs of one device, none touching another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeMap {
    area: Run,
    /// Length by first byte.
    free: BTreeMap<u64, u64>,
    free_bytes: u64,
}

impl FreeMap {
    /// What `used` leaves of `area`.
    ///
    /// # Errors
    /// [`Overlap`] when extents overlap or leave the area.
    pub fn new(area: Run, used: impl IntoIterator<Item = Run>) -> Result<FreeMap, Overlap> {
        let mut used: Vec<Run> = used.into_iter().collect();
        used.sort_unstable();
        let mut map = FreeMap {
            area,
            free: BTreeMap::new(),
            free_bytes: 0,
        };
        let mut at = area.offset_bytes;
        for run in used {
            if run.offset_bytes < at || !map.is_inside(run) {
                return Err(Overlap { run });
            }
            map.insert(at, run.offset_bytes - at);
            at = run.end();
        }
        map.insert(at, area.end() - at);
        Ok(map)
    }

    /// Whether a run has a length and lies in the area.
    fn is_inside(&self, run: Run) -> bool {
        run.length_bytes > 0
            && run.offset_bytes >= self.area.offset_bytes
            && run
                .offset_bytes
                .checked_add(run.length_bytes)
                .is_some_and(|end| end <= self.area.end())
    }

    fn insert(&mut self, offset_bytes: u64, length_bytes: u64) {
        if length_bytes > 0 {
            self.free.insert(offset_bytes, length_bytes);
            self.free_bytes += length_bytes;
        }
    }

    fn runs(&self) -> impl DoubleEndedIterator<Item = Run> + '_ {
        self.free.iter().map(|(offset_bytes, length_bytes)| Run {
            offset_bytes: *offset_bytes,
            length_bytes: *length_bytes,
        })
    }

    /// Free bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Free bytes that data extents can use.
    pub fn free_for_data_bytes(&self) -> u64 {
        self.runs().map(|run| data_part(run).length_bytes).sum()
    }

    /// Takes up to `length_bytes` (rounded up to [`DATA_UNIT_BYTES`]) from the bottom, in as few runs as first-fit gives:
    /// one run that is long enough if there is one, else the lowest ones. Returns less when there is not enough.
    pub fn take_data(&mut self, length_bytes: u64) -> Vec<Run> {
        let mut need = length_bytes.div_ceil(DATA_UNIT_BYTES) * DATA_UNIT_BYTES;
        let mut taken = Vec::new();
        if let Some(run) = self
            .runs()
            .map(data_part)
            .find(|run| run.length_bytes >= need && need > 0)
        {
            taken.push(Run {
                length_bytes: need,
                ..run
            });
        } else {
            for run in self.runs().map(data_part) {
                if need > 0 && run.length_bytes > 0 {
                    let length_bytes = run.length_bytes.min(need);
                    taken.push(Run {
                        length_bytes,
                        ..run
                    });
                    need -= length_bytes;
                }
            }
        }
        for run in &taken {
            self.take(*run);
        }
        taken
    }

    /// Takes the run right behind `end`, up to `length_bytes` (rounded up), so that an extent can be made longer.
    pub fn take_data_at(&mut self, end: u64, length_bytes: u64) -> Option<Run> {
        let need = length_bytes.div_ceil(DATA_UNIT_BYTES) * DATA_UNIT_BYTES;
        let length_bytes = (self.free.get(&end)? / DATA_UNIT_BYTES * DATA_UNIT_BYTES).min(need);
        if length_bytes == 0 || !end.is_multiple_of(DATA_UNIT_BYTES) {
            return None;
        }
        let taken = Run {
            offset_bytes: end,
            length_bytes,
        };
        self.take(taken);
        Some(taken)
    }

    /// Takes one run of exactly `length_bytes` (rounded up to [`PRIVATE_UNIT_BYTES`]) from the top.
    pub fn take_private(&mut self, length_bytes: u64) -> Option<Run> {
        let need = length_bytes.div_ceil(PRIVATE_UNIT_BYTES) * PRIVATE_UNIT_BYTES;
        let taken = self.runs().rev().find_map(|run| {
            let end = run.end() / PRIVATE_UNIT_BYTES * PRIVATE_UNIT_BYTES;
            let start = end.checked_sub(need)?;
            (start >= run.offset_bytes && need > 0).then_some(Run {
                offset_bytes: start,
                length_bytes: need,
            })
        })?;
        self.take(taken);
        Some(taken)
    }

    /// Takes `run` out of the map; false, and nothing changed, unless all of it is free.
    pub fn take(&mut self, run: Run) -> bool {
        if !self.is_inside(run) {
            return false;
        }
        let Some((&offset_bytes, &length_bytes)) = self.free.range(..=run.offset_bytes).next_back()
        else {
            return false;
        };
        let end = offset_bytes + length_bytes;
        if end < run.end() {
            return false;
        }
        self.free.remove(&offset_bytes);
        self.free_bytes -= length_bytes;
        self.insert(offset_bytes, run.offset_bytes - offset_bytes);
        self.insert(run.end(), end - run.end());
        true
    }

    /// Takes whatever of `run` is free.
    pub fn take_what_is_free(&mut self, run: Run) {
        let end = run.offset_bytes.saturating_add(run.length_bytes);
        let parts: Vec<Run> = self
            .runs()
            .skip_while(|free| free.end() <= run.offset_bytes)
            .take_while(|free| free.offset_bytes < end)
            .map(|free| {
                let offset_bytes = free.offset_bytes.max(run.offset_bytes);
                Run {
                    offset_bytes,
                    length_bytes: free.end().min(end) - offset_bytes,
                }
            })
            .collect();
        for part in parts {
            self.take(part);
        }
    }

    /// Gives `run` back; false, and nothing changed, unless all of it is taken.
    pub fn give(&mut self, run: Run) -> bool {
        if !self.is_inside(run) {
            return false;
        }
        let before = self.free.range(..run.end()).next_back();
        let mut start = run.offset_bytes;
        if let Some((&offset_bytes, &length_bytes)) = before {
            let end = offset_bytes + length_bytes;
            if end > run.offset_bytes {
                return false;
            }
            if end == run.offset_bytes {
                start = offset_bytes;
            }
        }
        let mut end = run.end();
        if let Some(length_bytes) = self.free.remove(&run.end()) {
            self.free_bytes -= length_bytes;
            end += length_bytes;
        }
        if start < run.offset_bytes
            && let Some(length_bytes) = self.free.remove(&start)
        {
            self.free_bytes -= length_bytes;
        }
        self.insert(start, end - start);
        true
    }
}

/// The part of a free run that whole data units cover.
fn data_part(run: Run) -> Run {
    let start = run.offset_bytes.next_multiple_of(DATA_UNIT_BYTES);
    let end = run.end() / DATA_UNIT_BYTES * DATA_UNIT_BYTES;
    Run {
        offset_bytes: start,
        length_bytes: end.saturating_sub(start),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AREA: Run = Run {
        offset_bytes: 5 << 20,
        length_bytes: 40 << 20,
    };

    #[derive(Clone, Debug)]
    enum Op {
        Data(u64),
        Behind(u64),
        Private(u64),
        Release(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (1u64..9 << 20).prop_map(Op::Data),
            (1u64..3 << 20).prop_map(Op::Behind),
            (1u64..3 << 20).prop_map(Op::Private),
            (0usize..20).prop_map(Op::Release),
        ]
    }

    proptest! {
        /// Against a map of 64 KiB units: nothing is given twice, nothing is lost, sizes and alignment are as asked.
        #[test]
        fn every_byte_has_one_owner(ops in prop::collection::vec(op(), 1..60)) {
            let mut used: Vec<Run> = Vec::new();
            for op in ops {
                let mut map = FreeMap::new(AREA, used.iter().copied()).unwrap();
                let before = map.free_bytes();
                let units: u64 = used.iter().map(|run| run.length_bytes).sum();
                prop_assert_eq!(before + units, AREA.length_bytes);
                let taken = match op {
                    Op::Data(length) => {
                        let room = map.free_for_data_bytes();
                        let taken = map.take_data(length);
                        let sum: u64 = taken.iter().map(|run| run.length_bytes).sum();
                        let need = length.div_ceil(DATA_UNIT_BYTES) * DATA_UNIT_BYTES;
                        prop_assert_eq!(sum, need.min(room));
                        for run in &taken {
                            prop_assert!(run.offset_bytes.is_multiple_of(DATA_UNIT_BYTES));
                        }
                        taken
                    }
                    Op::Behind(length) => {
                        let end = used.last().map_or(AREA.offset_bytes, Run::end);
                        let taken: Vec<Run> = map.take_data_at(end, length).into_iter().collect();
                        for run in &taken {
                            prop_assert_eq!(run.offset_bytes, end);
                        }
                        taken
                    }
                    Op::Private(length) => {
                        let taken: Vec<Run> = map.take_private(length).into_iter().collect();
                        for run in &taken {
                            prop_assert_eq!(run.length_bytes, length.div_ceil(PRIVATE_UNIT_BYTES) * PRIVATE_UNIT_BYTES);
                        }
                        taken
                    }
                    Op::Release(index) => {
                        if index < used.len() {
                            let run = used.remove(index);
                            prop_assert!(!map.take(run), "it is not free");
                            prop_assert!(map.give(run));
                            prop_assert!(!map.give(run), "it was given back");
                            prop_assert_eq!(FreeMap::new(AREA, used.iter().copied()).unwrap(), map);
                        }
                        continue;
                    }
                };
                used.extend(&taken);
                // `new` refuses overlaps and what leaves the area.
                let again = FreeMap::new(AREA, used.iter().copied());
                prop_assert!(again.is_ok());
                if !taken.is_empty() {
                    prop_assert_eq!(again.unwrap(), map);
                }
            }
        }
    }

    #[test]
    fn impossible_extents_are_refused() {
        let run = |offset_bytes, length_bytes| Run {
            offset_bytes,
            length_bytes,
        };
        for used in [
            vec![run(0, 1 << 20)],
            vec![run(44 << 20, 2 << 20)],
            vec![run(6 << 20, 2 << 20), run(7 << 20, 1)],
            vec![run(6 << 20, 0)],
            vec![run(6 << 20, u64::MAX)],
        ] {
            assert!(FreeMap::new(AREA, used.clone()).is_err(), "{used:?}");
        }
    }
}
