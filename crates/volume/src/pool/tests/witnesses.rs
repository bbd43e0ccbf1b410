//! The witness beside two disks.

use super::*;
use crate::config::DeviceRole;

/// Two disks of 64 MiB and one of 32 MiB for the witness.
async fn with_witness(world: &SimWorld) -> Pool<SimDevice> {
    let pool = pool(world, 2).await;
    assert!(pool.witness_needed().await);
    let info = pool.witness_add(source(world, 2)).await.unwrap();
    assert_eq!(
        (info.name.as_str(), info.role),
        ("witness", DeviceRole::Witness)
    );
    assert!(!pool.witness_needed().await);
    assert!(pool.witnesses_to_remove().await.is_empty());
    pool
}

fn names(infos: &[DeviceInfo]) -> Vec<&str> {
    infos.iter().map(|info| info.name.as_str()).collect()
}

#[test]
fn it_holds_keys_and_no_data_and_one_of_three_may_be_lost() {
    let world = world(&[64, 64, 32]);
    block_on(async {
        let pool = with_witness(&world).await;
        // 50 MiB, then 50 MiB, then there is room on the witness only.
        let mut volumes = Vec::new();
        for name in ["v", "w"] {
            volumes.push(
                pool.volume_create(request(name, 50))
                    .await
                    .unwrap()
                    .record(),
            );
        }
        assert!(pool.volume_create(request("x", 12)).await.is_err());
        let on_witness = CreateVolume {
            on: vec!["witness".into()],
            ..request("x", 4)
        };
        let error = pool
            .volume_create(on_witness)
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("a witness holds no data"), "{error}");
        let uuid = pool.device("witness").await.unwrap().uuid;
        for record in &volumes {
            assert!(record.plexes.iter().all(|plex| !plex.is_on(uuid)));
            assert_eq!(record.keys.len(), 3);
            assert_eq!(record.keys[2].extent.device, uuid, "the witness comes last");
        }
        for (name, keys) in [("v", state(1)), ("w", state(2))] {
            let volume = pool.volume(name).unwrap();
            volume
                .private_region()
                .unwrap()
                .commit(&keys)
                .await
                .unwrap();
        }
        drop(pool);
        for lost in 0..3 {
            let rest: Vec<usize> = (0..3).filter(|disk| *disk != lost).collect();
            let pool = open(&world, &rest).await.unwrap();
            for (index, (name, keys)) in [("v", state(1)), ("w", state(2))].iter().enumerate() {
                let volume = pool.volume(name).unwrap();
                if index == lost {
                    assert!(volume.fault().is_some(), "its only data is there");
                } else {
                    assert_eq!(volume.fault(), None);
                    assert_eq!(
                        volume.private_region().unwrap().load().await.unwrap(),
                        *keys
                    );
                    pool.grant(name, "iqn.x", Access::Rw).await.unwrap();
                }
            }
            assert_eq!(pool.witness_needed().await, lost == 2);
        }
    });
}

#[test]
fn a_third_disk_makes_it_superfluous_and_one_disk_alone_too() {
    let world = world(&[64, 64, 32, 64]);
    block_on(async {
        let pool = with_witness(&world).await;
        pool.volume_create(request("v", 4)).await.unwrap();
        pool.device_add("d3", source(&world, 3)).await.unwrap();
        let surplus = pool.witnesses_to_remove().await;
        assert_eq!(names(&surplus), ["witness"]);
        assert_eq!(surplus[0].volumes, ["v"]);
        let error = pool
            .device_remove("witness")
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("v (keys)"), "{error}");
        // The keeper moves the keys; here the volume goes.
        pool.volume_delete("v").await.unwrap();
        pool.device_remove("witness").await.unwrap();
        assert!(pool.witnesses_to_remove().await.is_empty() && !pool.witness_needed().await);
        // Back to two.
        pool.device_remove("d3").await.unwrap();
        assert!(pool.witness_needed().await);
        pool.witness_add(source(&world, 2)).await.unwrap();
        pool.device_remove("d1").await.unwrap();
        assert_eq!(names(&pool.witnesses_to_remove().await), ["witness"]);
        let more = pool.witness_add(source(&world, 1)).await.unwrap();
        assert_eq!(more.name, "witness-2");
        assert_eq!(
            names(&pool.witnesses_to_remove().await),
            ["witness", "witness-2"]
        );
        // The last disk takes the pool with it, and the witnesses' labels.
        pool.device_remove("d0").await.unwrap();
        assert!(pool.info().await.is_none());
        for disk in [0, 1, 2] {
            pool.device_add("new", source(&world, disk)).await.unwrap();
            pool.device_remove("new").await.unwrap();
        }
        let error = pool.witness_add(source(&world, 2)).await.err().unwrap();
        assert!(matches!(error, PoolError::NoDevice));
    });
}

