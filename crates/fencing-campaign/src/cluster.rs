//! What members do.

use fencing::{Claim, ClaimVerdict};

use crate::member::{Standing, Told};
use crate::oracle::violation;
use crate::plan::{NAMES, VOLUMES, names};
use crate::world::{Event, Storage, World};
use uuid::Uuid;

/// How often a member looks around, in milliseconds.
const TICK_MS: u64 = 500;

impl World {
    pub fn tick(&mut self, at: usize, incarnation: u64) {
        let member = &self.members[at];
        if !member.alive || member.incarnation != incarnation {
            return;
        }
        if member.paused_until_ms > self.now_ms {
            let delay_ms = member.paused_until_ms - self.now_ms;
            let member = at;
            return self.push(
                delay_ms,
                Event::Tick {
                    member,
                    incarnation,
                },
            );
        }
        for to in 0..self.plan.members {
            let lost = self.random.permille(self.now(self.plan.faults.loss));
            if to != at && self.links[at][to] && self.members[to].alive && !lost {
                let delay_ms = self.random.within(1, 20);
                self.push(delay_ms, Event::Heard { from: at, to });
            }
        }
        for head in 0..self.heads.len() {
            if self.heads[head].up && self.reach[at][head] {
                self.look(at, head);
            }
        }
        let delay_ms = self.random.within(TICK_MS - 50, TICK_MS + 50);
        let member = at;
        self.push(
            delay_ms,
            Event::Tick {
                member,
                incarnation,
            },
        );
    }

    /// A member reads the mailbox of a head, and does what follows.
    fn look(&mut self, at: usize, to: usize) {
        let bit = 1 << at;
        let view = self.members[at].view(at, self.now_ms);
        let incarnation = self.members[at].incarnation;
        let head = &mut self.heads[to];
        let area = &head.area;
        let (fenced, registered) = (area.fenced & bit != 0, area.registered);
        let expected = registered & !area.fenced;
        let others = view & !area.fenced;
        let slot = &mut head.slots[at];
        slot.incarnation = incarnation;
        let asked = slot.claim.as_ref().map(|claim| claim.id);
        let told = area.answers[at].as_ref();
        let told = told.filter(|(id, _)| Some(*id) == asked);
        let told = told.map(|(_, told)| told.clone());
        match self.members[at].heads[to] {
            Standing::Joining => {
                slot.claim = None;
                slot.wants_unfence = fenced;
                // Without a key it waits until it sees everybody who has one; with one it has been at work before.
                let waits = registered & bit == 0 || !self.members[at].settled(self.now_ms);
                if fenced || waits && expected & !view != 0 {
                    return;
                }
                if registered & bit == 0 {
                    self.send(at, to, Storage::Register);
                } else {
                    self.members[at].heads[to] = Standing::Active;
                }
            }
            _ if fenced => self.lose(at, to),
            Standing::Active => {
                if registered & bit == 0 || expected & !view == 0 {
                    let volume = self.random.below(VOLUMES as u64) as usize;
                    self.send(at, to, Storage::Write { volume });
                } else {
                    self.claim(at, to, others);
                }
            }
            Standing::Claiming => {
                match told {
                    Some(Told::Answer(answer)) => match answer.verdict {
                        ClaimVerdict::Won => self.members[at].heads[to] = Standing::Active,
                        // Lost with winners is told to who is fenced, so the mailbox will say so.
                        ClaimVerdict::Lost if answer.winners.is_empty() => {
                            let at_ms = self.now_ms + self.random.within(500, 3_000);
                            self.members[at].heads[to] = Standing::Again { at_ms };
                        }
                        ClaimVerdict::Lost => self.lose(at, to),
                        ClaimVerdict::Stale => self.claim(at, to, others),
                    },
                    Some(Told::Refused) if registered & bit == 0 => {
                        self.members[at].heads[to] = Standing::Joining;
                    }
                    Some(Told::Refused) => self.claim(at, to, others),
                    None if self.random.permille(self.now(100)) => {
                        self.claim(at, to, others);
                    }
                    None => {}
                }
            }
            Standing::Again { at_ms } => {
                if at_ms <= self.now_ms {
                    self.claim(at, to, others);
                }
            }
            Standing::Lost => {}
        }
    }

    fn claim(&mut self, at: usize, to: usize, group: u8) {
        let claim = Claim {
            id: self.fresh_id(),
            member: NAMES[at].to_owned(),
            group: names(group | 1 << at),
            epoch: self.heads[to].area.epoch,
        };
        self.trace(|| format!("head {to}: {claim:?}"));
        if self.old_claims.len() < 64 {
            self.old_claims.push(claim.clone());
        }
        self.heads[to].slots[at].claim = Some(claim);
        self.members[at].heads[to] = Standing::Claiming;
    }

    fn lose(&mut self, at: usize, to: usize) {
        if self.members[at].heads[to] == Standing::Lost {
            return;
        }
        self.trace(|| format!("{} has lost at head {to}", NAMES[at]));
        self.members[at].heads[to] = Standing::Lost;
        let delay_ms = self.random.within(500, 8_000);
        self.push(delay_ms, Event::Boot(at));
    }

