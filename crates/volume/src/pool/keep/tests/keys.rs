//! Where new replicas of keys go.

use super::*;
use crate::page_store::ReplicaHealth;

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
