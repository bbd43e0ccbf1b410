//! Opening a pool from its devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_lock::Mutex;
use uuid::Uuid;

use super::claim::PATIENCE;
use super::table::LunTable;
use super::verdict::{Offer, Says, Standing, pool_of, standings, unusable};
use super::{DeviceSource, Inner, Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::{Change, Config, ConfigStore, VolumeRecord};
use crate::device::Device;
use crate::join::{boxed, join_all};
use crate::label::{self, Label};
use crate::page_store::Replica;
use crate::private_region::PrivateRegion;
use crate::translate::{Map, Region};
use crate::volume::regions::RegionTracker;
use crate::volume::reports::Reports;
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
            inner: Mutex::new(Inner::default()),
            volumes: ArcSwap::default(),
            keeper: super::keep::Keeper::default(),
            growing: parking_lot::Mutex::default(),
            quorum: Mutex::new(()),
        };
        if !devices.is_empty() {
            pool.import(devices).await?;
        }
        Ok(pool)
    }

    /// Brings the pool that lives on `devices` up in `inner`, which is empty. Nothing is changed there on an error.
    pub(super) async fn assemble(
        &self,
        inner: &mut Inner<D>,
        devices: Vec<DeviceSource<D>>,
    ) -> Result<(), PoolError> {
        let read = devices.into_iter().map(|source| boxed(read_label(source)));
        let (offers, labelled): (Vec<Offer>, Vec<Option<Labelled<D>>>) =
            join_all(read).await.into_iter().unzip();
        let labelled: Vec<Labelled<D>> = labelled.into_iter().flatten().collect();
        let pool = pool_of(&offers)?;
        let replicas = labelled.iter().map(config_replica).collect();
        let opened = ConfigStore::open(pool, replicas, false).await;
        let mut config = opened.map_err(|source| PoolError::NotOpened {
            devices: labelled
                .iter()
                .map(|labelled| labelled.device.path())
                .collect::<Vec<_>>()
                .join(", "),
            source,
            missing: match unusable(&offers) {
                none if none.is_empty() => String::new(),
                unusable => format!("; not used: {}", unusable.join("; ")),
            },
        })?;
        check(config.config())?;
        let standings = standings(config.config(), &offers, &config.current_on())?;
        let mut handles = BTreeMap::new();
        let mut moved = Vec::new();
        for Labelled { label, device } in labelled {
            let Some(record) = config.config().devices.get(&label.device) else {
                tracing::warn!(path = device.path(), "not in the configuration; left out");
                continue;
            };
            if record.path != device.path() {
                let mut record = record.clone();
                record.path = device.path();
                moved.push(Change::Device(record));
            }
            if let Some(reason) = &record.failed {
                device.fail(reason.clone());
            }
            handles.insert(label.device, device);
        }
        for (device, standing) in standings {
            if standing != Standing::Current {
                let name = config
                    .config()
                    .devices
                    .get(&device)
                    .map(|record| &record.name);
                tracing::warn!(device = name, ?standing, "a device of the pool");
            }
        }
        if !moved.is_empty() {
            config.commit(moved).await?;
        }
        let handover = config.config().pool.handover;
        let restart = if handover {
            Restart::Handover
        } else {
            Restart::PowerOn
        };
        let volumes = open_volumes(
            &handles,
            config.config(),
            self.boot_id,
            restart,
            &self.keeper.reports,
        )
        .await?;
        if handover {
            // Every private region has this boot's identity now: from here on a reboot is one again.
            let mut record = config.config().pool.clone();
            record.handover = false;
            config.commit(vec![Change::Pool(record)]).await?;
        }
        // Plexes that cannot take part do not, durably, before anything is served.
        let volumes = self.detach_missing(&mut config, &handles, volumes).await?;
        inner.devices = handles;
        inner.config = Some(config);
        inner.space.forget();
        inner.names = None;
        self.update_volumes(|table| {
            for volume in volumes {
                table.insert(volume.lun(), volume);
            }
        });
        Ok(())
    }

    /// After a commit whose outcome was not known: opens the configuration again and makes the volumes follow it.
    pub(super) async fn settle(&self, inner: &mut Inner<D>) -> Result<(), PoolError> {
        let Some(config) = &inner.config else {
            return Ok(());
        };
        if !config.is_unsettled() {
            return Ok(());
        }
        let mut config = config.reopen().await?;
        check(config.config())?;
        if config.config().pool.handover {
            // An export failed: the pool is in use, and a reboot would be one.
            let mut pool = config.config().pool.clone();
            pool.handover = false;
            config.commit(vec![Change::Pool(pool)]).await?;
        }
        inner.space.forget();
        inner.names = None;
        let mut known: BTreeMap<u16, Arc<Volume<D>>> = BTreeMap::new();
        let mut deleted = Vec::new();
        for volume in self.volumes() {
            let lun = volume.lun();
            match config.config().volumes.get(&volume.uuid()) {
                // What is in flight is not waited for with the pool's lock in hand: it may need the keeper to end.
                None => {
                    volume.shut();
                    deleted.push(volume);
                }
                Some(record) => {
                    if *volume.record() != *record {
                        let layout = volume.prepare_layout(record, &inner.devices).ok();
                        volume.adopt(record.clone(), layout);
                    }
                    known.insert(lun, volume);
                }
            }
        }
        let uuids: BTreeSet<Uuid> = known.values().map(|volume| volume.uuid()).collect();
        for record in config.config().volumes.values() {
            if !uuids.contains(&record.uuid) {
                let map = Arc::new(map_of(record)?);
                let boot_id = self.boot_id;
                let restart = Restart::PowerOn;
                let reports = &self.keeper.reports;
                let volume = open_volume(
                    &inner.devices,
                    record.clone(),
                    map,
                    boot_id,
                    restart,
                    reports,
                )
                .await;
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
        for volume in deleted {
            self.retire_volume(inner, volume);
        }
        Ok(())
    }
}

/// What happened to the machine since the private regions were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// It may have been rebooted: their boot identity tells.
    PowerOn,
    /// The pool was exported in order, perhaps elsewhere: no power was lost.
    Handover,
}

