//! Commits, crashes, losses and membership of the page store on simulated disks.

use futures_lite::future::block_on;

use super::*;
use crate::sim::{SimDevice, SimWorld};

mod campaign;
mod hangs;

const IDENTITY: Identity = Identity {
    store: Uuid::from_u128(42),
    kind: *b"TEST",
};
const AREA_BYTES: u64 = 256 * 1024;

fn replicas(world: &SimWorld, disks: &[usize]) -> Vec<Replica<SimDevice>> {
    disks
        .iter()
        .map(|&disk| Replica {
            uuid: Uuid::from_u128(disk as u128 + 1),
            device: Arc::new(Device::new(
                Uuid::from_u128(disk as u128 + 1),
                format!("d{disk}"),
                String::new(),
                world.device(disk),
            )),
            offset_bytes: 8192,
            length_bytes: AREA_BYTES,
        })
        .collect()
}

fn world(disks: usize) -> SimWorld {
    let world = SimWorld::default();
    for _ in 0..disks {
        world.add(1 << 20, 4096);
    }
    world
}

fn page(value: u64) -> Bytes {
    let mut page = vec![0u8; PAGE_BYTES as usize];
    for chunk in page.chunks_mut(8) {
        chunk.copy_from_slice(&value.to_le_bytes());
    }
    page.into()
}

fn record(value: u64) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&value.to_le_bytes());
    record
}

/// What a store holds: its record's value and each page's value; every byte is checked.
type Model = (u64, std::collections::BTreeMap<u32, u64>);

async fn contents(store: &PageStore<SimDevice>) -> Model {
    let used: Vec<u32> = store.used_pages().collect();
    let pages = store.read_pages(&used).await.unwrap();
    let value = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let pages = used
        .into_iter()
        .zip(pages)
        .map(|(number, bytes)| {
            assert_eq!(bytes, page(value(&bytes)));
            (number, value(&bytes))
        })
        .collect();
    (value(store.record()), pages)
}

async fn open(world: &SimWorld, disks: &[usize]) -> Result<PageStore<SimDevice>, StoreError> {
    PageStore::open(IDENTITY, replicas(world, disks), false).await
}

/// A commit in which about half of the pages change, by `step`.
fn changes(step: u64, model: &mut Model) -> Vec<(u32, PageChange)> {
    model.0 = step;
    let mut changes = Vec::new();
    for number in 0..6u32 {
        match (step * 7 + u64::from(number) * 5) % 6 {
            0 if model.1.remove(&number).is_some() => changes.push((number, PageChange::Free)),
            1 | 2 => {
                let value = step * 100 + u64::from(number);
                model.1.insert(number, value);
                changes.push((number, PageChange::Write(page(value))));
            }
            _ => {}
        }
    }
    changes
}

#[test]
fn a_crash_at_any_point_leaves_the_last_or_the_next_commit() {
    for disks in [1usize, 3] {
        let world = world(disks);
        let all: Vec<usize> = (0..disks).collect();
        let mut models = Vec::new();
        block_on(async {
            let mut store = PageStore::format(IDENTITY, replicas(&world, &all), record(0))
                .await
                .unwrap();
            world.record();
            let mut model = Model::default();
            models.push(model.clone());
            for step in 1..12 {
                let changes = changes(step, &mut model);
                models.push(model.clone());
                store.commit(record(step), changes).await.unwrap();
                world.mark(step);
                if step == 6 {
                    store = open(&world, &all).await.unwrap();
                }
            }
        });
        let mut points = 0;
        world.crashes(6, 1, |crash| {
            points += 1;
            let acknowledged = crash.mark.unwrap_or(0) as usize;
            let world = world.with_images(crash.images);
            block_on(async {
                let store = open(&world, &all).await.unwrap();
                let found = contents(&store).await;
                assert!(
                    models[acknowledged..]
                        .iter()
                        .take(2)
                        .any(|model| *model == found),
                    "after {acknowledged}: {found:?}"
                );
                // What was served once is what any majority shows from then on.
                for disks in majorities(&all) {
                    let again = open(&world, &disks).await.unwrap();
                    assert_eq!(contents(&again).await, found);
                }
            });
        });
        assert!(points > 100, "{points} crash points");
    }
}

fn majorities(all: &[usize]) -> Vec<Vec<usize>> {
    if all.len() <= 2 {
        return vec![all.to_vec()];
    }
    all.iter()
        .map(|left_out| {
            all.iter()
                .copied()
                .filter(|disk| disk != left_out)
                .collect()
        })
        .collect()
}

