//! The beginning of a job, the same for all kinds: steps 1 and 2 of the table in [`super`].

use std::sync::Arc;

use uuid::Uuid;

use super::{JobError, JobInfo};
use crate::block_device::BlockDevice;
use crate::config::{Change, DeviceRecord, Job, KeysReplica, MAX_PLEXES, Plex, VolumeRecord};
use crate::error::VolumeError;
use crate::fresh_uuid::fresh_uuid;
use crate::pool::keep::{PoolEvent, Retired};
use crate::pool::placement::Placing;
use crate::pool::space::Reserved;
use crate::pool::{Inner, Pool, PoolError};
use crate::volume::Volume;
use crate::volume::regions::Regions;

/// What a job adds to a volume.
pub(super) struct Draft {
    /// Plexes to be filled, and where each is stale.
    pub(super) fresh: Vec<(Plex, Regions)>,
    /// Replicas of the keys that come.
    pub(super) keys: Vec<KeysReplica>,
    /// The job; its lists of fresh plexes and keys are filled in.
    pub(super) job: Job,
}

impl Draft {
    fn apply(&self, record: &mut VolumeRecord) {
        record
            .plexes
            .extend(self.fresh.iter().map(|(plex, _)| plex.clone()));
        record.keys.extend(&self.keys);
        let mut job = self.job.clone();
        job.fresh = self.fresh.iter().map(|(plex, _)| plex.uuid).collect();
        job.keys_fresh = self.keys.iter().map(|keys| keys.uuid).collect();
        record.job = Some(job);
    }

    fn fresh(&self) -> Vec<Uuid> {
        self.fresh.iter().map(|(plex, _)| plex.uuid).collect()
    }
}

/// What must not have changed between the drafting and the commit.
fn same_shape(a: &VolumeRecord, b: &VolumeRecord) -> bool {
    a.size_bytes == b.size_bytes
        && a.region_bytes == b.region_bytes
        && a.plexes == b.plexes
        && a.keys == b.keys
        && a.job == b.job
}

/// A volume with the draft for it.
struct Begun<D> {
    volume: Arc<Volume<D>>,
    base: VolumeRecord,
    draft: Draft,
}