/// What a device says about itself.
async fn read_label<D: BlockDevice>(source: DeviceSource<D>) -> (Offer, Option<Labelled<D>>) {
    let DeviceSource { path, device } = source;
    let unnamed = Device::new(Uuid::nil(), path.clone(), path.clone(), device.clone());
    let reading = async {
        // What an earlier process wrote and did not flush must not be believed before it is durable.
        unnamed.flush().await?;
        label::read(&unnamed).await
    };
    let label = match unnamed.within(PATIENCE, reading).await {
        Some(Ok(label)) => label,
        Some(Err(error)) => {
            let says = Err(error.to_string());
            return (Offer { path, says }, None);
        }
        None => {
            let says = Err("it does not answer".into());
            return (Offer { path, says }, None);
        }
    };
    let says = Says {
        pool: label.pool,
        device: label.device,
        areas: label.areas,
    };
    let device = Device::new(label.device, label.name.clone(), path.clone(), device);
    let labelled = Labelled {
        label,
        device: Arc::new(device),
    };
    (
        Offer {
            path,
            says: Ok(says),
        },
        Some(labelled),
    )
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
    let mut documents = BTreeSet::new();
    for record in config.documents.values() {
        let what = format!("{} {}", record.kind, record.name);
        if !documents.insert((&record.kind, &record.name)) {
            return Err(problem(format!("there are two of {what}")));
        }
        let mut extents = record.extents.iter();
        if extents.any(|extent| !config.devices.contains_key(&extent.device)) {
            return Err(problem(format!("{what} is on a device that is not there")));
        }
    }
    super::space::free_maps(config)?;
    Ok(())
}

async fn open_volumes<D: BlockDevice>(
    devices: &BTreeMap<Uuid, Arc<Device<D>>>,
    config: &Config,
    boot_id: Uuid,
    restart: Restart,
    reports: &Arc<Reports>,
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
                restart,
                reports,
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
    restart: Restart,
    reports: &Arc<Reports>,
) -> Volume<D> {
    let tracker = match RegionTracker::open_if_needed(&record, &map, devices).await {
        Ok(tracker) => tracker,
        Err(error) => return Volume::faulted(record, map, error.to_string()),
    };
    let layout = match Layout::new(&record, Map::clone(&map), devices, tracker) {
        Ok(layout) => layout,
        Err(fault) => return Volume::faulted(record, map, fault),
    };
    let replicas = keys_replicas(devices, &record, &map);
    let (uuid, persist) = (record.uuid, record.persist);
    let opened = match restart {
        Restart::PowerOn => PrivateRegion::open(uuid, replicas, boot_id, persist).await,
        Restart::Handover => PrivateRegion::take_over(uuid, replicas, boot_id, persist).await,
    };
    let private_region = match opened {
        Ok(private_region) => private_region,
        Err(error) => return Volume::faulted(record, map, error.to_string()),
    };
    let volume = Volume::new(record, layout, private_region).with_reports(reports.clone());
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
