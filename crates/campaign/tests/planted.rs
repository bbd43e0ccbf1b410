//! The checks can fail: a defect that is built in on purpose is found, and without one nothing is.

use campaign::{Plant, run};

/// The first of a few histories in which the defect is found.
fn found(plant: Plant) -> Option<String> {
    (1..60).find_map(|seed| Some(run(seed, Some(plant)).err()?.problem))
}

#[test]
fn a_flush_that_lies_is_found() {
    assert!(found(Plant::LyingFlush).is_some());
}

#[test]
fn a_lost_write_is_found() {
    let problem = found(Plant::LostWrite).unwrap();
    assert!(problem.contains("VIOLATION"), "{problem}");
}

#[test]
fn a_misdirected_write_is_found() {
    assert!(found(Plant::MisdirectedWrite).is_some());
}

#[test]
fn forgotten_keys_are_found() {
    let problem = found(Plant::ForgottenKeys).unwrap();
    assert!(problem.contains("keys"), "{problem}");
}

#[test]
fn durability_that_nobody_promised_is_missed() {
    let problem = found(Plant::EagerModel).unwrap();
    assert!(problem.contains("reads as"), "{problem}");
}

#[test]
fn without_a_defect_nothing_is_found() {
    let mut crash_points = 0;
    for seed in 1..4 {
        let summary = run(seed, None).unwrap_or_else(|failure| panic!("{failure:?}"));
        crash_points += summary.crash_points;
    }
    assert!(crash_points > 100);
}

#[test]
fn a_seed_gives_the_same_history_again() {
    let twice = [1, 2].map(|_| {
        run(5, None)
            .unwrap_or_else(|failure| panic!("{failure:?}"))
            .to_string()
    });
    assert_eq!(twice[0], twice[1]);
}
