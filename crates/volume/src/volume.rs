//! A volume: its identity, its data path and its private region.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::block_device::{Allocation, BlockDevice};
use crate::config::{Access, BlockSize, VolumeRecord};
use crate::error::VolumeError;
use crate::private_region::PrivateRegion;
use crate::translate::Map;

/// The longest atomic write in bytes (MAXIMUM ATOMIC TRANSFER LENGTH of the Block Limits VPD page, SBC-4 6.6.4, in
/// bytes).
pub const MAX_ATOMIC_BYTES: u64 = 128 * 1024;

/// A volume of an open pool. Shared by all reactors.
pub struct Volume<D> {
    _device: std::marker::PhantomData<fn() -> D>,
}

impl<D: BlockDevice> Volume<D> {
    /// Identity of the volume.
    pub fn uuid(&self) -> Uuid {
        unimplemented!()
    }

    /// The record as last committed (name, LUN, NAA, serial, persist, grants, extents).
    pub fn record(&self) -> Arc<VolumeRecord> {
        unimplemented!()
    }

    /// Logical unit number, 0 to 16383.
    pub fn lun(&self) -> u16 {
        unimplemented!()
    }

    /// Logical block size.
    pub fn block_size(&self) -> BlockSize {
        unimplemented!()
    }

    /// Size of the public region in bytes, now; grow changes it.
    pub fn size_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// What `initiator` is granted, now.
    pub fn access_of(&self, initiator: &str) -> Access {
        self.record().access_of(initiator)
    }

    /// The map of the volume, now.
    pub fn map(&self) -> Arc<Map> {
        unimplemented!()
    }

    /// Why the volume is not served (a device missing, a private region that cannot be trusted), or `None` when it is.
    pub fn fault(&self) -> Option<String> {
        unimplemented!()
    }

    /// The private region.
    ///
    /// # Errors
    /// [`VolumeError::NotServed`] when it could not be read with quorum and validated.
    pub fn private_region(&self) -> Result<&PrivateRegion<D>, VolumeError> {
        unimplemented!()
    }

    /// Fills `buf` (its whole length) from `offset_bytes`.
    ///
    /// # Errors
    /// [`VolumeError`]; the buffer comes back in any case, its content undefined after an error.
    pub async fn read(
        &self,
        _offset_bytes: u64,
        _buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut) {
        unimplemented!()
    }

    /// Writes all of `data` at `offset_bytes`. Durable after a later [`Volume::flush`].
    ///
    /// # Errors
    /// [`VolumeError`]; the range is undefined (old, new, or a mixture in units of 512 bytes) after an error.
    pub async fn write(&self, _offset_bytes: u64, _data: Bytes) -> Result<(), VolumeError> {
        unimplemented!()
    }

    /// Writes all of `data` (at most [`MAX_ATOMIC_BYTES`]) so that after a power cut at any moment the range holds all
    /// of it or none of it; durable when it returns (WRITE ATOMIC (16), SBC-4 5.48). Atomic against concurrent
    /// *writes and reads* only as far as the caller excludes them.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn write_atomic(&self, _offset_bytes: u64, _data: Bytes) -> Result<(), VolumeError> {
        unimplemented!()
    }

    /// Makes every write that completed before this call durable. Concurrent callers share device flushes.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn flush(&self) -> Result<(), VolumeError> {
        unimplemented!()
    }

    /// Makes the range read as zeroes; with `deallocate` gives its space back to the devices where they can.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn write_zeroes(
        &self,
        _offset_bytes: u64,
        _length_bytes: u64,
        _deallocate: bool,
    ) -> Result<(), VolumeError> {
        unimplemented!()
    }

    /// Whether the range starting at `offset_bytes` is allocated, and for how many bytes (1 to `length_bytes`) that
    /// holds.
    ///
    /// # Errors
    /// [`VolumeError`]; `length_bytes` 0 is out of bounds.
    pub async fn allocation(
        &self,
        _offset_bytes: u64,
        _length_bytes: u64,
    ) -> Result<Allocation, VolumeError> {
        unimplemented!()
    }
}
