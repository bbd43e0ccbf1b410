//! One replica as an open store sees it, and writing to it.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::header::{Content, Header};
use super::{Geometry, Identity, PAGE_BYTES, Replica, ReplicaHealth, StoreError, to_pages};
use crate::block_device::BlockDevice;
use crate::error::VolumeError;
use crate::join::{boxed, join_all};

/// How long a commit that is durable on a majority waits for the other replicas, on their devices' clock.
pub const STRAGGLER_PATIENCE: Duration = Duration::from_secs(1);

/// How long an opening that has what a majority says waits for the other replicas.
pub const READ_PATIENCE: Duration = Duration::from_secs(5);

/// How long an opening waits for a majority; then the quorum is lost.
pub const QUORUM_PATIENCE: Duration = Duration::from_secs(30);

/// How long one step of a repair (a batch of pages, a header) may take.
pub const REPAIR_PATIENCE: Duration = Duration::from_secs(2);

/// Pages written together.
const BATCH_PAGES: usize = 64;

/// A page to be written: its number, its copy and its content.
pub(super) type PageWrite = (u32, u8, Bytes);

pub(super) struct ReplicaState<D> {
    pub(super) replica: Replica<D>,
    pub(super) geometry: Geometry,
    pub(super) health: ReplicaHealth,
    /// The header copy that is written next: the one that does not hold the newest header.
    pub(super) next_copy: u8,
    /// The newest valid header, when it is not the current one.
    pub(super) own: Option<Header>,
    /// Sequence of the last commit that it is known to have.
    pub(super) sequence: Option<u64>,
    /// Writes were begun and nobody saw them end: they may still land, over a header too.
    pub(super) writing: bool,
}

impl<D: BlockDevice> ReplicaState<D> {
    pub(super) fn uuid(&self) -> Uuid {
        self.replica.uuid
    }

    pub(super) fn is_current(&self) -> bool {
        self.health == ReplicaHealth::Current
    }

    /// Whether it may be written: no earlier write to it can land any more.
    pub(super) fn is_quiet(&mut self) -> bool {
        if self.writing && self.replica.device.abandoned() == 0 {
            self.writing = false;
        }
        !self.writing
    }

    /// It misses something from now on.
    pub(super) fn missed(&mut self, store: Uuid, why: String) {
        if self.is_current() {
            let device = self.replica.device.name();
            tracing::warn!(%store, device, %why, "a replica is not written any more until it is repaired");
        }
        self.health = ReplicaHealth::Stale(why);
    }

    /// Writes pages and makes them durable.
    pub(super) async fn write_pages(&self, pages: &[PageWrite]) -> Result<(), VolumeError> {
        if pages.is_empty() {
            return Ok(());
        }
        let device = &self.replica.device;
        let incarnation = device.incarnation();
        for batch in pages.chunks(BATCH_PAGES) {
            self.write_batch(batch).await?;
        }
        device.flush_since(incarnation).await
    }

    async fn write_batch(&self, batch: &[PageWrite]) -> Result<(), VolumeError> {
        let results = join_all(batch.iter().map(|(page, copy, data)| {
            let offset = self.replica.offset_bytes + self.geometry.page_offset_bytes(*page, *copy);
            boxed(self.replica.device.write(offset, data.clone()))
        }))
        .await;
        results.into_iter().collect()
    }

    /// Writes the header of `content` to the copy that is next and makes it durable.
    pub(super) async fn write_header(
        &self,
        identity: Identity,
        content: &Content,
        claim: u64,
    ) -> Result<(), VolumeError> {
        let header = Header {
            content: content.clone(),
            claim,
            replica: self.replica.uuid,
        };
        let device = &self.replica.device;
        let incarnation = device.incarnation();
        let offset = self.replica.offset_bytes + self.geometry.header_offset_bytes(self.next_copy);
        let bytes = to_pages(&header.encode(identity));
        device.write(offset, bytes).await?;
        device.flush_since(incarnation).await
    }

    /// Pages, then the header, each step with a limit: for a replica that nobody waits for.
    pub(super) async fn fill(
        &mut self,
        identity: Identity,
        content: &Content,
        claim: u64,
        pages: &[PageWrite],
    ) -> Result<(), VolumeError> {
        self.writing = true;
        let device = &self.replica.device;
        let incarnation = device.incarnation();
        let filled = async {
            for batch in pages.chunks(BATCH_PAGES) {
                device
                    .in_time(REPAIR_PATIENCE, "write", self.write_batch(batch))
                    .await??;
            }
            if !pages.is_empty() {
                let flush = device.flush_since(incarnation);
                device.in_time(REPAIR_PATIENCE, "flush", flush).await??;
            }
            let header = self.write_header(identity, content, claim);
            device.in_time(REPAIR_PATIENCE, "write", header).await?
        };
        let result: Result<(), VolumeError> = filled.await;
        // Given up: it may still land.
        self.writing = result.as_ref().is_err_and(VolumeError::is_hang);
        result?;
        self.next_copy = 1 - self.next_copy;
        self.health = ReplicaHealth::Current;
        self.sequence = Some(content.sequence);
        self.own = None;
        Ok(())
    }
}

pub(super) fn geometry_of<D>(replica: &Replica<D>) -> Result<Geometry, StoreError> {
    Geometry::of(replica.length_bytes).ok_or(StoreError::AreaTooSmall {
        length_bytes: replica.length_bytes,
    })
}

/// Empties both header copies of an area.
pub(super) async fn blank<D: BlockDevice>(
    replica: Replica<D>,
) -> Result<ReplicaState<D>, StoreError> {
    let geometry = geometry_of(&replica)?;
    debug_assert_eq!(replica.offset_bytes % PAGE_BYTES, 0);
    let device = &replica.device;
    let blanked = async {
        let incarnation = device.incarnation();
        device
            .write_zeroes(replica.offset_bytes, 2 * geometry.header_copy_bytes, false)
            .await?;
        device.flush_since(incarnation).await
    };
    device
        .in_time(REPAIR_PATIENCE, "write zeroes", blanked)
        .await??;
    Ok(ReplicaState {
        replica,
        geometry,
        health: ReplicaHealth::Stale("not written yet".into()),
        next_copy: 0,
        own: None,
        sequence: None,
        writing: false,
    })
}
