//! A head for one coordinator: carries its actions out, with what goes wrong chosen by the test.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::claim::{Claim, ClaimAnswer, ClaimVerdict};
use crate::coordinator::{Action, CommitOutcome, Coordinator, Event, Input, Reply, Revoked};
use crate::domain::{Domain, Quorum, QuorumPlace};
use crate::method::Method;
use crate::quorum::QuorumRegister;
use crate::testing;
use crate::votes::Survey;

pub struct Scene {
    pub coordinator: Coordinator,
    pub now_ms: u64,
    pub survey: Survey,
    /// `None` while it cannot be reached.
    pub register: Option<QuorumRegister>,
    /// How the next commits end; then they are done.
    pub commits: Vec<CommitOutcome>,
    /// Methods that fail, or that never answer.
    pub failing: BTreeSet<String>,
    pub silent: BTreeSet<String>,
    /// Members whose revocation is not answered.
    pub stuck: BTreeSet<String>,
    pub durable: Domain,
    pub replies: BTreeMap<Uuid, Vec<Reply>>,
    pub events: Vec<Event>,
    /// Everything that was to be done, in words.
    pub log: Vec<String>,
    pub held: Vec<Action>,
}

pub fn group(text: &str) -> BTreeSet<String> {
    text.chars().map(String::from).collect()
}

pub fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub fn quorum(votes: Option<u32>) -> Quorum {
    Quorum {
        place: QuorumPlace::Server {
            address: "192.0.2.1:1".into(),
            name: None,
        },
        votes,
    }
}

impl Scene {
    /// Members of one letter and one vote each, all registered; a quorum device with its default votes if `device`.
    pub fn new(members: &str, device: bool) -> Self {
        let names: Vec<String> = members.chars().map(String::from).collect();
        let mut domain = testing::domain(&names.iter().map(String::as_str).collect::<Vec<_>>());
        domain.quorum = device.then(|| quorum(None));
        Self::of(domain, group(members))
    }

    pub fn of(domain: Domain, registered: BTreeSet<String>) -> Self {
        let mut scene = Self {
            coordinator: Coordinator::resume(domain.clone(), 0),
            now_ms: 0,
            survey: Survey {
                registered,
                holds: BTreeMap::new(),
            },
            register: Some(QuorumRegister::default()),
            commits: Vec::new(),
            failing: BTreeSet::new(),
            silent: BTreeSet::new(),
            stuck: BTreeSet::new(),
            durable: domain,
            replies: BTreeMap::new(),
            events: Vec::new(),
            log: Vec::new(),
            held: Vec::new(),
        };
        scene.run();
        scene
    }

    pub fn methods(mut self, member: &str, methods: &[&str]) -> Self {
        let methods = methods.iter().map(|text| text.parse::<Method>().unwrap());
        self.durable.members.get_mut(member).unwrap().methods = methods.collect();
        self.restart();
        self
    }

    /// The daemon dies and starts again.
    pub fn restart(&mut self) {
        self.held.clear();
        self.log.push("restart".into());
        self.coordinator = Coordinator::resume(self.durable.clone(), self.now_ms);
        self.run();
    }

    pub fn give(&mut self, input: Input) {
        self.coordinator.handle(input, self.now_ms);
        self.run();
    }

    pub fn claim(&mut self, number: u128, member: &str, with: &str) {
        let epoch = self.coordinator.domain().state.epoch;
        self.claim_in(number, member, with, epoch);
    }

    pub fn claim_in(&mut self, number: u128, member: &str, with: &str, epoch: u64) {
        self.give(Input::Claim(Claim {
            id: id(number),
            member: member.into(),
            group: group(with),
            epoch,
        }));
    }

    pub fn fence(&mut self, number: u128, member: &str, methods: Option<&str>) {
        let methods = methods.map(|text| vec![text.parse().unwrap()]);
        let member = member.to_owned();
        let id = id(number);
        self.give(Input::Fence {
            id,
            member,
            methods,
        });
    }

