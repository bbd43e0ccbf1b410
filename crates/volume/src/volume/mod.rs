//! A volume: its identity, its data path and its private region.

pub mod atomic_write;
mod io;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::block_device::{Allocation, BlockDevice};
use crate::config::{Access, BlockSize, VolumeRecord};
use crate::device::Device;
use crate::error::VolumeError;
use crate::private_region::PrivateRegion;
use crate::range_lock::RangeLock;
use crate::translate::{Map, Region};
use atomic_write::{Intent, Lanes};

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

/// The addresses of a volume and the devices they lead to; replaced as a whole.
pub(crate) struct Layout<D> {
    pub(crate) map: Arc<Map>,
    /// By [`crate::translate::DeviceRange::device_index`].
    pub(crate) devices: Vec<Arc<Device<D>>>,
    /// Some device needs a coarser alignment than the volume's logical blocks have.
    pub(crate) read_modify_write: bool,
}

/// A layout in use, without touching its reference count in the common case.
struct LayoutGuard<D>(arc_swap::Guard<Option<Arc<Layout<D>>>>);

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
    /// Why writes are refused: an intent that could not be removed, or the volume is deleted.
    refuse_writes: ArcSwapOption<String>,
    /// Taken by writers of a volume with [`Layout::read_modify_write`] only.
    blocks: RangeLock,
    lanes: Lanes,
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

    fn with_layout(self, layout: Layout<D>) -> Volume<D> {
        self.layout.store(Some(Arc::new(layout)));
        self
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
            blocks: RangeLock::default(),
            lanes: Lanes::default(),
        }
    }

    /// Puts a committed record and the layout made from it in place.
    pub(crate) fn adopt(&self, record: VolumeRecord, layout: Option<Layout<D>>) {
        if let Some(layout) = layout {
            self.map.store(layout.map.clone());
            self.layout.store(Some(Arc::new(layout)));
        }
        self.record.store(Arc::new(record));
    }

    /// Ends the I/O of a deleted volume: what comes later fails, what is in flight is waited for.
    pub(crate) async fn close(&self) {
        self.refuse_writes
            .store(Some(Arc::new("the volume was deleted".into())));
        if let Some(layout) = self.layout.swap(None) {
            while Arc::strong_count(&layout) > 1 {
                futures_lite::future::yield_now().await;
            }
        }
    }

    /// Why every write is refused until the pool is opened again; `None` in health. While an intent of an atomic write
    /// could not be removed, opening may still write it in place: nobody may be told that its sender is fenced.
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
    /// [`VolumeError`]; the buffer comes back in any case, its content undefined after an error.
    pub async fn read(
        &self,
        offset_bytes: u64,
        buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut) {
        match self.layout() {
            Ok(layout) => {
                layout
                    .read(Region::Public { plex: 0 }, offset_bytes, buf)
                    .await
            }
            Err(error) => (Err(error), buf),
        }
    }

    /// Writes all of `data` at `offset_bytes`. Durable after a later [`Volume::flush`].
    ///
    /// # Errors
    /// [`VolumeError`]; the range is undefined (old, new, or a mixture in units of 512 bytes) after an error.
    pub async fn write(&self, offset_bytes: u64, data: Bytes) -> Result<(), VolumeError> {
        let layout = self.writable()?;
        layout.write_public(&self.blocks, offset_bytes, data).await
    }

    /// Writes all of `data` (at most [`MAX_ATOMIC_BYTES`]) so that after a power cut at any moment the range holds all
    /// of it or none of it; durable when it returns (WRITE ATOMIC (16), SBC-4 5.48). Atomic against concurrent
    /// *writes and reads* only as far as the caller excludes them.
    ///
    /// # Errors
    /// [`VolumeError`]. When the intent cannot be removed again, all later writes are refused until the pool is opened
    /// again: replaying the intent then would undo them.
    pub async fn write_atomic(&self, offset_bytes: u64, data: Bytes) -> Result<(), VolumeError> {
        let layout = self.writable()?;
        let length_bytes = data.len() as u64;
        if length_bytes > MAX_ATOMIC_BYTES {
            return Err(VolumeError::AtomicTooLong {
                length_bytes,
                max_bytes: MAX_ATOMIC_BYTES,
            });
        }
        layout
            .map
            .translate(Region::Public { plex: 0 }, offset_bytes, length_bytes)?;
        if data.is_empty() {
            return Ok(());
        }
        let lane = self.lanes.take().await;
        let intent = Intent {
            offset_bytes,
            data: data.clone(),
        };
        // From the first byte of the intent until it is gone, giving up (a dropped future too) leaves it behind.
        let mut pending = PendingIntent {
            volume: self,
            done: false,
        };
        let lane_offset = lane.offset_bytes();
        let record = intent.encode(self.uuid);
        let written = async {
            layout
                .write(Region::Log { plex: 0 }, lane_offset, record)
                .await?;
            layout.flush(Region::Log { plex: 0 }).await?;
            layout
                .write_public(&self.blocks, offset_bytes, data)
                .await?;
            layout.flush(Region::Public { plex: 0 }).await
        }
        .await;
        layout.erase_intent(lane_offset).await?;
        pending.done = true;
        written
    }

    /// Writes in place again what a crash left in the intent area. Called before the volume is served.
    pub(crate) async fn replay_intents(&self) -> Result<u32, VolumeError> {
        let layout = self.layout()?;
        layout.replay_intents(self.uuid, &self.blocks).await
    }

    /// Makes every write that completed before this call durable. Concurrent callers share device flushes.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn flush(&self) -> Result<(), VolumeError> {
        self.layout()?.flush(Region::Public { plex: 0 }).await
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
        layout
            .write_zeroes(&self.blocks, offset_bytes, length_bytes, deallocate)
            .await
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
        layout.allocation(offset_bytes, length_bytes).await
    }
}

/// Refuses writes when it is dropped before the intent is gone.
struct PendingIntent<'a, D: BlockDevice> {
    volume: &'a Volume<D>,
    done: bool,
}

impl<D: BlockDevice> Drop for PendingIntent<'_, D> {
    fn drop(&mut self) {
        if !self.done {
            let reason = "the intent of an atomic write could not be removed";
            self.volume
                .refuse_writes
                .store(Some(Arc::new(reason.into())));
        }
    }
}

#[cfg(test)]
mod tests;
