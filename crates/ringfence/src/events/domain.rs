//! The events of fence domains.

use serde::{Deserialize, Serialize};

use super::Operator;

/// What happened to a fence domain. `by` is who made it happen; it is null where that is the daemon itself or a member
/// through the mailbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum DomainEvent {
    /// A domain was made.
    DomainCreated {
        /// Its name.
        domain: String,
        /// Its volumes.
        volumes: Vec<String>,
        /// Who asked.
        by: Operator,
    },
    /// A domain was deleted: its members are not fenced together any more.
    DomainDeleted {
        /// Its name.
        domain: String,
        /// Who asked.
        by: Operator,
    },
    /// A volume joined a domain.
    DomainVolumeAdded {
        /// The domain.
        domain: String,
        /// The volume.
        volume: String,
        /// Who asked.
        by: Operator,
    },
    /// A volume left a domain.
    DomainVolumeRemoved {
        /// The domain.
        domain: String,
        /// The volume.
        volume: String,
        /// Who asked.
        by: Operator,
    },
    /// A virtual machine became a member.
    MemberAdded {
        /// The domain.
        domain: String,
        /// Its name.
        member: String,
        /// Its initiators.
        initiators: Vec<String>,
        /// Its votes.
        votes: u32,
        /// How it is fenced.
        methods: Vec<String>,
        /// Who asked.
        by: Operator,
    },
    /// A virtual machine is no member any more.
    MemberRemoved {
        /// The domain.
        domain: String,
        /// Its name.
        member: String,
        /// Who asked.
        by: Operator,
    },
    /// A member claims for a group.
    RaceClaimed {
        /// The domain.
        domain: String,
        /// Who claims.
        member: String,
        /// For whom, itself included.
        group: Vec<String>,
        /// The epoch that it knows.
        epoch: u64,
        /// Who asked; null for a claim through the mailbox.
        by: Option<Operator>,
    },
    /// A race is decided, durably.
    RaceDecided {
        /// The domain.
        domain: String,
        /// The epoch that begins with it.
        epoch: u64,
        /// Who goes on; empty when nobody had more than half of the votes.
        winners: Vec<String>,
        /// Who is fenced for it.
        fenced: Vec<String>,
        /// Votes of the winners.
        votes: u64,
        /// Votes that there were.
        votes_total: u64,
        /// The quorum device voted for the winners.
        quorum_voted: bool,
    },
    /// It is decided, durably, that a member has no access; it is being taken away.
    MemberFenced {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// The epoch that begins with it.
        epoch: u64,
        /// `race` or `request`.
        cause: String,
        /// Who asked.
        by: Option<Operator>,
    },
    /// All volumes of the domain have lost the member's registrations, durably, and its I/O has ended.
    MemberRevoked {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// How many volumes the domain has.
        volumes: usize,
        /// Those that nobody can use now; they have the fence when they come back.
        not_served: Vec<String>,
    },
    /// The member's access could not be taken away on some volume; it is tried again.
    RevokeFailed {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// Why.
        reason: String,
    },
    /// A fencing method begins.
    FenceAttempt {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// The method, without its options.
        method: String,
        /// Which attempt with this method, from 1.
        attempt: u32,
    },
    /// A fencing method failed.
    FenceAttemptFailed {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// The method, without its options.
        method: String,
        /// Which attempt with this method, from 1.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// A fence is proven and done, durably.
    FenceProven {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// The method that worked, without its options.
        method: String,
        /// What proves it.
        proof: String,
    },
    /// No method worked. The member has no access; all of them are tried again.
    FenceNotProven {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// After how many milliseconds.
        again_in_ms: u64,
    },
    /// The domain could not be written to the pool's configuration; it is tried again.
    DomainNotWritten {
        /// The domain.
        domain: String,
        /// Why.
        reason: String,
    },
    /// A member has access again.
    MemberUnfenced {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// The epoch that begins with it.
        epoch: u64,
        /// Who asked; null when its node came back as a new incarnation.
        by: Option<Operator>,
    },
    /// The quorum device cannot be used: its votes are missing.
    QuorumDeviceLost {
        /// The domain.
        domain: String,
        /// What is wrong.
        reason: String,
    },
    /// The quorum device can be used again.
    QuorumDeviceBack {
        /// The domain.
        domain: String,
    },
    /// The heartbeat of a member on storage has stopped, while those of others go on.
    MemberSuspect {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
    },
    /// The heartbeat of a member on storage goes on.
    MemberBack {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
    },
}

impl DomainEvent {
    /// Whether the event belongs to the fencing audit and is made durable at once.
    pub fn is_fencing(&self) -> bool {
        !matches!(
            self,
            Self::MemberSuspect { .. } | Self::MemberBack { .. } | Self::FenceAttempt { .. }
        )
    }
}
