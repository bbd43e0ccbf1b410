//! What the pool does with a volume's layout and plexes: publishing, detaching, attaching, growing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::regions::copy::SyncError;
use super::regions::{DetachError, RegionTracker, Regions};
use super::together::Failure;
use super::write_table::{RangeGuard, Use};
use super::{HANG_LIMIT, Layout, Volume};
use crate::block_device::BlockDevice;
use crate::config::VolumeRecord;
use crate::device::Device;
use crate::error::VolumeError;
use crate::translate::Map;

type Devices<D> = std::collections::BTreeMap<Uuid, Arc<Device<D>>>;

/// What clients do with a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientLoad {
    /// Operations begun since the volume was opened.
    pub(crate) operations: u64,
    /// Operations in flight.
    pub(crate) in_flight: u64,
}

/// A volume that is about to grow; see [`Volume::begin_grow`].
pub(crate) struct Grow<'a, D> {
    /// Nobody reads or writes meanwhile.
    _everything: Option<RangeGuard<'a>>,
    /// No plex is taken out meanwhile.
    _changing: Option<async_lock::MutexGuard<'a, ()>>,
    old: Option<Arc<RegionTracker<D>>>,
    new: Option<Arc<RegionTracker<D>>>,
}

impl<D: BlockDevice> Volume<D> {
    // ---- layouts

    /// The layout of a record that is about to be committed, with the volume's own tracker.
    ///
    /// # Errors
    /// What is missing or impossible, in words.
    pub(crate) fn prepare_layout(
        &self,
        record: &VolumeRecord,
        devices: &Devices<D>,
    ) -> Result<Layout<D>, String> {
        let map = Map::new(record).map_err(|error| error.to_string())?;
        let tracker = self.tracker.load_full().filter(|tracker| {
            let direct = match record.plexes.as_slice() {
                [plex] => {
                    record.job.is_none()
                        && plex.is_attached()
                        && tracker
                            .stale(plex.uuid)
                            .is_none_or(|stale| stale.is_empty())
                }
                _ => false,
            };
            !direct
        });
        Layout::new(record, map, devices, tracker)
    }

    /// Puts a committed record, and the layout made for it, in place. Operations that began before go on with the layout
    /// that they have; see [`Volume::drained`].
    pub(crate) fn publish(&self, record: VolumeRecord, mut layout: Layout<D>) {
        let attached: Vec<Uuid> = layout.plexes.iter().map(|plex| plex.uuid).collect();
        let recorded: Vec<Uuid> = record.plexes.iter().map(|plex| plex.uuid).collect();
        let generation = self.generations.begin();
        let number = generation.number();
        layout.generation = Some(generation);
        let tracker = layout.tracker.clone();
        if let Some(tracker) = &tracker {
            tracker.before_publish(&attached);
        }
        self.map.store(layout.map.clone());
        self.record.store(Arc::new(record));
        let old = self.layout.swap(Some(Arc::new(layout)));
        if let Some(tracker) = &tracker {
            tracker.after_publish(number, &attached, &recorded);
        }
        // A volume that has one plex and nothing else to do forgets its tracker; a later plex begins a new one.
        let had = self.tracker.swap(tracker.clone());
        let replaced = old.as_ref().and_then(|old| old.tracker.clone());
        for earlier in [had, replaced].into_iter().flatten() {
            let same = tracker
                .as_ref()
                .is_some_and(|tracker| Arc::ptr_eq(tracker, &earlier));
            if !same {
                earlier.retire();
                // Those who wait there look at the layout that is in place now.
                earlier.notify();
            }
        }
    }

    /// Puts a committed record in place, and the layout made from it if that changes.
    pub(crate) fn adopt(&self, record: VolumeRecord, layout: Option<Layout<D>>) {
        match layout {
            Some(layout) => self.publish(record, layout),
            None => self.record.store(Arc::new(record)),
        }
    }

    /// Waits until nobody uses a layout that was published before the present one. Plexes that came with it take part in
    /// every write from then on.
    pub(crate) async fn drained(&self) {
        let number = self.generations.drained().await;
        if let Some(tracker) = self.tracker.load_full() {
            tracker.drained(number);
        }
    }

    /// Ends the I/O of a deleted volume: what comes later fails, what is in flight is waited for.
    pub(crate) async fn close(&self) {
        self.shut();
        self.generations.all_ended().await;
    }

