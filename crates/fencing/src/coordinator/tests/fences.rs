//! Fences that are asked for, methods, and the way back.

use super::scene::{Scene, group, id};
use crate::claim::ClaimVerdict::Won;
use crate::coordinator::{
    Action, Change, CommitOutcome, Coordinator, Event, Input, Reply, RequestError,
};
use crate::domain::FenceCause;
use uuid::Uuid;

#[test]
fn a_fence_is_answered_when_it_is_proven() {
    let mut scene = Scene::new("AB", false);
    scene.fence(1, "B", None);
    let Some(Reply::Fenced(done)) = scene.reply(1) else {
        panic!("{:?}", scene.reply(1));
    };
    assert_eq!(
        (done.epoch, done.method.to_string().as_str()),
        (1, "reservation")
    );
    assert_eq!(scene.log, ["commit 1", "revoke B", "commit 1", "reply 1"]);
    assert_eq!(scene.durable.state.fenced["B"].cause, FenceCause::Request);
    scene.fence(2, "B", None);
    assert!(matches!(scene.reply(2), Some(Reply::Fenced(_))));
    assert_eq!(scene.durable.state.epoch, 1, "it was fenced already");
    scene.unfence(3, "B");
    assert_eq!(scene.durable.state.epoch, 2);
    assert!(scene.log.contains(&"restore B".to_owned()));
    scene.unfence(4, "B");
    assert!(matches!(
        scene.reply(4),
        Some(Reply::Unfenced { epoch: 2, .. })
    ));
}

#[test]
fn methods_are_tried_in_order_until_one_is_proven() {
    let mut scene = Scene::new("AB", false).methods("B", &["fabric", "stonith:x", "reservation"]);
    scene.failing = ["fabric".to_owned()].into();
    scene.silent = ["stonith:x".to_owned()].into();
    scene.log.clear();
    scene.fence(1, "B", None);
    scene.wait(300_000);
    let expected = [
        "commit 1",
        "revoke B",
        "fabric B 1",
        "fabric B 2",
        "stonith:x B 1",
        "stonith:x B 2",
        "commit 1",
        "reply 1",
    ];
    assert_eq!(scene.log, expected);
    assert_eq!(
        scene.durable.state.fenced["B"].proven,
        Some(crate::Method::Reservation)
    );
}

#[test]
fn when_all_methods_fail_they_begin_again_and_nobody_is_told() {
    let mut scene = Scene::new("ABC", false).methods("C", &["stonith:x"]);
    scene.failing = ["stonith:x".to_owned()].into();
    scene.claim(1, "A", "AB");
    scene.wait(600_000);
    assert_eq!(scene.verdict(1), None);
    let pauses: Vec<u64> = scene
        .events
        .iter()
        .filter_map(|event| match event {
            Event::FenceNotProven { again_in_ms, .. } => Some(*again_in_ms),
            _ => None,
        })
        .collect();
    assert_eq!(
        pauses[..7],
        [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000]
    );
    assert_eq!(pauses.last(), Some(&60_000));
    let status = scene.coordinator.fence_status("C").unwrap();
    assert!(status.access_gone && status.rounds_failed > 6);
    scene.unfence(2, "C");
    let refused = matches!(
        scene.reply(2),
        Some(Reply::Refused(RequestError::Unproven { .. }))
    );
    assert!(refused);
    // To settle for less ends it; the winner looks again and has won.
    scene.fence(3, "C", Some("reservation"));
    assert!(matches!(scene.reply(3), Some(Reply::Fenced(_))));
    scene.claim(4, "A", "AB");
    assert_eq!(scene.verdict(4), Some(Won));
    assert_eq!(scene.durable.state.fenced["C"].cause, FenceCause::Race);
}

#[test]
fn a_late_proof_is_a_proof() {
    let mut scene = Scene::new("AB", false).methods("B", &["stonith:x"]);
    scene.silent = ["stonith:x".to_owned()].into();
    scene.fence(1, "B", None);
    scene.wait(70_000);
    assert_eq!(scene.held.len(), 2);
    let Action::Execute { ticket, .. } = scene.held[0] else {
        panic!("{:?}", scene.held);
    };
    scene.give(Input::Executed {
        ticket,
        result: Ok("off".into()),
    });
    assert!(matches!(scene.reply(1), Some(Reply::Fenced(_))));
    // Of a fence that is over it proves nothing.
    scene.unfence(2, "B");
    scene.fence(3, "B", None);
    scene.give(Input::Executed {
        ticket,
        result: Ok("off".into()),
    });
    assert_eq!(scene.reply(3), None);
}

