//! Commits, one at a time: the only moment at which anything becomes true.

use uuid::Uuid;

use super::race::Race;
use super::{Action, CommitOutcome, Coordinator, Event, Reply, RequestError, pause_ms};
use crate::domain::{Domain, FenceCause, FencedMember, Verdict};
use crate::votes::decide;

/// Least and greatest pause before a commit is tried again, in milliseconds.
const COMMIT_AGAIN_MS: (u64, u64) = (250, 10_000);

/// A commit on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Committing {
    ticket: u64,
    next: Domain,
    why: Why,
    failures: u32,
    /// An attempt may be durable: nothing else may be committed before this is.
    maybe: bool,
    /// When it is tried again.
    again_at_ms: Option<u64>,
}

/// What a commit is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Why {
    /// A verdict.
    Race,
    /// A fence that was asked for.
    Fence { id: Uuid, member: String },
    /// The end of a fence.
    Unfence { id: Uuid, member: String },
    /// A change by an operator.
    Change { id: Uuid },
    /// Fences are proven.
    Proven,
}

impl Committing {
    /// It is more than the proof of a fence.
    pub fn changes_domain(&self) -> bool {
        self.why != Why::Proven
    }

    pub fn wake_ms(&self) -> Option<u64> {
        self.again_at_ms
    }
}

impl Coordinator {
    /// Begins the next commit, if there is something to commit. Says whether to look again: a request may have needed none.
    pub(super) fn begin_commit(&mut self) -> bool {
        if matches!(self.race, Race::Decided { .. }) {
            self.commit_race();
            return true;
        }
        // A fence or another member list would change what the quorum device is being asked for.
        if !self.race.is_closed()
            && let Some(request) = self.requests.pop_front()
        {
            self.serve(request);
            return true;
        }
        if self.has_news_of_proof() {
            self.commit(self.domain.clone(), Why::Proven);
        }
        false
    }

    /// Whether a commit is on its way, and may be durable already, that begins another epoch.
    pub(super) fn commit_ends_epoch(&self) -> bool {
        let commit = self.commit.as_ref();
        commit.is_some_and(|commit| commit.next.state.epoch != self.domain.state.epoch)
    }

    /// Commits `next`, and with it every proof that there is.
    pub(super) fn commit(&mut self, mut next: Domain, why: Why) {
        self.enter_proofs(&mut next);
        let ticket = self.ticket();
        self.act(Action::Commit {
            ticket,
            domain: Box::new(next.clone()),
        });
        self.commit = Some(Committing {
            ticket,
            next,
            why,
            failures: 0,
            maybe: false,
            again_at_ms: None,
        });
    }

    /// Tries a commit again.
    pub(super) fn advance_commit(&mut self, now_ms: u64) {
        let due = self
            .commit
            .as_ref()
            .is_some_and(|commit| commit.again_at_ms.is_some_and(|at_ms| at_ms <= now_ms));
        if !due {
            return;
        }
        let ticket = self.ticket();
        if let Some(commit) = &mut self.commit {
            commit.again_at_ms = None;
            commit.ticket = ticket;
            let domain = Box::new(commit.next.clone());
            self.act(Action::Commit { ticket, domain });
        }
    }

    pub(super) fn committed(&mut self, ticket: u64, outcome: CommitOutcome, now_ms: u64) {
        let Some(mut commit) = self
            .commit
            .take_if(|commit| commit.ticket == ticket && commit.again_at_ms.is_none())
        else {
            return;
        };
        let reason = match outcome {
            CommitOutcome::Done => return self.is_durable(commit, now_ms),
            CommitOutcome::Failed(reason) => reason,
            CommitOutcome::Unknown(reason) => {
                commit.maybe = true;
                reason
            }
        };
        match commit.why {
            Why::Fence { id, .. } | Why::Unfence { id, .. } | Why::Change { id }
                if !commit.maybe =>
            {
                self.reply(id, Reply::Refused(RequestError::Commit(reason)));
            }
            _ => {
                commit.failures = commit.failures.saturating_add(1);
                let (least, most) = COMMIT_AGAIN_MS;
                let pause = pause_ms(commit.failures, least, most);
                commit.again_at_ms = Some(now_ms.saturating_add(pause));
                self.commit = Some(commit);
                self.event(Event::CommitFailed { reason });
            }
        }
    }

