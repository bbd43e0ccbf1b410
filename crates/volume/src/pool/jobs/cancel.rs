//! Pausing, resuming, cancelling, and changing the rate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::plexes::freed;
use super::progress::name_of;
use super::{JobControl, JobError, JobInfo};
use crate::block_device::BlockDevice;
use crate::config::VolumeRecord;
use crate::fresh_uuid::fresh_uuid;
use crate::pool::keep::{PoolEvent, Retired};
use crate::pool::{Pool, PoolError};
use crate::volume::Volume;

/// How long whoever cancels waits for what else is being changed, and again to learn what became of the commit.
const PATIENCE: Duration = Duration::from_secs(20);

impl<D: BlockDevice> Pool<D> {
    /// Controls the job of a volume, or its resynchronization where it has no job. Returns the job as it is then, or was
    /// when it was cancelled.
    ///
    /// # Errors
    /// [`JobError::NoJob`]; [`JobError::Resync`] for what cannot be cancelled; [`JobError::LastCopy`] when cancelling would
    /// lose data; [`JobError::NotNow`] when what else is being changed in the volume does not end, and nothing was changed;
    /// [`JobError::NotKnown`] when it is cancelled or not, which shows when the configuration has a quorum again.
    pub async fn job_control(
        &self,
        volume: &str,
        control: JobControl,
    ) -> Result<JobInfo, PoolError> {
        let found = self.volume(volume)?;
        let no_job = || {
            PoolError::from(JobError::NoJob {
                volume: volume.into(),
            })
        };
        let snapshot = self.snapshot().await;
        let record = found.record();
        let info = self
            .job_info(&snapshot.records, &found, &record)
            .ok_or_else(no_job)?;
        let Some(job) = record.job.clone() else {
            return self.control_resync(&found, control);
        };
        let name = name_of(&snapshot.records, &job.kind);
        let event = match control {
            JobControl::Cancel => {
                self.cancel(&found, job.uuid).await?;
                let volume = record.name.clone();
                self.keeper.tell(PoolEvent::JobCancelled {
                    volume,
                    id: job.uuid,
                    job: name,
                });
                self.keeper.wake();
                return Ok(info);
            }
            JobControl::Pause => Some(PoolEvent::JobPaused {
                volume: record.name.clone(),
                id: job.uuid,
                job: name,
            }),
            JobControl::Resume => Some(PoolEvent::JobResumed {
                volume: record.name.clone(),
                id: job.uuid,
                job: name,
            }),
            JobControl::Rate(_) => None,
        };
        self.change_volume(&found, Vec::new(), |record| {
            let job = record
                .job
                .as_mut()
                .filter(|now| now.uuid == job.uuid)
                .ok_or_else(no_job)?;
            match control {
                JobControl::Pause => job.paused = true,
                JobControl::Resume => job.paused = false,
                JobControl::Rate(rate) => job.rate_bytes_per_second = rate,
                JobControl::Cancel => {}
            }
            Ok(())
        })
        .await?;
        {
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(record.uuid).or_default();
            match (control, &known.pacer) {
                // Both kinds of work go on with a new pacer when only one of them is paused.
                (JobControl::Pause, Some(pacer)) => pacer.stop(),
                (JobControl::Rate(rate), Some(pacer)) => pacer.set_rate(rate),
                _ => {}
            }
            if control == JobControl::Resume {
                known.copy.worked();
                known.finish.worked();
            }
        }
        if let Some(event) = event {
            self.keeper.tell(event);
        }
        self.keeper.wake();
        let record = found.record();
        self.job_info(&snapshot.records, &found, &record)
            .ok_or_else(no_job)
    }

    fn control_resync(
        &self,
        volume: &Arc<Volume<D>>,
        control: JobControl,
    ) -> Result<JobInfo, PoolError> {
        let record = volume.record();
        {
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(record.uuid).or_default();
            match control {
                JobControl::Pause => {
                    known.resync_paused = true;
                    if let Some(pacer) = &known.pacer {
                        pacer.stop();
                    }
                }
                JobControl::Resume => {
                    known.resync_paused = false;
                    known.copy.worked();
                }
                JobControl::Rate(rate) => {
                    known.resync_rate = rate;
                    if let Some(pacer) = &known.pacer {
                        pacer.set_rate(rate);
                    }
                }
                JobControl::Cancel => {
                    let volume = record.name.clone();
                    return Err(JobError::Resync { volume }.into());
                }
            }
        }
        self.keeper.wake();
        let volume_name = record.name.clone();
        self.job_info(&std::collections::BTreeMap::new(), volume, &record)
            .ok_or_else(|| {
                let volume = volume_name;
                JobError::NoJob { volume }.into()
            })
    }

