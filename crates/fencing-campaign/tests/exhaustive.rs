//! Small clusters exhaustively. `--ignored` for the large ones, which take minutes.

use fencing_campaign::model::{Budget, Cluster};
use stateright::{Checker, Model};

const NOTHING: Budget = Budget {
    claims: 1,
    repeats: 0,
    crashes: 0,
    failures: 0,
    wakes: 3,
    requests: 0,
};

/// Checks every state, and that there were many.
fn check(name: &str, cluster: Cluster, returns: bool, least: usize) {
    let checker = cluster.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states, {} steps deep",
        checker.unique_state_count(),
        checker.max_depth()
    );
    for property in [
        "every promise holds",
        "whoever claims is answered",
        "it never waits for nothing",
        "what is told fenced cannot write",
    ] {
        if let Some(path) = checker.discovery(property) {
            panic!("{name}: {property}: {:?}", path.into_actions());
        }
    }
    checker.assert_any_discovery("a race is won");
    if returns {
        checker.assert_any_discovery("somebody returns");
    }
    assert!(
        checker.unique_state_count() >= least,
        "too little was checked"
    );
}

#[test]
fn two_members_and_a_quorum_device_with_a_crash() {
    let budget = Budget {
        crashes: 1,
        repeats: 1,
        ..NOTHING
    };
    let cluster = Cluster::new(2, true, &[0b01, 0b10], budget);
    check("two, crash", cluster, false, 1_000);
}

#[test]
fn two_members_and_a_quorum_device_with_a_failure() {
    let budget = Budget {
        failures: 1,
        ..NOTHING
    };
    let cluster = Cluster::new(2, true, &[0b01, 0b10, 0b11], budget);
    check("two, failure", cluster, false, 1_000);
}

#[test]
fn two_members_and_requests() {
    let budget = Budget {
        requests: 1,
        ..NOTHING
    };
    let cluster = Cluster::new(2, true, &[0b01, 0b10], budget);
    check("two, requests", cluster, true, 1_000);
}

#[test]
fn three_members_split_in_every_way() {
    let cluster = Cluster::new(3, false, &[0b011, 0b100, 0b110, 0b001], NOTHING);
    check("three", cluster, false, 1_000);
}

#[test]
#[ignore = "minutes"]
fn two_members_and_everything() {
    let budget = Budget {
        claims: 2,
        repeats: 1,
        crashes: 1,
        failures: 1,
        wakes: 3,
        requests: 1,
    };
    let cluster = Cluster::new(2, true, &[0b01, 0b10], budget);
    check("two, everything", cluster, false, 100_000);
}

#[test]
#[ignore = "minutes"]
fn three_members_and_a_quorum_device_with_a_crash_and_a_failure() {
    let budget = Budget {
        crashes: 1,
        failures: 1,
        wakes: 3,
        ..NOTHING
    };
    let cluster = Cluster::new(3, true, &[0b011, 0b100], budget);
    check("three, crash, failure", cluster, false, 100_000);
}
