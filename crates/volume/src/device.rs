//! A device of a pool: a [`BlockDevice`] with its identity, and flushes that many callers share.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::block_device::{Allocation, BlockDevice};
use crate::error::VolumeError;

mod group_flush;

use group_flush::GroupFlush;

/// A device of a pool.
pub struct Device<D> {
    uuid: Uuid,
    name: String,
    path: String,
    inner: Arc<D>,
    flushes: GroupFlush,
}

impl<D: BlockDevice> Device<D> {
    /// Wraps `inner` under its identity in the pool.
    pub fn new(uuid: Uuid, name: String, path: String, inner: Arc<D>) -> Self {
        Device {
            uuid,
            name,
            path,
            inner,
            flushes: GroupFlush::default(),
        }
    }

    /// Identity of the device.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was opened.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The block device below.
    pub fn inner(&self) -> &Arc<D> {
        &self.inner
    }

    /// Alignment in bytes of offsets, lengths and buffer addresses.
    pub fn alignment_bytes(&self) -> usize {
        self.inner.alignment_bytes()
    }

    /// Reads `buf`'s length from `offset_bytes`.
    ///
    /// # Errors
    /// [`VolumeError::Device`].
    pub async fn read(
        &self,
        offset_bytes: u64,
        buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut) {
        let (result, buf) = self.inner.read(offset_bytes, buf).await;
        (result.map_err(|source| self.error("read", source)), buf)
    }

    /// Writes `data` at `offset_bytes`.
    ///
    /// # Errors
    /// [`VolumeError::Device`].
    pub async fn write(&self, offset_bytes: u64, data: Bytes) -> Result<(), VolumeError> {
        self.inner
            .write(offset_bytes, data)
            .await
            .map_err(|source| self.error("write", source))
    }

    /// Makes every write that completed before this call durable. Concurrent callers share one flush of the device,
    /// which starts after all of their calls.
    ///
    /// # Errors
    /// [`VolumeError::Device`]. A device that failed one flush fails all later ones: the kernel reports a lost write
    /// once, and what was lost stays lost.
    pub async fn flush(&self) -> Result<(), VolumeError> {
        self.flushes
            .flush(|| self.inner.flush())
            .await
            .map_err(|source| self.error("flush", source))
    }

    /// Makes the range read as zeroes (see [`BlockDevice::write_zeroes`]).
    ///
    /// # Errors
    /// [`VolumeError::Device`].
    pub async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> Result<(), VolumeError> {
        self.inner
            .write_zeroes(offset_bytes, length_bytes, deallocate)
            .await
            .map_err(|source| self.error("write zeroes", source))
    }

    /// See [`BlockDevice::allocation`].
    ///
    /// # Errors
    /// [`VolumeError::Device`].
    pub async fn allocation(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Allocation, VolumeError> {
        self.inner
            .allocation(offset_bytes, length_bytes)
            .await
            .map_err(|source| self.error("allocation", source))
    }

    fn error(&self, operation: &'static str, source: io::Error) -> VolumeError {
        VolumeError::Device {
            device: self.name.clone(),
            operation,
            source,
        }
    }
}
