//! Taking devices back.
//!
//! **Volumes with their only copy on the device** cannot go on with the layout that they have: what was written through
//! the old handle and not flushed may be lost, and the region log in memory takes it for present. They are closed, and
//! when the device is back they are opened anew, as after a crash: from what the logs say, with what was in flight
//! unsettled. Whoever serves them then gives the new [`Volume`] to its initiators as a unit that was switched on again.

use std::sync::Arc;
use std::time::Duration;

use async_lock::MutexGuardArc;
use uuid::Uuid;

use super::JobError;
use super::devices::attached_on;
use crate::block_device::BlockDevice;
use crate::config::{Change, DeviceRecord, PlexState, VolumeRecord};
use crate::device::Device;
use crate::label;
use crate::pool::closed::emptied_by;
use crate::pool::keep::PoolEvent;
use crate::pool::{DeviceInfo, DeviceSource, Pool, PoolError};
use crate::volume::Volume;

/// How long a device that is offered may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How long a volume may take to come to rest before it is opened anew.
const REST_PATIENCE: Duration = Duration::from_secs(20);

/// Volumes with plexes that take part on a device that is to be opened anew.
struct Attached<D> {
    /// They have their only copy of something there.
    only: Vec<Arc<Volume<D>>>,
    /// Their plexes there are on their way out and wait for a quorum, which the device may be what it lacks for.
    leaving: Vec<Arc<Volume<D>>>,
}

/// A volume that is closed to be opened anew. Nobody changes its plexes or its keys meanwhile.
struct Closed<D> {
    volume: Arc<Volume<D>>,
    _keys: MutexGuardArc<()>,
    _plexes: MutexGuardArc<()>,
}

impl<D: BlockDevice> Pool<D> {
    /// Before a device is opened anew: no plex on it may take part in a volume that others have copies of, because what the
    /// old handle lost would count as present. Those that can be are detached. Without a quorum that cannot be recorded;
    /// where everything else of a detach is done, it is recorded with the return of the device.
    async fn attached_for_good(&self, device: Uuid, name: &str) -> Result<Attached<D>, PoolError> {
        let snapshot = self.snapshot().await;
        let in_service = snapshot.devices.get(&device).is_some_and(|d| d.is_online());
        if in_service && snapshot.unusable(device).is_none() {
            return Err(JobError::InService { name: name.into() }.into());
        }
        let mut found = Attached {
            only: Vec::new(),
            leaving: Vec::new(),
        };
        for volume in self.volumes() {
            // With one plex and no region log there is nobody to compare it with.
            if volume.fault().is_some()
                || volume.regions() == 0
                || attached_on(&volume, device).is_empty()
            {
                continue;
            }
            if !self.keeper.state.lock().config_lost {
                self.detach_soon(&volume, device).await;
            }
            if attached_on(&volume, device).is_empty() {
                continue;
            }
            if self.keeper.state.lock().config_lost {
                if volume.is_detaching(&attached_on(&volume, device)).await {
                    found.leaving.push(volume);
                    continue;
                }
                // Nobody can be detached until it has a quorum again.
                return Err(JobError::NoQuorum {
                    volume: volume.record().name.clone(),
                    device: name.into(),
                }
                .into());
            }
            found.only.push(volume);
        }
        Ok(found)
    }

    /// Lets go of the handle of a device that failed, so that it can be opened anew.
    ///
    /// # Errors
    /// [`JobError::InService`], [`JobError::StillBusy`].
    pub async fn device_release(&self, name: &str) -> Result<(), PoolError> {
        let record = self.device_record(name).await?;
        let inner = self.inner.lock().await;
        let Some(device) = inner.devices.get(&record.uuid) else {
            return Ok(());
        };
        let name = name.to_owned();
        if device.is_online() {
            return Err(JobError::InService { name }.into());
        }
        device
            .release()
            .map_err(|_| JobError::StillBusy { name }.into())
    }

