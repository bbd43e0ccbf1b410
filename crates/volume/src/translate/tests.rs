//! Translation against the plain definition of a layout, byte by byte.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{BlockSize, Column, KeysReplica, Persist, PlexState};

const KIB4: u64 = 4096;

fn record(size_bytes: u64, plexes: Vec<Plex>) -> VolumeRecord {
    VolumeRecord {
        uuid: Uuid::from_u128(1),
        name: "v".into(),
        lun: 0,
        naa: String::new(),
        serial: String::new(),
        size_bytes,
        block_size: BlockSize::B512,
        persist: Persist::Aptpl,
        region_bytes: 1 << 20,
        plexes,
        keys: vec![KeysReplica {
            uuid: Uuid::from_u128(2),
            extent: extent(99, 0, 1 << 20),
        }],
        keys_wanted: 1,
        placement: Vec::new(),
        keys_placement: Vec::new(),
        job: None,
        grants: BTreeMap::new(),
    }
}

fn extent(device: u128, offset_bytes: u64, length_bytes: u64) -> Extent {
    Extent {
        device: Uuid::from_u128(device),
        offset_bytes,
        length_bytes,
    }
}

/// A plex whose columns have extents of these lengths (in 4 KiB), each column on its own device from `device` on.
fn plex(uuid: u128, device: u128, layout: PlexLayout, columns: &[Vec<u64>]) -> Plex {
    let columns = columns
        .iter()
        .enumerate()
        .map(|(column, lengths)| {
            let mut at = 10 * KIB4;
            let extents = lengths
                .iter()
                .map(|length| {
                    let extent = extent(device + column as u128, at, length * KIB4);
                    // A gap, so that no two extents look like one.
                    at += (length + 3) * KIB4;
                    extent
                })
                .collect();
            Column { extents }
        })
        .collect();
    Plex {
        uuid: Uuid::from_u128(uuid),
        layout,
        columns,
        log: extent(device, 1 << 40, 4096),
        state: PlexState::Attached,
        replaces: None,
    }
}

/// Where byte `at` is by definition: (device, offset).
fn oracle(plex: &Plex, at: u64) -> (Uuid, u64) {
    let (column, mut within) = match plex.layout {
        PlexLayout::Linear => (0, at),
        PlexLayout::Striped { stripe_unit_bytes } => {
            let count = plex.columns.len() as u64;
            let stripe = at / stripe_unit_bytes;
            (
                (stripe % count) as usize,
                stripe / count * stripe_unit_bytes + at % stripe_unit_bytes,
            )
        }
    };
    for extent in &plex.columns[column].extents {
        if within < extent.length_bytes {
            return (extent.device, extent.offset_bytes + within);
        }
        within -= extent.length_bytes;
    }
    panic!("byte {at} is not backed");
}

fn layouts() -> impl Strategy<Value = (PlexLayout, Vec<Vec<u64>>)> {
    let column = || prop::collection::vec(1u64..9, 1..4);
    prop_oneof![
        column().prop_map(|column| (PlexLayout::Linear, vec![column])),
        (prop::collection::vec(column(), 1..5), 0u32..3).prop_map(|(columns, shift)| {
            let stripe_unit_bytes = KIB4 << shift;
            (PlexLayout::Striped { stripe_unit_bytes }, columns)
        }),
    ]
}

proptest! {
    #[test]
    fn every_byte_is_where_the_layout_says(
        (layout, columns) in layouts(), from in 0.0f64..1.0, to in 0.0f64..1.0,
    ) {
        let plex = plex(5, 20, layout, &columns);
        let lengths = columns.iter().map(|c| c.iter().sum::<u64>() * KIB4);
        let size = capacity_bytes(layout, lengths).unwrap();
        prop_assume!(size > 0);
        let map = Map::new(&record(size, vec![plex.clone()])).unwrap();
        let region = Region::Public { plex: 0 };
        let (from, to) = (from.min(to), from.max(to));
        let start = (from * size as f64) as u64;
        let length = (to * size as f64) as u64 - start;
        let ranges = map.translate(region, start, length).unwrap();
        let mut at = start;
        for range in &ranges {
            prop_assert_eq!(range.region_offset_bytes, at);
            prop_assert_eq!(map.devices()[range.device_index], range.device);
            for byte in [0, range.length_bytes / 2, range.length_bytes - 1] {
                let place = (range.device, range.device_offset_bytes + byte);
                prop_assert_eq!(oracle(&plex, at + byte), place);
            }
            at += range.length_bytes;
        }
        prop_assert_eq!(at, start + length);
        prop_assert!(map.translate(region, start, size - start + 1).is_err());
        prop_assert!(map.translate(region, u64::MAX, 1).is_err());
        prop_assert!(Map::new(&record(size + KIB4, vec![plex])).is_err());
    }
}

#[test]
fn plexes_share_bytes_only_with_the_one_they_replace() {
    let old = plex(5, 20, PlexLayout::Linear, &[vec![4, 4]]);
    let mut new = old.clone();
    new.uuid = Uuid::from_u128(6);
    new.columns[0].extents[1] = extent(30, 0, 4 * KIB4);
    new.log = extent(30, 1 << 40, 4096);
    let both = |new: &Plex| Map::new(&record(8 * KIB4, vec![old.clone(), new.clone()]));
    assert!(matches!(both(&new), Err(MapError::Overlap { .. })));
    new.replaces = Some(old.uuid);
    assert!(both(&new).is_ok());
    // Not exactly the same extent.
    new.columns[0].extents[0].offset_bytes += KIB4;
    assert!(matches!(both(&new), Err(MapError::Overlap { .. })));
}

#[test]
fn impossible_layouts_are_refused() {
    let refused = |layout, columns: &[Vec<u64>]| {
        let plex = plex(5, 20, layout, columns);
        Map::new(&record(KIB4, vec![plex])).is_err()
    };
    let striped = |stripe_unit_bytes| PlexLayout::Striped { stripe_unit_bytes };
    assert!(refused(PlexLayout::Linear, &[]));
    assert!(refused(PlexLayout::Linear, &[vec![1], vec![1]]));
    assert!(refused(striped(KIB4), &[]));
    assert!(refused(striped(0), &[vec![1]]));
    assert!(refused(striped(3 * KIB4), &[vec![9], vec![9]]));
    assert!(refused(striped(32 << 20), &[vec![9000], vec![9000]]));
    assert!(
        refused(striped(KIB4), &[vec![4], vec![]]),
        "an empty column holds nothing"
    );
    assert!(!refused(striped(KIB4), &[vec![1], vec![1]]));
}
