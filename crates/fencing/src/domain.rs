//! A domain: the virtual machines (members) and volumes that are fenced together, all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::check::DomainError;
use crate::method::Method;

/// Most members of a domain: the mailbox has as many slots.
pub const MAX_MEMBERS: usize = 64;

/// Most votes of a member, and of a quorum device.
pub const MAX_VOTES: u32 = 1_000_000;

/// Most volumes of a domain.
pub const MAX_VOLUMES: usize = 4096;

/// How long claims are collected after the first, unless the operator says otherwise, in milliseconds.
pub const DEFAULT_WINDOW_MS: u32 = 2_000;

/// How long one attempt of a method may take, unless the operator says otherwise, in milliseconds.
pub const DEFAULT_ATTEMPT_TIMEOUT_MS: u32 = 60_000;

/// Attempts of a method before the next one is tried, unless the operator says otherwise.
pub const DEFAULT_ATTEMPTS: u8 = 2;

/// A domain as the pool's configuration keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Identity.
    pub uuid: Uuid,
    /// Name, unique in the pool.
    pub name: String,
    /// Identities of the volumes that are fenced together. A volume is in one domain at most.
    pub volumes: BTreeSet<Uuid>,
    /// Identity of the mailbox volume, which is not one of `volumes`: a fenced member reads its verdict there.
    pub mailbox: Uuid,
    /// Members by name.
    pub members: BTreeMap<String, Member>,
    /// What breaks ties, if anything.
    pub quorum: Option<Quorum>,
    /// Which group of a race is given the quorum device's votes.
    pub prefer: Prefer,
    /// How long claims are collected after the first one, in milliseconds: 100 to 60,000.
    pub window_ms: u32,
    /// How long one attempt of a method may take, in milliseconds: 1,000 to 600,000.
    pub attempt_timeout_ms: u32,
    /// How often a method is tried before the next one is: 1 to 10.
    pub attempts: u8,
    /// What the members' nodes prove to each other that they are of this domain with; only members can read it, in the mailbox.
    pub secret: Secret,
    /// What was decided, and who is fenced.
    pub state: DomainState,
}

/// 32 random bytes that the members share, as 64 hexadecimal digits. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret([u8; 32]);

impl Secret {
    /// From 32 bytes that whoever creates the domain has drawn.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl FromStr for Secret {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let mut bytes = [0; 32];
        let fine = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (place, byte) in bytes.iter_mut().enumerate() {
            // `get` is `None` only if the length is wrong, and then `fine` is false.
            let digits = text.get(place * 2..place * 2 + 2).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        }
        if fine {
            Ok(Self(bytes))
        } else {
            Err(DomainError::Secret)
        }
    }
}

impl TryFrom<String> for Secret {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, DomainError> {
        text.parse()
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.hex()
    }
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// iSCSI names of its initiators, in lower case; every ISID and path of them is this member. A name belongs to one
    /// member of one domain.
    pub initiators: BTreeSet<String>,
    /// Its votes, 0 to [`MAX_VOTES`].
    pub votes: u32,
    /// How it is fenced: tried in this order until one is proven to have worked. Never empty.
    pub methods: Vec<Method>,
    /// Number of its slot in the mailbox, below [`MAX_MEMBERS`]; its own as long as it is a member.
    pub slot: u16,
}

/// The quorum device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// Where its private region is.
    pub place: QuorumPlace,
    /// Its votes; `None` for the members' votes minus one, so that a single survivor can win.
    pub votes: Option<u32>,
}

/// Where the quorum device is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum QuorumPlace {
    /// A device of the pool, of any role.
    Device {
        /// Identity of the device.
        device: Uuid,
        /// Where its region for this domain begins on the device, in bytes.
        offset_bytes: u64,
        /// Bytes of that region.
        length_bytes: u64,
    },
    /// Another daemon.
    Server {
        /// `HOST:PORT`.
        address: String,
        /// Under which name the server keeps the register: two heads that serve one cluster give the same. `None` for
        /// the domain's identity.
        name: Option<String>,
    },
}

