//! Keys without a majority, keys that contradict one another, and going on from one copy.

use std::collections::BTreeSet;

use reservation::{Lost, LostUntil};

use super::*;
use crate::sim::Stop;

/// Five disks; the keys of volume `v` on the first three, its data on the fourth.
async fn five(world: &SimWorld) -> Pool<SimDevice> {
    let pool = pool(world, 5).await;
    let request = CreateVolume {
        on: vec!["d3".into()],
        keys_on: vec!["d0".into(), "d1".into(), "d2".into()],
        ..request("v", 4)
    };
    let volume = pool.volume_create(request).await.unwrap();
    for generation in 1..4 {
        commit(&volume, generation).await;
    }
    pool
}

async fn commit(volume: &Volume<SimDevice>, generation: u32) {
    let state = State {
        aptpl: true,
        ..state(generation)
    };
    let region = volume.private_region().unwrap();
    region.commit(&state).await.unwrap();
}

async fn loaded(volume: &Volume<SimDevice>) -> State {
    volume.private_region().unwrap().load().await.unwrap()
}

/// As right after a recovery that waits for registrations made anew.
fn everything_is_recovered(state: &State) -> bool {
    let lost = Lost::UntilRegistered {
        recovered: state.registrants.keys().cloned().collect(),
    };
    state.lost == Some(lost)
}

fn generations(inspection: &KeysInspection) -> Vec<(Vec<&str>, u32)> {
    let versions = inspection.versions.iter();
    versions
        .map(|version| {
            let devices = version.devices.iter().map(String::as_str).collect();
            (devices, version.state.as_ref().unwrap().generation)
        })
        .collect()
}

#[test]
fn a_minority_is_shown_and_chosen_and_never_contradicted_by_what_comes_back() {
    let world = world(&[64; 5]);
    block_on(async {
        let pool = five(&world).await;
        // d2 was away for the last commit.
        world.fail(2, true, true, true);
        let volume = pool.volume("v").unwrap();
        commit(&volume, 4).await;
        world.fail(2, false, false, false);
        let whole = pool.keys_inspect("v").await.unwrap();
        assert_eq!((whole.problem, whole.current), (None, Some(0)));
        assert!(matches!(whole.replicas[2].state, KeysCopy::Stale(_)));
        drop(pool);

        let pool = open(&world, &[2, 3, 4]).await.unwrap();
        let fault = pool.volume("v").unwrap().fault().unwrap();
        assert!(fault.contains("1 of 3"), "{fault}");
        let said = pool.keys_inspect("v").await.unwrap();
        assert!(said.problem.as_ref().unwrap().contains("1 of 3"));
        assert_eq!(generations(&said), [(vec!["d2"], 3)]);
        let states: Vec<String> = said.replicas.iter().map(|r| r.state.to_string()).collect();
        assert_eq!(states[..2], ["missing", "missing"]);
        let token = said.versions[0].token;
        for (from, token) in [
            ("d0", token),
            ("d3", token),
            ("d2", token + 1),
            ("x", token),
        ] {
            assert!(matches!(
                pool.keys_recover("v", from, token, LostUntil::Registered)
                    .await,
                Err(PoolError::KeysNotThere { .. })
            ));
        }
        let volume = pool
            .keys_recover("v", "d2", token, LostUntil::Registered)
            .await
            .unwrap();
        assert_eq!(volume.fault(), None);
        let state = loaded(&volume).await;
        assert_eq!(state.registrants.len(), 1);
        assert!(everything_is_recovered(&state));
        let on: BTreeSet<Uuid> = volume
            .record()
            .keys
            .iter()
            .map(|k| k.extent.device)
            .collect();
        assert_eq!(
            on.len(),
            1,
            "the only one of the named devices that is there"
        );
        assert!(matches!(
            pool.keys_recover("v", "d2", token, LostUntil::Registered)
                .await,
            Err(PoolError::KeysHaveQuorum { .. })
        ));
        drop(pool);
        // The others are back, with a later state that had a majority.
        for disks in [vec![0, 1, 2, 3, 4], vec![0, 1, 3, 4], vec![0, 1, 2, 3]] {
            let world = world.after(Stop::Kill, 1);
            let pool = open(&world, &disks).await.unwrap();
            let volume = pool.volume("v").unwrap();
            assert_eq!(volume.fault().is_none(), disks.contains(&2), "{disks:?}");
            if disks.contains(&2) {
                assert!(everything_is_recovered(&loaded(&volume).await));
            }
        }
    });
}

#[test]
fn a_crash_in_a_recovery_leaves_everything_as_it_was_or_the_volume_served() {
    let world = world(&[32; 5]);
    let token = block_on(async {
        drop(five(&world).await);
        let pool = open(&world, &[2, 3, 4]).await.unwrap();
        let token = pool.keys_inspect("v").await.unwrap().versions[0].token;
        world.record();
        pool.keys_recover("v", "d2", token, LostUntil::Registered)
            .await
            .unwrap();
        world.mark(1);
        token
    });
    let (mut before, mut after) = (0, 0);
    world.crashes(3, 7, |crash| {
        let mark = crash.mark;
        let world = world.with_images(crash.images);
        block_on(async {
            let pool = open(&world, &[2, 3, 4]).await.unwrap();
            let volume = pool.volume("v").unwrap();
            if volume.fault().is_none() {
                after += 1;
                assert!(everything_is_recovered(&loaded(&volume).await));
                return;
            }
            before += 1;
            assert_eq!(mark, None, "it was answered and is not there");
            let said = pool.keys_inspect("v").await.unwrap();
            assert_eq!(said.versions[0].token, token);
            let volume = pool
                .keys_recover("v", "d2", token, LostUntil::Registered)
                .await
                .unwrap();
            assert!(everything_is_recovered(&loaded(&volume).await));
        });
    });
    assert!(before > 10 && after > 0, "{before} before, {after} after");
}

