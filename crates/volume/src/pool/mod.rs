//! The pool: devices and volumes, and every change of them.
//!
//! Every change is one commit of the configuration, which is on every device and open by quorum. What must hold before a
//! commit (zeroes under a new volume, its private region, a label) is made and durable first; what follows from it
//! (space given back, a label erased) comes after and may be lost by a crash without harm.

mod claim;
mod closed;
mod create;
mod delete;
mod devices;
mod documents;
mod error;
mod grow;
mod import;
pub mod jobs;
pub mod keep;
mod model;
mod names;
mod open;
mod placement;
pub(crate) mod quorum;
mod recover;
mod signature;
mod space;
mod table;
mod verdict;
mod volumes;
mod witness;
mod zeroing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_lock::Mutex;
use uuid::Uuid;

use crate::block_device::BlockDevice;
use crate::config::{Change, Config, ConfigStore, DeviceRole};
use crate::device::{Device, DeviceHealth};
use crate::volume::Volume;

pub use closed::Closed;
pub use error::{PoolError, PoolErrorKind};
pub use model::{
    CreateVolume, DEFAULT_KEYS_REPLICAS, DEFAULT_STRIPE_UNIT_BYTES, DeviceInfo, DeviceSource,
    LayoutRequest, MAX_COLUMNS, PoolInfo,
};
use names::VolumeNames;
pub use quorum::{QUORUM_LIMIT, QUORUM_MAX_BYTES, QuorumError};
pub use recover::{KeysCopy, KeysInspection, KeysReplicaStatus, KeysVersion};
pub use signature::{Ends, PROBE_BYTES, recognise};
use space::{Reserved, Space};
use table::LunTable;
pub use witness::WITNESS_BYTES;

/// A pool, open. Shared by everyone; changes are serialized inside. A change that has begun must be run to its end.
pub struct Pool<D> {
    boot_id: Uuid,
    inner: Mutex<Inner<D>>,
    /// By LUN.
    volumes: ArcSwap<LunTable<Volume<D>>>,
    keeper: keep::Keeper<D>,
    /// Volumes that are growing.
    growing: parking_lot::Mutex<BTreeSet<Uuid>>,
    /// Held while a quorum region is read, written, made or given back. Taken before `inner`.
    quorum: Mutex<()>,
}

impl<D> Default for Inner<D> {
    fn default() -> Self {
        Inner {
            config: None,
            devices: BTreeMap::new(),
            space: Space::default(),
            names: None,
            making: BTreeMap::new(),
            joining: BTreeSet::new(),
            quorum_regions: BTreeMap::new(),
        }
    }
}

struct Inner<D> {
    /// `None` until there is a device.
    config: Option<ConfigStore<D>>,
    /// The devices that are there.
    devices: BTreeMap<Uuid, Arc<Device<D>>>,
    /// What is free, and what is held.
    space: Space,
    /// The names of the volumes; `None`: to be gathered again.
    names: Option<VolumeNames>,
    /// Names and LUNs of volumes that are being created.
    making: BTreeMap<String, u16>,
    /// Names of devices that are being added.
    joining: BTreeSet<String>,
    /// Space of quorum regions that no document has yet, by the document that is to have it.
    quorum_regions: BTreeMap<Uuid, Reserved>,
}

impl<D: BlockDevice> Inner<D> {
    /// Commits changes of the configuration, and what follows from them for [`closed`] devices.
    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), PoolError> {
        let store = self.config.as_mut().ok_or(PoolError::NoDevice)?;
        let changes = closed::complete(store.config(), changes)?;
        let names = self.names.take().map(|mut names| {
            names.follow(store.config(), &changes);
            names
        });
        store.commit(changes).await?;
        self.names = names;
        Ok(())
    }

    /// Whether a volume has this name.
    fn is_volume_name(&mut self, name: &str) -> Result<bool, PoolError> {
        let names = match self.names.take() {
            Some(names) => names,
            None => VolumeNames::of(self.config()?),
        };
        Ok(self.names.insert(names).contains(name))
    }

    /// The configuration.
    fn config(&self) -> Result<&Config, PoolError> {
        let store = self.config.as_ref().ok_or(PoolError::NoDevice)?;
        Ok(store.config())
    }

    /// The devices of these names, each once; all must be there, in use and not being emptied, and of `role` where one is
    /// asked for. What an operator names may be closed: it is open when something is there.
    fn named(&self, names: &[String], role: Option<DeviceRole>) -> Result<Vec<Uuid>, PoolError> {
        let config = self.config()?;
        let mut uuids = Vec::new();
        for name in names {
            let record = config
                .devices
                .values()
                .find(|record| record.name == *name)
                .ok_or_else(|| PoolError::NoSuchDevice { name: name.clone() })?;
            if role.is_some_and(|role| role != record.role) {
                return Err(PoolError::DeviceUnusable {
                    name: name.clone(),
                    problem: "a witness holds no data".into(),
                });
            }
            self.check_usable(record.uuid)?;
            if closed::closed(config, record.uuid) == Some(Closed::Emptying) {
                return Err(closed::being_emptied(name));
            }
            if !uuids.contains(&record.uuid) {
                uuids.push(record.uuid);
            }
        }
        Ok(uuids)
    }

    /// Whether something new may be put on a device, and if not why.
    fn check_usable(&self, device: Uuid) -> Result<(), PoolError> {
        let Some(record) = self.config()?.devices.get(&device) else {
            return Err(PoolError::NoSuchDevice {
                name: device.to_string(),
            });
        };
        let name = record.name.clone();
        let Some(handle) = self.devices.get(&device) else {
            let path = record.path.clone();
            return Err(PoolError::DeviceMissing { name, path });
        };
        let problem = match (record.failed.clone(), handle.health()) {
            (Some(reason), _) | (None, DeviceHealth::Failed { reason }) => {
                format!("it failed: {reason}")
            }
            (None, DeviceHealth::Online) => match handle.abandoned() {
                0 => return Ok(()),
                more => format!("{more} operations on it did not end in time and may still land"),
            },
        };
        Err(PoolError::DeviceUnusable { name, problem })
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

    /// What `pool show` tells; `None` when there is no pool.
    pub async fn info(&self) -> Option<PoolInfo> {
        let inner = self.inner.lock().await;
        let store = inner.config.as_ref()?;
        let config = store.config();
        let free = inner.space.free_bytes(config).unwrap_or_default();
        let data = config
            .devices
            .values()
            .filter(|device| device.role == DeviceRole::Data);
        let mut missing: Vec<String> = config
            .devices
            .values()
            .filter(|device| !inner.devices.contains_key(&device.uuid))
            .map(|device| device.name.clone())
            .collect();
        missing.sort();
        Some(PoolInfo {
            uuid: config.pool.uuid,
            devices: config.devices.len(),
            missing,
            volumes: config.volumes.len(),
            capacity_bytes: data.clone().map(|device| device.data_length_bytes).sum(),
            free_bytes: data
                .filter_map(|device| free.get(&device.uuid))
                .map(|free| free.all)
                .sum(),
            config_current: store.current_on().len(),
            config_members: store.health().len(),
            config_sequence: store.sequence(),
            handover: config.pool.handover,
        })
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
    fn update_volumes(&self, change: impl FnOnce(&mut LunTable<Volume<D>>)) {
        let mut volumes = LunTable::clone(&self.volumes.load());
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
