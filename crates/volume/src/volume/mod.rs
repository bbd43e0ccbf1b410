//! A volume: its identity, its data path and its private region.
//!
//! **Two ways.** A volume with one plex and no work under way has a [`Layout`] without a tracker: its operations are
//! translated and go to the device, with no lock and no log. Any other volume has a [`regions::RegionTracker`] beside its
//! layout, and its operations go through the write table and the region log (`mirror_write`, `mirror_read`).
//!
//! Futures of the data path may be dropped only at the end of the process.

mod atomic_io;
pub mod atomic_write;
mod control;
mod io;
mod layout;
mod mirror_read;
mod mirror_write;
mod refusal;
pub mod regions;
pub mod reports;
mod together;
mod write_table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::block_device::{Allocation, BlockDevice};
use crate::config::{Access, BlockSize, VolumeRecord};
use crate::error::VolumeError;
use crate::private_region::PrivateRegion;
use crate::translate::Map;
use atomic_write::Lanes;
use layout::Generations;
use mirror_write::Change;
use refusal::Refusals;
use regions::RegionTracker;
use reports::Reports;
use write_table::WriteTable;

pub(crate) use control::ClientLoad;
pub(crate) use layout::Layout;
pub(crate) use together::HANG_LIMIT;

/// The longest atomic write in bytes (MAXIMUM ATOMIC TRANSFER LENGTH of the Block Limits VPD page, SBC-4 6.6.4, in
/// bytes).
pub const MAX_ATOMIC_BYTES: u64 = 128 * 1024;

/// Length of a plex's log extent in bytes: the intents of atomic writes, then the region log.
pub const PLEX_LOG_BYTES: u64 = 640 * 1024;

/// Smallest region of the region log in bytes.
pub const MIN_REGION_BYTES: u64 = 1 << 20;

/// Bytes of a region for a new volume of `size_bytes`: at most 16,000 regions, so that there is room to grow.
pub fn region_bytes_for(size_bytes: u64) -> u64 {
    // Sizes are at most 2^60, so that no power overflows.
    size_bytes
        .div_ceil(16_000)
        .next_power_of_two()
        .max(MIN_REGION_BYTES)
}

/// A layout in use, without touching its reference count in the common case.
struct LayoutGuard<D>(arc_swap::Guard<Option<Arc<Layout<D>>>>);

impl<D> LayoutGuard<D> {
    /// For an operation that will wait: counted, because a thread has only a few guards that are not, and who finds none
    /// left pays for it.
    fn counted(self) -> Self {
        LayoutGuard(arc_swap::Guard::from_inner(arc_swap::Guard::into_inner(
            self.0,
        )))
    }
}

impl<D> std::ops::Deref for LayoutGuard<D> {
    type Target = Layout<D>;

    fn deref(&self) -> &Layout<D> {
        match &*self.0 {
            Some(layout) => layout,
            // `Volume::layout`, the only constructor, checked it, and a guard's content does not change.
            None => unreachable!("a guard without a layout"),
        }
    }
}

/// A volume of an open pool. Shared by all reactors.
pub struct Volume<D> {
    uuid: Uuid,
    lun: u16,
    block_size: BlockSize,
    record: ArcSwap<VolumeRecord>,
    map: ArcSwap<Map>,
    layout: ArcSwapOption<Layout<D>>,
    private_region: Option<PrivateRegion<D>>,
    /// Why the volume is not served.
    fault: Option<String>,
    /// Why writes are refused, as `refusals` has it.
    refuse_writes: ArcSwapOption<String>,
    refusals: parking_lot::Mutex<Refusals>,
    /// Some of `refusals` are atomic writes that are stuck: reads look there.
    is_undecided: AtomicBool,
    /// What is being read and written now. Without a tracker, only writers whose device needs whole blocks are in it.
    table: WriteTable,
    lanes: Lanes,
    generations: Arc<Generations>,
    /// Held while plexes are taken out and while the volume grows: the one must not miss what the other does.
    changing: async_lock::Mutex<()>,
    /// The tracker that the next layout gets.
    tracker: ArcSwapOption<RegionTracker<D>>,
    /// Where plexes that fail are reported.
    reports: Arc<Reports>,
}

