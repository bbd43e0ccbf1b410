//! Opening a pool from its devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_lock::Mutex;
use uuid::Uuid;

use super::table::LunTable;
use super::{DeviceSource, Inner, Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::{Change, Config, ConfigStore, VolumeRecord};
use crate::device::Device;
use crate::join::{boxed, join_all};
use crate::label::{self, Label};
use crate::page_store::Replica;
use crate::private_region::PrivateRegion;
use crate::translate::{Map, Region};
use crate::volume::{Layout, Volume};

/// Volumes opened at the same time.
const OPEN_TOGETHER: usize = 64;

/// A device that has a label.
struct Labelled<D> {
    label: Label,
    device: Arc<Device<D>>,
}

impl<D: BlockDevice> Pool<D> {
    /// Opens the pool that lives on `devices`; with no device, a pool that is empty until the first `device_add`.
    /// `boot_id` is the kernel's (/proc/sys/kernel/random/boot_id). Volumes whose devices are missing or whose private
    /// region cannot be trusted are there with a [`Volume::fault`].
    ///
    /// A minority of devices may be missing or unusable. A device that says it is of the pool but is not in its
    /// configuration (an addition that was interrupted) is left out.
    ///
    /// # Errors
    /// [`PoolError`]; nothing is served that is not proven current.
    pub async fn open(devices: Vec<DeviceSource<D>>, boot_id: Uuid) -> Result<Pool<D>, PoolError> {
        let pool = Pool {
            boot_id,
            inner: Mutex::new(Inner {
                config: None,
                devices: BTreeMap::new(),
                space: super::space::Space::default(),
                making: BTreeMap::new(),
            }),
            volumes: ArcSwap::default(),
            keeper: super::keep::Keeper::default(),
        };
        if devices.is_empty() {
            return Ok(pool);
        }
        let (labelled, unusable) = read_labels(devices).await?;
        let Some(first) = labelled.first() else {
            return Err(PoolError::NoPool {
                reasons: unusable.join("; "),
            });
        };
        let pool_uuid = first.label.pool;
        let replicas = labelled.iter().map(config_replica).collect();
        let mut config = ConfigStore::open(pool_uuid, replicas, false)
            .await
            .map_err(|source| PoolError::NotOpened {
                devices: labelled
                    .iter()
                    .map(|labelled| labelled.device.path().to_owned())
                    .collect::<Vec<_>>()
                    .join(", "),
                source,
                missing: if unusable.is_empty() {
                    String::new()
                } else {
                    format!("; not used: {}", unusable.join("; "))
                },
            })?;
        check(config.config())?;
        let mut inner = pool.inner.lock().await;
        let mut moved = Vec::new();
        for Labelled { label, device } in labelled {
            let Some(record) = config.config().devices.get(&label.device) else {
                tracing::warn!(path = device.path(), "not in the configuration; left out");
                continue;
            };
            if record.data_offset_bytes != label.areas.data_offset_bytes
                || record.data_length_bytes != label.areas.data_length_bytes
            {
                return Err(PoolError::Inconsistent {
                    problem: format!(
                        "the label of {} and the configuration disagree about its areas",
                        device.path()
                    ),
                });
            }
            if record.path != device.path() {
                let mut record = record.clone();
                record.path = device.path().to_owned();
                moved.push(Change::Device(record));
            }
            inner.devices.insert(label.device, device);
        }
        if !moved.is_empty() {
            config.commit(moved).await?;
        }
        let opened = open_volumes(&inner.devices, config.config(), boot_id).await?;
        pool.update_volumes(|volumes| {
            for volume in opened {
                volumes.insert(volume.lun(), volume);
            }
        });
        inner.config = Some(config);
        drop(inner);
        Ok(pool)
    }

    /// After a commit whose outcome was not known: opens the configuration again and makes the volumes follow it.
    pub(super) async fn settle(&self, inner: &mut Inner<D>) -> Result<(), PoolError> {
        let Some(config) = &inner.config else {
            return Ok(());
        };
        if !config.is_unsettled() {
            return Ok(());
        }
        let config = config.reopen().await?;
        check(config.config())?;
        inner.space.forget();
        let mut known: BTreeMap<u16, Arc<Volume<D>>> = BTreeMap::new();
        for volume in self.volumes() {
            let lun = volume.lun();
            match config.config().volumes.get(&volume.uuid()) {
                None => volume.close().await,
                Some(record) => {
                    if *volume.record() != *record {
                        let layout = layout_of(&inner.devices, record, map_of(record)?).ok();
                        volume.adopt(record.clone(), layout);
                    }
                    known.insert(lun, volume);
                }
            }
        }
        for record in config.config().volumes.values() {
            if known.values().all(|volume| volume.uuid() != record.uuid) {
                let map = Arc::new(map_of(record)?);
                let volume = open_volume(&inner.devices, record.clone(), map, self.boot_id).await;
                known.insert(record.lun, Arc::new(volume));
            }
        }
        self.update_volumes(|volumes| {
            *volumes = LunTable::default();
            for (lun, volume) in known {
                volumes.insert(lun, volume);
            }
        });
        inner.config = Some(config);
        Ok(())
    }
}

/// Reads the labels of all devices; those without a usable one come back as reasons.
async fn read_labels<D: BlockDevice>(
    sources: Vec<DeviceSource<D>>,
) -> Result<(Vec<Labelled<D>>, Vec<String>), PoolError> {
    let mut labelled: Vec<Labelled<D>> = Vec::new();
    let mut unusable = Vec::new();
    for DeviceSource { path, device } in sources {
        let unnamed = Device::new(Uuid::nil(), path.clone(), path.clone(), device.clone());
        // What an earlier process wrote and did not flush must not be believed before it is durable.
        if let Err(error) = unnamed.flush().await {
            unusable.push(format!("{path}: {error}"));
            continue;
        }
        match label::read(&unnamed).await {
            Ok(label) => {
                if let Some(twin) = labelled.iter().find(|l| l.label.device == label.device) {
                    return Err(PoolError::Duplicate {
                        first: twin.device.path().to_owned(),
                        second: path,
                    });
                }
                if let Some(other) = labelled.iter().find(|l| l.label.pool != label.pool) {
                    return Err(PoolError::MixedPools {
                        first: other.device.path().to_owned(),
                        first_pool: other.label.pool,
                        second: path,
                        second_pool: label.pool,
                    });
                }
                let device = Arc::new(Device::new(label.device, label.name.clone(), path, device));
                labelled.push(Labelled { label, device });
            }
            Err(error) => unusable.push(format!("{path}: {error}")),
        }
    }
    Ok((labelled, unusable))
}

fn config_replica<D>(labelled: &Labelled<D>) -> Replica<D> {
    Replica {
        uuid: labelled.label.device,
        device: labelled.device.clone(),
        offset_bytes: labelled.label.areas.config_offset_bytes,
        length_bytes: labelled.label.areas.config_length_bytes,
    }
}

/// What must hold between the records: promise 4 rests on it.
fn check(config: &Config) -> Result<(), PoolError> {
    let problem = |problem: String| PoolError::Inconsistent { problem };
    let mut luns = BTreeMap::new();
    let mut names = BTreeMap::new();
    for record in config.volumes.values() {
        if let Some(other) = luns.insert(record.lun, &record.name) {
            return Err(problem(format!(
                "volumes {other} and {} have the same LUN {}",
                record.name, record.lun
            )));
        }
        if names.insert(&record.name, ()).is_some() {
            return Err(problem(format!("two volumes are named {}", record.name)));
        }
        Map::new(record).map_err(|error| problem(format!("volume {}: {error}", record.name)))?;
        if let Some(extent) = record
            .extents()
            .find(|extent| !config.devices.contains_key(&extent.device))
        {
            return Err(problem(format!(
                "volume {} is on device {}, which is not there",
                record.name, extent.device
            )));
        }
    }
    super::space::free_maps(config)?;
    Ok(())
}

async fn open_volumes<D: BlockDevice>(
    devices: &BTreeMap<Uuid, Arc<Device<D>>>,
    config: &Config,
    boot_id: Uuid,
) -> Result<Vec<Arc<Volume<D>>>, PoolError> {
    let records: Vec<(&VolumeRecord, Arc<Map>)> = config
        .volumes
        .values()
        .map(|record| Ok((record, Arc::new(map_of(record)?))))
        .collect::<Result<_, PoolError>>()?;
    let mut volumes = Vec::with_capacity(records.len());
    for batch in records.chunks(OPEN_TOGETHER) {
        let opened = join_all(batch.iter().map(|(record, map)| {
            boxed(open_volume(
                devices,
                (*record).clone(),
                map.clone(),
                boot_id,
            ))
        }))
        .await;
        volumes.extend(opened.into_iter().map(Arc::new));
    }
    Ok(volumes)
}

/// The map of a record.
pub(super) fn map_of(record: &VolumeRecord) -> Result<Map, PoolError> {
    Map::new(record).map_err(|error| PoolError::Inconsistent {
        problem: format!("volume {}: {error}", record.name),
    })
}

/// Opens one volume; what is wrong with it becomes its fault.
pub(super) async fn open_volume<D: BlockDevice>(
    devices: &BTreeMap<Uuid, Arc<Device<D>>>,
    record: VolumeRecord,
    map: Arc<Map>,
    boot_id: Uuid,
) -> Volume<D> {
    let layout = match layout_of(devices, &record, Map::clone(&map)) {
        Ok(layout) => layout,
        Err(fault) => return Volume::faulted(record, map, fault),
    };
    let replicas = keys_replicas(devices, &record, &map);
    let opened = PrivateRegion::open(record.uuid, replicas, boot_id, record.persist).await;
    let private_region = match opened {
        Ok(private_region) => private_region,
        Err(error) => return Volume::faulted(record, map, error.to_string()),
    };
    let volume = Volume::new(record, layout, private_region);
    match volume.replay_intents().await {
        Ok(0) => volume,
        Ok(replayed) => {
            tracing::info!(
                volume = volume.record().name,
                replayed,
                "atomic writes finished"
            );
            volume
        }
        Err(error) => Volume::faulted(
            VolumeRecord::clone(&volume.record()),
            map,
            format!("an atomic write that was in flight could not be finished: {error}"),
        ),
    }
}

/// The layout of a record over the devices that are there.
pub(super) fn layout_of<D: BlockDevice>(
    devices: &BTreeMap<Uuid, Arc<Device<D>>>,
    record: &VolumeRecord,
    map: Map,
) -> Result<Layout<D>, String> {
    let devices = map
        .data_devices()
        .iter()
        .map(|uuid| {
            devices
                .get(uuid)
                .cloned()
                .ok_or_else(|| format!("device {uuid} is missing"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let block_bytes = record.block_size.bytes() as usize;
    Ok(Layout {
        read_modify_write: devices
            .iter()
            .any(|device| device.alignment_bytes() > block_bytes),
        map: Arc::new(map),
        devices,
    })
}

/// The replicas of a private region that are there, by translation like every other access.
pub(super) fn keys_replicas<D: BlockDevice>(
    devices: &BTreeMap<Uuid, Arc<Device<D>>>,
    record: &VolumeRecord,
    map: &Map,
) -> Vec<Replica<D>> {
    record
        .keys
        .iter()
        .enumerate()
        .filter_map(|(replica, keys)| {
            let region = Region::Keys { replica };
            let ranges = map.translate(region, 0, map.region_bytes(region)).ok()?;
            let range = ranges.first()?;
            Some(Replica {
                uuid: keys.uuid,
                device: devices.get(&range.device)?.clone(),
                offset_bytes: range.device_offset_bytes,
                length_bytes: range.length_bytes,
            })
        })
        .collect()
}