/// Which group of a race the quorum device's votes go to; then to the first that claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// The group with most members that are registered.
    #[default]
    Largest,
    /// The group with most votes.
    Weight,
    /// The group that holds the reservation on most volumes.
    Holder,
}

/// What must never be forgotten. Only grows: the epoch by one with each verdict, explicit fence or unfence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainState {
    /// Number of the last decision; 0 before the first.
    pub epoch: u64,
    /// The last verdict of a race.
    pub verdict: Option<Verdict>,
    /// Members that have no access, by name.
    pub fenced: BTreeMap<String, FencedMember>,
}

/// The outcome of a race.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The epoch that began with it.
    pub epoch: u64,
    /// Who goes on; empty when no group had more than half of all votes.
    pub winners: BTreeSet<String>,
    /// Who was fenced for it; empty when there is no winner.
    pub fenced: BTreeSet<String>,
    /// Votes of the winners, the quorum device's included where it voted for them.
    pub votes: u64,
    /// Votes that there were.
    pub votes_total: u64,
    /// The quorum device voted for the winners.
    pub quorum_voted: bool,
    /// The claims that it answers, by claimer: the same claim asked again is answered the same.
    pub claims: BTreeMap<String, BTreeSet<Uuid>>,
}

/// A member without access.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FencedMember {
    /// The epoch in which it was fenced.
    pub epoch: u64,
    /// Why.
    pub cause: FenceCause,
    /// Who inherits the reservations that it held: initiator names, in order of preference.
    pub heirs: Vec<String>,
    /// The methods of this fence, in order: those of the member, or those that the request named. Never empty.
    pub methods: Vec<Method>,
    /// Which method is proven to have worked; `None` while the fence is still being carried out, which a restart goes on with.
    pub proven: Option<Method>,
    /// What the member's node wrote as its incarnation when it was fenced; a node that comes back as the same one stays fenced.
    pub incarnation: Option<Uuid>,
}

/// Why a member was fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceCause {
    /// It lost a race.
    Race,
    /// An operator or an agent of a cluster manager asked for it.
    Request,
}

impl Domain {
    /// Votes of all members.
    pub fn member_votes(&self) -> u64 {
        self.members
            .values()
            .map(|member| u64::from(member.votes))
            .sum()
    }

    /// Votes of the quorum device: as configured, else the members' votes minus one; 0 without one.
    pub fn quorum_votes(&self) -> u64 {
        match &self.quorum {
            None => 0,
            Some(Quorum {
                votes: Some(votes), ..
            }) => u64::from(*votes),
            Some(Quorum { votes: None, .. }) => self.member_votes().saturating_sub(1),
        }
    }

    /// A member by name.
    ///
    /// # Errors
    /// [`DomainError::NoSuchMember`].
    pub fn member(&self, name: &str) -> Result<&Member, DomainError> {
        self.members
            .get(name)
            .ok_or_else(|| DomainError::NoSuchMember {
                domain: self.name.clone(),
                member: name.to_owned(),
                members: self.members.keys().cloned().collect::<Vec<_>>().join(", "),
            })
    }

    /// The member that an initiator belongs to.
    pub fn member_of(&self, initiator: &str) -> Option<&str> {
        let mut members = self.members.iter();
        members
            .find(|(_, member)| member.initiators.contains(initiator))
            .map(|(name, _)| name.as_str())
    }

    /// Members that have access, in order of their names.
    pub fn unfenced(&self) -> impl Iterator<Item = (&String, &Member)> {
        let members = self.members.iter();
        members.filter(|(name, _)| !self.is_fenced(name))
    }

    /// Whether the fence of some member has not been proven yet: nobody is told meanwhile that it won.
    pub fn has_unproven_fence(&self) -> bool {
        let mut fenced = self.state.fenced.values();
        fenced.any(|fenced| fenced.proven.is_none())
    }

    /// Whether a member has no access.
    pub fn is_fenced(&self, member: &str) -> bool {
        self.state.fenced.contains_key(member)
    }
}
