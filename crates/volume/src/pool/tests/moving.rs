//! Import, export and handover.

use std::time::Duration;

use super::*;

const ELSEWHERE: Uuid = Uuid::from_u128(0xe15e);

async fn open_elsewhere(world: &SimWorld, disks: &[usize]) -> Result<Pool<SimDevice>, PoolError> {
    let sources = disks.iter().map(|disk| source(world, *disk)).collect();
    Pool::open(sources, ELSEWHERE).await
}

async fn keys(pool: &Pool<SimDevice>, volume: &str) -> State {
    let volume = pool.volume(volume).unwrap();
    volume.private_region().unwrap().load().await.unwrap()
}

/// A registration without APTPL, which a reboot drops.
async fn register(pool: &Pool<SimDevice>, volume: &str) {
    assert!(!state(3).aptpl);
    let volume = pool.volume(volume).unwrap();
    let region = volume.private_region().unwrap();
    region.commit(&state(3)).await.unwrap();
}

#[test]
fn an_exported_pool_is_empty_and_comes_up_elsewhere_with_all_that_it_had() {
    let world = world(&[64, 64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 3).await;
        let volume = pool.volume_create(request("v", 4)).await.unwrap();
        pool.grant("v", "iqn.2026-11.test:a", Access::Rw)
            .await
            .unwrap();
        volume.write(0, vec![7; 4096].into()).await.unwrap();
        register(&pool, "v").await;
        let record = volume.record();
        let uuid = pool.uuid().await;
        pool.export().await.unwrap();
        // Nothing of it is left here, not even for those who still hold the volume.
        assert!(pool.info().await.is_none() && pool.volumes().is_empty());
        assert!(volume.write(0, vec![8; 4096].into()).await.is_err());
        assert!(volume.read(0, aligned_buffer(4096)).await.0.is_err());
        assert!(
            volume
                .private_region()
                .unwrap()
                .commit(&state(4))
                .await
                .is_err()
        );
        assert!(matches!(pool.export().await, Err(PoolError::NoDevice)));

        let other = open_elsewhere(&world, &[]).await.unwrap();
        let sources = (0..3).map(|disk| source(&world, disk)).collect();
        other.import(sources).await.unwrap();
        assert_eq!(other.uuid().await, uuid);
        assert!(!other.info().await.unwrap().handover);
        let moved = other.volume("v").unwrap();
        assert_eq!(moved.record(), record);
        assert_eq!(read(&moved, 0, 4096).await, [7; 4096]);
        assert_eq!(keys(&other, "v").await, state(3), "no power was lost");
        let again = other.import(vec![source(&world, 3)]).await;
        assert!(matches!(again, Err(PoolError::NotEmpty { devices: 3 })));
        drop((other, moved));
        // There it is a pool like any other: a reboot is one again.
        let rebooted = open(&world, &[0, 1, 2]).await.unwrap();
        assert_eq!(keys(&rebooted, "v").await.registrants.len(), 0);
        // The empty pool can become another one.
        pool.device_add("new", source(&world, 3)).await.unwrap();
    });
}

#[test]
fn without_an_export_elsewhere_is_a_reboot() {
    let world = world(&[64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 3).await;
        pool.volume_create(request("v", 4)).await.unwrap();
        register(&pool, "v").await;
        drop(pool);
        let other = open_elsewhere(&world, &[0, 1, 2]).await.unwrap();
        assert_eq!(keys(&other, "v").await.registrants.len(), 0);
    });
}

#[test]
fn a_failed_import_leaves_the_pool_empty() {
    let world = world(&[64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 3).await;
        pool.volume_create(request("v", 4)).await.unwrap();
        pool.export().await.unwrap();
        let error = pool.import(vec![source(&world, 0)]).await.err().unwrap();
        assert!(error.to_string().contains("only 1 of 3"), "{error}");
        assert!(pool.info().await.is_none() && pool.volumes().is_empty());
        // And with a device fewer it works, and says so.
        let sources = [2, 1].map(|disk| source(&world, disk));
        pool.import(sources.into()).await.unwrap();
        assert_eq!(pool.info().await.unwrap().missing, ["d0"]);
        assert_eq!(pool.volume("v").unwrap().fault().is_some(), {
            let record = pool.volume("v").unwrap().record();
            let d0 = pool.device("d0").await.unwrap().uuid;
            record.plexes[0].is_on(d0)
        });
    });
}

/// The machine may lose power at any moment of the way from one to the other: the keys come along in any case once the
/// export has returned, and are never found in between with nobody's boot identity.
#[test]
fn a_crash_at_any_moment_of_a_handover() {
    let world = world(&[32, 32, 32]);
    let mut stamps = 0;
    block_on(async {
        let pool = pool(&world, 3).await;
        for name in ["v", "w"] {
            pool.volume_create(request(name, 1)).await.unwrap();
            register(&pool, name).await;
        }
        world.record();
        pool.export().await.unwrap();
        world.mark(1);
        let other = open_elsewhere(&world, &[0, 1, 2]).await.unwrap();
        world.mark(2);
        for volume in other.volumes() {
            let region = volume.private_region().unwrap();
            assert_eq!(region.load().await.unwrap(), state(3));
        }
    });
    let mut points = 0;
    world.crashes(1, 5, |crash| {
        points += 1;
        let world = world.with_images(crash.images);
        block_on(async {
            // Who comes next: the same machine without a reboot, or another one.
            for (boot, same_machine) in [(BOOT, true), (Uuid::from_u128(0xabc), false)] {
                let images = (0..3).map(|disk| world.image(disk)).collect();
                let world = world.with_images(images);
                let sources = (0..3).map(|disk| source(&world, disk)).collect();
                let pool = Pool::open(sources, boot).await.unwrap();
                assert!(!pool.info().await.unwrap().handover);
                let mut kept = Vec::new();
                for volume in pool.volumes() {
                    assert_eq!(volume.fault(), None);
                    let region = volume.private_region().unwrap();
                    kept.push(region.load().await.unwrap() == state(3));
                }
                assert!(
                    kept == [true; 2] || kept == [false; 2],
                    "all or none: {kept:?}"
                );
                match crash.mark {
                    // Not exported yet, or perhaps: a restart of the same machine loses nothing.
                    None if same_machine => assert_eq!(kept, [true; 2]),
                    None => {}
                    // Exported, and perhaps imported: kept until the import has returned.
                    Some(1) => stamps += usize::from(kept == [true; 2]),
                    // Imported elsewhere; this boot is another one.
                    Some(_) => assert_eq!(kept, [false; 2]),
                }
            }
        });
    });
    assert!(points > 30 && stamps > 20, "{points} {stamps}");
}

