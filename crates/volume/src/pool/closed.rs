//! Devices that are closed to new data and keys: those that are being emptied, and those that have been.
//!
//! - The commit that begins `evacuate` or `replace` closes the device. While a job empties it nothing can be put on it.
//! - When the last of these jobs has ended and nothing is left there, it stays closed to all that the pool chooses by
//!   itself: new volumes, growth, copies of keys. An operator opens it, by a word or by naming it for something new.
//! - When something is left there, because a job was cancelled, the evacuation has come to nothing and the device is open.
//!
//! So a closed device is being emptied or empty. One function sees to it in every commit, so that it is durable with what it
//! follows from.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::jobs::JobError;
use super::keep::PoolEvent;
use super::{DeviceInfo, Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::{Change, Config, DeviceRecord, Extent, JobKind, VolumeRecord};

/// Why nothing new is put on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Jobs move everything away from it.
    Emptying,
    /// It was emptied, and nobody has taken it into use again.
    Emptied,
}

fn empties(record: &VolumeRecord, device: Uuid) -> bool {
    let kind = record.job.as_ref().map(|job| &job.kind);
    matches!(
        kind,
        Some(JobKind::Evacuate { device: from } | JobKind::Replace { old: from, .. }) if *from == device
    )
}

/// The volumes whose jobs move everything away from a device, by name.
pub(super) fn emptied_by(config: &Config, device: Uuid) -> Vec<String> {
    let volumes = config.volumes.values();
    let mut names: Vec<String> = volumes
        .filter(|record| empties(record, device))
        .map(|record| record.name.clone())
        .collect();
    names.sort();
    names
}

/// Whether and why a device is closed.
pub(super) fn closed(config: &Config, device: Uuid) -> Option<Closed> {
    let record = config.devices.get(&device)?;
    record.closed.then(|| {
        let emptying = config.volumes.values().any(|v| empties(v, device));
        if emptying {
            Closed::Emptying
        } else {
            Closed::Emptied
        }
    })
}

/// An extent on `device` that a record has and had not before.
fn new_on(record: &VolumeRecord, before: Option<&VolumeRecord>, device: Uuid) -> bool {
    let within = |old: &Extent, new: &Extent| {
        old.device == new.device
            && old.offset_bytes <= new.offset_bytes
            && new.offset_bytes + new.length_bytes <= old.offset_bytes + old.length_bytes
    };
    record
        .extents()
        .filter(|extent| extent.device == device)
        .any(|new| !before.is_some_and(|before| before.extents().any(|old| within(old, new))))
}

/// The changes with those of closed devices that follow from them.
///
/// # Errors
/// [`PoolError::DeviceUnusable`] when something new would go to a device that is being emptied.
pub(super) fn complete(
    config: &Config,
    mut changes: Vec<Change>,
) -> Result<Vec<Change>, PoolError> {
    let mut closed: BTreeMap<Uuid, DeviceRecord> = config
        .devices
        .values()
        .filter(|record| record.closed)
        .map(|record| (record.uuid, record.clone()))
        .collect();
    for change in &changes {
        match change {
            Change::Device(record) if record.closed => {
                closed.insert(record.uuid, record.clone());
            }
            Change::Device(DeviceRecord { uuid, .. }) | Change::Remove(uuid) => {
                closed.remove(uuid);
            }
            Change::Pool(_) | Change::Volume(_) | Change::Document(_) => {}
        }
    }
    for (device, mut record) in closed {
        let mut volumes: BTreeMap<Uuid, &VolumeRecord> =
            config.volumes.iter().map(|(uuid, v)| (*uuid, v)).collect();
        let mut on: BTreeMap<Uuid, &[Extent]> = config
            .documents
            .iter()
            .map(|(uuid, document)| (*uuid, &document.extents[..]))
            .collect();
        let mut comes = false;
        for change in &changes {
            match change {
                Change::Volume(volume) => {
                    comes |= new_on(volume, config.volumes.get(&volume.uuid), device);
                    volumes.insert(volume.uuid, volume);
                }
                Change::Document(document) => drop(on.insert(document.uuid, &document.extents)),
                Change::Remove(uuid) => {
                    volumes.remove(uuid);
                    on.remove(uuid);
                }
                Change::Pool(_) | Change::Device(_) => {}
            }
        }
        if volumes.values().any(|volume| empties(volume, device)) {
            if comes {
                return Err(being_emptied(&record.name));
            }
            continue;
        }
        let extents = volumes.values().flat_map(|volume| volume.extents());
        if extents
            .chain(on.values().copied().flatten())
            .any(|extent| extent.device == device)
        {
            record.closed = false;
            changes.retain(|change| !matches!(change, Change::Device(d) if d.uuid == device));
            changes.push(Change::Device(record));
        }
    }
    Ok(changes)
}

/// Nothing can be put on it now.
pub(super) fn being_emptied(name: &str) -> PoolError {
    PoolError::DeviceUnusable {
        name: name.into(),
        problem: "it is being emptied; `ringfence job list` shows by what, and `ringfence job cancel` ends that"
            .into(),
    }
}

impl<D: BlockDevice> Pool<D> {
    /// Takes a device into use again that was evacuated: new data and keys may go to it.
    ///
    /// # Errors
    /// [`JobError::InService`] when it is not closed, [`JobError::BeingEmptied`].
    pub async fn device_reopen(&self, name: &str) -> Result<DeviceInfo, PoolError> {
        let device = self.device_record(name).await?.uuid;
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let config = inner.config()?;
        let record = config.devices.get(&device).cloned();
        let mut record = record.ok_or_else(|| PoolError::NoSuchDevice { name: name.into() })?;
        if !record.closed {
            return Err(JobError::InService { name: name.into() }.into());
        }
        let volumes = emptied_by(config, device);
        if !volumes.is_empty() {
            let device = name.into();
            return Err(JobError::BeingEmptied { device, volumes }.into());
        }
        record.closed = false;
        inner.commit(vec![Change::Device(record)]).await?;
        drop(inner);
        self.keeper.tell(PoolEvent::DeviceBack {
            device: name.into(),
        });
        self.keeper.wake();
        self.device(name).await
    }
}
