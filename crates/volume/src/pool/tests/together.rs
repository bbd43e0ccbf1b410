//! Operations beside one another.

use futures_lite::future::{or, zip};

use super::*;
use crate::sim;

#[test]
fn a_volume_that_is_deleted_while_it_grows_stays_deleted() {
    let (mut deleted, mut grown) = (0, 0);
    for seed in 0..40 {
        let world = SimWorld::seeded(seed);
        for _ in 0..2 {
            world.add(64 * MIB, 4096);
        }
        world.run(async {
            let pool = pool(&world, 2).await;
            pool.volume_create(request("v", 4)).await.unwrap();
            let (grow, delete) = zip(pool.volume_grow("v", 30 * MIB), async {
                // At any moment of it.
                let wait = std::time::Duration::from_micros(100 * seed);
                world.device(0).sleep(wait).await;
                pool.volume_delete("v").await
            })
            .await;
            delete.unwrap();
            match grow {
                Ok(()) => grown += 1,
                Err(PoolError::NoSuchVolume { .. }) => deleted += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(pool.volume("v").is_err());
            for info in pool.devices().await {
                assert_eq!(info.free_bytes, info.capacity_bytes);
            }
            assert!(open(&world, &[0, 1]).await.unwrap().volumes().is_empty());
        });
    }
    assert!(deleted > 5 && grown > 5, "{deleted} {grown}");
}

#[test]
fn a_volume_does_not_grow_twice_at_once() {
    let world = SimWorld::seeded(7);
    for _ in 0..2 {
        world.add(64 * MIB, 4096);
    }
    world.run(async {
        let pool = pool(&world, 2).await;
        pool.volume_create(request("v", 4)).await.unwrap();
        let (first, second) = zip(
            pool.volume_grow("v", 30 * MIB),
            pool.volume_grow("v", 5 * MIB),
        )
        .await;
        first.unwrap();
        // Its zeroes would have landed on what the first one made room for, or the other way round.
        assert!(
            matches!(second, Err(PoolError::Growing { .. })),
            "{second:?}"
        );
        pool.volume_grow("v", 31 * MIB).await.unwrap();
        // One that is given up half-way is not in the way of others, once what it had begun has ended.
        let clock = world.device(0);
        let late = async {
            clock.sleep(std::time::Duration::from_micros(50)).await;
            Ok(())
        };
        or(pool.volume_grow("v", 60 * MIB), late).await.unwrap();
        assert_eq!(pool.volume("v").unwrap().size_bytes(), 31 * MIB);
        clock.sleep(std::time::Duration::from_secs(5)).await;
        pool.volume_grow("v", 40 * MIB).await.unwrap();
    });
}

#[test]
fn a_change_does_not_wait_for_zeroes_of_another() {
    let world = SimWorld::seeded(1);
    for _ in 0..3 {
        world.add(64 * MIB, 4096);
    }
    world.run(async {
        let pool = Arc::new(pool(&world, 3).await);
        pool.volume_create(CreateVolume {
            on: vec!["d0".into()],
            ..request("v", 4)
        })
        .await
        .unwrap();
        let slow = CreateVolume {
            on: vec!["d2".into()],
            keys_on: vec!["d2".into()],
            ..request("slow", 30)
        };
        // Zeroes on d2 do not come to an end; other writes do.
        world.inject(
            2,
            sim::Fault::new(sim::Effect::Hang(Some(std::time::Duration::from_secs(60))))
                .on(sim::Operations::CHANGES)
                .range(5 * MIB..64 * MIB)
                .once(),
        );
        let creating = {
            let pool = pool.clone();
            sim::spawn(async move { pool.volume_create(slow).await.map(drop) })
        };
        let start = world.device(0).now();
        world
            .device(0)
            .sleep(std::time::Duration::from_secs(1))
            .await;
        pool.grant("v", "*", Access::Rw).await.unwrap();
        pool.volume_grow("v", 5 * MIB).await.unwrap();
        assert!(world.device(0).now() - start < std::time::Duration::from_secs(20));
        assert!(
            pool.volume("slow").is_err(),
            "it is not there before its zeroes are"
        );
        creating.await.unwrap();
        pool.volume("slow").unwrap();
    });
}
