//! A race, from the first claim to the group that has won.

use uuid::Uuid;

use super::commit::Committing;
use super::{Action, Coordinator};
use crate::claim::{Claim, ClaimRefusal};
use crate::quorum::{QUORUM_LIMIT_MS, QuorumAnswer, QuorumAsk, QuorumRegister};
use crate::votes::{Group, Survey, preferred, tally};

/// How soon a survey that failed is made again, in milliseconds.
const SURVEY_AGAIN_MS: u64 = 500;
/// How often the quorum device is asked in one race: again where it has granted its votes to another group before.
const MOST_ASKS: u32 = 2;
/// How many claims of one member that were replaced are answered with the verdict.
const MOST_REPLACED: usize = 8;

/// How far a race is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Race {
    /// There is none.
    Idle,
    /// Claims are collected.
    Open {
        /// End of the window.
        until_ms: u64,
        survey: Look,
    },
    /// The quorum device is asked.
    Asking {
        ticket: u64,
        until_ms: u64,
        survey: Survey,
        ask: QuorumAsk,
        asks: u32,
    },
    /// Everything is known; the verdict waits for its turn to be committed.
    Decided {
        survey: Survey,
        granted: Option<QuorumAsk>,
    },
    /// The verdict is being committed.
    Committing,
}

/// How far the survey is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Look {
    /// Claims have come since the last one, or the window is over: one is due.
    Due,
    /// It is being made.
    Made {
        ticket: u64,
        /// The window was over when it began: it is the last one, and later claims are too late.
        last: bool,
        /// Claims have come since it began, so that it says nothing about them.
        old: bool,
    },
    /// It failed.
    Again { at_ms: u64 },
    /// Nothing new since the last one.
    Fresh,
}

impl Race {
    pub fn wake_ms(&self) -> Option<u64> {
        match self {
            Race::Open { survey, until_ms } => match survey {
                Look::Again { at_ms } => Some(*at_ms),
                Look::Fresh => Some(*until_ms),
                Look::Due | Look::Made { .. } => None,
            },
            Race::Asking { until_ms, .. } => Some(*until_ms),
            Race::Idle | Race::Decided { .. } | Race::Committing => None,
        }
    }

    /// Whether a claim takes part, or begins a race.
    pub fn takes_claims(&self) -> bool {
        let last = matches!(
            self,
            Race::Open {
                survey: Look::Made { last: true, .. },
                ..
            }
        );
        !last && !self.is_closed()
    }

    /// It is being decided.
    pub fn is_closed(&self) -> bool {
        matches!(
            self,
            Race::Asking { .. } | Race::Decided { .. } | Race::Committing
        )
    }
}

/// The claim of a member that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Standing {
    pub claim: Claim,
    /// Earlier claims of the member in this race: answered with the same verdict.
    pub replaced: Vec<Uuid>,
}

impl Standing {
    /// All claims that this one stands for.
    pub fn ids(&self) -> Vec<Uuid> {
        let mut ids = self.replaced.clone();
        ids.push(self.claim.id);
        ids
    }
}

/// A claim that came too late for the race.
pub(super) type Late = Claim;

impl Coordinator {
    /// Whether this very claim will be answered.
    fn waits(&self, id: Uuid, member: &str) -> bool {
        let mut late = self.late.iter();
        let mut awaiting = self.awaiting.iter();
        let mut standing = self.standing.iter();
        late.any(|late| late.id == id && late.member == member)
            || awaiting.any(|awaiting| awaiting.id == id && awaiting.member == member)
            || standing
                .any(|standing| standing.claim.member == member && standing.ids().contains(&id))
    }

    pub(super) fn claim(&mut self, mut claim: Claim, now_ms: u64) {
        claim.group.insert(claim.member.clone());
        let (id, member) = (claim.id, claim.member.clone());
        if self.waits(id, &member) {
            return;
        }
        let epoch = self.domain.state.epoch;
        if !self.domain.members.contains_key(&member) {
            if let Some(refusal) = self.refusal(&claim) {
                self.refuse_claim(id, &member, refusal);
            }
        } else if self.verdict_names(id, &member) {
            self.answer_from_verdict(id, &member);
        } else if self.domain.is_fenced(&member) || claim.epoch < epoch {
            self.answer_from_state(id, &member);
        } else if claim.epoch > epoch {
            let (claimed, current) = (claim.epoch, epoch);
            let refusal = ClaimRefusal::EpochAhead { claimed, current };
            self.refuse_claim(id, &member, refusal);
        } else if let Some(refusal) = self.refusal(&claim) {
            self.refuse_claim(id, &member, refusal);
        } else if !self.race.takes_claims() {
            self.keep_late(claim);
        } else {
            self.take_part(claim, now_ms);
        }
    }

