//! Adding, removing and listing devices.

use std::sync::Arc;

use uuid::Uuid;

use super::space::users;
use super::{DeviceInfo, DeviceSource, Inner, Pool, PoolError, check_name};
use crate::block_device::BlockDevice;
use crate::config::{Change, Config, ConfigStore, DeviceRecord, DeviceRole, PoolRecord};
use crate::device::{Device, DeviceHealth};
use crate::fresh_uuid::fresh_uuid;
use crate::label::{self, Areas, Label, LabelError};
use crate::page_store::Replica;

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
        check_name("device", name)?;
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let DeviceSource { path, device } = source;
        let size_bytes = device.size_bytes();
        let uuid = fresh_uuid();
        let device = Arc::new(Device::new(uuid, name.to_owned(), path.clone(), device));
        let areas = Areas::of(size_bytes).ok_or(PoolError::DeviceTooSmall {
            path: path.clone(),
            size_bytes,
        })?;
        let config = inner.config.as_ref().map(ConfigStore::config);
        if config.is_some_and(|config| config.devices.values().any(|d| d.name == name)) {
            return Err(PoolError::NameTaken {
                what: "device",
                name: name.into(),
            });
        }
        check_unclaimed(&device, config).await?;
        let pool_uuid = config.map_or_else(fresh_uuid, |config| config.pool.uuid);
        let label = Label {
            pool: pool_uuid,
            device: uuid,
            sequence: 1,
            size_bytes,
            areas,
            name: name.to_owned(),
        };
        let record = DeviceRecord {
            uuid,
            name: name.to_owned(),
            path,
            size_bytes,
            data_offset_bytes: areas.data_offset_bytes,
            data_length_bytes: areas.data_length_bytes,
            role: DeviceRole::Data,
            failed: None,
        };
        let replica = Replica {
            uuid,
            device: device.clone(),
            offset_bytes: areas.config_offset_bytes,
            length_bytes: areas.config_length_bytes,
        };
        match &mut inner.config {
            // The label last: with it the pool is there, and whole.
            None => {
                let pool = PoolRecord {
                    uuid: pool_uuid,
                    next_lun: 0,
                    handover: false,
                };
                let config = ConfigStore::create(pool, record, replica).await?;
                label::write(&device, &label).await?;
                inner.config = Some(config);
            }
            // The label first: once the configuration counts on this device, it must be found again.
            Some(config) => {
                label::write(&device, &label).await?;
                if let Err(error) = config
                    .add_replica(replica, vec![Change::Device(record)])
                    .await
                {
                    if !config.is_unsettled() {
                        label::erase(&device).await?;
                    }
                    return Err(error.into());
                }
            }
        }
        inner.devices.insert(uuid, device);
        inner.space.forget();
        info(&inner, uuid).ok_or_else(|| PoolError::NoSuchDevice { name: name.into() })
    }

    /// Removes a device that no volume uses and erases its label. The last device takes the pool with it.
    ///
    /// # Errors
    /// [`PoolError::DeviceInUse`] says by what.
    pub async fn device_remove(&self, name: &str) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let inner = &mut *inner;
        let no_such = || PoolError::NoSuchDevice { name: name.into() };
        let store = inner.config.as_mut().ok_or_else(no_such)?;
        let config = store.config();
        let uuid = config
            .devices
            .values()
            .find(|device| device.name == name)
            .map(|device| device.uuid)
            .ok_or_else(no_such)?;
        let users = users(config, uuid);
        if !users.is_empty() {
            return Err(PoolError::DeviceInUse {
                name: name.into(),
                volumes: users.join(", "),
            });
        }
        if inner.space.is_held_on(uuid) {
            return Err(PoolError::DeviceInUse {
                name: name.into(),
                volumes: "volumes that are being made, grown, moved or deleted".into(),
            });
        }
        if config.devices.len() > 1 {
            store
                .remove_replica(uuid, vec![Change::Remove(uuid)])
                .await?;
        } else {
            inner.config = None;
        }
        inner.space.forget();
        if let Some(device) = inner.devices.remove(&uuid) {
            label::erase(&device).await?;
        }
        Ok(())
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

/// Refuses a device that carries anything: data, another pool's label, a label of this pool that is in use.
async fn check_unclaimed<D: BlockDevice>(
    device: &Device<D>,
    config: Option<&Config>,
) -> Result<(), PoolError> {
    let path = device.path().to_owned();
    match label::read(device).await {
        Err(LabelError::Empty) => Ok(()),
        Err(source) => Err(PoolError::Label { path, source }),
        Ok(label) => match config {
            Some(config) if config.pool.uuid == label.pool => {
                match config.devices.get(&label.device) {
                    Some(record) => Err(PoolError::AlreadyMember {
                        path,
                        name: record.name.clone(),
                    }),
                    // An addition that was interrupted, or a removal.
                    None => Ok(()),
                }
            }
            _ => Err(PoolError::OtherPool {
                path,
                pool: label.pool,
                name: label.name,
            }),
        },
    }
}

fn info<D: BlockDevice>(inner: &Inner<D>, uuid: Uuid) -> Option<DeviceInfo> {
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
    })
}
