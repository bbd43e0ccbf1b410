//! Volumes.

use serde::{Deserialize, Serialize};

use super::Job;

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its logical unit number.
    pub lun: u16,
    /// UUID.
    pub uuid: String,
    /// NAA identifier of VPD page 83h, `0x` and 16 digits.
    pub naa: String,
    /// `online`, or `not-served`.
    pub state: String,
    /// Why it is not served.
    pub reason: Option<String>,
    /// Capacity.
    pub size_bytes: u64,
    /// Logical block size, 512 or 4096.
    pub block_size_bytes: u32,
    /// `linear` or `striped`.
    pub layout: String,
    /// Columns of the stripes; 1 when linear.
    pub columns: usize,
    /// Bytes in one column before the next one's turn; null when linear.
    pub stripe_unit_bytes: Option<u64>,
    /// Copies of the data, those left out that a job is still filling.
    pub mirrors: usize,
    /// `good`; `resync`: all copies are there, and one is being brought up to date; `degraded`: it has less good copies
    /// of data or keys than it should; `not-served`.
    pub health: String,
    /// `aptpl` (as registered) or `always`.
    pub persist: String,
    /// Devices with an extent of it, in the order of addresses.
    pub devices: Vec<String>,
    /// Devices with a replica of its private region.
    pub keys_on: Vec<String>,
    /// Sessions that are granted it.
    pub sessions: usize,
    /// The copies of the data.
    pub plexes: Vec<Plex>,
    /// Work under way; null when there is none.
    pub job: Option<Job>,
    /// The fence domain it is in, or whose mailbox it is; null when there is none.
    #[serde(default)]
    pub domain: Option<String>,
    /// It is the mailbox of that domain.
    #[serde(default)]
    pub mailbox: bool,
    /// The members of that domain that have no access, by name.
    #[serde(default)]
    pub fenced: Vec<String>,
}

/// A copy of the data of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plex {
    /// Which one, from 0; `copy` in `volume map`.
    pub plex: usize,
    /// UUID.
    pub uuid: String,
    /// `attached`, `filling` (a job is copying to it) or `detached`.
    pub state: String,
    /// Why it is detached.
    pub reason: Option<String>,
    /// `linear` or `striped`.
    pub layout: String,
    /// Columns of the stripes; 1 when linear.
    pub columns: usize,
    /// Bytes in one column before the next one's turn; null when linear.
    pub stripe_unit_bytes: Option<u64>,
    /// Its devices, in the order of addresses.
    pub devices: Vec<String>,
    /// How much of it has to be brought up to date.
    pub stale_bytes: u64,
    /// How much of it is up to date, in whole percent; 100 only when all of it is.
    pub synced_percent: u8,
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
    /// `public`: the data; `private`: the keys; `log`: regions in doubt and intents of atomic writes.
    pub region: String,
    /// Plex or replica, from 0.
    pub copy: u16,
    /// The column of a striped plex, from 0; null otherwise.
    pub column: Option<usize>,
    /// Offset in the region, or in the column where there is one.
    pub offset_bytes: u64,
    /// Length of the run.
    pub length_bytes: u64,
    /// The device.
    pub device: String,
    /// Offset on the device.
    pub device_offset_bytes: u64,
}

/// What `volume verify` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The volume.
    pub volume: String,
    /// How much was compared.
    pub checked_bytes: u64,
    /// How much was not, because a copy is still being brought up to date there.
    pub skipped_bytes: u64,
    /// How much differs between plexes, or cannot be read from one.
    pub mismatched_bytes: u64,
    /// How much of that was repaired.
    pub repaired_bytes: u64,
    /// The first of the differences, by offset.
    pub mismatches: Vec<Mismatch>,
    /// Replicas of the keys that were not current.
    pub keys_stale: Vec<String>,
    /// How many of those were repaired.
    pub keys_repaired: usize,
}

impl Verified {
    /// Whether something is still wrong.
    pub fn is_clean(&self) -> bool {
        self.mismatched_bytes == self.repaired_bytes && self.keys_stale.len() == self.keys_repaired
    }
}

/// A run of a volume in which plexes differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Offset in the volume.
    pub offset_bytes: u64,
    /// Length of the run.
    pub length_bytes: u64,
    /// The plexes that differ from the one that is believed, from 0.
    pub plexes: Vec<usize>,
    /// What is wrong.
    pub problem: String,
    /// Whether it was repaired.
    pub repaired: bool,
}