    fn keep_late(&mut self, claim: Claim) {
        let earlier = self
            .late
            .iter_mut()
            .find(|late| late.member == claim.member);
        match earlier {
            Some(earlier) => {
                let replaced = std::mem::replace(earlier, claim);
                self.refuse_claim(replaced.id, &replaced.member, ClaimRefusal::Replaced);
            }
            None => self.late.push(claim),
        }
    }

    fn take_part(&mut self, claim: Claim, now_ms: u64) {
        self.tell_claimed(&claim);
        let mut replaced = Vec::new();
        let mut earlier = self.standing.iter();
        if let Some(place) = earlier.position(|standing| standing.claim.member == claim.member) {
            replaced = self.standing.remove(place).ids();
            if replaced.len() > MOST_REPLACED {
                let id = replaced.remove(0);
                self.refuse_claim(id, &claim.member, ClaimRefusal::Replaced);
            }
        }
        self.standing.push(Standing { claim, replaced });
        match &mut self.race {
            Race::Open { survey, .. } => {
                match survey {
                    // It may have begun before the claimer registered.
                    Look::Made { old, .. } => *old = true,
                    Look::Fresh => *survey = Look::Due,
                    Look::Due | Look::Again { .. } => {}
                }
            }
            _ => {
                self.race = Race::Open {
                    until_ms: now_ms.saturating_add(self.domain.window_ms.into()),
                    survey: Look::Due,
                };
            }
        }
    }

    /// Looks at the claims that came too late for a race, when that is over.
    pub(super) fn take_up_late(&mut self, now_ms: u64) {
        if self.race == Race::Idle && !self.late.is_empty() {
            for late in std::mem::take(&mut self.late) {
                self.claim(late, now_ms);
            }
            self.advance_race(now_ms);
        }
    }

    /// Makes a survey where one is due, and ends the wait for a quorum device that does not answer.
    pub(super) fn advance_race(&mut self, now_ms: u64) {
        if let Race::Asking { until_ms, .. } = &self.race
            && *until_ms <= now_ms
        {
            self.quorum_lost("it has not answered in time".into());
            self.decided(None);
        }
        let Race::Open { until_ms, survey } = &self.race else {
            return;
        };
        let over = *until_ms <= now_ms;
        let due = match survey {
            Look::Due => true,
            Look::Fresh => over,
            Look::Again { at_ms } => *at_ms <= now_ms,
            Look::Made { .. } => false,
        };
        if self.standing.is_empty() {
            self.race = Race::Idle;
        } else if due && !self.commit.as_ref().is_some_and(Committing::changes_domain) {
            let ticket = self.ticket();
            if let Race::Open { survey, .. } = &mut self.race {
                *survey = Look::Made {
                    ticket,
                    last: over,
                    old: false,
                };
            }
            self.act(Action::Survey { ticket });
        }
    }

    pub(super) fn surveyed(&mut self, ticket: u64, found: Result<Survey, String>, now_ms: u64) {
        let Race::Open { survey: look, .. } = &mut self.race else {
            return;
        };
        let Look::Made {
            ticket: made,
            last,
            old,
        } = *look
        else {
            return;
        };
        if made != ticket {
            return;
        }
        // A commit that is under way may fence or unfence somebody: what the race is about is known after it.
        if old || self.commit.as_ref().is_some_and(Committing::changes_domain) {
            *look = Look::Due;
            return;
        }
        let Ok(found) = found else {
            *look = Look::Again {
                at_ms: now_ms.saturating_add(SURVEY_AGAIN_MS),
            };
            return;
        };
        *look = Look::Fresh;
        self.refuse_without_vote(&found);
        let voters: Group = found.voters(&self.domain).cloned().collect();
        let excludes = |standing: &Standing| !voters.is_subset(&standing.claim.group);
        if !self.standing.iter().any(excludes) {
            for standing in std::mem::take(&mut self.standing) {
                for id in standing.ids() {
                    self.await_proof(id, &standing.claim.member);
                }
            }
            self.race = Race::Idle;
            return;
        }
        let groups = self.standing.iter().map(|standing| &standing.claim.group);
        let named = |voter: &String| groups.clone().any(|group| group.contains(voter));
        if last || voters.iter().all(named) {
            self.close(found, now_ms);
        }
    }

