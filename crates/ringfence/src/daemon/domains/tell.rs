//! What a domain does, as events of the log.

use fencing::coordinator::Event;
use fencing::{Domain, FenceCause, Verdict};

use crate::events::domain::DomainEvent;
use crate::events::{Operator, What};

/// Who made things happen.
#[derive(Debug, Default)]
pub(super) struct Askers {
    /// By claim.
    pub(super) claims: std::collections::BTreeMap<uuid::Uuid, Operator>,
    /// By member.
    pub(super) members: std::collections::BTreeMap<String, Operator>,
}

fn sorted(names: impl IntoIterator<Item = String>) -> Vec<String> {
    names.into_iter().collect()
}

/// The event of the log for an event of the coordinator of `domain`.
pub(super) fn what(domain: &Domain, event: Event, askers: &mut Askers) -> What {
    let name = domain.name.clone();
    What::Domain(match event {
        Event::Claimed { claim } => DomainEvent::RaceClaimed {
            domain: name,
            by: askers.claims.remove(&claim.id),
            member: claim.member,
            group: sorted(claim.group),
            epoch: claim.epoch,
        },
        Event::Decided { verdict } => decided(name, verdict),
        Event::Fenced {
            member,
            epoch,
            cause,
        } => DomainEvent::MemberFenced {
            domain: name,
            by: match cause {
                FenceCause::Race => None,
                FenceCause::Request => askers.members.remove(&member),
            },
            member,
            epoch,
            cause: cause_name(cause).to_owned(),
        },
        Event::Revoked { member, not_served } => DomainEvent::MemberRevoked {
            domain: name,
            member,
            volumes: domain.volumes.len(),
            not_served: sorted(not_served),
        },
        Event::RevokeFailed { member, reason } => DomainEvent::RevokeFailed {
            domain: name,
            member,
            reason,
        },
        Event::Attempt {
            member,
            method,
            attempt,
        } => DomainEvent::FenceAttempt {
            domain: name,
            member,
            method,
            attempt,
        },
        Event::AttemptFailed {
            member,
            method,
            attempt,
            reason,
        } => DomainEvent::FenceAttemptFailed {
            domain: name,
            member,
            method,
            attempt,
            reason,
        },
        Event::Proven {
            member,
            method,
            proof,
        } => DomainEvent::FenceProven {
            domain: name,
            member,
            method,
            proof,
        },
        Event::FenceNotProven {
            member,
            again_in_ms,
        } => DomainEvent::FenceNotProven {
            domain: name,
            member,
            again_in_ms,
        },
        Event::Unfenced { member, epoch } => DomainEvent::MemberUnfenced {
            domain: name,
            by: askers.members.remove(&member),
            member,
            epoch,
        },
        Event::QuorumDeviceLost { reason } => DomainEvent::QuorumDeviceLost {
            domain: name,
            reason,
        },
        Event::QuorumDeviceBack => DomainEvent::QuorumDeviceBack { domain: name },
        Event::CommitFailed { reason } => DomainEvent::DomainNotWritten {
            domain: name,
            reason,
        },
    })
}

fn decided(domain: String, verdict: Verdict) -> DomainEvent {
    DomainEvent::RaceDecided {
        domain,
        epoch: verdict.epoch,
        winners: sorted(verdict.winners),
        fenced: sorted(verdict.fenced),
        votes: verdict.votes,
        votes_total: verdict.votes_total,
        quorum_voted: verdict.quorum_voted,
    }
}

/// The name of a cause in JSON.
pub(in crate::daemon) fn cause_name(cause: FenceCause) -> &'static str {
    match cause {
        FenceCause::Race => "race",
        FenceCause::Request => "request",
    }
}
