//! A cluster, its heads and a quorum server, event by event.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use fencing::{Claim, Input, QuorumRegister, QuorumReply, QuorumRequest};
use uuid::Uuid;

use crate::head::{Head, Io};
use crate::member::Member;
use crate::node::NodeEvent;
use crate::oracle::{QuorumOracle, demand};
use crate::plan::{Plan, Plant, VOLUMES};
use crate::random::Random;

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A member looks around.
    Tick { member: usize, incarnation: u64 },
    /// A heartbeat arrives.
    Heard { from: usize, to: usize },
    /// A member starts again.
    Boot(usize),
    /// A member's machine is off.
    Kill(usize),
    /// A storage request arrives at a head.
    Arrive {
        member: usize,
        head: usize,
        request: Storage,
    },
    /// A write reaches the disk.
    Land { head: usize, life: u64, io: u64 },
    /// A head looks at the mailbox.
    Poll { head: usize, life: u64 },
    /// A head's coordinator has to be told the time.
    Wake { head: usize, life: u64 },
    /// An action of a coordinator has ended.
    Input {
        head: usize,
        life: u64,
        input: Box<Input>,
    },
    /// A volume's gate closes.
    RevokeVolume {
        head: usize,
        life: u64,
        ticket: u64,
        volume: usize,
    },
    /// A volume's gate opens.
    RestoreVolume {
        head: usize,
        life: u64,
        member: usize,
        volume: usize,
    },
    /// A volume is served again.
    Serve { head: usize, volume: usize },
    /// A request arrives at the quorum device.
    Quorum {
        head: usize,
        life: u64,
        ticket: Option<u64>,
        request: Box<QuorumRequest>,
    },
    /// A head starts.
    Start { head: usize },
    /// The quorum device is back.
    QuorumBack,
    /// Something happens around a real node.
    Node {
        member: usize,
        incarnation: u64,
        event: NodeEvent,
    },
    /// Something goes wrong.
    Trouble,
}

/// A storage request.
#[derive(Clone, Copy, Debug)]
pub enum Storage {
    Write { volume: usize },
    Register,
}

#[derive(Clone, Debug)]
struct Scheduled {
    at_ms: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.number).cmp(&(self.at_ms, self.number))
    }
}

/// Everything.
#[derive(Debug)]
pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub now_ms: u64,
    /// Events and actions so far.
    pub steps: u64,
    pub members: Vec<Member>,
    pub heads: Vec<Head>,
    pub registers: Vec<QuorumRegister>,
    pub quorum_oracles: Vec<QuorumOracle>,
    pub quorum_up: bool,
    /// `links[from][to]`: heartbeats get through.
    pub links: Vec<Vec<bool>>,
    /// `reach[member][head]`: storage requests get through.
    pub reach: Vec<Vec<bool>>,
    /// Things go wrong.
    pub chaos: bool,
    /// Claims that were made once.
    pub old_claims: Vec<Claim>,
    pub tracing: bool,
    queue: BinaryHeap<Scheduled>,
    scheduled: u64,
    ids: u128,
    pub ios: u64,
}

impl World {
    /// The beginning of a history.
    pub fn new(plan: Plan, random: Random, tracing: bool) -> Self {
        let members = plan.members;
        let heads = plan.domains.len();
        let registers = if plan.shared_register { 1 } else { heads };
        let mut world = Self {
            random,
            now_ms: 0,
            steps: 0,
            members: vec![Member::new(heads); members],
            heads: plan.domains.iter().cloned().map(Head::new).collect(),
            registers: vec![QuorumRegister::default(); registers],
            quorum_oracles: vec![QuorumOracle::default(); registers],
            quorum_up: true,
            links: vec![vec![true; members]; members],
            reach: vec![vec![true; heads]; members],
            chaos: true,
            old_claims: Vec::new(),
            tracing,
            queue: BinaryHeap::new(),
            scheduled: 0,
            ids: 0,
            ios: 0,
            plan,
        };
        for head in 0..heads {
            world.heads[head].holder = world.random.below(members as u64) as usize;
            world.start_head(head);
        }
        for member in 0..members {
            let incarnation = 1;
            if world.plan.nodes {
                world.start_nodes(member);
                continue;
            }
            let delay_ms = world.random.within(0, 500);
            world.push(
                delay_ms,
                Event::Tick {
                    member,
                    incarnation,
                },
            );
        }
        world.push(2_000, Event::Trouble);
        world
    }

    /// A number of things that go wrong in a thousand, and none when things go well.
    pub fn now(&self, permille: u64) -> u64 {
        if self.chaos { permille } else { 0 }
    }

