//! When a member that has no key registers.

use super::lab::{JOIN_MS, Lab, STORAGE_MS, TIMEOUT_MS};
use super::settled;
use crate::mailbox::Status;
use crate::node::Hook;
use crate::slots::SlotSet;

/// Members of whom the last one was cut off, fenced, and booted while it is still cut off.
fn booted_into_a_partition(nodes: usize) -> Lab {
    let mut lab = settled(nodes);
    let last = nodes - 1;
    lab.isolate(last, true);
    lab.run(5_000);
    assert_eq!(lab.node(last).status(), Status::Fenced);
    lab.kill(last);
    lab.boot(last);
    lab.run(1_000);
    assert_eq!(lab.head.members[&(last as u16)].fenced, None, "let in");
    lab
}

fn is_registered(lab: &Lab, node: u16) -> bool {
    lab.head.members[&node].registered
}

#[test]
fn who_comes_back_into_the_partition_waits_until_it_is_over() {
    for nodes in 2..5 {
        let mut lab = booted_into_a_partition(nodes);
        let last = nodes - 1;
        let (claims, epoch) = (lab.claims, lab.head.epoch);
        lab.run(30 * JOIN_MS);
        assert_eq!((lab.claims, lab.head.epoch), (claims, epoch));
        assert!(!is_registered(&lab, last as u16));
        assert_eq!(lab.node(last).status(), Status::Starting);
        assert_eq!(lab.node(last).waits_for().bits(), (1 << last) - 1);
        for node in 0..last {
            assert_eq!(lab.node(node).status(), Status::Member);
        }
        lab.isolate(last, false);
        lab.run(3_000);
        assert_eq!(lab.statuses(), vec![Status::Member; nodes]);
        assert_eq!(lab.node(last).waits_for(), SlotSet::EMPTY);
        assert_eq!(lab.claims, claims);
    }
}

#[test]
fn a_link_with_some_of_them_is_not_enough_and_takes_nobodys_place() {
    let mut lab = settled(3);
    lab.stop(0);
    lab.cut(2, 0, true);
    lab.run(2_000);
    lab.start(0);
    lab.run(10 * JOIN_MS);
    assert_eq!(lab.claims, 0);
    // Member 1 has links with both; the group with 0 in it has the lower slots.
    assert_eq!(lab.node(0).waits_for(), SlotSet::one(2));
    assert_eq!(lab.node(1).group().bits(), 0b110);
    assert_eq!(lab.node(1).status(), Status::Member);
    assert_eq!(lab.node(2).status(), Status::Member);
    // It had no key: nothing is lost with it.
    lab.kill(0);
    lab.run(10 * JOIN_MS);
    assert_eq!(lab.claims, 0);
    assert_eq!(lab.head.members[&0].fenced, None);
}

#[test]
fn a_key_whose_member_is_gone_is_waited_for_no_longer_than_the_join_timeout() {
    let mut lab = booted_into_a_partition(2);
    lab.kill(0);
    lab.run(JOIN_MS - 500);
    assert!(!is_registered(&lab, 1));
    // It registers, and has the other one fenced by a race.
    lab.run(500 + TIMEOUT_MS + 3_000);
    assert_eq!(lab.node(1).status(), Status::Member);
    assert!(lab.head.members[&0].fenced.is_some());
}

#[test]
fn nobody_stands_still_while_the_mailbox_is_not_read() {
    let mut lab = booted_into_a_partition(2);
    for node in [0, 1] {
        lab.storage(node, false);
    }
    lab.run(2 * JOIN_MS + STORAGE_MS);
    lab.storage(1, true);
    lab.run(JOIN_MS - 500);
    assert!(!is_registered(&lab, 1));
    assert_eq!(lab.node(1).waits_for(), SlotSet::one(0));
    lab.storage(0, true);
    lab.run(20 * JOIN_MS);
    assert_eq!(lab.statuses(), [Status::Member, Status::Starting]);
    assert_eq!(lab.head.members[&0].fenced, None);

    let mut lab = booted_into_a_partition(2);
    lab.pause(0, JOIN_MS + 1_000);
    lab.pause(1, JOIN_MS + 500);
    lab.run(JOIN_MS + 900);
    assert!(!is_registered(&lab, 1));
    lab.run(20 * JOIN_MS);
    assert_eq!(lab.statuses(), [Status::Member, Status::Starting]);
}

#[test]
fn a_lone_survivor_of_a_crash_of_all_waits_for_no_keys_that_were_left() {
    for own_key in [true, false] {
        let mut lab = Lab::new(3, 9);
        for member in lab.head.members.values_mut() {
            member.registered = true;
        }
        lab.head.members.get_mut(&2).unwrap().registered = own_key;
        lab.kill(0);
        lab.kill(1);
        lab.run(500);
        assert_eq!(is_registered(&lab, 2), own_key);
        lab.run(2 * JOIN_MS + 3_000);
        assert_eq!(lab.node(2).status(), Status::Member, "{own_key}");
        assert_eq!(lab.head.unfenced(), SlotSet::one(2));
    }
}

#[test]
fn a_cold_start_with_no_keys_at_all_or_all_of_them_needs_nobody_to_wait() {
    for keys in [true, false] {
        for seed in 0..20 {
            let mut lab = Lab::new(4, seed);
            for member in lab.head.members.values_mut() {
                member.registered = keys;
            }
            lab.run(3_000);
            assert_eq!(lab.statuses(), [Status::Member; 4]);
            assert_eq!(lab.claims, 0);
        }
    }
}

#[test]
fn a_fence_that_was_over_before_it_was_seen_is_told_and_a_new_key_registered() {
    let mut lab = settled(3);
    lab.head.epoch += 2;
    lab.head.members.get_mut(&1).unwrap().registered = false;
    lab.run(3_000);
    let hooks = lab.machines[1].hooks.iter();
    let hooks: Vec<Hook> = hooks.map(|(_, hook)| *hook).collect();
    assert_eq!(hooks, [Hook::Fenced { epoch: 2 }]);
    assert!(is_registered(&lab, 1));
    assert_eq!(lab.statuses(), [Status::Member; 3]);
    // A key that was taken away otherwise is not registered again: somebody else has fenced the member by it.
    lab.head.epoch += 1;
    lab.head.members.get_mut(&1).unwrap().registered = false;
    lab.run(3_000);
    assert!(!is_registered(&lab, 1));
    assert_eq!(lab.machines[1].hooks.len(), 1);
}
