//! What can go wrong with a pool, in words that say what to do.

use thiserror::Error;
use uuid::Uuid;

use crate::config::ConfigError;
use crate::error::VolumeError;
use crate::label::{LabelError, MIN_DEVICE_BYTES};
use crate::private_region::PrivateRegionError;

/// What kind of failure it is, for exit codes and for who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolErrorKind {
    /// There is no such thing.
    NotFound,
    /// The request makes no sense as it is.
    Usage,
    /// The request makes sense and cannot be granted as things are; nothing was changed.
    Refused,
    /// Something broke.
    Failed,
}

/// Why an operation on the pool failed; the text says what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PoolError {
    /// No volume of that name.
    #[error("no volume named {name}; `ringfence volume list` shows them")]
    NoSuchVolume {
        /// The name.
        name: String,
    },
    /// No device of that name.
    #[error("no device named {name}; `ringfence device list` shows them")]
    NoSuchDevice {
        /// The name.
        name: String,
    },
    /// The name is in use.
    #[error("there is already a {what} named {name}; choose another name")]
    NameTaken {
        /// `volume` or `device`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Not a name.
    #[error(
        "'{name}' cannot be the name of a {what}: use 1 to 64 letters, digits, '-', '_' and '.', with a letter or digit first"
    )]
    InvalidName {
        /// `volume` or `device`.
        what: &'static str,
        /// What was given.
        name: String,
    },
    /// Not an initiator name.
    #[error(
        "'{name}' is not an initiator name: use 1 to 223 characters without spaces, such as iqn.2026-11.org.example:vm1, or '*' for everyone"
    )]
    InvalidInitiator {
        /// What was given.
        name: String,
    },
    /// Not a size.
    #[error("a volume of {size_bytes} bytes: {problem}")]
    InvalidSize {
        /// What was given.
        size_bytes: u64,
        /// What is wrong, and what to give.
        problem: &'static str,
    },
    /// Growing to a size that is not larger.
    #[error(
        "volume {name} has {size_bytes} bytes already and cannot become smaller or stay as it is; give a larger size"
    )]
    NotLarger {
        /// The volume.
        name: String,
        /// Its size.
        size_bytes: u64,
    },
    /// A device below the smallest size.
    #[error("{path} has {size_bytes} bytes; a device needs at least {MIN_DEVICE_BYTES} (16 MiB)")]
    DeviceTooSmall {
        /// The device.
        path: String,
        /// Its size.
        size_bytes: u64,
    },
    /// The label is not one that can be used, or there is something else.
    #[error(
        "{path}: {source}; ringfence uses only devices that start with 128 KiB of zeroes or with its own label"
    )]
    Label {
        /// The device.
        path: String,
        /// What it says.
        source: LabelError,
    },
    /// A device of another pool.
    #[error("{path} belongs to pool {pool} (as device {name}); remove it there, or erase it first")]
    OtherPool {
        /// The device.
        path: String,
        /// Whose it is.
        pool: Uuid,
        /// Its name there.
        name: String,
    },
    /// A device that is in the pool already.
    #[error("{path} is device {name} of this pool already")]
    AlreadyMember {
        /// The device.
        path: String,
        /// Its name.
        name: String,
    },
    /// The same device, or a copy of it, was given twice.
    #[error(
        "{first} and {second} have the same label: one is a copy of the other; leave the copy out"
    )]
    Duplicate {
        /// One path.
        first: String,
        /// The other.
        second: String,
    },
    /// Devices of different pools were given together.
    #[error(
        "{first} belongs to pool {first_pool} and {second} to pool {second_pool}; open one pool at a time"
    )]
    MixedPools {
        /// One path.
        first: String,
        /// Its pool.
        first_pool: Uuid,
        /// The other path.
        second: String,
        /// Its pool.
        second_pool: Uuid,
    },
    /// None of the devices has a usable label.
    #[error("none of the devices carries a pool: {reasons}")]
    NoPool {
        /// Each device and why.
        reasons: String,
    },
    /// The copies of the configuration that could be reached do not suffice.
    #[error("the pool cannot be opened from {devices}: {source}{missing}")]
    NotOpened {
        /// The devices that were given and belong to it.
        devices: String,
        /// Why.
        source: ConfigError,
        /// What was given but could not be used.
        missing: String,
    },
    /// A device that volumes use.
    #[error("device {name} is in use by {volumes}; delete them or move them first")]
    DeviceInUse {
        /// The device.
        name: String,
        /// The volumes.
        volumes: String,
    },
    /// A device that a document has a quorum region on.
    #[error(
        "device {name} holds the quorum region of {documents}; choose another quorum device there first"
    )]
    QuorumDevice {
        /// The device.
        name: String,
        /// Whose.
        documents: String,
    },
    /// A document that cannot be kept.
    #[error("the document cannot be kept: {problem}")]
    InvalidDocument {
        /// What is wrong.
        problem: String,
    },
    /// A quorum region could not be made.
    #[error("no quorum region could be made on device {device}: {problem}")]
    QuorumRegion {
        /// The device.
        device: String,
        /// Why.
        problem: String,
    },
    /// A device that is not there.
    #[error("device {name} ({path}) is missing; bring it back first")]
    DeviceMissing {
        /// The device.
        name: String,
        /// Where it was last.
        path: String,
    },
    /// The same device was named twice for replicas that must be apart.
    #[error(
        "device {name} is named twice for the private region; its replicas belong on different devices"
    )]
    KeysTwice {
        /// The device.
        name: String,
    },
    /// A layout that cannot be.
    #[error("{problem}")]
    InvalidLayout {
        /// What is wrong, and what is right.
        problem: String,
    },
    /// Fewer devices than the layout needs.
    #[error(
        "{what} needs {needed} device{} online and free of other copies of the volume, and there {}; add devices or name others",
        if *.needed == 1 { "" } else { "s" },
        match .available { 0 => "is none".to_owned(), 1 => "is 1".to_owned(), more => format!("are {more}") }
    )]
    TooFewDevices {
        /// What for.
        what: String,
        /// How many.
        needed: usize,
        /// How many there are.
        available: usize,
    },
    /// A device that nothing new can be put on.
    #[error("device {name} cannot be used now: {problem}")]
    DeviceUnusable {
        /// The device.
        name: String,
        /// Why.
        problem: String,
    },
    /// A device with something else on it.
    #[error(
        "{path} carries {what}; if nobody needs it, add the device with --force, which erases it"
    )]
    Foreign {
        /// The device.
        path: String,
        /// What was found, by name.
        what: String,
    },
    /// The pool has devices already.
    #[error("there is a pool with {devices} devices already; export it first")]
    NotEmpty {
        /// How many.
        devices: usize,
    },
    /// Nothing to recover.
    #[error("the keys of volume {volume} are whole and current; there is nothing to recover")]
    KeysHaveQuorum {
        /// The volume.
        volume: String,
    },
    /// The version of the keys that a person chose is not there, or not there any more.
    #[error(
        "device {device} does not hold that version of the keys of volume {volume}; look again with `ringfence keys {volume}`"
    )]
    KeysNotThere {
        /// The volume.
        volume: String,
        /// The device that was named.
        device: String,
    },
    /// The volume is growing already.
    #[error("volume {name} is growing already")]
    Growing {
        /// The volume.
        name: String,
    },
    /// The keys are being changed.
    #[error(
        "the keys of volume {volume} are being changed, or a device that holds them hangs; try again, or first take that device out with `ringfence device fail NAME`"
    )]
    KeysBusy {
        /// The volume.
        volume: String,
    },
    /// No device at all.
    #[error("the pool has no device; add one with `ringfence device add NAME PATH`")]
    NoDevice,
    /// Not enough free space.
    #[error("no space for {what} of {needed_bytes} bytes: {places}")]
    NoSpace {
        /// What for.
        what: &'static str,
        /// How much is needed.
        needed_bytes: u64,
        /// How much is free where, and who uses the rest.
        places: String,
    },
    /// All LUNs are taken.
    #[error("all 16384 logical unit numbers are in use; delete a volume first")]
    NoLun,
    /// The devices are full of configuration records.
    #[error("the configuration does not fit: {source}; the smallest device of the pool limits it")]
    ConfigFull {
        /// The details.
        source: ConfigError,
    },
    /// The records contradict one another.
    #[error("the configuration contradicts itself: {problem}")]
    Inconsistent {
        /// What is wrong.
        problem: String,
    },
    /// A job or a change of plexes is refused.
    #[error(transparent)]
    Job(#[from] super::jobs::JobError),
    /// The configuration could not be read or changed.
    #[error(transparent)]
    Config(ConfigError),
    /// A device failed.
    #[error(transparent)]
    Device(#[from] VolumeError),
    /// A private region could not be made.
    #[error(transparent)]
    PrivateRegion(#[from] PrivateRegionError),
}

impl PoolError {
    /// What kind of failure it is.
    pub fn kind(&self) -> PoolErrorKind {
        match self {
            PoolError::NoSuchVolume { .. } | PoolError::NoSuchDevice { .. } => {
                PoolErrorKind::NotFound
            }
            PoolError::InvalidName { .. }
            | PoolError::InvalidInitiator { .. }
            | PoolError::InvalidSize { .. }
            | PoolError::InvalidLayout { .. }
            | PoolError::InvalidDocument { .. }
            | PoolError::KeysTwice { .. } => PoolErrorKind::Usage,
            PoolError::NameTaken { .. }
            | PoolError::NotLarger { .. }
            | PoolError::DeviceTooSmall { .. }
            | PoolError::Label { .. }
            | PoolError::OtherPool { .. }
            | PoolError::AlreadyMember { .. }
            | PoolError::Duplicate { .. }
            | PoolError::MixedPools { .. }
            | PoolError::DeviceInUse { .. }
            | PoolError::QuorumDevice { .. }
            | PoolError::DeviceMissing { .. }
            | PoolError::DeviceUnusable { .. }
            | PoolError::TooFewDevices { .. }
            | PoolError::Foreign { .. }
            | PoolError::NotEmpty { .. }
            | PoolError::KeysHaveQuorum { .. }
            | PoolError::KeysNotThere { .. }
            | PoolError::KeysBusy { .. }
            | PoolError::Growing { .. }
            | PoolError::NoDevice
            | PoolError::NoSpace { .. }
            | PoolError::NoLun
            | PoolError::ConfigFull { .. } => PoolErrorKind::Refused,
            PoolError::NoPool { .. }
            | PoolError::NotOpened { .. }
            | PoolError::Inconsistent { .. }
            | PoolError::Config(_)
            | PoolError::QuorumRegion { .. }
            | PoolError::Device(_)
            | PoolError::PrivateRegion(_) => PoolErrorKind::Failed,
            PoolError::Job(error) => error.kind(),
        }
    }
}

impl From<ConfigError> for PoolError {
    fn from(source: ConfigError) -> Self {
        match source {
            ConfigError::Store(crate::page_store::StoreError::Full { .. }) => {
                PoolError::ConfigFull { source }
            }
            source => PoolError::Config(source),
        }
    }
}
