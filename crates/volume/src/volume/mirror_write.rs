//! Writes, zeroes and flushes of a volume with a region log.
//!
//! A write takes its range in the write table, makes its regions dirty in the log unless they are, and goes to all plexes
//! that take part there, in parallel. Which plexes those are is looked up after the regions are dirty, for that is when
//! a plex that does not take part became stale there. It is answered when all have done it; [`super::together`] says
//! what happens when one does not.

use std::ops::Range;
use std::pin::pin;

use bytes::Bytes;
use smallvec::SmallVec;

use super::io::{whole_blocks, write_range, zero_range};
use super::regions::RegionTracker;
use super::reports::Report;
use super::together::{Together, What};
use super::write_table::Use;
use super::{Layout, LayoutGuard, Volume};
use crate::block_device::BlockDevice;
use crate::device::Device;
use crate::error::VolumeError;
use crate::translate::{DeviceRange, Region};

/// What is written.
#[derive(Clone)]
pub(super) enum Change {
    /// These bytes.
    Data(Bytes),
    /// Zeroes.
    Zeroes {
        /// How many.
        length_bytes: u64,
        /// The space may be given back.
        deallocate: bool,
    },
}

impl Change {
    pub(super) fn length_bytes(&self) -> u64 {
        match self {
            Change::Data(data) => data.len() as u64,
            Change::Zeroes { length_bytes, .. } => *length_bytes,
        }
    }

    /// A part of it.
    pub(super) fn part(&self, start: u64, length_bytes: u64) -> Change {
        match self {
            Change::Data(data) => {
                Change::Data(data.slice(start as usize..(start + length_bytes) as usize))
            }
            Change::Zeroes { deallocate, .. } => Change::Zeroes {
                length_bytes,
                deallocate: *deallocate,
            },
        }
    }
}

/// A run of a volume whose regions are all on the same plexes.
pub(super) struct Run {
    pub(super) range: Range<u64>,
    /// By bit of the position in [`Layout::plexes`]: where writes go, or where reads may.
    pub(super) plexes: u8,
    /// Those that have valid data.
    pub(super) valid: u8,
}

/// Where a run lies on a plex that has it in one piece.
struct Place<'a, D> {
    /// Position in [`Layout::plexes`].
    plex: usize,
    range: DeviceRange,
    device: &'a Device<D>,
}

impl<D: BlockDevice> Place<'_, D> {
    fn write(&self, data: &Bytes) -> impl Future<Output = Result<(), VolumeError>> {
        write_range(self.device, self.range.device_offset_bytes, data.clone())
    }
}

impl<D: BlockDevice> Layout<D> {
    /// The runs of a range, by the plexes that writes go to.
    pub(super) fn runs(
        &self,
        tracker: &RegionTracker<D>,
        range: &Range<u64>,
    ) -> SmallVec<[Run; 2]> {
        let mut runs = SmallVec::<[Run; 2]>::new();
        for region in tracker.regions_of(range) {
            let bytes = tracker.bytes_of(region, self.map.size_bytes());
            let part = bytes.start.max(range.start)..bytes.end.min(range.end);
            let (mut plexes, mut valid) = (0u8, 0u8);
            for (index, plex) in self.plexes.iter().enumerate() {
                let Some(slot) = &plex.slot else { continue };
                plexes |= u8::from(slot.takes_writes(region)) << index;
                valid |= u8::from(slot.is_valid(region)) << index;
            }
            // One that became valid between the two looks.
            plexes |= valid;
            match runs.last_mut() {
                Some(last) if (last.plexes, last.valid) == (plexes, valid) => {
                    last.range.end = part.end;
                }
                _ => runs.push(Run {
                    range: part,
                    plexes,
                    valid,
                }),
            }
        }
        runs
    }

    /// Where a run lies that two plexes have, each in one piece and neither where the other one is; `None` for any other.
    fn two_places(&self, run: &Run) -> Option<[Place<'_, D>; 2]> {
        if self.shares || run.plexes.count_ones() != 2 {
            return None;
        }
        let first = run.plexes.trailing_zeros() as usize;
        let second = run.plexes.ilog2() as usize;
        Some([self.place(first, run)?, self.place(second, run)?])
    }

    fn place(&self, plex: usize, run: &Run) -> Option<Place<'_, D>> {
        let region = Region::Public {
            plex: self.plexes[plex].position,
        };
        let length_bytes = run.range.end - run.range.start;
        let ranges = self.map.translate(region, run.range.start, length_bytes);
        // What is wrong is said where all cases are treated.
        let [range] = ranges.ok()?.into_inner().ok()?;
        let device = self.device(&range).ok()?;
        Some(Place {
            plex,
            range,
            device,
        })
    }

    /// The range that a write must have to itself.
    pub(super) fn locked(&self, range: &Range<u64>) -> Range<u64> {
        if self.read_modify_write {
            whole_blocks(range.start, range.end - range.start)
        } else {
            range.clone()
        }
    }
}

