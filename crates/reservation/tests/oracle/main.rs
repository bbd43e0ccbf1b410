//! The state machine against an independent, naive one, on random sequences of commands from several nexuses over
//! several target ports: same answers, same states, same effects, after every step.
//!
//! `RINGFENCE_LONG=1 cargo test --release -p reservation --test oracle` runs the long campaign, ten million steps;
//! `RINGFENCE_STEPS` and `RINGFENCE_SEED` choose others.

mod naive;
mod random;
mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use random::Random;
use world::World;

/// Runs `steps` random operations, in lives of a few hundred steps each, and counts the answers.
fn campaign(seed: u64, steps: u64) -> BTreeMap<String, u64> {
    let mut random = Random::new(seed);
    let mut answers = BTreeMap::new();
    let mut world = World::new(1024, 0);
    let mut life = Vec::new();
    for step in 0..steps {
        if random.one_in(300) {
            let generation = if random.one_in(2) { 0 } else { u32::MAX - 20 };
            world = World::new([2, 4, 1024][random.below(3) as usize], generation);
            life.clear();
        }
        let op = world.random_op(&mut random);
        life.push(format!("{op:?}"));
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.apply(&op)));
        match answer {
            Ok(answer) => *answers.entry(answer).or_insert(0) += 1,
            Err(panic) => {
                eprintln!("seed {seed}, step {step}, this life:\n{}", life.join("\n"));
                std::panic::resume_unwind(panic);
            }
        }
    }
    answers
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number"))
    })
}

/// Every answer that the machine can give has been given: the sequences reach all of it.
#[test]
fn random_campaign() {
    let long = std::env::var_os("RINGFENCE_LONG").is_some();
    let steps = variable("RINGFENCE_STEPS").unwrap_or(if long { 10_000_000 } else { 100_000 });
    let seed = variable("RINGFENCE_SEED").unwrap_or(0x5eed);
    let answers = campaign(seed, steps);
    println!("{steps} steps from seed {seed}: {answers:#?}");
    let reached: Vec<_> = answers.keys().map(String::as_str).collect();
    if steps >= 100_000 {
        assert_eq!(
            reached,
            [
                "5/24/00 cdb 1.4",
                "5/24/00 cdb 2.3",
                "5/24/00 cdb 2.7",
                "5/26/00 list 0",
                "5/26/00 list 18",
                "5/26/00 list 20.2",
                "5/26/00 list 20.3",
                "5/26/00 list 24",
                "5/26/00 list 28",
                "5/26/00 list 8",
                "5/26/04",
                "5/55/04",
                "7/44/01",
                "CONFLICT",
                "GOOD",
                "GOOD, confirmed",
                "fence",
                "fence, confirmed",
                "loss accepted",
                "lost until registered",
                "lost until replaced",
                "nexus loss",
                "own",
                "power on",
                "reset",
                "unfence",
            ]
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// The same comparison on short sequences that shrink: each number is the seed of one operation.
    #[test]
    fn shrinkable_sequences(room in prop_oneof![Just(2), Just(4), Just(1024)], seeds in prop::collection::vec(any::<u64>(), 1..80)) {
        let mut world = World::new(room, u32::MAX - 20);
        for seed in seeds {
            let op = world.random_op(&mut Random::new(seed));
            world.apply(&op);
        }
    }
}
