//! Devices that hang, and writes that were given up and land later.

use std::time::Duration;

use super::*;
use crate::sim::{self, Effect, Fault, Operations, Stop};

fn stale(store: &PageStore<SimDevice>) -> Vec<bool> {
    store
        .replicas()
        .map(|(_, health)| *health != ReplicaHealth::Current)
        .collect()
}

fn device_of(store: &PageStore<SimDevice>, index: usize) -> Arc<Device<SimDevice>> {
    store.replicas().nth(index).unwrap().0.device.clone()
}

async fn formatted(world: &SimWorld, disks: &[usize]) -> PageStore<SimDevice> {
    PageStore::format(IDENTITY, replicas(world, disks), record(0))
        .await
        .unwrap()
}

/// Whatever a crash leaves, every majority shows `value`.
async fn every_majority_shows(world: &SimWorld, all: &[usize], value: u64) {
    for disks in majorities(all) {
        for stop in [Stop::PowerCut, Stop::Kill] {
            let world = world.after(stop, value);
            for disk in 0..world.disks() {
                world.resume(disk);
            }
            let store = open(&world, &disks).await.unwrap();
            assert_eq!(contents(&store).await.0, value, "on {disks:?}");
        }
    }
}

#[test]
fn a_commit_waits_a_second_for_one_that_hangs_and_then_never_again() {
    let world = world(3);
    world.run(async {
        let all = [0, 1, 2];
        let mut store = formatted(&world, &all).await;
        world.hang(1);
        let began = world.time();
        store
            .commit(record(1), vec![(0, PageChange::Write(page(1)))])
            .await
            .unwrap();
        let waited = world.time() - began;
        assert!(waited >= STRAGGLER_PATIENCE && waited < 2 * STRAGGLER_PATIENCE);
        assert_eq!(stale(&store), [false, true, false]);
        let hung = device_of(&store, 1);
        assert!(hung.abandoned() > 0 && hung.errors().hangs > 0);
        let began = world.time();
        for value in 2..6 {
            store.commit(record(value), Vec::new()).await.unwrap();
        }
        assert!(world.time() - began < STRAGGLER_PATIENCE);
        // Nothing is written to it as long as the old write may land.
        let uuid = Uuid::from_u128(2);
        assert!(matches!(
            store.repair(uuid).await,
            Err(StoreError::NotRepairable { .. })
        ));
        every_majority_shows(&world, &all, 5).await;
        world.resume(1);
        hung.sleep(Duration::from_secs(1)).await;
        assert_eq!(hung.abandoned(), 0);
        every_majority_shows(&world, &all, 5).await;
        store.repair(uuid).await.unwrap();
        assert_eq!(stale(&store), [false; 3]);
        store.commit(record(6), Vec::new()).await.unwrap();
        every_majority_shows(&world, &all, 6).await;
        assert_eq!(store.verify(false).await.unwrap(), []);
    });
}

/// The header of the first commit hangs on its way to one replica, lands at any later moment, and never counts.
#[test]
fn a_header_that_lands_late_is_outvoted() {
    for lands_after in 0..6u64 {
        let world = world(3);
        world.run(async {
            let all = [0, 1, 2];
            let mut store = formatted(&world, &all).await;
            let headers = 8192..8192 + 2 * Geometry::of(AREA_BYTES).unwrap().header_copy_bytes;
            world.inject(
                2,
                Fault::new(Effect::Hang(None))
                    .on(Operations::CHANGES)
                    .range(headers)
                    .once(),
            );
            store.commit(record(1), Vec::new()).await.unwrap();
            let hung = device_of(&store, 2);
            assert_eq!(hung.abandoned(), 1);
            for value in 2..6 {
                if value == lands_after {
                    world.resume(2);
                    hung.sleep(Duration::from_secs(1)).await;
                }
                // The rest of its device works: it could be repaired, and must not be before.
                let repaired = store.repair(Uuid::from_u128(3)).await;
                assert_eq!(repaired.is_ok(), hung.abandoned() == 0);
                store.commit(record(value), Vec::new()).await.unwrap();
                every_majority_shows(&world, &all, value).await;
            }
            world.resume(2);
            hung.sleep(Duration::from_secs(1)).await;
            every_majority_shows(&world, &all, 5).await;
        });
    }
}

#[test]
fn without_a_majority_a_commit_waits_for_what_hangs() {
    let world = world(3);
    world.run(async {
        let mut store = formatted(&world, &[0, 1, 2]).await;
        world.hang(0);
        world.hang(1);
        let device = device_of(&store, 2);
        let commit = sim::spawn(async move {
            let result = store.commit(record(1), Vec::new()).await;
            (store, result)
        });
        device.sleep(Duration::from_secs(3600)).await;
        assert!(!commit.is_done());
        world.resume(1);
        let (store, result) = commit.await;
        result.unwrap();
        assert_eq!(stale(&store), [true, false, false]);
    });
}