impl<D: BlockDevice> Pool<D> {
    /// Starts a job in each of `volumes` with one commit, or in none. `draft` places what a volume's job needs. `emptied` is
    /// the device that they empty, of which no other volume has anything.
    ///
    /// # Errors
    /// [`JobError::Busy`], that of `draft`, and those of the devices and the commit.
    pub(super) async fn start_jobs(
        &self,
        mut volumes: Vec<Arc<Volume<D>>>,
        emptied: Option<Uuid>,
        draft: impl Fn(
            &Inner<D>,
            &mut Placing<'_>,
            &Volume<D>,
            &VolumeRecord,
        ) -> Result<Draft, PoolError>,
    ) -> Result<Vec<JobInfo>, PoolError> {
        // In one order, so that two callers never wait for one another.
        volumes.sort_by_key(|volume| volume.uuid());
        let mutexes: Vec<_> = volumes
            .iter()
            .map(|volume| self.keeper.plexes(volume.uuid()))
            .collect();
        let mut held = Vec::with_capacity(mutexes.len());
        for mutex in &mutexes {
            held.push(mutex.lock().await);
        }
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let mut begun = Vec::with_capacity(volumes.len());
        let mut placing = inner.placing()?;
        for volume in volumes {
            let base = ready(&inner, &volume)?;
            let draft = draft(&inner, &mut placing, &volume, &base)?;
            let plexes = base.plexes.len() + draft.fresh.len();
            if plexes > MAX_PLEXES {
                return Err(JobError::TooManyPlexes {
                    volume: base.name,
                    plexes,
                    max: MAX_PLEXES,
                }
                .into());
            }
            begun.push(Begun {
                volume,
                base,
                draft,
            });
        }
        let reserved = placing.finish();
        let devices = inner.devices.clone();
        drop(inner);
        let mut prepared = 0;
        let mut outcome = Ok(());
        for Begun {
            volume,
            base,
            draft,
        } in &begun
        {
            prepared += 1;
            if draft.fresh.is_empty() {
                continue;
            }
            let mut next = base.clone();
            draft.apply(&mut next);
            let stale: Vec<(Uuid, Regions)> = draft
                .fresh
                .iter()
                .map(|(plex, stale)| (plex.uuid, stale.clone()))
                .collect();
            outcome = volume
                .prepare_attach(&next, &devices, &stale)
                .await
                .map_err(|error| {
                    PoolError::from(JobError::Copies {
                        volume: base.name.clone(),
                        problem: error.to_string(),
                    })
                });
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() {
            outcome = self.commit_jobs(&begun, emptied).await;
        } else if let Some(gone) = self.deleted(&begun).await {
            outcome = Err(PoolError::NoSuchVolume { name: gone });
        }
        let started = match &outcome {
            Ok(()) => true,
            Err(_) => {
                // The commit may have happened all the same.
                let mut all = true;
                for begun in &begun {
                    let known = self.known_record(&begun.volume).await;
                    all &= known.job.as_ref().map(|job| job.uuid) == Some(begun.draft.job.uuid);
                }
                all
            }
        };
        if !started {
            for begun in begun.iter().take(prepared) {
                begun.volume.abort_attach(&begun.draft.fresh());
            }
            self.not_started(reserved);
            return outcome.map(|()| Vec::new());
        }
        reserved.committed();
        drop(held);
        let snapshot = self.snapshot().await;
        let mut infos = Vec::with_capacity(begun.len());
        for begun in begun {
            let record = begun.volume.record();
            let info = self.job_info(&snapshot.records, &begun.volume, &record);
            if let Some(info) = info {
                self.keeper.tell(PoolEvent::JobStarted {
                    volume: info.volume.clone(),
                    id: info.id,
                    job: info.kind.clone(),
                    to: info.to.clone(),
                });
                infos.push(info);
            }
            self.keeper.forget_troubles_of_copying(record.uuid);
        }
        self.keeper.wake();
        Ok(infos)
    }

    /// The name of one that was deleted meanwhile.
    async fn deleted(&self, begun: &[Begun<D>]) -> Option<String> {
        let inner = self.inner.lock().await;
        let volumes = &inner.config().ok()?.volumes;
        begun
            .iter()
            .find(|begun| !volumes.contains_key(&begun.base.uuid))
            .map(|begun| begun.base.name.clone())
    }

    async fn commit_jobs(
        &self,
        begun: &[Begun<D>],
        emptied: Option<Uuid>,
    ) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let mut ready = Vec::with_capacity(begun.len());
        for Begun {
            volume,
            base,
            draft,
        } in begun
        {
            let name = || base.name.clone();
            let current = inner.config()?.volumes.get(&base.uuid);
            let current = current.ok_or_else(|| PoolError::NoSuchVolume { name: name() })?;
            self.check_current(volume)?;
            if !same_shape(current, base) {
                return Err(JobError::Changed { volume: name() }.into());
            }
            let mut record = current.clone();
            draft.apply(&mut record);
            let layout = volume
                .prepare_layout(&record, &inner.devices)
                .map_err(|problem| PoolError::Inconsistent { problem })?;
            ready.push((volume, record, layout));
        }
        let mut changes: Vec<Change> = ready
            .iter()
            .map(|(_, record, _)| Change::Volume(Box::new(record.clone())))
            .collect();
        if let Some(device) = emptied {
            let known: Vec<Uuid> = begun.iter().map(|begun| begun.base.uuid).collect();
            changes.push(inner.closing(device, &known)?);
        }
        inner.commit(changes).await?;
        for (volume, record, layout) in ready {
            volume.publish(record, layout);
        }
        Ok(())
    }

    /// Gives back what was placed for a job that did not begin: something may still be on its way to the logs.
    fn not_started(&self, reserved: Reserved) {
        let extents = reserved.extents().to_vec();
        self.retire(Retired {
            id: fresh_uuid(),
            volume: None,
            uncertain: false,
            extents,
            reserved,
        });
    }
}

impl<D: BlockDevice> Inner<D> {
    /// The change that closes a device which is emptied of these volumes.
    ///
    /// # Errors
    /// [`JobError::Changed`] when another volume has come to it meanwhile.
    pub(super) fn closing(&self, device: Uuid, volumes: &[Uuid]) -> Result<Change, PoolError> {
        let config = self.config()?;
        let mut others = config
            .volumes
            .values()
            .filter(|volume| !volumes.contains(&volume.uuid));
        if let Some(other) = others.find(|volume| volume.extents().any(|e| e.device == device)) {
            let volume = other.name.clone();
            return Err(JobError::Changed { volume }.into());
        }
        let record = config.devices.get(&device).cloned();
        let record = record.ok_or_else(|| PoolError::NoSuchDevice {
            name: device.to_string(),
        })?;
        Ok(Change::Device(DeviceRecord {
            closed: true,
            ..record
        }))
    }
}

/// The record of a volume that can take a job.
fn ready<D: BlockDevice>(inner: &Inner<D>, volume: &Volume<D>) -> Result<VolumeRecord, PoolError> {
    let name = volume.record().name.clone();
    if let Some(reason) = volume.fault() {
        return Err(VolumeError::NotServed {
            volume: name,
            reason,
        }
        .into());
    }
    let record = inner.config()?.volumes.get(&volume.uuid());
    let record = record.ok_or(PoolError::NoSuchVolume { name })?;
    if let Some(job) = &record.job {
        let job = super::progress::name_of(&inner.config()?.devices, &job.kind).to_string();
        let volume = record.name.clone();
        return Err(JobError::Busy { volume, job }.into());
    }
    Ok(record.clone())
}
