//! Races, fences and unfencing.

use std::collections::BTreeSet;
use std::time::Duration;

use fencing::coordinator::{Input, Reply};
use fencing::{Claim, ClaimVerdict, Method};
use uuid::Uuid;

use super::super::Operations;
use super::{CHANGE_PATIENCE, check_methods, no_claim, refused, unexpected, wait, wrong};
use crate::control::model::{Domain, Fence, RaceVerdict};
use crate::control::server::Sink;
use crate::events::Operator;
use crate::failure::{Failure, FailureKind};

/// A race ends with its window and the fences of its losers, which go on until they are proven.
const RACE_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A claim as it was asked for.
pub(in crate::daemon::operations) struct Racing {
    pub(in crate::daemon::operations) member: String,
    pub(in crate::daemon::operations) with: Vec<String>,
    pub(in crate::daemon::operations) id: Uuid,
    pub(in crate::daemon::operations) epoch: Option<u64>,
}

fn left(name: &str) -> Failure {
    Failure::new(
        FailureKind::Unreachable,
        format!("nobody waits for {name} any more"),
    )
}

impl Operations {
    pub(in crate::daemon::operations) fn domain_race(
        &self,
        name: &str,
        racing: Racing,
        operator: &Operator,
        sink: &dyn Sink,
    ) -> Result<RaceVerdict, Failure> {
        let running = self.domain(name)?;
        let mut group: BTreeSet<String> = racing.with.into_iter().collect();
        group.insert(racing.member.clone());
        let mut epoch = racing.epoch;
        let mut id = racing.id;
        // A claim of an epoch that has just ended is made once more, for the one that is now.
        for again in [true, false] {
            let claim = Claim {
                id,
                member: racing.member.clone(),
                group: group.clone(),
                epoch: epoch.unwrap_or_else(|| running.domain().state.epoch),
            };
            running.claimed_by(id, operator);
            let answer = running.ask(id, Some(&racing.member), Input::Claim(claim));
            let reply = wait(&running, id, &answer, RACE_PATIENCE, || sink.is_gone())?;
            let verdict = match reply {
                Some(Reply::Claim(answer)) => answer,
                Some(Reply::ClaimRefused(refusal)) => return Err(no_claim(&refusal)),
                Some(other) => return Err(unexpected(&other)),
                None => return Err(left("the verdict")),
            };
            let told = match verdict.verdict {
                ClaimVerdict::Won => "won",
                ClaimVerdict::Lost => "lost",
                ClaimVerdict::Stale if again => {
                    epoch = Some(verdict.epoch);
                    id = Uuid::new_v4();
                    continue;
                }
                ClaimVerdict::Stale => break,
            };
            return Ok(RaceVerdict {
                domain: name.to_owned(),
                member: racing.member,
                verdict: told.to_owned(),
                epoch: verdict.epoch,
                winners: verdict.winners.into_iter().collect(),
                fenced: verdict.fenced.into_iter().collect(),
            });
        }
        Err(Failure::refused(format!(
            "domain {name} goes from epoch to epoch, and the claim of {} is too old each time",
            racing.member
        ))
        .advise(format!(
            "look at it with 'ringfence domain show {name}', then claim again"
        )))
    }

    pub(in crate::daemon::operations) fn fence(
        &self,
        name: &str,
        member: &str,
        methods: Vec<Method>,
        patience: Duration,
        operator: &Operator,
        sink: &dyn Sink,
    ) -> Result<Fence, Failure> {
        let running = self.domain(name)?;
        let domain = running.domain();
        domain.member(member).map_err(|error| wrong(&error))?;
        if !methods.is_empty() {
            domain
                .check_methods(member, &methods)
                .map_err(|error| wrong(&error))?;
            check_methods(&methods)?;
        }
        let id = Uuid::new_v4();
        running.asked_by(member, operator);
        let input = Input::Fence {
            id,
            member: member.to_owned(),
            methods: (!methods.is_empty()).then_some(methods),
        };
        let answer = running.ask(id, None, input);
        match wait(&running, id, &answer, patience, || sink.is_gone())? {
            Some(Reply::Fenced(done)) => Ok(Fence {
                domain: name.to_owned(),
                member: done.member,
                epoch: done.epoch,
                proven: done.method.public_name(),
                not_served: done.not_served.into_iter().collect(),
            }),
            Some(Reply::Refused(error)) => Err(refused(&error)),
            Some(other) => Err(unexpected(&other)),
            None => Err(Failure::failed(format!(
                "the fence of {member} in domain {name} is not proven after {} s; it goes on",
                patience.as_secs()
            ))
            .advise(format!(
                "'ringfence domain show {name}' and 'ringfence events' tell how far it is; until it is proven, take it for able to write"
            ))),
        }
    }

    pub(in crate::daemon::operations) fn unfence(
        &self,
        name: &str,
        member: &str,
        operator: &Operator,
    ) -> Result<Domain, Failure> {
        let running = self.domain(name)?;
        let domain = running.domain();
        domain.member(member).map_err(|error| wrong(&error))?;
        let id = Uuid::new_v4();
        running.asked_by(member, operator);
        let input = Input::Unfence {
            id,
            member: member.to_owned(),
        };
        let answer = running.ask(id, None, input);
        match wait(&running, id, &answer, CHANGE_PATIENCE, || false)? {
            Some(Reply::Unfenced { .. }) => self.describe_domain(&running),
            Some(Reply::Refused(error)) => Err(refused(&error)),
            Some(other) => Err(unexpected(&other)),
            None => Err(Failure::failed(format!(
                "{member} was not unfenced within {} s",
                CHANGE_PATIENCE.as_secs()
            ))
            .advise("a device may hang: see 'ringfence device list' and 'ringfence events'")),
        }
    }
}
