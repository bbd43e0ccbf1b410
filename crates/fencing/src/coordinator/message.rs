//! What goes into the coordinator and what comes out.

use std::collections::BTreeSet;

use thiserror::Error;
use uuid::Uuid;

use crate::check::DomainError;
use crate::claim::{Claim, ClaimAnswer, ClaimRefusal};
use crate::domain::{Domain, FenceCause, Prefer, Quorum, Verdict};
use crate::method::Method;
use crate::quorum::{QuorumAnswer, QuorumAsk, QuorumRegister};
use crate::votes::Survey;

/// Something that happened. Each [`Action`] that says so is answered by exactly one input, sooner or later; a late, repeated
/// or unknown answer changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A member claims. Answered by [`Action::Reply`] to the claim's id; a claim may be given any number of times.
    Claim(Claim),
    /// Somebody asks for a fence. Answered when it is proven, however long that takes.
    Fence {
        /// Whom the answer is for; of this request alone.
        id: Uuid,
        /// Who is to be fenced.
        member: String,
        /// Other methods than the member's own.
        methods: Option<Vec<Method>>,
    },
    /// Somebody asks for the end of a fence.
    Unfence {
        /// Whom the answer is for.
        id: Uuid,
        /// Who is to have access again.
        member: String,
    },
    /// An operator changes the domain.
    Change {
        /// Whom the answer is for.
        id: Uuid,
        /// What is changed.
        change: Change,
    },
    /// A member's slot in the mailbox shows this incarnation, for the first time or another one than before.
    Incarnation {
        /// The member.
        member: String,
        /// What its node wrote.
        incarnation: Uuid,
    },
    /// Answers [`Action::Survey`].
    Surveyed {
        /// Of the action.
        ticket: u64,
        /// What is on the volumes, or why it could not be seen.
        survey: Result<Survey, String>,
    },
    /// Answers [`Action::AskQuorum`].
    Asked {
        /// Of the action.
        ticket: u64,
        /// What the quorum device says, or why it could not be reached.
        answer: Result<QuorumAnswer, String>,
    },
    /// Answers [`Action::ProbeQuorum`].
    Probed {
        /// Of the action.
        ticket: u64,
        /// What the quorum device remembers, or why it could not be reached.
        answer: Result<QuorumRegister, String>,
    },
    /// Answers [`Action::Commit`].
    Committed {
        /// Of the action.
        ticket: u64,
        /// Whether it is durable.
        outcome: CommitOutcome,
    },
    /// Answers [`Action::Revoke`].
    Revoked {
        /// Of the action.
        ticket: u64,
        /// Done on all volumes, or why not.
        result: Result<Revoked, String>,
    },
    /// Answers [`Action::Execute`].
    Executed {
        /// Of the action.
        ticket: u64,
        /// What proves that the method has worked, or why it has not.
        result: Result<Proof, String>,
    },
    /// Answers [`Action::Restore`].
    Restored {
        /// Of the action.
        ticket: u64,
        /// Done on all volumes that are served, or why not.
        result: Result<(), String>,
    },
    /// Time has passed: [`Coordinator::next_wake_ms`](super::Coordinator::next_wake_ms) is over.
    Time,
}

/// Whether a commit is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// It is.
    Done,
    /// It is not and will never be, for this reason.
    Failed(String),
    /// It may be, or may be after a restart.
    Unknown(String),
}

/// A member has no access to any volume any more: durable and drained wherever the volume is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Revoked {
    /// Names of the volumes that are not served, to anybody: they get the fence when they come up.
    pub not_served: BTreeSet<String>,
}

/// What proves that a method has worked, in words for the event log.
pub type Proof = String;

