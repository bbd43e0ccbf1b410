//! Races: claims, window, quorum device, crashes.

use super::scene::{Scene, group, id, quorum};
use crate::claim::ClaimRefusal;
use crate::claim::ClaimVerdict::{Lost, Stale, Won};
use crate::coordinator::{Change, CommitOutcome, Event, Input, Reply};
use crate::quorum::{QuorumAsk, QuorumRegister};
use uuid::Uuid;

#[test]
fn the_majority_wins_and_the_rest_is_fenced_before_it_hears() {
    let mut scene = Scene::new("ABC", false);
    scene.claim(1, "A", "AB");
    assert_eq!(scene.verdict(1), None);
    scene.wait(1_999);
    assert_eq!(scene.verdict(1), None, "C may still claim");
    scene.wait(1);
    let answer = scene.answer(1).unwrap();
    assert_eq!((answer.verdict, answer.epoch), (Won, 1));
    assert_eq!(
        (&answer.winners, &answer.fenced),
        (&group("AB"), &group("C"))
    );
    assert_eq!(scene.log, ["commit 1", "revoke C", "commit 1", "reply 1"]);
    let heirs = &scene.durable.state.fenced["C"].heirs;
    assert_eq!(heirs, &["iqn.x:a", "iqn.x:b"]);
    assert!(scene.coordinator.is_idle());
}

#[test]
fn the_window_ends_early_when_everybody_is_in_some_group() {
    let mut scene = Scene::new("ABC", false);
    scene.claim(1, "C", "C");
    scene.claim(2, "A", "AB");
    assert_eq!(scene.verdict(1), Some(Lost));
    assert_eq!(scene.verdict(2), Some(Won));
    assert_eq!(scene.now_ms, 0);
}

#[test]
fn the_loser_hears_at_once_and_the_winner_when_the_fence_is_proven() {
    let mut scene = Scene::new("AB", true);
    scene.stuck = group("B");
    scene.claim(1, "A", "A");
    scene.claim(2, "B", "B");
    assert_eq!(scene.verdict(2), Some(Lost));
    assert_eq!(scene.verdict(1), None);
    scene.wait(60_000);
    assert_eq!(scene.verdict(1), None);
    scene.stuck.clear();
    scene.restart();
    assert_eq!(scene.verdict(1), None, "the restart has lost whom to tell");
    scene.claim_in(1, "A", "A", 0);
    assert_eq!(scene.verdict(1), Some(Won));
    assert_eq!(scene.durable.state.epoch, 1);
}

#[test]
fn nobody_wins_without_a_majority_and_nobody_is_fenced() {
    let mut scene = Scene::new("AB", false);
    scene.claim(1, "A", "A");
    scene.claim(2, "B", "B");
    for number in [1, 2] {
        let answer = scene.answer(number).unwrap();
        assert_eq!((answer.verdict, answer.epoch), (Lost, 1));
        assert!(answer.winners.is_empty() && answer.fenced.is_empty());
    }
    assert!(scene.durable.state.fenced.is_empty());
}

#[test]
fn a_claim_that_excludes_nobody_has_won_without_a_race() {
    let mut scene = Scene::new("ABC", true);
    scene.survey.registered = group("AB");
    scene.claim(1, "A", "AB");
    let answer = scene.answer(1).unwrap();
    assert_eq!((answer.verdict, answer.epoch), (Won, 0));
    assert_eq!(scene.log, ["reply 1"]);
}

#[test]
fn claims_that_are_none() {
    let mut scene = Scene::new("ABC", false);
    scene.survey.registered = group("BC");
    scene.claim(1, "X", "X");
    scene.claim(2, "A", "AX");
    scene.claim_in(3, "A", "A", 5);
    scene.claim(4, "A", "A");
    scene.fence(5, "C", None);
    scene.claim(6, "B", "BC");
    let refused = |number| match scene.reply(number) {
        Some(Reply::ClaimRefused(refusal)) => refusal.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(1), ClaimRefusal::NoSuchMember { member, .. } if member == "X"));
    assert!(matches!(refused(2), ClaimRefusal::NoSuchMember { member, .. } if member == "X"));
    assert!(matches!(
        refused(3),
        ClaimRefusal::EpochAhead {
            claimed: 5,
            current: 0
        }
    ));
    assert_eq!(refused(4), ClaimRefusal::NotRegistered("A".into()));
    assert_eq!(refused(6), ClaimRefusal::NamesFenced("C".into()));
}

