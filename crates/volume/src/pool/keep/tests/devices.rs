//! Devices that break, hang, and come back, under load.

use super::*;
use crate::pool::jobs::{JobControl, WhichPlex};

const PAUSE: Duration = Duration::from_millis(3);

fn is_detached(event: &PoolEvent) -> bool {
    matches!(event, PoolEvent::PlexDetached { .. })
}

fn is_attached(event: &PoolEvent) -> bool {
    matches!(event, PoolEvent::PlexAttached { .. })
}

#[test]
fn a_device_that_dies_is_detached_without_an_error_and_resynchronized_when_it_is_back() {
    for seed in 0..6 {
        let world = SimWorld::seeded(seed);
        world.run(async {
            let (pool, events) = pool(&world, &[64, 64, 64]).await;
            let volume = pool
                .volume_create(request("v", 8, 2, &["d0", "d1"]))
                .await
                .unwrap();
            let client = Client::new(&volume);
            client.fill().await;
            client.load(&world, 4, PAUSE);
            world.device(0).sleep(Duration::from_secs(1)).await;
            world.die(1);
            event(&world, &events, "detach", is_detached).await;
            event(
                &world,
                &events,
                "device failed",
                |event| matches!(event, PoolEvent::DeviceFailed { device, .. } if device == "d1"),
            )
            .await;
            let info = pool.device("d1").await.unwrap();
            assert!(info.failed.is_some());
            let before = client.writes.get();
            world.device(0).sleep(Duration::from_secs(2)).await;
            assert!(client.writes.get() > before + 100, "the load goes on");
            assert_eq!(client.errors.get(), 0);
            // The keys found a third device long ago; those on d1 went elsewhere or wait.
            world.revive(1);
            pool.device_online("d1", source(&world, 1)).await.unwrap();
            event(&world, &events, "attach", is_attached).await;
            until(&world, 60, "resync", || is_whole(&volume)).await;
            client.stop();
            world.device(0).sleep(Duration::from_secs(1)).await;
            plexes_are_the_same(&world, &pool, &volume).await;
            client.check_all().await;
            assert_eq!(client.errors.get(), 0);
            assert!(events.any(|event| matches!(event, PoolEvent::ResyncDone { .. })));
        });
    }
}

#[test]
fn a_device_that_hangs_is_detached_and_taken_back_by_itself() {
    for seed in 10..16 {
        let world = SimWorld::seeded(seed);
        world.run(async {
            let (pool, events) = pool(&world, &[64, 64, 64]).await;
            let volume = pool
                .volume_create(request("v", 8, 2, &["d0", "d1"]))
                .await
                .unwrap();
            let client = Client::new(&volume);
            client.fill().await;
            client.load(&world, 4, PAUSE);
            world.device(0).sleep(Duration::from_secs(1)).await;
            world.hang(0);
            event(&world, &events, "detach", is_detached).await;
            let before = client.writes.get();
            world.device(1).sleep(Duration::from_secs(5)).await;
            assert!(client.writes.get() > before + 100, "the load goes on");
            assert!(!events.any(is_attached), "it still hangs");
            world.resume(0);
            event(
                &world,
                &events,
                "back",
                |event| matches!(event, PoolEvent::DeviceBack { device } if device == "d0"),
            )
            .await;
            event(&world, &events, "attach", is_attached).await;
            until(&world, 120, "resync", || is_whole(&volume)).await;
            client.stop();
            world.device(0).sleep(Duration::from_secs(1)).await;
            plexes_are_the_same(&world, &pool, &volume).await;
            client.check_all().await;
            assert_eq!(client.errors.get(), 0);
        });
    }
}

