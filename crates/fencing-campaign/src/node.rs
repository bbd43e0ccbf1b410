//! Members whose node is the real one: [`fencing::node::Node`] over a simulated network and mailbox.

use std::collections::BTreeMap;

use fencing::mailbox::{Answer, AnswerVerdict, HeadArea, HeadMember, LastVerdict, MemberSlot};
use fencing::node::{Heartbeat, MailboxRead, Node, Output, Settings};
use fencing::{Claim, ClaimVerdict, SlotSet};
use uuid::Uuid;

use crate::head::Head;
use crate::member::{Slot, Standing, Told};
use crate::plan::{NAMES, VOLUMES, number};
use crate::world::{Event, Storage, World};

/// Between heartbeats, in milliseconds.
const INTERVAL_MS: u64 = 400;

/// What happens around a node.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    Tick,
    Heard {
        head: usize,
        heartbeat: Box<Heartbeat>,
    },
    Read {
        head: usize,
        ticket: u64,
        read: Option<Box<MailboxRead>>,
    },
    Registered {
        head: usize,
        fine: bool,
    },
}

/// A node that starts, for the mailbox of one head.
pub fn start(domain: Uuid, slot: usize, incarnation: u64, seed: Uuid, now_ms: u64) -> Node {
    let settings = Settings {
        domain,
        slot: slot as u16,
        name: NAMES[slot].to_owned(),
        incarnation: Uuid::from_u128(u128::from(incarnation)),
        claim_seed: seed,
        addresses: Vec::new(),
        interval_ms: INTERVAL_MS,
        timeout_ms: 2_000,
        join_timeout_ms: 6_000,
        storage_timeout_ms: 5_000,
    };
    Node::new(settings, now_ms)
}

impl World {
    /// Something happens to the node of a member; in its own time, if the machine is paused.
    pub fn node_event(&mut self, at: usize, incarnation: u64, event: NodeEvent) {
        let member = &mut self.members[at];
        if !member.alive || member.incarnation != incarnation {
            return;
        }
        if member.paused_until_ms > self.now_ms {
            let delay_ms = member.paused_until_ms - self.now_ms;
            return self.push_node(delay_ms, at, event);
        }
        let local_ms = member.local_ms(self.now_ms);
        match event {
            NodeEvent::Tick => {
                let mut wait_ms = INTERVAL_MS;
                for head in 0..self.heads.len() {
                    let Some(node) = self.members[at].nodes.get_mut(head) else {
                        continue;
                    };
                    node.handle_tick(local_ms);
                    wait_ms = wait_ms.min(node.next_ms().saturating_sub(local_ms)).max(1);
                    if node.has_access() && self.random.permille(500) {
                        let volume = self.random.below(VOLUMES as u64) as usize;
                        if self.reach[at][head] {
                            self.send(at, head, Storage::Write { volume });
                        }
                    }
                    self.node_says(at, head);
                }
                self.push_node(wait_ms, at, NodeEvent::Tick);
            }
            NodeEvent::Heard { head, heartbeat } => {
                if let Some(node) = self.members[at].nodes.get_mut(head) {
                    node.handle_heartbeat(local_ms, *heartbeat);
                    self.node_says(at, head);
                }
            }
            NodeEvent::Read { head, ticket, read } => {
                if let Some(node) = self.members[at].nodes.get_mut(head) {
                    match read {
                        Some(read) => node.handle_mailbox(local_ms, ticket, *read),
                        None => node.handle_read_failed(local_ms, ticket),
                    }
                    self.node_says(at, head);
                }
            }
            NodeEvent::Registered { head, fine } => {
                if let Some(node) = self.members[at].nodes.get_mut(head) {
                    node.handle_registered(local_ms, fine);
                    self.node_says(at, head);
                }
            }
        }
    }

    pub fn push_node(&mut self, delay_ms: u64, member: usize, event: NodeEvent) {
        let incarnation = self.members[member].incarnation;
        self.push(
            delay_ms,
            Event::Node {
                member,
                incarnation,
                event,
            },
        );
    }

