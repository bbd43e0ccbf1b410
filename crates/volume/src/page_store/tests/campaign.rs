//! Random lives of a store, held against a model: commits, members that come and go, repairs, disks that hang, fail, die
//! and come back, and crashes at any moment. What an opening finds is the last acknowledged commit, or one that was under
//! way since; and it finds it whenever a majority of the members is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::sim::{Effect, Fault, Operations, Random, Stop};

const DISKS: usize = 5;

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    value: u64,
    pages: BTreeMap<u32, u64>,
    members: BTreeSet<usize>,
}

struct Model {
    acknowledged: Content,
    /// What was begun since and may be found as well.
    begun: Vec<Content>,
}

impl Model {
    fn found(&mut self, found: Content) {
        assert!(
            found == self.acknowledged || self.begun.contains(&found),
            "found {found:?}, acknowledged {:?}, begun {:?}",
            self.acknowledged,
            self.begun
        );
        self.acknowledged = found;
        self.begun.clear();
    }

    fn answered(&mut self, wanted: Content, result: &Option<Result<(), StoreError>>, adds: bool) {
        match result {
            Some(Ok(())) => {
                self.acknowledged = wanted;
                self.begun.clear();
            }
            // A new member gets the header before the others: it may be there.
            Some(Err(StoreError::Unsettled { .. })) | None => self.begun.push(wanted),
            Some(Err(_)) if adds => self.begun.push(wanted),
            Some(Err(StoreError::NotCommitted { .. } | StoreError::LastMember)) => {}
            Some(Err(error)) => panic!("{error}"),
        }
    }
}

async fn read_all(store: &PageStore<SimDevice>) -> Content {
    let (value, pages) = contents(store).await;
    Content {
        value,
        pages,
        members: members(store),
    }
}

fn members(store: &PageStore<SimDevice>) -> BTreeSet<usize> {
    let members = store.members().iter();
    members.map(|uuid| uuid.as_u128() as usize - 1).collect()
}

/// What the store holds, with the pages as the model has them where disks that are away keep them from being read.
async fn read_what_can_be(store: &PageStore<SimDevice>, model: &Model) -> Content {
    let used: Vec<u32> = store.used_pages().collect();
    if store.read_pages(&used).await.is_ok() {
        return read_all(store).await;
    }
    let value = u64::from_le_bytes(store.record()[..8].try_into().unwrap());
    let known = std::iter::once(&model.acknowledged).chain(&model.begun);
    let pages = known.filter(|content| content.value == value);
    Content {
        value,
        pages: pages
            .map(|content| content.pages.clone())
            .next()
            .unwrap_or_default(),
        members: members(store),
    }
}

fn id(disk: usize) -> Uuid {
    Uuid::from_u128(disk as u128 + 1)
}

#[derive(Default, Debug)]
struct Seen {
    commits: u32,
    refused: u32,
    unsettled: u32,
    dropped: u32,
    settled: u32,
    repaired: u32,
    added: u32,
    removed: u32,
    lost_quorum: u32,
    adopted: u32,
    hangs: u32,
}

/// One life, from an opening to a crash.
async fn live(
    world: &SimWorld,
    store: &mut PageStore<SimDevice>,
    model: &mut Model,
    random: &mut Random,
    step: &mut u64,
    seen: &mut Seen,
) {
    let handles = replicas(world, &(0..DISKS).collect::<Vec<_>>());
    let own = |store: &PageStore<SimDevice>, disk: usize| {
        let mut replicas = store.replicas();
        let known = replicas.find(|(replica, _)| replica.uuid == id(disk));
        known.map_or_else(|| handles[disk].clone(), |(replica, _)| replica.clone())
    };
    for _ in 0..random.within(3..25) {
        if random.one_in(4) {
            *step += 1;
        }
        let disk = random.below(DISKS as u64) as usize;
        match random.below(20) {
            0 => world.hang(disk),
            1 => {
                let fault = Fault::new(Effect::Hang(None)).on(Operations::CHANGES);
                world.inject(disk, fault.after(random.below(3)).once());
            }
            2 => world.die(disk),
            3 => world.inject(
                disk,
                Fault::new(Effect::Error).on(Operations::CHANGES).once(),
            ),
            4..=6 => {
                world.resume(disk);
                world.revive(disk);
            }
            7 | 8 => {
                if store.repair(id(disk)).await.is_ok() {
                    seen.repaired += 1;
                }
            }
            9 => drop(store.verify(true).await),
            10 if !model.acknowledged.members.contains(&disk) => {
                *step += 1;
                let mut wanted = model.acknowledged.clone();
                wanted.value = *step;
                wanted.members.insert(disk);
                let replica = own(store, disk);
                let clock = handles[disk].device.clone();
                let adding = store.add_member(replica, record(*step), Vec::new());
                let result = clock.within(Duration::from_secs(30), adding).await;
                if let Some(Err(StoreError::NotRepairable { .. })) = result {
                    continue;
                }
                seen.added += u32::from(matches!(result, Some(Ok(()))));
                model.answered(wanted, &result, true);
            }
            11 if model.acknowledged.members.contains(&disk) => {
                *step += 1;
                let mut wanted = model.acknowledged.clone();
                wanted.value = *step;
                wanted.members.remove(&disk);
                let clock = handles[disk].device.clone();
                let removing = store.remove_member(id(disk), record(*step), Vec::new());
                let result = clock.within(Duration::from_secs(30), removing).await;
                seen.removed += u32::from(matches!(result, Some(Ok(()))));
                model.answered(wanted, &result, false);
            }
            _ => {
                *step += 1;
                let mut wanted = model.acknowledged.clone();
                let mut as_model = (wanted.value, wanted.pages);
                let changes = changes(*step, &mut as_model);
                (wanted.value, wanted.pages) = as_model;
                let clock = handles[disk].device.clone();
                // Some are dropped half-way.
                let limit = match random.below(12) {
                    0 => Duration::from_micros(random.below(4000)),
                    _ => Duration::from_secs(20),
                };
                let committing = store.commit(record(*step), changes);
                let result = clock.within(limit, committing).await;
                match &result {
                    Some(Ok(())) => seen.commits += 1,
                    Some(Err(StoreError::Unsettled { .. })) => seen.unsettled += 1,
                    Some(Err(_)) => seen.refused += 1,
                    None => seen.dropped += 1,
                }
                model.answered(wanted, &result, false);
            }
        }
        if store.is_unsettled() {
            // As the private region does: all candidates, the same devices.
            let all = (0..DISKS).map(|disk| own(store, disk)).collect();
            if let Ok(again) = store.reopen(all).await {
                seen.settled += 1;
                let found = read_what_can_be(&again, model).await;
                seen.adopted += u32::from(found != model.acknowledged);
                model.found(found);
                *store = again;
            } else if random.one_in(3) {
                return;
            }
        } else if random.one_in(5) {
            let found = read_what_can_be(store, model).await;
            assert_eq!(found, model.acknowledged);
        }
        let hung = |disk: usize| handles[disk].device.abandoned() > 0;
        seen.hangs += u32::from((0..DISKS).any(hung));
    }
}

