//! Operators where the configuration has no quorum: they are answered.

use super::*;
use crate::pool::jobs::{JobControl, Migrate};
use crate::sim::{Effect, Fault, Operations};

/// Wherever the quorum goes while a job is cancelled, whoever cancels gets an answer; and what becomes of the job, nothing is
/// lost and no space.
#[test]
fn whoever_cancels_without_a_quorum_is_answered() {
    let (mut not_known, mut cancelled) = (0, 0);
    for skip in 0..10 {
        let world = SimWorld::seeded(200 + skip);
        world.run(async {
            let (pool, _) = pool(&world, &[64; 3]).await;
            let volume = pool
                .volume_create(request("v", 8, 1, &["d0"]))
                .await
                .unwrap();
            let client = Client::new(&volume);
            client.fill().await;
            let free = free_of(&pool).await;
            pool.volume_add_mirror("v", &names(&["d1"]), Some(1 << 20))
                .await
                .unwrap();
            pool.job_control("v", JobControl::Pause).await.unwrap();
            for disk in [1, 2] {
                let hang = Fault::new(Effect::Hang(None)).on(Operations::CHANGES);
                world.inject(disk, hang.after(skip));
            }
            let began = world.time();
            match pool.job_control("v", JobControl::Cancel).await {
                Ok(_) => cancelled += 1,
                Err(PoolError::Job(JobError::NotKnown { .. })) => not_known += 1,
                Err(_) => {}
            }
            let took = world.time() - began;
            assert!(took < Duration::from_secs(120), "{took:?}");
            world.resume(1);
            world.resume(2);
            world.device(0).sleep(Duration::from_secs(90)).await;
            if volume.record().job.is_some() {
                pool.job_control("v", JobControl::Cancel).await.unwrap();
            }
            assert_eq!(volume.record().plexes.len(), 1);
            for _ in 0..60 {
                world.device(0).sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(free_of(&pool).await, free);
            assert!(client.write(1).await);
            client.check_all().await;
        });
    }
    assert!(not_known > 0 && cancelled > 0, "{not_known} {cancelled}");
}

async fn free_of(pool: &TestPool) -> Vec<u64> {
    let devices = pool.devices().await;
    devices.iter().map(|info| info.free_bytes).collect()
}

/// A detach that waits for a quorum has the volume to itself.
#[test]
fn a_job_is_not_cancelled_while_a_copy_cannot_be_taken_out() {
    let world = SimWorld::seeded(220);
    world.run(async {
        let (pool, events) = pool(&world, &[64; 2]).await;
        let volume = pool
            .volume_create(request("v", 8, 2, &["d0", "d1"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        let request = Migrate {
            to: names(&["d0"]),
            mirrors: Some(1),
            rate: Some(1 << 20),
            ..Migrate::default()
        };
        pool.volume_migrate("v", request).await.unwrap();
        pool.job_control("v", JobControl::Pause).await.unwrap();
        world.die(1);
        assert!(!client.write(3).await, "refused, not silent");
        event(&world, &events, "quorum lost", |event| {
            matches!(event, PoolEvent::ConfigQuorumLost { .. })
        })
        .await;
        let began = world.time();
        let refused = pool.job_control("v", JobControl::Cancel).await;
        assert!(
            matches!(refused, Err(PoolError::Job(JobError::NotNow { .. }))),
            "{refused:?}"
        );
        assert!(world.time() - began < Duration::from_secs(60));
        assert_eq!(volume.record().plexes.len(), 3, "as it was");
        world.revive(1);
        pool.device_online("d1", source(&world, 1)).await.unwrap();
        world.device(0).sleep(Duration::from_secs(10)).await;
        pool.job_control("v", JobControl::Cancel).await.unwrap();
        until(&world, 60, "whole", || is_whole(&volume)).await;
        assert_eq!(volume.record().plexes.len(), 2);
        assert!(client.write(4).await);
        client.check_all().await;
    });
}

/// Of two disks without a witness one dies and is taken back: it is what the configuration lacks, to say that it was away.
#[test]
fn one_of_two_disks_is_taken_back_without_a_restart() {
    for seed in 0..6 {
        let world = SimWorld::seeded(230 + seed);
        world.run(async {
            let (pool, events) = pool(&world, &[64; 2]).await;
            let volume = pool
                .volume_create(request("v", 8, 2, &["d0", "d1"]))
                .await
                .unwrap();
            let client = Client::new(&volume);
            client.fill().await;
            for block in 0..seed as usize {
                assert!(client.write(block).await);
            }
            world.die(1);
            assert!(!client.write(3).await, "refused, not silent");
            event(&world, &events, "quorum lost", |event| {
                matches!(event, PoolEvent::ConfigQuorumLost { .. })
            })
            .await;
            until(&world, 60, "out of use", || {
                pool.handle_of(volume.record().plexes[1].log.device)
                    .is_some_and(|device| !device.is_online())
            })
            .await;
            world.revive(1);
            pool.device_online("d1", source(&world, 1)).await.unwrap();
            event(&world, &events, "detach", |event| {
                matches!(event, PoolEvent::PlexDetached { .. })
            })
            .await;
            until(&world, 60, "whole", || is_whole(&volume)).await;
            assert!(client.write(1).await);
            client.check_all().await;
            drop(pool);
            let (again, _) = open(&world, &[0, 1]).await;
            let client = client.again(&again.volume("v").unwrap());
            client.check_all().await;
        });
    }
}

/// The writes that a commit of the configuration makes there: its pages, then its header.
fn on_config(effect: Effect) -> Fault {
    let areas = crate::label::Areas::of(64 * MIB).unwrap();
    let start = areas.config_offset_bytes;
    Fault::new(effect)
        .on(Operations::CHANGES)
        .range(start..start + areas.config_length_bytes)
}

/// A removal whose commit is found to have happened only later frees the space of the copy like any other: when nothing can
/// land there any more.
#[test]
fn nobody_gets_the_space_of_a_removed_copy_while_a_write_may_land_there() {
    let world = SimWorld::seeded(230);
    world.run(async {
        let (pool, _) = pool(&world, &[64; 3]).await;
        let volume = pool
            .volume_create(request("v", 8, 2, &["d0", "d1"]))
            .await
            .unwrap();
        let data = |byte: u8| bytes::Bytes::from(vec![byte; 4096]);
        volume.write(0, data(1)).await.unwrap();
        let place = volume.record().plexes[1].columns[0].extents[0].offset_bytes;
        let late = Fault::new(Effect::Hang(Some(Duration::from_secs(4)))).on(Operations::CHANGES);
        world.inject(1, late.range(place..place + 4096).once());
        let writing = {
            let volume = volume.clone();
            spawn(async move { volume.write(0, data(2)).await })
        };
        world.device(0).sleep(Duration::from_millis(10)).await;
        // The header reaches one disk of three.
        for disk in [1, 2] {
            world.inject(disk, on_config(Effect::Error).after(1).once());
        }
        let which = crate::pool::jobs::WhichPlex::On("d1".into());
        let removed = pool.volume_remove_mirror("v", which).await;
        assert!(removed.is_err(), "it is not known");
        let other = pool
            .volume_create(request("w", 8, 1, &["d1"]))
            .await
            .unwrap();
        assert_eq!(volume.record().plexes.len(), 1, "it has happened");
        writing.await.unwrap();
        let whole = crate::block_device::aligned_buffer(8 << 20);
        let (result, found) = other.read(0, whole).await;
        result.unwrap();
        assert!(found.iter().all(|byte| *byte == 0), "somebody else's write");
        let free = free_of(&pool).await;
        world.device(0).sleep(Duration::from_secs(20)).await;
        assert!(free_of(&pool).await[1] > free[1], "now it is free");
    });
}

/// The end of a job has moved the keys, and the commit that says so failed. Whoever cancels moves them back.
#[test]
fn a_job_that_is_cancelled_after_its_keys_were_moved_gives_them_back() {
    let world = SimWorld::seeded(240);
    world.run(async {
        let (pool, _) = pool(&world, &[64; 5]).await;
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
        let fresh = volume.record().job.clone().unwrap().keys_fresh;
        until(&world, 30, "copied", || {
            let record = volume.record();
            let mut plexes = record.plexes.iter();
            plexes.all(|plex| plex.is_attached() && volume.stale_count(plex.uuid) == 0)
        })
        .await;
        for disk in 0..3 {
            world.inject(disk, on_config(Effect::Error));
        }
        drop(held);
        let members = async || -> Vec<Uuid> {
            let health = region.health_now().await.unwrap();
            health.iter().map(|info| info.uuid).collect()
        };
        for _ in 0..100 {
            world.device(0).sleep(Duration::from_millis(100)).await;
            if members().await == fresh {
                break;
            }
        }
        assert_eq!(members().await, fresh, "they were moved");
        assert!(volume.record().job.is_some(), "and that is not recorded");
        (0..3).for_each(|disk| world.clear_faults(disk));
        pool.job_control("v", JobControl::Cancel).await.unwrap();
        let record = volume.record();
        assert_eq!(record.job, None);
        let known = |uuid: &Uuid| record.keys.iter().any(|keys| keys.uuid == *uuid);
        let members = members().await;
        assert!(members.len() == 3 && members.iter().all(known));
        region.commit(&keys(2)).await.unwrap();
        drop(pool);
        let (again, _) = open(&world, &[0, 1, 2, 3, 4]).await;
        let volume = again.volume("v").unwrap();
        assert_eq!(volume.fault(), None);
        let found = volume.private_region().unwrap().load().await.unwrap();
        assert_eq!(found, keys(2));
    });
}

/// Deletes v with a commit that reaches one disk of three.
async fn delete_without_a_word(pool: &TestPool, world: &SimWorld) {
    for disk in [1, 2] {
        // Nothing but the header is written for a deletion.
        world.inject(disk, on_config(Effect::Error).once());
    }
    assert!(pool.volume_delete("v").await.is_err(), "it is not known");
}

fn late(start: u64, length: u64) -> Fault {
    let effect = Effect::Hang(Some(Duration::from_secs(6)));
    let fault = Fault::new(effect).on(Operations::CHANGES);
    fault.range(start..start + length).once()
}

/// A deletion that is found to have happened only later: nobody waits for what its clients have in flight with the pool in
/// hand, and nobody gets its space before that has ended.
#[test]
fn a_deletion_that_is_found_later_holds_nobody_up() {
    let world = SimWorld::seeded(260);
    world.run(async {
        let (pool, _) = pool(&world, &[64; 3]).await;
        let volume = pool
            .volume_create(request("v", 8, 1, &["d0"]))
            .await
            .unwrap();
        let free = free_of(&pool).await;
        let place = volume.record().plexes[0].columns[0].extents[0].offset_bytes;
        world.inject(0, late(place, 4096));
        let writing = {
            let volume = volume.clone();
            spawn(async move { volume.write(0, vec![7; 4096].into()).await })
        };
        world.device(0).sleep(Duration::from_millis(10)).await;
        delete_without_a_word(&pool, &world).await;
        let began = world.time();
        let other = pool.volume_create(request("w", 8, 1, &["d0"])).await;
        let other = other.unwrap();
        let took = world.time() - began;
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(pool.volume("v").is_err(), "it has happened");
        writing.await.unwrap();
        let (result, found) = other
            .read(0, crate::block_device::aligned_buffer(8 << 20))
            .await;
        result.unwrap();
        assert!(found.iter().all(|byte| *byte == 0), "somebody else's write");
        world.device(0).sleep(Duration::from_secs(20)).await;
        assert_eq!(free_of(&pool).await, free, "its space is free");
    });
}

/// As above: keys of a deleted volume that land late do not land on those of another one.
#[test]
fn keys_of_a_deleted_volume_that_land_late_land_on_nobodys() {
    let world = SimWorld::seeded(270);
    world.run(async {
        let (pool, _) = pool(&world, &[64; 3]).await;
        let volume = pool
            .volume_create(request("v", 8, 1, &["d1"]))
            .await
            .unwrap();
        for keys in &volume.record().keys {
            let handles = pool.keeper.handles.load();
            let name = handles[&keys.extent.device].name();
            if let Some(disk) = [1, 2].into_iter().find(|disk| name == format!("d{disk}")) {
                let at = keys.extent.offset_bytes;
                world.inject(disk, late(at, keys.extent.length_bytes));
            }
        }
        // It has no majority until then.
        let committing = {
            let volume = volume.clone();
            spawn(async move { volume.private_region().unwrap().commit(&keys(1)).await })
        };
        world.device(0).sleep(Duration::from_millis(10)).await;
        delete_without_a_word(&pool, &world).await;
        let other = pool.volume_create(request("w", 8, 1, &["d1"])).await;
        let other = other.unwrap();
        let region = other.private_region().unwrap();
        region.commit(&keys(5)).await.unwrap();
        committing.await.unwrap();
        drop(pool);
        let (again, _) = open(&world, &[1, 2]).await;
        let other = again.volume("w").unwrap();
        assert_eq!(other.fault(), None);
        let found = other.private_region().unwrap().load().await.unwrap();
        assert_eq!(found, keys(5));
    });
}
