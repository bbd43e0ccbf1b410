//! Fence domains: which part of a split cluster goes on, and how the other part loses its access.
//!
//! - [`domain`]: what a domain is: members, votes, quorum device, and the state that must never be forgotten.
//! - [`method`]: the ways to fence a member, as an operator names them.
//! - [`quorum`]: what a quorum device remembers of its votes.
//!
//! Decisions are pure: no sockets, files or clocks, so that a simulator can drive them. Whoever carries them out is the
//! `ringfence` crate.
#![forbid(unsafe_code)]

pub mod domain;
pub mod method;
pub mod quorum;

pub use domain::{
    Domain, DomainError, DomainState, FenceCause, FencedMember, Member, Prefer, Quorum,
    QuorumPlace, Verdict,
};
pub use method::{Method, MethodError};
pub use quorum::{QuorumAnswer, QuorumRegister};