    fn is_durable(&mut self, commit: Committing, now_ms: u64) {
        let before = std::mem::replace(&mut self.domain, commit.next);
        self.finish_proofs();
        self.begin_fences(&before);
        match commit.why {
            Why::Race => self.race_is_durable(&before, now_ms),
            Why::Proven => {}
            Why::Change { id } => {
                self.look_again_at_claims(&before);
                let members = &self.domain.members;
                self.incarnations
                    .retain(|member, _| members.contains_key(member));
                if before.quorum != self.domain.quorum {
                    self.forget_quorum(now_ms);
                }
                self.reply(id, Reply::Changed);
            }
            Why::Fence { id, member } => {
                self.look_again_at_claims(&before);
                self.wait_for_fence(id, &member);
            }
            Why::Unfence { id, member } => {
                self.look_again_at_claims(&before);
                self.event(Event::Unfenced {
                    member: member.clone(),
                    epoch: self.domain.state.epoch,
                });
                self.restore(id, member);
                if self.domain.state.fenced.is_empty() {
                    self.probe_soon(now_ms);
                }
            }
        }
    }

    fn commit_race(&mut self) {
        let race = std::mem::replace(&mut self.race, Race::Committing);
        let Race::Decided { survey, granted } = race else {
            self.race = race;
            return;
        };
        let claims = self.claims();
        let group = granted.as_ref().map(|ask| &ask.group);
        let decision = decide(&self.domain, &survey, &claims, group);
        let mut next = self.domain.clone();
        let epoch = granted.map_or(self.next_epoch(), |ask| ask.epoch);
        next.state.epoch = epoch;
        // The claimers' initiators come first: they are known to be at work.
        let claimers = claims.iter().map(|claim| &claim.member);
        let heirs = self.initiators(claimers.chain(&decision.winners), |member| {
            decision.winners.contains(member)
        });
        for loser in &decision.losers {
            if let Some(fenced) = self.new_fence(loser, epoch, FenceCause::Race, &heirs, None) {
                next.state.fenced.insert(loser.clone(), fenced);
            }
        }
        let named = self.standing.iter().map(|standing| {
            let ids = standing.ids().into_iter().collect();
            (standing.claim.member.clone(), ids)
        });
        next.state.verdict = Some(Verdict {
            epoch,
            claims: named.collect(),
            winners: decision.winners,
            fenced: decision.losers,
            votes: decision.votes,
            votes_total: decision.votes_total,
            quorum_voted: decision.quorum_voted,
        });
        self.commit(next, Why::Race);
    }

    fn race_is_durable(&mut self, before: &Domain, now_ms: u64) {
        self.race = Race::Idle;
        let standing = std::mem::take(&mut self.standing);
        self.look_again_at_claims(before);
        if let Some(verdict) = self.domain.state.verdict.clone() {
            self.event(Event::Decided {
                verdict: verdict.clone(),
            });
            if self.domain.quorum.is_some() {
                self.act(Action::TellQuorum {
                    verdict: verdict.clone(),
                });
            }
            if self.domain.state.fenced.is_empty() {
                self.probe_soon(now_ms);
            }
        }
        for standing in standing {
            for id in standing.ids() {
                self.answer_from_verdict(id, &standing.claim.member);
            }
        }
    }

    /// Initiator names of members that pass, each once, in order.
    pub(super) fn initiators<'a>(
        &self,
        members: impl Iterator<Item = &'a String>,
        pass: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut names = Vec::new();
        for member in members.filter(|member| pass(member)) {
            let initiators = self.domain.members.get(member);
            for initiator in initiators.into_iter().flat_map(|member| &member.initiators) {
                if !names.contains(initiator) {
                    names.push(initiator.clone());
                }
            }
        }
        names
    }

    /// The record of a fence that begins.
    pub(super) fn new_fence(
        &self,
        member: &str,
        epoch: u64,
        cause: FenceCause,
        heirs: &[String],
        methods: Option<Vec<crate::method::Method>>,
    ) -> Option<FencedMember> {
        let own = self.domain.members.get(member)?;
        Some(FencedMember {
            epoch,
            cause,
            heirs: heirs.to_vec(),
            methods: methods.unwrap_or_else(|| own.methods.clone()),
            proven: None,
            incarnation: self.incarnations.get(member).copied(),
        })
    }
}
