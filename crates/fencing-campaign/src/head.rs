//! A head: the real coordinator over simulated volumes, which carries its actions out with delays and faults.

use fencing::coordinator::{CommitOutcome, Reply, Revoked};
use fencing::{Action, Coordinator, Domain, Input, Method, QuorumRequest, Survey};

use crate::member::{Area, Slot, Told};
use crate::oracle::{Oracle, demand};
use crate::plan::{NAMES, Plant, VOLUMES, names, number, set};
use crate::world::{Event, World};

/// How often a head looks at the mailbox, in milliseconds.
const POLL_MS: u64 = 250;
/// How long a head waits for the quorum device, in milliseconds.
const QUORUM_LIMIT_MS: u64 = 3_000;

/// A write that was admitted and has not landed.
#[derive(Clone, Copy, Debug)]
pub struct Io {
    pub number: u64,
    pub member: usize,
    pub volume: usize,
}

/// A revocation that waits for volumes.
#[derive(Clone, Debug)]
pub struct Drain {
    pub ticket: u64,
    pub member: usize,
    /// Volumes whose gate is still to be closed.
    pub closing: u8,
    pub not_served: u8,
}

/// A daemon and its storage.
#[derive(Clone, Debug)]
pub struct Head {
    pub up: bool,
    /// How often it has started: what belongs to an earlier life is gone.
    pub life: u64,
    pub clock_ms: u64,
    pub coordinator: Coordinator,
    pub durable: Domain,
    /// A document that may be durable after a crash.
    pub maybe: Option<Domain>,
    /// Who is denied, by volume.
    pub gate: [u8; VOLUMES],
    pub served: [bool; VOLUMES],
    pub ios: Vec<Io>,
    pub drains: Vec<Drain>,
    pub registered: u8,
    pub holder: usize,
    pub area: Area,
    pub slots: [Slot; NAMES.len()],
    pub seen: [u64; NAMES.len()],
    pub unfencing: u8,
    pub wake_ms: u64,
    /// What the slots say, where the nodes are real.
    pub said: crate::node::Said,
    pub beat: u64,
    pub oracle: Oracle,
}

impl Head {
    pub fn new(domain: Domain) -> Self {
        Self {
            up: true,
            life: 0,
            clock_ms: 0,
            coordinator: Coordinator::resume(domain.clone(), 0),
            durable: domain,
            maybe: None,
            gate: [0; VOLUMES],
            served: [true; VOLUMES],
            ios: Vec::new(),
            drains: Vec::new(),
            registered: 0,
            holder: 0,
            area: Area::default(),
            slots: Default::default(),
            seen: [0; NAMES.len()],
            unfencing: 0,
            wake_ms: u64::MAX,
            said: Default::default(),
            beat: 0,
            oracle: Oracle::default(),
        }
    }

    /// Who can write to some volume now, or has a write under way.
    pub fn can_write(&self) -> u8 {
        let open = (0..VOLUMES).filter(|volume| self.served[*volume]);
        let open = open.fold(0, |all, volume| all | !self.gate[volume]);
        let under_way = self.ios.iter().fold(0, |all, io| all | 1 << io.member);
        open | under_way
    }

    /// The reservation that a fenced member held goes to its first heir that is registered.
    fn pass_on(&mut self, member: usize) {
        let domain = self.coordinator.domain();
        let fenced = domain.state.fenced.get(NAMES[member]);
        let heirs = fenced.into_iter().flat_map(|fenced| &fenced.heirs);
        let heir = heirs
            .filter_map(|initiator| domain.member_of(initiator))
            .map(number)
            .find(|heir| self.registered & (1 << heir) != 0);
        if let Some(heir) = heir.filter(|_| self.holder == member) {
            self.holder = heir;
        }
    }

    fn make_durable(&mut self, domain: Domain) {
        demand(self.oracle.durable(&self.durable, &domain));
        self.durable = domain;
    }
}

