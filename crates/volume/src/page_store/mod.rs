//! The page store: pages of 4 KiB that change together, atomically, on several replicas.
//!
//! Invariants, in the words of `docs/on-disk-format.md`:
//! - The current copy of a page and the current header are never written over by a commit: it writes the other copies,
//!   makes them durable, and only then writes the header that makes them current.
//! - A commit is acknowledged only when its header is durable on a majority of the members.
//! - A replica that missed a write is out until it is repaired; it is never counted meanwhile.
//! - A replica with a write of ours that was given up is not written as long as that write may still land.
//! - After a commit whose outcome is unknown nothing more is committed until the store has been opened again.

mod commit;
mod geometry;
pub mod header;
mod members;
mod open;
mod repair;
mod replica;
pub mod verdict;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use uuid::Uuid;

pub use geometry::{Geometry, PAGE_BYTES};
pub use header::{Header, Identity, MAX_MEMBERS, RECORD_BYTES};
pub use members::Beginning;
pub use open::{Inspection, inspect};
pub(crate) use open::{read_version, refusal};
pub use repair::Finding;
pub use replica::{QUORUM_PATIENCE, READ_PATIENCE, REPAIR_PATIENCE, STRAGGLER_PATIENCE};
pub use verdict::{HeaderRead, Verdict};

use crate::block_device::{BlockDevice, aligned_buffer};
use crate::device::Device;
use crate::error::VolumeError;
use header::Content;
use replica::ReplicaState;

/// Where a replica is.
pub struct Replica<D> {
    /// Identity of the replica; stored in its headers.
    pub uuid: Uuid,
    /// The device.
    pub device: Arc<Device<D>>,
    /// First byte of its area; a multiple of 4096.
    pub offset_bytes: u64,
    /// Length of its area in bytes.
    pub length_bytes: u64,
}

impl<D> Clone for Replica<D> {
    fn clone(&self) -> Self {
        Replica {
            uuid: self.uuid,
            device: self.device.clone(),
            offset_bytes: self.offset_bytes,
            length_bytes: self.length_bytes,
        }
    }
}

/// Why a page store could not be opened, read or committed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A device failed where no majority could make up for it.
    #[error(transparent)]
    Device(#[from] VolumeError),
    /// Too few replicas.
    #[error("only {valid} of {of} copies could be read and {need} are needed ({detail})")]
    LostQuorum {
        /// Replicas with a valid header.
        valid: usize,
        /// Replicas needed.
        need: usize,
        /// Replicas in all.
        of: usize,
        /// Each replica and what it said.
        detail: String,
    },
    /// Replicas that no crash can have made disagree.
    #[error("the copies disagree in a way that no crash explains: {detail}")]
    Fork {
        /// Each replica and what it said.
        detail: String,
    },
    /// The area belongs to something else.
    #[error("the area belongs to {uuid}")]
    Foreign {
        /// Whose it is.
        uuid: Uuid,
    },
    /// Written by a later version.
    #[error("format version {version} is not known to this program")]
    Unsupported {
        /// The version.
        version: u32,
    },
    /// No copy of the header is whole.
    #[error("no copy of the header is whole ({detail})")]
    Torn {
        /// Each replica and what it said.
        detail: String,
    },
    /// Nothing was ever written.
    #[error("the area is empty")]
    Empty,
    /// No replica has a page as the header describes it.
    #[error("page {page} does not match its checksum on any copy")]
    PageDamaged {
        /// The page.
        page: u32,
    },
    /// More pages than fit.
    #[error("{needed} pages are needed and {capacity} fit")]
    Full {
        /// Pages needed.
        needed: u64,
        /// Pages that fit into the smallest replica.
        capacity: u32,
    },
    /// An area too small for any page.
    #[error("an area of {length_bytes} bytes is too small")]
    AreaTooSmall {
        /// Its length.
        length_bytes: u64,
    },
    /// A commit reached too few replicas; nothing of it is current anywhere.
    #[error(
        "only {written} of the {need} copies needed could be written; nothing was changed ({detail})"
    )]
    NotCommitted {
        /// Replicas written.
        written: usize,
        /// Replicas needed.
        need: usize,
        /// Anything was written at all.
        tried: bool,
        /// Who failed, and why.
        detail: String,
    },
    /// A replica to which nothing may be written now.
    #[error("the replica on device {device} cannot be repaired now: {why}")]
    NotRepairable {
        /// Its device's name.
        device: String,
        /// Why.
        why: String,
    },
    /// The last replica cannot be removed.
    #[error("it is the last replica")]
    LastMember,
    /// A commit reached some replicas but not enough; it may or may not be found later.
    #[error(
        "the outcome of a commit is not known: {detail}; it must be settled by opening the store again"
    )]
    Unsettled {
        /// Who failed, and why.
        detail: String,
    },
}

