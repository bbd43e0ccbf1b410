//! Devices.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ByteRange;

/// A device of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the pool.
    pub name: String,
    /// Where it was opened.
    pub path: PathBuf,
    /// UUID in its label.
    pub uuid: String,
    /// `online`, `evacuating` (jobs empty it), `evacuated` (nothing new is put on it), `stale` (its copy of the
    /// configuration is being brought up to date), `hung`, `failed` or `missing`.
    pub state: String,
    /// Why it is not `online`.
    pub reason: Option<String>,
    /// `data`, or `witness`: it holds configuration and keys only.
    pub role: String,
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
    /// What went wrong on it since it was opened.
    pub errors: DeviceErrors,
}

impl Device {
    /// Nothing is wrong with it, whether or not something new may be put on it.
    pub fn is_well(&self) -> bool {
        matches!(self.state.as_str(), "online" | "evacuating" | "evacuated")
    }
}

/// Operations of a device that failed or hung, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceErrors {
    /// Reads.
    pub read: u64,
    /// Writes, of zeroes too.
    pub write: u64,
    /// Flushes.
    pub flush: u64,
    /// Operations of any kind that did not end in time.
    pub hang: u64,
}

impl DeviceErrors {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.read
            .saturating_add(self.write)
            .saturating_add(self.flush)
            .saturating_add(self.hang)
    }
}

/// What would be lost without a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLoss {
    /// `data`: the only valid copy of a part of a volume; `keys` or `configuration`: the majority of its copies;
    /// `quorum-device`: that of a fence domain.
    pub what: String,
    /// The volume of `data` and `keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The part of `data`; empty for all of a volume that is not served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<ByteRange>,
    /// Current copies of `keys` or `configuration` that would be left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<usize>,
    /// Copies of them that are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<usize>,
    /// Whose `quorum-device` it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}