impl World {
    /// A head starts: from what is durable.
    pub fn start_head(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let open = self.plan.plant == Some(Plant::OpenAtStart);
        let head = &mut self.heads[at];
        head.up = true;
        head.life += 1;
        let fenced = set(head.durable.state.fenced.keys());
        head.gate = [if open { 0 } else { fenced }; VOLUMES];
        head.registered &= !fenced;
        head.coordinator = Coordinator::resume(head.durable.clone(), now_ms + head.clock_ms);
        head.seen = [0; NAMES.len()];
        head.unfencing = 0;
        head.wake_ms = u64::MAX;
        let life = head.life;
        self.push(POLL_MS, Event::Poll { head: at, life });
        self.carry_out(at);
    }

    /// A head dies, with what is on its way to the disks landing or not.
    pub fn crash_head(&mut self, at: usize) {
        let ios = std::mem::take(&mut self.heads[at].ios);
        for io in ios {
            if self.random.permille(500) {
                demand(self.heads[at].oracle.landed(io.member, self.now_ms));
            }
        }
        let took = self.random.permille(500);
        let head = &mut self.heads[at];
        head.up = false;
        head.drains.clear();
        if let Some(maybe) = head.maybe.take()
            && took
        {
            head.make_durable(maybe);
        }
    }

    /// Gives an input to a head's coordinator, and carries out what it says.
    pub fn give(&mut self, at: usize, input: Input) {
        let head = &mut self.heads[at];
        let now_ms = self.now_ms + head.clock_ms;
        head.coordinator.handle(input, now_ms);
        self.carry_out(at);
    }

    fn carry_out(&mut self, at: usize) {
        while let Some(action) = self.heads[at].coordinator.poll() {
            self.steps += 1;
            self.trace(|| format!("head {at}: {action:?}"));
            let head = &mut self.heads[at];
            demand(
                head.oracle
                    .told(&action, head.coordinator.domain(), head.can_write()),
            );
            self.act(at, action);
        }
        let head = &mut self.heads[at];
        let next_ms = head.coordinator.next_wake_ms();
        if let Some(next_ms) = next_ms.map(|at_ms| at_ms.saturating_sub(head.clock_ms)) {
            let next_ms = next_ms.max(self.now_ms + 1);
            if next_ms < head.wake_ms {
                head.wake_ms = next_ms;
                let life = head.life;
                self.push(next_ms - self.now_ms, Event::Wake { head: at, life });
            }
        }
    }

    /// An answer to an action, later.
    fn later(&mut self, at: usize, least_ms: u64, most_ms: u64, input: Input) {
        let delay_ms = self.random.within(least_ms, most_ms);
        let life = self.heads[at].life;
        self.push(
            delay_ms,
            Event::Input {
                head: at,
                life,
                input: Box::new(input),
            },
        );
    }

