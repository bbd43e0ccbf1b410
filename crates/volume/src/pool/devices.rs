//! Adding, removing and listing devices.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::claim::{Claim, claim, erase, in_time, look};
use super::closed::closed;
use super::documents::documents_on;
use super::space::users;
use super::{DeviceInfo, DeviceSource, Inner, Pool, PoolError, check_name};
use crate::block_device::BlockDevice;
use crate::config::{Change, Config, ConfigStore, DeviceRecord, DeviceRole, PoolRecord};
use crate::device::{Device, DeviceHealth};
use crate::fresh_uuid::fresh_uuid;
use crate::label::{self, Areas, Label};
use crate::page_store::Replica;

/// How long a removal waits for space that is being given back to the device, and how often it looks.
const FREE_PATIENCE: Duration = Duration::from_secs(10);
const FREE_LOOK: Duration = Duration::from_millis(20);

/// A device that is about to join.
struct Joining<D> {
    device: Arc<Device<D>>,
    record: DeviceRecord,
    areas: Areas,
}

impl<D> Joining<D> {
    fn label(&self, pool: Uuid) -> Label {
        Label {
            pool,
            device: self.record.uuid,
            sequence: 1,
            size_bytes: self.record.size_bytes,
            areas: self.areas,
            name: self.record.name.clone(),
        }
    }

    fn replica(&self) -> Replica<D> {
        Replica {
            uuid: self.record.uuid,
            device: self.device.clone(),
            offset_bytes: self.areas.config_offset_bytes,
            length_bytes: self.areas.config_length_bytes,
        }
    }
}

impl<D: BlockDevice> Pool<D> {
    /// Adds a device under `name`; the first one makes the pool. A device that carries anything else is refused.
    ///
    /// # Errors
    /// [`PoolError`]; the device is not in the pool then.
    pub async fn device_add(
        &self,
        name: &str,
        source: DeviceSource<D>,
    ) -> Result<DeviceInfo, PoolError> {
        self.device_add_with(name, source, false).await
    }

    /// As [`Pool::device_add`]; with `force`, what somebody else left on the device is erased first. A device of this
    /// pool is refused even so.
    ///
    /// # Errors
    /// [`PoolError`]; the device is not in the pool then.
    pub async fn device_add_with(
        &self,
        name: &str,
        source: DeviceSource<D>,
        force: bool,
    ) -> Result<DeviceInfo, PoolError> {
        self.join(name, source, force, DeviceRole::Data).await
    }

    /// Adds a device. Nothing that the new device is slow to do is done under the pool's lock, but for its copy of the
    /// configuration.
    pub(super) async fn join(
        &self,
        name: &str,
        source: DeviceSource<D>,
        force: bool,
        role: DeviceRole,
    ) -> Result<DeviceInfo, PoolError> {
        check_name("device", name)?;
        let DeviceSource { path, device } = source;
        let size_bytes = device.size_bytes();
        let uuid = fresh_uuid();
        let device = Arc::new(Device::new(uuid, name.to_owned(), path.clone(), device));
        let areas = Areas::of(size_bytes).ok_or(PoolError::DeviceTooSmall {
            path: path.clone(),
            size_bytes,
        })?;
        let joining = Joining {
            device,
            record: DeviceRecord {
                uuid,
                name: name.to_owned(),
                path: path.clone(),
                size_bytes,
                data_offset_bytes: areas.data_offset_bytes,
                data_length_bytes: areas.data_length_bytes,
                role,
                failed: None,
                closed: false,
            },
            areas,
        };
        let found = look(&joining.device).await?;
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let config = inner.config.as_ref().map(ConfigStore::config);
        let taken = config.is_some_and(|config| config.devices.values().any(|d| d.name == name));
        if taken || inner.joining.contains(name) {
            return Err(PoolError::NameTaken {
                what: "device",
                name: name.into(),
            });
        }
        let claim = claim(&path, found, config, force)?;
        let Some(config) = config else {
            return self.first_device(&mut inner, joining, claim).await;
        };
        let pool = config.pool.uuid;
        inner.joining.insert(name.to_owned());
        drop(inner);
        // The label first: once the configuration counts on this device, it must be found again.
        let prepared = prepare(&joining, claim, Some(pool)).await;
        let mut inner = self.inner.lock().await;
        inner.joining.remove(name);
        prepared?;
        self.settle(&mut inner).await?;
        let added = match inner.config.as_mut() {
            Some(config) if config.config().pool.uuid == pool => {
                let change = Change::Device(joining.record.clone());
                let added = config.add_replica(joining.replica(), vec![change]).await;
                added.map_err(|error| (error.into(), config.is_unsettled()))
            }
            // It was exported, or its last device removed.
            _ => Err((PoolError::NoDevice, false)),
        };
        if let Err((error, unsettled)) = added {
            if !unsettled {
                label::erase(&joining.device).await?;
            }
            return Err(error);
        }
        self.joined(&mut inner, joining)
    }

