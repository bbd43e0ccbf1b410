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

/// A write that is not atomic: one of these that fails leaves an intent, and the volume refuses writes until it is opened.
async fn write(client: &Client, block: usize) -> bool {
    if (client.model.borrow().next + 1).is_multiple_of(13) {
        client.model.borrow_mut().order();
    }
    client.write(block).await
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
                assert!(write(&client, block).await);
            }
            world.die(1);
            assert!(!write(&client, 3).await, "refused, not silent");
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
            assert!(write(&client, 1).await);
            client.check_all().await;
            drop(pool);
            let (again, _) = open(&world, &[0, 1]).await;
            let client = client.again(&again.volume("v").unwrap());
            client.check_all().await;
        });
    }
}
