//! Reads of a volume with a region log.
//!
//! A read shares its range with other reads and waits for writes that overlap it. It goes to one plex that has valid data:
//! the one that was read up to here last, so that sequential runs stay on one device, unless that one is busier than
//! others; else the one with the fewest reads in flight. What one plex cannot read, or does not within the limit, another
//! one gives; what failed is then written again where it failed (a disk gives such a sector a new place).
//!
//! Regions that are unsettled are settled first.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use smallvec::SmallVec;
use uuid::Uuid;

use super::mirror_write::{Change, push_copies};
use super::regions::{RegionTracker, Slot};
use super::reports::{Report, Trouble};
use super::together::{HANG_LIMIT, What};
use super::write_table::Use;
use super::{Layout, LayoutGuard, Volume};
use crate::block_device::{Allocation, BlockDevice, aligned_buffer};
use crate::error::VolumeError;
use crate::translate::Region;

/// Reads more in flight than on the least busy plex that a sequential run may have and still stay.
const RUN_MAY_LAG: u32 = 4;

/// A read in flight on a plex.
struct Reading<'a>(&'a Slot);

impl<'a> Reading<'a> {
    fn new(slot: &'a Slot) -> Reading<'a> {
        // The counts only balance: no order with anything else matters.
        slot.reads.fetch_add(1, Ordering::Relaxed);
        Reading(slot)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<D: BlockDevice> Layout<D> {
    /// The plex to read `range` from, out of some by bit; `None` when there is none.
    fn choose(&self, plexes: u8, range: &Range<u64>) -> Option<usize> {
        let candidates = || {
            self.plexes
                .iter()
                .enumerate()
                .filter(move |(index, _)| plexes >> index & 1 == 1)
                .filter_map(|(index, plex)| Some((index, plex.slot.as_ref()?)))
        };
        let load = |slot: &Slot| slot.reads.load(Ordering::Relaxed);
        let count = u64::from(plexes.count_ones()).max(1);
        let (least, _) = candidates()
            .map(|(index, slot)| {
                // Of plexes that are equally busy, others for other places.
                let turn = (range.start >> 20).wrapping_add(index as u64) % count;
                (load(slot), turn, index)
            })
            .min()
            .map(|(load, _, index)| (index, load))?;
        let least_load = self.plexes[least]
            .slot
            .as_ref()
            .map_or(0, |slot| load(slot));
        let run = candidates().find(|(_, slot)| {
            slot.next_read.load(Ordering::Relaxed) == range.start
                && load(slot) <= least_load + RUN_MAY_LAG
        });
        let chosen = run.map_or(least, |(index, _)| index);
        if let Some(slot) = &self.plexes[chosen].slot {
            slot.next_read.store(range.end, Ordering::Relaxed);
        }
        Some(chosen)
    }

    /// The plexes that a read of the region may go to, by bit: those that are about to leave only if there is no other.
    pub(super) fn readable(&self, region: u32) -> u8 {
        let (mut staying, mut leaving) = (0u8, 0u8);
        for (index, plex) in self.plexes.iter().enumerate() {
            let Some(slot) = &plex.slot else { continue };
            if slot.is_valid(region) {
                if slot.is_leaving() {
                    leaving |= 1 << index;
                } else {
                    staying |= 1 << index;
                }
            }
        }
        if staying != 0 { staying } else { leaving }
    }
}

impl<D: BlockDevice> Volume<D> {
    pub(super) async fn mirror_read(
        &self,
        mut layout: LayoutGuard<D>,
        offset_bytes: u64,
        buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut) {
        let range = match self.bounds(&layout, offset_bytes, buf.len() as u64) {
            Ok(range) => range,
            Err(error) => return (Err(error), buf),
        };
        loop {
            let Some(tracker) = &layout.tracker else {
                return layout.read(layout.only(), offset_bytes, buf).await;
            };
            let locked = self.table.take(range.clone(), Use::Read).await;
            if tracker.is_retired() {
                drop(locked);
                layout = match self.layout() {
                    Ok(layout) => layout,
                    Err(error) => return (Err(error), buf),
                };
                continue;
            }
            let regions = tracker.regions_of(&range);
            if tracker.unsettled.any(regions) && !tracker.is_settled(&range) {
                drop(locked);
                if let Err(error) = self.settle(&layout, tracker, range.clone()).await {
                    return (Err(error), buf);
                }
                continue;
            }
            let load = tracker.load();
            let (result, buf, failed) = self.read_runs(&layout, tracker, &range, buf).await;
            drop((locked, load));
            for (plex, part, detail) in failed {
                self.repair(&layout, tracker, plex, part, detail).await;
            }
            return (result, buf);
        }
    }

    /// Reads a range that nobody writes, and says what could not be read where.
    async fn read_runs(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        range: &Range<u64>,
        mut buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut, Unread) {
        let mut failed = Unread::new();
        let mut runs = SmallVec::<[(Range<u64>, u8); 2]>::new();
        for region in tracker.regions_of(range) {
            let bytes = tracker.bytes_of(region, layout.map.size_bytes());
            let part = bytes.start.max(range.start)..bytes.end.min(range.end);
            let plexes = layout.readable(region);
            match runs.last_mut() {
                Some((last, same)) if *same == plexes => last.end = part.end,
                _ => runs.push((part, plexes)),
            }
        }
        let mut whole: Option<BytesMut> = None;
        let mut result = Ok(());
        for (run, plexes) in runs {
            let part = buf.split_to((run.end - run.start) as usize);
            let part = if result.is_ok() {
                let (part_result, part) =
                    self.read_run(layout, run, plexes, part, &mut failed).await;
                result = part_result;
                part
            } else {
                part
            };
            match &mut whole {
                Some(whole) => whole.unsplit(part),
                None => whole = Some(part),
            }
        }
        (result, whole.unwrap_or(buf), failed)
    }

    /// Reads a run from the best of its plexes that can.
    async fn read_run(
        &self,
        layout: &Layout<D>,
        run: Range<u64>,
        mut plexes: u8,
        mut buf: BytesMut,
        failed: &mut Unread,
    ) -> (Result<(), VolumeError>, BytesMut) {
        let mut last_error = None;
        while let Some(index) = layout.choose(plexes, &run) {
            plexes &= !(1 << index);
            let plex = &layout.plexes[index];
            let length = buf.len();
            let region = Region::Public {
                plex: plex.position,
            };
            let read = async {
                let _reading = plex.slot.as_deref().map(Reading::new);
                layout.read(region, run.start, buf).await
            };
            let Some(device) = layout.clock().filter(|_| plexes != 0) else {
                // The last one: it takes as long as it takes.
                let (result, buf) = read.await;
                return (result, buf);
            };
            match device.within(HANG_LIMIT, read).await {
                Some((Ok(()), buf)) => return (Ok(()), buf),
                Some((Err(error), same)) => {
                    buf = same;
                    failed.push((plex.uuid, run.clone(), error.to_string()));
                    last_error = Some(error);
                }
                None => {
                    // Its buffer is still in the hands of the device.
                    buf = aligned_buffer(length);
                    self.report(Report {
                        volume: self.uuid,
                        plex: plex.uuid,
                        device: None,
                        regions: 0..0,
                        what: Trouble::Hung {
                            seconds: HANG_LIMIT.as_secs(),
                        },
                    });
                }
            }
        }
        let error = last_error.unwrap_or_else(|| self.no_copy_of(&run));
        (Err(error), buf)
    }

    /// Writes again, from another plex, what a plex could not read. If it cannot be written either, the plex is reported.
    async fn repair(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        plex: Uuid,
        range: Range<u64>,
        detail: String,
    ) {
        let _locked = self.table.take(layout.locked(&range), Use::Write).await;
        let regions = tracker.regions_of(&range);
        let Some(bad) = layout.plexes.iter().position(|view| view.uuid == plex) else {
            return;
        };
        let stays = |index: usize| {
            layout.plexes[index].slot.as_ref().is_some_and(|slot| {
                !slot.is_leaving() && regions.clone().all(|region| slot.is_valid(region))
            })
        };
        if !stays(bad) || !self.takes_part(plex) {
            return;
        }
        for (index, other) in layout.plexes.iter().enumerate() {
            if index == bad || !stays(index) || !self.takes_part(other.uuid) {
                continue;
            }
            let region = Region::Public {
                plex: other.position,
            };
            let buf = aligned_buffer((range.end - range.start) as usize);
            let read = layout.read(region, range.start, buf);
            let Some(device) = layout.clock() else { return };
            let Some((Ok(()), buf)) = device.within(HANG_LIMIT, read).await else {
                continue;
            };
            let mut together = self.together(layout, tracker, What::Write, regions.clone());
            let change = Change::Data(buf.freeze());
            together.valid = 1 << bad | 1 << index;
            let source = Some(index);
            if push_copies(&mut together, layout, source, 1 << bad, &range, &change).is_ok() {
                let written = together.for_client().await;
                tracing::warn!(
                    volume = %self.uuid, %plex, detail, offset_bytes = range.start,
                    length_bytes = range.end - range.start, repaired = written.is_ok(),
                    "a read failed and was served from another plex"
                );
            }
            return;
        }
    }

    pub(super) async fn mirror_allocation(
        &self,
        layout: LayoutGuard<D>,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Allocation, VolumeError> {
        let range = self.bounds(&layout, offset_bytes, length_bytes)?;
        let Some(tracker) = &layout.tracker else {
            return layout
                .allocation(layout.only(), offset_bytes, length_bytes)
                .await;
        };
        let _locked = self.table.take(range.clone(), Use::Read).await;
        let regions = tracker.regions_of(&range);
        let Some(first) = regions.clone().next() else {
            return layout
                .allocation(layout.only(), offset_bytes, length_bytes)
                .await;
        };
        let end = tracker
            .bytes_of(first, layout.map.size_bytes())
            .end
            .min(range.end);
        let length_bytes = end - range.start;
        let plexes = layout.readable(first);
        let index = plexes.trailing_zeros() as usize;
        if tracker.unsettled.get(first) || index >= layout.plexes.len() {
            // Plexes may differ; to call it allocated is always right.
            return Ok(Allocation {
                allocated: true,
                length_bytes,
            });
        }
        let region = Region::Public {
            plex: layout.plexes[index].position,
        };
        layout.allocation(region, range.start, length_bytes).await
    }
}

/// What could not be read: the plex, the range, and why.
type Unread = SmallVec<[(Uuid, Range<u64>, String); 1]>;