    /// Makes a pool with its first device.
    async fn first_device(
        &self,
        inner: &mut Inner<D>,
        joining: Joining<D>,
        claim: Claim,
    ) -> Result<DeviceInfo, PoolError> {
        if joining.record.role == DeviceRole::Witness {
            return Err(PoolError::NoDevice);
        }
        prepare(&joining, claim, None).await?;
        let pool = PoolRecord {
            uuid: fresh_uuid(),
            next_lun: 0,
            handover: false,
        };
        let label = joining.label(pool.uuid);
        let config = ConfigStore::create(pool, joining.record.clone(), joining.replica()).await?;
        // The label last: with it the pool is there, and whole.
        label::write(&joining.device, &label).await?;
        inner.config = Some(config);
        self.resume();
        self.joined(inner, joining)
    }

    fn joined(&self, inner: &mut Inner<D>, joining: Joining<D>) -> Result<DeviceInfo, PoolError> {
        let name = joining.record.name.clone();
        inner.devices.insert(joining.record.uuid, joining.device);
        inner.space.forget();
        info(inner, joining.record.uuid).ok_or(PoolError::NoSuchDevice { name })
    }

    /// Removes a device that no volume uses and erases its label and both ends. The last data device takes the pool with it. A device
    /// that is dead or away can be removed too.
    ///
    /// # Errors
    /// [`PoolError::DeviceInUse`] says by what.
    pub async fn device_remove(&self, name: &str) -> Result<(), PoolError> {
        self.wait_until_free(name).await;
        let mut guard = self.inner.lock().await;
        self.settle(&mut guard).await?;
        let inner = &mut *guard;
        let no_such = || PoolError::NoSuchDevice { name: name.into() };
        let store = inner.config.as_mut().ok_or_else(no_such)?;
        let config = store.config();
        let uuid = config
            .devices
            .values()
            .find(|device| device.name == name)
            .map(|device| device.uuid)
            .ok_or_else(no_such)?;
        let uses = uses(config, uuid);
        if !uses.is_empty() {
            return Err(PoolError::DeviceInUse {
                name: name.into(),
                volumes: uses.join(", "),
            });
        }
        if inner.space.is_held_on(uuid) {
            return Err(PoolError::DeviceInUse {
                name: name.into(),
                volumes: "volumes that are being made, or whose space is still being given back"
                    .into(),
            });
        }
        let rest = config.devices.values().filter(|other| other.uuid != uuid);
        let documents: Vec<String> = config
            .documents
            .values()
            .map(|record| format!("{} {}", record.kind, record.name))
            .collect();
        let ends = !rest.clone().any(|other| other.role == DeviceRole::Data);
        if ends && !documents.is_empty() {
            return Err(PoolError::DeviceInUse {
                name: name.into(),
                volumes: documents.join(", "),
            });
        }
        let erased: Vec<Uuid> = if rest.clone().any(|other| other.role == DeviceRole::Data) {
            store
                .remove_replica(uuid, vec![Change::Remove(uuid)])
                .await?;
            vec![uuid]
        } else {
            // The pool ends; a witness alone is none.
            let all = config.devices.keys().copied().collect();
            inner.config = None;
            all
        };
        inner.space.forget();
        let erased: Vec<Arc<Device<D>>> = erased
            .iter()
            .filter_map(|uuid| inner.devices.remove(uuid))
            .collect();
        drop(guard);
        for device in erased {
            // One that is dead keeps its label: it is outvoted, and left out wherever it comes up again.
            if let Err(error) = erase(&device).await {
                tracing::warn!(device = device.name(), %error, "the label of a removed device stays");
            }
        }
        Ok(())
    }

