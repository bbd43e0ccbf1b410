//! Free space of a device, derived from the extents in use, and where new extents go.
//!
//! Data extents are multiples of 1 MiB and taken first-fit from the bottom; private regions are multiples of 64 KiB and
//! taken from the top, so that they do not fragment the space that volumes grow into.

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

/// The free runs of one device, ascending, none touching another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeMap {
    free: Vec<Run>,
}

impl FreeMap {
    /// What `used` leaves of `area`.
    ///
    /// # Errors
    /// [`Overlap`] when extents overlap or leave the area.
    pub fn new(area: Run, used: impl IntoIterator<Item = Run>) -> Result<FreeMap, Overlap> {
        let mut used: Vec<Run> = used.into_iter().collect();
        used.sort_unstable();
        let mut free = Vec::new();
        let mut at = area.offset_bytes;
        for run in used {
            let inside = run
                .offset_bytes
                .checked_add(run.length_bytes)
                .is_some_and(|end| end <= area.end());
            if run.offset_bytes < at || !inside || run.length_bytes == 0 {
                return Err(Overlap { run });
            }
            if run.offset_bytes > at {
                free.push(Run {
                    offset_bytes: at,
                    length_bytes: run.offset_bytes - at,
                });
            }
            at = run.end();
        }
        if at < area.end() {
            free.push(Run {
                offset_bytes: at,
                length_bytes: area.end() - at,
            });
        }
        Ok(FreeMap { free })
    }

    /// Free bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().map(|run| run.length_bytes).sum()
    }

    /// Free bytes that data extents can use.
    pub fn free_for_data_bytes(&self) -> u64 {
        self.free
            .iter()
            .map(|run| data_part(*run).length_bytes)
            .sum()
    }

    /// Takes up to `length_bytes` (rounded up to [`DATA_UNIT_BYTES`]) from the bottom, in as few runs as first-fit gives:
    /// one run that is long enough if there is one, else the lowest ones. Returns less when there is not enough.
    pub fn take_data(&mut self, length_bytes: u64) -> Vec<Run> {
        let mut need = length_bytes.div_ceil(DATA_UNIT_BYTES) * DATA_UNIT_BYTES;
        let mut taken = Vec::new();
        if let Some(run) = self
            .free
            .iter()
            .map(|run| data_part(*run))
            .find(|run| run.length_bytes >= need && need > 0)
        {
            taken.push(Run {
                length_bytes: need,
                ..run
            });
        } else {
            for run in self.free.iter().map(|run| data_part(*run)) {
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
            self.remove(*run);
        }
        taken
    }

    /// Takes the run right behind `end`, up to `length_bytes` (rounded up), so that an extent can be made longer.
    pub fn take_data_at(&mut self, end: u64, length_bytes: u64) -> Option<Run> {
        let need = length_bytes.div_ceil(DATA_UNIT_BYTES) * DATA_UNIT_BYTES;
        let run = self.free.iter().find(|run| run.offset_bytes == end)?;
        let length_bytes = (run.length_bytes / DATA_UNIT_BYTES * DATA_UNIT_BYTES).min(need);
        if length_bytes == 0 || !end.is_multiple_of(DATA_UNIT_BYTES) {
            return None;
        }
        let taken = Run {
            offset_bytes: end,
            length_bytes,
        };
        self.remove(taken);
        Some(taken)
    }

    /// Takes one run of exactly `length_bytes` (rounded up to [`PRIVATE_UNIT_BYTES`]) from the top.
    pub fn take_private(&mut self, length_bytes: u64) -> Option<Run> {
        let need = length_bytes.div_ceil(PRIVATE_UNIT_BYTES) * PRIVATE_UNIT_BYTES;
        let taken = self.free.iter().rev().find_map(|run| {
            let end = run.end() / PRIVATE_UNIT_BYTES * PRIVATE_UNIT_BYTES;
            let start = end.checked_sub(need)?;
            (start >= run.offset_bytes && need > 0).then_some(Run {
                offset_bytes: start,
                length_bytes: need,
            })
        })?;
        self.remove(taken);
        Some(taken)
    }

    /// Takes `taken`, which lies inside one free run, out of the map.
    fn remove(&mut self, taken: Run) {
        let Some(index) = self
            .free
            .iter()
            .position(|run| run.offset_bytes <= taken.offset_bytes && taken.end() <= run.end())
        else {
            return;
        };
        let run = self.free.remove(index);
        let rest = [
            Run {
                offset_bytes: run.offset_bytes,
                length_bytes: taken.offset_bytes - run.offset_bytes,
            },
            Run {
                offset_bytes: taken.end(),
                length_bytes: run.end() - taken.end(),
            },
        ];
        for rest in rest.into_iter().rev().filter(|rest| rest.length_bytes > 0) {
            self.free.insert(index, rest);
        }
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
                            used.remove(index);
                        }
                        Vec::new()
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
