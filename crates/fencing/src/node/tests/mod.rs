mod lab;
mod random;
mod returning;

use lab::{INTERVAL_MS, JOIN_MS, Lab, PROVE_MS, STORAGE_MS, TIMEOUT_MS, WINDOW_MS};

use crate::mailbox::Status;
use crate::node::{Hook, LostCause};
use crate::slots::SlotSet;

/// Nodes that have found each other.
fn settled(nodes: usize) -> Lab {
    let mut lab = Lab::new(nodes, 42);
    lab.run(1_500);
    assert_eq!(lab.statuses(), vec![Status::Member; nodes]);
    let view = lab.node(0).view().unwrap();
    assert_eq!(view.members.bits(), (1 << nodes) - 1);
    assert!((0..nodes).all(|node| lab.node(node).view() == Some(view)));
    lab
}

fn last_hook(lab: &Lab, node: usize) -> Option<Hook> {
    lab.machines[node].hooks.last().map(|(_, hook)| *hook)
}

#[test]
fn nodes_find_each_other_and_stay() {
    let mut lab = settled(5);
    lab.run(60_000);
    assert_eq!(lab.claims, 0);
    assert!(lab.machines.iter().all(|machine| machine.hooks.is_empty()));
    // One view of all five at the end of the beginning, and no other since.
    let number = lab.node(4).view().unwrap().number;
    assert_eq!(
        lab.views.keys().map(|(number, _)| *number).max(),
        Some(number)
    );
}

#[test]
fn a_member_that_is_cut_off_is_fenced_within_the_bound_and_comes_back_by_a_boot() {
    let mut lab = settled(3);
    let start = lab.now;
    lab.isolate(2, true);
    // Without an echo for the timeout, seen within an interval; then the slot, the window and the reading.
    lab.run(TIMEOUT_MS + 3 * INTERVAL_MS + WINDOW_MS + PROVE_MS + 4 * INTERVAL_MS);
    assert_eq!(
        lab.statuses(),
        [Status::Member, Status::Member, Status::Fenced]
    );
    for node in [0, 1] {
        let hook = Hook::Won {
            epoch: 1,
            fenced: SlotSet::one(2),
        };
        assert_eq!(
            lab.machines[node]
                .hooks
                .iter()
                .map(|(_, hook)| *hook)
                .collect::<Vec<_>>(),
            [hook]
        );
        assert_eq!(lab.node(node).view().unwrap().members.bits(), 0b011);
    }
    let lost = Hook::Lost {
        cause: LostCause::Race,
        epoch: 1,
    };
    assert_eq!(last_hook(&lab, 2), Some(lost));
    assert!(lab.now > start);
    lab.isolate(2, false);
    // The node alone, started anew, stays fenced; a boot is let in.
    lab.kill(2);
    lab.start(2);
    lab.run(5_000);
    assert_eq!(lab.node(2).status(), Status::Fenced);
    lab.kill(2);
    lab.boot(2);
    lab.run(5_000);
    assert_eq!(lab.statuses(), [Status::Member; 3]);
    let view = lab.node(0).view();
    assert!((1..3).all(|node| lab.node(node).view() == view));
    assert_eq!(view.unwrap().members.bits(), 0b111);
}

#[test]
fn one_direction_that_fails_is_a_lost_link_on_both_ends() {
    let mut lab = settled(3);
    lab.cut(0, 2, true);
    lab.run(TIMEOUT_MS + 2 * INTERVAL_MS);
    assert!(!lab.node(0).links().contains(2));
    assert!(!lab.node(2).links().contains(0));
    lab.run(5_000);
    // Member 1 sees both; the group with the lower slots has it.
    assert_eq!(
        lab.statuses(),
        [Status::Member, Status::Member, Status::Fenced]
    );
}

