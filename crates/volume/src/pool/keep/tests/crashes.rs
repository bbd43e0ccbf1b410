//! Crashes in the middle of everything: what a restart finds, and that it goes on or rolls back by itself.

use super::*;
use crate::pool::jobs::{JobControl, Migrate};
use crate::sim::Stop;

/// What happens to the volume while clients write.
#[derive(Clone, Copy, Debug)]
enum Story {
    AddMirror,
    Migrate,
    Evacuate,
    Replace,
    Cancel,
    Detach,
    Grow,
}

const STORIES: [Story; 7] = [
    Story::AddMirror,
    Story::Migrate,
    Story::Evacuate,
    Story::Replace,
    Story::Cancel,
    Story::Detach,
    Story::Grow,
];

async fn tell(story: Story, pool: &TestPool, world: &SimWorld) {
    let clock = world.device(0);
    match story {
        Story::AddMirror => {
            let on = names(&["d3"]);
            drop(pool.volume_add_mirror("v", &on, None).await.unwrap());
        }
        Story::Migrate => {
            let request = Migrate {
                to: names(&["d2", "d3"]),
                mirrors: Some(2),
                ..Migrate::default()
            };
            drop(pool.volume_migrate("v", request).await.unwrap());
        }
        Story::Evacuate => drop(pool.device_evacuate("d0", None).await.unwrap()),
        Story::Replace => drop(pool.device_replace("d0", "d3", None).await.unwrap()),
        Story::Cancel => {
            let request = Migrate {
                to: names(&["d2", "d3"]),
                ..Migrate::default()
            };
            pool.volume_migrate("v", request).await.unwrap();
            clock
                .sleep(Duration::from_millis(world.chance(0..200)))
                .await;
            // It may be done already.
            let _ = pool.job_control("v", JobControl::Cancel).await;
        }
        Story::Detach => {
            pool.device_fail("d1").await.unwrap();
            clock.sleep(Duration::from_millis(50)).await;
            pool.device_online("d1", source(world, 1)).await.unwrap();
        }
        Story::Grow => {
            let on = names(&["d3"]);
            pool.volume_add_mirror("v", &on, None).await.unwrap();
            pool.volume_grow("v", 6 * MIB).await.unwrap();
        }
    }
}

/// What the records do not have is free, and nothing else.
async fn space_adds_up(pool: &TestPool) -> Result<(), String> {
    let mut used: BTreeMap<Uuid, u64> = BTreeMap::new();
    for volume in pool.volumes() {
        let record = volume.record();
        let mut extents: Vec<_> = record.extents().copied().collect();
        extents.sort_by_key(|extent| (extent.device, extent.offset_bytes));
        extents.dedup();
        for extent in extents {
            *used.entry(extent.device).or_default() += extent.length_bytes;
        }
    }
    for info in pool.devices().await {
        let used = used.get(&info.uuid).copied().unwrap_or(0);
        if info.free_bytes + used != info.capacity_bytes {
            return Err(format!("{info:?}: {used} bytes used"));
        }
    }
    Ok(())
}

/// Seeds for each story.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("KEEPER_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    0..count.unwrap_or(5)
}

fn one_crash(story: Story, seed: u64, stop: Stop) {
    let world = SimWorld::seeded(seed);
    let (after, client, generation) = world.run(async {
        let (pool, _) = pool(&world, &[32; 4]).await;
        let volume = pool
            .volume_create(request("v", 4, 2, &["d0", "d1"]))
            .await
            .unwrap();
        let client = Client::new(&volume);
        client.fill().await;
        client.load(&world, 3, Duration::from_micros(500));
        let generation = Rc::new(Cell::new(0));
        {
            let (volume, generation, clock) = (volume.clone(), generation.clone(), world.device(0));
            spawn(async move {
                let region = volume.private_region().unwrap();
                for next in 1.. {
                    if region.commit(&keys(next)).await.is_err() {
                        return;
                    }
                    generation.set(next);
                    clock.sleep(Duration::from_millis(7)).await;
                }
            });
        }
        let told = {
            let (pool, world) = (pool.clone(), world.clone());
            spawn(async move { tell(story, &pool, &world).await })
        };
        let wait = Duration::from_micros(world.chance(0..700_000));
        world.device(0).sleep(wait).await;
        drop(told);
        (world.after(stop, seed), client, generation.get())
    });
    assert_eq!(client.errors.get(), 0);
    let world = after;
    world.run(async {
        let (pool, events) = open(&world, &[0, 1, 2, 3]).await;
        let volume = pool.volume("v").unwrap();
        assert_eq!(volume.fault(), None);
        let found = volume.private_region().unwrap().load().await.unwrap();
        assert!(
            found == keys(generation) || found == keys(generation + 1) || generation == 0,
            "{} after {generation}",
            found.generation
        );
        let client = client.again(&volume);
        if stop == Stop::PowerCut {
            client.model.borrow_mut().power_failed();
        }
        space_adds_up(&pool).await.unwrap();
        client.check_all().await;
        keep(&pool);
        if pool
            .device("d1")
            .await
            .is_ok_and(|info| info.failed.is_some())
        {
            pool.device_online("d1", source(&world, 1)).await.unwrap();
        }
        client.load(&world, 3, Duration::from_millis(5));
        for _ in 0..4000 {
            if is_whole(&volume) {
                break;
            }
            world.device(0).sleep(Duration::from_millis(50)).await;
        }
        assert!(
            is_whole(&volume),
            "{story:?} {seed} {stop:?}: {:#?} {:#?} {:#?}",
            pool.jobs().await,
            pool.plexes("v").await,
            events.all()
        );
        client.stop();
        world.device(0).sleep(Duration::from_secs(1)).await;
        assert_eq!(client.errors.get(), 0, "{:#?}", events.all());
        until(&world, 60, "whole", || is_whole(&volume)).await;
        plexes_are_the_same(&world, &pool, &volume).await;
        client.check_all().await;
        for _ in 0..60 {
            // What the keeper still does with keys may hold some for a while.
            world.device(0).sleep(Duration::from_secs(1)).await;
            if space_adds_up(&pool).await.is_ok() {
                break;
            }
        }
        space_adds_up(&pool).await.unwrap();
        let again = volume.private_region().unwrap().load().await.unwrap();
        assert_eq!(again, found, "no key changes by itself");
    });
}

#[test]
fn a_crash_in_any_job_loses_nothing_and_the_job_goes_on_or_rolls_back() {
    for (number, story) in STORIES.into_iter().enumerate() {
        for seed in seeds() {
            let stop = if seed % 3 == 0 {
                Stop::Kill
            } else {
                Stop::PowerCut
            };
            one_crash(story, 1000 * (number as u64 + 1) + seed, stop);
        }
    }
}