impl<D: BlockDevice> Volume<D> {
    /// The bytes of an operation.
    ///
    /// # Errors
    /// [`VolumeError::OutOfBounds`].
    pub(super) fn bounds(
        &self,
        layout: &Layout<D>,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Range<u64>, VolumeError> {
        let size_bytes = layout.map.size_bytes();
        match offset_bytes.checked_add(length_bytes) {
            Some(end) if end <= size_bytes => Ok(offset_bytes..end),
            _ => Err(VolumeError::OutOfBounds {
                offset_bytes,
                length_bytes,
                size_bytes,
            }),
        }
    }

    pub(super) async fn mirror_write(
        &self,
        layout: LayoutGuard<D>,
        offset_bytes: u64,
        change: Change,
    ) -> Result<(), VolumeError> {
        let mut layout = layout.counted();
        loop {
            let range = self.bounds(&layout, offset_bytes, change.length_bytes())?;
            let Some(tracker) = &layout.tracker else {
                // The volume lost its tracker since the layout was looked at first.
                return match change {
                    Change::Data(data) => layout.write_only(&self.table, offset_bytes, data).await,
                    Change::Zeroes {
                        length_bytes,
                        deallocate,
                    } => {
                        layout
                            .zero_only(&self.table, offset_bytes, length_bytes, deallocate)
                            .await
                    }
                };
            };
            let locked = self.table.take(layout.locked(&range), Use::Write).await;
            if tracker.is_retired() {
                drop(locked);
                layout = self.writable()?.counted();
                continue;
            }
            let _load = tracker.load();
            return self.write_locked(&layout, tracker, range, change).await;
        }
    }

    /// Writes a range that the caller has to itself.
    pub(super) async fn write_locked(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        range: Range<u64>,
        change: Change,
    ) -> Result<(), VolumeError> {
        if range.is_empty() {
            return Ok(());
        }
        let regions = tracker.regions_of(&range);
        let _touching = tracker.touching(regions.clone());
        if !tracker.is_dirty(regions.clone()) {
            self.make_dirty(layout, tracker, regions).await?;
        }
        for run in layout.runs(tracker, &range) {
            let part = change.part(
                run.range.start - range.start,
                run.range.end - run.range.start,
            );
            self.write_run(layout, tracker, run, part).await?;
        }
        Ok(())
    }

    /// Makes the regions dirty in the log of every attached plex.
    async fn make_dirty(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        regions: Range<u32>,
    ) -> Result<(), VolumeError> {
        let sequence = tracker.mark_dirty(regions.clone());
        self.logs(layout, tracker, regions.clone(), sequence)
            .for_client()
            .await?;
        tracker.show_dirty(regions);
        Ok(())
    }

    /// Making a change durable in all logs.
    pub(super) fn logs<'a>(
        &'a self,
        layout: &'a Layout<D>,
        tracker: &'a RegionTracker<D>,
        regions: Range<u32>,
        sequence: u64,
    ) -> Together<'a, D> {
        let mut together = self.together(layout, tracker, What::Log, regions);
        // Not those of the layout: one that is about to be attached must have it before this layout is replaced.
        together.names = tracker.logged();
        for index in 0..together.names.len() {
            let uuid = together.names[index];
            let device = tracker.log_device(uuid).unwrap_or_default();
            together.push(index, device, tracker.persist(uuid, sequence));
            together.valid |= 1 << index;
        }
        together
    }

    pub(super) fn together<'a>(
        &'a self,
        layout: &'a Layout<D>,
        tracker: &'a RegionTracker<D>,
        what: What,
        regions: Range<u32>,
    ) -> Together<'a, D> {
        Together {
            volume: self,
            layout,
            tracker,
            what,
            names: layout.plexes.iter().map(|plex| plex.uuid).collect(),
            regions,
            valid: 0,
            parts: SmallVec::new(),
            is_quiet: false,
        }
    }

    /// Writes a run to its plexes.
    async fn write_run(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        run: Run,
        change: Change,
    ) -> Result<(), VolumeError> {
        if run.valid == 0 {
            return Err(self.no_copy_of(&run.range));
        }
        let regions = tracker.regions_of(&run.range);
        let together = || Together {
            valid: run.valid,
            ..self.together(layout, tracker, What::Write, regions.clone())
        };
        let result = match (layout.two_places(&run), &change) {
            (Some([one, other]), Change::Data(data)) => {
                // The common case, without allocating.
                let first = pin!(one.write(data));
                let second = pin!(other.write(data));
                let mut together = together();
                together.lend(one.plex, one.range.device, first);
                together.lend(other.plex, other.range.device, second);
                together.is_quiet = true;
                together.for_client().await
            }
            _ => {
                let mut together = together();
                push_writes(&mut together, layout, run.plexes, &run.range, &change)?;
                together.for_client().await
            }
        };
        if result.is_err() {
            // Each of them may have some of it. Before the range is given back, so that nobody reads it unsettled. One that
            // is being filled is filled anew, unless it is about to become valid.
            let mut believed = run.valid.count_ones();
            for (index, plex) in layout.plexes.iter().enumerate() {
                if (run.plexes & !run.valid) >> index & 1 == 1 {
                    let given_up = regions
                        .clone()
                        .all(|region| tracker.give_up_if_stale(plex.uuid, region..region + 1));
                    believed += u32::from(!given_up);
                }
            }
            if believed > 1 {
                tracker.unsettle(regions);
            }
        }
        result
    }

    /// Makes what completed before durable on every attached plex.
    pub(super) async fn mirror_flush(&self, layout: LayoutGuard<D>) -> Result<(), VolumeError> {
        let Some(tracker) = &layout.tracker else {
            return layout.flush(layout.only()).await;
        };
        self.flushes(&layout, tracker, u8::MAX, 0..0)
            .for_client()
            .await
    }

    /// Flushing the devices of some plexes, by bit.
    pub(super) fn flushes<'a>(
        &'a self,
        layout: &'a Layout<D>,
        tracker: &'a RegionTracker<D>,
        plexes: u8,
        regions: Range<u32>,
    ) -> Together<'a, D> {
        let mut together = self.together(layout, tracker, What::Flush, regions);
        let mut devices = SmallVec::<[usize; 4]>::new();
        for (index, plex) in layout.plexes.iter().enumerate() {
            if plexes >> index & 1 == 0 {
                continue;
            }
            together.valid |= 1 << index;
            for device in layout.map.plex_devices(plex.position) {
                match devices.iter().position(|seen| seen == device) {
                    Some(part) => together.share(part, index),
                    None => {
                        devices.push(*device);
                        let uuid = layout.map.devices()[*device];
                        together.push(index, uuid, layout.flush_device(*device));
                    }
                }
            }
        }
        together
    }

    /// Whether the plex is in the present layout. A volume that is closed has none.
    pub(super) fn takes_part(&self, plex: uuid::Uuid) -> bool {
        self.layout
            .load()
            .as_ref()
            .is_some_and(|layout| layout.plex(plex).is_some())
    }

    pub(super) fn report(&self, report: Report) {
        self.reports.push(report);
    }

    pub(super) fn no_copy(&self) -> VolumeError {
        self.no_copy_of(&(0..0))
    }

    pub(super) fn no_copy_of(&self, range: &Range<u64>) -> VolumeError {
        VolumeError::NoCopy {
            volume: self.record.load().name.clone(),
            offset_bytes: range.start,
            length_bytes: range.end - range.start,
        }
    }
}

