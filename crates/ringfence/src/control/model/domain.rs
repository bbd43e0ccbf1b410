//! Fence domains.

use serde::{Deserialize, Serialize};

/// A fence domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// UUID.
    pub uuid: String,
    /// `good`; `fencing`: a fence is not proven yet; `fenced`: a member is fenced; `degraded`: the quorum device or a
    /// volume cannot be used.
    pub state: String,
    /// Number of the last decision; 0 before the first.
    pub epoch: u64,
    /// Its volumes, by LUN.
    pub volumes: Vec<DomainVolume>,
    /// Where members without another way to the head write their claims.
    pub mailbox: DomainVolume,
    /// Its members, by name.
    pub members: Vec<DomainMember>,
    /// What breaks ties; null when there is nothing.
    pub quorum: Option<DomainQuorum>,
    /// Which group the quorum device votes for: `largest`, `weight` or `holder`.
    pub prefer: String,
    /// How long claims of a race are collected.
    pub window_ms: u64,
    /// Votes that there would be in a race now: those of the members that are registered and not fenced, and the quorum
    /// device's.
    pub votes_total: u64,
    /// The outcome of the last race; null before the first.
    pub verdict: Option<DomainVerdict>,
}

/// A volume of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainVolume {
    /// Its name.
    pub volume: String,
    /// Its logical unit number.
    pub lun: u16,
    /// NAA identifier of VPD page 83h, `0x` and 16 digits.
    pub naa: String,
    /// `online` or `not-served`.
    pub state: String,
}

/// The quorum device of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainQuorum {
    /// The device of the pool; null when it is another daemon.
    pub device: Option<String>,
    /// The other daemon, `HOST:PORT`; null when it is a device.
    pub server: Option<String>,
    /// Its votes as they count now.
    pub votes: u64,
    /// They are as configured; else they follow the members' votes.
    pub votes_fixed: bool,
    /// `online` or `lost`.
    pub state: String,
}

/// The outcome of a race.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainVerdict {
    /// The epoch that began with it.
    pub epoch: u64,
    /// Who goes on; empty when nobody had more than half of the votes.
    pub winners: Vec<String>,
    /// Who was fenced for it.
    pub fenced: Vec<String>,
    /// Votes of the winners.
    pub votes: u64,
    /// Votes that there were.
    pub votes_total: u64,
    /// The quorum device voted for the winners.
    pub quorum_voted: bool,
}

/// A member of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainMember {
    /// The domain.
    pub domain: String,
    /// Its name.
    pub member: String,
    /// `member`; `suspect`: its heartbeat on storage has stopped while others go on; `fencing`: it has no access, and it is
    /// not proven yet that it has stopped; `fenced`.
    pub state: String,
    /// Its initiators.
    pub initiators: Vec<String>,
    /// Its votes.
    pub votes: u32,
    /// How it is fenced, in this order until one is proven.
    pub methods: Vec<String>,
    /// Its slot in the mailbox.
    pub slot: u16,
    /// It has a key on at least one volume of the domain, and so a vote.
    pub registered: bool,
    /// Sessions of its initiators.
    pub sessions: usize,
    /// Its fence; null when it is not fenced.
    pub fence: Option<MemberFence>,
}

/// The fence of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFence {
    /// The epoch in which it was fenced.
    pub epoch: u64,
    /// `race` or `request`.
    pub cause: String,
    /// Which method is proven to have worked; null while none is.
    pub proven: Option<String>,
}

/// The verdict of a race as one member hears it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaceVerdict {
    /// The domain.
    pub domain: String,
    /// The member that claimed.
    pub member: String,
    /// `won` or `lost`.
    pub verdict: String,
    /// The epoch that the verdict is of.
    pub epoch: u64,
    /// Who goes on; empty when nobody does.
    pub winners: Vec<String>,
    /// Who has lost its access, proven.
    pub fenced: Vec<String>,
}

/// A fence that was asked for, and is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The domain.
    pub domain: String,
    /// The member.
    pub member: String,
    /// The epoch in which it was fenced.
    pub epoch: u64,
    /// Which method is proven to have worked.
    pub proven: String,
    /// Volumes that nobody can use now; they have the fence when they come back.
    pub not_served: Vec<String>,
}
