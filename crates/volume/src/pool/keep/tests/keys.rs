//! Where new replicas of keys go.

use super::*;

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