#[test]
fn a_restart_goes_on_with_what_is_not_proven() {
    let mut scene = Scene::new("AB", false).methods("B", &["stonith:x"]);
    scene.silent = ["stonith:x".to_owned()].into();
    scene.fence(1, "B", None);
    scene.silent.clear();
    scene.log.clear();
    scene.restart();
    assert_eq!(
        scene.log,
        ["restart", "revoke B", "stonith:x B 1", "commit 1"]
    );
    assert!(scene.coordinator.is_idle());
}

#[test]
fn a_request_whose_commit_fails_has_not_happened() {
    let mut scene = Scene::new("AB", false);
    scene.commits = vec![CommitOutcome::Failed("full".into())];
    scene.fence(1, "B", None);
    assert!(matches!(
        scene.reply(1),
        Some(Reply::Refused(RequestError::Commit(_)))
    ));
    assert!(scene.coordinator.is_idle());
    assert!(!scene.coordinator.domain().is_fenced("B"));
    // Where it may have happened it is brought to its end.
    scene.commits = vec![
        CommitOutcome::Unknown("power".into()),
        CommitOutcome::Failed("full".into()),
    ];
    scene.fence(2, "B", None);
    scene.wait(5_000);
    assert!(matches!(scene.reply(2), Some(Reply::Fenced(_))));
}

#[test]
fn access_is_not_taken_while_it_is_still_being_given() {
    let mut coordinator = Coordinator::resume(crate::testing::domain(&["A", "B"]), 0);
    let mut tickets = Vec::new();
    let mut step = |coordinator: &mut Coordinator, input: Input, hold: bool| {
        coordinator.handle(input, 0);
        let mut names = Vec::new();
        while let Some(action) = coordinator.poll() {
            match action {
                Action::Commit { ticket, .. } => {
                    let outcome = CommitOutcome::Done;
                    coordinator.handle(Input::Committed { ticket, outcome }, 0);
                }
                Action::Revoke { ticket, .. } => {
                    names.push("revoke");
                    let result = Ok(Default::default());
                    coordinator.handle(Input::Revoked { ticket, result }, 0);
                }
                Action::Restore { ticket, .. } => {
                    names.push("restore");
                    tickets.push(ticket);
                    if !hold {
                        coordinator.handle(
                            Input::Restored {
                                ticket,
                                result: Ok(()),
                            },
                            0,
                        );
                    }
                }
                _ => {}
            }
        }
        (names, tickets.last().copied())
    };
    let fence = |number| Input::Fence {
        id: id(number),
        member: "B".into(),
        methods: None,
    };
    assert_eq!(step(&mut coordinator, fence(1), false).0, ["revoke"]);
    let unfence = Input::Unfence {
        id: id(2),
        member: "B".into(),
    };
    let (names, ticket) = step(&mut coordinator, unfence, true);
    assert_eq!(names, ["restore"]);
    assert!(step(&mut coordinator, fence(3), false).0.is_empty());
    let restored = Input::Restored {
        ticket: ticket.unwrap(),
        result: Ok(()),
    };
    assert_eq!(step(&mut coordinator, restored, false).0, ["revoke"]);
    assert!(coordinator.is_idle());
}

#[test]
fn who_may_return() {
    let mut scene = Scene::new("AB", false);
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert!(!scene.coordinator.may_return("B", new), "it is not fenced");
    scene.give(Input::Incarnation {
        member: "B".into(),
        incarnation: old,
    });
    scene.stuck = group("B");
    scene.fence(1, "B", None);
    assert!(
        !scene.coordinator.may_return("B", new),
        "its fence is not proven"
    );
    scene.stuck.clear();
    scene.restart();
    assert!(
        !scene.coordinator.may_return("B", old),
        "it is the one that was fenced"
    );
    assert!(scene.coordinator.may_return("B", new));
}

#[test]
fn a_fence_is_not_given_up_in_passing() {
    let mut scene = Scene::new("AB", false);
    scene.fence(1, "B", None);
    let change = Change::RemoveMember { member: "B".into() };
    scene.give(Input::Change { id: id(2), change });
    let change = Change::Volumes([Uuid::from_u128(77)].into());
    scene.give(Input::Change { id: id(3), change });
    for number in [2, 3] {
        assert!(matches!(
            scene.reply(number),
            Some(Reply::Refused(RequestError::Domain(_)))
        ));
    }
    // A volume that joins gives up nothing.
    let mut volumes = scene.coordinator.domain().volumes.clone();
    volumes.insert(Uuid::from_u128(77));
    let change = Change::Volumes(volumes.clone());
    scene.give(Input::Change { id: id(5), change });
    assert_eq!(scene.reply(5), Some(&Reply::Changed));
    assert_eq!(scene.coordinator.domain().volumes, volumes);
    assert!(scene.coordinator.domain().is_fenced("B"));
    scene.fence(4, "X", None);
    assert!(matches!(
        scene.reply(4),
        Some(Reply::Refused(RequestError::Domain(_)))
    ));
}