/// While the mark is there, whoever opens it keeps the keys; it goes only when every private region has the new stamp.
#[test]
fn the_mark_goes_after_the_last_stamp() {
    let world = world(&[32, 32, 32]);
    block_on(async {
        let pool = pool(&world, 3).await;
        for name in ["v", "w"] {
            pool.volume_create(request(name, 1)).await.unwrap();
            register(&pool, name).await;
        }
        pool.export().await.unwrap();
        world.record();
        drop(open_elsewhere(&world, &[0, 1, 2]).await.unwrap());
    });
    let mut seen = std::collections::BTreeSet::new();
    world.crashes(0, 1, |crash| {
        let world = world.with_images(crash.images);
        block_on(async {
            // Looked at with the boot identity of the export: it stamps nothing by itself where the stamp is that.
            let sources: Vec<_> = (0..3).map(|disk| source(&world, disk)).collect();
            let pool = Pool::open(Vec::new(), BOOT).await.unwrap();
            let marked = read_config(&world).await.pool.handover;
            pool.import(sources).await.unwrap();
            let kept: Vec<bool> = {
                let mut kept = Vec::new();
                for volume in pool.volumes() {
                    let region = volume.private_region().unwrap();
                    kept.push(region.load().await.unwrap() == state(3));
                }
                kept
            };
            // Marked: kept. Not marked: everything has the stamp of the other boot, so that this is a reboot.
            assert_eq!(kept, [marked; 2]);
            seen.insert(marked);
        });
    });
    assert_eq!(seen.len(), 2);
}

/// The configuration on the disks, without opening the pool.
async fn read_config(world: &SimWorld) -> Config {
    let mut replicas = Vec::new();
    let mut pool = Uuid::nil();
    for disk in 0..3 {
        let device = Device::new(
            Uuid::nil(),
            String::new(),
            String::new(),
            world.device(disk),
        );
        let label = crate::label::read(&device).await.unwrap();
        pool = label.pool;
        replicas.push(crate::page_store::Replica {
            uuid: label.device,
            device: Arc::new(device),
            offset_bytes: label.areas.config_offset_bytes,
            length_bytes: label.areas.config_length_bytes,
        });
    }
    let store = ConfigStore::open(pool, replicas, false).await.unwrap();
    store.config().clone()
}

/// An export whose commit fails, at once or with an outcome that is not known, leaves a pool that is in use and not
/// marked: the next reboot is one.
#[test]
fn a_failed_export_is_no_handover() {
    let mut failures = 0;
    for fuse in 0..8 {
        let world = world(&[32]);
        block_on(async {
            let pool = pool(&world, 1).await;
            pool.volume_create(request("v", 1)).await.unwrap();
            register(&pool, "v").await;
            world.fuse(0, Some(fuse));
            let exported = pool.export().await;
            world.fuse(0, None);
            if exported.is_ok() {
                return;
            }
            failures += 1;
            pool.grant("v", "iqn.x", Access::Rw).await.unwrap();
            assert!(!pool.info().await.unwrap().handover);
            assert_eq!(keys(&pool, "v").await, state(3));
            drop(pool);
            let rebooted = open_elsewhere(&world, &[0]).await.unwrap();
            assert_eq!(keys(&rebooted, "v").await.registrants.len(), 0);
        });
    }
    assert!(failures >= 2, "{failures}");
}

/// The commit that marks the pool makes nothing durable on a disk whose copy of the configuration it does not reach in time.
#[test]
fn what_was_written_before_an_export_is_durable_on_every_disk() {
    let world = world(&[64, 64, 64]);
    let areas = crate::label::Areas::of(64 << 20).unwrap();
    let start = areas.config_offset_bytes;
    world.run(async {
        let pool = pool(&world, 3).await;
        let on = CreateVolume {
            on: vec!["d1".into()],
            ..request("v", 4)
        };
        let volume = pool.volume_create(on).await.unwrap();
        volume.write(0, vec![7; 4096].into()).await.unwrap();
        let late = Fault::new(Effect::Hang(Some(Duration::from_secs(3))));
        let late = late.range(start..start + areas.config_length_bytes);
        world.inject(1, late.on(Operations::CHANGES).once());
        pool.export().await.unwrap();
    });
    for seed in 0..10 {
        let there = world.after(Stop::PowerCut, seed);
        there.run(async {
            let pool = open_elsewhere(&there, &[0, 1, 2]).await.unwrap();
            let volume = pool.volume("v").unwrap();
            assert_eq!(read(&volume, 0, 4096).await, [7; 4096]);
        });
    }
}
