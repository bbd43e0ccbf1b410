//! The state machine of one domain: claims, requests, fences and their proof.
//!
//! It is fed with [`Input`] and time, and says with [`Action`] what is to be done; it does nothing itself. Time is any clock of
//! milliseconds that does not run backwards; where it jumps, waits end early or late and nothing else happens.
//!
//! **What is durable.** Only [`Domain`], through [`Action::Commit`], one at a time; everything else is forgotten by a crash, and
//! [`Coordinator::resume`] goes on from the domain alone. A fence is made by one commit: before it nothing has happened, after it
//! the fence is carried out to its end, whatever crashes in between.
//!
//! **A race**: the first claim opens a window. When it is over, or everybody with a vote is in some claimed group, a survey says who
//! has a vote; the quorum device grants its votes durably; then the verdict and the fences are one commit; the losers are told at
//! once, the winners when every fence of the domain is proven. Claims that come between the end of the window and the commit are
//! looked at after it, in the new epoch. A crash before the commit loses the claims, which their claimers repeat.
//!
//! **An answer is about the current epoch.** A claim of an epoch that is over is answered from what is now: lost for a claimer that is
//! fenced, else stale. Within an epoch a claim is answered the same however often it is asked, also after a crash, because the verdict names it.
//!
//! **A fence**: access first, on all volumes; then the methods in order until one is proven; then a commit that says so. Where all
//! methods fail they begin again, after growing pauses.

mod answers;
mod commit;
mod fence;
mod message;
mod quorum;
mod race;
mod request;

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

pub use fence::FenceStatus;
pub use message::{
    Action, Change, CommitOutcome, Event, FenceDone, Input, Proof, Reply, RequestError, Revoked,
};

use crate::claim::ClaimRefusal;
use crate::domain::Domain;
use answers::Awaiting;
use commit::Committing;
use fence::{Restoring, Work};
use quorum::Watch;
use race::{Late, Race, Standing};
use request::Request;

/// The coordinator of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    /// As it is durable.
    domain: Domain,
    /// The last ticket given out.
    tickets: u64,
    /// What is to be done.
    actions: VecDeque<Action>,
    race: Race,
    /// The claims of the race, in the order in which they came; one a member.
    standing: Vec<Standing>,
    /// Claims that came when the race was closed.
    late: Vec<Late>,
    /// Claims that have won and wait until every fence is proven.
    awaiting: Vec<Awaiting>,
    /// Requests that wait for their turn.
    requests: VecDeque<Request>,
    commit: Option<Committing>,
    /// Fences that are not proven, by member.
    works: BTreeMap<String, Work>,
    /// Members that are being given their access again.
    restoring: BTreeMap<String, Restoring>,
    /// The last incarnation of each member that was seen.
    incarnations: BTreeMap<String, Uuid>,
    watch: Watch,
}

impl Coordinator {
    /// A coordinator that goes on from what is durable: fences that are not proven are carried out again, from the
    /// revocation on. Also for a domain that is new.
    pub fn resume(domain: Domain, now_ms: u64) -> Self {
        let mut coordinator = Self {
            domain,
            tickets: 0,
            actions: VecDeque::new(),
            race: Race::Idle,
            standing: Vec::new(),
            late: Vec::new(),
            awaiting: Vec::new(),
            requests: VecDeque::new(),
            commit: None,
            works: BTreeMap::new(),
            restoring: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            watch: Watch::new(now_ms),
        };
        coordinator.take_up_fences();
        coordinator.advance(now_ms);
        coordinator
    }

    /// The domain as it is durable. What a commit on its way would make of it is not in it.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether nothing is going on: no claim or request waits, and every fence is proven.
    pub fn is_idle(&self) -> bool {
        self.race == Race::Idle
            && self.commit.is_none()
            && self.late.is_empty()
            && self.awaiting.is_empty()
            && self.requests.is_empty()
            && self.works.is_empty()
            && self.restoring.is_empty()
    }

    /// Whether a race is going on.
    pub fn is_racing(&self) -> bool {
        self.race != Race::Idle
    }

    /// Whether a fenced member whose node has begun anew as `incarnation` may have its access again: its fence is proven, and the node is
    /// not the one that was fenced.
    pub fn may_return(&self, member: &str, incarnation: Uuid) -> bool {
        let fenced = self.domain.state.fenced.get(member);
        fenced.is_some_and(|fenced| {
            fenced.proven.is_some() && fenced.incarnation.is_some_and(|was| was != incarnation)
        })
    }

    /// When [`Input::Time`] is to be given at the latest; `None` as long as only other inputs change anything.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let works = self.works.values().filter_map(Work::wake_ms);
        let restoring = self.restoring.values().filter_map(Restoring::wake_ms);
        let commit = self.commit.as_ref().and_then(Committing::wake_ms);
        works
            .chain(restoring)
            .chain(commit)
            .chain(self.race.wake_ms())
            .chain(self.watch.wake_ms(&self.domain))
            .min()
    }

    /// The next thing to be done. To be asked until there is none, after [`Coordinator::resume`] and after every input.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes what has happened.
    pub fn handle(&mut self, input: Input, now_ms: u64) {
        match input {
            Input::Claim(claim) => self.claim(claim, now_ms),
            Input::Fence {
                id,
                member,
                methods,
            } => self.request(id, request::Wish::Fence { member, methods }),
            Input::Unfence { id, member } => self.request(id, request::Wish::Unfence { member }),
            Input::Change { id, change } => self.request(id, request::Wish::Change(change)),
            Input::Incarnation {
                member,
                incarnation,
            } => {
                if self.domain.members.contains_key(&member) {
                    self.incarnations.insert(member, incarnation);
                }
            }
            Input::Surveyed { ticket, survey } => self.surveyed(ticket, survey, now_ms),
            Input::Asked { ticket, answer } => self.asked(ticket, answer),
            Input::Probed { ticket, answer } => self.probed(ticket, answer, now_ms),
            Input::Committed { ticket, outcome } => self.committed(ticket, outcome, now_ms),
            Input::Revoked { ticket, result } => self.revoked(ticket, result, now_ms),
            Input::Executed { ticket, result } => self.executed(ticket, result, now_ms),
            Input::Restored { ticket, result } => self.restored(ticket, result, now_ms),
            Input::Time => {}
        }
        self.advance(now_ms);
    }

    /// Begins whatever can begin now.
    fn advance(&mut self, now_ms: u64) {
        self.advance_race(now_ms);
        self.advance_fences(now_ms);
        self.advance_watch(now_ms);
        self.take_up_late(now_ms);
        self.advance_commit(now_ms);
        // A commit is the last thing to begin: what is proven meanwhile goes into it.
        while self.commit.is_none() && self.begin_commit() {}
        self.tell_winners();
    }

    fn ticket(&mut self) -> u64 {
        // Wraps after more actions than any daemon lives.
        self.tickets = self.tickets.wrapping_add(1);
        self.tickets
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn event(&mut self, event: Event) {
        self.act(Action::Event(event));
    }

    fn reply(&mut self, id: Uuid, reply: Reply) {
        let member = None;
        self.act(Action::Reply { id, member, reply });
    }

    fn refuse_claim(&mut self, id: Uuid, member: &str, refusal: ClaimRefusal) {
        self.act(Action::Reply {
            id,
            member: Some(member.to_owned()),
            reply: Reply::ClaimRefused(refusal),
        });
    }
}

/// How long to wait before something that failed so many times in a row is tried again, in milliseconds.
fn pause_ms(failures: u32, least_ms: u64, most_ms: u64) -> u64 {
    least_ms
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(most_ms)
}

#[cfg(test)]
mod tests;