/// Opens what a crash left, first with some disks away.
async fn open_after(
    world: &SimWorld,
    model: &mut Model,
    random: &mut Random,
    seen: &mut Seen,
) -> PageStore<SimDevice> {
    for disk in 0..DISKS {
        world.clear_faults(disk);
        world.resume(disk);
        world.revive(disk);
        // As a pool does before it reads anything.
        world.device(disk).flush().await.unwrap();
    }
    let mut there: Vec<usize> = (0..DISKS).collect();
    random.shuffle(&mut there);
    there.truncate(DISKS - random.below(3) as usize);
    let settle = random.one_in(4);
    match PageStore::open(IDENTITY, replicas(world, &there), settle).await {
        Ok(store) => {
            let found = read_all(&store).await;
            seen.adopted += u32::from(found != model.acknowledged);
            model.found(found);
            return store;
        }
        Err(StoreError::LostQuorum { .. } | StoreError::Empty | StoreError::Torn { .. }) => {
            seen.lost_quorum += 1;
            let possible = |content: &Content| {
                let there = content.members.iter().filter(|disk| there.contains(disk));
                there.count() <= content.members.len() / 2
            };
            assert!(
                possible(&model.acknowledged) || model.begun.iter().any(possible),
                "a majority is there: {there:?} of {:?}",
                model.acknowledged.members
            );
        }
        Err(error) => panic!("{error}"),
    }
    let all: Vec<usize> = (0..DISKS).collect();
    let store = open(world, &all).await.unwrap();
    model.found(read_all(&store).await);
    store
}

fn campaign(seed: u64, seen: &mut Seen) {
    let mut random = Random::new(seed);
    let mut world = SimWorld::seeded(seed);
    for _ in 0..DISKS {
        world.add(1 << 20, 4096);
    }
    let members: Vec<usize> = (0..random.within(1..5) as usize).collect();
    let mut model = Model {
        acknowledged: Content {
            value: 0,
            pages: BTreeMap::new(),
            members: members.iter().copied().collect(),
        },
        begun: Vec::new(),
    };
    let mut store = Some(world.run(async {
        PageStore::format(IDENTITY, replicas(&world, &members), record(0))
            .await
            .unwrap()
    }));
    let mut step = 0;
    for life in 0..4 {
        world.run(async {
            let mut store = match store.take() {
                Some(store) => store,
                None => open_after(&world, &mut model, &mut random, seen).await,
            };
            live(&world, &mut store, &mut model, &mut random, &mut step, seen).await;
        });
        let stop = if random.one_in(2) {
            Stop::PowerCut
        } else {
            Stop::Kill
        };
        world = world.after(stop, seed ^ life);
    }
    world.run(async {
        open_after(&world, &mut model, &mut random, seen).await;
    });
}

#[test]
fn lives_of_a_store() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("RINGFENCE_SEED").unwrap_or(1);
    let count: u64 = number("RINGFENCE_SEEDS").unwrap_or(400);
    let mut seen = Seen::default();
    for seed in first..first + count {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            campaign(seed, &mut seen);
        }));
        if let Err(panic) = ended {
            eprintln!("RINGFENCE_SEED={seed} RINGFENCE_SEEDS=1 repeats this");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{count} seeds from {first}: {seen:?}");
    if count >= 400 {
        let Seen {
            commits,
            refused,
            unsettled,
            dropped,
            settled,
            repaired,
            added,
            removed,
            lost_quorum,
            adopted,
            hangs,
        } = seen;
        for number in [
            commits,
            refused,
            unsettled,
            dropped,
            settled,
            repaired,
            added,
            removed,
            lost_quorum,
            adopted,
            hangs,
        ] {
            assert!(number > 20, "something is hardly ever reached");
        }
    }
}