#[test]
fn with_a_limit_a_commit_gives_a_majority_up_that_hangs() {
    let world = world(3);
    world.run(async {
        let mut store = formatted(&world, &[0, 1, 2]).await;
        store.limit(Some(Duration::from_secs(20)));
        world.hang(0);
        world.hang(1);
        let began = world.time();
        let result = store.commit(record(1), Vec::new()).await;
        assert!(matches!(result, Err(StoreError::Unsettled { .. })));
        assert!(world.time() - began < Duration::from_secs(25));
        world.resume(0);
        world.resume(1);
        device_of(&store, 0).sleep(Duration::from_secs(1)).await;
        let own = store.replicas().map(|(replica, _)| replica.clone());
        let store = store.reopen(own.collect()).await.unwrap();
        assert_eq!(contents(&store).await.0, 1, "all of it has landed");
    });
}

#[test]
fn failing_a_device_ends_the_waiting_for_it() {
    let world = world(3);
    world.run(async {
        let mut store = formatted(&world, &[0, 1, 2]).await;
        world.hang(0);
        world.hang(1);
        let (first, second, third) = (
            device_of(&store, 0),
            device_of(&store, 1),
            device_of(&store, 2),
        );
        let commit = sim::spawn(async move {
            let result = store.commit(record(1), Vec::new()).await;
            (store, result)
        });
        third.sleep(Duration::from_secs(10)).await;
        assert!(!commit.is_done());
        first.fail("the operator said so");
        second.fail("the operator said so");
        let (store, result) = commit.await;
        assert!(matches!(result, Err(StoreError::Unsettled { .. })));
        assert!(store.is_unsettled());
        // What was given up may land: these two are not written, and one is no majority.
        let found = store.reopen(replicas(&world, &[2])).await;
        assert!(matches!(found, Err(StoreError::LostQuorum { .. })));
    });
}

#[test]
fn when_errors_make_a_majority_impossible_one_that_hangs_is_not_waited_for() {
    let world = world(3);
    world.run(async {
        let mut store = formatted(&world, &[0, 1, 2]).await;
        store.commit(record(1), Vec::new()).await.unwrap();
        world.hang(0);
        world.fail(1, false, true, true);
        world.fail(2, false, true, false);
        let began = world.time();
        assert!(matches!(
            store.commit(record(2), Vec::new()).await,
            Err(StoreError::Unsettled { .. })
        ));
        assert!(world.time() - began < 2 * STRAGGLER_PATIENCE);
        world.fail(1, false, false, false);
        world.fail(2, false, false, false);
        // The same devices: the store knows that the first may still be written.
        let own: Vec<_> = store
            .replicas()
            .map(|(replica, _)| replica.clone())
            .collect();
        let began = world.time();
        let mut store = store.reopen(own).await.unwrap();
        assert!(world.time() - began < 2 * READ_PATIENCE);
        assert_eq!(contents(&store).await.0, 1);
        store.commit(record(3), Vec::new()).await.unwrap();
        world.resume(0);
        device_of(&store, 0).sleep(Duration::from_secs(1)).await;
        every_majority_shows(&world, &[0, 1, 2], 3).await;
        store.repair(Uuid::from_u128(1)).await.unwrap();
        assert_eq!(stale(&store), [false; 3]);
    });
}

#[test]
fn opening_does_not_wait_for_ever() {
    let world = world(3);
    world.run(async {
        let mut store = formatted(&world, &[0, 1, 2]).await;
        store.commit(record(1), Vec::new()).await.unwrap();
        world.hang(2);
        let began = world.time();
        let mut store = open(&world, &[0, 1, 2]).await.unwrap();
        assert!(world.time() - began < 2 * READ_PATIENCE);
        assert_eq!(stale(&store), [false, false, true]);
        store.commit(record(2), Vec::new()).await.unwrap();
        world.hang(1);
        let began = world.time();
        assert!(matches!(
            open(&world, &[0, 1, 2]).await,
            Err(StoreError::LostQuorum { valid: 1, .. })
        ));
        assert!(world.time() - began < 2 * QUORUM_PATIENCE);
    });
}