/// A change of a domain by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new member.
    AddMember {
        /// Its name.
        member: String,
        /// Its initiator names.
        initiators: Vec<String>,
        /// Its votes.
        votes: u32,
        /// Its methods, in order.
        methods: Vec<Method>,
    },
    /// A member leaves.
    RemoveMember {
        /// Its name.
        member: String,
    },
    /// Another quorum device, or none.
    Quorum(Option<Quorum>),
    /// Another preference of the quorum device.
    Prefer(Prefer),
    /// Other volumes.
    Volumes(BTreeSet<Uuid>),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look who is registered and who holds. Answered by [`Input::Surveyed`].
    Survey {
        /// For the answer.
        ticket: u64,
    },
    /// Ask the quorum device for its votes, durably; within [`QUORUM_LIMIT_MS`](crate::quorum::QUORUM_LIMIT_MS).
    /// Answered by [`Input::Asked`].
    AskQuorum {
        /// For the answer.
        ticket: u64,
        /// The question.
        ask: QuorumAsk,
    },
    /// Read what the quorum device remembers, within the same limit. Answered by [`Input::Probed`].
    ProbeQuorum {
        /// For the answer.
        ticket: u64,
    },
    /// Let the quorum device keep the verdict too ([`QuorumRegister::tell`]), if it can be reached. Not answered.
    TellQuorum {
        /// The verdict.
        verdict: Verdict,
    },
    /// Nobody is fenced any more for what the quorum device granted up to this epoch ([`QuorumRegister::close`]), if it can
    /// be reached. Not answered: the next probe shows whether it was done.
    CloseQuorum {
        /// The epoch.
        epoch: u64,
    },
    /// Make this the domain, durably. Answered by [`Input::Committed`]. There is never more than one at a time.
    Commit {
        /// For the answer.
        ticket: u64,
        /// The domain as it is to be.
        domain: Box<Domain>,
    },
    /// Take the member's access to all volumes away, durably and drained. It is fenced in [`Coordinator::domain`](super::Coordinator::domain),
    /// which says who inherits. Made again where it was done before, it changes nothing. Answered by [`Input::Revoked`].
    Revoke {
        /// For the answer.
        ticket: u64,
        /// The member.
        member: String,
    },
    /// Carry a method out on a member whose access is gone already. Ends with the timeout at the latest. Answered by
    /// [`Input::Executed`].
    Execute {
        /// For the answer.
        ticket: u64,
        /// The member.
        member: String,
        /// The method; never `reservation`, which the revocation proves.
        method: Method,
        /// Which attempt of this method it is, from 1.
        attempt: u32,
        /// How long it may take, in milliseconds.
        timeout_ms: u64,
    },
    /// Give the member its access again: it is not fenced any more, durably. Answered by [`Input::Restored`].
    Restore {
        /// For the answer.
        ticket: u64,
        /// The member.
        member: String,
    },
    /// Answer whoever waits for this id. An id may be answered more than once, where it asked again.
    Reply {
        /// Of the claim or request.
        id: Uuid,
        /// Whose claim it is. Members read each other's claims, so two may name the same id; `None` for requests.
        member: Option<String>,
        /// The answer.
        reply: Reply,
    },
    /// For the event log.
    Event(Event),
}

/// An answer to a claim or request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To a claim.
    Claim(ClaimAnswer),
    /// To a claim that is none.
    ClaimRefused(ClaimRefusal),
    /// The member is fenced, with proof.
    Fenced(FenceDone),
    /// The member has access.
    Unfenced {
        /// The member.
        member: String,
        /// The epoch.
        epoch: u64,
    },
    /// The domain is changed.
    Changed,
    /// The request is refused or failed; nothing has happened.
    Refused(RequestError),
}

/// A fence that is proven.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FenceDone {
    /// Who is fenced.
    pub member: String,
    /// The epoch in which it was fenced.
    pub epoch: u64,
    /// The method that is proven to have worked.
    pub method: Method,
    /// Volumes that are not served to anybody; known only to the daemon that fenced it.
    pub not_served: BTreeSet<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq, Hash)]
pub enum RequestError {
    /// What it asks for is wrong.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The fence is not proven, so that it cannot be ended: somebody may wait for it to be complete.
    #[error(
        "the fence of {member} is not proven yet, so it cannot be ended; to settle for the loss of its access alone, run `ringfence fence {domain} {member} --method reservation` first"
    )]
    Unproven {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
    },
    /// The configuration could not be written.
    #[error("the configuration of the pool cannot be written, nothing was changed: {0}")]
    Commit(String),
    /// Too many requests wait.
    #[error("too many requests wait for this domain; try again")]
    Busy,
}

/// What the event log is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A claim takes part in a race.
    Claimed {
        /// The claim.
        claim: Claim,
    },
    /// A race is decided, durably.
    Decided {
        /// The verdict.
        verdict: Verdict,
    },
    /// A member is fenced, durably; its access is being taken away.
    Fenced {
        /// Who.
        member: String,
        /// The new epoch.
        epoch: u64,
        /// Why.
        cause: FenceCause,
    },
    /// A member has no access to any volume any more, durable and drained.
    Revoked {
        /// Who.
        member: String,
        /// Volumes that nobody has access to.
        not_served: BTreeSet<String>,
    },
    /// Its access could not be taken away on some volume; it is tried again.
    RevokeFailed {
        /// Who.
        member: String,
        /// Why.
        reason: String,
    },
    /// A method begins.
    Attempt {
        /// Who is fenced.
        member: String,
        /// With which method, without its options, which may be secret.
        method: String,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A method failed.
    AttemptFailed {
        /// Who is fenced.
        member: String,
        /// With which method.
        method: String,
        /// Which attempt.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// The fence is proven, durably.
    Proven {
        /// Who is fenced.
        member: String,
        /// By which method.
        method: String,
        /// What proves it.
        proof: String,
    },
    /// All methods failed. Its access is gone, but nobody is told that it is fenced; all are tried again.
    FenceNotProven {
        /// Who is fenced.
        member: String,
        /// After how many milliseconds they are tried again.
        again_in_ms: u64,
    },
    /// A member has access again.
    Unfenced {
        /// Who.
        member: String,
        /// The new epoch.
        epoch: u64,
    },
    /// The quorum device cannot be reached; told once.
    QuorumDeviceLost {
        /// Why.
        reason: String,
    },
    /// The quorum device is back.
    QuorumDeviceBack,
    /// The configuration could not be written; it is tried again.
    CommitFailed {
        /// Why.
        reason: String,
    },
}