impl<D: BlockDevice> Volume<D> {
    /// A volume that is served.
    pub(crate) fn new(
        record: VolumeRecord,
        layout: Layout<D>,
        private_region: PrivateRegion<D>,
    ) -> Volume<D> {
        Volume {
            private_region: Some(private_region),
            fault: None,
            ..Volume::faulted(record, layout.map.clone(), String::new())
        }
        .with_layout(layout)
    }

    fn with_layout(self, mut layout: Layout<D>) -> Volume<D> {
        self.tracker.store(layout.tracker.clone());
        layout.generation = Some(self.generations.begin());
        self.layout.store(Some(Arc::new(layout)));
        self
    }

    /// Where its failing plexes are reported; one for all volumes of a pool.
    pub(crate) fn with_reports(self, reports: Arc<Reports>) -> Volume<D> {
        Volume { reports, ..self }
    }

    /// A volume that is not served, and why.
    pub(crate) fn faulted(record: VolumeRecord, map: Arc<Map>, fault: String) -> Volume<D> {
        Volume {
            uuid: record.uuid,
            lun: record.lun,
            block_size: record.block_size,
            record: ArcSwap::from_pointee(record),
            map: ArcSwap::new(map),
            layout: ArcSwapOption::empty(),
            private_region: None,
            fault: Some(fault),
            refuse_writes: ArcSwapOption::empty(),
            refusals: parking_lot::Mutex::default(),
            is_undecided: AtomicBool::new(false),
            table: WriteTable::default(),
            lanes: Lanes::default(),
            generations: Arc::default(),
            changing: async_lock::Mutex::new(()),
            tracker: ArcSwapOption::empty(),
            reports: Arc::default(),
        }
    }

    /// Why every write is refused now; `None` in health. While an intent of an atomic write could not be removed, it may
    /// still be written in place: nobody may be told that its sender is fenced.
    pub fn writes_refused(&self) -> Option<Arc<String>> {
        self.refuse_writes.load_full()
    }

    /// Identity of the volume.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The record as last committed (name, LUN, NAA, serial, persist, grants, extents).
    pub fn record(&self) -> Arc<VolumeRecord> {
        self.record.load_full()
    }

    /// Logical unit number, 0 to 16383.
    pub fn lun(&self) -> u16 {
        self.lun
    }

    /// Logical block size.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Size of the public region in bytes, now; grow changes it.
    pub fn size_bytes(&self) -> u64 {
        self.record.load().size_bytes
    }

    /// What `initiator` is granted, now.
    pub fn access_of(&self, initiator: &str) -> Access {
        self.record.load().access_of(initiator)
    }

    /// The map of the volume, now; also of one that is not served.
    pub fn map(&self) -> Arc<Map> {
        self.map.load_full()
    }

    /// Why the volume is not served (a device missing, a private region that cannot be trusted), or `None` when it is.
    pub fn fault(&self) -> Option<String> {
        self.fault.clone()
    }

    /// The private region.
    ///
    /// # Errors
    /// [`VolumeError::NotServed`] when it could not be read with quorum and validated.
    pub fn private_region(&self) -> Result<&PrivateRegion<D>, VolumeError> {
        self.private_region
            .as_ref()
            .ok_or_else(|| self.not_served())
    }

    fn not_served(&self) -> VolumeError {
        VolumeError::NotServed {
            volume: self.record.load().name.clone(),
            reason: match &self.fault {
                Some(fault) => fault.clone(),
                None => "it was deleted".into(),
            },
        }
    }

    /// Held while an operation runs: a layout that was replaced lives as long as somebody uses it.
    fn layout(&self) -> Result<LayoutGuard<D>, VolumeError> {
        let guard = self.layout.load();
        if guard.is_none() {
            return Err(self.not_served());
        }
        Ok(LayoutGuard(guard))
    }

    fn writable(&self) -> Result<LayoutGuard<D>, VolumeError> {
        if let Some(reason) = &*self.refuse_writes.load() {
            return Err(VolumeError::WritesRefused {
                volume: self.record.load().name.clone(),
                reason: reason.to_string(),
            });
        }
        self.layout()
    }

