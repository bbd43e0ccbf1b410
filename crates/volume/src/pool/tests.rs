//! Pools on simulated disks: what operators do, what is refused, and what a restart finds.

use futures_lite::future::block_on;
use reservation::{InitiatorPort, Key, Nexus, Registrant, State};

use super::*;
use crate::block_device::aligned_buffer;
use crate::config::{Access, BlockSize};
use crate::sim::{Effect, Fault, Operations, SimDevice, SimWorld, Stop};
use crate::translate::Region;

mod crashes;
mod devices;
mod documents;
mod layout_crashes;
mod layouts;
mod moving;
mod promise_four;
mod recover;
mod replacing;
mod scale;
mod together;
mod witnesses;

const MIB: u64 = 1 << 20;
const BOOT: Uuid = Uuid::from_u128(0xb007);

/// Disks of `sizes` MiB.
fn world(sizes: &[u64]) -> SimWorld {
    let world = SimWorld::default();
    for size in sizes {
        world.add(size * MIB, 4096);
    }
    world
}

fn source(world: &SimWorld, disk: usize) -> DeviceSource<SimDevice> {
    DeviceSource {
        path: format!("/disk{disk}"),
        device: world.device(disk),
    }
}

async fn open(world: &SimWorld, disks: &[usize]) -> Result<Pool<SimDevice>, PoolError> {
    let sources = disks.iter().map(|disk| source(world, *disk)).collect();
    Pool::open(sources, BOOT).await
}

/// A pool on all disks of the world, named d0, d1, ...
async fn pool(world: &SimWorld, disks: usize) -> Pool<SimDevice> {
    let pool = open(world, &[]).await.unwrap();
    for disk in 0..disks {
        pool.device_add(&format!("d{disk}"), source(world, disk))
            .await
            .unwrap();
    }
    pool
}

fn request(name: &str, mib: u64) -> CreateVolume {
    CreateVolume {
        name: name.into(),
        size_bytes: mib * MIB,
        ..CreateVolume::default()
    }
}

async fn read(volume: &Volume<SimDevice>, offset: u64, length: usize) -> Vec<u8> {
    let (result, buf) = volume.read(offset, aligned_buffer(length)).await;
    result.unwrap();
    buf.to_vec()
}

fn state(generation: u32) -> State {
    let nexus = Nexus {
        initiator: InitiatorPort {
            name: "iqn.2026-11.test:a".into(),
            isid: [1; 6],
        },
        target_port: 1,
    };
    let registrant = Registrant {
        key: Key(u64::from(generation)),
        all_target_ports: false,
    };
    State {
        generation,
        registrants: [(nexus, registrant)].into(),
        ..State::default()
    }
}

#[test]
fn everything_is_found_again() {
    let world = world(&[64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 3).await;
        let volume = pool
            .volume_create(CreateVolume {
                on: vec!["d1".into()],
                keys_on: vec!["d0".into(), "d1".into(), "d2".into()],
                block_size: BlockSize::B4096,
                ..request("v", 20)
            })
            .await
            .unwrap();
        pool.grant("v", "iqn.2026-11.Test:A", Access::Ro)
            .await
            .unwrap();
        pool.grant("v", "*", Access::Rw).await.unwrap();
        volume.write(8192, vec![7u8; 8192].into()).await.unwrap();
        volume
            .private_region()
            .unwrap()
            .commit(&state(3))
            .await
            .unwrap();
        let before = volume.record();
        let devices = pool.devices().await;
        for disks in [vec![0, 1, 2], vec![2, 1], vec![1, 0]] {
            let pool = open(&world, &disks).await.unwrap();
            let volume = pool.volume("v").unwrap();
            assert_eq!(volume.fault(), None);
            assert_eq!(volume.record(), before);
            assert_eq!(read(&volume, 8192, 8192).await, [7; 8192]);
            assert_eq!(
                volume.private_region().unwrap().load().await.unwrap(),
                state(3)
            );
            assert_eq!(volume.access_of("iqn.2026-11.test:a"), Access::Ro);
            assert_eq!(volume.access_of("iqn.2026-11.test:b"), Access::Rw);
        }
        assert_eq!(
            open(&world, &[0, 1, 2]).await.unwrap().devices().await,
            devices
        );
    });
}

