//! What claimers are told.

use uuid::Uuid;

use super::{Action, Coordinator, Event, Reply};
use crate::claim::{Claim, ClaimAnswer, ClaimRefusal, ClaimVerdict};
use crate::domain::Domain;

/// A claim that has won, in a race or because it excludes nobody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Awaiting {
    pub id: Uuid,
    pub member: String,
}

impl Coordinator {
    /// Why a claim is none, if it is none: of a stranger, or naming one; naming a fenced member.
    pub(super) fn refusal(&self, claim: &Claim) -> Option<ClaimRefusal> {
        let members = &self.domain.members;
        let mut named = std::iter::once(&claim.member).chain(&claim.group);
        if let Some(stranger) = named.find(|name| !members.contains_key(*name)) {
            return Some(ClaimRefusal::NoSuchMember {
                domain: self.domain.name.clone(),
                member: stranger.clone(),
                members: members.keys().cloned().collect::<Vec<_>>().join(", "),
            });
        }
        let mut group = claim.group.iter();
        let fenced = group.find(|name| self.domain.is_fenced(name))?;
        Some(ClaimRefusal::NamesFenced(fenced.clone()))
    }

    /// Answers a claim whose race is over, or which belongs to no race: the claimer is fenced, or the epoch is over.
    pub(super) fn answer_from_state(&mut self, id: Uuid, member: &str) {
        let verdict = if self.domain.is_fenced(member) {
            ClaimVerdict::Lost
        } else {
            ClaimVerdict::Stale
        };
        self.answer(id, member, verdict, true);
    }

    /// Answers a claim that the verdict of this epoch names.
    pub(super) fn answer_from_verdict(&mut self, id: Uuid, member: &str) {
        let winner = self.domain.state.verdict.as_ref();
        if winner.is_some_and(|verdict| verdict.winners.contains(member)) {
            self.await_proof(id, member);
        } else {
            self.answer(id, member, ClaimVerdict::Lost, true);
        }
    }

    /// Lets a winner wait until every fence is proven.
    pub(super) fn await_proof(&mut self, id: Uuid, member: &str) {
        let awaiting = Awaiting {
            id,
            member: member.to_owned(),
        };
        if !self.awaiting.contains(&awaiting) {
            self.awaiting.push(awaiting);
        }
    }

    /// Whether the verdict of the current epoch answers this claim.
    pub(super) fn verdict_names(&self, id: Uuid, member: &str) -> bool {
        let state = &self.domain.state;
        state.verdict.as_ref().is_some_and(|verdict| {
            verdict.epoch == state.epoch
                && verdict
                    .claims
                    .get(member)
                    .is_some_and(|ids| ids.contains(&id))
        })
    }

    /// Tells the winners, if every fence of the domain is proven, and nothing is under way that may have ended the epoch already.
    pub(super) fn tell_winners(&mut self) {
        let ending = self.race.is_closed() || self.commit_ends_epoch();
        if ending || self.domain.has_unproven_fence() {
            return;
        }
        for Awaiting { id, member } in std::mem::take(&mut self.awaiting) {
            if self.domain.members.contains_key(&member) {
                let of_race = self.verdict_names(id, &member);
                self.answer(id, &member, ClaimVerdict::Won, of_race);
            } else {
                self.answer_stranger(id, &member);
            }
        }
    }

    /// After a commit: what was believed about claims is looked at again in the new state.
    pub(super) fn look_again_at_claims(&mut self, before: &Domain) {
        if before.state.epoch != self.domain.state.epoch {
            for Awaiting { id, member } in std::mem::take(&mut self.awaiting) {
                if self.domain.members.contains_key(&member) {
                    self.answer_from_state(id, &member);
                } else {
                    self.answer_stranger(id, &member);
                }
            }
        }
        for standing in std::mem::take(&mut self.standing) {
            let ids = standing.ids();
            if self.domain.is_fenced(&standing.claim.member) {
                for id in ids {
                    self.answer_from_state(id, &standing.claim.member);
                }
            } else if let Some(refusal) = self.refusal(&standing.claim) {
                for id in ids {
                    self.refuse_claim(id, &standing.claim.member, refusal.clone());
                }
            } else {
                self.standing.push(standing);
            }
        }
    }

    fn answer_stranger(&mut self, id: Uuid, member: &str) {
        let claim = Claim {
            id,
            member: member.to_owned(),
            group: Default::default(),
            epoch: 0,
        };
        if let Some(refusal) = self.refusal(&claim) {
            self.refuse_claim(id, member, refusal);
        }
    }

    fn answer(&mut self, id: Uuid, member: &str, verdict: ClaimVerdict, of_race: bool) {
        let state = &self.domain.state;
        let race = state.verdict.as_ref();
        let answer = match race.filter(|race| of_race && race.epoch == state.epoch) {
            Some(race) => ClaimAnswer {
                verdict,
                epoch: state.epoch,
                winners: race.winners.clone(),
                fenced: race.fenced.clone(),
            },
            None => ClaimAnswer {
                verdict,
                epoch: state.epoch,
                winners: self
                    .domain
                    .unfenced()
                    .map(|(name, _)| name.clone())
                    .collect(),
                fenced: state.fenced.keys().cloned().collect(),
            },
        };
        self.act(Action::Reply {
            id,
            member: Some(member.to_owned()),
            reply: Reply::Claim(answer),
        });
    }

    /// A claim takes part in a race.
    pub(super) fn tell_claimed(&mut self, claim: &Claim) {
        self.event(Event::Claimed {
            claim: claim.clone(),
        });
    }
}
