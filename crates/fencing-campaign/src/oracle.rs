//! What must hold after every event.

use std::collections::{BTreeMap, BTreeSet};

use fencing::{Action, ClaimAnswer, ClaimVerdict, Domain, QuorumRegister, Verdict};
use uuid::Uuid;

use crate::plan::{names, number};
use fencing::coordinator::Reply;

/// Ends the history: something that was promised does not hold.
///
/// # Panics
/// Always; the harness catches it and prints the seed.
pub fn violation(problem: &str) -> ! {
    panic!("VIOLATION {problem}")
}

/// The same, with what a check says.
///
/// # Panics
/// When it does not hold.
pub fn demand(result: Result<(), String>) {
    if let Err(problem) = result {
        violation(&problem);
    }
}

/// What is known of one domain, from what was told and what was durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Oracle {
    /// Who was told to be fenced with proof, to a winner or to whoever asked for it, and not unfenced since.
    pub promised: u8,
    /// Every verdict that was durable once, by epoch.
    verdicts: BTreeMap<u64, Verdict>,
    /// What a claim was told in an epoch.
    answers: BTreeMap<(Uuid, String, u64), ClaimAnswer>,
    /// Who was told to have won a race, by epoch.
    winners: BTreeMap<u64, BTreeSet<String>>,
    /// Members whose unfencing was asked for, and has not become durable.
    pub leave_asked: u8,
    /// How many races had a winner that was told.
    pub races_won: u64,
}

impl Oracle {
    /// The domain's document has become durable.
    ///
    /// # Errors
    /// The promise that is broken, as with all of them.
    pub fn durable(&mut self, before: &Domain, after: &Domain) -> Result<(), String> {
        let (was, is) = (&before.state, &after.state);
        if is.epoch < was.epoch {
            return Err("the epoch has shrunk".into());
        }
        if after.check().is_err() {
            return Err("the document contradicts itself".into());
        }
        if was.fenced != is.fenced && was.epoch == is.epoch {
            let mut stripped = is.fenced.clone();
            for (name, fenced) in &mut stripped {
                fenced.proven = was.fenced.get(name).and_then(|was| was.proven.clone());
            }
            if stripped != was.fenced {
                return Err("somebody is fenced or unfenced without a new epoch".into());
            }
        }
        for name in was.fenced.keys() {
            if !is.fenced.contains_key(name) {
                let bit = 1 << number(name);
                if self.leave_asked & bit == 0 {
                    return Err(format!("{name} is unfenced and nobody asked for it"));
                }
                self.leave_asked &= !bit;
                self.promised &= !bit;
            }
        }
        if let Some(verdict) = &is.verdict {
            let known = self
                .verdicts
                .entry(verdict.epoch)
                .or_insert(verdict.clone());
            if known != verdict {
                return Err(format!(
                    "the verdict of epoch {} has changed",
                    verdict.epoch
                ));
            }
            let half = verdict.votes * 2 <= verdict.votes_total;
            if !verdict.winners.is_empty() && half {
                return Err("somebody won without more than half of all votes".into());
            }
            if verdict.winners.is_empty() && !verdict.fenced.is_empty() {
                return Err("somebody is fenced and nobody has won".into());
            }
        }
        Ok(())
    }

    /// Something was answered. `domain` is what the coordinator knows; `can_write` says who can write to some volume, or has a
    /// write under way.
    pub fn told(&mut self, action: &Action, domain: &Domain, can_write: u8) -> Result<(), String> {
        let Action::Reply { id, member, reply } = action else {
            return Ok(());
        };
        match reply {
            Reply::Claim(answer) => {
                let Some(member) = member else {
                    return Err("an answer to nobody's claim".into());
                };
                self.claim_told(*id, member, answer, domain, can_write)?;
            }
            Reply::Fenced(done) => {
                let bit = 1 << number(&done.member);
                if can_write & bit != 0 {
                    return Err(format!("{} can write, and is told fenced", done.member));
                }
                self.promised |= bit;
            }
            Reply::Unfenced { .. }
            | Reply::ClaimRefused(_)
            | Reply::Changed
            | Reply::Refused(_) => {}
        }
        Ok(())
    }

    fn claim_told(
        &mut self,
        id: Uuid,
        member: &str,
        answer: &ClaimAnswer,
        domain: &Domain,
        can_write: u8,
    ) -> Result<(), String> {
        if answer.epoch != domain.state.epoch {
            return Err("an answer about another epoch than the current one".into());
        }
        if answer.verdict != ClaimVerdict::Stale {
            let key = (id, member.to_owned(), answer.epoch);
            let known = self.answers.entry(key).or_insert(answer.clone());
            if known != answer {
                return Err(format!(
                    "{member} was told {known:?}, and for the same claim {answer:?}"
                ));
            }
        }
        let fenced = domain.is_fenced(member);
        let race = domain.state.verdict.as_ref();
        let race = race.filter(|race| race.epoch == answer.epoch);
        match answer.verdict {
            ClaimVerdict::Stale if fenced => {
                return Err("a fenced claimer is told to look again".into());
            }
            ClaimVerdict::Stale => {}
            ClaimVerdict::Lost => {
                let nobody = race.is_some_and(|race| race.winners.is_empty());
                if !fenced && !nobody {
                    return Err(format!("{member} is told to have lost and is not fenced"));
                }
            }
            ClaimVerdict::Won => {
                if fenced || !answer.winners.contains(member) {
                    return Err(format!("{member} is told to have won and has not"));
                }
                for (name, fenced) in &domain.state.fenced {
                    let bit = 1 << number(name);
                    if fenced.proven.is_none() {
                        return Err(format!(
                            "{member} has won, and {name}'s fence is not proven"
                        ));
                    }
                    if can_write & bit != 0 {
                        return Err(format!("{member} has won, and {name} can write"));
                    }
                    self.promised |= bit;
                }
                if race.is_some_and(|race| race.winners == answer.winners) {
                    let known = self
                        .winners
                        .entry(answer.epoch)
                        .or_insert_with(|| answer.winners.clone());
                    if *known != answer.winners {
                        return Err(format!("epoch {} has two winners", answer.epoch));
                    }
                    self.races_won = self.winners.len() as u64;
                }
            }
        }
        Ok(())
    }

    /// A write of a member has reached a volume, and will be acknowledged.
    pub fn landed(&self, member: usize, time_ms: u64) -> Result<(), String> {
        if self.promised & (1 << member) != 0 {
            let who = names(1 << member);
            return Err(format!(
                "a write of {who:?} landed at {time_ms} ms, after somebody was told that it is fenced"
            ));
        }
        Ok(())
    }
}

/// What is known of a quorum device.
#[derive(Clone, Debug, Default)]
pub struct QuorumOracle {
    grants: BTreeMap<u64, BTreeSet<String>>,
}

impl QuorumOracle {
    /// The register has changed.
    pub fn changed(&mut self, before: &QuorumRegister, after: &QuorumRegister) {
        if after.epoch < before.epoch {
            violation("the quorum device's epoch has shrunk");
        }
        if after.epoch == 0 {
            return;
        }
        let known = self
            .grants
            .entry(after.epoch)
            .or_insert_with(|| after.group.clone());
        if *known != after.group {
            violation(&format!(
                "the quorum device has given the votes of epoch {} twice",
                after.epoch
            ));
        }
    }
}