#[test]
fn missing_devices_have_clear_consequences() {
    let world = world(&[64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 3).await;
        for device in ["d0", "d1"] {
            pool.volume_create(CreateVolume {
                on: vec![device.into()],
                ..request(&format!("on-{device}"), 4)
            })
            .await
            .unwrap();
        }
        let degraded = open(&world, &[1, 2]).await.unwrap();
        assert_eq!(degraded.volume("on-d1").unwrap().fault(), None);
        let gone = degraded.volume("on-d0").unwrap();
        assert!(gone.fault().unwrap().contains("missing"));
        assert!(gone.read(0, aligned_buffer(512)).await.0.is_err());
        assert!(!degraded.device("d0").await.unwrap().present);
        let error = open(&world, &[1]).await.err().unwrap().to_string();
        assert!(error.contains("only 1 of 3 copies"), "{error}");
        // A change while d0 is away; it comes back stale and is repaired, not believed.
        degraded.grant("on-d1", "*", Access::Rw).await.unwrap();
        let whole = open(&world, &[0, 1, 2]).await.unwrap();
        assert_eq!(whole.volume("on-d1").unwrap().access_of("x"), Access::Rw);
        assert!(whole.device("d0").await.unwrap().config_current);
        let back = open(&world, &[0, 2]).await.unwrap();
        assert_eq!(back.volume("on-d1").unwrap().access_of("x"), Access::Rw);
    });
}

/// Each refused request and a part of what it says.
#[test]
fn refusals_say_what_to_do() {
    let world = world(&[64, 64, 15, 64, 64]);
    block_on(async {
        let pool = pool(&world, 2).await;
        pool.volume_create(request("v", 20)).await.unwrap();
        let create = |name: &str, size_bytes: u64, on: &[&str], keys_on: &[&str]| {
            let request = CreateVolume {
                name: name.into(),
                size_bytes,
                on: on.iter().map(|name| (*name).into()).collect(),
                keys_on: keys_on.iter().map(|name| (*name).into()).collect(),
                ..CreateVolume::default()
            };
            block_on(pool.volume_create(request))
                .err()
                .unwrap()
                .to_string()
        };
        world.overwrite(3, 1080, b"ext");
        let other = open(&world, &[]).await.unwrap();
        other.device_add("x", source(&world, 4)).await.unwrap();
        let add = |name: &str, disk| {
            block_on(pool.device_add(name, source(&world, disk)))
                .err()
                .unwrap()
                .to_string()
        };
        for (said, expected) in [
            (create("v", MIB, &[], &[]), "already a volume named v"),
            (create("-v", MIB, &[], &[]), "'-v' cannot be the name"),
            (create("a b", MIB, &[], &[]), "'a b' cannot be the name"),
            (create("w", 0, &[], &[]), "at least 4096"),
            (create("w", 5000, &[], &[]), "multiple of 4096"),
            (create("w", u64::MAX - 4095, &[], &[]), "at most 1 EiB"),
            (create("w", MIB, &["d9"], &[]), "no device named d9"),
            (create("w", MIB, &[], &["d0", "d0"]), "named twice"),
            (create("w", 200 * MIB, &[], &[]), "d0 has"),
            (create("w", 200 * MIB, &[], &[]), "in use by v"),
            (
                create("w", 50 * MIB, &["d0"], &[]),
                "no space for a copy of the volume",
            ),
            (add("d0", 3), "already a device named d0"),
            (add("d2", 2), "needs at least 16777216"),
            (add("d2", 3), "data of an unknown kind"),
            (add("d2", 1), "is device d1 of this pool already"),
            (add("d2", 4), "belongs to pool"),
            (
                pool.device_remove("d0").await.err().unwrap().to_string(),
                "in use by v",
            ),
            (
                pool.device_remove("d7").await.err().unwrap().to_string(),
                "no device named d7",
            ),
            (
                pool.volume_grow("v", 20 * MIB)
                    .await
                    .err()
                    .unwrap()
                    .to_string(),
                "larger size",
            ),
            (
                pool.volume_grow("v", 900 * MIB)
                    .await
                    .err()
                    .unwrap()
                    .to_string(),
                "no space",
            ),
            (
                pool.volume_grow("w", MIB).await.err().unwrap().to_string(),
                "no volume named w",
            ),
            (
                pool.grant("v", "a b", Access::Rw)
                    .await
                    .err()
                    .unwrap()
                    .to_string(),
                "initiator name",
            ),
            (
                open(&world, &[0, 4]).await.err().unwrap().to_string(),
                "one pool at a time",
            ),
            (
                open(&world, &[0, 0]).await.err().unwrap().to_string(),
                "is a copy of the other",
            ),
            (
                open(&world, &[3]).await.err().unwrap().to_string(),
                "none of the devices",
            ),
        ] {
            assert!(
                said.contains(expected),
                "{said:?} does not say {expected:?}"
            );
        }
        // And nothing of it happened.
        assert_eq!(pool.volumes().len(), 1);
        assert_eq!(pool.devices().await.len(), 2);
    });
}

