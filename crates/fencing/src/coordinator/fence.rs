//! Carrying fences out: access first, then the methods in order, until one is proven; and giving access back.

use std::collections::{BTreeSet, VecDeque};

use uuid::Uuid;

use super::{Action, Coordinator, Event, FenceDone, Proof, Reply, Revoked, pause_ms};
use crate::domain::Domain;
use crate::method::Method;

/// Least and greatest pause before access is taken away or given back again, in milliseconds.
const ACCESS_AGAIN_MS: (u64, u64) = (250, 10_000);
/// Least and greatest pause before all methods are tried again, in milliseconds.
const ROUND_AGAIN_MS: (u64, u64) = (1_000, 60_000);
/// Pause before a method is tried again, in milliseconds.
const ATTEMPT_AGAIN_MS: u64 = 1_000;
/// How much longer than its limit an attempt is waited for, in milliseconds: it ends by itself.
const ATTEMPT_GRACE_MS: u64 = 5_000;
/// How many attempts that were given up may still prove the fence late.
const MOST_GIVEN_UP: usize = 16;

/// A fence that is not proven.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Work {
    step: Step,
    /// Access is gone, durable and drained, but for volumes that are served to nobody.
    not_served: Option<BTreeSet<String>>,
    /// How often taking the access away has failed.
    failures: u32,
    /// How often all methods have failed.
    rounds: u32,
    /// Attempts that were not waited for any longer, and their methods.
    given_up: VecDeque<(u64, Method)>,
    /// Requests that wait for the proof.
    waiters: Vec<Uuid>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Access is to be taken away now, or at this time.
    Revoke { at_ms: Option<u64> },
    /// Access is being taken away.
    Revoking { ticket: u64 },
    /// A method is to be tried, at this time or now.
    Try {
        method: usize,
        attempt: u32,
        at_ms: Option<u64>,
    },
    /// A method is being tried.
    Trying {
        ticket: u64,
        method: usize,
        attempt: u32,
        until_ms: u64,
    },
    /// A method has worked: it is to be committed.
    Proven { method: Method, proof: Proof },
}

impl Work {
    fn new() -> Self {
        Self {
            step: Step::Revoke { at_ms: None },
            not_served: None,
            failures: 0,
            rounds: 0,
            given_up: VecDeque::new(),
            waiters: Vec::new(),
        }
    }

    pub fn wake_ms(&self) -> Option<u64> {
        match self.step {
            Step::Revoke { at_ms } | Step::Try { at_ms, .. } => at_ms,
            Step::Trying { until_ms, .. } => Some(until_ms),
            Step::Revoking { .. } | Step::Proven { .. } => None,
        }
    }
}

/// A member that is being given its access again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Restoring {
    ticket: u64,
    /// The epoch in which it was unfenced.
    epoch: u64,
    again_at_ms: Option<u64>,
    failures: u32,
    waiters: Vec<Uuid>,
}

impl Restoring {
    pub fn wake_ms(&self) -> Option<u64> {
        self.again_at_ms
    }
}

/// How far the fence of a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceStatus {
    /// Its access is gone, durable and drained.
    pub access_gone: bool,
    /// Volumes that are served to nobody and get the fence when they come up.
    pub not_served: BTreeSet<String>,
    /// The method that is being tried, without its options, and the attempt.
    pub trying: Option<(String, u32)>,
    /// How often all methods have failed.
    pub rounds_failed: u32,
}

impl Coordinator {
    /// How far the fence of a member is that is not proven; `None` for others.
    pub fn fence_status(&self, member: &str) -> Option<FenceStatus> {
        let work = self.works.get(member)?;
        let trying = match &work.step {
            Step::Trying {
                method, attempt, ..
            } => self
                .method(member, *method)
                .map(|method| (method.public_name(), *attempt)),
            _ => None,
        };
        Some(FenceStatus {
            access_gone: work.not_served.is_some(),
            not_served: work.not_served.clone().unwrap_or_default(),
            trying,
            rounds_failed: work.rounds,
        })
    }

