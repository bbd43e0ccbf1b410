//! Taking plexes in trouble out of a volume.
//!
//! The order: the regions that may be in flight become stale in the plexes that go, durably, in the logs of those that
//! stay; the configuration says `detached`; a layout without them is published; then the writes that waited are
//! answered. A crash after the first step leaves an attached plex with stale regions, which is resynchronized.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use uuid::Uuid;

use super::state::Trouble;
use super::{Decision, PoolEvent, Snapshot, View, decide, position, region_count, stale_in};
use crate::block_device::BlockDevice;
use crate::config::{Change, Plex, PlexState, VolumeRecord};
use crate::pool::jobs::JobError;
use crate::pool::{Inner, Pool, PoolError};
use crate::volume::Volume;
use crate::volume::regions::DetachError;
use crate::volume::regions::Regions;
use crate::volume::reports::{Report, Trouble as Reported};

/// Between two tries of a commit that a detach waits for.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);
/// How long a detach waits for a plex that has just come.
const DECIDE_AGAIN: Duration = Duration::from_millis(500);
/// Plexes whose logs failed during a detach join it; more rounds than plexes make no sense.
const ROUNDS: usize = crate::config::MAX_PLEXES + 1;

impl<D: BlockDevice> Pool<D> {
    /// Notes what the data path reported.
    pub(in crate::pool) fn note(&self, report: Report, now: Duration) {
        // What is said of a plex that takes no part is old: it must not count against it when it comes back.
        let volumes = self.volumes();
        let volume = volumes.iter().find(|v| v.uuid() == report.volume);
        let is_attached = volume.is_some_and(|volume| {
            let record = volume.record();
            let plex = record.plexes.iter().find(|p| p.uuid == report.plex);
            plex.is_some_and(Plex::is_attached)
        });
        if !is_attached {
            return;
        }
        let mut state = self.keeper.state.lock();
        let (reason, hung) = match &report.what {
            Reported::WriteFailed(error) | Reported::LogFailed(error) => (error.clone(), false),
            Reported::FlushFailed(error) => (error.clone(), false),
            // What cannot be read is read from another plex; the copier and `verify` say what is damaged.
            Reported::ReadFailed(error) => {
                tracing::warn!(volume = %report.volume, plex = %report.plex, error, "a read failed");
                if let Some(device) = report.device {
                    state.devices.entry(device).or_default().check_end = true;
                }
                return;
            }
            Reported::Hung { seconds } => (format!("no answer for {seconds} seconds"), true),
        };
        if let Some(device) = report.device {
            let device = state.devices.entry(device).or_default();
            if hung {
                if device.hung_since.is_none() {
                    device.hung_since = Some(now);
                    device.back.failed(now);
                }
            } else if device.suspect.is_none() {
                device.suspect = Some(reason.clone());
            }
        }
        let whole = matches!(
            report.what,
            Reported::FlushFailed(_) | Reported::LogFailed(_)
        );
        let trouble = state
            .volumes
            .entry(report.volume)
            .or_default()
            .trouble
            .entry(report.plex)
            .or_insert_with(|| Trouble {
                regions: Vec::new(),
                reason,
            });
        if !whole {
            trouble.regions.push(report.regions);
        }
    }

    /// What is to be decided on: reports, and plexes on devices that are not used any more.
    pub(super) fn troubled(
        &self,
        snapshot: &Snapshot<D>,
        record: &VolumeRecord,
        now: Duration,
        take: bool,
    ) -> BTreeMap<Uuid, Trouble> {
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(record.uuid).or_default();
        let mut all = if take {
            std::mem::take(&mut known.trouble)
        } else {
            known.trouble.clone()
        };
        all.retain(|uuid, _| {
            record
                .plexes
                .iter()
                .any(|plex| plex.uuid == *uuid && plex.is_attached())
        });
        for plex in record.plexes.iter().filter(|plex| plex.is_attached()) {
            let hopeless = known
                .hopeless
                .get(&plex.uuid)
                .is_some_and(|backoff| !backoff.is_over(now));
            if !hopeless && let Some(reason) = snapshot.plex_unusable(plex) {
                // The whole plex: no region of it answers.
                let regions = Vec::new();
                all.insert(plex.uuid, Trouble { regions, reason });
            }
        }
        all
    }