/// Whether a replica takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaHealth {
    /// It has every commit.
    Current,
    /// It missed something, and why; it is not written until it is repaired.
    Stale(String),
}

/// A member of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Identity of the replica.
    pub uuid: Uuid,
    /// Its device; `None` when that is not there.
    pub device: Option<Uuid>,
    /// The device's name; empty when it is not there.
    pub device_name: String,
    /// Whether it takes part.
    pub health: ReplicaHealth,
    /// Sequence of the last commit that it is known to have.
    pub sequence: Option<u64>,
}

/// An open page store. Its user serializes commits.
pub struct PageStore<D> {
    identity: Identity,
    replicas: Vec<ReplicaState<D>>,
    content: Content,
    /// Identity of this opening.
    writer: Uuid,
    /// The highest claim seen on any replica.
    highest_claim: u64,
    /// This opening has claimed `content.epoch` or will with its next commit.
    claimed: bool,
    /// Why nothing can be committed until the store has been opened again.
    unsettled: Option<String>,
    /// How long to wait for a majority that hangs; an opening does not wait without end.
    limit: Option<Duration>,
}

/// A change of one page.
#[derive(Clone, Debug)]
pub enum PageChange {
    /// New content, exactly [`PAGE_BYTES`] long.
    Write(Bytes),
    /// The page holds nothing any more.
    Free,
}

impl<D: BlockDevice> PageStore<D> {
    /// Pages that every replica can hold.
    pub fn capacity_pages(&self) -> u32 {
        self.replicas
            .iter()
            .map(|state| state.geometry.capacity_pages)
            .min()
            .unwrap_or(0)
    }

    /// Number of the last commit.
    pub fn sequence(&self) -> u64 {
        self.content.sequence
    }

    /// The commit record.
    pub fn record(&self) -> &[u8; RECORD_BYTES] {
        &self.content.record
    }

    /// Identities of the replicas whose majority makes a commit durable.
    pub fn members(&self) -> &[Uuid] {
        &self.content.members
    }

