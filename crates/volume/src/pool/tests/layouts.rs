//! Layouts and where they go: property tests of what must hold whatever operators do.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::{Config, DeviceRole, PlexLayout, VolumeRecord};
use crate::pool::space::free_maps;

const DISKS: usize = 5;

#[derive(Clone, Debug)]
enum Op {
    Create {
        kib: u64,
        columns: Option<Option<usize>>,
        unit: u32,
        mirrors: usize,
        on: u8,
        keys: u8,
    },
    Delete(usize),
    Grow(usize, u64),
    Rename(usize),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let columns = prop::option::of(prop::option::of(2usize..5));
    prop_oneof![
        4 => (1u64..2000, columns, 12u32..22, 0usize..4, any::<u8>(), any::<u8>()).prop_map(
            |(blocks, columns, unit, mirrors, on, keys)| Op::Create {
                kib: blocks * 4, columns, unit, mirrors, on, keys,
            }
        ),
        1 => (0usize..8).prop_map(Op::Delete),
        3 => (0usize..8, 1u64..2000).prop_map(|(index, blocks)| Op::Grow(index, blocks * 4)),
        1 => (0usize..8).prop_map(Op::Rename),
        1 => Just(Op::Restart),
    ]
}

/// The devices whose bits are set, or none.
fn chosen(bits: u8) -> Vec<String> {
    if bits & 0x80 != 0 {
        return Vec::new();
    }
    (0..DISKS)
        .filter(|disk| bits & (1 << disk) != 0)
        .map(|disk| format!("d{disk}"))
        .collect()
}

fn config(pool: &Pool<SimDevice>) -> Config {
    block_on(async {
        let inner = pool.inner.lock().await;
        inner.config().unwrap().clone()
    })
}

/// What must hold between all records, and that the cached free maps are what the records leave.
fn check(pool: &Pool<SimDevice>) {
    let config = config(pool);
    // Overlaps and extents outside of the data areas are errors of this.
    let maps = free_maps(&config).unwrap();
    let cached = block_on(async {
        let inner = pool.inner.lock().await;
        inner.space.free_bytes(&config).unwrap()
    });
    for (uuid, map) in &maps {
        assert_eq!(cached[uuid].all, map.free_bytes());
        assert_eq!(cached[uuid].for_data, map.free_for_data_bytes());
    }
    for record in config.volumes.values() {
        let mut seen = BTreeSet::new();
        for plex in &record.plexes {
            let devices: BTreeSet<Uuid> = plex.extents().map(|extent| extent.device).collect();
            for device in &devices {
                assert!(seen.insert(*device), "two plexes share a device");
                assert_eq!(config.devices[device].role, DeviceRole::Data);
            }
            let data = plex.columns.iter().flat_map(|column| &column.extents);
            for extent in data {
                assert!(record.placement.is_empty() || record.placement.contains(&extent.device));
            }
        }
        let keys: BTreeSet<Uuid> = record.keys.iter().map(|keys| keys.extent.device).collect();
        assert_eq!(keys.len(), record.keys.len(), "two replicas share a device");
        if record.keys_placement.is_empty() {
            assert_eq!(record.keys_wanted, 3);
            assert!(record.keys.len() == 1 || record.keys.len() == 3);
        } else {
            assert_eq!(keys, record.keys_placement.iter().copied().collect());
        }
    }
}

/// Every plex reads as zeroes from `from` on; looked at on the disks, below the data path.
fn zero_from(world: &SimWorld, pool: &Pool<SimDevice>, record: &VolumeRecord, from: u64) {
    let disks: Vec<Uuid> = block_on(pool.devices())
        .iter()
        .map(|info| info.uuid)
        .collect();
    let map = crate::translate::Map::new(record).unwrap();
    for plex in 0..map.plexes() {
        let ranges = map
            .translate(Region::Public { plex }, from, record.size_bytes - from)
            .unwrap();
        for range in ranges {
            let disk = disks.iter().position(|uuid| *uuid == range.device).unwrap();
            let mut bytes = vec![1; range.length_bytes as usize];
            world
                .image(disk)
                .read(range.device_offset_bytes, &mut bytes);
            assert!(bytes.iter().all(|byte| *byte == 0), "plex {plex}");
        }
    }
}

