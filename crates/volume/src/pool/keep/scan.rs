//! Looking around: what is to be done now, as tasks.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::copy::Work;
use super::tasks::Tasks;
use super::{PoolEvent, Retired, Snapshot};
use crate::block_device::BlockDevice;
use crate::config::{JobKind, VolumeRecord};
use crate::pool::Pool;
use crate::pool::jobs::{JobState, text_of};
use crate::volume::Volume;

/// Volumes that are copied at the same time; one that has not got on for [`STUCK_AFTER`] does not count.
const COPIES: usize = 4;
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Between two sweeps of a region log.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// Between two tries to end atomic writes that are stuck.
const INTENTS_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the replicas of keys and configuration.
const REPLICAS_EVERY: Duration = Duration::from_secs(3);

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Takes plexes of a volume out.
    Detach(Uuid),
    /// Takes plexes of a volume in again.
    Attach(Uuid),
    /// Copies what plexes of a volume miss.
    Copy(Uuid),
    /// Ends the job of a volume.
    Finish(Uuid),
    /// Waits until nobody uses an older layout of a volume: from then on its new plexes count.
    Drain(Uuid),
    /// Clears idle regions of a volume's log.
    Sweep(Uuid),
    /// Ends atomic writes of a volume that are stuck.
    Intents(Uuid),
    /// Looks at the replicas of a volume's keys.
    Keys(Uuid),
    /// Looks at the copies of the configuration.
    Config,
    /// Looks after a device that is in trouble.
    Device(Uuid),
    /// Gives extents back.
    Retire(Uuid),
    /// Takes a replaced device out of the pool.
    LetGo(Uuid),
}

