//! The checks can fail: a defect that is built in on purpose is found, and without one nothing is.

use fencing_campaign::{Plant, run};

/// What the first history says in which the defect is found.
fn found(plant: Plant) -> String {
    (1..400)
        .find_map(|seed| Some(run(seed, false, Some(plant), false).err()?.problem))
        .unwrap_or_default()
}

#[test]
fn an_answer_before_the_drain_is_found() {
    assert!(found(Plant::NoDrain).contains("can write"));
}

#[test]
fn a_volume_that_was_left_out_is_found() {
    assert!(found(Plant::OneVolumeLeft).contains("can write"));
}

#[test]
fn a_commit_that_was_never_durable_is_found() {
    assert!(found(Plant::LyingCommit).contains("VIOLATION"));
}

#[test]
fn a_quorum_device_that_forgets_is_found() {
    assert!(found(Plant::ForgetfulQuorum).contains("quorum device"));
}

#[test]
fn a_start_that_forgets_the_fences_is_found() {
    assert!(found(Plant::OpenAtStart).contains("VIOLATION"));
}

#[test]
fn without_a_defect_nothing_is_found() {
    for seed in 1..150 {
        if let Err(failure) = run(seed, false, None, false) {
            panic!("seed {seed}: {}", failure.problem);
        }
    }
}

#[test]
fn a_seed_gives_the_same_history_again() {
    let twice = [1, 2].map(|_| format!("{:?}", run(5, false, None, false).unwrap()));
    assert_eq!(twice[0], twice[1]);
}
