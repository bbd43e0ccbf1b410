//! Jobs from their beginning to their end, with clients and PERSISTENT RESERVE OUT beside them.

use super::*;
use crate::pool::LayoutRequest;
use crate::pool::jobs::{JobControl, JobName, JobState, Migrate, WhichPlex};

const PAUSE: Duration = Duration::from_millis(3);

fn is_done(event: &PoolEvent) -> bool {
    matches!(event, PoolEvent::JobDone { .. })
}

/// Every byte of a device is free.
async fn is_empty(pool: &TestPool, device: &str) -> bool {
    let info = pool.device(device).await.unwrap();
    info.volumes.is_empty() && info.free_bytes == info.capacity_bytes
}

#[test]
fn mirrors_are_added_and_removed_under_load() {
    let world = SimWorld::seeded(100);
    world.run(async {
        let (pool, events) = pool(&world, &[64, 64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 8, 1, &["d0"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        client.load(&world, 4, PAUSE);
        let info = pool
            .volume_add_mirror("v", &names(&["d1"]), None)
            .await
            .unwrap();
        assert_eq!((info.kind, info.total_bytes), (JobName::AddMirror, 8 * MIB));
        assert_eq!((info.from, info.to), (names(&["d0"]), names(&["d1"])));
        let busy = pool.volume_add_mirror("v", &[], None).await.unwrap_err();
        assert!(busy.to_string().contains("has a job already"), "{busy}");
        event(&world, &events, "done", is_done).await;
        assert!(pool.jobs().await.is_empty());
        assert_eq!(volume.record().plexes.len(), 2);
        pool.volume_remove_mirror("v", WhichPlex::On("d0".into()))
            .await
            .unwrap();
        world.device(0).sleep(Duration::from_secs(2)).await;
        client.stop();
        world.device(0).sleep(Duration::from_secs(1)).await;
        assert_eq!(volume.record().plexes.len(), 1);
        client.check_all().await;
        assert_eq!(client.errors.get(), 0);
        let info = pool.device("d0").await.unwrap();
        let keys = volume
            .record()
            .keys
            .iter()
            .any(|k| k.extent.device == info.uuid);
        assert_eq!(
            info.free_bytes == info.capacity_bytes,
            !keys,
            "its space is free"
        );
    });
}

#[test]
fn a_volume_migrates_with_its_keys_to_another_layout_under_load() {
    for seed in 110..114 {
        let world = SimWorld::seeded(seed);
        world.run(async {
            let (pool, events) = pool(&world, &[64; 7]).await;
            let volume = pool
                .volume_create(CreateVolume {
                    keys_on: names(&["d0", "d1", "d2"]),
                    ..request("v", 8, 1, &["d0"])
                })
                .await
                .unwrap();
            let identity = volume.record();
            let client = Client::new(&volume);
            client.fill().await;
            client.load(&world, 4, PAUSE);
            let generation = Rc::new(Cell::new(0));
            let fencing = {
                let (volume, generation, clock) =
                    (volume.clone(), generation.clone(), world.device(0));
                spawn(async move {
                    let region = volume.private_region().unwrap();
                    for next in 1..60 {
                        region.commit(&keys(next)).await.unwrap();
                        generation.set(next);
                        clock.sleep(Duration::from_millis(20)).await;
                    }
                })
            };
            let request = Migrate {
                to: names(&["d3", "d4", "d5", "d6"]),
                layout: Some(LayoutRequest::Striped {
                    columns: Some(2),
                    stripe_unit_bytes: Some(65536),
                }),
                mirrors: Some(2),
                ..Migrate::default()
            };
            pool.volume_migrate("v", request).await.unwrap();
            event(&world, &events, "done", is_done).await;
            fencing.await;
            client.stop();
            world.device(0).sleep(Duration::from_secs(2)).await;
            client.check_all().await;
            assert_eq!(client.errors.get(), 0);
            plexes_are_the_same(&world, &pool, &volume).await;
            for device in ["d0", "d1", "d2"] {
                assert!(is_empty(&pool, device).await, "{device}");
            }
            let record = volume.record();
            assert_eq!((record.plexes.len(), record.keys.len()), (2, 3));
            assert_eq!(
                (record.lun, &record.naa, &record.serial),
                (identity.lun, &identity.naa, &identity.serial)
            );
            // The old devices are not needed any more.
            for device in ["d0", "d1", "d2"] {
                pool.device_remove(device).await.unwrap();
            }
            let (again, _) = open(&world, &[3, 4, 5, 6]).await;
            let volume = again.volume("v").unwrap();
            assert_eq!(volume.fault(), None);
            let found = volume.private_region().unwrap().load().await.unwrap();
            assert_eq!(found, keys(generation.get()));
            client.again(&volume).check_all().await;
        });
    }
}

#[test]
fn a_job_is_paused_resumed_slowed_and_cancelled() {
    let world = SimWorld::seeded(120);
    world.run(async {
        let (pool, events) = pool(&world, &[64, 64, 64]).await;
        let volume = pool
            .volume_create(request("v", 16, 1, &["d0"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        assert!(pool.job_control("v", JobControl::Pause).await.is_err());
        let rate = Some(MIB);
        pool.volume_add_mirror("v", &names(&["d1"]), rate)
            .await
            .unwrap();
        let clock = world.device(0);
        clock.sleep(Duration::from_secs(6)).await;
        let info = pool.jobs().await.remove(0);
        assert_eq!(info.limit_bytes_per_second, rate);
        assert!(
            (3 * MIB..=8 * MIB).contains(&info.done_bytes),
            "{}",
            info.done_bytes
        );
        let info = pool.job_control("v", JobControl::Pause).await.unwrap();
        assert_eq!(info.state, JobState::Paused);
        clock.sleep(Duration::from_secs(2)).await;
        let done = pool.jobs().await.remove(0).done_bytes;
        clock.sleep(Duration::from_secs(10)).await;
        assert_eq!(pool.jobs().await.remove(0).done_bytes, done);
        let info = pool.job_control("v", JobControl::Resume).await.unwrap();
        assert_eq!(info.state, JobState::Running);
        clock.sleep(Duration::from_secs(3)).await;
        assert!(pool.jobs().await.remove(0).done_bytes > done);
        pool.job_control("v", JobControl::Cancel).await.unwrap();
        assert!(pool.jobs().await.is_empty());
        assert_eq!(volume.record().plexes.len(), 1);
        clock.sleep(Duration::from_secs(5)).await;
        client.check_all().await;
        // And again, without a rate.
        pool.volume_add_mirror("v", &names(&["d1"]), rate)
            .await
            .unwrap();
        pool.job_control("v", JobControl::Rate(None)).await.unwrap();
        event(&world, &events, "done", is_done).await;
        plexes_are_the_same(&world, &pool, &volume).await;
        for expected in ["JobPaused", "JobResumed", "JobCancelled"] {
            assert!(events.any(|event| format!("{event:?}").starts_with(expected)));
        }
    });
}

#[test]
fn a_device_is_evacuated_and_replaced_under_load() {
    let world = SimWorld::seeded(130);
    world.run(async {
        let (pool, events) = pool(&world, &[64; 5]).await;
        let mut clients = Vec::new();
        for (name, mirrors, on) in [
            ("linear", 1, &["d0"][..]),
            ("mirror", 2, &["d0", "d1"]),
            ("other", 1, &["d1"]),
        ] {
            let volume = pool
                .volume_create(request(name, 6, mirrors, on))
                .await
                .unwrap();
            let client = Client::new(&volume);
            client.fill().await;
            client.load(&world, 2, PAUSE);
            clients.push(client);
        }
        let striped = pool
            .volume_create(CreateVolume {
                layout: LayoutRequest::Striped {
                    columns: Some(2),
                    stripe_unit_bytes: Some(65536),
                },
                ..request("striped", 8, 1, &["d0", "d2"])
            })
            .await
            .unwrap();
        let client = Client::new(&striped);
        client.fill().await;
        client.load(&world, 2, PAUSE);
        clients.push(client);
        let jobs = pool.device_evacuate("d0", None).await.unwrap();
        assert!(jobs.len() >= 3, "{jobs:?}");
        for _ in 0..2000 {
            if is_empty(&pool, "d0").await {
                break;
            }
            world.device(0).sleep(Duration::from_millis(100)).await;
        }
        assert!(is_empty(&pool, "d0").await, "{:#?}", events.all());
        until(&world, 60, "all whole", || {
            pool.volumes().iter().all(|volume| is_whole(volume))
        })
        .await;
        pool.device_remove("d0").await.unwrap();
        // And one in the place of another.
        let disk = world.disks();
        world.add(64 * MIB, 4096);
        add(&pool, &world, disk).await;
        pool.device_replace("d1", &format!("d{disk}"), None)
            .await
            .unwrap();
        event(
            &world,
            &events,
            "replaced",
            |event| matches!(event, PoolEvent::DeviceReplaced { device, .. } if device == "d1"),
        )
        .await;
        assert!(pool.device("d1").await.is_err());
        for client in &clients {
            client.stop();
        }
        world.device(2).sleep(Duration::from_secs(1)).await;
        for client in &clients {
            assert_eq!(client.errors.get(), 0);
            client.check_all().await;
        }
        for volume in pool.volumes() {
            plexes_are_the_same(&world, &pool, &volume).await;
        }
    });
}

#[test]
fn a_dead_device_is_replaced_from_the_mirror() {
    let world = SimWorld::seeded(140);
    world.run(async {
        let (pool, events) = pool(&world, &[64; 4]).await;
        let volume = pool
            .volume_create(CreateVolume {
                layout: LayoutRequest::Striped {
                    columns: Some(2),
                    stripe_unit_bytes: Some(65536),
                },
                ..request("v", 8, 2, &["d0", "d1", "d2", "d3"])
            })
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        client.load(&world, 4, PAUSE);
        world.die(0);
        event(&world, &events, "detach", |event| {
            matches!(event, PoolEvent::PlexDetached { .. })
        })
        .await;
        let disk = world.disks();
        world.add(64 * MIB, 4096);
        add(&pool, &world, disk).await;
        pool.device_replace("d0", &format!("d{disk}"), None)
            .await
            .unwrap();
        event(
            &world,
            &events,
            "replaced",
            |event| matches!(event, PoolEvent::DeviceReplaced { device, .. } if device == "d0"),
        )
        .await;
        until(&world, 30, "whole", || is_whole(&volume)).await;
        client.stop();
        world.device(1).sleep(Duration::from_secs(1)).await;
        assert_eq!(client.errors.get(), 0);
        plexes_are_the_same(&world, &pool, &volume).await;
        client.check_all().await;
        assert_eq!(volume.record().plexes.len(), 2);
    });
}

#[test]
fn when_the_only_source_dies_the_job_stalls_says_what_is_lost_and_goes_on_when_it_is_back() {
    let world = SimWorld::seeded(150);
    world.run(async {
        let (pool, events) = pool(&world, &[64; 3]).await;
        let volume = pool
            .volume_create(request("v", 8, 1, &["d0"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        let request = Migrate {
            to: names(&["d1"]),
            rate: Some(MIB),
            ..Migrate::default()
        };
        pool.volume_migrate("v", request).await.unwrap();
        world.device(1).sleep(Duration::from_secs(3)).await;
        world.fail(0, true, true, false);
        pool.job_control("v", JobControl::Rate(None)).await.unwrap();
        event(&world, &events, "stalled", |event| {
            matches!(event, PoolEvent::JobStalled { .. })
        })
        .await;
        let info = pool.jobs().await.remove(0);
        let JobState::Stalled { ranges, .. } = &info.state else {
            panic!("{info:?}");
        };
        let lost: u64 = ranges.iter().map(|range| range.length_bytes).sum();
        assert!(!ranges.is_empty() && lost < 8 * MIB, "{ranges:?}");
        assert!(info.done_bytes > 0 && info.done_bytes < 8 * MIB);
        world.fail(0, false, false, false);
        event(&world, &events, "done", is_done).await;
        client.check_all().await;
        assert!(is_empty(&pool, "d0").await || volume.record().keys.len() == 3);
    });
}

#[test]
fn growing_and_punching_holes_while_a_mirror_is_added() {
    let world = SimWorld::seeded(160);
    world.run(async {
        let (pool, events) = pool(&world, &[64; 3]).await;
        let volume = pool
            .volume_create(request("v", 8, 1, &["d0"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        client.limit.set((4 * MIB / BLOCK) as usize);
        client.load(&world, 4, PAUSE);
        pool.volume_add_mirror("v", &names(&["d1"]), Some(2 * MIB))
            .await
            .unwrap();
        world.device(0).sleep(Duration::from_secs(2)).await;
        volume.write_zeroes(4 * MIB, 3 * MIB, true).await.unwrap();
        for block in (4 * MIB / BLOCK) as usize..(7 * MIB / BLOCK) as usize {
            client.model.borrow_mut().zeroed(block);
        }
        pool.volume_grow("v", 12 * MIB).await.unwrap();
        pool.job_control("v", JobControl::Rate(None)).await.unwrap();
        event(&world, &events, "done", is_done).await;
        client.stop();
        world.device(0).sleep(Duration::from_secs(1)).await;
        until(&world, 30, "whole", || is_whole(&volume)).await;
        assert_eq!(client.errors.get(), 0);
        plexes_are_the_same(&world, &pool, &volume).await;
        for block in 0..(8 * MIB / BLOCK) as usize {
            client.check(block).await;
        }
        let (result, tail) = volume.read(8 * MIB, aligned_buffer(4 << 20)).await;
        result.unwrap();
        assert!(tail.iter().all(|byte| *byte == 0), "new bytes are zeroes");
    });
}

#[test]
fn copies_are_compared_repaired_and_may_go_meanwhile() {
    let world = SimWorld::seeded(170);
    world.run(async {
        let (pool, _) = pool(&world, &[64; 3]).await;
        let volume = pool
            .volume_create(request("v", 8, 2, &["d0", "d1"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        let all = |_, _| true;
        let clean = pool.volume_verify("v", false, all).await.unwrap();
        assert_eq!((clean.checked_bytes, clean.mismatched_bytes), (8 * MIB, 0));
        // Wrong bytes in the second copy, in two places.
        let map = volume.map();
        for at in [5 * MIB, 5 * MIB + 4096, 7 * MIB + 8192] {
            let place = map.translate(Region::Public { plex: 1 }, at, 512).unwrap()[0];
            world.overwrite(1, place.device_offset_bytes, &[0xdd; 512]);
        }
        let found = pool.volume_verify("v", false, all).await.unwrap();
        let places: Vec<_> = found
            .mismatches
            .iter()
            .map(|found| (found.offset_bytes, found.length_bytes, found.plexes.clone()))
            .collect();
        assert_eq!(
            places,
            [(5 * MIB, 8192, vec![1]), (7 * MIB + 8192, 4096, vec![1])]
        );
        assert_eq!((found.mismatched_bytes, found.repaired_bytes), (12_288, 0));
        let repaired = pool.volume_verify("v", true, all).await.unwrap();
        assert_eq!(repaired.repaired_bytes, 12_288);
        let clean = pool.volume_verify("v", false, all).await.unwrap();
        assert!(clean.mismatches.is_empty());
        plexes_are_the_same(&world, &pool, &volume).await;
        client.check_all().await;
        // It stops when it is told to, and ends in order when the other copy goes.
        let stopped = pool
            .volume_verify("v", false, |done, _| done < 2 * MIB)
            .await;
        assert!(stopped.unwrap().stopped);
        // At every moment: some of them in the middle.
        let mut in_the_middle = 0;
        for delay_ms in 1..16 {
            let removing = {
                let (pool, clock) = (pool.clone(), world.device(0));
                spawn(async move {
                    clock.sleep(Duration::from_millis(delay_ms)).await;
                    let any = WhichPlex::Any;
                    pool.volume_remove_mirror("v", any).await.unwrap();
                })
            };
            while volume.record().plexes.len() > 1 {
                let left = pool.volume_verify("v", false, all).await.unwrap();
                assert!(left.mismatches.is_empty(), "{left:?}");
                in_the_middle += u32::from(left.skipped_bytes > 0);
            }
            removing.await;
            pool.volume_add_mirror("v", &[], None).await.unwrap();
            until(&world, 60, "whole", || is_whole(&volume)).await;
        }
        assert!(in_the_middle > 0);
        pool.volume_remove_mirror("v", WhichPlex::Any)
            .await
            .unwrap();
        let alone = pool.volume_verify("v", false, all).await.unwrap();
        assert_eq!((alone.checked_bytes, alone.mismatched_bytes), (0, 0));
        client.check_all().await;
    });
}

/// The end of a job waits for whoever changes the keys: that may be the one who cancels it.
#[test]
fn a_job_that_is_cancelled_while_its_end_waits_leaves_no_keys_that_the_record_does_not_know() {
    let world = SimWorld::seeded(180);
    world.run(async {
        let (pool, _) = pool(&world, &[64; 4]).await;
        let volume = pool
            .volume_create(CreateVolume {
                keys_on: names(&["d0", "d1", "d2"]),
                ..request("v", 8, 1, &["d0"])
            })
            .await
            .unwrap();
        let region = volume.private_region().unwrap();
        region.commit(&keys(1)).await.unwrap();
        let mutex = pool.keeper.keys_change(volume.uuid());
        let held = mutex.lock().await;
        let request = Migrate {
            to: names(&["d3"]),
            keys_to: names(&["d3"]),
            ..Migrate::default()
        };
        pool.volume_migrate("v", request).await.unwrap();
        let cancelling = {
            let pool = pool.clone();
            spawn(async move { pool.job_control("v", JobControl::Cancel).await })
        };
        // Everything is copied, and the end waits behind the one who cancels.
        until(&world, 30, "copied", || {
            let record = volume.record();
            let mut plexes = record.plexes.iter();
            plexes.all(|plex| plex.is_attached() && volume.stale_count(plex.uuid) == 0)
        })
        .await;
        world.device(0).sleep(Duration::from_secs(2)).await;
        drop(held);
        cancelling.await.unwrap();
        world.device(0).sleep(Duration::from_secs(2)).await;
        let record = volume.record();
        assert_eq!((&record.job, record.plexes.len()), (&None, 1));
        let members = region.health_now().await.unwrap();
        let known = |uuid: &Uuid| record.keys.iter().any(|keys| keys.uuid == *uuid);
        assert!(members.iter().all(|info| known(&info.uuid)), "{members:?}");
        drop(pool);
        let (again, _) = open(&world, &[0, 1, 2, 3]).await;
        let volume = again.volume("v").unwrap();
        assert_eq!(volume.fault(), None);
        let found = volume.private_region().unwrap().load().await.unwrap();
        assert_eq!(found, keys(1));
    });
}

#[test]
fn a_job_is_cancelled_after_keys_that_it_was_to_move_were_lost() {
    let world = SimWorld::seeded(190);
    world.run(async {
        let (pool, events) = pool(&world, &[64; 6]).await;
        let volume = pool
            .volume_create(request("v", 8, 1, &["d5"]))
            .await
            .unwrap();
        let region = volume.private_region().unwrap();
        region.commit(&keys(1)).await.unwrap();
        let before = volume.record();
        let lost = before.keys.iter().find(|keys| {
            let device = pool.keeper.handles.load();
            device[&keys.extent.device].name() != "d5"
        });
        let lost = *lost.unwrap();
        let disk = (0..6)
            .find(|disk| {
                let handles = pool.keeper.handles.load();
                handles[&lost.extent.device].name() == format!("d{disk}")
            })
            .unwrap();
        let to = if disk == 4 { "d3" } else { "d4" };
        let request = Migrate {
            to: names(&[to]),
            keys_to: names(&[to]),
            rate: Some(4096),
            ..Migrate::default()
        };
        pool.volume_migrate("v", request).await.unwrap();
        let job = volume.record().job.clone().unwrap();
        assert!(job.keys_retire.contains(&lost.uuid), "{job:?}");
        world.die(disk);
        region.commit(&keys(2)).await.unwrap();
        event(&world, &events, "rebuilt", |event| {
            matches!(event, PoolEvent::KeysReplicaRebuilt { .. })
        })
        .await;
        world.device(5).sleep(Duration::from_secs(5)).await;
        let record = volume.record();
        assert!(record.keys.iter().all(|keys| keys.uuid != lost.uuid));
        pool.job_control("v", JobControl::Cancel).await.unwrap();
        assert_eq!(volume.record().job, None);
        assert_eq!(region.load().await.unwrap(), keys(2));
    });
}
