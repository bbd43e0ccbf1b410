//! A plex that takes the place of another without one of its devices, and growing while that goes on.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::{Extent, Job, JobKind, Plex, VolumeRecord};
use crate::pool::grow::grow;
use crate::pool::placement::keys_goal;
use crate::translate::Map;

const DISKS: usize = 6;

fn lengths(plex: &Plex) -> Vec<u64> {
    let length = |extents: &[Extent]| extents.iter().map(|extent| extent.length_bytes).sum();
    plex.columns
        .iter()
        .map(|column| length(&column.extents))
        .collect()
}

fn devices(plex: &Plex) -> BTreeSet<Uuid> {
    plex.extents().map(|extent| extent.device).collect()
}

fn evacuation(record: &VolumeRecord, old: &Plex, new: &Plex, device: Uuid) -> VolumeRecord {
    let mut record = record.clone();
    record.plexes.push(new.clone());
    record.job = Some(Job {
        uuid: Uuid::from_u128(9),
        kind: JobKind::Evacuate { device },
        fresh: vec![new.uuid],
        retire: vec![old.uuid],
        keys_fresh: Vec::new(),
        keys_retire: Vec::new(),
        rate_bytes_per_second: None,
        paused: false,
        placement: Vec::new(),
        keys_placement: Vec::new(),
    });
    record
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn replacements_share_what_stays_and_grow_together(
        kib in 1u64..4000,
        columns in prop::option::of(2usize..4),
        mirrors in 1usize..3,
        other in prop::option::of(1u64..3000),
        more in prop::collection::vec(1u64..3000, 0..3),
        which in any::<prop::sample::Index>(),
        grown_by in 1u64..6000,
    ) {
        let world = world(&[32; DISKS]);
        block_on(async {
            let pool = pool(&world, DISKS).await;
            let layout = match columns {
                None => LayoutRequest::Linear,
                columns => LayoutRequest::Striped { columns, stripe_unit_bytes: Some(16 << 10) },
            };
            let made = CreateVolume {
                size_bytes: kib * 4096,
                layout,
                mirrors,
                ..request("v", 0)
            };
            let volume = pool.volume_create(made).await.unwrap();
            if let Some(blocks) = other {
                let between = CreateVolume { size_bytes: blocks * 4096, ..request("w", 0) };
                drop(pool.volume_create(between).await);
            }
            for blocks in more {
                // Several extents a column.
                drop(pool.volume_grow("v", volume.size_bytes() + blocks * 4096).await);
            }
            let record = volume.record();
            let old = &record.plexes[0];
            let on: Vec<Uuid> = devices(old).into_iter().collect();
            let from = on[which.index(on.len())];
            let avoid: BTreeSet<Uuid> = record.plexes[1..].iter().flat_map(devices).collect();
            let inner = pool.inner.lock().await;
            let to = inner.data_devices(&[]).unwrap();
            let mut placing = inner.placing().unwrap();
            let placed = placing.replacement(old, from, &to, &avoid);
            let new = match placed {
                Ok(new) => new,
                Err(PoolError::NoSpace { .. }) => return Ok(()),
                Err(error) => panic!("{error}"),
            };
            let reserved = placing.finish();
            prop_assert_eq!(new.replaces, Some(old.uuid));
            prop_assert_eq!(new.layout, old.layout);
            prop_assert_eq!(lengths(&new), lengths(old));
            prop_assert!(!new.is_on(from));
            prop_assert!(devices(&new).is_disjoint(&avoid));
            prop_assert_ne!(new.log, old.log);
            let held: BTreeSet<_> = reserved.extents().iter().map(|e| (e.device, e.offset_bytes)).collect();
            for (new, old) in new.columns.iter().zip(&old.columns) {
                let stays: Vec<Extent> =
                    old.extents.iter().copied().filter(|extent| extent.device != from).collect();
                let (fresh, shared): (Vec<Extent>, Vec<Extent>) = new
                    .extents
                    .iter()
                    .partition(|extent| held.contains(&(extent.device, extent.offset_bytes)));
                prop_assert_eq!(shared, stays);
                prop_assert!(!fresh.is_empty() || old.extents.iter().all(|e| e.device != from));
            }
            // A record with both is one that can be served.
            let both = evacuation(&record, old, &new, from);
            Map::new(&both).unwrap();
            // It grows: both get the same, and nothing on the device that is being emptied.
            let size = both.size_bytes + grown_by * 4096;
            let Ok(grown) = grow(&inner, &both, size) else {
                return Ok(());
            };
            Map::new(&grown.record).unwrap();
            prop_assert_eq!(grown.record.size_bytes, size);
            let index = grown.record.plexes.len() - 1;
            let (a, b) = (&grown.record.plexes[0], &grown.record.plexes[index]);
            let pairs = a.columns.iter().zip(&old.columns).zip(b.columns.iter().zip(&new.columns));
            for ((a, old), (b, new)) in pairs {
                let added = &a.extents[old.extents.len()..];
                prop_assert_eq!(added, &b.extents[new.extents.len()..]);
                prop_assert_eq!(&a.extents[..old.extents.len()], &old.extents[..]);
                prop_assert!(added.iter().all(|extent| extent.device != from));
                prop_assert!(added.iter().all(|extent| !avoid.contains(&extent.device)));
            }
            Ok(())
        })?;
    }
}

#[test]
fn how_many_replicas_there_should_be() {
    for (wanted, available, expected) in [
        (3, 0, 0),
        (3, 1, 1),
        (3, 2, 1),
        (3, 3, 3),
        (3, 9, 3),
        (1, 5, 1),
        (2, 2, 2),
        (5, 4, 3),
        (2, 1, 1),
    ] {
        assert_eq!(
            keys_goal(wanted, available),
            expected,
            "{wanted} of {available}"
        );
    }
}
