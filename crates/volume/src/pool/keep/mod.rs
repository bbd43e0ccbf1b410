//! The keeper: what a pool does by itself. It takes plexes in trouble out of their volumes and back in, copies what they
//! missed, carries jobs on and repairs replicas.
//!
//! One future, [`Pool::keep`], looks around again and again ([`scan`]) and runs a task for everything that is to be done.
//! Tasks of different volumes run beside one another; what hangs holds up nothing but itself. No task holds the pool's
//! lock over anything longer than a commit.
//!
//! Invariants:
//! - Whoever changes which plexes a volume has, or which of them take part, holds the volume's `plexes` mutex from the
//!   decision to the publication.
//! - A detach is durable (region log, then configuration) before a write that waits for it is answered.
//! - The last valid copy of a region is never given up by the keeper ([`decide`]).
//! - Extents are given back only when no layout that has them is in use and no operation is left on their device.

mod attach;
mod close;
mod config_repair;
mod copy;
mod decide;
mod detach;
mod devices;
mod events;
mod keys;
mod open;
pub(crate) mod pace;
mod retire;
mod scan;
mod state;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use event_listener::Event;
use futures_lite::future::or;
use uuid::Uuid;

use super::jobs::JobError;
use super::{Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::{Change, DeviceRecord, Plex, VolumeRecord};
use crate::device::Device;
use crate::volume::Volume;
use crate::volume::regions::Regions;
use crate::volume::reports::Reports;

pub(super) use decide::{Decision, View, decide};
pub use events::{EventList, PoolEvent, PoolEvents};
pub(super) use retire::Retired;
use scan::Key;
pub(super) use state::{Stall, State, Trouble};
use tasks::Tasks;

/// Between two looks when nothing wakes the keeper.
const TICK: Duration = Duration::from_millis(500);
/// Between two looks at least.
const BREATH: Duration = Duration::from_millis(2);
/// Events kept for a sink that comes later.
const EARLY: usize = 1000;

/// The keeper's own part of a pool.
pub(super) struct Keeper<D> {
    sink: ArcSwapOption<Box<dyn PoolEvents>>,
    /// What happened before there was a sink.
    early: parking_lot::Mutex<Vec<PoolEvent>>,
    /// There may be something to do.
    wake: Event,
    /// [`Pool::keep`] runs.
    running: AtomicBool,
    pub(super) reports: Arc<Reports>,
    /// The devices as the last look found them.
    handles: ArcSwap<BTreeMap<Uuid, Arc<Device<D>>>>,
    pub(super) state: parking_lot::Mutex<State<D>>,
    retired: parking_lot::Mutex<Vec<Retired<D>>>,
}

impl<D> Default for Keeper<D> {
    fn default() -> Self {
        Keeper {
            sink: ArcSwapOption::empty(),
            early: parking_lot::Mutex::default(),
            wake: Event::new(),
            running: AtomicBool::new(false),
            reports: Arc::default(),
            handles: ArcSwap::default(),
            state: parking_lot::Mutex::default(),
            retired: parking_lot::Mutex::default(),
        }
    }
}

impl<D: BlockDevice> Keeper<D> {
    pub(super) fn tell(&self, event: PoolEvent) {
        tracing::info!(?event, "pool");
        match &*self.sink.load() {
            Some(sink) => sink.record(event),
            None => {
                let mut early = self.early.lock();
                if early.len() < EARLY {
                    early.push(event);
                }
            }
        }
    }

    /// Makes the keeper look again soon.
    pub(super) fn wake(&self) {
        self.wake.notify(usize::MAX);
    }

    /// A job begins or goes on: what failed before is tried again at once.
    pub(super) fn forget_troubles_of_copying(&self, volume: Uuid) {
        let mut state = self.state.lock();
        let known = state.volumes.entry(volume).or_default();
        known.copy.worked();
        known.finish.worked();
        known.stall = None;
        known.stall_told = false;
    }

    /// Plexes of a volume that nothing could be done about are decided on again.
    pub(super) fn not_hopeless(&self, volume: Uuid) {
        let mut state = self.state.lock();
        let known = state.volumes.entry(volume).or_default();
        known.hopeless.clear();
    }

    /// Forgets what was reported of a volume that is opened anew.
    pub(super) fn forget_troubles(&self, volume: Uuid) {
        let mut state = self.state.lock();
        let known = state.volumes.entry(volume).or_default();
        known.trouble.clear();
        known.hopeless.clear();
        known.attach.clear();
        known.drained = None;
    }

    /// Whether [`Pool::keep`] runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Whether a device was last seen not to answer.
    pub(super) fn hangs(&self, device: Uuid) -> bool {
        let state = self.state.lock();
        let known = state.devices.get(&device);
        known.is_some_and(|known| known.hung_since.is_some())
    }

    /// Whether nothing could be done about some plex of a volume.
    pub(super) fn is_hopeless(&self, volume: Uuid) -> bool {
        let state = self.state.lock();
        let known = state.volumes.get(&volume);
        known.is_some_and(|known| !known.hopeless.is_empty())
    }

    /// A device was opened anew: nothing that was known of the old one counts.
    pub(super) fn device_is_back(&self, device: Uuid) {
        let mut state = self.state.lock();
        state.devices.remove(&device);
        state.config_at = Duration::ZERO;
        for known in state.volumes.values_mut() {
            known.attach.clear();
            known.hopeless.clear();
            known.copy.worked();
            known.finish.worked();
            known.keys.worked();
        }
    }

    /// The mutex of whoever changes the replicas of a volume's keys. Taken before that of the plexes.
    pub(super) fn keys_change(&self, volume: Uuid) -> Arc<async_lock::Mutex<()>> {
        let mut state = self.state.lock();
        state.volumes.entry(volume).or_default().keys_change.clone()
    }

    /// The mutex of whoever changes the plexes of a volume.
    pub(super) fn plexes(&self, volume: Uuid) -> Arc<async_lock::Mutex<()>> {
        let mut state = self.state.lock();
        state.volumes.entry(volume).or_default().plexes.clone()
    }
}

/// Says that the keeper runs, until it is dropped.
struct Running<'a>(&'a AtomicBool);

