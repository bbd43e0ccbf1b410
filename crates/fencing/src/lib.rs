//! Fence domains: which part of a split cluster goes on, and how the other part loses its access.
//!
//! - [`domain`]: what a domain is: members, votes, quorum device, and the state that must never be forgotten.
//! - [`check`]: what an operator may say about it.
//! - [`method`]: the ways to fence a member, as an operator names them.
//! - [`claim`]: what a member says when it no longer sees the others, and what it is told.
//! - [`votes`]: who votes for whom, and which group has more than half.
//! - [`quorum`]: what the quorum device remembers.
//! - [`coordinator`]: the state machine of one domain, from a claim to the answer.
//! - [`mailbox`]: the volume through which members and head talk, as bytes.
//! - [`node`]: what runs in a member: heartbeats, groups, views and claims.
//! - [`slots`]: sets of members by slot.
//!
//! Decisions are pure: no sockets, files or clocks, so that a simulator can drive them. Whoever carries them out is the
//! `ringfence` crate.
#![forbid(unsafe_code)]

pub mod check;
pub mod claim;
pub mod coordinator;
pub mod domain;
pub mod mailbox;
pub mod method;
pub mod node;
pub mod quorum;
pub mod slots;
#[cfg(test)]
mod testing;
pub mod votes;

pub use check::DomainError;
pub use claim::{Claim, ClaimAnswer, ClaimRefusal, ClaimVerdict};
pub use coordinator::{Action, Coordinator, Input};
pub use domain::{
    Domain, DomainState, FenceCause, FencedMember, Member, Prefer, Quorum, QuorumPlace, Secret,
    Verdict,
};
pub use method::{Method, MethodError};
pub use quorum::{QuorumAnswer, QuorumAsk, QuorumRegister, QuorumReply, QuorumRequest};
pub use slots::SlotSet;
pub use votes::{Decision, Survey};