    /// After a restart: every fence that is not proven is carried out.
    pub(super) fn take_up_fences(&mut self) {
        for (member, fenced) in &self.domain.state.fenced {
            if fenced.proven.is_none() {
                self.works.insert(member.clone(), Work::new());
            }
        }
    }

    /// After a commit: new fences are carried out.
    pub(super) fn begin_fences(&mut self, before: &Domain) {
        for (member, fenced) in &self.domain.state.fenced {
            let known = before.state.fenced.get(member);
            if known.is_some_and(|known| known.epoch == fenced.epoch) {
                continue;
            }
            let mut work = Work::new();
            if let Some(earlier) = self.works.remove(member) {
                work.waiters = earlier.waiters;
            }
            self.works.insert(member.clone(), work);
            self.actions.push_back(Action::Event(Event::Fenced {
                member: member.clone(),
                epoch: fenced.epoch,
                cause: fenced.cause,
            }));
        }
    }

    /// Lets a request wait for the proof.
    pub(super) fn wait_for_fence(&mut self, id: Uuid, member: &str) {
        if let Some(work) = self.works.get_mut(member) {
            work.waiters.push(id);
        } else if let Some((epoch, method)) = self.proof_of(member) {
            self.reply(
                id,
                Reply::Fenced(FenceDone {
                    member: member.to_owned(),
                    epoch,
                    method,
                    not_served: BTreeSet::new(),
                }),
            );
        }
    }

    fn proof_of(&self, member: &str) -> Option<(u64, Method)> {
        let fenced = self.domain.state.fenced.get(member)?;
        Some((fenced.epoch, fenced.proven.clone()?))
    }

    fn method(&self, member: &str, place: usize) -> Option<&Method> {
        self.domain.state.fenced.get(member)?.methods.get(place)
    }

    /// Begins what is due.
    pub(super) fn advance_fences(&mut self, now_ms: u64) {
        let due = |at_ms: Option<u64>| at_ms.is_none_or(|at_ms| at_ms <= now_ms);
        let again: Vec<String> = self
            .restoring
            .iter()
            .filter(|(_, restoring)| restoring.again_at_ms.is_some_and(|at_ms| at_ms <= now_ms))
            .map(|(member, _)| member.clone())
            .collect();
        for member in again {
            self.send_restore(&member);
        }
        let members: Vec<String> = self.works.keys().cloned().collect();
        for member in members {
            // A method that proves itself, and one that is given up, are followed by another step at once.
            while let Some(work) = self.works.get(&member) {
                match work.step {
                    Step::Revoke { at_ms } if due(at_ms) => {
                        // Whoever gives access must have finished before it is taken away, or it would be the last.
                        if self.restoring.contains_key(&member) {
                            break;
                        }
                        self.send_revoke(&member);
                    }
                    Step::Try {
                        method,
                        attempt,
                        at_ms,
                    } if due(at_ms) => self.try_method(&member, method, attempt, now_ms),
                    Step::Trying {
                        ticket,
                        method,
                        attempt,
                        until_ms,
                    } if until_ms <= now_ms => {
                        self.give_up(&member, ticket, method);
                        let reason = "it has not ended in time".to_owned();
                        self.attempt_failed(&member, method, attempt, reason, now_ms);
                    }
                    _ => break,
                }
            }
        }
    }

    fn send_revoke(&mut self, member: &str) {
        let ticket = self.ticket();
        if let Some(work) = self.works.get_mut(member) {
            work.step = Step::Revoking { ticket };
        }
        let member = member.to_owned();
        self.act(Action::Revoke { ticket, member });
    }

    fn try_method(&mut self, member: &str, place: usize, attempt: u32, now_ms: u64) {
        let Some(method) = self.method(member, place).cloned() else {
            return self.round_failed(member, now_ms);
        };
        let ticket = self.ticket();
        let Some(work) = self.works.get_mut(member) else {
            return;
        };
        if method == Method::Reservation {
            let missing = work.not_served.clone().unwrap_or_default();
            let mut proof =
                "its registrations are removed, durably, and its commands have ended".to_owned();
            if !missing.is_empty() {
                let names: Vec<String> = missing.into_iter().collect();
                proof = format!("{proof}; not served to anybody: {}", names.join(", "));
            }
            work.step = Step::Proven { method, proof };
            return;
        }
        let timeout_ms = u64::from(self.domain.attempt_timeout_ms);
        work.step = Step::Trying {
            ticket,
            method: place,
            attempt,
            until_ms: now_ms.saturating_add(timeout_ms + ATTEMPT_GRACE_MS),
        };
        self.event(Event::Attempt {
            member: member.to_owned(),
            method: method.public_name(),
            attempt,
        });
        self.act(Action::Execute {
            ticket,
            member: member.to_owned(),
            method,
            attempt,
            timeout_ms,
        });
    }

