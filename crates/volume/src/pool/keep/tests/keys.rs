//! Where new replicas of keys go.

use super::*;
use crate::page_store::ReplicaHealth;
use crate::pool::jobs::Migrate;

/// A device that nobody uses may be dead without anybody knowing.
#[test]
fn keys_go_to_a_device_that_works_when_another_one_turns_out_not_to() {
    for unused in 0..2 {
        let world = SimWorld::seeded(240);
        world.run(async {
            let (pool, events) = pool(&world, &[64; 5]).await;
            let volume = pool
                .volume_create(request("v", 4, 1, &["d0"]))
                .await
                .unwrap();
            let region = volume.private_region().unwrap();
            let on = |region: Vec<crate::page_store::ReplicaInfo>| -> Vec<usize> {
                let names = region.into_iter().map(|info| info.device_name);
                names.map(|name| name[1..].parse().unwrap()).collect()
            };
            let before = on(region.health_now().await.unwrap());
            let without: Vec<usize> = (0..5).filter(|disk| !before.contains(disk)).collect();
            let lost = before.iter().copied().find(|disk| *disk != 0).unwrap();
            world.die(without[unused]);
            world.die(lost);
            region.commit(&keys(1)).await.unwrap();
            event(&world, &events, "new replica", |event| {
                matches!(event, PoolEvent::KeysReplicaRebuilt { .. })
            })
            .await;
            let after = on(region.health_now().await.unwrap());
            assert!(after.contains(&without[1 - unused]), "{after:?}");
        });
    }
}

/// A volume that moves keeps as many copies of its keys as it had, at every moment.
#[test]
fn a_migration_leaves_no_fewer_copies_of_the_keys() {
    for named in [&[][..], &["d0", "d1", "d2"]] {
        let world = SimWorld::seeded(243);
        world.run(async {
            let (pool, _) = pool(&world, &[64; 4]).await;
            pool.device_remove("d3").await.unwrap();
            let request = CreateVolume {
                keys_on: names(named),
                ..request("v", 4, 1, &["d0"])
            };
            let volume = pool.volume_create(request).await.unwrap();
            let region = volume.private_region().unwrap();
            region.commit(&keys(1)).await.unwrap();
            let to = Migrate {
                to: names(&["d1"]),
                ..Migrate::default()
            };
            pool.volume_migrate("v", to).await.unwrap();
            while volume.record().job.is_some() {
                let health = region.health_now().await.unwrap();
                assert!(health.len() >= 3, "{health:?}");
                world.device(0).sleep(Duration::from_millis(1)).await;
            }
            let health = region.health_now().await.unwrap();
            let whole = |info: &crate::page_store::ReplicaInfo| {
                info.device.is_some() && info.health == ReplicaHealth::Current
            };
            assert!(health.len() == 3 && health.iter().all(whole), "{health:?}");
            assert_eq!(region.load().await.unwrap(), keys(1));
        });
    }
}

/// The only copy of the keys is on a device that is out of use when it is evacuated: the job goes on when that is back, without a
/// command of an initiator.
#[test]
fn a_change_of_the_keys_that_was_cut_off_goes_on() {
    let world = SimWorld::seeded(244);
    world.run(async {
        let (pool, _) = pool(&world, &[64; 4]).await;
        let request = CreateVolume {
            keys_on: names(&["d3"]),
            ..request("v", 4, 1, &["d0"])
        };
        let volume = pool.volume_create(request).await.unwrap();
        let region = volume.private_region().unwrap();
        let before = region.load().await.unwrap();
        pool.device_fail_forced("d3").await.unwrap();
        pool.device_evacuate("d3", None).await.unwrap();
        until(&world, 60, "a change that was cut off", || {
            region.is_unsettled() == Some(true)
        })
        .await;
        world.device(0).sleep(Duration::from_secs(30)).await;
        assert!(volume.record().job.is_some());
        pool.device_online("d3", source(&world, 3)).await.unwrap();
        until(&world, 60, "the end of the job", || {
            volume.record().job.is_none()
        })
        .await;
        assert_eq!(region.load().await.unwrap(), before);
        let on_d3 = region.health_now().await.unwrap();
        assert!(on_d3.iter().all(|info| info.device_name != "d3"));
    });
}

/// Four replicas where three are wanted, as a job may leave them, and one is lost: the loss of another must not stop it.
#[test]
fn a_lost_replica_more_than_there_should_be_leaves() {
    let world = SimWorld::seeded(242);
    world.run(async {
        let (pool, _) = pool(&world, &[64; 5]).await;
        let volume = pool
            .volume_create(request("v", 4, 1, &["d0"]))
            .await
            .unwrap();
        let region = volume.private_region().unwrap();
        {
            let mutex = pool.keeper.keys_change(volume.uuid());
            let _held = mutex.lock().await;
            let record = volume.record();
            let taken = record.keys.iter().map(|keys| keys.extent.device).collect();
            let inner = pool.inner.lock().await;
            let devices = inner.keys_devices(&[], &[]).unwrap();
            let mut placing = inner.placing().unwrap();
            let new = placing.keys(&devices, &taken).unwrap();
            let reserved = placing.finish();
            drop(inner);
            let changed = pool.change_volume(&volume, Vec::new(), |record| {
                record.keys.push(new);
                Ok(())
            });
            changed.await.unwrap();
            reserved.committed();
            let devices = pool.snapshot().await.devices;
            let replica = pool.replica_of(&volume.record(), new.uuid, &devices);
            region.add_replica(replica.unwrap()).await.unwrap();
        }
        let health = region.health_now().await.unwrap();
        assert_eq!(health.len(), 4);
        let other = health.iter().find(|info| info.device_name != "d0").unwrap();
        let lost: usize = other.device_name[1..].parse().unwrap();
        world.die(lost);
        region.commit(&keys(1)).await.unwrap();
        world.device(0).sleep(Duration::from_secs(60)).await;
        let health = region.health_now().await.unwrap();
        let whole = health
            .iter()
            .all(|info| info.health == ReplicaHealth::Current);
        assert!(whole && health.len() == 3, "{health:?}");
        let record = volume.record();
        assert_eq!(record.keys.len(), 3, "{:?}", record.keys);
    });
}