#[test]
fn a_commit_without_pages_is_one_write_and_one_flush() {
    let world = world(1);
    block_on(async {
        let mut store = PageStore::format(IDENTITY, replicas(&world, &[0]), record(0))
            .await
            .unwrap();
        world.record();
        store.commit(record(1), Vec::new()).await.unwrap();
        assert_eq!(world.history(), (2, 1));
    });
}

#[test]
fn a_lost_minority_changes_nothing_and_is_repaired_when_it_comes_back() {
    let world = world(3);
    block_on(async {
        let mut store = PageStore::format(IDENTITY, replicas(&world, &[0, 1, 2]), record(0))
            .await
            .unwrap();
        let mut model = Model::default();
        world.fail(1, true, true, true);
        for step in 1..5 {
            let changes = changes(step, &mut model);
            store.commit(record(step), changes).await.unwrap();
        }
        let stale: Vec<bool> = store
            .replicas()
            .map(|(_, health)| *health != ReplicaHealth::Current)
            .collect();
        assert_eq!(stale, [false, true, false]);
        world.fail(1, false, false, false);
        // Another loses its copy: the one that was away must not be believed.
        assert_eq!(contents(&open(&world, &[0, 1]).await.unwrap()).await, model);
        assert_eq!(contents(&open(&world, &[1, 2]).await.unwrap()).await, model);
        assert!(matches!(
            open(&world, &[1]).await,
            Err(StoreError::LostQuorum {
                valid: 1,
                need: 2,
                of: 3,
                ..
            })
        ));
    });
}

#[test]
fn a_lost_majority_fails_the_commit_and_settling_it_is_durable() {
    let world = world(3);
    block_on(async {
        let mut store = PageStore::format(IDENTITY, replicas(&world, &[0, 1, 2]), record(0))
            .await
            .unwrap();
        world.fail(0, false, true, true);
        world.fail(1, false, true, true);
        assert!(matches!(
            store.commit(record(1), Vec::new()).await,
            Err(StoreError::Unsettled { .. })
        ));
        assert!(matches!(
            store.commit(record(2), Vec::new()).await,
            Err(StoreError::Unsettled { .. })
        ));
        world.fail(0, false, false, false);
        world.fail(1, false, false, false);
        let store = PageStore::open(IDENTITY, replicas(&world, &[0, 1, 2]), true)
            .await
            .unwrap();
        let found = contents(&store).await;
        for disks in [[0, 1], [1, 2], [0, 2]] {
            assert_eq!(contents(&open(&world, &disks).await.unwrap()).await, found);
        }
    });
}

#[test]
fn a_commit_that_nobody_acknowledged_never_beats_one_that_was() {
    // Commit 1 reaches only disk 0. Disks 1 and 2 go on without it; then disk 0 comes back.
    let world = world(3);
    block_on(async {
        let mut store = PageStore::format(IDENTITY, replicas(&world, &[0, 1, 2]), record(0))
            .await
            .unwrap();
        for disk in [1, 2] {
            world.fail(disk, false, true, true);
        }
        assert!(store.commit(record(1), Vec::new()).await.is_err());
        for disk in [1, 2] {
            world.fail(disk, false, false, false);
        }
        let mut store = open(&world, &[1, 2]).await.unwrap();
        assert_eq!(contents(&store).await.0, 0);
        store.commit(record(7), Vec::new()).await.unwrap();
        for disks in [vec![0, 1], vec![0, 2], vec![0, 1, 2]] {
            let images = (0..3).map(|disk| world.image(disk)).collect();
            let world = world.with_images(images);
            assert_eq!(contents(&open(&world, &disks).await.unwrap()).await.0, 7);
        }
    });
}

#[test]
fn an_opening_that_dies_after_its_claim_does_not_outrank_the_next() {
    // An opening of disks 1 and 2 with a higher claim reaches disk 2 only and dies; disks 0 and 1 serve a commit.
    for fuse in 0..8 {
        let world = world(3);
        block_on(async {
            let mut store = PageStore::format(IDENTITY, replicas(&world, &[0, 1, 2]), record(0))
                .await
                .unwrap();
            store.commit(record(1), Vec::new()).await.unwrap();
            let mut dying = open(&world, &[1, 2]).await.unwrap();
            world.fuse(1, Some(0));
            world.fuse(2, Some(fuse));
            assert!(dying.commit(record(66), Vec::new()).await.is_err());
            world.fuse(1, None);
            world.fuse(2, None);
            let mut store = open(&world, &[0, 1]).await.unwrap();
            store.commit(record(2), Vec::new()).await.unwrap();
            for disks in [vec![0, 2], vec![1, 2], vec![0, 1, 2]] {
                let images = (0..3).map(|disk| world.image(disk)).collect();
                let world = world.with_images(images);
                assert_eq!(contents(&open(&world, &disks).await.unwrap()).await.0, 2);
            }
        });
    }
}