    fn act(&mut self, at: usize, action: Action) {
        let faults = self.plan.faults;
        match action {
            Action::Survey { ticket } => {
                let failed = self.random.permille(self.now(faults.survey));
                let head = &self.heads[at];
                let survey = if failed {
                    Err("a volume is not ready".to_owned())
                } else {
                    Ok(Survey {
                        registered: names(head.registered),
                        holds: [(NAMES[head.holder].to_owned(), VOLUMES as u32)].into(),
                    })
                };
                self.later(at, 0, 30, Input::Surveyed { ticket, survey });
            }
            Action::AskQuorum { ticket, ask } => {
                let none = Input::Asked {
                    ticket,
                    answer: Err("no answer".to_owned()),
                };
                self.later(at, QUORUM_LIMIT_MS, QUORUM_LIMIT_MS, none);
                self.send_to_quorum(at, Some(ticket), QuorumRequest::Ask(ask));
            }
            Action::ProbeQuorum { ticket } => {
                let none = Input::Probed {
                    ticket,
                    answer: Err("no answer".to_owned()),
                };
                self.later(at, QUORUM_LIMIT_MS, QUORUM_LIMIT_MS, none);
                self.send_to_quorum(at, Some(ticket), QuorumRequest::Read);
            }
            Action::TellQuorum { verdict } => {
                self.send_to_quorum(at, None, QuorumRequest::Tell(verdict));
            }
            Action::CloseQuorum { epoch } => {
                let by = self.heads[at].durable.uuid;
                self.send_to_quorum(at, None, QuorumRequest::Close { by, epoch });
            }
            Action::Commit { ticket, domain } => self.commit(at, ticket, *domain),
            Action::Revoke { ticket, member } => self.revoke(at, ticket, number(&member)),
            Action::Restore { ticket, member } => {
                let failed = self.random.permille(self.now(faults.access));
                let member = number(&member);
                let life = self.heads[at].life;
                // In parts, as a fence that comes meanwhile would see it.
                for volume in 0..VOLUMES {
                    let delay_ms = self.random.within(0, 40);
                    self.push(
                        delay_ms,
                        Event::RestoreVolume {
                            head: at,
                            life,
                            member,
                            volume,
                        },
                    );
                }
                let result = if failed {
                    Err("a volume is not ready".to_owned())
                } else {
                    Ok(())
                };
                self.later(at, 41, 200, Input::Restored { ticket, result });
            }
            Action::Execute {
                ticket,
                member,
                method,
                timeout_ms,
                ..
            } => self.execute(at, ticket, number(&member), &method, timeout_ms),
            Action::Reply { id, member, reply } => {
                let told = match reply {
                    Reply::Claim(answer) => Told::Answer(answer),
                    Reply::ClaimRefused(_) => Told::Refused,
                    _ => return,
                };
                let Some(member) = member.filter(|name| NAMES.contains(&name.as_str())) else {
                    return;
                };
                let head = &mut self.heads[at];
                let slot = number(&member);
                // The mailbox answers what the slot asks; an answer to an old claim is of no use to anybody.
                if head.slots[slot]
                    .claim
                    .as_ref()
                    .is_some_and(|claim| claim.id == id)
                {
                    head.area.answers[slot] = Some((id, told));
                }
                self.show_area(at);
            }
            Action::Event(_) => {}
        }
    }

    fn commit(&mut self, at: usize, ticket: u64, domain: Domain) {
        let lying = self.plan.plant == Some(Plant::LyingCommit) && self.random.permille(300);
        let failed = self.random.permille(self.now(self.plan.faults.commit));
        let (unknown, took) = (self.random.permille(500), self.random.permille(500));
        let head = &mut self.heads[at];
        if head.maybe.as_ref().is_some_and(|maybe| *maybe != domain) {
            crate::oracle::violation("another document is written while one may be durable");
        }
        let outcome = if lying {
            CommitOutcome::Done
        } else if !failed {
            head.maybe = None;
            head.make_durable(domain);
            CommitOutcome::Done
        } else if unknown {
            if took {
                head.make_durable(domain.clone());
            }
            head.maybe = Some(domain);
            CommitOutcome::Unknown("devices are gone".into())
        } else {
            CommitOutcome::Failed("devices are gone".into())
        };
        self.later(at, 1, 40, Input::Committed { ticket, outcome });
    }

    fn revoke(&mut self, at: usize, ticket: u64, member: usize) {
        let life = self.heads[at].life;
        if self.random.permille(self.now(self.plan.faults.access)) {
            let result = Err("a private region refuses".to_owned());
            return self.later(at, 1, 100, Input::Revoked { ticket, result });
        }
        let spare = self.plan.plant == Some(Plant::OneVolumeLeft);
        let head = &mut self.heads[at];
        head.registered &= !(1 << member);
        head.pass_on(member);
        let mut drain = Drain {
            ticket,
            member,
            closing: 0,
            not_served: 0,
        };
        for volume in 0..VOLUMES {
            if !head.served[volume] {
                drain.not_served |= 1 << volume;
            } else if !(spare && volume == 1) {
                drain.closing |= 1 << volume;
            }
        }
        let closing = drain.closing;
        head.drains.push(drain);
        for volume in (0..VOLUMES).filter(|volume| closing & (1 << volume) != 0) {
            let delay_ms = self.random.within(0, 60);
            self.push(
                delay_ms,
                Event::RevokeVolume {
                    head: at,
                    life,
                    ticket,
                    volume,
                },
            );
        }
        self.drained(at);
    }

