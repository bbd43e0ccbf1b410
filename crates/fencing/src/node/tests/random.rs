//! Random faults, against what is true of the network.

use proptest::prelude::*;

use super::lab::{JOIN_MS, Lab, TIMEOUT_MS};
use crate::mailbox::Status;
use crate::slots::SlotSet;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Cut(usize, usize),
    Heal(usize, usize),
    Isolate(usize),
    HealAll,
    Pause(usize, u64),
    Kill(usize),
    Start(usize),
    Boot(usize),
    Stop(usize),
    Storage(usize, bool),
}

fn fault() -> impl Strategy<Value = (u64, Fault)> {
    let node = 0usize..5;
    let fault = prop_oneof![
        4 => (node.clone(), node.clone()).prop_map(|(a, b)| Fault::Cut(a, b)),
        2 => (node.clone(), node.clone()).prop_map(|(a, b)| Fault::Heal(a, b)),
        1 => node.clone().prop_map(Fault::Isolate),
        2 => Just(Fault::HealAll),
        2 => (node.clone(), 50u64..4_000).prop_map(|(node, ms)| Fault::Pause(node, ms)),
        1 => node.clone().prop_map(Fault::Kill),
        1 => node.clone().prop_map(Fault::Start),
        2 => node.clone().prop_map(Fault::Boot),
        1 => node.clone().prop_map(Fault::Stop),
        1 => (node, any::<bool>()).prop_map(|(node, works)| Fault::Storage(node, works)),
    ];
    (0u64..2_500, fault)
}

fn apply(lab: &mut Lab, fault: Fault) {
    let nodes = lab.machines.len();
    let is = |lab: &Lab, node: usize| lab.machines[node % nodes].node.is_some();
    match fault {
        Fault::Cut(a, b) if a % nodes != b % nodes => lab.cut(a % nodes, b % nodes, true),
        Fault::Heal(a, b) => lab.cut(a % nodes, b % nodes, false),
        Fault::Isolate(node) => lab.isolate(node % nodes, true),
        Fault::HealAll => (0..nodes).for_each(|node| lab.isolate(node, false)),
        Fault::Pause(node, ms) if is(lab, node) => lab.pause(node % nodes, ms),
        Fault::Kill(node) => lab.kill(node % nodes),
        Fault::Start(node) if !is(lab, node) => lab.start(node % nodes),
        Fault::Boot(node) => {
            lab.kill(node % nodes);
            lab.boot(node % nodes);
        }
        Fault::Stop(node) if lab.machines[node % nodes].paused_until <= lab.now => {
            lab.stop(node % nodes)
        }
        Fault::Storage(node, works) => lab.storage(node % nodes, works),
        _ => {}
    }
}

/// When nothing changes any more, those that have a key are one group with one view; who has none waits for somebody who
/// has one, and whom it has no link with.
fn check_end(lab: &Lab) {
    let nodes = lab.machines.len();
    let is_able = |node: usize| {
        let machine = &lab.machines[node];
        let member = &lab.head.members[&(node as u16)];
        machine.node.is_some() && machine.storage && member.fenced.is_none()
    };
    let able: SlotSet = (0..nodes)
        .filter(|node| is_able(*node))
        .map(|node| node as u16)
        .collect();
    let access = lab.head.members.iter();
    let registered: SlotSet = access
        .filter(|(_, m)| m.registered && m.fenced.is_none())
        .map(|(slot, _)| *slot)
        .collect();
    if able.is_empty() {
        return;
    }
    assert!(
        !registered.is_empty() && registered.is_subset(able),
        "{registered:?} have keys, {able:?} can use them"
    );
    let cut = |a: u16, b: u16| {
        let is_cut = |a: u16, b: u16| lab.cut_since[usize::from(a)][usize::from(b)].is_some();
        is_cut(a, b) || is_cut(b, a)
    };
    let view = lab.node(registered.first().unwrap().into()).view();
    assert_eq!(view.map(|view| view.members), Some(registered));
    for a in registered.iter() {
        for b in registered.iter() {
            assert!(!cut(a, b), "vm{a} and vm{b} both go on, and have no link");
        }
        let node = lab.node(a.into());
        assert_eq!(node.status(), Status::Member, "vm{a}");
        assert_eq!(node.group(), registered, "vm{a}");
        assert_eq!(node.view(), view, "vm{a}");
        assert_eq!(node.claim(), None);
    }
    for a in able.minus(registered).iter() {
        let node = lab.node(a.into());
        assert_eq!(node.status(), Status::Starting, "vm{a}");
        let far: SlotSet = registered.iter().filter(|b| cut(a, *b)).collect();
        assert!(!far.is_empty(), "vm{a} waits for nobody");
        assert_eq!(node.waits_for(), far, "vm{a}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn faults_of_every_shape(nodes in 2usize..6, seed: u64, faults in prop::collection::vec(fault(), 1..14)) {
        let mut lab = Lab::new(nodes, seed);
        lab.run(500);
        for (wait, fault) in faults {
            lab.run(wait);
            apply(&mut lab, fault);
        }
        // Pauses end, members that never came are given up, refused and lost claims are made again.
        lab.run(4_000 + 4 * JOIN_MS + 40 * TIMEOUT_MS);
        check_end(&lab);
    }
}
