//! What a member says when it no longer sees the others, and what it is told.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// A member's claim that its group should go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Chosen by the claimer at random. The same claim asked again is the same claim.
    pub id: Uuid,
    /// Who claims.
    pub member: String,
    /// Who goes on, the claimer included (it is added where it is missing).
    pub group: BTreeSet<String>,
    /// The epoch that the claimer knows. A claim belongs to its epoch: when that is over, so is the claim.
    pub epoch: u64,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimVerdict {
    /// The claimer goes on, and everybody who does not is fenced, with proof.
    Won,
    /// The claimer does not go on: it is fenced, or no group had more than half of all votes.
    Lost,
    /// The claim is of an epoch that is over and the claimer has access: look again, and claim again if need be.
    Stale,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimAnswer {
    /// What became of it.
    pub verdict: ClaimVerdict,
    /// The epoch that it is about: the current one.
    pub epoch: u64,
    /// Who goes on: of the race in which the epoch began, else everybody who has access. Empty when nobody won the race.
    pub winners: BTreeSet<String>,
    /// Who was fenced for it; where no race began the epoch, everybody who is fenced.
    pub fenced: BTreeSet<String>,
}

/// Why a claim is none.
#[derive(Clone, Debug, Error, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClaimRefusal {
    /// It is of, or names, somebody who is no member.
    #[error("{member} is no member of {domain}; it has: {members}")]
    NoSuchMember {
        /// The domain.
        domain: String,
        /// Who was named.
        member: String,
        /// Who there is.
        members: String,
    },
    /// It names a member that is fenced.
    #[error("you name {0}, which is fenced: leave it out, or have it unfenced first")]
    NamesFenced(String),
    /// The claimer has no vote.
    #[error(
        "{0} has no key registered on any volume of the domain, so it has no vote and no claim: register a key first"
    )]
    NotRegistered(String),
    /// The claimer knows an epoch that has not been.
    #[error(
        "the claim is of epoch {claimed}, and the domain is in epoch {current}: is this the right domain?"
    )]
    EpochAhead {
        /// What the claim says.
        claimed: u64,
        /// What is.
        current: u64,
    },
    /// The claimer has claimed again and again with different groups in the same race.
    #[error("a later claim of the same member took its place")]
    Replaced,
}