    /// Pages that hold something, ascending.
    pub fn used_pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.content.used_pages()
    }

    /// Pages that hold nothing, ascending, without end: a commit refuses those beyond the capacity.
    pub fn free_pages(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).filter(|page| {
            self.content
                .pages
                .get(*page as usize)
                .is_none_or(|entry| !entry.used)
        })
    }

    /// Each reachable replica and whether it takes part.
    pub fn replicas(&self) -> impl Iterator<Item = (&Replica<D>, &ReplicaHealth)> {
        self.replicas
            .iter()
            .map(|state| (&state.replica, &state.health))
    }

    /// Every member, in the order of the list, and whether it takes part.
    pub fn health(&self) -> Vec<ReplicaInfo> {
        let members = self.content.members.iter();
        members
            .map(|uuid| {
                let state = self.replicas.iter().find(|state| state.uuid() == *uuid);
                match state {
                    Some(state) => ReplicaInfo {
                        uuid: *uuid,
                        device: Some(state.replica.device.uuid()),
                        device_name: state.replica.device.name().to_owned(),
                        health: state.health.clone(),
                        sequence: state.sequence,
                    },
                    None => ReplicaInfo {
                        uuid: *uuid,
                        device: None,
                        device_name: String::new(),
                        health: ReplicaHealth::Stale("its device is not there".into()),
                        sequence: None,
                    },
                }
            })
            .collect()
    }

    /// From now on a commit waits for a majority that hangs for at most `limit`; without, it waits without end. After the
    /// limit the outcome is not known.
    pub fn limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// True after a commit whose outcome is not known.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.is_some()
    }

    /// Reads pages, each verified against the header.
    ///
    /// # Errors
    /// [`StoreError::PageDamaged`] when no replica has it.
    pub async fn read_pages(&self, pages: &[u32]) -> Result<Vec<Bytes>, StoreError> {
        // Those that are current first: the others are asked for what is damaged there.
        let (current, others): (Vec<_>, Vec<_>) =
            self.replicas.iter().partition(|state| state.is_current());
        let replicas: Vec<(&Replica<D>, Geometry)> = current
            .into_iter()
            .chain(others)
            .map(|state| (&state.replica, state.geometry))
            .collect();
        read_pages(&replicas, &self.content, pages).await
    }
}

impl Content {
    /// Pages that hold something, ascending.
    pub fn used_pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.pages
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.used)
            .map(|(page, _)| page as u32)
    }
}

/// Pages read in one go at most.
const READ_AHEAD_PAGES: u32 = 128;

/// Reads `pages` (ascending, all used in `content`) from the first replica that has each as `content` describes it.
async fn read_pages<D: BlockDevice>(
    replicas: &[(&Replica<D>, Geometry)],
    content: &Content,
    pages: &[u32],
) -> Result<Vec<Bytes>, StoreError> {
    let mut out = Vec::with_capacity(pages.len());
    let mut rest = pages;
    while let Some(&first) = rest.first() {
        let count = rest
            .iter()
            .take_while(|page| **page - first < READ_AHEAD_PAGES)
            .count();
        let (run, later) = rest.split_at(count);
        let last = run.last().copied().unwrap_or(first);
        let mut found: Vec<Option<Bytes>> = vec![None; run.len()];
        for (replica, geometry) in replicas {
            if last >= geometry.capacity_pages || found.iter().all(Option::is_some) {
                continue;
            }
            let start = geometry.page_offset_bytes(first, 0);
            let end = geometry.page_offset_bytes(last, 1) + PAGE_BYTES;
            let buf = aligned_buffer((end - start) as usize);
            let device = &replica.device;
            let reading = device.read(replica.offset_bytes + start, buf);
            let buf = match device.in_time(READ_PATIENCE, "read", reading).await {
                Ok((Ok(()), buf)) => buf,
                Ok((Err(error), _)) | Err(error) => {
                    tracing::warn!(%error, "a copy could not be read; trying the next");
                    continue;
                }
            };
            for (slot, &page) in found.iter_mut().zip(run) {
                let Some(entry) = content.pages.get(page as usize) else {
                    continue;
                };
                let at = (geometry.page_offset_bytes(page, entry.copy) - start) as usize;
                let bytes = &buf[at..at + PAGE_BYTES as usize];
                if slot.is_none() && crc32c::crc32c(bytes) == entry.crc32c {
                    *slot = Some(Bytes::copy_from_slice(bytes));
                }
            }
        }
        for (slot, &page) in found.into_iter().zip(run) {
            out.push(slot.ok_or(StoreError::PageDamaged { page })?);
        }
        rest = later;
    }
    Ok(out)
}

/// `bytes` at the start of a zeroed, aligned buffer of whole pages.
fn to_pages(bytes: &[u8]) -> Bytes {
    let mut buf: BytesMut = aligned_buffer(bytes.len().next_multiple_of(PAGE_BYTES as usize));
    buf[..bytes.len()].copy_from_slice(bytes);
    buf.freeze()
}

#[cfg(test)]
mod tests;