#[test]
fn a_fork_is_shown_with_both_sides_and_either_can_be_chosen() {
    for chosen in ["d0", "d1"] {
        let world = world(&[32; 5]);
        block_on(async {
            drop(five(&world).await);
            // Two heads that do not know of one another: no crash does that.
            let other = world.after(Stop::Kill, 1);
            for (world, generation) in [(&world, 10), (&other, 20)] {
                let pool = open(world, &[0, 1, 2, 3, 4]).await.unwrap();
                commit(&pool.volume("v").unwrap(), generation).await;
            }
            let images = (0..5)
                .map(|disk| {
                    if disk == 0 {
                        other.image(0)
                    } else {
                        world.image(disk)
                    }
                })
                .collect();
            let world = world.with_images(images);
            let pool = open(&world, &[0, 1, 2, 3, 4]).await.unwrap();
            let fault = pool.volume("v").unwrap().fault().unwrap();
            assert!(fault.contains("no crash explains"), "{fault}");
            let said = pool.keys_inspect("v").await.unwrap();
            assert_eq!(said.current, None);
            let mut sides = generations(&said);
            sides.sort();
            assert_eq!(sides, [(vec!["d0"], 20), (vec!["d1", "d2"], 10)]);
            let version = said.versions.iter();
            let token = version
                .filter(|version| version.devices.iter().any(|name| name == chosen))
                .map(|version| version.token)
                .next()
                .unwrap();
            let volume = pool
                .keys_recover("v", chosen, token, LostUntil::Registered)
                .await
                .unwrap();
            let state = loaded(&volume).await;
            let expected = if chosen == "d0" { 20 } else { 10 };
            assert_eq!(state.generation, expected);
            assert!(everything_is_recovered(&state));
        });
    }
}

#[test]
fn what_was_served_and_lost_its_quorum_is_recovered_too() {
    let world = world(&[64; 5]);
    block_on(async {
        let pool = five(&world).await;
        let volume = pool.volume("v").unwrap();
        for disk in [0, 1] {
            world.die(disk);
        }
        let region = volume.private_region().unwrap();
        assert!(region.commit(&state(9)).await.is_err());
        let said = pool.keys_inspect("v").await.unwrap();
        assert!(said.problem.is_some());
        let unreadable =
            |status: &KeysReplicaStatus| matches!(status.state, KeysCopy::Unreadable(_));
        assert_eq!(said.replicas.iter().filter(|r| unreadable(r)).count(), 2);
        for device in ["d0", "d1"] {
            let inner = pool.inner.lock().await;
            let config = inner.config().unwrap();
            let record = config.devices.values().find(|d| d.name == device).unwrap();
            inner.devices[&record.uuid].fail("dead");
        }
        let token = said.versions[0].token;
        let new = pool
            .keys_recover("v", "d2", token, LostUntil::Registered)
            .await
            .unwrap();
        assert!(
            Arc::ptr_eq(&new, &volume),
            "its data is served all the time"
        );
        let on: Vec<Uuid> = new.record().keys.iter().map(|k| k.extent.device).collect();
        assert_eq!(on.len(), 1);
        assert!(everything_is_recovered(&loaded(&new).await));
        commit(&new, 5).await;
        new.write(0, vec![5; 4096].into()).await.unwrap();
        drop((new, volume, pool));
        for disk in [0, 1] {
            world.revive(disk);
        }
        let pool = open(&world, &[0, 1, 2, 3, 4]).await.unwrap();
        let volume = pool.volume("v").unwrap();
        assert_eq!(loaded(&volume).await.generation, 5);
        assert_eq!(read(&volume, 0, 4096).await, [5; 4096]);
    });
}

#[test]
fn a_recovery_that_fails_leaves_a_served_volume_as_it_was() {
    let world = world(&[64; 5]);
    block_on(async {
        let pool = five(&world).await;
        let volume = pool.volume("v").unwrap();
        for disk in [0, 1] {
            world.die(disk);
        }
        let region = volume.private_region().unwrap();
        assert!(region.commit(&state(9)).await.is_err());
        let token = pool.keys_inspect("v").await.unwrap().versions[0].token;
        // The only device that is left cannot be written: it is no majority of anything.
        world.fail(2, false, true, false);
        assert!(
            pool.keys_recover("v", "d2", token, LostUntil::Registered)
                .await
                .is_err()
        );
        for disk in [0, 1] {
            world.revive(disk);
        }
        world.fail(2, false, false, false);
        let found = region.recover().await.unwrap().generation;
        assert!(found == 3 || found == 9, "{found}");
        commit(&volume, 10).await;
    });
}

#[test]
fn a_volume_whose_devices_come_back_can_be_opened_again() {
    let world = world(&[64; 5]);
    block_on(async {
        drop(five(&world).await);
        world.fail(0, true, true, false);
        world.fail(1, true, true, false);
        // The configuration's copies there cannot be read either: three of five are left.
        let pool = open(&world, &[2, 3, 4]).await.unwrap();
        assert!(pool.volume("v").unwrap().fault().is_some());
        let same = pool.volume_reopen("v").await.unwrap();
        assert!(same.fault().is_some());
        world.fail(0, false, false, false);
        let pool = open(&world, &[0, 2, 3, 4]).await.unwrap();
        let volume = pool.volume_reopen("v").await.unwrap();
        assert_eq!(volume.fault(), None);
        assert_eq!(loaded(&volume).await.generation, 3);
    });
}
