//! Which regions of a volume a replacement plex does not have yet: those that touch an extent it does not share.

use std::ops::Range;

use crate::config::{Column, Plex, PlexLayout};

/// Runs of a column, as (start, end) of its own addresses, that are in other places in `new` than in `old`.
fn moved_runs(old: &Column, new: &Column) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut add = |run: Range<u64>| match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    };
    let (mut olds, mut news) = (old.extents.iter(), new.extents.iter());
    let (mut a, mut b) = (olds.next(), news.next());
    let (mut used_a, mut used_b) = (0, 0);
    let mut at = 0u64;
    while let (Some(x), Some(y)) = (a, b) {
        let length = (x.length_bytes - used_a).min(y.length_bytes - used_b);
        let same = (x.device, x.offset_bytes + used_a) == (y.device, y.offset_bytes + used_b);
        if !same && length > 0 {
            add(at..at + length);
        }
        at += length;
        used_a += length;
        used_b += length;
        if used_a == x.length_bytes {
            a = olds.next();
            used_a = 0;
        }
        if used_b == y.length_bytes {
            b = news.next();
            used_b = 0;
        }
    }
    let left: u64 = a.map_or(0, |x| x.length_bytes - used_a)
        + olds.map(|extent| extent.length_bytes).sum::<u64>();
    if left > 0 {
        add(at..at + left);
    }
    runs
}

/// Runs of the volume's addresses, at most `size_bytes`, that `new` may have in another place than `old`. With stripes
/// whole rows are taken: never too little.
pub(super) fn moved_ranges(old: &Plex, new: &Plex, size_bytes: u64) -> Vec<Range<u64>> {
    if old.layout != new.layout || old.columns.len() != new.columns.len() {
        return std::iter::once(0..size_bytes).collect();
    }
    let mut ranges = Vec::new();
    for (before, after) in old.columns.iter().zip(&new.columns) {
        for run in moved_runs(before, after) {
            let range = match old.layout {
                PlexLayout::Linear => run,
                PlexLayout::Striped { stripe_unit_bytes } => {
                    let row_bytes = stripe_unit_bytes.saturating_mul(old.columns.len() as u64);
                    let first = run.start / stripe_unit_bytes;
                    let last = run.end.div_ceil(stripe_unit_bytes);
                    first.saturating_mul(row_bytes)..last.saturating_mul(row_bytes)
                }
            };
            let range = range.start.min(size_bytes)..range.end.min(size_bytes);
            if range.start < range.end {
                ranges.push(range);
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::config::{Extent, KeysReplica, PlexState, VolumeRecord};
    use crate::translate::{Map, Region};

    const UNIT: u64 = 1 << 20;

    /// A plex whose extents of `lengths` (in units, by column) lie on device `column`, those chosen by `moved` on others.
    fn plex(lengths: &[Vec<u64>], striped: bool, moved: &dyn Fn(usize, usize) -> bool) -> Plex {
        let mut columns = Vec::new();
        for (c, lengths) in lengths.iter().enumerate() {
            let mut offset = 0;
            let mut extents = Vec::new();
            for (e, length) in lengths.iter().enumerate() {
                let device = if moved(c, e) { 100 + c } else { c };
                let whole = Extent {
                    device: Uuid::from_u128(device as u128),
                    offset_bytes: offset,
                    length_bytes: length * UNIT,
                };
                offset += (length + 1) * UNIT;
                if moved(c, e) && *length > 1 {
                    // In two pieces, with a hole between them.
                    let mut first = whole;
                    first.length_bytes = UNIT;
                    let mut second = whole;
                    second.offset_bytes += 1000 * UNIT;
                    second.length_bytes -= UNIT;
                    extents.extend([first, second]);
                } else {
                    extents.push(whole);
                }
            }
            columns.push(Column { extents });
        }
        Plex {
            uuid: Uuid::from_u128(1),
            layout: if striped {
                PlexLayout::Striped {
                    stripe_unit_bytes: 65536,
                }
            } else {
                PlexLayout::Linear
            },
            columns,
            log: Extent {
                device: Uuid::from_u128(77),
                offset_bytes: 1 << 40,
                length_bytes: crate::volume::PLEX_LOG_BYTES,
            },
            state: PlexState::Attached,
            replaces: None,
        }
    }

    fn record(size_bytes: u64, plex: Plex) -> VolumeRecord {
        VolumeRecord {
            uuid: Uuid::from_u128(9),
            name: "v".into(),
            lun: 0,
            naa: "3000000000000000".into(),
            serial: "s".into(),
            size_bytes,
            block_size: crate::config::BlockSize::B512,
            persist: crate::config::Persist::Aptpl,
            region_bytes: UNIT,
            plexes: vec![plex],
            keys: vec![KeysReplica {
                uuid: Uuid::from_u128(5),
                extent: Extent {
                    device: Uuid::from_u128(78),
                    offset_bytes: 0,
                    length_bytes: 1 << 20,
                },
            }],
            keys_wanted: 1,
            placement: Vec::new(),
            keys_placement: Vec::new(),
            job: None,
            grants: std::collections::BTreeMap::new(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The oracle: the translation of every 64 KiB through both plexes.
        #[test]
        fn what_is_not_listed_is_in_the_same_place(
            lengths in prop::collection::vec(prop::collection::vec(1u64..4, 1..4), 1..4),
            striped: bool,
            mask in any::<u16>(),
        ) {
            let lengths = if striped { lengths } else { lengths[..1].to_vec() };
            let moved = |c: usize, e: usize| mask >> (c * 4 + e) & 1 == 1;
            let old = plex(&lengths, striped, &|_, _| false);
            let new = plex(&lengths, striped, &moved);
            let shortest = lengths.iter().map(|l| l.iter().sum::<u64>()).min().unwrap();
            let size_bytes = if striped { shortest * lengths.len() as u64 } else { shortest } * UNIT;
            let ranges = moved_ranges(&old, &new, size_bytes);
            let map = |plex: &Plex| {
                Map::new(&record(size_bytes, plex.clone())).unwrap()
            };
            let (old, new) = (map(&old), map(&new));
            let mut listed = 0u64;
            for block in 0..size_bytes / 65536 {
                let at = block * 65536;
                let place = |map: &Map| {
                    let range = map.translate(Region::Public { plex: 0 }, at, 4096).unwrap()[0];
                    (range.device, range.device_offset_bytes)
                };
                let is_listed = ranges.iter().any(|range| range.contains(&at));
                prop_assert!(is_listed || place(&old) == place(&new), "{at}");
                listed += u64::from(is_listed && place(&old) == place(&new));
                if !striped {
                    prop_assert!(!is_listed || place(&old) != place(&new), "{at}");
                }
            }
            if mask == 0 {
                prop_assert_eq!(listed, 0);
            }
        }
    }
}