    pub fn unfence(&mut self, number: u128, member: &str) {
        self.give(Input::Unfence {
            id: id(number),
            member: member.into(),
        });
    }

    /// Time passes, with every wake-up on its way.
    pub fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(wake_ms) = self.coordinator.next_wake_ms().filter(|at| *at <= until_ms) {
            self.now_ms = wake_ms.max(self.now_ms);
            self.give(Input::Time);
            let again = self.coordinator.next_wake_ms();
            assert!(
                again.is_none_or(|at| at > self.now_ms),
                "it wakes again and again"
            );
        }
        self.now_ms = until_ms;
        self.give(Input::Time);
    }

    pub fn run(&mut self) {
        while let Some(action) = self.coordinator.poll() {
            if let Some(input) = self.carry_out(action) {
                self.coordinator.handle(input, self.now_ms);
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Survey { ticket } => Some(Input::Surveyed {
                ticket,
                survey: Ok(self.survey.clone()),
            }),
            Action::AskQuorum { ticket, ask } => {
                let gone = || "gone".to_owned();
                let answer = self.register.as_mut().ok_or_else(gone).map(|register| {
                    let (answer, next) = register.grant(&ask);
                    *register = next;
                    answer
                });
                self.log.push("ask".into());
                Some(Input::Asked { ticket, answer })
            }
            Action::ProbeQuorum { ticket } => Some(Input::Probed {
                ticket,
                answer: self.register.clone().ok_or_else(|| "gone".to_owned()),
            }),
            Action::TellQuorum { verdict } => {
                self.register = self.register.as_ref().map(|known| known.tell(&verdict));
                None
            }
            Action::CloseQuorum { epoch } => {
                let by = self.durable.uuid;
                self.register = self.register.as_ref().map(|known| known.close(by, epoch));
                None
            }
            Action::Commit { ticket, domain } => {
                domain.check().unwrap();
                assert!(domain.state.epoch >= self.durable.state.epoch);
                self.log.push(format!("commit {}", domain.state.epoch));
                let outcome = if self.commits.is_empty() {
                    CommitOutcome::Done
                } else {
                    self.commits.remove(0)
                };
                if outcome == CommitOutcome::Done {
                    self.durable = *domain;
                }
                Some(Input::Committed { ticket, outcome })
            }
            Action::Revoke { ticket, ref member } => {
                assert!(self.durable.is_fenced(member));
                self.log.push(format!("revoke {member}"));
                if self.stuck.contains(member) {
                    self.held.push(action);
                    return None;
                }
                let result = Ok(Revoked::default());
                Some(Input::Revoked { ticket, result })
            }
            Action::Execute {
                ticket,
                ref member,
                ref method,
                attempt,
                ..
            } => {
                let method = method.to_string();
                self.log.push(format!("{method} {member} {attempt}"));
                if self.silent.contains(&method) {
                    self.held.push(action);
                    return None;
                }
                let result = if self.failing.contains(&method) {
                    Err("it failed".into())
                } else {
                    Ok("off".into())
                };
                Some(Input::Executed { ticket, result })
            }
            Action::Restore { ticket, member } => {
                self.log.push(format!("restore {member}"));
                let result = Ok(());
                Some(Input::Restored { ticket, result })
            }
            Action::Reply { id, reply, .. } => {
                self.log.push(format!("reply {}", id.as_u128()));
                self.replies.entry(id).or_default().push(reply);
                None
            }
            Action::Event(event) => {
                self.events.push(event);
                None
            }
        }
    }

    pub fn answer(&self, number: u128) -> Option<&ClaimAnswer> {
        match self.replies.get(&id(number))?.last()? {
            Reply::Claim(answer) => Some(answer),
            _ => None,
        }
    }

    pub fn verdict(&self, number: u128) -> Option<ClaimVerdict> {
        self.answer(number).map(|answer| answer.verdict)
    }

    pub fn reply(&self, number: u128) -> Option<&Reply> {
        self.replies.get(&id(number))?.last()
    }
}
