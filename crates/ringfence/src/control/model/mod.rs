//! What the daemon tells: the objects of `--json`. Their fields are documented in `docs/cli.md` and only ever
//! grow.

mod device;
mod domain;
mod job;
mod keys;
mod pool;
mod volume;

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

pub use device::{Device, DeviceErrors, DeviceLoss};
pub use domain::{
    Domain, DomainMember, DomainQuorum, DomainVerdict, DomainVolume, Fence, MemberFence,
    RaceVerdict,
};
pub use job::{ByteRange, Job, JobEnd, Progress};
pub use keys::{
    Keys, KeysCopy, KeysQuorum, KeysRecovery, KeysRegistration, KeysReplica, KeysReservation,
    LostUntil,
};
pub use pool::{ConfigQuorum, Pool};
pub use volume::{MapEntry, Mismatch, Plex, Verified, Volume, VolumeMap};

/// What an initiator may do with a volume.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
pub enum AccessRight {
    /// Nothing; REPORT LUNS does not show the volume.
    #[serde(rename = "none")]
    #[value(name = "none")]
    None,
    /// Read.
    #[serde(rename = "ro")]
    #[value(name = "ro")]
    ReadOnly,
    /// Read, write and reserve.
    #[serde(rename = "rw")]
    #[value(name = "rw")]
    ReadWrite,
}

impl fmt::Display for AccessRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
        })
    }
}

/// What is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon's build.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The state directory.
    pub state: PathBuf,
    /// iSCSI name of the target.
    pub target_name: String,
    /// Bound portals by relative target port.
    pub portals: Vec<Portal>,
    /// The I/O engine of the reactors.
    pub io: String,
    /// Number of reactors.
    pub reactors: usize,
    /// Its fence domains, by name.
    #[serde(default)]
    pub domains: Vec<StatusDomain>,
}

/// A fence domain in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDomain {
    /// Its name.
    pub domain: String,
    /// As in [`Domain::state`].
    pub state: String,
    /// Number of the last decision.
    pub epoch: u64,
    /// How many members it has.
    pub members: usize,
    /// Those that have no access, by name.
    pub fenced: Vec<String>,
}

/// One portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portal {
    /// The bound address, `ADDR:PORT`.
    pub address: String,
    /// Relative target port identifier and target portal group tag.
    pub target_port: u16,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The volume.
    pub volume: String,
    /// iSCSI name, `domain:NAME` for the members of a fence domain, or `*`.
    pub initiator: String,
    /// What it may do.
    pub access: AccessRight,
}

/// All grants of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// The volume.
    pub volume: String,
    /// `*` first, then by name.
    pub grants: Vec<Grant>,
}

/// An iSCSI session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Identity for `session drop`, never used twice while the daemon runs.
    pub id: u64,
    /// iSCSI name of the initiator.
    pub initiator: String,
    /// `0x` and 12 digits.
    pub isid: String,
    /// Target session identifying handle.
    pub tsih: u16,
    /// `normal` or `discovery`.
    pub kind: String,
    /// Relative target port identifier.
    pub target_port: u16,
    /// The portal's address.
    pub portal: String,
    /// The initiator's address.
    pub address: String,
    /// `none`, `chap`, or `mutual-chap`.
    pub auth: String,
    /// Full feature phase since.
    pub since: Timestamp,
    /// `DOMAIN/MEMBER` of the initiator; null when it is of no fence domain.
    #[serde(default)]
    pub member: Option<String>,
    /// That member is fenced.
    #[serde(default)]
    pub fenced: bool,
}

/// What `--json` prints to stderr for a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// The failure.
    pub error: Failure,
}