#[test]
fn one_whose_file_was_lost_is_replaced() {
    let world = world(&[64, 64, 32, 32]);
    block_on(async {
        drop(with_witness(&world).await);
        let pool = open(&world, &[0, 1]).await.unwrap();
        assert!(pool.witness_needed().await);
        assert!(
            pool.witnesses_to_remove().await.is_empty(),
            "not before there is another"
        );
        let new = pool.witness_add(source(&world, 3)).await.unwrap();
        assert_eq!(new.name, "witness-2");
        assert!(!pool.witness_needed().await);
        assert_eq!(names(&pool.witnesses_to_remove().await), ["witness"]);
        pool.device_remove("witness").await.unwrap();
        assert_eq!(pool.info().await.unwrap().config_members, 3);
        // The old one comes up again: it is outvoted and left out.
        let pool = open(&world, &[0, 1, 2, 3]).await.unwrap();
        assert_eq!(names(&pool.devices().await), ["d0", "d1", "witness-2"]);
        for lost in [0, 1, 3] {
            let rest: Vec<usize> = [0, 1, 3].into_iter().filter(|disk| *disk != lost).collect();
            open(&world, &rest).await.unwrap();
        }
    });
}

/// A crash at any moment while a witness joins, is replaced and leaves.
#[test]
fn crashes() {
    let world = world(&[32, 32, 32, 32]);
    block_on(async {
        let pool = pool(&world, 2).await;
        pool.volume_create(request("v", 1)).await.unwrap();
        world.record();
        pool.witness_add(source(&world, 2)).await.unwrap();
        world.mark(1);
        drop(pool);
        let pool = open(&world, &[0, 1]).await.unwrap();
        pool.witness_add(source(&world, 3)).await.unwrap();
        world.mark(2);
        pool.device_remove("witness").await.unwrap();
        world.mark(3);
        pool.device_remove("witness-2").await.unwrap();
        world.mark(4);
    });
    let mut points = 0;
    world.crashes(1, 3, |crash| {
        points += 1;
        let world = world.with_images(crash.images);
        let expected: &[&[&str]] = match crash.mark {
            None => &[&[], &["witness"]],
            Some(1) => &[&["witness"], &["witness", "witness-2"]],
            Some(2) => &[&["witness", "witness-2"], &["witness-2"]],
            Some(3) => &[&["witness-2"], &[]],
            Some(_) => &[&[]],
        };
        block_on(async {
            let pool = open(&world, &[0, 1, 2, 3]).await.unwrap();
            let devices = pool.devices().await;
            let found: Vec<&str> = devices
                .iter()
                .filter(|info| info.role == DeviceRole::Witness)
                .map(|info| info.name.as_str())
                .collect();
            assert!(
                expected.contains(&&found[..]),
                "{:?}: {found:?}",
                crash.mark
            );
            assert_eq!(pool.volume("v").unwrap().fault(), None);
            // It goes on: the daemon's next round brings what is right.
            while let Some(info) = pool.witnesses_to_remove().await.first() {
                pool.device_remove(&info.name).await.unwrap();
            }
            if pool.witness_needed().await {
                let free = if pool.devices().await.len() == 2 {
                    3
                } else {
                    2
                };
                pool.witness_add(source(&world, free)).await.unwrap();
            }
            assert_eq!(pool.info().await.unwrap().config_members, 3);
        });
    });
    assert!(points > 60, "{points}");
}