    /// As [`Volume::close`], without waiting: that remains to be done before anybody else gets the space.
    pub(crate) fn shut(&self) {
        self.refuse_as_deleted();
        drop(self.layout.swap(None));
        if let Some(tracker) = self.tracker.load_full() {
            // Those who wait for a plex see that there is no layout any more.
            tracker.notify();
        }
    }

    /// Whether [`Volume::close`] or [`Volume::shut`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.layout.load().is_none()
    }

    // ---- what is known

    /// Number of regions; 0 without a region log.
    pub(crate) fn regions(&self) -> u32 {
        self.tracker
            .load()
            .as_ref()
            .map_or(0, |tracker| tracker.count())
    }

    /// Where a plex has no valid data; empty without a region log, `None` for a plex that it does not know.
    pub(crate) fn stale_of(&self, plex: Uuid) -> Option<Regions> {
        match &*self.tracker.load() {
            Some(tracker) => tracker.stale(plex),
            None => Some(Regions::new(0, false)),
        }
    }

    /// Number of regions in which a plex has no valid data.
    pub(crate) fn stale_count(&self, plex: Uuid) -> u32 {
        self.stale_of(plex).map_or(0, |stale| stale.count_ones())
    }

    /// Where writes may be in flight, as the region log has it.
    pub fn dirty(&self) -> Regions {
        match &*self.tracker.load() {
            Some(tracker) => tracker.dirty(),
            None => Regions::new(0, false),
        }
    }

    /// Where plexes may differ since the last crash.
    pub(crate) fn unsettled(&self) -> Regions {
        match &*self.tracker.load() {
            Some(tracker) => tracker.unsettled.load(tracker.count()),
            None => Regions::new(0, false),
        }
    }

    /// Bytes in which the plex at this position in the record has no valid data.
    pub fn stale_bytes(&self, plex: usize) -> u64 {
        let record = self.record();
        match record.plexes.get(plex).map(|plex| self.stale_of(plex.uuid)) {
            Some(Some(stale)) => self.bytes_in(&stale),
            // Not known: all of it would have to be copied.
            Some(None) => record.size_bytes,
            None => 0,
        }
    }

    /// Bytes in which plexes may differ since the last crash, in writes that nobody was told of.
    pub fn unsettled_bytes(&self) -> u64 {
        self.bytes_in(&self.unsettled())
    }

    fn bytes_in(&self, regions: &Regions) -> u64 {
        let size_bytes = self.size_bytes();
        match &*self.tracker.load() {
            Some(tracker) => regions
                .iter()
                .map(|region| tracker.bytes_of(region, size_bytes))
                .map(|bytes: Range<u64>| bytes.end - bytes.start)
                .sum(),
            None => 0,
        }
    }

    /// What clients do; nothing is counted without a region log.
    pub(crate) fn client_load(&self) -> ClientLoad {
        match &*self.tracker.load() {
            Some(tracker) => ClientLoad {
                operations: tracker.operations.load(Ordering::Relaxed),
                in_flight: tracker.in_flight.load(Ordering::Relaxed),
            },
            None => ClientLoad::default(),
        }
    }

    /// What must be detached before an opened volume is served, and why.
    pub(crate) fn to_detach(&self) -> Vec<(Uuid, String)> {
        match &*self.tracker.load() {
            Some(tracker) => tracker.to_detach(),
            None => Vec::new(),
        }
    }

    // ---- plexes that go

    /// The first step of a detach: what the plexes may miss is stale there, durably on all other attached plexes. Next come
    /// the commit that says so and the layout without them. There is no way back: until then, writes that fail on them wait.
    ///
    /// # Errors
    /// [`DetachError::LastCopy`], and nothing has changed. [`DetachError::Logs`]: others failed; the plexes are leaving
    /// nevertheless, and the call is to be repeated with those as well.
    pub(crate) async fn begin_detach(&self, plexes: &[Uuid]) -> Result<(), DetachError> {
        let _changing = self.changing.lock().await;
        let Ok(tracked) = self.tracked() else {
            return Ok(());
        };
        let (layout, tracker) = (tracked.layout(), tracked.tracker());
        let sequence = tracker.begin_leaving(plexes)?;
        self.logs(layout, tracker, 0..0, sequence)
            .for_keeper()
            .await
            .map_err(DetachError::Logs)
    }

    /// Whether all of these plexes are on their way out ([`Volume::begin_detach`]), and what they may miss is stale there,
    /// durably on all other attached plexes. If so, nobody reads that from them any more, even if they answer again.
    pub(crate) async fn is_detaching(&self, plexes: &[Uuid]) -> bool {
        let leaving = |plex: &Uuid| {
            let slot = self.tracked().ok().and_then(|t| t.tracker().slot(*plex));
            slot.is_some_and(|slot| slot.is_leaving())
        };
        if !plexes.iter().all(leaving) || self.begin_detach(plexes).await.is_err() {
            return false;
        }
        let _changing = self.changing.lock().await;
        let Ok(tracked) = self.tracked() else {
            return false;
        };
        let staying: Vec<Uuid> = tracked
            .layout()
            .plexes
            .iter()
            .map(|plex| plex.uuid)
            .filter(|plex| !plexes.contains(plex))
            .collect();
        tracked.tracker().before_publish(&staying);
        true
    }

    /// Makes regions of an attached plex stale, durably on every log, its own too; writes that wait for the plex there are
    /// answered.
    ///
    /// # Errors
    /// [`DetachError`]; nothing has changed.
    pub(crate) async fn mark_stale(
        &self,
        plex: Uuid,
        regions: &Regions,
    ) -> Result<(), DetachError> {
        let _changing = self.changing.lock().await;
        let Ok(tracked) = self.tracked() else {
            return Ok(());
        };
        let (layout, tracker) = (tracked.layout(), tracked.tracker());
        let sequence = tracker.mark_stale(plex, regions)?;
        let logged = self
            .logs(layout, tracker, 0..0, sequence)
            .for_keeper()
            .await;
        if let Err(failed) = logged {
            tracker.unmark_stale(plex, regions);
            return Err(DetachError::Logs(failed));
        }
        tracker.show_stale(plex, regions);
        Ok(())
    }

    /// Says that there is no other copy of something that a plex holds, so that it stays: operations that failed on it and
    /// were reported before this call get their error; those that hang go on.
    pub(crate) fn last_copy(&self, plex: Uuid) {
        if let Some(tracker) = self.tracker.load_full() {
            if let Some(slot) = tracker.slot(plex) {
                slot.refuse();
            }
            tracker.notify();
        }
    }

    // ---- plexes that come

    /// Before the commit of a record with attached plexes that do not take part yet (new ones, or ones that come back):
    /// their logs are formatted, and written from now on with all others. `stale` says where they have no valid data;
    /// for one that comes back that is added to what is known and to what its own log has. Next come
    /// [`Volume::prepare_layout`], the commit, [`Volume::publish`] and [`Volume::drained`]; or [`Volume::abort_attach`].
    ///
    /// Nothing may be in flight on the devices of a plex that comes back.
    ///
    /// # Errors
    /// [`VolumeError`]; nothing has changed.
    pub(crate) async fn prepare_attach(
        &self,
        next: &VolumeRecord,
        devices: &Devices<D>,
        stale: &[(Uuid, Regions)],
    ) -> Result<(), SyncError> {
        // What still has an older layout may have a plex that comes back in sight. Not for ever: it may wait for a plex to be
        // detached, and whoever does that may wait for the caller.
        let clock = self.layout()?.clock().cloned();
        if let Some(clock) = clock {
            let drained = async {
                self.drained().await;
                true
            };
            let late = async {
                clock.sleep(HANG_LIMIT).await;
                false
            };
            if !futures_lite::future::or(drained, late).await {
                return Err(self
                    .impossible("operations in flight do not end".into())
                    .into());
            }
        }
        let map = Map::new(next).map_err(|error| self.impossible(error.to_string()))?;
        let tracker = match self.tracker.load_full() {
            Some(tracker) => tracker,
            None => {
                let record = self.record();
                let now = Map::new(&record).map_err(|error| self.impossible(error.to_string()))?;
                let mut record = VolumeRecord::clone(&record);
                record.region_bytes = next.region_bytes;
                let tracker = RegionTracker::create(&record, &now, devices).await?;
                self.tracker.store(Some(tracker.clone()));
                tracker
            }
        };
        for (position, plex) in next.plexes.iter().enumerate() {
            // What was given up when it left may land in its log as well; only now nobody gives up more.
            let returns = plex.is_attached()
                && tracker.slot(plex.uuid).is_some()
                && !tracker.is_member(plex.uuid);
            let mut on = map.plex_devices(position).iter().map(|i| map.devices()[*i]);
            let busy = |uuid| devices.get(&uuid).is_some_and(|d| d.abandoned() > 0);
            if returns && on.any(busy) {
                return Err(SyncError::Abandoned(plex.uuid));
            }
        }
        let sequence = tracker.join(next, &map, devices, stale).await?;
        let layout = self.layout()?;
        let logged = self
            .logs(&layout, &tracker, 0..0, sequence)
            .for_keeper()
            .await;
        if let Err(failed) = logged {
            let coming: Vec<Uuid> = next.plexes.iter().map(|plex| plex.uuid).collect();
            self.abort_attach(&coming);
            return Err(SyncError::Failed(failed));
        }
        Ok(())
    }

    /// The commit that was to attach them failed for sure.
    pub(crate) fn abort_attach(&self, plexes: &[Uuid]) {
        let record = self.record();
        let recorded: Vec<Uuid> = record.plexes.iter().map(|plex| plex.uuid).collect();
        if let Some(tracker) = self.tracker.load_full() {
            tracker.abort_join(plexes, &recorded);
        }
        let tracked = self
            .layout
            .load()
            .as_ref()
            .is_some_and(|layout| layout.tracker.is_some());
        if !tracked {
            self.tracker.store(None);
        }
    }

    /// Whether the volume still goes by this tracker. Whoever asks holds `changing`.
    pub(super) fn is_present(&self, tracker: &Arc<RegionTracker<D>>) -> bool {
        let present = self.tracker.load();
        present
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, tracker))
    }

    fn impossible(&self, reason: String) -> VolumeError {
        VolumeError::NotServed {
            volume: self.record().name.clone(),
            reason,
        }
    }

    // ---- growing

    /// Before the commit of a larger record: with a region log, stops reads and writes for a moment and writes the logs for
    /// the new size. Next come [`Volume::prepare_layout`], the commit and [`Volume::publish`], then the result is dropped;
    /// or [`Volume::cancel_grow`]. Whoever calls it has the lock under which the configuration is committed, and keeps it
    /// until the end: a detach in between would wait for it for ever. The new bytes read as zeroes on every attached plex.
    ///
    /// # Errors
    /// [`SyncError`]; also when operations in flight do not end in time. The volume is as before.
    pub(crate) async fn begin_grow(&self, next: &VolumeRecord) -> Result<Grow<'_, D>, SyncError> {
        let Some(old) = self.tracker.load_full() else {
            return Ok(Grow {
                _everything: None,
                _changing: None,
                old: None,
                new: None,
            });
        };
        let clock = {
            let layout = self.layout()?;
            layout.clock().cloned()
        };
        let everything = self.table.take(0..u64::MAX, Use::Write);
        // An operation that waits for a plex to be detached may take as long as the keeper does, and the keeper may wait
        // for the caller.
        let everything = match &clock {
            Some(device) => futures_lite::future::or(async { Some(everything.await) }, async {
                device.sleep(2 * HANG_LIMIT).await;
                None
            })
            .await
            .ok_or_else(|| self.impossible("operations in flight do not end".into()))?,
            None => everything.await,
        };
        let changing = self.changing.lock().await;
        let layout = self.layout()?;
        let new = old.resized(next)?;
        if let Err(failed) = self.write_twice(&layout, &new).await {
            old.continue_from(&new);
            // Best effort: the logs may have both sizes then, and say the same.
            let again = self.write_twice(&layout, &old).await;
            tracing::warn!(volume = %self.uuid, restored = again.is_ok(), "growing was given up");
            return Err(SyncError::Failed(failed));
        }
        self.tracker.store(Some(new.clone()));
        Ok(Grow {
            _everything: Some(everything),
            _changing: Some(changing),
            old: Some(old),
            new: Some(new),
        })
    }

    /// Writes both copies of every page.
    async fn write_twice(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
    ) -> Result<(), Vec<Failure>> {
        for _ in 0..2 {
            let sequence = tracker.touch_all();
            self.logs(layout, tracker, 0..0, sequence)
                .for_keeper()
                .await?;
        }
        Ok(())
    }

    /// The commit that was to make it larger failed for sure.
    ///
    /// # Errors
    /// [`SyncError`]: the logs could not be written in the old size again; they have both sizes then, and say the same.
    pub(crate) async fn cancel_grow(&self, grow: Grow<'_, D>) -> Result<(), SyncError> {
        if let (Some(old), Some(new)) = (&grow.old, &grow.new) {
            self.tracker.store(Some(old.clone()));
            old.continue_from(new);
            let layout = self.layout()?;
            self.write_twice(&layout, old)
                .await
                .map_err(SyncError::Failed)?;
        }
        Ok(())
    }
}
