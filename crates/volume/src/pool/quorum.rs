//! Quorum regions: a page store with one replica on a device of the pool, for what a quorum device must not forget.
//!
//! A region is an extent of a document (of a fence domain). Losing its device makes these calls fail, and nothing else
//! does. It is opened for each call: its device may be opened anew or brought back in between.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use uuid::Uuid;

use super::{Inner, Pool, PoolError};
use crate::allocator::PRIVATE_UNIT_BYTES;
use crate::block_device::BlockDevice;
use crate::config::Extent;
use crate::device::Device;
use crate::error::VolumeError;
use crate::page_store::{
    Identity, PAGE_BYTES, PageChange, PageStore, RECORD_BYTES, Replica, StoreError,
};

/// How long the device is waited for. A write that was given up may still land.
pub const QUORUM_LIMIT: Duration = Duration::from_secs(3);

/// Most bytes of the content.
pub const QUORUM_MAX_BYTES: usize = 32 << 10;

/// Length of a region in bytes.
const REGION_BYTES: u64 = 2 * PRIVATE_UNIT_BYTES;

pub(crate) const OFFSET_LENGTH: usize = 0;
pub(crate) const OFFSET_CONTENT: usize = 8;

/// Why a quorum region could not be read or written.
#[derive(Debug, Error)]
pub enum QuorumError {
    /// The document is not there or has no region.
    #[error("there is no quorum region of {0}")]
    NoRegion(Uuid),
    /// Its device cannot be used.
    #[error(transparent)]
    Device(#[from] PoolError),
    /// Its device failed or did not answer in time. What was being written may still be found later.
    #[error("quorum region: {0}")]
    Io(#[from] VolumeError),
    /// Its content is not there as it was written.
    #[error("quorum region: {0}")]
    Store(#[from] StoreError),
    /// More than it holds.
    #[error("a quorum region holds {QUORUM_MAX_BYTES} bytes, not {0}")]
    TooLong(usize),
    /// What is there was not written by this program.
    #[error("the content of the quorum region cannot be")]
    Impossible,
}

fn identity(document: Uuid) -> Identity {
    Identity {
        store: document,
        kind: *b"QUOR",
    }
}

impl<D: BlockDevice> Pool<D> {
    /// Takes the space of a quorum region on a device of any role, and makes an empty region there, durably.
    /// [`Pool::put_document`] with the extent makes it the document's; until then it is forgotten by a restart. Again for
    /// the same document, it gives the space back that was taken before.
    ///
    /// # Errors
    /// [`PoolError`]; no space is taken then.
    pub async fn reserve_quorum_region(
        &self,
        device: &str,
        document: Uuid,
    ) -> Result<Extent, PoolError> {
        let _quorum = self.quorum.lock().await;
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        if let Some(before) = inner.quorum_regions.remove(&document) {
            before.freed();
        }
        let uuids = inner.named(&[device.to_owned()], None)?;
        // One name gives one device.
        let uuid = uuids.first().copied().ok_or(PoolError::NoDevice)?;
        let mut taking = inner.space.take();
        let config = inner.config()?;
        let Some(extent) = taking.private(config, uuid, REGION_BYTES)? else {
            let free = inner.space.free_bytes(config)?;
            return Err(PoolError::NoSpace {
                what: "the quorum region",
                needed_bytes: REGION_BYTES,
                places: super::space::places(config, &free, &[uuid]),
            });
        };
        let reserved = taking.finish();
        let replica = inner.replica(extent)?;
        drop(inner);
        let device = replica.device.clone();
        let format = PageStore::format(identity(document), vec![replica], [0; RECORD_BYTES]);
        let formatted = device.in_time(QUORUM_LIMIT, "write", format).await;
        if let Err(error) = formatted.map_err(PoolError::from).and_then(|formatted| {
            formatted
                .map(drop)
                .map_err(|error| PoolError::QuorumRegion {
                    device: device.name().to_owned(),
                    problem: error.to_string(),
                })
        }) {
            reserved.freed();
            return Err(error);
        }
        let mut inner = self.inner.lock().await;
        inner.quorum_regions.insert(document, reserved);
        Ok(extent)
    }

    /// Gives the space back that was taken for a document and did not become its own.
    pub async fn release_quorum_region(&self, document: Uuid) {
        let mut inner = self.inner.lock().await;
        if let Some(reserved) = inner.quorum_regions.remove(&document) {
            reserved.freed();
        }
    }

    /// The content of the quorum region of a document; empty when nothing was ever written.
    ///
    /// # Errors
    /// [`QuorumError`], after at most [`QUORUM_LIMIT`] of waiting for the device.
    pub async fn quorum_read(&self, document: Uuid) -> Result<Vec<u8>, QuorumError> {
        let _quorum = self.quorum.lock().await;
        let (replica, device) = self.quorum_replica(document).await?;
        let read = async {
            let store = PageStore::open(identity(document), vec![replica], false).await?;
            content(&store).await
        };
        device.in_time(QUORUM_LIMIT, "read", read).await?
    }

    /// Writes the content of the quorum region of a document, at most [`QUORUM_MAX_BYTES`]; durable at `Ok`.
    ///
    /// # Errors
    /// [`QuorumError`], after at most [`QUORUM_LIMIT`] of waiting for the device. Where the device failed or did not answer,
    /// either content may be found later: it is to be read before it is relied on.
    pub async fn quorum_write(&self, document: Uuid, content: &[u8]) -> Result<(), QuorumError> {
        if content.len() > QUORUM_MAX_BYTES {
            return Err(QuorumError::TooLong(content.len()));
        }
        let pages = encode(content);
        let _quorum = self.quorum.lock().await;
        let (replica, device) = self.quorum_replica(document).await?;
        let write = async {
            let mut store = PageStore::open(identity(document), vec![replica], false).await?;
            let count = pages.len() as u32;
            let gone: Vec<u32> = store.used_pages().filter(|page| *page >= count).collect();
            let written = (0..count).zip(pages.into_iter().map(PageChange::Write));
            let freed = gone.into_iter().map(|page| (page, PageChange::Free));
            let changes = written.chain(freed).collect();
            store.commit([0; RECORD_BYTES], changes).await?;
            Ok(())
        };
        device.in_time(QUORUM_LIMIT, "write", write).await?
    }

    async fn quorum_replica(
        &self,
        document: Uuid,
    ) -> Result<(Replica<D>, Arc<Device<D>>), QuorumError> {
        let inner = self.inner.lock().await;
        let config = inner.config()?;
        let record = config.documents.get(&document);
        let extent = record.and_then(|record| record.extents.first());
        let extent = *extent.ok_or(QuorumError::NoRegion(document))?;
        // Not while a write that was given up may land over what is read or written now.
        inner.check_usable(extent.device)?;
        let replica = inner.replica(extent)?;
        let device = replica.device.clone();
        Ok((replica, device))
    }
}

impl<D: BlockDevice> Inner<D> {
    fn replica(&self, extent: Extent) -> Result<Replica<D>, PoolError> {
        let device = self.devices.get(&extent.device);
        Ok(Replica {
            uuid: extent.device,
            device: device.cloned().ok_or(PoolError::NoDevice)?,
            offset_bytes: extent.offset_bytes,
            length_bytes: extent.length_bytes,
        })
    }
}

async fn content<D: BlockDevice>(store: &PageStore<D>) -> Result<Vec<u8>, QuorumError> {
    let used: Vec<u32> = store.used_pages().collect();
    if used.is_empty() {
        return Ok(Vec::new());
    }
    let pages = store.read_pages(&used).await?;
    decode(&pages.concat()).ok_or(QuorumError::Impossible)
}

/// The pages of a content.
fn encode(content: &[u8]) -> Vec<Bytes> {
    let mut bytes = vec![0; (OFFSET_CONTENT + content.len()).next_multiple_of(PAGE_BYTES as usize)];
    // At most QUORUM_MAX_BYTES.
    let length = (content.len() as u32).to_le_bytes();
    bytes[OFFSET_LENGTH..OFFSET_LENGTH + 4].copy_from_slice(&length);
    bytes[OFFSET_CONTENT..OFFSET_CONTENT + content.len()].copy_from_slice(content);
    let pages = bytes.chunks(PAGE_BYTES as usize);
    pages.map(Bytes::copy_from_slice).collect()
}

fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = bytes.get(OFFSET_LENGTH..OFFSET_LENGTH + 4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    let content = bytes.get(OFFSET_CONTENT..)?.get(..length)?;
    (length <= QUORUM_MAX_BYTES).then(|| content.to_vec())
}