    /// Fills `buf` (its whole length) from `offset_bytes`.
    ///
    /// # Errors
    /// [`VolumeError`]; a buffer of the same length comes back in any case, its content undefined after an error.
    pub async fn read(
        &self,
        offset_bytes: u64,
        buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut) {
        if self.is_undecided.load(Ordering::Acquire)
            && let Err(error) = self.check_decided(offset_bytes, buf.len() as u64)
        {
            return (Err(error), buf);
        }
        match self.layout() {
            Ok(layout) if layout.tracker.is_none() => {
                layout.read(layout.only(), offset_bytes, buf).await
            }
            Ok(layout) => self.mirror_read(layout, offset_bytes, buf).await,
            Err(error) => (Err(error), buf),
        }
    }

    /// Writes all of `data` at `offset_bytes`. Durable after a later [`Volume::flush`].
    ///
    /// # Errors
    /// [`VolumeError`]; the range is undefined (old, new, or a mixture in units of 512 bytes) after an error.
    pub async fn write(&self, offset_bytes: u64, data: Bytes) -> Result<(), VolumeError> {
        let layout = self.writable()?;
        if layout.tracker.is_none() {
            return layout.write_only(&self.table, offset_bytes, data).await;
        }
        let change = Change::Data(data);
        self.mirror_write(layout, offset_bytes, change).await
    }

    /// Writes all of `data` (at most [`MAX_ATOMIC_BYTES`]) so that after a power cut at any moment the range holds all
    /// of it or none of it; durable when it returns (WRITE ATOMIC (16), SBC-4 5.48). Atomic against concurrent
    /// *writes and reads* only as far as the caller excludes them.
    ///
    /// # Errors
    /// [`VolumeError`]. When the intent cannot be removed again, all later writes are refused until the keeper has done it,
    /// or the pool is opened again: replaying the intent would undo them.
    pub async fn write_atomic(&self, offset_bytes: u64, data: Bytes) -> Result<(), VolumeError> {
        let length_bytes = data.len() as u64;
        if length_bytes > MAX_ATOMIC_BYTES {
            return Err(VolumeError::AtomicTooLong {
                length_bytes,
                max_bytes: MAX_ATOMIC_BYTES,
            });
        }
        let layout = self.writable()?;
        if data.is_empty() {
            return layout
                .map
                .translate(layout.only(), offset_bytes, 0)
                .map(|_| ());
        }
        if layout.tracker.is_none() {
            return self.atomic_write_only(layout, offset_bytes, data).await;
        }
        self.mirror_write_atomic(layout, offset_bytes, data).await
    }

    /// Makes every write that completed before this call durable. Concurrent callers share device flushes.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn flush(&self) -> Result<(), VolumeError> {
        let layout = self.layout()?;
        if layout.tracker.is_none() {
            return layout.flush(layout.only()).await;
        }
        self.mirror_flush(layout).await
    }

    /// Makes the range read as zeroes; with `deallocate` gives its space back to the devices where they can.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> Result<(), VolumeError> {
        let layout = self.writable()?;
        if layout.tracker.is_none() {
            return layout
                .zero_only(&self.table, offset_bytes, length_bytes, deallocate)
                .await;
        }
        let change = Change::Zeroes {
            length_bytes,
            deallocate,
        };
        self.mirror_write(layout, offset_bytes, change).await
    }

    /// Whether the range starting at `offset_bytes` is allocated, and for how many bytes (1 to `length_bytes`) that
    /// holds.
    ///
    /// # Errors
    /// [`VolumeError`]; `length_bytes` 0 is out of bounds.
    pub async fn allocation(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Allocation, VolumeError> {
        let layout = self.layout()?;
        if layout.tracker.is_none() {
            return layout
                .allocation(layout.only(), offset_bytes, length_bytes)
                .await;
        }
        self.mirror_allocation(layout, offset_bytes, length_bytes)
            .await
    }
}

#[cfg(test)]
mod tests;