    async fn cancel(&self, volume: &Arc<Volume<D>>, id: Uuid) -> Result<(), PoolError> {
        let keys_change = self.keeper.keys_change(volume.uuid());
        let mutex = self.keeper.plexes(volume.uuid());
        // A detach has them until the configuration has a quorum.
        let both = async { (keys_change.lock().await, mutex.lock().await) };
        let clock = self.snapshot().await.devices.into_values().next();
        let held = match &clock {
            Some(clock) => clock.at_most(PATIENCE, both).await,
            None => Some(both.await),
        };
        let _held = held.ok_or_else(|| JobError::NotNow {
            volume: volume.record().name.clone(),
        })?;
        let record = volume.record();
        let no_job = || {
            PoolError::from(JobError::NoJob {
                volume: record.name.clone(),
            })
        };
        let job = record.job.clone().filter(|job| job.uuid == id);
        let job = job.ok_or_else(no_job)?;
        self.check_dispensable(volume, &record, &job.fresh, "what the job has filled")?;
        let stays = record
            .plexes
            .iter()
            .any(|plex| plex.is_attached() && !job.fresh.contains(&plex.uuid));
        if !stays {
            return Err(JobError::LastCopy {
                volume: record.name.clone(),
                what: "what the job has filled".into(),
                ranges: "everything".into(),
                advice: "bring other copies back first",
            }
            .into());
        }
        if let Some(pacer) = self
            .keeper
            .state
            .lock()
            .volumes
            .get(&record.uuid)
            .and_then(|known| known.pacer.as_ref())
        {
            pacer.stop();
        }
        // The members as they were: nothing of the job is believed any more when it is gone from the record.
        self.move_members(volume, &record, &job.keys_retire, &job.keys_fresh)
            .await?;
        if let Ok(region) = volume.private_region() {
            let health = region.health_now().await?;
            let members: BTreeSet<Uuid> = health.iter().map(|info| info.uuid).collect();
            for uuid in job.keys_fresh.iter().filter(|uuid| !members.contains(uuid)) {
                // One that was half added is outvoted from here on.
                region.remove_replica(*uuid).await?;
            }
        }
        let mut after = VolumeRecord::clone(&record);
        roll_back(&mut after, &job.fresh, &job.keys_fresh);
        let extents = freed(&record, &after);
        let reserved = self.inner.lock().await.space.hold(extents.clone());
        let changed = self
            .change_volume(volume, Vec::new(), |record| {
                if record.job.as_ref().is_none_or(|job| job.uuid != id) {
                    return Err(no_job());
                }
                roll_back(record, &job.fresh, &job.keys_fresh);
                Ok(())
            })
            .await;
        let mut retired = Retired {
            id: fresh_uuid(),
            volume: Some(volume.clone()),
            uncertain: false,
            extents,
            reserved,
        };
        if let Err(error) = changed {
            let known = self.known_record(volume);
            let known = match &clock {
                Some(clock) => clock.at_most(PATIENCE, known).await,
                None => Some(known.await),
            };
            let Some(known) = known else {
                retired.uncertain = true;
                self.retire(retired);
                return Err(JobError::NotKnown {
                    volume: record.name.clone(),
                    problem: error.to_string(),
                }
                .into());
            };
            if known.job.as_ref().is_some_and(|job| job.uuid == id) {
                return Err(error);
            }
        }
        self.retire(retired);
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(record.uuid).or_default();
        known.stall = None;
        known.stall_told = false;
        for plex in [&job.fresh[..]].concat() {
            known.trouble.remove(&plex);
        }
        Ok(())
    }
}

/// The record without what a job brought.
fn roll_back(record: &mut VolumeRecord, fresh: &[Uuid], keys: &[Uuid]) {
    record.plexes.retain(|plex| !fresh.contains(&plex.uuid));
    record.keys.retain(|replica| !keys.contains(&replica.uuid));
    record.job = None;
}