    /// What a volume just left is given back to its devices in the background: who removes a device then need not come
    /// again. Waits until it is, for a while, where no volume uses the device any more.
    async fn wait_until_free(&self, name: &str) {
        let mut began = None;
        loop {
            let device = {
                let inner = self.inner.lock().await;
                let Some(config) = inner.config.as_ref().map(ConfigStore::config) else {
                    return;
                };
                let mut devices = config.devices.values();
                let Some(record) = devices.find(|device| device.name == name) else {
                    return;
                };
                if !uses(config, record.uuid).is_empty() || !inner.space.is_held_on(record.uuid) {
                    return;
                }
                match inner.devices.get(&record.uuid) {
                    Some(device) => device.clone(),
                    None => return,
                }
            };
            let now = device.now();
            if now.saturating_sub(*began.get_or_insert(now)) >= FREE_PATIENCE {
                return;
            }
            device.sleep(FREE_LOOK).await;
        }
    }

    /// All devices by name.
    pub async fn devices(&self) -> Vec<DeviceInfo> {
        let inner = self.inner.lock().await;
        let Some(config) = &inner.config else {
            return Vec::new();
        };
        let mut infos: Vec<DeviceInfo> = config
            .config()
            .devices
            .keys()
            .filter_map(|uuid| info(&inner, *uuid))
            .collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    /// One device.
    ///
    /// # Errors
    /// [`PoolError::NoSuchDevice`].
    pub async fn device(&self, name: &str) -> Result<DeviceInfo, PoolError> {
        self.devices()
            .await
            .into_iter()
            .find(|info| info.name == name)
            .ok_or_else(|| PoolError::NoSuchDevice { name: name.into() })
    }
}

/// Makes a device ready: what is to be erased is gone; with a pool, it has its label.
async fn prepare<D: BlockDevice>(
    joining: &Joining<D>,
    claim: Claim,
    pool: Option<Uuid>,
) -> Result<(), PoolError> {
    if claim == Claim::Erase {
        erase(&joining.device).await?;
    }
    if let Some(pool) = pool {
        let label = joining.label(pool);
        let writing = label::write(&joining.device, &label);
        in_time(&joining.device, "write", writing).await?;
    }
    Ok(())
}

/// What a device is in use by: each volume, and what of it is there.
fn uses(config: &Config, device: Uuid) -> Vec<String> {
    let mut uses: Vec<String> = config
        .volumes
        .values()
        .filter_map(|volume| {
            let columns = volume.plexes.iter().flat_map(|plex| &plex.columns);
            let data = columns.flat_map(|column| &column.extents);
            let mut what = Vec::new();
            if data.clone().any(|extent| extent.device == device) {
                what.push("data");
            }
            if volume.plexes.iter().any(|plex| plex.log.device == device) {
                what.push("log");
            }
            if volume.keys.iter().any(|keys| keys.extent.device == device) {
                what.push("keys");
            }
            (!what.is_empty()).then(|| format!("{} ({})", volume.name, what.join(", ")))
        })
        .collect();
    uses.sort();
    uses.splice(0..0, documents_on(config, device));
    let more = uses.len().saturating_sub(8);
    if more > 0 {
        uses.truncate(8);
        uses.push(format!("{more} more"));
    }
    uses
}

pub(super) fn info<D: BlockDevice>(inner: &Inner<D>, uuid: Uuid) -> Option<DeviceInfo> {
    let store = inner.config.as_ref()?;
    let config = store.config();
    let record = config.devices.get(&uuid)?;
    let free = inner.space.free_bytes(config).unwrap_or_default();
    let device = inner.devices.get(&uuid);
    Some(DeviceInfo {
        uuid,
        name: record.name.clone(),
        path: record.path.clone(),
        size_bytes: record.size_bytes,
        capacity_bytes: record.data_length_bytes,
        role: record.role,
        free_bytes: free.get(&uuid).map_or(0, |free| free.all),
        volumes: users(config, uuid),
        present: device.is_some(),
        config_current: store.current_on().contains(&uuid),
        failed: match device.map(|device| device.health()) {
            Some(DeviceHealth::Failed { reason }) => Some(reason),
            _ => record.failed.clone(),
        },
        online: record.failed.is_none() && device.is_some_and(|device| device.is_online()),
        errors: device.map(|device| device.errors()).unwrap_or_default(),
        abandoned: device.map_or(0, |device| device.abandoned()),
        closed: closed(config, uuid),
    })
}