    fn give_up(&mut self, member: &str, ticket: u64, place: usize) {
        let method = self.method(member, place).cloned();
        if let (Some(work), Some(method)) = (self.works.get_mut(member), method) {
            work.given_up.push_back((ticket, method));
            if work.given_up.len() > MOST_GIVEN_UP {
                work.given_up.pop_front();
            }
        }
    }

    fn attempt_failed(
        &mut self,
        member: &str,
        place: usize,
        attempt: u32,
        reason: String,
        now_ms: u64,
    ) {
        let method = self.method(member, place).map(Method::public_name);
        self.event(Event::AttemptFailed {
            member: member.to_owned(),
            method: method.unwrap_or_default(),
            attempt,
            reason,
        });
        let more = attempt < u32::from(self.domain.attempts);
        if let Some(work) = self.works.get_mut(member) {
            work.step = if more {
                Step::Try {
                    method: place,
                    attempt: attempt + 1,
                    at_ms: Some(now_ms.saturating_add(ATTEMPT_AGAIN_MS)),
                }
            } else {
                Step::Try {
                    method: place + 1,
                    attempt: 1,
                    at_ms: None,
                }
            };
        }
    }

    fn round_failed(&mut self, member: &str, now_ms: u64) {
        let Some(work) = self.works.get_mut(member) else {
            return;
        };
        work.rounds = work.rounds.saturating_add(1);
        let (least, most) = ROUND_AGAIN_MS;
        let again_in_ms = pause_ms(work.rounds, least, most);
        work.step = Step::Try {
            method: 0,
            attempt: 1,
            at_ms: Some(now_ms.saturating_add(again_in_ms)),
        };
        self.event(Event::FenceNotProven {
            member: member.to_owned(),
            again_in_ms,
        });
    }

    pub(super) fn revoked(&mut self, ticket: u64, result: Result<Revoked, String>, now_ms: u64) {
        let mut works = self.works.iter_mut();
        let Some((member, work)) = works.find(|(_, work)| work.step == Step::Revoking { ticket })
        else {
            return;
        };
        let member = member.clone();
        match result {
            Ok(Revoked { not_served }) => {
                work.not_served = Some(not_served.clone());
                work.step = Step::Try {
                    method: 0,
                    attempt: 1,
                    at_ms: None,
                };
                self.event(Event::Revoked { member, not_served });
            }
            Err(reason) => {
                work.failures = work.failures.saturating_add(1);
                let (least, most) = ACCESS_AGAIN_MS;
                let pause = pause_ms(work.failures, least, most);
                work.step = Step::Revoke {
                    at_ms: Some(now_ms.saturating_add(pause)),
                };
                self.event(Event::RevokeFailed { member, reason });
            }
        }
    }

    pub(super) fn executed(&mut self, ticket: u64, result: Result<Proof, String>, now_ms: u64) {
        for member in self.works.keys().cloned().collect::<Vec<_>>() {
            let Some(work) = self.works.get_mut(&member) else {
                continue;
            };
            let current = match work.step {
                Step::Trying {
                    ticket: tried,
                    method,
                    attempt,
                    ..
                } if tried == ticket => Some((method, attempt)),
                _ => None,
            };
            let mut late = work.given_up.iter();
            let late = late.find(|(given_up, _)| *given_up == ticket);
            let late = late.map(|(_, method)| method.clone());
            let proven = matches!(work.step, Step::Proven { .. });
            match (&result, current, late) {
                (Err(reason), Some((method, attempt)), _) => {
                    self.attempt_failed(&member, method, attempt, reason.clone(), now_ms);
                }
                (Ok(proof), Some((method, _)), _) => {
                    let Some(method) = self.method(&member, method).cloned() else {
                        continue;
                    };
                    self.prove(&member, method, proof.clone());
                }
                // It was given up and has worked after all: of this fence, so it proves it.
                (Ok(proof), None, Some(method)) if !proven => {
                    self.prove(&member, method, proof.clone());
                }
                _ => {}
            }
        }
    }

