//! Nodes, a network whose directions fail one by one, a mailbox, and a head that decides at once by the plain rule.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use uuid::Uuid;

use crate::domain::Secret;
use crate::mailbox::{
    Answer, AnswerVerdict, HeadArea, HeadMember, LastVerdict, MemberSlot, Status, View,
};
use crate::node::{Event, Heartbeat, Hook, MailboxRead, Node, Output, Settings};
use crate::slots::SlotSet;

pub const INTERVAL_MS: u64 = 100;
pub const TIMEOUT_MS: u64 = 500;
pub const JOIN_MS: u64 = 2_000;
pub const STORAGE_MS: u64 = 2_000;
pub const WINDOW_MS: u64 = 400;
const POLL_MS: u64 = 50;
/// Longest that fencing takes after it was decided.
pub const PROVE_MS: u64 = 1_000;

#[derive(Debug)]
enum Due {
    Tick(usize),
    Heartbeat(usize, Box<Heartbeat>),
    Read {
        node: usize,
        ticket: u64,
        slots: SlotSet,
    },
    Answered {
        node: usize,
        ticket: u64,
        read: Option<Box<MailboxRead>>,
    },
    Written {
        node: usize,
        slot: Box<MemberSlot>,
    },
    Registered(usize),
    Poll,
}

pub struct Machine {
    pub node: Option<Node>,
    /// Nothing happens in it before.
    pub paused_until: u64,
    pub storage: bool,
    pub boots: u64,
    starts: u64,
    clock_offset: u64,
    /// What has become of it, in order.
    pub hooks: Vec<(u64, Hook)>,
    /// Generation of ticks: those of a node that is gone are dropped.
    alive_since: u64,
}

pub struct Lab {
    pub now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    due: BTreeMap<u64, Due>,
    number: u64,
    random: u64,
    pub machines: Vec<Machine>,
    /// Since when a direction is cut.
    pub cut_since: Vec<Vec<Option<u64>>>,
    /// When it last came back.
    pub whole_since: Vec<Vec<u64>>,
    slots: BTreeMap<u16, MemberSlot>,
    pub head: HeadArea,
    fenced_incarnation: BTreeMap<u16, Uuid>,
    window: Option<u64>,
    /// Fences under way: when they are proven, and the answers that wait for it.
    proving: Option<(u64, Vec<(u16, Answer)>)>,
    pub views: BTreeMap<(u64, u16), View>,
    /// When the last fault began or ended.
    pub disturbed: u64,
    pub claims: u64,
    pub quorum: bool,
}

impl Lab {
    pub fn new(nodes: usize, seed: u64) -> Self {
        let members = (0..nodes as u16).map(|slot| {
            let name = format!("vm{slot}");
            let member = HeadMember {
                name,
                votes: 1,
                registered: false,
                suspect: false,
                fenced: None,
                unproven: false,
            };
            (slot, member)
        });
        let head = HeadArea {
            name: "domain".into(),
            incarnation: Uuid::from_u128(1),
            beat: 0,
            epoch: 0,
            secret: Secret::new([1; 32]),
            directory_sequence: 1,
            members: members.collect(),
            verdict: None,
            answers: BTreeMap::new(),
        };
        let mut lab = Self {
            now: 0,
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            number: 0,
            random: seed | 1,
            machines: Vec::new(),
            cut_since: vec![vec![None; nodes]; nodes],
            whole_since: vec![vec![0; nodes]; nodes],
            slots: BTreeMap::new(),
            head,
            fenced_incarnation: BTreeMap::new(),
            window: None,
            proving: None,
            views: BTreeMap::new(),
            disturbed: 0,
            claims: 0,
            quorum: true,
        };
        for node in 0..nodes {
            let clock_offset = lab.below(1_000_000);
            lab.machines.push(Machine {
                node: None,
                paused_until: 0,
                storage: true,
                boots: 0,
                starts: 0,
                clock_offset,
                hooks: Vec::new(),
                alive_since: 0,
            });
            lab.boot(node);
        }
        lab.at(0, Due::Poll);
        lab
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn at(&mut self, delay_ms: u64, due: Due) {
        self.number += 1;
        self.queue.push(Reverse((self.now + delay_ms, self.number)));
        self.due.insert(self.number, due);
    }

    // Faults.

    pub fn boot(&mut self, node: usize) {
        self.machines[node].boots += 1;
        self.start(node);
    }

    /// The node alone is started anew, in the same boot.
    pub fn start(&mut self, node: usize) {
        let now = self.now;
        self.disturbed = now;
        let machine = &mut self.machines[node];
        machine.starts += 1;
        machine.paused_until = now;
        let settings = Settings {
            domain: Uuid::from_u128(7),
            slot: node as u16,
            name: format!("vm{node}"),
            incarnation: Uuid::from_u64_pair(node as u64, machine.boots),
            claim_seed: Uuid::from_u64_pair(node as u64 + 100, machine.starts << 32),
            addresses: Vec::new(),
            interval_ms: INTERVAL_MS,
            timeout_ms: TIMEOUT_MS,
            join_timeout_ms: JOIN_MS,
            storage_timeout_ms: STORAGE_MS,
        };
        machine.node = Some(Node::new(settings, now + machine.clock_offset));
        machine.alive_since = self.number;
        self.at(0, Due::Tick(node));
    }

    pub fn kill(&mut self, node: usize) {
        self.disturbed = self.now;
        self.machines[node].node = None;
        // What it wrote is on its way, and arrives before it runs again.
        let is_its = |due: &Due| matches!(due, Due::Written { node: its, .. } if *its == node);
        let numbers: Vec<u64> = self
            .due
            .iter()
            .filter(|(_, due)| is_its(due))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            if let Some(due) = self.due.remove(&number) {
                self.disk(due);
            }
        }
    }