#[test]
fn late_claims_are_answered_from_what_is() {
    let mut scene = Scene::new("ABC", false);
    scene.claim(1, "A", "AB");
    scene.wait(2_000);
    scene.claim_in(2, "C", "C", 0);
    scene.claim_in(3, "B", "B", 0);
    assert_eq!(scene.verdict(2), Some(Lost));
    assert_eq!(scene.verdict(3), Some(Stale));
    scene.claim_in(4, "B", "AB", scene.answer(3).unwrap().epoch);
    assert_eq!(scene.verdict(4), Some(Won));
    scene.claim_in(1, "A", "AB", 0);
    assert_eq!(
        scene.verdict(1),
        Some(Won),
        "the same claim, the same answer"
    );
    assert_eq!(scene.replies[&id(1)].len(), 2);
    assert_eq!(scene.replies[&id(1)][0], scene.replies[&id(1)][1]);
}

#[test]
fn a_later_claim_takes_the_place_of_the_first_and_both_are_answered() {
    let mut scene = Scene::new("ABC", false);
    scene.claim(1, "A", "AC");
    scene.claim(2, "A", "AB");
    scene.claim(2, "A", "AB");
    scene.wait(2_000);
    assert_eq!(
        scene.durable.state.verdict.as_ref().unwrap().winners,
        group("AB")
    );
    assert_eq!((scene.verdict(1), scene.verdict(2)), (Some(Won), Some(Won)));
    assert_eq!(scene.replies[&id(2)].len(), 1);
}

#[test]
fn whoever_names_the_id_of_another_takes_nothing_from_it() {
    let mut scene = Scene::new("ABC", false);
    scene.claim(1, "C", "C");
    scene.claim(1, "A", "AB");
    let verdict = scene.durable.state.verdict.as_ref().unwrap();
    assert_eq!(verdict.winners, group("AB"));
    assert_eq!(verdict.claims.len(), 2);
    assert_eq!(scene.replies[&id(1)].len(), 2);
}

#[test]
fn a_single_survivor_wins_with_the_quorum_device_and_not_without() {
    let mut scene = Scene::new("ABC", true);
    scene.register = None;
    scene.claim(1, "C", "C");
    scene.wait(2_000);
    assert_eq!(scene.verdict(1), Some(Lost));
    assert!(scene.durable.state.fenced.is_empty());
    let lost = |scene: &Scene| {
        let events = scene.events.iter();
        let lost = |event: &&Event| matches!(event, Event::QuorumDeviceLost { .. });
        events.filter(lost).count()
    };
    assert_eq!(lost(&scene), 1);
    scene.wait(60_000);
    assert_eq!(lost(&scene), 1, "told once");
    scene.register = Some(Default::default());
    scene.wait(10_000);
    assert!(scene.events.contains(&Event::QuorumDeviceBack));
    scene.claim(2, "C", "C");
    scene.wait(2_000);
    assert_eq!(scene.verdict(2), Some(Won));
    assert_eq!(scene.durable.state.epoch, 2);
    let register = scene.register.clone().unwrap();
    assert_eq!((register.epoch, register.group), (2, group("C")));
    assert_eq!(register.verdict, scene.durable.state.verdict);
}

#[test]
fn a_grant_that_a_crash_left_behind_costs_an_epoch_and_nothing_else() {
    let mut scene = Scene::new("AB", true);
    let ask = |by, epoch, members| QuorumAsk {
        by,
        epoch,
        group: group(members),
    };
    let (_, left) = scene
        .register
        .clone()
        .unwrap()
        .grant(&ask(scene.durable.uuid, 1, "A"));
    scene.register = Some(left.clone());
    scene.claim(1, "B", "B");
    scene.wait(2_000);
    assert_eq!(scene.verdict(1), Some(Won));
    assert_eq!(scene.durable.state.epoch, 2);
    // The grant of another head stands until that lets go of it.
    let mut scene = Scene::new("AB", true);
    let (_, there) = QuorumRegister::default().grant(&ask(Uuid::from_u128(99), 1, "A"));
    scene.register = Some(there.clone());
    scene.claim(1, "B", "B");
    scene.wait(2_000);
    assert_eq!(scene.verdict(1), Some(Lost));
    assert_eq!(scene.durable.state.epoch, 2);
    scene.claim(2, "A", "A");
    scene.wait(2_000);
    assert_eq!(scene.verdict(2), Some(Won));
}