    /// Takes the troubled plexes of a volume out, or says that there is no other copy.
    pub(in crate::pool) async fn detach_troubled(&self, volume: &Arc<Volume<D>>) {
        let mutex = self.keeper.plexes(volume.uuid());
        let _held = mutex.lock().await;
        let snapshot = self.snapshot().await;
        let Some(clock) = snapshot.devices.values().next().cloned() else {
            return;
        };
        let mut all: BTreeMap<Uuid, Trouble> = BTreeMap::new();
        for _ in 0..ROUNDS {
            let record = volume.record();
            all.extend(self.troubled(&snapshot, &record, clock.now(), true));
            all.retain(|uuid, _| {
                record
                    .plexes
                    .iter()
                    .any(|plex| plex.uuid == *uuid && plex.is_attached())
            });
            if all.is_empty() {
                break;
            }
            let decisions = self.decisions(volume, &record, &all);
            let going: Vec<Uuid> = decisions
                .iter()
                .filter(|(_, decision)| **decision == Decision::Detach)
                .map(|(uuid, _)| *uuid)
                .collect();
            if !going.is_empty() {
                match volume.begin_detach(&going).await {
                    Ok(()) => {}
                    Err(DetachError::Logs(failed)) => {
                        for (plex, reason) in failed {
                            let regions = Vec::new();
                            all.insert(plex, Trouble { regions, reason });
                        }
                        continue;
                    }
                    // A region became stale elsewhere since the decision; or another plex has just come, and counts as
                    // soon as nobody uses an older layout. Decide again.
                    Err(DetachError::LastCopy { .. }) => {
                        or(volume.drained(), clock.sleep(DECIDE_AGAIN)).await;
                        continue;
                    }
                }
                self.commit_detach(volume, &going, &all, &snapshot).await;
            }
            for (plex, decision) in decisions {
                let Some(trouble) = all.remove(&plex) else {
                    continue;
                };
                match decision {
                    Decision::Nothing | Decision::Detach => {}
                    Decision::MarkRegionsStale => {
                        let mut regions = Regions::new(region_count(&record), false);
                        for range in &trouble.regions {
                            for region in range.clone() {
                                regions.set(region);
                            }
                        }
                        if volume.mark_stale(plex, &regions).await.is_err() {
                            self.no_other_copy(volume, plex, &trouble, clock.now());
                        }
                    }
                    Decision::LastCopy => {
                        self.no_other_copy(volume, plex, &trouble, clock.now());
                    }
                }
            }
        }
        // Logs that cannot be written, again and again: whoever waits gets an error rather than silence.
        for (plex, trouble) in &all {
            self.no_other_copy(volume, *plex, trouble, clock.now());
        }
        self.keeper.wake();
    }

    /// Decides for each troubled plex; those that give no trouble are left out.
    pub(in crate::pool) fn decisions(
        &self,
        volume: &Volume<D>,
        record: &VolumeRecord,
        trouble: &BTreeMap<Uuid, Trouble>,
    ) -> BTreeMap<Uuid, Decision> {
        let views: Vec<View> = record
            .plexes
            .iter()
            .map(|plex| View {
                attached: plex.is_attached(),
                trouble: trouble.contains_key(&plex.uuid),
            })
            .collect();
        let stale: Vec<_> = record
            .plexes
            .iter()
            .map(|plex| stale_in(volume, record, plex.uuid))
            .collect();
        let decisions = decide(
            &views,
            region_count(record),
            |plex, region| stale[plex].get(region),
            |plex, region| {
                trouble
                    .get(&record.plexes[plex].uuid)
                    .is_some_and(|trouble| trouble.concerns(region))
            },
        );
        record
            .plexes
            .iter()
            .map(|plex| plex.uuid)
            .zip(decisions)
            .filter(|(uuid, _)| trouble.contains_key(uuid))
            .collect()
    }

    /// Commits that plexes are detached, as often as it takes: writes are refused meanwhile when it fails.
    async fn commit_detach(
        &self,
        volume: &Arc<Volume<D>>,
        going: &[Uuid],
        trouble: &BTreeMap<Uuid, Trouble>,
        snapshot: &Snapshot<D>,
    ) {
        let reason_of = |plex: &Uuid| {
            trouble
                .get(plex)
                .map_or_else(String::new, |trouble| trouble.reason.clone())
        };
        let before = volume.record();
        let mut first = true;
        loop {
            let changed = self
                .change_volume(volume, Vec::new(), |record| {
                    for plex in &mut record.plexes {
                        if going.contains(&plex.uuid) {
                            plex.state = PlexState::Detached {
                                reason: reason_of(&plex.uuid),
                            };
                        }
                    }
                    Ok(())
                })
                .await;
            let error = match changed {
                Ok(()) => break,
                // Deleted meanwhile, or opened anew.
                Err(PoolError::NoSuchVolume { .. } | PoolError::Job(JobError::Changed { .. })) => {
                    return;
                }
                Err(error) => error,
            };
            if std::mem::take(&mut first) {
                // A copy of the configuration that is behind and well may be the one that is missing.
                self.repair_config().await;
                continue;
            }
            volume.refuse_writes(format!(
                "a copy failed and the configuration cannot say so durably: {error}"
            ));
            // Those who wait get an error, not silence.
            for plex in going {
                volume.last_copy(*plex);
            }
            self.config_trouble(&error);
            let clock = self.snapshot().await.devices.values().next().cloned();
            match clock {
                Some(clock) => clock.sleep(COMMIT_AGAIN).await,
                None => return,
            }
        }
        volume.allow_writes();
        self.config_well();
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(volume.uuid()).or_default();
        for plex in going {
            known.attach.entry(*plex).or_default();
        }
        drop(state);
        for plex in before.plexes.iter().filter(|p| going.contains(&p.uuid)) {
            self.keeper.tell(PoolEvent::PlexDetached {
                volume: before.name.clone(),
                plex: position(&before, plex.uuid),
                devices: snapshot.names(plex),
                reason: reason_of(&plex.uuid),
            });
        }
    }