impl<'a> Running<'a> {
    fn begin(running: &'a AtomicBool) -> Self {
        running.store(true, Ordering::SeqCst);
        Running(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// The devices as they are now.
pub(super) struct Snapshot<D> {
    pub(super) devices: BTreeMap<Uuid, Arc<Device<D>>>,
    pub(super) records: BTreeMap<Uuid, DeviceRecord>,
}

impl<D: BlockDevice> Snapshot<D> {
    pub(super) fn name(&self, device: Uuid) -> String {
        self.records
            .get(&device)
            .map_or_else(|| device.to_string(), |record| record.name.clone())
    }

    /// Names of the devices of a plex, each once, in order of their appearance.
    pub(super) fn names(&self, plex: &Plex) -> Vec<String> {
        let mut uuids: Vec<Uuid> = Vec::new();
        for extent in plex.extents() {
            if !uuids.contains(&extent.device) {
                uuids.push(extent.device);
            }
        }
        uuids.into_iter().map(|uuid| self.name(uuid)).collect()
    }

    /// Why operations of a device cannot succeed, when that is so.
    pub(super) fn unusable(&self, device: Uuid) -> Option<String> {
        if let Some(reason) = self.records.get(&device).and_then(|r| r.failed.as_ref()) {
            return Some(format!("device {} failed: {reason}", self.name(device)));
        }
        match self.devices.get(&device) {
            None => Some(format!("device {} is missing", self.name(device))),
            Some(opened) => match opened.health() {
                crate::device::DeviceHealth::Online => None,
                crate::device::DeviceHealth::Failed { reason } => {
                    Some(format!("device {} failed: {reason}", self.name(device)))
                }
            },
        }
    }

    /// Why operations of a plex cannot succeed, when that is so.
    pub(super) fn plex_unusable(&self, plex: &Plex) -> Option<String> {
        plex.extents()
            .find_map(|extent| self.unusable(extent.device))
    }
}

impl<D: BlockDevice> Pool<D> {
    /// Where events go from now on, those of the opening first. To be called before [`Pool::keep`].
    pub fn set_events(&self, sink: impl PoolEvents + 'static) {
        self.keeper.sink.store(Some(Arc::new(Box::new(sink))));
        let early = std::mem::take(&mut *self.keeper.early.lock());
        if let Some(sink) = &*self.keeper.sink.load() {
            for event in early {
                sink.record(event);
            }
        }
    }

    /// Does what has to be done by itself, for ever: see the [module](self). One at a time may run.
    pub async fn keep(&self) {
        let _running = Running::begin(&self.keeper.running);
        let mut tasks: Tasks<'_, Key> = Tasks::new();
        loop {
            let woken = self.keeper.wake.listen();
            let reported = self.keeper.reports.listen();
            let snapshot = tasks.drive(self.snapshot()).await;
            if snapshot.records.is_empty() {
                // No pool: nothing of an earlier one counts.
                *self.keeper.state.lock() = State::default();
            }
            self.keeper
                .handles
                .store(Arc::new(snapshot.devices.clone()));
            self.scan(&snapshot, &mut tasks);
            let tick = async {
                match snapshot.devices.values().next() {
                    Some(clock) => clock.sleep(TICK).await,
                    None => std::future::pending().await,
                }
            };
            tasks.run(or(tick, or(woken, reported))).await;
            if let Some(clock) = snapshot.devices.values().next() {
                // However often something ends or calls: the keeper never takes a processor for itself.
                tasks.drive(clock.sleep(BREATH)).await;
            }
        }
    }

    /// A device, without the pool's lock.
    pub(super) fn handle_of(&self, device: Uuid) -> Option<Arc<Device<D>>> {
        self.keeper.handles.load().get(&device).cloned()
    }

    pub(super) async fn snapshot(&self) -> Snapshot<D> {
        let inner = self.inner.lock().await;
        Snapshot {
            devices: inner.devices.clone(),
            records: inner
                .config
                .as_ref()
                .map(|config| config.config().devices.clone())
                .unwrap_or_default(),
        }
    }

    /// Changes the record of a volume with one commit and puts it in place; `also` goes with it. Nothing happens when
    /// `change` changes nothing. After an error the volume is as before, or the outcome is not known; see
    /// [`Pool::known_record`].
    pub(super) async fn change_volume(
        &self,
        volume: &Arc<Volume<D>>,
        also: Vec<Change>,
        change: impl FnOnce(&mut VolumeRecord) -> Result<(), PoolError>,
    ) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        // From the configuration: a volume that was deleted must not come back.
        let before = inner.config()?.volumes.get(&volume.uuid());
        let before = before.ok_or_else(|| PoolError::NoSuchVolume {
            name: volume.record().name.clone(),
        })?;
        self.check_current(volume)?;
        let mut record = before.clone();
        change(&mut record)?;
        if record == *before && also.is_empty() {
            return Ok(());
        }
        let layout = volume
            .prepare_layout(&record, &inner.devices)
            .map_err(|problem| PoolError::Inconsistent { problem })?;
        let mut changes = also;
        changes.push(Change::Volume(Box::new(record.clone())));
        inner.commit(changes).await?;
        volume.publish(record, layout);
        Ok(())
    }

    /// Under the pool's lock: whoever changes the record of a volume puts it in place in the object that is in use.
    ///
    /// # Errors
    /// [`JobError::Changed`] when the volume was opened anew since `volume` was looked up.
    pub(super) fn check_current(&self, volume: &Arc<Volume<D>>) -> Result<(), PoolError> {
        if self.volumes().iter().any(|now| Arc::ptr_eq(now, volume)) {
            return Ok(());
        }
        let volume = volume.record().name.clone();
        Err(JobError::Changed { volume }.into())
    }

    /// After a change that failed: waits until its outcome is known, and returns what the record is now.
    pub(super) async fn known_record(&self, volume: &Volume<D>) -> Arc<VolumeRecord> {
        loop {
            let mut inner = self.inner.lock().await;
            let settled = self.settle(&mut inner).await;
            let clock = inner.devices.values().next().cloned();
            drop(inner);
            match (settled, clock) {
                (Err(error), Some(clock)) => {
                    tracing::warn!(%error, "the outcome of a change is not known yet");
                    clock.sleep(Duration::from_secs(1)).await;
                }
                _ => return volume.record(),
            }
        }
    }
}

/// Number of regions of a volume.
pub(super) fn region_count(record: &VolumeRecord) -> u32 {
    let regions = record.size_bytes.div_ceil(record.region_bytes.max(1));
    // At most 32,000 in every record that has a map.
    u32::try_from(regions).unwrap_or(u32::MAX)
}

/// Where a plex of `record` has no valid data: everywhere when that is not known.
pub(super) fn stale_in<D: BlockDevice>(
    volume: &Volume<D>,
    record: &VolumeRecord,
    plex: Uuid,
) -> Regions {
    let count = region_count(record);
    match volume.stale_of(plex) {
        Some(stale) if stale.count() == count => stale,
        // Without a region log there is one plex, and it is complete.
        Some(_) if volume.regions() == 0 => Regions::new(count, false),
        _ => Regions::new(count, true),
    }
}

/// The position of a plex in a record.
pub(super) fn position(record: &VolumeRecord, plex: Uuid) -> usize {
    record
        .plexes
        .iter()
        .position(|p| p.uuid == plex)
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
