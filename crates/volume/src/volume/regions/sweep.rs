//! Clearing dirty regions, lazily.
//!
//! A region is clean when every plex has everything of it, durably. So the sweep takes regions in which nothing was
//! written between the last sweep and this one, flushes all plexes, and clears those in which nothing was written since
//! (*touched*) or is being written (the write table). A write touches its regions after it entered the table and before it
//! looks at dirty, and again when it is done and before it leaves the table, because the sweep's flush may have begun
//! while it was under way. The sweep looks at touched and clears dirty while it holds the table still. So a write either
//! is seen, or ended before the flush began, or finds its region clean and makes it dirty again.
//!
//! The bits are durable later, with the next change: what the log has too much of costs time after a crash, no more. What
//! detached plexes miss is in their stale sets, which are not touched here.

use std::sync::atomic::Ordering;

use super::{RegionTracker, Regions};
use crate::block_device::BlockDevice;
use crate::volume::Volume;
use crate::volume::regions::copy::SyncError;
use crate::volume::write_table::WriteTable;

impl<D> RegionTracker<D> {
    /// The dirty regions that were not written since the last sweep.
    fn idle(&self) -> Regions {
        let mut idle = self.dirty();
        let count = self.geometry.count;
        idle.subtract(&self.touched.take(count));
        idle.subtract(&self.unsettled.load(count));
        idle
    }

    /// Clears those of `idle` that are still idle, after a flush of all plexes. Returns the change, if any.
    fn clear_dirty(&self, table: &WriteTable, mut idle: Regions) -> Option<u64> {
        let table = table.frozen();
        let count = self.geometry.count;
        idle.subtract(&self.touched.load(count));
        idle.subtract(&self.unsettled.load(count));
        for range in table.writes() {
            let regions = self.regions_of(range);
            for region in regions.start..regions.end.min(count) {
                idle.clear(region);
            }
        }
        if idle.is_empty() {
            return None;
        }
        let mut image = self.image.lock();
        let next = image.step();
        image.dirty.set.subtract(&idle);
        image.dirty.sequence = next;
        for region in idle.iter() {
            self.dirty.clear(region);
        }
        Some(next)
    }

    /// Notes an operation of a client, until it is dropped.
    pub(in crate::volume) fn load(&self) -> Load<'_, D> {
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Load(self)
    }
}

/// An operation of a client.
pub(in crate::volume) struct Load<'a, D>(&'a RegionTracker<D>);

impl<D> Drop for Load<'_, D> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Clears the dirty regions that have been idle since the last sweep. Costs nothing when there are none.
    ///
    /// # Errors
    /// [`SyncError::Failed`]: plexes could not be flushed; they are reported.
    pub(crate) async fn sweep(&self) -> Result<(), SyncError> {
        let Ok(tracked) = self.tracked() else {
            return Ok(());
        };
        let (layout, tracker) = (tracked.layout(), tracked.tracker());
        let idle = tracker.idle();
        if idle.is_empty() {
            return Ok(());
        }
        self.flushes(layout, tracker, u8::MAX, 0..0)
            .for_keeper()
            .await
            .map_err(SyncError::Failed)?;
        // Not while a grow writes the logs for another size.
        let _changing = self.changing.lock().await;
        if !self.is_present(tracker) {
            return Ok(());
        }
        if let Some(sequence) = tracker.clear_dirty(&self.table, idle) {
            self.logs(layout, tracker, 0..0, sequence)
                .for_keeper()
                .await
                .map_err(SyncError::Failed)?;
        }
        Ok(())
    }

    /// Before a clean stop, when no client uses the volume any more: nothing is dirty, so that the next open has nothing to
    /// settle.
    ///
    /// # Errors
    /// [`SyncError::Failed`]: plexes could not be flushed or their logs not be written.
    pub(crate) async fn close_clean(&self) -> Result<(), SyncError> {
        // The first takes note of what was written lately, the second finds it idle.
        self.sweep().await?;
        self.sweep().await
    }
}