    /// A volume's gate closes for a member.
    pub fn close_gate(&mut self, at: usize, ticket: u64, volume: usize) {
        let head = &mut self.heads[at];
        let mut drains = head.drains.iter_mut();
        if let Some(drain) = drains.find(|drain| drain.ticket == ticket) {
            drain.closing &= !(1 << volume);
            head.gate[volume] |= 1 << drain.member;
        }
        self.drained(at);
    }

    /// Ends the revocations whose gates are closed and whose writes have landed.
    pub fn drained(&mut self, at: usize) {
        let no_drain = self.plan.plant == Some(Plant::NoDrain);
        let head = &mut self.heads[at];
        let ios = &head.ios;
        let mut done = Vec::new();
        head.drains.retain(|drain| {
            let busy = !no_drain && ios.iter().any(|io| io.member == drain.member);
            let ended = drain.closing == 0 && !busy;
            if ended {
                done.push((drain.ticket, drain.not_served));
            }
            !ended
        });
        for (ticket, not_served) in done {
            let volumes = (0..VOLUMES).filter(|volume| not_served & (1 << volume) != 0);
            let not_served = volumes.map(|volume| format!("v{volume}")).collect();
            let result = Ok(Revoked { not_served });
            self.later(at, 0, 10, Input::Revoked { ticket, result });
        }
    }

    fn execute(&mut self, at: usize, ticket: u64, member: usize, method: &Method, limit_ms: u64) {
        let failed = self.random.permille(self.now(self.plan.faults.method));
        let silent = failed && self.random.permille(300);
        let kills = matches!(method, Method::Stonith { .. });
        if failed && !silent {
            let result = Err("it failed".to_owned());
            return self.later(at, 1, limit_ms, Input::Executed { ticket, result });
        }
        // Too late for the coordinator, or in time.
        let (least_ms, most_ms) = if silent {
            (limit_ms + 5_000, limit_ms + 20_000)
        } else {
            (1, limit_ms)
        };
        if kills {
            let delay_ms = self.random.within(0, least_ms.saturating_sub(1));
            self.push(delay_ms, Event::Kill(member));
        }
        let result = Ok("done".to_owned());
        self.later(at, least_ms, most_ms, Input::Executed { ticket, result });
    }

    /// A head looks at the mailbox, and shows what is.
    pub fn poll_mailbox(&mut self, at: usize) {
        self.heads[at].beat += 1;
        for (member, name) in NAMES.into_iter().enumerate().take(self.plan.members) {
            let head = &self.heads[at];
            let Slot {
                claim,
                wants_unfence,
                incarnation,
            } = head.slots[member].clone();
            let incarnation_id = uuid::Uuid::from_u128(u128::from(incarnation));
            if incarnation != 0 && head.seen[member] != incarnation {
                self.heads[at].seen[member] = incarnation;
                self.give(
                    at,
                    Input::Incarnation {
                        member: name.to_owned(),
                        incarnation: incarnation_id,
                    },
                );
            }
            let head = &self.heads[at];
            let answered = head.area.answers[member].as_ref().map(|(id, _)| *id);
            if let Some(claim) = claim.filter(|claim| Some(claim.id) != answered) {
                self.give(at, Input::Claim(claim));
            }
            let head = &self.heads[at];
            let bit = 1 << member;
            let may = head.coordinator.may_return(name, incarnation_id);
            if wants_unfence && may && head.unfencing & bit == 0 {
                self.heads[at].unfencing |= bit;
                self.ask_unfence(at, member);
            }
        }
        self.show_area(at);
        let life = self.heads[at].life;
        self.push(POLL_MS, Event::Poll { head: at, life });
    }

    /// Somebody asks for the end of a fence.
    pub fn ask_unfence(&mut self, at: usize, member: usize) {
        let id = self.fresh_id();
        self.heads[at].oracle.leave_asked |= 1 << member;
        let member = NAMES[member].to_owned();
        self.give(at, Input::Unfence { id, member });
    }

    fn show_area(&mut self, at: usize) {
        let head = &mut self.heads[at];
        let domain = head.coordinator.domain();
        head.area.epoch = domain.state.epoch;
        head.area.fenced = set(domain.state.fenced.keys());
        head.area.registered = head.registered & !head.area.fenced;
        head.unfencing &= head.area.fenced;
    }
}