    fn node_says(&mut self, at: usize, to: usize) {
        while let Some(output) = self.members[at].nodes[to].poll_output() {
            self.steps += 1;
            let reaches = self.reach[at][to] && self.heads[to].up;
            match output {
                Output::Send {
                    to: peer,
                    heartbeat,
                } => {
                    let peer = usize::from(peer);
                    let lost = self.random.permille(self.now(self.plan.faults.loss));
                    if self.links[at][peer] && self.members[peer].alive && !lost {
                        let delay_ms = self.random.within(1, 20);
                        let heartbeat = Box::new(heartbeat);
                        let head = to;
                        self.push_node(delay_ms, peer, NodeEvent::Heard { head, heartbeat });
                    }
                }
                Output::Read { ticket, slots } => {
                    let read = reaches.then(|| {
                        Box::new(MailboxRead {
                            head: head_area(&self.heads[to], self.plan.members),
                            slots: self.heads[to]
                                .said
                                .iter()
                                .filter(|(slot, _)| slots.contains(**slot))
                                .map(|(slot, said)| (*slot, said.clone()))
                                .collect(),
                        })
                    });
                    let delay_ms = if reaches {
                        self.random.within(1, 20)
                    } else {
                        300
                    };
                    let head = to;
                    self.push_node(delay_ms, at, NodeEvent::Read { head, ticket, read });
                }
                Output::Write(said) => {
                    if reaches {
                        self.heads[to].slots[at] = Slot {
                            claim: said.claim.map(|claim| Claim {
                                id: claim.id,
                                member: NAMES[at].to_owned(),
                                group: claim.group.iter().map(slot_name).collect(),
                                epoch: claim.epoch,
                            }),
                            wants_unfence: said.wants_unfence,
                            incarnation: said.incarnation.as_u128() as u64,
                        };
                        self.heads[to].said.insert(at as u16, *said);
                    }
                }
                Output::Register { .. } => {
                    let fine = reaches && self.register(at, to);
                    let delay_ms = self.random.within(1, 40);
                    self.push_node(delay_ms, at, NodeEvent::Registered { head: to, fine });
                }
                // What the guests are advised to do: reset.
                Output::Hook(
                    fencing::node::Hook::Lost { .. } | fencing::node::Hook::Fenced { .. },
                ) => {
                    self.trace(|| format!("{} has lost at head {to}", NAMES[at]));
                    self.members[at].heads[to] = Standing::Lost;
                    let delay_ms = self.random.within(500, 8_000);
                    self.push(delay_ms, Event::Boot(at));
                }
                Output::Hook(fencing::node::Hook::Won { .. }) => {}
                Output::Event(event) => self.trace(|| format!("{} at {to}: {event:?}", NAMES[at])),
            }
        }
    }
}

fn slot_name(slot: u16) -> String {
    NAMES
        .get(usize::from(slot))
        .map_or_else(|| "nobody".to_owned(), |name| (*name).to_owned())
}

fn slots<'a>(members: impl IntoIterator<Item = &'a String>) -> SlotSet {
    members
        .into_iter()
        .map(|name| number(name) as u16)
        .collect()
}

/// What the head has written into the mailbox.
fn head_area(head: &Head, members: usize) -> HeadArea {
    let domain = head.coordinator.domain();
    let member = |slot: usize| {
        let fenced = domain.state.fenced.get(NAMES[slot]);
        let member = HeadMember {
            name: NAMES[slot].to_owned(),
            votes: domain.members[NAMES[slot]].votes,
            registered: head.area.registered & (1 << slot) != 0,
            suspect: false,
            fenced: fenced.map(|fenced| fenced.epoch),
            unproven: fenced.is_some_and(|fenced| fenced.proven.is_none()),
        };
        (slot as u16, member)
    };
    let answer = |(slot, (id, told)): (usize, &(Uuid, Told))| {
        let answer = match told {
            Told::Refused => Answer::refused(*id, head.area.epoch, "refused"),
            Told::Answer(answer) => Answer {
                claim: *id,
                verdict: match answer.verdict {
                    ClaimVerdict::Won => AnswerVerdict::Won,
                    ClaimVerdict::Lost => AnswerVerdict::Lost,
                    ClaimVerdict::Stale => AnswerVerdict::Stale,
                },
                epoch: answer.epoch,
                winners: slots(&answer.winners),
                fenced: slots(&answer.fenced),
                reason: None,
            },
        };
        (slot as u16, answer)
    };
    let answers = head.area.answers.iter().enumerate();
    HeadArea {
        name: domain.name.clone(),
        incarnation: Uuid::from_u128(u128::from(head.life)),
        beat: head.beat,
        epoch: domain.state.epoch,
        secret: domain.secret.clone(),
        directory_sequence: 1,
        members: (0..members).map(member).collect(),
        verdict: domain.state.verdict.as_ref().map(|verdict| LastVerdict {
            epoch: verdict.epoch,
            winners: slots(&verdict.winners),
            fenced: slots(&verdict.fenced),
        }),
        answers: answers
            .filter_map(|(slot, told)| Some((slot, told.as_ref()?)))
            .map(answer)
            .collect::<BTreeMap<_, _>>(),
    }
}

/// What members have written into their slots.
pub type Said = BTreeMap<u16, MemberSlot>;