#[test]
fn luns_are_not_reused_at_once_and_names_are_free_again() {
    let world = world(&[64]);
    block_on(async {
        let pool = pool(&world, 1).await;
        let mut luns = Vec::new();
        for _ in 0..3 {
            let volume = pool.volume_create(request("v", 1)).await.unwrap();
            luns.push(volume.lun());
            pool.volume_delete("v").await.unwrap();
            assert!(volume.read(0, aligned_buffer(512)).await.0.is_err());
            assert!(volume.write(0, vec![0; 512].into()).await.is_err());
        }
        assert_eq!(luns, [0, 1, 2]);
        let info = pool.device("d0").await.unwrap();
        assert_eq!(info.free_bytes, info.capacity_bytes);
        pool.device_remove("d0").await.unwrap();
        assert!(pool.devices().await.is_empty());
        assert!(matches!(
            pool.volume_create(request("v", 1)).await,
            Err(PoolError::NoDevice)
        ));
        pool.device_add("again", source(&world, 0)).await.unwrap();
    });
}

#[test]
fn a_removed_device_is_not_asked_any_more() {
    let world = world(&[64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 3).await;
        pool.volume_create(CreateVolume {
            on: vec!["d2".into()],
            keys_on: vec!["d2".into()],
            ..request("v", 4)
        })
        .await
        .unwrap();
        pool.device_remove("d0").await.unwrap();
        pool.device_remove("d1").await.unwrap();
        let pool = open(&world, &[2]).await.unwrap();
        assert_eq!(pool.devices().await.len(), 1);
        assert_eq!(pool.volume("v").unwrap().fault(), None);
        assert!(open(&world, &[0, 1]).await.is_err());
        pool.device_add("back", source(&world, 0)).await.unwrap();
    });
}

#[test]
fn grow_is_online_and_adds_zeroes_only() {
    let world = world(&[32, 32]);
    block_on(async {
        let pool = pool(&world, 2).await;
        // Something that was written before must not shine through.
        let old = pool.volume_create(request("old", 22)).await.unwrap();
        old.write(0, vec![9; 22 << 20].into()).await.unwrap();
        pool.volume_delete("old").await.unwrap();
        let volume = pool.volume_create(request("v", 2)).await.unwrap();
        volume.write(0, vec![5; 2 << 20].into()).await.unwrap();
        for size in [2 * MIB + 4096, 10 * MIB, 40 * MIB] {
            let before = volume.size_bytes();
            pool.volume_grow("v", size).await.unwrap();
            assert_eq!(volume.size_bytes(), size);
            assert!(
                read(&volume, 0, 2 << 20)
                    .await
                    .iter()
                    .all(|byte| *byte == 5)
            );
            let new = read(&volume, before, (size - before) as usize).await;
            assert!(new.iter().all(|byte| *byte == 0));
        }
        let again = open(&world, &[0, 1]).await.unwrap();
        assert_eq!(again.volume("v").unwrap().record(), volume.record());
        let map = volume.map();
        let ranges = map
            .translate(Region::Public { plex: 0 }, 0, map.size_bytes())
            .unwrap();
        assert_eq!(
            ranges.len(),
            2,
            "one extent grew in place, one is on the other disk"
        );
    });
}