    fn prove(&mut self, member: &str, method: Method, proof: Proof) {
        if let Some(work) = self.works.get_mut(member) {
            work.step = Step::Proven { method, proof };
        }
    }

    /// Whether there is a proof to be committed.
    pub(super) fn has_news_of_proof(&self) -> bool {
        let mut works = self.works.values();
        works.any(|work| matches!(work.step, Step::Proven { .. }))
    }

    /// Enters every proof that there is of fences that are durable, and remain as they are in `next`.
    pub(super) fn enter_proofs(&self, next: &mut Domain) {
        for (member, work) in &self.works {
            let durable = self.domain.state.fenced.get(member);
            let fenced = next.state.fenced.get_mut(member);
            if let (Step::Proven { method, .. }, Some(durable), Some(fenced)) =
                (&work.step, durable, fenced)
                && durable.epoch == fenced.epoch
            {
                fenced.proven = Some(method.clone());
            }
        }
    }

    /// After a commit: whoever waits for a proof that is durable now is told.
    pub(super) fn finish_proofs(&mut self) {
        for member in self.works.keys().cloned().collect::<Vec<_>>() {
            let Some((epoch, method)) = self.proof_of(&member) else {
                continue;
            };
            let Some(work) = self.works.remove(&member) else {
                continue;
            };
            let proof = match work.step {
                Step::Proven { proof, .. } => proof,
                _ => String::new(),
            };
            self.event(Event::Proven {
                member: member.clone(),
                method: method.public_name(),
                proof,
            });
            let done = FenceDone {
                member,
                epoch,
                method,
                not_served: work.not_served.unwrap_or_default(),
            };
            for id in work.waiters {
                self.reply(id, Reply::Fenced(done.clone()));
            }
        }
    }

    /// Gives a member its access again.
    pub(super) fn restore(&mut self, id: Uuid, member: String) {
        let restoring = Restoring {
            ticket: 0,
            epoch: self.domain.state.epoch,
            again_at_ms: None,
            failures: 0,
            waiters: vec![id],
        };
        self.restoring.insert(member.clone(), restoring);
        self.send_restore(&member);
    }

    /// Lets a request wait until the member has access, where it is on its way. Says whether it is.
    pub(super) fn wait_for_access(&mut self, id: Uuid, member: &str) -> bool {
        let restoring = self.restoring.get_mut(member);
        restoring
            .map(|restoring| restoring.waiters.push(id))
            .is_some()
    }

    fn send_restore(&mut self, member: &str) {
        let ticket = self.ticket();
        if let Some(restoring) = self.restoring.get_mut(member) {
            restoring.ticket = ticket;
            restoring.again_at_ms = None;
            let member = member.to_owned();
            self.act(Action::Restore { ticket, member });
        }
    }

    pub(super) fn restored(&mut self, ticket: u64, result: Result<(), String>, now_ms: u64) {
        let mut all = self.restoring.iter_mut();
        let Some((member, restoring)) = all
            .find(|(_, restoring)| restoring.ticket == ticket && restoring.again_at_ms.is_none())
        else {
            return;
        };
        let member = member.clone();
        // Fenced again meanwhile: that waits for this, and takes it away again.
        let moot = self.works.contains_key(&member);
        if result.is_err() && !moot {
            restoring.failures = restoring.failures.saturating_add(1);
            let (least, most) = ACCESS_AGAIN_MS;
            let pause = pause_ms(restoring.failures, least, most);
            restoring.again_at_ms = Some(now_ms.saturating_add(pause));
            return;
        }
        let Some(done) = self.restoring.remove(&member) else {
            return;
        };
        for id in done.waiters {
            let (member, epoch) = (member.clone(), done.epoch);
            self.reply(id, Reply::Unfenced { member, epoch });
        }
    }
}