    pub fn stop(&mut self, node: usize) {
        let now = self.now + self.machines[node].clock_offset;
        if let Some(running) = &mut self.machines[node].node {
            running.handle_stop(now);
        }
        self.drain(node);
        self.kill(node);
        if let Some(member) = self.head.members.get_mut(&(node as u16)) {
            member.registered = false;
        }
    }

    pub fn pause(&mut self, node: usize, length_ms: u64) {
        self.disturbed = self.now + length_ms;
        self.machines[node].paused_until = self.now + length_ms;
    }

    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        self.disturbed = self.now;
        let since = &mut self.cut_since[from][to];
        if cut {
            since.get_or_insert(self.now);
        } else if since.take().is_some() {
            self.whole_since[from][to] = self.now;
        }
    }

    pub fn storage(&mut self, node: usize, works: bool) {
        self.disturbed = self.now;
        self.machines[node].storage = works;
    }

    pub fn isolate(&mut self, node: usize, cut: bool) {
        for other in 0..self.machines.len() {
            if other != node {
                self.cut(node, other, cut);
                self.cut(other, node, cut);
            }
        }
    }

    // Time.

    pub fn run(&mut self, length_ms: u64) {
        let end = self.now + length_ms;
        while let Some(Reverse((time, number))) = self.queue.peek().copied() {
            if time > end {
                break;
            }
            self.queue.pop();
            self.now = time;
            let Some(due) = self.due.remove(&number) else {
                continue;
            };
            self.happen(number, due);
        }
        self.now = end;
    }

    fn happen(&mut self, number: u64, due: Due) {
        let node = match &due {
            Due::Tick(node) | Due::Heartbeat(node, _) | Due::Registered(node) => *node,
            Due::Answered { node, .. } => *node,
            Due::Read { .. } | Due::Written { .. } | Due::Poll => return self.disk(due),
        };
        let machine = &mut self.machines[node];
        let offset = machine.clock_offset;
        if machine.paused_until > self.now {
            let wait = machine.paused_until - self.now;
            // What comes meanwhile waits in the sockets, and comes in any order with the first tick.
            return self.at(wait, due);
        }
        let stale = matches!(due, Due::Heartbeat(..)) || number > machine.alive_since;
        let Some(running) = machine.node.as_mut().filter(|_| stale) else {
            return;
        };
        let now = self.now + offset;
        match due {
            Due::Tick(_) => {
                running.handle_tick(now);
                let wait = running.next_ms().saturating_sub(now);
                assert!(wait > 0, "a node that never sleeps");
                self.at(wait.min(INTERVAL_MS), Due::Tick(node));
            }
            Due::Heartbeat(_, heartbeat) => running.handle_heartbeat(now, *heartbeat),
            Due::Registered(_) => {
                let fine = running.status() != Status::Fenced;
                running.handle_registered(now, fine);
            }
            Due::Answered {
                ticket,
                read: Some(read),
                ..
            } => running.handle_mailbox(now, ticket, *read),
            Due::Answered { ticket, .. } => running.handle_read_failed(now, ticket),
            Due::Read { .. } | Due::Written { .. } | Due::Poll => {}
        }
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.machines[node]
            .node
            .as_mut()
            .and_then(Node::poll_output)
        {
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        let delay = 1 + self.below(15);
        match output {
            Output::Send { to, heartbeat } => {
                let to = usize::from(to);
                if self.cut_since[node][to].is_none() {
                    self.at(delay, Due::Heartbeat(to, Box::new(heartbeat)));
                }
            }
            Output::Read { ticket, slots } => self.at(
                delay,
                Due::Read {
                    node,
                    ticket,
                    slots,
                },
            ),
            Output::Write(slot) => self.at(delay, Due::Written { node, slot }),
            Output::Register { .. } => {
                let member = self.head.members.get_mut(&(node as u16)).unwrap();
                if member.fenced.is_none() && self.machines[node].storage {
                    member.registered = true;
                }
                self.at(delay, Due::Registered(node));
            }
            Output::Hook(hook) => {
                if let Hook::Won { fenced, .. } = hook {
                    assert!(
                        self.head.unproven().and(fenced).is_empty(),
                        "told before it is proven"
                    );
                }
                self.machines[node].hooks.push((self.now, hook));
            }
            Output::Event(Event::View(view)) => {
                let known = self.views.entry((view.number, view.master)).or_insert(view);
                assert_eq!(*known, view, "two views with one number and one master");
                let running = self.machines[node].node.as_ref().unwrap();
                assert_eq!(running.group(), view.members);
            }
            Output::Event(Event::Claimed(claim)) => {
                self.claims += 1;
                self.check_claim(node, claim.group);
            }
            Output::Event(_) => {}
        }
    }

    /// What a claim may not be, by what is true of the network and not by what the node believes.
    fn check_claim(&self, node: usize, group: SlotSet) {
        // A report may be a timeout old, and what it reports too.
        let bound = 2 * TIMEOUT_MS + 2 * INTERVAL_MS;
        assert!(group.contains(node as u16));
        for a in group.iter().map(usize::from) {
            for b in group.iter().map(usize::from) {
                if let Some(since) = self.cut_since[a][b] {
                    let (from, to) = (format!("vm{a}"), format!("vm{b}"));
                    assert!(
                        self.now - since <= bound,
                        "{from} -> {to} is cut since {since}"
                    );
                }
            }
            let member = &self.head.members[&(a as u16)];
            let old = member.fenced.is_some() && self.disturbed + bound < self.now;
            assert!(!old, "a claim with vm{a}, which is fenced");
        }
        let healthy = self
            .machines
            .iter()
            .all(|machine| machine.node.is_some() && machine.storage);
        let whole = self.cut_since.iter().flatten().all(Option::is_none);
        let calm = self.now.saturating_sub(self.disturbed);
        assert!(
            !(healthy && whole && calm > JOIN_MS + bound),
            "vm{node} claims {group:?} without a reason, after {calm} ms of calm"
        );
    }

    // The disk and the head.

    fn disk(&mut self, due: Due) {
        let delay = 1 + self.below(5);
        match due {
            Due::Read {
                node,
                ticket,
                slots,
            } => {
                let works = self.machines[node].storage;
                let read = works.then(|| {
                    let slots = slots
                        .iter()
                        .filter_map(|slot| Some((slot, self.slots.get(&slot)?.clone())));
                    Box::new(MailboxRead {
                        head: self.head.clone(),
                        slots: slots.collect(),
                    })
                });
                let delay = if works { delay } else { 300 };
                self.at(delay, Due::Answered { node, ticket, read });
            }
            Due::Written { node, slot } if self.machines[node].storage => {
                self.slots.insert(node as u16, *slot);
            }
            Due::Poll => {
                self.head.beat += 1;
                self.poll();
                self.at(POLL_MS, Due::Poll);
            }
            _ => {}
        }
    }

    fn poll(&mut self) {
        if let Some((at, answers)) = self.proving.take() {
            if at > self.now {
                self.proving = Some((at, answers));
                return;
            }
            self.head.answers.extend(answers);
            for member in self.head.members.values_mut() {
                member.unproven = false;
            }
        }
        for (slot, said) in &self.slots {
            let incarnation = self.fenced_incarnation.get(slot);
            if said.wants_unfence && incarnation.is_some_and(|old| *old != said.incarnation) {
                self.fenced_incarnation.remove(slot);
                self.head.epoch += 1;
                self.head.members.get_mut(slot).unwrap().fenced = None;
            }
        }
        let open: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(slot, said)| Some((*slot, said.claim?)))
            .collect();
        let mut groups: Vec<(u16, SlotSet)> = Vec::new();
        for (slot, claim) in open {
            if self
                .head
                .answers
                .get(&slot)
                .is_some_and(|answer| answer.claim == claim.id)
            {
                continue;
            }
            let members = &self.head.members;
            let rivals: SlotSet = members
                .iter()
                .filter(|(_, m)| m.registered && m.fenced.is_none())
                .map(|(s, _)| *s)
                .collect();
            let has_fenced = claim
                .group
                .iter()
                .any(|slot| members[&slot].fenced.is_some());
            let mut answer = Answer::refused(claim.id, self.head.epoch, "");
            if members[&slot].fenced.is_some() {
                answer.verdict = AnswerVerdict::Lost;
            } else if claim.epoch != self.head.epoch {
                answer.verdict = AnswerVerdict::Stale;
            } else if has_fenced || !members[&slot].registered {
                answer.verdict = AnswerVerdict::Refused;
            } else if rivals.is_subset(claim.group) {
                answer.verdict = AnswerVerdict::Won;
            } else {
                groups.push((slot, claim.group));
                continue;
            }
            self.head.answers.insert(slot, answer);
        }
        if groups.is_empty() {
            return;
        }
        let opened = *self.window.get_or_insert(self.now);
        if self.now - opened >= WINDOW_MS {
            self.window = None;
            self.decide(&groups);
        }
    }

    fn decide(&mut self, groups: &[(u16, SlotSet)]) {
        let voters: SlotSet = self
            .head
            .members
            .iter()
            .filter(|(_, m)| m.registered && m.fenced.is_none())
            .map(|(s, _)| *s)
            .collect();
        let vote_of = |slot: u16| {
            let own = groups.iter().find(|(claimer, _)| *claimer == slot);
            let mut naming: Vec<_> = groups
                .iter()
                .filter(|(_, group)| group.contains(slot))
                .map(|(_, group)| *group)
                .collect();
            naming.dedup();
            own.map(|(_, group)| *group)
                .or_else(|| (naming.len() == 1).then(|| naming[0]))
        };
        let tally = |group: SlotSet| {
            voters
                .iter()
                .filter(|slot| vote_of(*slot) == Some(group))
                .count()
        };
        let quorum_votes = if self.quorum {
            self.head.members.len() - 1
        } else {
            0
        };
        let best = groups
            .iter()
            .map(|(_, group)| *group)
            .max_by_key(|group| (tally(*group), Reverse(group.bits())))
            .unwrap();
        let total = voters.len() + quorum_votes;
        let winners = if 2 * (tally(best) + quorum_votes) > total {
            best
        } else {
            SlotSet::EMPTY
        };
        let losers = if winners.is_empty() {
            SlotSet::EMPTY
        } else {
            self.head.unfenced().minus(winners)
        };
        self.head.epoch += 1;
        let epoch = self.head.epoch;
        for slot in losers.iter() {
            let member = self.head.members.get_mut(&slot).unwrap();
            member.fenced = Some(epoch);
            member.registered = false;
            member.unproven = true;
            let incarnation = self
                .slots
                .get(&slot)
                .map_or(Uuid::nil(), |said| said.incarnation);
            self.fenced_incarnation.insert(slot, incarnation);
        }
        self.head.verdict = Some(LastVerdict {
            epoch,
            winners,
            fenced: losers,
        });
        let mut answers = Vec::new();
        for (slot, _) in groups {
            let claim = self.slots[slot].claim.unwrap().id;
            let verdict = if winners.contains(*slot) {
                AnswerVerdict::Won
            } else {
                AnswerVerdict::Lost
            };
            answers.push((
                *slot,
                Answer {
                    claim,
                    verdict,
                    epoch,
                    winners,
                    fenced: losers,
                    reason: None,
                },
            ));
        }
        let prove_ms = if losers.is_empty() {
            0
        } else {
            self.below(PROVE_MS)
        };
        self.proving = Some((self.now + prove_ms, answers));
    }

    // What is looked at.

    pub fn node(&self, node: usize) -> &Node {
        self.machines[node].node.as_ref().unwrap()
    }

    pub fn statuses(&self) -> Vec<Status> {
        (0..self.machines.len())
            .map(|node| self.node(node).status())
            .collect()
    }
}
