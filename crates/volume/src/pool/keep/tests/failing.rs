//! Devices that an operator fails although something needs them.

use super::*;
use crate::page_store::StoreError;
use crate::pool::jobs::Loss;
use crate::private_region::PrivateRegionError;

async fn losses(pool: &TestPool, device: &str) -> Vec<Loss> {
    match pool.device_fail(device).await {
        Ok(()) => Vec::new(),
        Err(PoolError::Job(JobError::WouldLose { losses, .. })) => losses,
        Err(error) => panic!("{error}"),
    }
}

fn keys_of(volume: &str, have: usize, need: usize) -> Loss {
    Loss::Keys {
        volume: volume.into(),
        have,
        need,
    }
}

/// No data of the volume is on the device, and the configuration has enough without it: its keys have not.
#[test]
fn a_device_with_the_majority_of_keys_is_failed_only_when_that_is_meant() {
    let world = SimWorld::seeded(250);
    world.run(async {
        let (pool, events) = pool(&world, &[64; 5]).await;
        let create = async |name: &str, on: &[&str]| {
            let request = CreateVolume {
                keys_on: names(on),
                ..request(name, 4, 2, &["d0", "d1"])
            };
            pool.volume_create(request).await.unwrap()
        };
        let one = create("one", &["d4"]).await;
        let two = create("two", &["d3", "d4"]).await;
        create("three", &["d2", "d3", "d4"]).await;
        let client = Client::new(&one);
        client.fill().await;
        one.private_region()
            .unwrap()
            .commit(&keys(1))
            .await
            .unwrap();
        let before = pool.device("d4").await.unwrap();
        let lost = [keys_of("one", 0, 1), keys_of("two", 1, 2)];
        assert_eq!(losses(&pool, "d4").await, lost);
        let error = pool.device_fail("d4").await.unwrap_err().to_string();
        assert!(
            error.contains("the keys of volume one have 0 of the 1 copies")
                && error.contains("volume two"),
            "{error}"
        );
        assert_eq!(pool.device("d4").await.unwrap(), before, "as it was");
        assert!(!events.any(|event| matches!(event, PoolEvent::DeviceFailed { .. })));

        assert_eq!(pool.device_fail_forced("d4").await.unwrap(), lost);
        let info = pool.device("d4").await.unwrap();
        assert!(!info.online && info.failed.unwrap().contains("--force"));
        // The data is served; a change of the keys is refused, and never answered as done.
        client.check_all().await;
        assert!(client.write(3).await);
        for volume in [&one, &two] {
            let changed = volume.private_region().unwrap().commit(&keys(2)).await;
            assert!(
                matches!(
                    changed,
                    Err(PrivateRegionError::Store(
                        StoreError::NotCommitted { .. } | StoreError::Unsettled { .. }
                    ))
                ),
                "{changed:?}"
            );
        }
        pool.device_online("d4", source(&world, 4)).await.unwrap();
        let clock = world.device(0);
        clock.sleep(Duration::from_secs(30)).await;
        let found = one.private_region().unwrap().recover().await.unwrap();
        assert_eq!(found, keys(1));
        client.check_all().await;
    });
}

/// Two devices hold two of the three replicas each time: the second is refused while the first is away.
#[test]
fn the_second_of_two_devices_with_keys_is_refused_while_the_first_is_away() {
    let world = SimWorld::seeded(251);
    world.run(async {
        let (pool, _events) = pool(&world, &[64; 5]).await;
        let request = CreateVolume {
            keys_on: names(&["d2", "d3", "d4"]),
            ..request("v", 4, 1, &["d0"])
        };
        let volume = pool.volume_create(request).await.unwrap();
        pool.device_fail("d3").await.unwrap();
        assert_eq!(losses(&pool, "d4").await, [keys_of("v", 1, 2)]);
        pool.device_online("d3", source(&world, 3)).await.unwrap();
        let current = async || {
            let health = volume.private_region().unwrap().health().await;
            let current = crate::page_store::ReplicaHealth::Current;
            health.iter().all(|info| info.health == current)
        };
        // Nothing was committed meanwhile, or it is repaired.
        for _ in 0..60 {
            if current().await {
                break;
            }
            world.device(0).sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(losses(&pool, "d4").await, []);
    });
}

/// With the only copy of a volume and with the majority of the configuration: each is told, and each can be had.
#[test]
fn the_last_copy_and_the_quorum_of_the_configuration_go_when_that_is_meant() {
    let world = SimWorld::seeded(252);
    world.run(async {
        let (pool, events) = pool(&world, &[64; 3]).await;
        let only = pool
            .volume_create(request("only", 4, 1, &["d1"]))
            .await
            .unwrap();
        let both = pool
            .volume_create(request("both", 4, 2, &["d1", "d2"]))
            .await
            .unwrap();
        let (alone, mirrored) = (Client::new(&only), Client::new(&both));
        alone.fill().await;
        mirrored.fill().await;
        alone.flush().await;
        mirrored.flush().await;
        pool.device_fail("d0").await.unwrap();
        let lost = losses(&pool, "d1").await;
        let told: Vec<String> = lost.iter().map(Loss::to_string).collect();
        assert_eq!(
            told,
            [
                "volume only loses the only valid copy of 4194304 bytes at 0",
                "the keys of volume only have 1 of the 2 copies that they need",
                "the keys of volume both have 1 of the 2 copies that they need",
                "the configuration has 1 of the 2 copies that it needs",
            ]
        );
        assert_eq!(pool.device_fail_forced("d1").await.unwrap(), lost);
        assert!(events.any(
            |event| matches!(event, PoolEvent::DeviceFailed { device, .. } if device == "d1")
        ));
        // The mirror goes on: that its plex takes no part was committed while that was possible.
        assert!(!both.record().plexes[0].is_attached());
        assert!(mirrored.write(3).await);
        assert!(!alone.write(3).await);
        let renamed = pool.volume_rename("both", "x").await;
        assert!(renamed.is_err(), "the configuration has no quorum");
        // The next start knows of it.
        drop(pool);
        let (pool, _events) = open(&world, &[0, 1, 2]).await;
        keep(&pool);
        assert!(pool.volume("only").unwrap().fault().is_some());
        pool.device_online("d1", source(&world, 1)).await.unwrap();
        pool.device_online("d0", source(&world, 0)).await.unwrap();
        let again = alone.again(&pool.volume("only").unwrap());
        again.check_all().await;
        assert!(again.write(4).await);
        let both = pool.volume("both").unwrap();
        until(&world, 60, "whole", || is_whole(&both)).await;
        mirrored.again(&both).check_all().await;
    });
}
