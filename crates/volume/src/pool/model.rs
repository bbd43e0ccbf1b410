//! What goes into the pool's operations and what they tell.

use std::sync::Arc;

use uuid::Uuid;

use super::Closed;
use crate::config::{BlockSize, DeviceRole, Persist};
use crate::device::DeviceErrors;

/// A block device offered to the pool.
pub struct DeviceSource<D> {
    /// Where it was opened; shown and stored, to find it again.
    pub path: String,
    /// The device.
    pub device: Arc<D>,
}

/// What `device list` and `device show` tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Identity of the device.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Where it was last opened.
    pub path: String,
    /// What it is for.
    pub role: DeviceRole,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Bytes that extents may use.
    pub capacity_bytes: u64,
    /// Bytes of them that are free.
    pub free_bytes: u64,
    /// Names of the volumes that have an extent on it.
    pub volumes: Vec<String>,
    /// False when the device is in the configuration but was not given at open.
    pub present: bool,
    /// Its copy of the configuration is current.
    pub config_current: bool,
    /// Why it is not used, when it broke or an operator said so.
    pub failed: Option<String>,
    /// Operations on it are tried.
    pub online: bool,
    /// What went wrong since the pool was opened.
    pub errors: DeviceErrors,
    /// Operations that were given up and may still land.
    pub abandoned: u64,
    /// Why nothing new is put on it, when that is so.
    pub closed: Option<Closed>,
}

/// What `pool show` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    /// Identity of the pool.
    pub uuid: Uuid,
    /// Number of devices, the witness and missing ones included.
    pub devices: usize,
    /// Names of the devices that are not there.
    pub missing: Vec<String>,
    /// Number of volumes.
    pub volumes: usize,
    /// Bytes of all data devices that extents may use.
    pub capacity_bytes: u64,
    /// Bytes of them that are free.
    pub free_bytes: u64,
    /// Devices whose copy of the configuration is current.
    pub config_current: usize,
    /// Devices that have one; more than half must be current.
    pub config_members: usize,
    /// Number of the last change of the configuration.
    pub config_sequence: u64,
    /// It was exported and not served since.
    pub handover: bool,
}

/// How a copy of a volume is laid out over devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayoutRequest {
    /// One device after the other; on one alone where there is room.
    #[default]
    Linear,
    /// Stripes over several devices.
    Striped {
        /// Number of devices, at least 2; `None` for as many as there are for each copy.
        columns: Option<usize>,
        /// Bytes on one device before the next one's turn, a power of two of 4 KiB to 16 MiB; `None` for
        /// [`DEFAULT_STRIPE_UNIT_BYTES`].
        stripe_unit_bytes: Option<u64>,
    },
}

/// Bytes of a stripe unit where none is asked for.
pub const DEFAULT_STRIPE_UNIT_BYTES: u64 = 64 << 10;

/// Most columns of a striped plex.
pub const MAX_COLUMNS: usize = 128;

/// Replicas of a private region where `keys_on` names no devices and there are as many.
pub const DEFAULT_KEYS_REPLICAS: usize = 3;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Name: 1 to 64 letters, digits, `-`, `_` and `.`, with a letter or digit first.
    pub name: String,
    /// Size in bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// How each copy is laid out.
    pub layout: LayoutRequest,
    /// Number of copies, each on devices of its own; 0 is taken for 1.
    pub mirrors: usize,
    /// Names of the devices that the data keeps to, now and when it grows; empty for any.
    pub on: Vec<String>,
    /// Names of the devices for the private region, one replica each; empty for [`DEFAULT_KEYS_REPLICAS`] on any
    /// devices, those of the data first.
    pub keys_on: Vec<String>,
    /// Logical block size.
    pub block_size: BlockSize,
    /// What survives a reboot.
    pub persist: Persist,
}
