//! Keys: private regions and their replicas.

use serde::{Deserialize, Serialize};

/// What ends the condition that reservation information was lost (SPC-4 5.13.5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LostUntil {
    /// Each initiator is told until it registers anew itself; for all it ends when no recovered registration is left
    #[default]
    Registered,
    /// Only REPLACE LOST RESERVATION ends it, as in SPC-4, or 'keys recover VOLUME --clear'
    Replaced,
}

/// A private region, as read back from the devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The volume.
    pub volume: String,
    /// Why the keys cannot be trusted, and the volume is not served; null when all is well.
    pub reason: Option<String>,
    /// PRGENERATION; null when it cannot be known.
    pub generation: Option<u32>,
    /// Information was lost and a person went on from one copy: what ends that condition. Null without it.
    pub lost_until: Option<LostUntil>,
    /// The group reservation.
    pub reservation: Option<KeysReservation>,
    /// Registrants by initiator, ISID and target port.
    pub registrations: Vec<KeysRegistration>,
    /// Where the region is kept.
    pub replicas: Vec<KeysReplica>,
    /// Whether enough of the replicas are good.
    pub quorum: KeysQuorum,
}

/// How many replicas of a private region are good, and how many must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysQuorum {
    /// How many are current.
    pub current: usize,
    /// How many there are.
    pub of: usize,
    /// How many are needed for a change, and to serve the volume.
    pub needed: usize,
}

/// The group reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysReservation {
    /// `write-exclusive` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The holder's key; zero for the all-registrants types, as READ RESERVATION has it.
    pub key: String,
    /// The holder's initiator name; null for the all-registrants types, which every registrant holds.
    pub holder: Option<String>,
}

/// One registrant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysRegistration {
    /// `0x` and 16 digits.
    pub key: String,
    /// iSCSI name.
    pub initiator: String,
    /// `0x` and 12 digits.
    pub isid: String,
    /// Relative target port identifier.
    pub target_port: u16,
    /// Whether it survives a power loss (one flag for the logical unit, SPC-4 5.12.5).
    pub aptpl: bool,
    /// Whether it holds the reservation.
    pub holder: bool,
    /// Information was lost, and this registration is one that survived: its initiator is told until it registers anew, or
    /// with `lost_until` `replaced` until all do. False for those made since, and where nothing was lost.
    pub recovered: bool,
}

/// One replica of a private region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysReplica {
    /// The device.
    pub device: String,
    /// `current`, `stale`, `missing`, ...
    pub state: String,
    /// Sequence of its newest valid commit.
    pub sequence: Option<u64>,
}

/// A version of a private region, as `keys recover` finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysCopy {
    /// The devices that have it, by name.
    pub devices: Vec<String>,
    /// Sequence of its newest commit.
    pub sequence: u64,
    /// PRGENERATION.
    pub generation: u32,
    /// Information had been lost before, and what ends that condition; else null.
    pub lost_until: Option<LostUntil>,
    /// The group reservation.
    pub reservation: Option<KeysReservation>,
    /// Registrants by initiator, ISID and target port.
    pub registrations: Vec<KeysRegistration>,
}

/// What `keys recover` would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysRecovery {
    /// The volume.
    pub volume: String,
    /// Why its keys cannot be used as they are.
    pub reason: String,
    /// The version that would be taken.
    pub chosen: KeysCopy,
    /// The other versions, which would be lost.
    pub others: Vec<KeysCopy>,
    /// Replicas that cannot be read: device and reason. What is on them may be newer, and would be lost.
    pub unreadable: Vec<KeysReplica>,
    /// Proof of what was shown; `keys recover` does nothing when something else is found.
    pub proof: u64,
}