impl<D: BlockDevice> Pool<D> {
    pub(super) fn scan<'a>(&'a self, snapshot: &Snapshot<D>, tasks: &mut Tasks<'a, Key>) {
        let Some(clock) = snapshot.devices.values().next() else {
            return;
        };
        let now = clock.now();
        for report in self.keeper.reports.take() {
            self.note(report, now);
        }
        if self.keeper.state.lock().closing {
            return;
        }
        let retired: Vec<Retired<D>> = self.keeper.retired.lock().drain(..).collect();
        for retired in retired {
            tasks.start(Key::Retire(retired.id), self.give_back(retired));
        }
        self.scan_devices(snapshot, tasks, now);
        let leaving: Vec<(Uuid, Uuid)> = {
            let mut state = self.keeper.state.lock();
            // One that is open stays: not all of its jobs came to their end.
            let is_closed = |device: &Uuid| snapshot.records.get(device).is_some_and(|r| r.closed);
            state.leaving.retain(|old, _| is_closed(old));
            let due = |old: &Uuid| {
                let known = state.devices.get(old);
                known.is_none_or(|known| known.let_go.is_over(now))
            };
            let replaced = state.leaving.iter().map(|(old, new)| (*old, *new));
            replaced.filter(|(old, _)| due(old)).collect()
        };
        for (old, new) in leaving {
            let used = self
                .volumes()
                .iter()
                .any(|volume| volume.record().extents().any(|extent| extent.device == old));
            if !used {
                tasks.start(Key::LetGo(old), self.let_go(old, new));
            }
        }
        for volume in self.volumes() {
            if volume.fault().is_none() {
                self.scan_volume(snapshot, tasks, volume, now);
            }
        }
    }

    fn scan_devices<'a>(
        &'a self,
        snapshot: &Snapshot<D>,
        tasks: &mut Tasks<'a, Key>,
        now: Duration,
    ) {
        let mut state = self.keeper.state.lock();
        for (uuid, device) in &snapshot.devices {
            let known = state.devices.entry(*uuid).or_default();
            let failed = snapshot
                .records
                .get(uuid)
                .is_some_and(|record| record.failed.is_some());
            let wants = known.suspect.is_some()
                || known.check_end
                || !device.is_online() && !failed && !known.told
                || known.hung_since.is_some() && known.back.is_over(now);
            if wants {
                tasks.start(Key::Device(*uuid), self.look_after(device.clone()));
            }
        }
        let config_due = now >= state.config_at;
        if config_due {
            state.config_at = now.saturating_add(REPLICAS_EVERY);
        }
        drop(state);
        if config_due {
            tasks.start(Key::Config, self.repair_config());
        }
    }

    fn scan_volume<'a>(
        &'a self,
        snapshot: &Snapshot<D>,
        tasks: &mut Tasks<'a, Key>,
        volume: Arc<Volume<D>>,
        now: Duration,
    ) {
        let uuid = volume.uuid();
        let record = volume.record();
        let keys_due = {
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(uuid).or_default();
            let due = now >= known.keys_at && known.keys.is_over(now);
            if due {
                known.keys_at = now.saturating_add(REPLICAS_EVERY);
            }
            due
        };
        if keys_due {
            tasks.start(Key::Keys(uuid), self.look_after_keys(volume.clone()));
        }
        if !self.troubled(snapshot, &record, now, false).is_empty() {
            let volume = volume.clone();
            tasks.start(Key::Detach(uuid), async move {
                self.detach_troubled(&volume).await;
            });
        }
        if volume.has_stuck_intents() {
            self.scan_intents(tasks, &volume, now);
        }
        if record.plexes.len() == 1 && record.job.is_none() {
            return;
        }
        self.scan_mirror(snapshot, tasks, volume, &record, now);
    }

    fn scan_intents<'a>(
        &'a self,
        tasks: &mut Tasks<'a, Key>,
        volume: &Arc<Volume<D>>,
        now: Duration,
    ) {
        let uuid = volume.uuid();
        let due = {
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(uuid).or_default();
            let due = now >= known.intents_at;
            if due {
                known.intents_at = now.saturating_add(INTENTS_EVERY);
            }
            due
        };
        if due {
            let volume = volume.clone();
            tasks.start(Key::Intents(uuid), async move {
                let name = volume.record().name.clone();
                match volume.finish_intents().await {
                    Ok(()) => tracing::info!(volume = name, "an atomic write has its end"),
                    Err(error) => {
                        tracing::debug!(volume = name, %error, "an atomic write is stuck");
                    }
                }
                self.keeper.wake();
            });
        }
    }

    fn scan_mirror<'a>(
        &'a self,
        snapshot: &Snapshot<D>,
        tasks: &mut Tasks<'a, Key>,
        volume: Arc<Volume<D>>,
        record: &VolumeRecord,
        now: Duration,
    ) {
        let uuid = volume.uuid();
        let (attach_due, sweep_due, copy_due, finish_due) = {
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(uuid).or_default();
            let sweep_due = now >= known.sweep_at;
            if sweep_due {
                known.sweep_at = now.saturating_add(SWEEP_EVERY);
            }
            let attach_due: Vec<Uuid> = record
                .plexes
                .iter()
                .filter(|plex| !plex.is_attached())
                .map(|plex| plex.uuid)
                .filter(|plex| known.attach.get(plex).is_none_or(|due| due.is_over(now)))
                .collect();
            (
                attach_due,
                sweep_due,
                known.copy.is_over(now),
                known.finish.is_over(now),
            )
        };
        let drained = {
            let state = self.keeper.state.lock();
            let known = state.volumes.get(&uuid);
            known.is_some_and(|known| {
                let drained = known.drained.as_ref();
                drained.is_some_and(|drained| std::ptr::eq(&raw const **drained, record))
            })
        };
        if !drained {
            let volume = volume.clone();
            tasks.start(Key::Drain(uuid), async move {
                let record = volume.record();
                volume.drained().await;
                let mut state = self.keeper.state.lock();
                state.volumes.entry(uuid).or_default().drained = Some(record);
            });
        }
        let attach = record
            .plexes
            .iter()
            .any(|plex| attach_due.contains(&plex.uuid) && self.is_ready(snapshot, plex));
        if attach {
            let volume = volume.clone();
            tasks.start(Key::Attach(uuid), async move {
                self.attach_ready(&volume).await;
            });
        }
        if sweep_due {
            let volume = volume.clone();
            tasks.start(Key::Sweep(uuid), async move {
                if let Err(error) = volume.sweep().await {
                    tracing::debug!(%error, "a sweep ended early");
                }
            });
        }
        let work = Work::of(&volume, record);
        let (job_paused, resync_paused) = self.paused(record);
        if work.is_open(job_paused, resync_paused) {
            if copy_due && self.copies(tasks, now) < COPIES {
                let volume = volume.clone();
                tasks.start(Key::Copy(uuid), async move { self.copy(&volume).await });
            }
        } else if record.job.is_some() && !job_paused && finish_due && !tasks.has(&Key::Copy(uuid))
        {
            let volume = volume.clone();
            tasks.start(Key::Finish(uuid), async move {
                self.finish_job(&volume).await;
            });
        }
        self.tell_stall(snapshot, &volume, record);
    }

    /// Tells of a job that cannot go on by itself, once, and of one that can again.
    fn tell_stall(&self, snapshot: &Snapshot<D>, volume: &Volume<D>, record: &VolumeRecord) {
        let Some(job) = &record.job else { return };
        if let JobKind::Replace { old, new } = job.kind {
            let mut state = self.keeper.state.lock();
            state.leaving.insert(old, new);
        }
        let Some(info) = self.job_info(&snapshot.records, volume, record) else {
            return;
        };
        let reason = match &info.state {
            JobState::Stalled { reason, ranges } if ranges.is_empty() => Some(reason.clone()),
            JobState::Stalled { reason, ranges } => Some(format!("{reason}: {}", text_of(ranges))),
            JobState::Running => None,
            JobState::Paused => return,
        };
        let told = {
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(record.uuid).or_default();
            std::mem::replace(&mut known.stall_told, reason.is_some())
        };
        match reason {
            Some(reason) if !told => self.keeper.tell(PoolEvent::JobStalled {
                volume: info.volume,
                id: info.id,
                job: info.kind,
                reason,
            }),
            None if told => self.keeper.tell(PoolEvent::JobResumed {
                volume: info.volume,
                id: info.id,
                job: info.kind,
            }),
            _ => {}
        }
    }

    /// Copies that get on.
    fn copies(&self, tasks: &Tasks<'_, Key>, now: Duration) -> usize {
        let state = self.keeper.state.lock();
        tasks.count(|key| match key {
            Key::Copy(volume) => state
                .volumes
                .get(volume)
                .is_none_or(|known| now.saturating_sub(known.copied_at) < STUCK_AFTER),
            _ => false,
        })
    }
}
