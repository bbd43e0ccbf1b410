//! The pool: devices and volumes, and every change of them.

use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use crate::block_device::BlockDevice;
use crate::config::{Access, BlockSize, Persist};
use crate::volume::Volume;

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
}

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Name: 1 to 64 letters, digits, `-`, `_` and `.`, not starting with a punctuation mark.
    pub name: String,
    /// Size in bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// Names of the devices for the data; empty for any.
    pub on: Vec<String>,
    /// Names of the devices for the private region, one replica each; empty for the first device of the data.
    pub keys_on: Vec<String>,
    /// Logical block size.
    pub block_size: BlockSize,
    /// What survives a reboot.
    pub persist: Persist,
}

/// Why an operation on the pool failed; the text says what to do.
#[derive(Debug, Error)]
pub enum PoolError {
    /// No volume of that name.
    #[error("no volume named {name}; `ringfence volume list` shows them")]
    NoSuchVolume {
        /// The name.
        name: String,
    },
}

/// A pool, open. Shared by everyone; changes are serialized inside.
pub struct Pool<D> {
    _device: std::marker::PhantomData<fn() -> D>,
}

impl<D: BlockDevice> Pool<D> {
    /// Opens the pool that lives on `devices`; with no device, a pool that is empty until the first `device_add`.
    /// `boot_id` is the kernel's (/proc/sys/kernel/random/boot_id). Volumes whose devices are missing or whose private
    /// region cannot be trusted are there with a [`Volume::fault`].
    pub async fn open(
        _devices: Vec<DeviceSource<D>>,
        _boot_id: Uuid,
    ) -> Result<Pool<D>, PoolError> {
        unimplemented!()
    }

    /// Adds a device under `name`; the first one makes the pool. A device that carries anything else is refused.
    pub async fn device_add(
        &self,
        _name: &str,
        _source: DeviceSource<D>,
    ) -> Result<DeviceInfo, PoolError> {
        unimplemented!()
    }

    /// Removes a device that no volume uses and erases its label.
    pub async fn device_remove(&self, _name: &str) -> Result<(), PoolError> {
        unimplemented!()
    }

    /// All devices by name.
    pub async fn devices(&self) -> Vec<DeviceInfo> {
        unimplemented!()
    }

    /// One device.
    pub async fn device(&self, _name: &str) -> Result<DeviceInfo, PoolError> {
        unimplemented!()
    }

    /// Creates a volume; it reads as zeroes and nobody has a grant.
    pub async fn volume_create(&self, _request: CreateVolume) -> Result<Arc<Volume<D>>, PoolError> {
        unimplemented!()
    }

    /// Deletes a volume. The caller has stopped serving it: operations still in flight on it fail.
    pub async fn volume_delete(&self, _name: &str) -> Result<(), PoolError> {
        unimplemented!()
    }

    /// Makes a volume larger, online; the new bytes read as zeroes.
    pub async fn volume_grow(&self, _name: &str, _size_bytes: u64) -> Result<(), PoolError> {
        unimplemented!()
    }

    /// Sets what `initiator` (a name, or `*`) may do; `None` for a named initiator is stored too (it overrides `*`).
    pub async fn grant(
        &self,
        _volume: &str,
        _initiator: &str,
        _access: Access,
    ) -> Result<(), PoolError> {
        unimplemented!()
    }

    /// All volumes by LUN.
    pub fn volumes(&self) -> Vec<Arc<Volume<D>>> {
        unimplemented!()
    }

    /// A volume by name.
    pub fn volume(&self, _name: &str) -> Result<Arc<Volume<D>>, PoolError> {
        unimplemented!()
    }
}