    /// Whoever waits for the plex gets its error.
    fn no_other_copy(&self, volume: &Volume<D>, plex: Uuid, trouble: &Trouble, now: Duration) {
        volume.last_copy(plex);
        let record = volume.record();
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(volume.uuid()).or_default();
        let backoff = known.hopeless.entry(plex).or_default();
        let tell = backoff.is_over(now);
        backoff.failed(now);
        drop(state);
        if tell {
            self.keeper.tell(PoolEvent::LastCopyFails {
                volume: record.name.clone(),
                plex: position(&record, plex),
                reason: trouble.reason.clone(),
            });
        }
    }

    /// A commit failed.
    pub(super) fn config_trouble(&self, error: &PoolError) {
        let first = !std::mem::replace(&mut self.keeper.state.lock().config_lost, true);
        if first {
            self.keeper.tell(PoolEvent::ConfigQuorumLost {
                reason: error.to_string(),
            });
        }
    }

    /// A commit succeeded.
    pub(super) fn config_well(&self) {
        if std::mem::take(&mut self.keeper.state.lock().config_lost) {
            self.keeper.tell(PoolEvent::ConfigQuorumBack);
        }
    }

    /// Takes a device out for good: every plex on it that is not the last copy will be detached by the next look.
    ///
    /// # Errors
    /// The commit's; the device is not used any more in any case.
    pub(in crate::pool) async fn device_down(
        &self,
        device: Uuid,
        reason: &str,
    ) -> Result<(), PoolError> {
        let mut inner = self.out_of_use(device, reason).await;
        self.settle(&mut inner).await?;
        let Some(config) = &inner.config else {
            return Ok(());
        };
        let Some(mut record) = config.config().devices.get(&device).cloned() else {
            return Ok(());
        };
        if record.failed.is_some() {
            return Ok(());
        }
        record.failed = Some(reason.to_owned());
        let name = record.name.clone();
        inner.commit(vec![Change::Device(record)]).await?;
        drop(inner);
        self.keeper.tell(PoolEvent::DeviceFailed {
            device: name,
            reason: reason.to_owned(),
        });
        self.keeper.wake();
        Ok(())
    }

    /// Fails the handle of a device. Returns with the pool's lock.
    pub(in crate::pool) async fn out_of_use(
        &self,
        device: Uuid,
        reason: &str,
    ) -> async_lock::MutexGuard<'_, Inner<D>> {
        // Before the lock: a commit that waits for this very device has it, and waits no longer.
        if let Some(opened) = self.handle_of(device) {
            opened.fail(reason.to_owned());
        }
        let inner = self.inner.lock().await;
        if let Some(opened) = inner.devices.get(&device) {
            opened.fail(reason.to_owned());
        }
        inner
    }

    /// Volumes (names) that would lose the only valid copy of something without `device`.
    pub(in crate::pool) fn needing(&self, device: Uuid) -> Vec<String> {
        let mut names = Vec::new();
        for volume in self.volumes() {
            if volume.fault().is_some() {
                continue;
            }
            let record = volume.record();
            let on_it: BTreeMap<Uuid, Trouble> = record
                .plexes
                .iter()
                .filter(|plex| plex.is_attached() && plex.is_on(device))
                .map(|plex| (plex.uuid, Trouble::default()))
                .collect();
            if on_it.is_empty() {
                continue;
            }
            let lost = self
                .decisions(&volume, &record, &on_it)
                .values()
                .any(|decision| *decision != Decision::Detach);
            if lost {
                names.push(record.name.clone());
            }
        }
        names
    }
}