    /// Takes a device back that failed or was missing: newly opened, with its own label. What it missed is copied to it.
    /// A volume that has its only copy of something there is opened anew: see the [module](self).
    ///
    /// # Errors
    /// [`JobError::WrongDevice`], [`JobError::InService`], [`JobError::StillBusy`], [`JobError::NoQuorum`]; nothing was
    /// changed then.
    pub async fn device_online(
        &self,
        name: &str,
        source: DeviceSource<D>,
    ) -> Result<DeviceInfo, PoolError> {
        let record = self.device_record(name).await?;
        let wrong = |problem: String| JobError::WrongDevice {
            name: name.into(),
            path: source.path.clone(),
            problem,
        };
        let uuid = record.uuid;
        let offered = Device::new(
            uuid,
            name.into(),
            source.path.clone(),
            source.device.clone(),
        );
        offered
            .in_time(ANSWER_PATIENCE, "flush", offered.flush())
            .await??;
        let label = offered
            .in_time(ANSWER_PATIENCE, "read", label::read(&offered))
            .await?
            .map_err(|error| wrong(error.to_string()))?;
        let pool = self.uuid().await;
        if Some(label.pool) != pool || label.device != uuid {
            return Err(wrong("its label is of another device".into()).into());
        }
        if label.areas.data_offset_bytes != record.data_offset_bytes
            || label.areas.data_length_bytes != record.data_length_bytes
        {
            return Err(wrong("its areas are not those of the configuration".into()).into());
        }
        let attached = self.attached_for_good(uuid, name).await?;
        let closed = self.close_to_reopen(attached.only, uuid, name).await?;
        let leaving = &attached.leaving;
        let taken = self
            .take_back(record, source, offered, &closed, leaving)
            .await;
        // What was reported until now was of the old opening.
        if let (Some(clock), false) = (self.handle_of(uuid), closed.is_empty()) {
            for report in self.keeper.reports.take() {
                self.note(report, clock.now());
            }
        }
        let opened = self.reopen(&closed).await;
        drop(closed);
        let served = taken?;
        opened?;
        self.keeper.device_is_back(uuid);
        self.keeper.tell(PoolEvent::DeviceBack {
            device: name.into(),
        });
        for volume in served {
            self.keeper.tell(PoolEvent::VolumeServedAgain { volume });
        }
        self.keeper.wake();
        self.device(name).await
    }

    /// Closes the volumes, which end what they have under way: with the error of the device, as nobody else has the data.
    ///
    /// # Errors
    /// [`JobError::StillBusy`], [`JobError::NotAtRest`].
    async fn close_to_reopen(
        &self,
        volumes: Vec<Arc<Volume<D>>>,
        device: Uuid,
        name: &str,
    ) -> Result<Vec<Closed<D>>, PoolError> {
        let devices = self.snapshot().await.devices;
        let Some(clock) = devices.get(&device) else {
            return Ok(Vec::new());
        };
        let restless = |volume: &Volume<D>| {
            PoolError::from(JobError::NotAtRest {
                volume: volume.record().name.clone(),
                device: name.into(),
            })
        };
        let mut quiet = Vec::new();
        for volume in volumes {
            let keys = self.keeper.keys_change(volume.uuid());
            let plexes = self.keeper.plexes(volume.uuid());
            let held = async { (keys.lock_arc().await, plexes.lock_arc().await) };
            let held = clock.at_most(REST_PATIENCE, held).await;
            let (_keys, _plexes) = held.ok_or_else(|| restless(&volume))?;
            let record = volume.record();
            let hangs = |uuid| {
                let left = devices.get(uuid).is_some_and(|used| used.abandoned() > 0);
                left || *uuid != device && self.keeper.hangs(*uuid)
            };
            if record.extents().any(|extent| hangs(&extent.device)) {
                return Err(restless(&volume));
            }
            quiet.push(Closed {
                volume,
                _keys,
                _plexes,
            });
        }
        for at in 0..quiet.len() {
            let volume = &quiet[at].volume;
            let ending = async {
                self.end(volume).await;
                if let Ok(region) = volume.private_region() {
                    region.close().await;
                }
            };
            if clock.at_most(REST_PATIENCE, ending).await.is_none() {
                // It stays closed: what is left in flight must not meet a new opening. The next try goes on from here.
                let error = restless(volume);
                if let Err(error) = self.reopen(&quiet[..at]).await {
                    tracing::error!(%error, "a volume that was closed could not be opened again");
                }
                return Err(error);
            }
        }
        Ok(quiet)
    }