#[test]
fn who_was_paused_looks_at_the_mailbox_first() {
    let mut lab = settled(3);
    lab.pause(1, 10_000);
    lab.run(9_900);
    assert_eq!(lab.head.members[&1].fenced, Some(1));
    assert!(lab.machines[1].hooks.is_empty());
    assert!(lab.node(1).has_access(), "it cannot know");
    let epoch = lab.head.epoch;
    lab.run(200);
    // It has claimed nothing, and knows.
    assert_eq!(lab.node(1).status(), Status::Fenced);
    assert_eq!(last_hook(&lab, 1), Some(Hook::Fenced { epoch: 1 }));
    assert_eq!(lab.head.epoch, epoch);
    // A short one harms nobody.
    let mut lab = settled(3);
    lab.pause(1, TIMEOUT_MS / 2);
    lab.run(10_000);
    assert_eq!(lab.claims, 0);
}

#[test]
fn who_stops_in_order_is_not_raced_for() {
    let mut lab = settled(3);
    lab.stop(2);
    lab.run(20_000);
    assert_eq!(lab.claims, 0);
    assert_eq!(lab.node(0).view().unwrap().members.bits(), 0b011);
    lab.start(2);
    lab.run(3_000);
    assert_eq!(lab.statuses(), [Status::Member; 3]);
}

#[test]
fn a_node_that_is_quickly_started_anew_is_not_raced_for() {
    let mut lab = settled(2);
    lab.kill(1);
    lab.run(TIMEOUT_MS / 4);
    lab.start(1);
    lab.run(10_000);
    assert_eq!(lab.claims, 0);
    assert_eq!(lab.statuses(), [Status::Member; 2]);
}

#[test]
fn members_that_never_saw_each_other_do_not_both_go_on() {
    let mut lab = Lab::new(2, 7);
    lab.isolate(0, true);
    lab.run(JOIN_MS);
    let active = lab
        .statuses()
        .iter()
        .filter(|status| **status == Status::Member)
        .count();
    assert!(active <= 1, "{:?}", lab.statuses());
    lab.run(10_000);
    // The other one has registered at the same moment and lost the race, or waits.
    let going_on = |status: &&Status| **status == Status::Member;
    let statuses = lab.statuses();
    assert_eq!(statuses.iter().filter(going_on).count(), 1, "{statuses:?}");
}

#[test]
fn without_storage_a_member_has_lost_and_its_peers_go_on() {
    let mut lab = settled(3);
    lab.storage(0, false);
    lab.run(STORAGE_MS + 10 * INTERVAL_MS);
    assert_eq!(lab.node(0).status(), Status::Lost);
    let hook = Hook::Lost {
        cause: LostCause::Storage,
        epoch: 0,
    };
    assert_eq!(last_hook(&lab, 0), Some(hook));
    lab.run(5_000);
    assert_eq!(lab.head.members[&0].fenced, Some(1));
    assert_eq!(lab.node(1).status(), Status::Member);
    lab.storage(0, true);
    lab.run(2_000);
    assert_eq!(lab.node(0).status(), Status::Fenced);
    assert_eq!(last_hook(&lab, 0), Some(Hook::Fenced { epoch: 1 }));
}

#[test]
fn a_race_that_nobody_wins_is_lost_by_all_and_over_when_the_network_is_back() {
    let mut lab = settled(4);
    lab.quorum = false;
    for a in [0, 1] {
        for b in [2, 3] {
            lab.cut(a, b, true);
            lab.cut(b, a, true);
        }
    }
    lab.run(3_000);
    assert_eq!(lab.statuses(), [Status::Lost; 4]);
    assert!(lab.head.unfenced().len() == 4);
    for a in [0, 1] {
        for b in [2, 3] {
            lab.cut(a, b, false);
            lab.cut(b, a, false);
        }
    }
    lab.run(70_000);
    assert_eq!(lab.statuses(), [Status::Member; 4]);
    for machine in &lab.machines {
        let lost = machine
            .hooks
            .iter()
            .filter(|(_, hook)| matches!(hook, Hook::Lost { .. }));
        assert_eq!(lost.count(), 1);
        let (_, last) = machine.hooks.last().unwrap();
        assert!(
            matches!(last, Hook::Won { fenced, .. } if fenced.is_empty()),
            "{last:?}"
        );
    }
}
