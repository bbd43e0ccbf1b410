//! The pool.

use serde::{Deserialize, Serialize};

/// The pool that the daemon serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its identity; null while it has no device.
    pub uuid: Option<String>,
    /// `empty`, `online`, or `degraded`: a device is not online or a volume is not served or has less copies than it
    /// should.
    pub state: String,
    /// Its devices, by name.
    pub devices: Vec<String>,
    /// Those that are missing or have failed, by name.
    pub devices_missing: Vec<String>,
    /// How many volumes it has.
    pub volumes: usize,
    /// Those that are not served, by name.
    pub volumes_not_served: Vec<String>,
    /// Those with less good copies of data or keys than they should have, by name.
    pub volumes_degraded: Vec<String>,
    /// Space of all data devices.
    pub size_bytes: u64,
    /// Space allocated to volumes.
    pub used_bytes: u64,
    /// Space left.
    pub free_bytes: u64,
    /// The copies of its configuration.
    pub config: ConfigQuorum,
}

/// Copies of the pool's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigQuorum {
    /// How many are current.
    pub current: usize,
    /// How many there are.
    pub of: usize,
    /// How many are needed for a change, and to open the pool.
    pub needed: usize,
}
