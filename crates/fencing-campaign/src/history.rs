//! One history: a while in which things go wrong, then a partition that stays and everything else in order, until all is
//! decided.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::oracle::violation;
use crate::plan::{Plan, Plant, VOLUMES};
use crate::random::Random;
use crate::world::{Event, World};

/// How long everything may take to be decided once things are in order, in milliseconds: pauses between attempts grow to a
/// minute while things go wrong.
const BOUND_MS: u64 = 180_000;
/// For how long it must stay decided.
const STEADY_MS: u64 = 5_000;

/// What a history, or many, were like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Histories.
    pub histories: u64,
    /// Events and actions.
    pub steps: u64,
    /// Epochs that were begun.
    pub epochs: u64,
    /// Races whose winner was told.
    pub races_won: u64,
    /// Writes that were admitted.
    pub writes: u64,
    /// The longest time until all was decided, in milliseconds.
    pub slowest_ms: u64,
    /// The sum of those times.
    pub settled_ms: u64,
}

impl Summary {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.epochs += other.epochs;
        self.races_won += other.races_won;
        self.writes += other.writes;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        self.settled_ms += other.settled_ms;
    }
}

/// A history that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What does not hold.
    pub problem: String,
}

/// Runs the history of a seed, with the real nodes in the members or with simple ones.
///
/// # Errors
/// The promise that was broken.
pub fn run(
    seed: u64,
    nodes: bool,
    plant: Option<Plant>,
    tracing: bool,
) -> Result<Summary, Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| history(seed, nodes, plant, tracing)));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failure {
            seed,
            problem: text.unwrap_or_else(|| "it panicked".into()),
        }
    })
}

fn history(seed: u64, nodes: bool, plant: Option<Plant>, tracing: bool) -> Summary {
    let mut random = Random::new(seed);
    let mut plan = Plan::new(&mut random, plant);
    plan.nodes = nodes;
    let mut world = World::new(plan, random, tracing);
    world.trace(|| format!("{:?}", world.plan));
    while world.now_ms < world.plan.chaos_ms {
        world.step();
        world.check_epochs();
    }
    let blocks = calm(&mut world);
    let calm_ms = world.now_ms;
    let mut since_ms = world.now_ms;
    let mut look_ms = 0;
    while world.now_ms < since_ms + STEADY_MS {
        world.step();
        world.check_epochs();
        if world.now_ms < look_ms {
            continue;
        }
        look_ms = world.now_ms + 250;
        if let Some(open) = world.unsettled(&blocks) {
            since_ms = world.now_ms;
            if world.now_ms > calm_ms + BOUND_MS {
                violation(&format!("after {BOUND_MS} ms in order: {open}"));
            }
        }
    }
    let heads = world.heads.iter();
    Summary {
        histories: 1,
        steps: world.steps,
        epochs: heads.clone().map(|head| head.durable.state.epoch).sum(),
        races_won: heads.map(|head| head.oracle.races_won).sum(),
        writes: world.ios,
        slowest_ms: since_ms - calm_ms,
        settled_ms: since_ms - calm_ms,
    }
}

/// Everything is in order again, but for a partition of the members that stays, and perhaps the quorum device.
fn calm(world: &mut World) -> Vec<u8> {
    world.chaos = false;
    let everybody = (1_u8 << world.plan.members) - 1;
    let side = world.random.below(1 << world.plan.members) as u8;
    let third = world.random.below(1 << world.plan.members) as u8;
    let blocks: Vec<u8> = match world.random.below(3) {
        0 => vec![everybody],
        1 => vec![side, everybody & !side],
        _ => vec![side & third, side & !third, everybody & !side],
    };
    world.trace(|| format!("calm: {blocks:?}"));
    world.partition(&blocks);
    // Where it is gone it stays so, unless it was about to come back.
    world.quorum_up = world.random.permille(800);
    for reach in &mut world.reach {
        reach.fill(true);
    }
    for member in 0..world.plan.members {
        world.members[member].paused_until_ms = 0;
        world.push(1, Event::Boot(member));
    }
    for head in 0..world.heads.len() {
        for volume in 0..VOLUMES {
            world.push(1, Event::Serve { head, volume });
        }
        world.push(1, Event::Start { head });
    }
    blocks
}
