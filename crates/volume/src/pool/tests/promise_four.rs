//! Promise 4: no address of a volume leads into a private region, a label, a configuration or another volume.

use proptest::prelude::*;

use super::*;

/// Every byte range of the disks that somebody owns, with the owner.
fn owners(pool: &Pool<SimDevice>, devices: &[Uuid]) -> Vec<(usize, u64, u64, String)> {
    let mut owners = Vec::new();
    for (disk, _) in devices.iter().enumerate() {
        owners.push((disk, 0, 5 * MIB, "label and configuration".to_owned()));
    }
    for volume in pool.volumes() {
        let map = volume.map();
        for range in map.ranges() {
            let disk = devices
                .iter()
                .position(|uuid| *uuid == range.device)
                .unwrap();
            let end = range.device_offset_bytes + range.length_bytes;
            let name = format!("{} {}", volume.record().name, range.device_offset_bytes);
            owners.push((disk, range.device_offset_bytes, end, name));
        }
    }
    owners
}

#[derive(Clone, Debug)]
enum Op {
    Create {
        mib: u64,
        extra: u64,
        on: u8,
        keys: u8,
    },
    Delete(usize),
    Grow(usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1u64..9, 0u64..3, 0u8..4, 0u8..4)
            .prop_map(|(mib, extra, on, keys)| Op::Create { mib, extra, on, keys }),
        1 => (0usize..8).prop_map(Op::Delete),
        1 => (0usize..8, 1u64..6).prop_map(|(index, mib)| Op::Grow(index, mib)),
    ]
}

fn names(choice: u8) -> Vec<String> {
    match choice {
        0 => Vec::new(),
        1 => vec!["d0".into()],
        2 => vec!["d1".into()],
        _ => vec!["d1".into(), "d0".into()],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_byte_of_every_disk_has_at_most_one_owner(ops in prop::collection::vec(op(), 1..14), probe: u64) {
        let world = world(&[32, 48]);
        block_on(async {
            let pool = pool(&world, 2).await;
            let mut devices = Vec::new();
            for name in ["d0", "d1"] {
                devices.push(pool.device(name).await.unwrap().uuid);
            }
            for (number, op) in ops.into_iter().enumerate() {
                let volumes = pool.volumes();
                match op {
                    Op::Create { mib, extra, on, keys } => {
                        let made = pool.volume_create(CreateVolume {
                            size_bytes: mib * MIB + extra * 4096,
                            on: names(on),
                            keys_on: names(keys),
                            ..request(&format!("v{number}"), 0)
                        }).await;
                        if let Ok(volume) = made {
                            // Marks every byte; a byte of another volume would be seen below.
                            let mark = vec![number as u8 + 1; volume.size_bytes() as usize];
                            assert!(read(&volume, 0, mark.len()).await.iter().all(|byte| *byte == 0));
                            volume.write(0, mark.into()).await.unwrap();
                        }
                    }
                    Op::Delete(index) => {
                        if let Some(volume) = volumes.get(index) {
                            pool.volume_delete(&volume.record().name).await.unwrap();
                        }
                    }
                    Op::Grow(index, mib) => {
                        if let Some(volume) = volumes.get(index) {
                            let size = volume.size_bytes();
                            if pool.volume_grow(&volume.record().name, size + mib * MIB).await.is_ok() {
                                let mark = read(volume, 0, 1).await[0];
                                let new = vec![mark; (mib * MIB) as usize];
                                assert!(read(volume, size, new.len()).await.iter().all(|byte| *byte == 0));
                                volume.write(size, new.into()).await.unwrap();
                            }
                        }
                    }
                }
            }
            let mut owned = owners(&pool, &devices);
            owned.sort();
            for pair in owned.windows(2) {
                assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "{pair:?}");
            }
            for volume in pool.volumes() {
                let name = volume.record().name.clone();
                let mark = name[1..].parse::<u8>().unwrap() + 1;
                let size = volume.size_bytes();
                assert!(read(&volume, 0, size as usize).await.iter().all(|byte| *byte == mark));
                // Nothing past the end, whatever the address.
                for (offset, length) in [(size, 512), (size - 512, 1024), (probe, 512), (u64::MAX - 511, 512)] {
                    let inside = offset.checked_add(length).is_some_and(|end| end <= size);
                    let (result, _) = volume.read(offset, aligned_buffer(length as usize)).await;
                    assert_eq!(result.is_ok(), inside);
                    let map = volume.map();
                    assert_eq!(map.translate(Region::Public { plex: 0 }, offset, length).is_ok(), inside);
                    if !inside {
                        assert!(volume.write(offset, vec![0; length as usize].into()).await.is_err());
                        assert!(volume.write_zeroes(offset, length, true).await.is_err());
                        assert!(volume.write_atomic(offset, vec![0; length as usize].into()).await.is_err());
                        assert!(volume.allocation(offset, length).await.is_err());
                    }
                }
                // What data commands wrote left the private region alone.
                let region = volume.private_region().unwrap();
                assert_eq!(region.read_back().await.unwrap().state, State::default());
            }
            let again = open(&world, &[0, 1]).await.unwrap();
            assert_eq!(again.volumes().len(), pool.volumes().len());
        });
    }
}