#[test]
fn the_device_lets_go_when_nobody_is_fenced_any_more() {
    let mut scene = Scene::new("AB", true);
    scene.claim(1, "A", "A");
    scene.wait(2_000);
    assert_eq!(scene.register.as_ref().unwrap().standing.len(), 1);
    scene.unfence(2, "B");
    assert!(matches!(
        scene.reply(2),
        Some(Reply::Unfenced { epoch: 2, .. })
    ));
    scene.wait(0);
    assert!(scene.register.as_ref().unwrap().standing.is_empty());
}

#[test]
fn a_commit_that_fails_is_made_again() {
    let mut scene = Scene::new("AB", true);
    scene.commits = vec![
        CommitOutcome::Unknown("a".into()),
        CommitOutcome::Failed("b".into()),
    ];
    scene.claim(1, "A", "A");
    scene.wait(2_000);
    assert_eq!(scene.verdict(1), None);
    scene.claim_in(2, "B", "B", 0);
    scene.fence(3, "B", None);
    scene.wait(2_000);
    assert_eq!(scene.verdict(1), Some(Won));
    assert_eq!(scene.verdict(2), Some(Lost));
    assert!(matches!(scene.reply(3), Some(Reply::Fenced(_))));
}

#[test]
fn a_crash_between_grant_and_commit_and_the_same_claim_again() {
    let mut scene = Scene::new("AB", true);
    scene.commits = vec![CommitOutcome::Unknown("power".into())];
    scene.claim(1, "A", "A");
    scene.wait(2_000);
    assert_eq!(scene.register.as_ref().unwrap().epoch, 1);
    scene.restart();
    scene.claim_in(1, "A", "A", 0);
    scene.wait(2_000);
    assert_eq!(scene.verdict(1), Some(Won));
    assert!(scene.durable.is_fenced("B"));
}

#[test]
fn a_fence_in_the_window_takes_the_member_out_of_the_race() {
    let mut scene = Scene::new("ABCD", false);
    scene.claim(1, "A", "AB");
    scene.claim(2, "B", "BC");
    scene.fence(3, "C", None);
    assert!(matches!(
        scene.reply(2),
        Some(Reply::ClaimRefused(ClaimRefusal::NamesFenced(_)))
    ));
    scene.wait(2_000);
    let answer = scene.answer(1).unwrap();
    assert_eq!((answer.verdict, answer.epoch), (Won, 2));
    assert_eq!(answer.fenced, group("D"));
}

#[test]
fn a_winner_that_still_waits_when_the_epoch_ends_looks_again() {
    let mut scene = Scene::new("ABC", false);
    scene.stuck = group("C");
    scene.claim(1, "A", "AB");
    scene.wait(2_000);
    scene.fence(2, "B", None);
    assert_eq!(scene.verdict(1), Some(Stale));
    scene.claim(3, "A", "A");
    assert_eq!(scene.verdict(3), None, "C is not proven");
    scene.stuck.clear();
    scene.restart();
    scene.claim(3, "A", "A");
    assert_eq!(scene.verdict(3), Some(Won));
}

#[test]
fn members_come_and_go_during_a_race() {
    let mut scene = Scene::new("ABC", false);
    scene.claim(1, "A", "AC");
    let change = Change::RemoveMember { member: "C".into() };
    scene.give(Input::Change { id: id(2), change });
    assert_eq!(scene.reply(2), Some(&Reply::Changed));
    assert!(matches!(scene.reply(1), Some(Reply::ClaimRefused(_))));
    let change = Change::Quorum(Some(quorum(Some(1))));
    scene.give(Input::Change { id: id(3), change });
    scene.claim(4, "B", "B");
    scene.wait(2_000);
    assert_eq!(scene.verdict(4), Some(Won));
}