#[test]
fn a_damaged_page_is_taken_from_another_replica_or_refused() {
    let world = world(2);
    block_on(async {
        let mut store = PageStore::format(IDENTITY, replicas(&world, &[0, 1]), record(0))
            .await
            .unwrap();
        let mut model = Model::default();
        for step in 1..4 {
            let changes = changes(step, &mut model);
            store.commit(record(step), changes).await.unwrap();
        }
        let geometry = Geometry::of(AREA_BYTES).unwrap();
        let start = 8192 + geometry.page_offset_bytes(0, 0);
        world.overwrite(0, start, &vec![0x5a; 12 * PAGE_BYTES as usize]);
        assert_eq!(contents(&open(&world, &[0, 1]).await.unwrap()).await, model);
        world.overwrite(1, start, &vec![0x5a; 12 * PAGE_BYTES as usize]);
        let store = open(&world, &[0, 1]).await.unwrap();
        let used: Vec<u32> = store.used_pages().collect();
        assert!(matches!(
            store.read_pages(&used).await,
            Err(StoreError::PageDamaged { .. })
        ));
    });
}

#[test]
fn members_come_and_go_and_a_crash_between_is_one_or_the_other() {
    let world = world(3);
    block_on(async {
        let mut store = PageStore::format(IDENTITY, replicas(&world, &[0]), record(0))
            .await
            .unwrap();
        let mut model = Model::default();
        let first = changes(1, &mut model);
        store.commit(record(1), first).await.unwrap();
        world.record();
        for (step, disk) in [(2, 1), (3, 2)] {
            let changes = changes(step, &mut model);
            let replica = replicas(&world, &[disk]).remove(0);
            store
                .add_member(replica, record(step), changes)
                .await
                .unwrap();
            world.mark(step);
        }
        for (step, disk) in [(4, 0), (5, 1)] {
            let changes = changes(step, &mut model);
            store
                .remove_member(Uuid::from_u128(disk + 1), record(step), changes)
                .await
                .unwrap();
            world.mark(step);
        }
        assert_eq!(contents(&open(&world, &[2]).await.unwrap()).await, model);
        assert!(open(&world, &[0, 1]).await.is_err());
    });
    world.crashes(8, 3, |crash| {
        let acknowledged = crash.mark.unwrap_or(1);
        let world = world.with_images(crash.images);
        block_on(async {
            let store = open(&world, &[0, 1, 2]).await.unwrap();
            let found = contents(&store).await.0;
            assert!(found == acknowledged || found == acknowledged + 1);
        });
    });
}

#[test]
fn a_store_that_is_full_says_so_and_goes_on() {
    let world = world(1);
    block_on(async {
        let mut store = PageStore::format(IDENTITY, replicas(&world, &[0]), record(0))
            .await
            .unwrap();
        let capacity = store.capacity_pages();
        let beyond = vec![(capacity, PageChange::Write(page(1)))];
        assert!(matches!(
            store.commit(record(1), beyond).await,
            Err(StoreError::Full { .. })
        ));
        let last = vec![(capacity - 1, PageChange::Write(page(1)))];
        store.commit(record(2), last).await.unwrap();
        let store = open(&world, &[0]).await.unwrap();
        assert_eq!(contents(&store).await.1, [(capacity - 1, 1)].into());
    });
}

#[test]
fn what_an_opening_of_some_found_is_not_contradicted_by_what_an_earlier_one_began() {
    // A commit reaches some disks. The next opening does not see disk 0, serves what it finds, and changes nothing.
    let mut contradicted = 0;
    for (claims, headers) in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (0, 2)] {
        let world = world(3);
        block_on(async {
            let made = PageStore::format(IDENTITY, replicas(&world, &[0, 1, 2]), record(0)).await;
            drop(made.unwrap());
            let mut store = open(&world, &[0, 1, 2]).await.unwrap();
            world.fuse(1, Some(claims));
            world.fuse(2, Some(headers));
            let committed = store.commit(record(66), Vec::new()).await;
            world.fuse(1, None);
            world.fuse(2, None);
            let served = contents(&open(&world, &[1, 2]).await.unwrap()).await.0;
            assert!(served == 66 || committed.is_err(), "acknowledged");
            contradicted += u32::from(served != 66);
            for disks in majorities(&[0, 1, 2]) {
                let images = (0..3).map(|disk| world.image(disk)).collect();
                let world = world.with_images(images);
                let store = open(&world, &disks).await;
                let store = store.unwrap_or_else(|error| panic!("{disks:?}: {error}"));
                assert_eq!(contents(&store).await.0, served, "{disks:?}");
            }
        });
    }
    assert!(contradicted > 1, "{contradicted}");
}
