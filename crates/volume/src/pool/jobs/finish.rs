//! The end of a job: steps 4 to 6 of the table in [`super`].

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::JobError;
use super::plexes::freed;
use super::progress::name_of;
use crate::block_device::BlockDevice;
use crate::config::{Change, Job, VolumeRecord};
use crate::fresh_uuid::fresh_uuid;
use crate::pool::keep::{PoolEvent, Retired, stale_in};
use crate::pool::{Pool, PoolError};
use crate::volume::Volume;

impl<D: BlockDevice> Pool<D> {
    /// Ends the job of a volume when everything is copied.
    pub(in crate::pool) async fn finish_job(&self, volume: &Arc<Volume<D>>) {
        let outcome = self.try_finish(volume).await;
        let clock = self.snapshot().await.devices.values().next().cloned();
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(volume.uuid()).or_default();
        match outcome {
            Ok(true) => {
                known.finish.worked();
                known.stall = None;
                known.stall_told = false;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(volume = volume.record().name, %error, "a job cannot end yet");
                if let Some(clock) = clock {
                    known.finish.failed(clock.now());
                }
                known.stall = Some(crate::pool::keep::Stall {
                    reason: error.to_string(),
                    ranges: Vec::new(),
                });
            }
        }
        drop(state);
        self.keeper.wake();
    }

    /// Whether every fresh plex is attached and complete.
    fn is_filled(&self, volume: &Volume<D>, record: &VolumeRecord, job: &Job) -> bool {
        job.fresh.iter().all(|fresh| {
            let plex = record.plexes.iter().find(|plex| plex.uuid == *fresh);
            plex.is_some_and(|plex| plex.is_attached())
                && stale_in(volume, record, *fresh).is_empty()
        })
    }

    async fn try_finish(&self, volume: &Arc<Volume<D>>) -> Result<bool, PoolError> {
        // Before the look at the job: whoever holds this may be cancelling it, and the keys of a job that is not in the
        // record any more must not become members, because no opening would look for them.
        let keys_change = self.keeper.keys_change(volume.uuid());
        let _keys_held = keys_change.lock().await;
        let record = volume.record();
        let Some(job) = &record.job else {
            return Ok(false);
        };
        // An atomic write that is stuck is in the logs of plexes that would go.
        if job.paused || volume.has_stuck_intents() || !self.is_filled(volume, &record, job) {
            return Ok(false);
        }
        self.move_members(volume, &record, &job.keys_fresh, &job.keys_retire)
            .await?;
        // Everything that was copied is durable; this is for writes of clients that only the fresh plexes will have.
        volume.flush().await?;
        let mutex = self.keeper.plexes(record.uuid);
        let _held = mutex.lock().await;
        let now = volume.record();
        let Some(job) = now.job.clone().filter(|now| now.uuid == job.uuid) else {
            return Ok(false);
        };
        let in_trouble = {
            let state = self.keeper.state.lock();
            let known = state.volumes.get(&record.uuid);
            known.is_some_and(|known| job.fresh.iter().any(|p| known.trouble.contains_key(p)))
        };
        let stuck = volume.has_stuck_intents();
        if job.paused || in_trouble || stuck || !self.is_filled(volume, &now, &job) {
            return Ok(false);
        }
        let mut after = VolumeRecord::clone(&now);
        conclude(&mut after, &job);
        let extents = freed(&now, &after);
        let snapshot = self.snapshot().await;
        let reserved = self.inner.lock().await.space.hold(extents.clone());
        let ended = self
            .change_volume(volume, Vec::<Change>::new(), |record| {
                if record.job.as_ref().map(|job| job.uuid) != Some(job.uuid) {
                    let volume = record.name.clone();
                    return Err(JobError::NoJob { volume }.into());
                }
                conclude(record, &job);
                Ok(())
            })
            .await;
        if let Err(error) = ended {
            let known = self.known_record(volume).await;
            if known.job.is_some() {
                return Err(error);
            }
            if !is_concluded(&known, &job) {
                // It was cancelled; what it was to retire is in use.
                return Ok(false);
            }
        }
        self.retire(Retired {
            id: fresh_uuid(),
            volume: Some(volume.clone()),
            uncertain: false,
            extents,
            reserved,
        });
        self.keeper.tell(PoolEvent::JobDone {
            volume: now.name.clone(),
            id: job.uuid,
            job: name_of(&snapshot.records, &job.kind),
        });
        Ok(true)
    }

    /// Makes the members of the private region what they are to be: `come` are members and `go` are not, one change at a
    /// time, alternately, so that there are never many fewer than before. What the keeper gave up since the job began, and
    /// replaced, does not come. The caller holds the volume's `keys_change` since before it read `record`.
    pub(super) async fn move_members(
        &self,
        volume: &Arc<Volume<D>>,
        record: &VolumeRecord,
        come: &[Uuid],
        go: &[Uuid],
    ) -> Result<(), PoolError> {
        if come.is_empty() && go.is_empty() {
            return Ok(());
        }
        let region = volume.private_region()?;
        let health = region.health_now().await?;
        let members: BTreeSet<Uuid> = health.iter().map(|info| info.uuid).collect();
        let mut going = go.iter().filter(|uuid| members.contains(*uuid));
        let given_up = |uuid: &&Uuid| record.keys.iter().all(|keys| keys.uuid != **uuid);
        for uuid in come.iter().filter(|uuid| !given_up(uuid)) {
            if !members.contains(uuid) {
                let devices = self.snapshot().await.devices;
                let replica = self.replica_of(record, *uuid, &devices);
                let replica = replica.ok_or_else(|| PoolError::Inconsistent {
                    problem: format!("the device of the new replica {uuid} of the keys is missing"),
                })?;
                region.add_replica(replica).await?;
            }
            if let Some(uuid) = going.next() {
                region.remove_replica(*uuid).await?;
            }
        }
        for uuid in going {
            region.remove_replica(*uuid).await?;
        }
        Ok(())
    }
}

/// Whether the record is one after the job, and not one after the job was cancelled.
fn is_concluded(record: &VolumeRecord, job: &Job) -> bool {
    let has = |uuid: &Uuid| record.plexes.iter().any(|plex| plex.uuid == *uuid);
    let keys = |uuid: &Uuid| record.keys.iter().any(|keys| keys.uuid == *uuid);
    job.fresh.iter().all(has) && !job.retire.iter().any(has) && !job.keys_retire.iter().any(keys)
}

/// The record after the job.
fn conclude(record: &mut VolumeRecord, job: &Job) {
    record.plexes.retain(|p| !job.retire.contains(&p.uuid));
    record.keys.retain(|k| !job.keys_retire.contains(&k.uuid));
    for plex in &mut record.plexes {
        if plex.replaces.is_some_and(|old| job.retire.contains(&old)) {
            plex.replaces = None;
        }
    }
    record.placement.clone_from(&job.placement);
    record.keys_placement.clone_from(&job.keys_placement);
    record.job = None;
}