    pub fn push(&mut self, delay_ms: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Scheduled {
            at_ms: self.now_ms + delay_ms,
            number: self.scheduled,
            event,
        });
    }

    pub fn fresh_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    pub fn trace(&self, words: impl FnOnce() -> String) {
        if self.tracing {
            eprintln!("{:>7} {}", self.now_ms, words());
        }
    }

    /// The next event happens. There always is one.
    pub fn step(&mut self) {
        let Some(next) = self.queue.pop() else {
            crate::oracle::violation("nothing happens any more");
        };
        self.now_ms = next.at_ms;
        self.steps += 1;
        self.happen(next.event);
    }

    fn lives(&self, head: usize, life: u64) -> bool {
        self.heads[head].up && self.heads[head].life == life
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick {
                member,
                incarnation,
            } => self.tick(member, incarnation),
            Event::Heard { from, to } => {
                let member = &mut self.members[to];
                member.heard_ms[from] = member.local_ms(self.now_ms);
            }
            Event::Node {
                member,
                incarnation,
                event,
            } => self.node_event(member, incarnation, event),
            Event::Boot(member) => self.boot(member),
            Event::Kill(member) => self.kill(member),
            Event::Arrive {
                member,
                head,
                request,
            } => self.arrive(member, head, request),
            Event::Land { head, life, io } if self.lives(head, life) => {
                let state = &mut self.heads[head];
                if let Some(place) = state
                    .ios
                    .iter()
                    .position(|under_way| under_way.number == io)
                {
                    let io = state.ios.swap_remove(place);
                    demand(state.oracle.landed(io.member, self.now_ms));
                    if !state.drains.is_empty() {
                        self.drained(head);
                    }
                }
            }
            Event::Poll { head, life } if self.lives(head, life) => self.poll_mailbox(head),
            Event::Wake { head, life } if self.lives(head, life) => {
                self.heads[head].wake_ms = u64::MAX;
                self.give(head, Input::Time);
            }
            Event::Input { head, life, input } if self.lives(head, life) => {
                self.trace(|| format!("head {head} hears {input:?}"));
                self.give(head, *input);
            }
            Event::RevokeVolume {
                head,
                life,
                ticket,
                volume,
            } if self.lives(head, life) => self.close_gate(head, ticket, volume),
            Event::RestoreVolume {
                head,
                life,
                member,
                volume,
            } if self.lives(head, life) => self.heads[head].gate[volume] &= !(1 << member),
            Event::Serve { head, volume } => {
                let state = &mut self.heads[head];
                if !state.served[volume] {
                    state.served[volume] = true;
                    state.gate[volume] = crate::plan::set(state.durable.state.fenced.keys());
                }
            }
            Event::Quorum {
                head,
                life,
                ticket,
                request,
            } => self.quorum(head, life, ticket, &request),
            Event::Start { head } if !self.heads[head].up => self.start_head(head),
            Event::QuorumBack => self.quorum_up = true,
            Event::Trouble if self.chaos => self.trouble(),
            // Of an earlier life, or too late.
            Event::Land { .. }
            | Event::Poll { .. }
            | Event::Wake { .. }
            | Event::Input { .. }
            | Event::RevokeVolume { .. }
            | Event::RestoreVolume { .. }
            | Event::Start { .. }
            | Event::Trouble => {}
        }
    }

    fn arrive(&mut self, member: usize, at: usize, request: Storage) {
        let slow = self.random.permille(self.now(self.plan.faults.slow));
        let head = &mut self.heads[at];
        if !head.up {
            return;
        }
        let bit = 1 << member;
        match request {
            Storage::Register => {
                self.register(member, at);
            }
            Storage::Write { volume } => {
                if !head.served[volume] || head.gate[volume] & bit != 0 {
                    return;
                }
                self.ios += 1;
                let io = self.ios;
                head.ios.push(Io {
                    number: io,
                    member,
                    volume,
                });
                let life = head.life;
                let delay_ms = if slow {
                    self.random.within(100, 3_000)
                } else {
                    self.random.within(0, 15)
                };
                self.push(delay_ms, Event::Land { head: at, life, io });
            }
        }
    }

    /// A member registers its key, if it is not fenced.
    pub fn register(&mut self, member: usize, at: usize) -> bool {
        let head = &mut self.heads[at];
        let bit = 1 << member;
        let denied = (0..VOLUMES).any(|volume| head.gate[volume] & bit != 0);
        let domain = head.coordinator.domain();
        let fine = !denied && !domain.is_fenced(crate::plan::NAMES[member]);
        if fine {
            head.registered |= bit;
        }
        fine
    }

    /// Sends a request to the quorum device, which may lose it, hold it up or repeat it.
    pub fn send_to_quorum(&mut self, head: usize, ticket: Option<u64>, request: QuorumRequest) {
        let life = self.heads[head].life;
        let faults = self.now(self.plan.faults.quorum);
        let copies = match self.random.permille(faults) {
            true => self.random.below(3),
            false => 1,
        };
        for _ in 0..copies {
            let delay_ms = if self.random.permille(faults) {
                self.random.within(1, 8_000)
            } else {
                self.random.within(1, 30)
            };
            let request = Box::new(request.clone());
            self.push(
                delay_ms,
                Event::Quorum {
                    head,
                    life,
                    ticket,
                    request,
                },
            );
        }
    }

    fn quorum(&mut self, head: usize, life: u64, ticket: Option<u64>, request: &QuorumRequest) {
        if !self.quorum_up {
            return;
        }
        let at = if self.plan.shared_register { 0 } else { head };
        let (reply, next) = self.registers[at].apply(request);
        self.trace(|| format!("quorum: {head} asks {request:?}: {reply:?}"));
        let forget = self.plan.plant == Some(Plant::ForgetfulQuorum) && self.random.permille(300);
        if !forget {
            self.quorum_oracles[at].changed(&self.registers[at], &next);
            self.registers[at] = next;
        } else if let QuorumRequest::Ask(ask) = request {
            let mut granted = self.registers[at].clone();
            granted.epoch = ask.epoch;
            granted.group.clone_from(&ask.group);
            self.quorum_oracles[at].changed(&self.registers[at], &granted);
            self.registers[at] = QuorumRegister::default();
        }
        let Some(ticket) = ticket else { return };
        let input = match reply {
            QuorumReply::Answer(answer) => Input::Asked {
                ticket,
                answer: Ok(answer),
            },
            QuorumReply::Register(register) => Input::Probed {
                ticket,
                answer: Ok(register),
            },
        };
        let faults = self.now(self.plan.faults.quorum);
        if self.random.permille(faults / 2) {
            return;
        }
        let delay_ms = if self.random.permille(faults) {
            self.random.within(1, 6_000)
        } else {
            self.random.within(1, 30)
        };
        self.push(
            delay_ms,
            Event::Input {
                head,
                life,
                input: Box::new(input),
            },
        );
    }
}
