//! What the daemon tells: the objects of `--json`. Their fields are documented in `docs/cli.md` and only ever
//! grow.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

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
}

/// One portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portal {
    /// The bound address, `ADDR:PORT`.
    pub address: String,
    /// Relative target port identifier and target portal group tag.
    pub target_port: u16,
}

/// A device of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the pool.
    pub name: String,
    /// Where it was opened.
    pub path: PathBuf,
    /// UUID in its label.
    pub uuid: String,
    /// `online`, or what is wrong with it.
    pub state: String,
    /// Usable size.
    pub size_bytes: u64,
    /// Space allocated to volumes.
    pub used_bytes: u64,
    /// Space left.
    pub free_bytes: u64,
    /// Opened with O_DIRECT.
    pub direct: bool,
    /// Volumes with an extent on it, by name.
    pub volumes: Vec<String>,
    /// Volumes whose keys are on it, by name.
    pub keys_of: Vec<String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its logical unit number.
    pub lun: u16,
    /// UUID.
    pub uuid: String,
    /// NAA identifier of VPD page 83h, `0x` and 32 digits.
    pub naa: String,
    /// `online`, or `not-served`.
    pub state: String,
    /// Why it is not served.
    pub reason: Option<String>,
    /// Capacity.
    pub size_bytes: u64,
    /// Logical block size, 512 or 4096.
    pub block_size_bytes: u32,
    /// `linear`.
    pub layout: String,
    /// `aptpl` (as registered) or `always`.
    pub persist: String,
    /// Devices with an extent of it, in the order of addresses.
    pub devices: Vec<String>,
    /// Devices with a replica of its private region.
    pub keys_on: Vec<String>,
    /// Sessions that are granted it.
    pub sessions: usize,
}

/// Where a volume lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMap {
    /// The volume.
    pub volume: String,
    /// Runs by region and offset.
    pub extents: Vec<MapEntry>,
}

/// A run of a volume and the run of a device that backs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapEntry {
    /// `public` or `private`.
    pub region: String,
    /// Plex or replica, from 0.
    pub copy: u16,
    /// Offset in the region.
    pub offset_bytes: u64,
    /// Length of the run.
    pub length_bytes: u64,
    /// The device.
    pub device: String,
    /// Offset on the device.
    pub device_offset_bytes: u64,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The volume.
    pub volume: String,
    /// iSCSI name, or `*`.
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

/// A private region, as read back from the devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The volume.
    pub volume: String,
    /// PRGENERATION.
    pub generation: u32,
    /// The group reservation.
    pub reservation: Option<KeysReservation>,
    /// Registrants by initiator, ISID and target port.
    pub registrations: Vec<KeysRegistration>,
    /// Where the region is kept.
    pub replicas: Vec<KeysReplica>,
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
}

/// How far a long operation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done now.
    pub message: String,
    /// How much is done, in bytes.
    pub done_bytes: u64,
    /// How much there is, in bytes.
    pub total_bytes: u64,
}

/// What `--json` prints to stderr for a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// The failure.
    pub error: Failure,
}