#[test]
fn what_hangs_in_one_volume_holds_up_no_other() {
    let world = SimWorld::seeded(20);
    world.run(async {
        let (pool, events) = pool(&world, &[64, 64, 64, 64, 64]).await;
        for number in 0..5 {
            pool.volume_create(request(&format!("stuck{number}"), 2, 1, &["d4"]))
                .await
                .unwrap();
        }
        let volume = pool
            .volume_create(request("v", 4, 1, &["d0"]))
            .await
            .unwrap();
        Client::new(&volume).fill().await;
        for number in 0..5 {
            pool.volume_add_mirror(&format!("stuck{number}"), &names(&["d3"]), Some(1000))
                .await
                .unwrap();
        }
        // The only copies of five volumes hang, in the middle of being copied.
        world.hang(4);
        world.device(0).sleep(Duration::from_secs(30)).await;
        pool.volume_add_mirror("v", &names(&["d1"]), None)
            .await
            .unwrap();
        event(
            &world,
            &events,
            "job",
            |event| matches!(event, PoolEvent::JobDone { volume, .. } if volume == "v"),
        )
        .await;
        world.resume(4);
        until(&world, 7200, "the others", || {
            pool.volumes().iter().all(|volume| is_whole(volume))
        })
        .await;
    });
}

#[test]
fn the_last_copy_is_never_detached() {
    let world = SimWorld::seeded(21);
    world.run(async {
        let (pool, events) = pool(&world, &[64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 4, 2, &["d0", "d1"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        let refused = pool.volume_create(request("w", 4, 1, &["d1"])).await;
        refused.unwrap();
        let error = pool.device_fail("d1").await.unwrap_err().to_string();
        assert!(error.contains("volume w"), "{error}");
        pool.volume_delete("w").await.unwrap();
        pool.device_fail("d1").await.unwrap();
        assert!(events.any(is_detached), "it is detached on return");
        let error = pool.device_fail("d0").await.unwrap_err().to_string();
        assert!(error.contains("only valid copy"), "{error}");
        let error = pool
            .volume_remove_mirror("v", crate::pool::jobs::WhichPlex::Position(0))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("only valid copy"), "{error}");
        // Errors of the last copy are the client's, and it works on when they are gone.
        world.fail(0, false, true, false);
        assert!(!client.write(3).await);
        world.fail(0, false, false, false);
        client.check_all().await;
        assert!(client.write(3).await);
        client.check_all().await;
        assert!(volume.record().plexes[0].is_attached());
    });
}

#[test]
fn without_a_quorum_of_the_configuration_writes_are_refused_and_not_lost() {
    let world = SimWorld::seeded(22);
    world.run(async {
        let (pool, events) = pool(&world, &[64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 4, 2, &["d0", "d1"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        world.die(2);
        world.die(1);
        // The plex on d1 cannot be detached durably: one of three copies of the configuration is no majority.
        assert!(!client.write(1).await);
        event(&world, &events, "quorum lost", |event| {
            matches!(event, PoolEvent::ConfigQuorumLost { .. })
        })
        .await;
        client.check(1).await;
        assert_eq!(client.errors.get(), 1, "it is still read");
        // What was not acknowledged may be there or not; what was is.
        let (again, _) = {
            let world = world.clone();
            world.revive(1);
            world.revive(2);
            open(&world, &[0, 1, 2]).await
        };
        let volume = again.volume("v").unwrap();
        let client = client.again(&volume);
        client.check_all().await;
        client.check_all().await;
    });
}

#[test]
fn a_device_that_is_missing_at_open_is_detached_before_anything_is_served() {
    let world = SimWorld::seeded(23);
    world.run(async {
        let (pool, _) = pool(&world, &[64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 4, 2, &["d0", "d1"]))
            .await
            .unwrap();
        let only = pool
            .volume_create(request("w", 4, 1, &["d1"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        pool.close().await.unwrap();
        drop((pool, volume, only));
        let (pool, events) = open(&world, &[0, 2]).await;
        let volume = pool.volume("v").unwrap();
        assert_eq!(volume.fault(), None);
        assert!(!volume.record().plexes[1].is_attached());
        assert!(pool.volume("w").unwrap().fault().is_some());
        let client = client.again(&volume);
        client.check_all().await;
        keep(&pool);
        for block in [0, 7, 1000] {
            assert!(client.write(block).await);
        }
        pool.device_online("d1", source(&world, 1)).await.unwrap();
        event(&world, &events, "attach", is_attached).await;
        until(&world, 60, "resync", || is_whole(&volume)).await;
        plexes_are_the_same(&world, &pool, &volume).await;
        client.check_all().await;
    });
}

#[test]
fn keys_go_elsewhere_at_once_when_a_device_is_lost_and_are_repaired_when_it_comes_back() {
    let world = SimWorld::seeded(24);
    world.run(async {
        let (pool, events) = pool(&world, &[64, 64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 4, 2, &["d0", "d1"]))
            .await
            .unwrap();
        assert_eq!(volume.record().keys.len(), 3);
        let region = volume.private_region().unwrap();
        region.commit(&keys(1)).await.unwrap();
        let on = |pool: &TestPool, disk: &str| {
            let inner = pool.inner.try_lock().unwrap();
            let config = inner.config.as_ref().unwrap().config();
            let device = config.devices.values().find(|d| d.name == disk).unwrap();
            let record = pool.volume("v").unwrap().record();
            record
                .keys
                .iter()
                .any(|keys| keys.extent.device == device.uuid)
        };
        let lost = ["d0", "d1", "d2", "d3"]
            .into_iter()
            .find(|d| on(&pool, d))
            .unwrap();
        let spare = ["d0", "d1", "d2", "d3"]
            .into_iter()
            .find(|d| !on(&pool, d))
            .unwrap();
        let disk: usize = lost[1..].parse().unwrap();
        world.die(disk);
        region.commit(&keys(2)).await.unwrap();
        event(&world, &events, "rebuilt", |event| {
            matches!(event, PoolEvent::KeysReplicaRebuilt { device, .. } if device == spare)
        })
        .await;
        until(&world, 20, "the dead one goes", || {
            volume.record().keys.len() == 3
        })
        .await;
        assert!(on(&pool, spare) && !on(&pool, lost));
        region.commit(&keys(3)).await.unwrap();
        // One that only hangs for a while is repaired where it is.
        let hung: usize = spare[1..].parse().unwrap();
        world.hang(hung);
        region.commit(&keys(4)).await.unwrap();
        world.device(0).sleep(Duration::from_secs(2)).await;
        world.resume(hung);
        event(&world, &events, "repaired", |event| {
            matches!(event, PoolEvent::KeysReplicaRepaired { device, .. } if device == spare)
        })
        .await;
        let health = region.health().await;
        assert_eq!(health.len(), 3);
        drop((pool.clone(), region));
        let disks: Vec<usize> = (0..4).filter(|d| *d != disk).collect();
        let (again, _) = open(&world, &disks).await;
        let volume = again.volume("v").unwrap();
        assert_eq!(volume.fault(), None);
        let found = volume.private_region().unwrap().load().await.unwrap();
        assert_eq!(found, keys(4));
    });
}

#[test]
fn a_clean_stop_leaves_nothing_to_resynchronize() {
    let world = SimWorld::seeded(25);
    world.run(async {
        let (pool, _) = pool(&world, &[64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 4, 2, &["d0", "d1"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        pool.close().await.unwrap();
        drop((pool, volume));
        let (pool, _) = open(&world, &[0, 1, 2]).await;
        let volume = pool.volume("v").unwrap();
        assert!(is_whole(&volume), "nothing is unsettled");
        client.again(&volume).check_all().await;
    });
}

#[test]
fn a_witness_that_stayed_behind_is_replaced_and_one_that_is_not_needed_is_left() {
    let world = SimWorld::seeded(26);
    world.run(async {
        let (pool, _) = pool(&world, &[64, 64]).await;
        // Too small would not do: a witness has the size of the largest configuration there may be.
        world.add(crate::pool::WITNESS_BYTES, 512);
        world.add(crate::pool::WITNESS_BYTES, 512);
        pool.witness_add(source(&world, 2)).await.unwrap();
        let volume = pool
            .volume_create(request("v", 4, 2, &["d0", "d1"]))
            .await
            .unwrap();
        assert_eq!(volume.record().keys.len(), 3);
        pool.close().await.unwrap();
        drop((pool, volume));
        // Carried to another machine without the witness.
        let (pool, events) = open(&world, &[0, 1]).await;
        keep(&pool);
        world.device(0).sleep(Duration::from_secs(5)).await;
        assert!(pool.witness_needed().await);
        pool.witness_add(source(&world, 3)).await.unwrap();
        event(&world, &events, "rebuilt", |event| {
            matches!(event, PoolEvent::KeysReplicaRebuilt { .. })
        })
        .await;
        world.device(0).sleep(Duration::from_secs(5)).await;
        let gone = pool.witnesses_to_remove().await;
        assert_eq!(gone.len(), 1, "{gone:?}");
        assert!(gone[0].volumes.is_empty() && !gone[0].present, "{gone:?}");
        pool.device_remove(&gone[0].name).await.unwrap();
        // A third disk: the witness is not needed, and its replica goes there.
        world.add(64 * MIB, 512);
        pool.device_add("d4", source(&world, 4)).await.unwrap();
        for _ in 0..100 {
            let gone = pool.witnesses_to_remove().await;
            if gone.len() == 1 && gone[0].volumes.is_empty() {
                pool.device_remove(&gone[0].name).await.unwrap();
                return;
            }
            world.device(0).sleep(Duration::from_secs(1)).await;
        }
        panic!("{:?} {:#?}", pool.witnesses_to_remove().await, events.all());
    });
}

#[test]
fn one_device_after_the_other_fails_and_comes_back() {
    for seed in 30..33 {
        let world = SimWorld::seeded(seed);
        world.run(async {
            let (pool, events) = pool(&world, &[64; 4]).await;
            let volume = pool
                .volume_create(request("v", 4, 2, &["d2", "d0"]))
                .await
                .unwrap();
            let client = Client::new(&volume);
            client.fill().await;
            if seed != 30 {
                client.load(&world, 3, PAUSE);
            }
            let clock = world.device(1);
            for disk in [0, 2, 0] {
                let name = format!("d{disk}");
                pool.device_fail(&name).await.unwrap();
                clock.sleep(Duration::from_secs(2)).await;
                until(&world, 30, "three replicas elsewhere", || {
                    volume.record().keys.len() == 3
                })
                .await;
                let health = volume.private_region().unwrap().health().await;
                assert!(
                    health
                        .iter()
                        .all(|info| info.health == crate::page_store::ReplicaHealth::Current),
                    "{health:?} {:#?}",
                    events.all()
                );
                pool.device_online(&name, source(&world, disk))
                    .await
                    .unwrap();
                until(&world, 60, "whole", || is_whole(&volume)).await;
                clock.sleep(Duration::from_secs(2)).await;
            }
            client.stop();
            clock.sleep(Duration::from_secs(1)).await;
            assert_eq!(client.errors.get(), 0);
            plexes_are_the_same(&world, &pool, &volume).await;
            client.check_all().await;
            assert!(!events.any(|event| matches!(event, PoolEvent::LastCopyFails { .. })));
        });
    }
}

/// The volume with its only copy there is opened anew with the device, as after a crash: no restart is needed.
#[test]
fn a_device_with_the_only_copy_comes_back_with_a_volume_that_is_opened_anew() {
    for seed in 95..97 {
        let world = SimWorld::seeded(seed);
        world.run(async {
            let (pool, events) = pool(&world, &[64; 4]).await;
            let old = pool
                .volume_create(request("v", 4, 2, &["d0", "d1"]))
                .await
                .unwrap();
            let single = request("w", 2, 1, &["d0"]);
            pool.volume_create(single).await.unwrap();
            old.private_region()
                .unwrap()
                .commit(&keys(7))
                .await
                .unwrap();
            let client = Client::new(&old);
            client.fill().await;
            pool.device_fail("d1").await.unwrap();
            for block in 0..50 {
                assert!(client.write(block).await);
            }
            client.flush().await;
            client.load(&world, 3, PAUSE);
            world.device(2).sleep(Duration::from_millis(50)).await;
            // The device with the only copy of that loses a flush.
            world.fail(0, false, false, true);
            assert!(old.flush().await.is_err());
            world.fail(0, false, false, false);
            pool.device_online("d0", source(&world, 0)).await.unwrap();
            // Nothing reaches a device through the old object any more.
            let region = old.private_region().unwrap();
            assert!(region.commit(&keys(8)).await.is_err());
            assert!(!client.write(3).await);
            client.stop();
            world.device(2).sleep(Duration::from_secs(1)).await;
            let volume = pool.volume("v").unwrap();
            assert!(!Arc::ptr_eq(&old, &volume));
            assert_eq!(volume.fault(), None);
            let found = volume.private_region().unwrap().load().await.unwrap();
            assert_eq!(found, keys(7));
            assert!(events.any(|event| matches!(event, PoolEvent::VolumeServedAgain { .. })));
            // What was flushed is there; what was not is old or new, and stays what it was read as.
            client.model.borrow_mut().power_failed();
            let client = client.again(&volume);
            client.check_all().await;
            client.check_all().await;
            pool.device_online("d1", source(&world, 1)).await.unwrap();
            until(&world, 60, "whole", || is_whole(&volume)).await;
            plexes_are_the_same(&world, &pool, &volume).await;
            // With a copy elsewhere it is detached first, and taken back; the volume goes on.
            world.fail(0, false, false, true);
            assert!(client.write(4).await);
            client.flush().await;
            world.fail(0, false, false, false);
            pool.device_online("d0", source(&world, 0)).await.unwrap();
            assert!(Arc::ptr_eq(&volume, &pool.volume("v").unwrap()));
            until(&world, 60, "whole", || is_whole(&volume)).await;
            for block in 0..100 {
                assert!(client.write(block).await);
            }
            volume.flush().await.unwrap();
            plexes_are_the_same(&world, &pool, &volume).await;
            client.check_all().await;
            // A start finds the same.
            drop(pool);
            let (pool, _) = open(&world, &[0, 1, 2, 3]).await;
            let volume = pool.volume("v").unwrap();
            assert_eq!(volume.fault(), None);
            client.again(&volume).check_all().await;
        });
    }
}

/// Only in part: what is well elsewhere, and what is only there, are both there afterwards.
#[test]
fn a_device_with_a_part_of_the_only_copy_comes_back_in_the_middle_of_a_resync() {
    for seed in 100..102 {
        let world = SimWorld::seeded(seed);
        world.run(async {
            let (pool, _) = pool(&world, &[64; 4]).await;
            let old = pool
                .volume_create(request("v", 16, 2, &["d0", "d1"]))
                .await
                .unwrap();
            let client = Client::new(&old);
            client.fill().await;
            client.flush().await;
            pool.device_fail("d1").await.unwrap();
            // Half of it is only on d0 from then on.
            for block in (0..client.limit.get() / 2).step_by(8) {
                assert!(client.write(block).await);
            }
            client.flush().await;
            pool.device_online("d1", source(&world, 1)).await.unwrap();
            client.load(&world, 3, PAUSE);
            while pool.job_control("v", JobControl::Pause).await.is_err() {
                world.device(2).sleep(Duration::from_micros(500)).await;
            }
            assert!(!is_whole(&old), "there is something left to copy");
            world.fail(0, false, false, true);
            // Whoever flushes first finds out.
            drop(old.flush().await);
            while pool.device("d0").await.unwrap().online {
                world.device(2).sleep(PAUSE).await;
            }
            world.fail(0, false, false, false);
            client.stop();
            world.device(2).sleep(Duration::from_secs(1)).await;
            pool.device_online("d0", source(&world, 0)).await.unwrap();
            client.model.borrow_mut().power_failed();
            let volume = pool.volume("v").unwrap();
            assert!(!Arc::ptr_eq(&old, &volume));
            let client = client.again(&volume);
            pool.job_control("v", JobControl::Resume).await.unwrap();
            until(&world, 120, "whole", || is_whole(&volume)).await;
            client.check_all().await;
            plexes_are_the_same(&world, &pool, &volume).await;
            client.check_all().await;
        });
    }
}

#[test]
fn a_device_that_comes_back_may_be_what_the_configuration_lacks() {
    let world = SimWorld::seeded(91);
    world.run(async {
        let (pool, _events) = pool(&world, &[64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 4, 1, &["d2"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        pool.device_fail("d0").await.unwrap();
        // It hangs, so that there is no quorum; out of use it can be taken all the same, without waiting for ever.
        world.hang(1);
        let hung = pool.volume_rename("v", "x").await;
        assert!(hung.is_err());
        let error = pool.device_fail("d1").await.unwrap_err().to_string();
        assert!(error.contains("could not be recorded"), "{error}");
        assert!(!pool.device("d1").await.unwrap().online);
        let offered = pool.device_online("d1", source(&world, 1)).await;
        let error = offered.unwrap_err().to_string();
        assert!(error.contains("no answer"), "{error}");
        world.resume(1);
        pool.device_online("d0", source(&world, 0)).await.unwrap();
        pool.device_online("d1", source(&world, 1)).await.unwrap();
        for name in ["d0", "d1"] {
            let info = pool.device(name).await.unwrap();
            assert!(info.online && info.failed.is_none(), "{info:?}");
        }
        pool.volume_rename("v", "w").await.unwrap();
        client.check_all().await;
    });
}

/// What a removed mirror had is given back in the background: whoever removes its device next is not told to come again.
#[test]
fn a_device_is_removed_right_after_the_mirror_on_it() {
    let world = SimWorld::seeded(92);
    world.run(async {
        let (pool, _events) = pool(&world, &[64, 64, 64, 64, 64]).await;
        let request = CreateVolume {
            keys_on: names(&["d0", "d1", "d2"]),
            ..request("v", 4, 2, &["d0", "d4"])
        };
        let volume = pool.volume_create(request).await.unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        pool.volume_remove_mirror("v", WhichPlex::On("d4".into()))
            .await
            .unwrap();
        pool.device_remove("d4").await.unwrap();
        client.check_all().await;
    });
}

/// Failing a device that the configuration needs is refused before anything is done.
#[test]
fn a_device_that_the_quorum_needs_is_not_failed() {
    let world = SimWorld::seeded(93);
    world.run(async {
        let (pool, events) = pool(&world, &[64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 4, 2, &["d1", "d2"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        pool.device_fail("d0").await.unwrap();
        let before = pool.device("d1").await.unwrap();
        let error = pool.device_fail("d1").await.unwrap_err().to_string();
        assert!(error.contains("1 of the 2 copies"), "{error}");
        assert_eq!(pool.device("d1").await.unwrap(), before);
        assert!(!events.any(is_detached), "nothing was changed");
        client.check_all().await;
        assert!(client.write(3).await);
        pool.volume_rename("v", "w").await.unwrap();
    });
}

/// Where the quorum goes between the two commits of a device that fails, the operator gets an error after a while, and
/// the keeper finishes the detach when there is a quorum again.
#[test]
fn a_detach_that_cannot_be_recorded_is_told_and_finished_later() {
    let world = SimWorld::seeded(94);
    world.run(async {
        let (pool, events) = pool(&world, &[64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 4, 2, &["d1", "d2"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        // The keeper cannot say that the plex on d1 failed: it holds the volume's plexes until it can.
        world.die(0);
        world.die(1);
        assert!(!client.write(3).await, "refused, not silent");
        until(&world, 60, "the loss of the quorum", || {
            events.any(|event| matches!(event, PoolEvent::ConfigQuorumLost { .. }))
        })
        .await;
        let began = world.time();
        assert!(pool.device_fail("d1").await.is_err());
        assert!(pool.device_online("d1", source(&world, 1)).await.is_err());
        assert!(world.time() - began < Duration::from_secs(120));
        // It was never found to have failed: it is simply there again.
        world.revive(0);
        event(&world, &events, "detach", is_detached).await;
        assert!(client.write(3).await);
        world.revive(1);
        pool.device_online("d1", source(&world, 1)).await.unwrap();
        until(&world, 60, "whole", || is_whole(&volume)).await;
        client.check_all().await;
    });
}