    /// Claims of members without a key are none.
    fn refuse_without_vote(&mut self, survey: &Survey) {
        for standing in std::mem::take(&mut self.standing) {
            let member = &standing.claim.member;
            if survey.registered.contains(member) {
                self.standing.push(standing);
                continue;
            }
            for id in standing.ids() {
                let refusal = ClaimRefusal::NotRegistered(member.clone());
                self.refuse_claim(id, member, refusal);
            }
        }
    }

    /// The claims of the race, in their order.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let standing = self.standing.iter();
        standing.map(|standing| standing.claim.clone()).collect()
    }

    /// The window is over: whom do the quorum device's votes go to?
    fn close(&mut self, survey: Survey, now_ms: u64) {
        let tallies = tally(&self.domain, &survey, &self.claims());
        let first = preferred(self.domain.prefer, &tallies).into_iter().next();
        match first.filter(|_| self.domain.quorum.is_some()) {
            Some(group) => {
                let group = group.clone();
                self.ask(survey, group, 1, now_ms.saturating_add(QUORUM_LIMIT_MS));
            }
            None => {
                let granted = None;
                self.race = Race::Decided { survey, granted };
            }
        }
    }

    fn ask(&mut self, survey: Survey, group: Group, asks: u32, until_ms: u64) {
        let ticket = self.ticket();
        let ask = QuorumAsk {
            by: self.domain.uuid,
            epoch: self.next_epoch(),
            group,
        };
        self.act(Action::AskQuorum {
            ticket,
            ask: ask.clone(),
        });
        self.race = Race::Asking {
            ticket,
            until_ms,
            survey,
            ask,
            asks,
        };
    }

    /// The epoch that a verdict would begin: none that the quorum device has heard of.
    pub(super) fn next_epoch(&self) -> u64 {
        let known = self.domain.state.epoch.max(self.watch.floor);
        known.saturating_add(1)
    }

    pub(super) fn asked(&mut self, ticket: u64, answer: Result<QuorumAnswer, String>) {
        match &self.race {
            Race::Asking { ticket: asked, .. } if *asked == ticket => {}
            _ => return,
        }
        match answer {
            Ok(QuorumAnswer::Granted) => {
                self.quorum_back();
                self.decided(Some(()));
            }
            Ok(QuorumAnswer::Refused(register)) => {
                self.quorum_back();
                self.heard_of(&register);
                self.refused(&register);
            }
            Err(reason) => {
                self.quorum_lost(reason);
                self.decided(None);
            }
        }
    }

    /// The votes of that epoch are gone. Those of the next may go to a group that nothing stands against.
    fn refused(&mut self, register: &QuorumRegister) {
        let Race::Asking {
            survey,
            asks,
            until_ms,
            ..
        } = &self.race
        else {
            return;
        };
        let tallies = tally(&self.domain, survey, &self.claims());
        let free = preferred(self.domain.prefer, &tallies)
            .into_iter()
            .find(|group| {
                register.would_grant(&QuorumAsk {
                    by: self.domain.uuid,
                    epoch: self.next_epoch(),
                    group: (*group).clone(),
                })
            });
        match free.filter(|_| *asks < MOST_ASKS) {
            Some(group) => {
                let (group, asks) = (group.clone(), *asks + 1);
                self.ask(survey.clone(), group, asks, *until_ms);
            }
            None => self.decided(None),
        }
    }

    fn decided(&mut self, granted: Option<()>) {
        let race = std::mem::replace(&mut self.race, Race::Idle);
        self.race = match race {
            Race::Asking { survey, ask, .. } => Race::Decided {
                survey,
                granted: granted.map(|()| ask),
            },
            other => other,
        };
    }
}