    /// Opens closed volumes anew, also after an error: then they may have a fault.
    async fn reopen(&self, closed: &[Closed<D>]) -> Result<(), PoolError> {
        let mut result = Ok(());
        for Closed { volume, .. } in closed {
            let mut inner = self.inner.lock().await;
            self.settle(&mut inner).await?;
            let record = inner.config()?.volumes.get(&volume.uuid()).cloned();
            let Some(record) = record else {
                continue; // deleted meanwhile
            };
            let name = record.name.clone();
            match self.open_in_place(&mut inner, record).await {
                Ok(_) => {
                    self.keeper.forget_troubles(volume.uuid());
                    self.keeper
                        .tell(PoolEvent::VolumeServedAgain { volume: name });
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Puts the newly opened device in its place, durably, and the plexes of `leaving` on it out with the same commit. Returns
    /// the volumes that can be served again.
    async fn take_back(
        &self,
        record: DeviceRecord,
        source: DeviceSource<D>,
        offered: Device<D>,
        closed: &[Closed<D>],
        leaving: &[Arc<Volume<D>>],
    ) -> Result<Vec<String>, PoolError> {
        let (uuid, name) = (record.uuid, record.name.as_str());
        let mut inner = self.inner.lock().await;
        let mut opened = false;
        if let Err(error) = self.settle(&mut inner).await {
            // This device may be what the configuration lacks for a quorum.
            match inner.devices.get(&uuid) {
                Some(device) if !device.is_online() && device.abandoned() == 0 => {
                    device.bring_online(source.device.clone(), source.path.clone());
                }
                _ => return Err(error),
            }
            opened = true;
            self.settle(&mut inner).await?;
        }
        // It may have been removed meanwhile.
        let record = inner.config()?.devices.get(&uuid).cloned();
        let record = record.ok_or_else(|| PoolError::NoSuchDevice { name: name.into() })?;
        let known = inner.devices.contains_key(&uuid);
        match inner.devices.get(&uuid) {
            Some(_) if opened => {}
            Some(device) if device.is_online() && record.failed.is_none() => {
                return Err(JobError::InService { name: name.into() }.into());
            }
            Some(device) if device.abandoned() > 0 => {
                return Err(JobError::StillBusy { name: name.into() }.into());
            }
            Some(device) => device.bring_online(source.device, source.path.clone()),
            None => {
                inner.devices.insert(uuid, Arc::new(offered));
            }
        }
        if known
            && let Some(config) = &mut inner.config
            && let Err(error) = config.repair(uuid).await
        {
            // The keeper tries again; if the commit below needs this copy for its quorum, it says so.
            tracing::warn!(device = name, %error, "the copy of the configuration is not current yet");
        }
        // What an operator takes into use is open, if nobody is emptying it.
        let changed = DeviceRecord {
            path: source.path.clone(),
            failed: None,
            closed: record.closed && !emptied_by(inner.config()?, uuid).is_empty(),
            ..record
        };
        let mut changes = vec![Change::Device(changed)];
        let mut detached = Vec::new();
        for volume in leaving {
            // Deleted or opened anew meanwhile, or detached: then there is nothing left to say.
            let known = inner.config()?.volumes.get(&volume.uuid()).cloned();
            let (Some(mut record), Ok(())) = (known, self.check_current(volume)) else {
                continue;
            };
            for plex in &mut record.plexes {
                if plex.is_attached() && plex.is_on(uuid) {
                    plex.state = PlexState::Detached {
                        reason: "its device was opened anew".into(),
                    };
                }
            }
            let layout = volume
                .prepare_layout(&record, &inner.devices)
                .map_err(|problem| PoolError::Inconsistent { problem })?;
            changes.push(Change::Volume(Box::new(record.clone())));
            detached.push((volume, record, layout));
        }
        inner.commit(changes).await?;
        for (volume, record, layout) in detached {
            volume.publish(record, layout);
        }
        // Volumes that use it now write to the new incarnation.
        for volume in self.volumes() {
            let record = volume.record();
            let concerned = volume.fault().is_none()
                && !closed.iter().any(|one| Arc::ptr_eq(&one.volume, &volume))
                && record.extents().any(|extent| extent.device == uuid);
            if concerned && let Ok(layout) = volume.prepare_layout(&record, &inner.devices) {
                volume.publish(VolumeRecord::clone(&record), layout);
            }
        }
        // And those that could not be served without it are opened again.
        let mut served = Vec::new();
        for volume in self.volumes() {
            let record = VolumeRecord::clone(&volume.record());
            let concerned =
                volume.fault().is_some() && record.extents().any(|extent| extent.device == uuid);
            if concerned
                && self
                    .open_in_place(&mut inner, record)
                    .await?
                    .fault()
                    .is_none()
            {
                served.push(volume.record().name.clone());
            }
        }
        Ok(served)
    }
}