#[test]
fn a_dropped_commit_is_settled_only_when_its_writes_have_ended() {
    let world = world(1);
    world.run(async {
        let mut store = formatted(&world, &[0]).await;
        world.hang(0);
        let device = device_of(&store, 0);
        let limit = Duration::from_secs(5);
        let changes = vec![(0, PageChange::Write(page(1)))];
        assert!(
            device
                .within(limit, store.commit(record(1), changes))
                .await
                .is_none()
        );
        assert!(store.is_unsettled());
        // The device works again, but for the one write.
        world.clear_faults(0);
        let own: Vec<_> = store
            .replicas()
            .map(|(replica, _)| replica.clone())
            .collect();
        if device.abandoned() > 0 {
            assert!(store.reopen(own.clone()).await.is_err());
        }
        world.resume(0);
        device.sleep(limit).await;
        let mut store = store.reopen(own).await.unwrap();
        assert_eq!(contents(&store).await.0, 0);
        store.commit(record(2), Vec::new()).await.unwrap();
        let again = open(&world, &[0]).await.unwrap();
        assert_eq!(contents(&again).await.0, 2);
    });
}

#[test]
fn a_member_that_hangs_while_it_is_added_is_not_one() {
    let world = world(4);
    world.run(async {
        let all = [0, 1, 2];
        let mut store = formatted(&world, &all).await;
        world.hang(3);
        let new = replicas(&world, &[3]).remove(0);
        let began = world.time();
        let added = store.add_member(new.clone(), record(1), Vec::new()).await;
        assert!(added.is_err());
        assert!(world.time() - began < Duration::from_secs(10));
        store.commit(record(2), Vec::new()).await.unwrap();
        let again = store.add_member(new.clone(), record(3), Vec::new()).await;
        assert!(matches!(again, Err(StoreError::NotRepairable { .. })));
        world.resume(3);
        new.device.sleep(Duration::from_secs(1)).await;
        every_majority_shows(&world, &all, 2).await;
        let found = open(&world.after(Stop::Kill, 1), &[0, 1, 2, 3])
            .await
            .unwrap();
        assert_eq!((contents(&found).await.0, found.members().len()), (2, 3));
        store.add_member(new, record(4), Vec::new()).await.unwrap();
        assert_eq!(stale(&store), [false; 4]);
        every_majority_shows(&world, &[0, 1, 2, 3], 4).await;
    });
}

#[test]
fn a_dead_member_can_be_removed_and_another_added() {
    for members in [2usize, 3] {
        let world = world(members + 1);
        world.run(async {
            let all: Vec<usize> = (0..members).collect();
            formatted(&world, &all).await;
            // Not one commit in this opening before the disk dies.
            let mut store = open(&world, &all).await.unwrap();
            world.die(0);
            let removed = store
                .remove_member(Uuid::from_u128(1), record(1), Vec::new())
                .await;
            removed.unwrap();
            let new = replicas(&world, &[members]).remove(0);
            store.add_member(new, record(2), Vec::new()).await.unwrap();
            world.revive(0);
            let left: Vec<usize> = (1..=members).collect();
            every_majority_shows(&world, &left, 2).await;
            // What was removed never speaks for the rest.
            for disks in [vec![0], vec![0, 1]] {
                let world = world.after(Stop::PowerCut, 3);
                if let Ok(found) = open(&world, &disks).await {
                    assert_eq!(contents(&found).await.0, 2, "{disks:?}");
                }
            }
        });
    }
}

#[test]
fn verify_finds_every_damage_and_sets_it_right() {
    let world = world(3);
    world.run(async {
        let mut store = formatted(&world, &[0, 1, 2]).await;
        let mut model = Model::default();
        for step in 1..6 {
            let changes = changes(step, &mut model);
            store.commit(record(step), changes).await.unwrap();
        }
        assert_eq!(store.verify(false).await.unwrap(), []);
        let geometry = Geometry::of(AREA_BYTES).unwrap();
        let used: Vec<u32> = store.used_pages().collect();
        let first = *used.first().unwrap();
        let entry = store.content.pages[first as usize];
        world.rot(
            1,
            8192 + geometry.page_offset_bytes(first, entry.copy) + 99,
            3,
        );
        world.rot(2, 8192 + geometry.header_offset_bytes(0) + 70, 1);
        let found = store.verify(false).await.unwrap();
        let says: Vec<_> = found
            .iter()
            .map(|finding| (finding.device_name.as_str(), finding.repaired))
            .collect();
        assert_eq!(says[0], ("d1", false));
        assert!(says[1..].iter().all(|says| *says == ("d2", false)) && says.len() > 1);
        let found = store.verify(true).await.unwrap();
        assert!(found.iter().all(|finding| finding.repaired), "{found:?}");
        assert_eq!(store.verify(false).await.unwrap(), []);
        for disk in 0..3 {
            let pair = majorities(&[0, 1, 2])[disk].clone();
            let world = world.after(Stop::Kill, 1);
            assert_eq!(contents(&open(&world, &pair).await.unwrap()).await, model);
        }
        // On every replica: nothing can be done, and nothing is made worse.
        for disk in 0..3 {
            world.rot(
                disk,
                8192 + geometry.page_offset_bytes(first, entry.copy),
                0,
            );
        }
        let found = store.verify(true).await.unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|finding| !finding.repaired));
    });
}