/// Adds the device operations of a change on some plexes. A place that two plexes share is written once.
pub(super) fn push_writes<'a, D: BlockDevice>(
    together: &mut Together<'a, D>,
    layout: &'a Layout<D>,
    plexes: u8,
    range: &Range<u64>,
    change: &Change,
) -> Result<(), VolumeError> {
    push_copies(together, layout, None, plexes, range, change)
}

/// As [`push_writes`], of data that one plex has already.
pub(super) fn push_copies<'a, D: BlockDevice>(
    together: &mut Together<'a, D>,
    layout: &'a Layout<D>,
    source: Option<usize>,
    plexes: u8,
    range: &Range<u64>,
    change: &Change,
) -> Result<(), VolumeError> {
    let length_bytes = range.end - range.start;
    let mut places = SmallVec::<[DeviceRange; 4]>::new();
    let first = together.parts.len();
    let others =
        (0..layout.plexes.len()).filter(|index| plexes >> index & 1 == 1 && Some(*index) != source);
    for index in source.into_iter().chain(others) {
        let plex = &layout.plexes[index];
        let region = Region::Public {
            plex: plex.position,
        };
        for place in layout.map.translate(region, range.start, length_bytes)? {
            let shared = layout
                .shares
                .then(|| places.iter().position(|other| *other == place))
                .flatten();
            if let Some(part) = shared {
                together.share(first + part, index);
                continue;
            }
            places.push(place);
            if Some(index) == source {
                together.push(index, place.device, async { Ok(()) });
                continue;
            }
            let part = change.part(place.region_offset_bytes - range.start, place.length_bytes);
            together.push(index, place.device, async move {
                let device = layout.device(&place)?;
                match part {
                    Change::Data(data) => {
                        write_range(device, place.device_offset_bytes, data).await
                    }
                    Change::Zeroes {
                        length_bytes,
                        deallocate,
                    } => {
                        let at = place.device_offset_bytes;
                        zero_range(device, at, length_bytes, deallocate).await
                    }
                }
            });
        }
    }
    Ok(())
}
