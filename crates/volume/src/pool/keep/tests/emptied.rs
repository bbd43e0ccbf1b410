//! Devices that are evacuated: nothing new is put on them until somebody says so, over restarts too; and one whose
//! evacuation came to nothing is like any other.

use super::*;
use crate::pool::jobs::JobControl;
use crate::pool::{Closed, CreateVolume};

async fn closed(pool: &TestPool, device: &str) -> Option<Closed> {
    pool.device(device).await.unwrap().closed
}

/// Names of the devices that hold keys of a volume.
async fn keys_on(pool: &TestPool, volume: &str) -> Vec<String> {
    let region = pool.volume(volume).unwrap();
    let health = region.private_region().unwrap().health_now().await.unwrap();
    let mut names: Vec<String> = health.into_iter().map(|info| info.device_name).collect();
    names.sort();
    names
}

async fn wait(world: &SimWorld, seconds: u64) {
    world.device(0).sleep(Duration::from_secs(seconds)).await;
}

async fn no_job(world: &SimWorld, pool: &TestPool) {
    until(world, 600, "the end of all jobs", || {
        let volumes = pool.volumes();
        volumes.iter().all(|volume| volume.record().job.is_none())
    })
    .await;
}

#[test]
fn an_evacuated_device_takes_nothing_by_itself_until_it_is_taken_into_use() {
    let world = SimWorld::seeded(260);
    world.run(async {
        let (pool, _events) = pool(&world, &[64; 3]).await;
        let volume = pool
            .volume_create(request("v", 8, 1, &["d2"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        pool.device_evacuate("d2", None).await.unwrap();
        assert_eq!(closed(&pool, "d2").await, Some(Closed::Emptying));
        no_job(&world, &pool).await;
        assert_eq!(closed(&pool, "d2").await, Some(Closed::Emptied));
        // Three copies of the keys are wanted, and here would be room for the third.
        wait(&world, 30).await;
        assert!(!keys_on(&pool, "v").await.contains(&"d2".to_owned()));
        client.flush().await;
        drop((pool, volume));

        let (pool, _events) = open(&world, &[0, 1, 2]).await;
        keep(&pool);
        wait(&world, 30).await;
        assert_eq!(closed(&pool, "d2").await, Some(Closed::Emptied));
        assert!(!keys_on(&pool, "v").await.contains(&"d2".to_owned()));
        // It has the most room, and is not taken.
        let other = pool.volume_create(request("w", 8, 1, &[])).await.unwrap();
        let d2 = pool.device("d2").await.unwrap();
        assert_eq!(d2.volumes, [""; 0]);
        pool.volume_grow("v", 130 * MIB).await.unwrap_err();
        let mirror = pool.volume_add_mirror("w", &[], None).await;
        mirror.unwrap();
        no_job(&world, &pool).await;
        let third = pool.volume_add_mirror("w", &[], None).await.unwrap_err();
        assert!(third.to_string().contains("no space") || third.to_string().contains("devices"));
        assert!(!other.record().plexes.iter().any(|plex| plex.is_on(d2.uuid)));

        pool.device_reopen("d2").await.unwrap();
        assert_eq!(closed(&pool, "d2").await, None);
        wait(&world, 30).await;
        assert_eq!(keys_on(&pool, "v").await, ["d0", "d1", "d2"]);
        let again = pool.device_reopen("d2").await.unwrap_err();
        assert!(matches!(again, PoolError::Job(JobError::InService { .. })));
        client.again(&pool.volume("v").unwrap()).check_all().await;
    });
}

#[test]
fn what_is_named_is_opened_and_what_is_being_emptied_is_not() {
    let world = SimWorld::seeded(261);
    world.run(async {
        let (pool, _events) = pool(&world, &[64; 4]).await;
        pool.volume_create(request("v", 8, 1, &["d2"]))
            .await
            .unwrap();
        // Nobody has anything on it: it is empty at once.
        let begun = pool.device_evacuate("d3", None).await;
        // But for keys, which are moved.
        begun.unwrap();
        no_job(&world, &pool).await;
        assert_eq!(closed(&pool, "d3").await, Some(Closed::Emptied));
        pool.device_evacuate("d2", Some(1 << 20)).await.unwrap();
        pool.job_control("v", JobControl::Pause).await.unwrap();
        for refused in [
            pool.volume_create(request("w", 4, 1, &["d2"])).await.err(),
            pool.volume_create(CreateVolume {
                keys_on: names(&["d2"]),
                ..request("w", 4, 1, &["d0"])
            })
            .await
            .err(),
            pool.device_replace("d0", "d2", None).await.err(),
            pool.device_reopen("d2").await.err(),
        ] {
            let refused = refused.unwrap().to_string();
            assert!(refused.contains("being emptied"), "{refused}");
        }
        // What is chosen by the pool goes elsewhere, and not to one that was emptied.
        let chosen = pool.volume_create(request("w", 4, 1, &[])).await.unwrap();
        let on = |name: &'static str| {
            let (pool, chosen) = (pool.clone(), chosen.clone());
            async move {
                let uuid = pool.device(name).await.unwrap().uuid;
                let record = chosen.record();
                record.extents().any(|extent| extent.device == uuid)
            }
        };
        assert!(!on("d2").await && !on("d3").await);
        // Whoever names it uses it.
        let named = pool
            .volume_create(request("x", 4, 1, &["d3"]))
            .await
            .unwrap();
        assert_eq!(closed(&pool, "d3").await, None);
        assert_eq!(closed(&pool, "d2").await, Some(Closed::Emptying));
        pool.job_control("v", JobControl::Resume).await.unwrap();
        no_job(&world, &pool).await;
        assert_eq!(closed(&pool, "d2").await, Some(Closed::Emptied));
        drop(named);
        pool.device_remove("d2").await.unwrap();
    });
}

#[test]
fn an_evacuation_that_leaves_something_behind_leaves_the_device_open() {
    let world = SimWorld::seeded(262);
    world.run(async {
        let (pool, _events) = pool(&world, &[64; 4]).await;
        for name in ["v", "w"] {
            pool.volume_create(request(name, 8, 1, &["d2"]))
                .await
                .unwrap();
        }
        pool.device_evacuate("d2", Some(1 << 20)).await.unwrap();
        // The first is cancelled, the other one goes on: it is being emptied still.
        pool.job_control("v", JobControl::Cancel).await.unwrap();
        assert_eq!(closed(&pool, "d2").await, Some(Closed::Emptying));
        no_job(&world, &pool).await;
        assert_eq!(closed(&pool, "d2").await, None);
        pool.device_evacuate("d2", Some(1 << 20)).await.unwrap();
        pool.job_control("v", JobControl::Cancel).await.unwrap();
        assert_eq!(closed(&pool, "d2").await, None);
        drop(pool);
        let (pool, _events) = open(&world, &[0, 1, 2, 3]).await;
        assert_eq!(closed(&pool, "d2").await, None);
        // One that could not begin: nobody else has room.
        pool.volume_create(request("more", 24, 1, &["d2"]))
            .await
            .unwrap();
        pool.volume_create(request("big", 40, 1, &["d0"]))
            .await
            .unwrap();
        pool.volume_create(request("large", 40, 1, &["d1"]))
            .await
            .unwrap();
        pool.volume_create(request("huge", 40, 1, &["d3"]))
            .await
            .unwrap();
        pool.device_evacuate("d0", None).await.unwrap_err();
        assert_eq!(closed(&pool, "d0").await, None);
    });
}

/// A device of which one volume stays does not leave the pool when that is moved away later, for another reason.
#[test]
fn a_replacement_that_was_cancelled_in_part_does_not_take_the_device_away_later() {
    let world = SimWorld::seeded(263);
    world.run(async {
        let (pool, _events) = pool(&world, &[64; 5]).await;
        for name in ["v", "w"] {
            pool.volume_create(request(name, 8, 1, &["d2"]))
                .await
                .unwrap();
        }
        pool.device_replace("d2", "d4", Some(1 << 20))
            .await
            .unwrap();
        pool.job_control("v", JobControl::Cancel).await.unwrap();
        no_job(&world, &pool).await;
        wait(&world, 5).await;
        assert_eq!(closed(&pool, "d2").await, None);
        pool.volume_delete("v").await.unwrap();
        pool.device_evacuate("d2", None).await.unwrap();
        no_job(&world, &pool).await;
        wait(&world, 30).await;
        assert_eq!(
            closed(&pool, "d2").await,
            Some(Closed::Emptied),
            "still there"
        );
    });
}
