//! The pool: devices and volumes, and every change of them.
//!
//! Every change is one commit of the configuration, which is on every device and open by quorum. What must hold before a
//! commit (zeroes under a new volume, its private region, a label) is made and durable first; what follows from it
//! (space given back, a label erased) comes after and may be lost by a crash without harm.

mod devices;
mod error;
pub mod jobs;
pub mod keep;
mod open;
mod space;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_lock::Mutex;
use uuid::Uuid;

use crate::block_device::BlockDevice;
use crate::config::{BlockSize, Config, ConfigStore, Persist};
use crate::device::Device;
use crate::volume::Volume;

pub use error::PoolError;

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
    /// Name: 1 to 64 letters, digits, `-`, `_` and `.`, with a letter or digit first.
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

/// A pool, open. Shared by everyone; changes are serialized inside. A change that has begun must be run to its end.
pub struct Pool<D> {
    boot_id: Uuid,
    inner: Mutex<Inner<D>>,
    /// By LUN.
    volumes: ArcSwap<BTreeMap<u16, Arc<Volume<D>>>>,
    keeper: keep::Keeper,
}

struct Inner<D> {
    /// `None` until there is a device.
    config: Option<ConfigStore<D>>,
    /// The devices that are there.
    devices: BTreeMap<Uuid, Arc<Device<D>>>,
}

impl<D> Inner<D> {
    fn device_by_name(&self, config: &Config, name: &str) -> Result<Arc<Device<D>>, PoolError> {
        let record = config
            .devices
            .values()
            .find(|record| record.name == name)
            .ok_or_else(|| PoolError::NoSuchDevice { name: name.into() })?;
        self.devices
            .get(&record.uuid)
            .cloned()
            .ok_or_else(|| PoolError::DeviceMissing {
                name: record.name.clone(),
                path: record.path.clone(),
            })
    }
}

impl<D: BlockDevice> Pool<D> {
    /// All volumes by LUN.
    pub fn volumes(&self) -> Vec<Arc<Volume<D>>> {
        self.volumes.load().values().cloned().collect()
    }

    /// A volume by name.
    ///
    /// # Errors
    /// [`PoolError::NoSuchVolume`].
    pub fn volume(&self, name: &str) -> Result<Arc<Volume<D>>, PoolError> {
        self.volumes
            .load()
            .values()
            .find(|volume| volume.record().name == name)
            .cloned()
            .ok_or_else(|| PoolError::NoSuchVolume { name: name.into() })
    }

    /// Identity of the pool, when it has a device.
    pub async fn uuid(&self) -> Option<Uuid> {
        let inner = self.inner.lock().await;
        inner
            .config
            .as_ref()
            .map(|config| config.config().pool.uuid)
    }

    /// Changes the list of volumes; the caller holds the lock of `inner`.
    fn update_volumes(&self, change: impl FnOnce(&mut BTreeMap<u16, Arc<Volume<D>>>)) {
        let mut volumes = BTreeMap::clone(&self.volumes.load());
        change(&mut volumes);
        self.volumes.store(Arc::new(volumes));
    }
}

/// Whether `name` can be the name of a volume or device.
fn check_name(what: &'static str, name: &str) -> Result<(), PoolError> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if first && rest && name.len() <= 64 {
        Ok(())
    } else {
        Err(PoolError::InvalidName {
            what,
            name: name.into(),
        })
    }
}

#[cfg(test)]
mod tests;