    pub fn send(&mut self, at: usize, to: usize, request: Storage) {
        let slow = self.random.permille(self.now(self.plan.faults.slow));
        let delay_ms = if slow {
            self.random.within(20, 8_000)
        } else {
            self.random.within(0, 20)
        };
        self.push(
            delay_ms,
            Event::Arrive {
                member: at,
                head: to,
                request,
            },
        );
    }

    pub fn boot(&mut self, at: usize) {
        let off = !self.members[at].alive;
        let lost = self.members[at].heads.contains(&Standing::Lost);
        if !off && !lost {
            return;
        }
        self.trace(|| format!("{} starts", NAMES[at]));
        self.members[at].boot(self.now_ms);
        if self.plan.nodes {
            return self.start_nodes(at);
        }
        let incarnation = self.members[at].incarnation;
        let delay_ms = self.random.within(1, 500);
        let member = at;
        self.push(
            delay_ms,
            Event::Tick {
                member,
                incarnation,
            },
        );
    }

    /// Starts the real nodes of a member.
    pub fn start_nodes(&mut self, at: usize) {
        let seed = Uuid::from_u64_pair(at as u64 + 1, self.members[at].incarnation << 32);
        let member = &mut self.members[at];
        let local_ms = member.local_ms(self.now_ms);
        let heads = self.heads.iter();
        member.nodes = heads
            .map(|head| {
                crate::node::start(head.durable.uuid, at, member.incarnation, seed, local_ms)
            })
            .collect();
        let delay_ms = self.random.within(1, 400);
        self.push_node(delay_ms, at, crate::node::NodeEvent::Tick);
    }

    pub fn kill(&mut self, at: usize) {
        self.trace(|| format!("{} is off", NAMES[at]));
        self.members[at].alive = false;
        let delay_ms = self.random.within(1_000, 15_000);
        self.push(delay_ms, Event::Boot(at));
    }

    /// What is still open when everything has been in order for long enough; `None` when all is decided.
    pub fn unsettled(&self, blocks: &[u8]) -> Option<String> {
        for (at, head) in self.heads.iter().enumerate() {
            let domain = head.coordinator.domain();
            let unfenced = !crate::plan::set(domain.state.fenced.keys());
            let voters = head.registered & unfenced;
            let here: Vec<u8> = blocks
                .iter()
                .map(|block| block & unfenced)
                .filter(|block| block & voters != 0)
                .collect();
            match here.as_slice() {
                [] => {
                    let everybody = (1_u8 << self.plan.members) - 1;
                    if unfenced & everybody != 0 {
                        let waiting = names(unfenced & everybody);
                        return Some(format!(
                            "{waiting:?} wait at head {at}, and nobody has a key"
                        ));
                    }
                }
                [one] => {
                    if let Some(member) = (0..self.plan.members).find(|member| {
                        one & (1 << member) != 0 && !self.members[*member].is_active(at)
                    }) {
                        return Some(format!(
                            "{} does not go on at head {at}, and nobody is against it: {:?}",
                            NAMES[member], self.members[member].heads[at]
                        ));
                    }
                }
                several => {
                    if let Some(winner) = self.would_win(at, several) {
                        return Some(format!(
                            "{:?} has more than half at head {at} and has not won against {several:?}",
                            names(winner)
                        ));
                    }
                }
            }
        }
        None
    }

    /// The block that wins when all its members claim for everybody in it who is not fenced, whichever claims first.
    fn would_win(&self, at: usize, blocks: &[u8]) -> Option<u8> {
        let head = &self.heads[at];
        let domain = head.coordinator.domain();
        let survey = fencing::Survey {
            registered: names(head.registered),
            holds: [(NAMES[head.holder].to_owned(), 1)].into(),
        };
        let claims = |blocks: &[u8]| -> Vec<Claim> {
            let of = |block: &u8| {
                let group = names(*block);
                let claim = |member: &String| Claim {
                    id: uuid::Uuid::nil(),
                    member: member.clone(),
                    group: group.clone(),
                    epoch: 0,
                };
                group.iter().map(claim).collect::<Vec<_>>()
            };
            blocks.iter().flat_map(of).collect()
        };
        let register = &self.registers[if self.plan.shared_register { 0 } else { at }];
        let mut winners = Vec::new();
        for first in 0..blocks.len() {
            let mut order = blocks.to_vec();
            order.rotate_left(first);
            let claims = claims(&order);
            let tallies = fencing::votes::tally(domain, &survey, &claims);
            let offered = fencing::votes::preferred(domain.prefer, &tallies)
                .into_iter()
                .find(|group| {
                    register.would_grant(&fencing::QuorumAsk {
                        by: domain.uuid,
                        epoch: u64::MAX,
                        group: (*group).clone(),
                    })
                });
            let granted = offered.filter(|_| self.quorum_up);
            let decision = fencing::votes::decide(domain, &survey, &claims, granted);
            winners.push(crate::plan::set(&decision.winners));
        }
        // Where it depends on who comes first, somebody wins each time; where nobody wins in some order, nobody need have won.
        if winners.contains(&0) {
            None
        } else {
            winners.first().copied()
        }
    }

    /// A check that costs nothing and holds always.
    pub fn check_epochs(&self) {
        for head in &self.heads {
            let known = head.coordinator.domain().state.epoch;
            if known > head.durable.state.epoch && self.plan.plant.is_none() {
                violation("the coordinator is ahead of what is durable");
            }
        }
    }
}