/// Fills the part of every plex that no write has reached: what a job leaves behind the end of what it copied.
fn soil(world: &SimWorld, pool: &Pool<SimDevice>, record: &VolumeRecord) {
    let disks: Vec<Uuid> = block_on(pool.devices())
        .iter()
        .map(|info| info.uuid)
        .collect();
    for plex in &record.plexes {
        for column in &plex.columns {
            let length: u64 = column
                .extents
                .iter()
                .map(|extent| extent.length_bytes)
                .sum();
            let own = match plex.layout {
                PlexLayout::Linear => record.size_bytes,
                PlexLayout::Striped { stripe_unit_bytes } => {
                    record
                        .size_bytes
                        .div_ceil(stripe_unit_bytes)
                        .div_ceil(plex.columns.len() as u64)
                        * stripe_unit_bytes
                }
            };
            if let Some(last) = column.extents.last()
                && own < length
            {
                let disk = disks.iter().position(|uuid| *uuid == last.device).unwrap();
                let soiled = (length - own).min(last.length_bytes);
                let at = last.offset_bytes + last.length_bytes - soiled;
                world.overwrite(disk, at, &vec![0xdd; soiled as usize]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn layouts_keep_their_rules(ops in prop::collection::vec(op(), 1..24)) {
        let world = world(&[40, 32, 48, 32, 24]);
        for disk in 0..DISKS {
            // What volumes must not show: the data area, past label and configuration.
            world.overwrite(disk, 5 * MIB, &vec![0xee; 10 * MIB as usize]);
        }
        let mut pool = block_on(pool(&world, DISKS));
        let mut created = 0;
        for (number, op) in ops.into_iter().enumerate() {
            let volumes = pool.volumes();
            match op {
                Op::Create { kib, columns, unit, mirrors, on, keys } => {
                    let layout = match columns {
                        None => LayoutRequest::Linear,
                        Some(columns) => LayoutRequest::Striped {
                            columns,
                            stripe_unit_bytes: Some(1 << unit),
                        },
                    };
                    let made = block_on(pool.volume_create(CreateVolume {
                        size_bytes: kib * 1024,
                        layout,
                        mirrors,
                        on: chosen(on),
                        keys_on: chosen(keys),
                        ..request(&format!("v{number}"), 0)
                    }));
                    let allowed = match chosen(on).len() { 0 => DISKS, named => named };
                    let needed = columns.map_or(1, |columns| columns.unwrap_or(2)) * mirrors.max(1);
                    match made {
                        Ok(volume) => {
                            created += 1;
                            let record = volume.record();
                            prop_assert!(needed <= allowed);
                            prop_assert_eq!(record.plexes.len(), mirrors.max(1));
                            for plex in &record.plexes {
                                let devices: BTreeSet<Uuid> = plex
                                    .columns.iter().flat_map(|c| &c.extents).map(|e| e.device).collect();
                                match columns {
                                    None => prop_assert_eq!(plex.columns.len(), 1),
                                    Some(wanted) => {
                                        prop_assert_eq!(devices.len(), plex.columns.len());
                                        prop_assert!(wanted.is_none_or(|wanted| wanted == devices.len()));
                                    }
                                }
                            }
                            zero_from(&world, &pool, &record, 0);
                            soil(&world, &pool, &record);
                        }
                        Err(PoolError::TooFewDevices { .. }) => prop_assert!(needed > allowed),
                        Err(PoolError::NoSpace { .. }) => {}
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Op::Delete(index) => {
                    if let Some(volume) = volumes.get(index) {
                        block_on(pool.volume_delete(&volume.record().name)).unwrap();
                    }
                }
                Op::Grow(index, kib) => {
                    if let Some(volume) = volumes.get(index) {
                        let before = volume.record();
                        match block_on(pool.volume_grow(&before.name, before.size_bytes + kib * 1024)) {
                            Ok(()) => {
                                zero_from(&world, &pool, &volume.record(), before.size_bytes);
                                soil(&world, &pool, &volume.record());
                            }
                            Err(PoolError::NoSpace { .. }) => {
                                prop_assert_eq!(volume.record(), before);
                            }
                            Err(error) => prop_assert!(false, "{error}"),
                        }
                    }
                }
                Op::Rename(index) => {
                    if let Some(volume) = volumes.get(index) {
                        let name = volume.record().name.clone();
                        block_on(pool.volume_rename(&name, &format!("r{number}"))).unwrap();
                        prop_assert!(pool.volume(&name).is_err());
                        prop_assert_eq!(pool.volume(&format!("r{number}")).unwrap().lun(), volume.lun());
                        let again = block_on(pool.volume_create(request(&format!("r{number}"), 1)));
                        let taken = matches!(again, Err(PoolError::NameTaken { .. }));
                        prop_assert!(taken);
                    }
                }
                Op::Restart => {
                    let before = config(&pool);
                    pool = block_on(open(&world, &[0, 1, 2, 3, 4])).unwrap();
                    prop_assert_eq!(config(&pool), before);
                }
            }
            check(&pool);
        }
        // All of it can be given back.
        for volume in pool.volumes() {
            block_on(pool.volume_delete(&volume.record().name)).unwrap();
        }
        for info in block_on(pool.devices()) {
            prop_assert_eq!(info.free_bytes, info.capacity_bytes);
        }
        let _ = created;
    }
}