#[test]
fn a_private_region_that_cannot_be_trusted_is_a_fault() {
    let world = world(&[64]);
    block_on(async {
        let pool = pool(&world, 1).await;
        let volume = pool.volume_create(request("v", 4)).await.unwrap();
        pool.volume_create(request("w", 4)).await.unwrap();
        volume
            .private_region()
            .unwrap()
            .commit(&state(1))
            .await
            .unwrap();
        let keys = volume.record().keys[0].extent;
        world.overwrite(0, keys.offset_bytes, &vec![0; 8192]);
        let pool = open(&world, &[0]).await.unwrap();
        let volume = pool.volume("v").unwrap();
        assert!(
            volume.fault().unwrap().contains("empty"),
            "{:?}",
            volume.fault()
        );
        assert!(volume.private_region().is_err());
        assert!(volume.read(0, aligned_buffer(512)).await.0.is_err());
        assert_eq!(pool.volume("w").unwrap().fault(), None);
    });
}

#[test]
fn a_change_whose_outcome_is_unknown_is_settled_before_the_next() {
    let world = world(&[64]);
    block_on(async {
        let pool = pool(&world, 1).await;
        pool.volume_create(request("v", 4)).await.unwrap();
        // First the record's page cannot be written, then it can and the header cannot.
        for fuse in 0..4 {
            world.fuse(0, Some(fuse));
            let failed = pool.grant("v", "*", Access::Rw).await.is_err();
            world.fuse(0, None);
            assert_eq!(failed, fuse < 2);
            if failed {
                assert_eq!(pool.volume("v").unwrap().access_of("x"), Access::None);
            }
            pool.grant("v", "iqn.b", Access::Ro).await.unwrap();
            let found = open(&world, &[0]).await.unwrap();
            assert_eq!(
                found.volume("v").unwrap().record(),
                pool.volume("v").unwrap().record()
            );
            pool.grant("v", "*", Access::None).await.unwrap();
        }
    });
}

#[test]
fn after_a_failed_flush_nothing_is_acknowledged_until_the_pool_is_opened_again() {
    let world = world(&[64]);
    block_on(async {
        let pool = pool(&world, 1).await;
        let volume = pool.volume_create(request("v", 4)).await.unwrap();
        world.fail(0, false, false, true);
        assert!(volume.flush().await.is_err());
        world.fail(0, false, false, false);
        // The kernel tells of a lost write once; what was lost stays lost.
        assert!(volume.flush().await.is_err());
        assert!(pool.grant("v", "*", Access::Rw).await.is_err());
        let region = volume.private_region().unwrap();
        assert!(region.commit(&state(1)).await.is_err());
        let pool = open(&world, &[0]).await.unwrap();
        pool.volume("v").unwrap().flush().await.unwrap();
    });
}

#[test]
fn records_longer_than_a_page() {
    let world = world(&[64]);
    block_on(async {
        let pool = pool(&world, 1).await;
        pool.volume_create(request("v", 1)).await.unwrap();
        for number in 0..150 {
            pool.grant("v", &format!("iqn.2026-11.test:{number:0>60}"), Access::Rw)
                .await
                .unwrap();
        }
        let again = open(&world, &[0]).await.unwrap();
        assert_eq!(again.volume("v").unwrap().record().grants.len(), 150);
    });
}
