//! Reading replicas and opening a store from what they say.

use std::time::Duration;

use uuid::Uuid;

use super::header::{self, Content, HeaderError};
use super::replica::{
    QUORUM_PATIENCE, READ_PATIENCE, ReplicaState, STRAGGLER_PATIENCE, geometry_of,
};
use super::verdict::{HeaderRead, Verdict, verdict};
use super::{
    Geometry, Header, Identity, PAGE_BYTES, PageStore, Replica, ReplicaHealth, StoreError,
    read_pages,
};
use crate::block_device::{BlockDevice, aligned_buffer};
use crate::fresh_uuid::fresh_uuid;
use crate::join::{boxed, join_with_patience};

/// What one replica says, and which of its header copies says it.
pub(super) struct CopyRead {
    pub(super) read: HeaderRead,
    pub(super) copy: u8,
}

/// How long to wait for replicas that do not answer.
#[derive(Clone, Copy)]
pub(super) struct ReadPatience {
    /// With what a majority says in hand.
    pub(super) rest: Duration,
    /// Without.
    pub(super) quorum: Duration,
}

/// Before something is served: a device may have to spin up.
const OPENING: ReadPatience = ReadPatience {
    rest: READ_PATIENCE,
    quorum: QUORUM_PATIENCE,
};

/// While something is served, or somebody waits.
const LOOKING: ReadPatience = ReadPatience {
    rest: STRAGGLER_PATIENCE,
    quorum: READ_PATIENCE,
};

async fn read_copy<D: BlockDevice>(
    replica: &Replica<D>,
    geometry: Geometry,
    identity: Identity,
    copy: u8,
) -> HeaderRead {
    let offset = replica.offset_bytes + geometry.header_offset_bytes(copy);
    let (result, mut buf) = replica
        .device
        .read(offset, aligned_buffer(PAGE_BYTES as usize))
        .await;
    if let Err(error) = result {
        return HeaderRead::Unreadable(error.to_string());
    }
    if let Some(length) = header::announced_bytes(&buf)
        && length > buf.len()
        && length as u64 <= geometry.header_copy_bytes
    {
        let whole = aligned_buffer(length.next_multiple_of(PAGE_BYTES as usize));
        let (result, whole) = replica.device.read(offset, whole).await;
        if let Err(error) = result {
            return HeaderRead::Unreadable(error.to_string());
        }
        buf = whole;
    }
    match Header::decode(&buf, identity, replica.uuid, geometry.capacity_pages) {
        Ok(header) => HeaderRead::Valid(Box::new(header)),
        Err(error) => HeaderRead::Bad(error),
    }
}

/// Reads both header copies of a replica.
pub(super) async fn read_copies<D: BlockDevice>(
    replica: &Replica<D>,
    geometry: Geometry,
    identity: Identity,
) -> [HeaderRead; 2] {
    let first = read_copy(replica, geometry, identity, 0).await;
    let second = read_copy(replica, geometry, identity, 1).await;
    [first, second]
}

/// Reads both header copies of a replica and takes the newer valid one. A copy that cannot be read, or that a later
/// version wrote, might be the newer one: then the replica does not count.
pub(super) async fn read_replica<D: BlockDevice>(
    replica: &Replica<D>,
    geometry: Geometry,
    identity: Identity,
) -> CopyRead {
    let [first, second] = read_copies(replica, geometry, identity).await;
    let take_first = match (&first, &second) {
        (HeaderRead::Unreadable(_), _) => true,
        (_, HeaderRead::Unreadable(_)) => false,
        (HeaderRead::Bad(HeaderError::Unsupported { .. }), _) => true,
        (_, HeaderRead::Bad(HeaderError::Unsupported { .. })) => false,
        (HeaderRead::Valid(a), HeaderRead::Valid(b)) => a.age() >= b.age(),
        (HeaderRead::Valid(_), HeaderRead::Bad(_)) => true,
        (HeaderRead::Bad(_), HeaderRead::Valid(_)) => false,
        // Neither is valid: what says more comes first (an empty copy says nothing).
        (HeaderRead::Bad(HeaderError::Empty), HeaderRead::Bad(_)) => false,
        (HeaderRead::Bad(_), HeaderRead::Bad(_)) => true,
    };
    if take_first {
        CopyRead {
            read: first,
            copy: 0,
        }
    } else {
        CopyRead {
            read: second,
            copy: 1,
        }
    }
}

impl Header {
    /// Orders the headers of one replica.
    fn age(&self) -> (u64, u64, u64) {
        (self.content.epoch, self.content.sequence, self.claim)
    }
}

/// What every replica of a store says, unchanged by looking.
pub struct Inspection {
    /// Per replica, in the order given.
    pub reads: Vec<HeaderRead>,
    /// The verdict on them.
    pub verdict: Verdict,
}

impl Inspection {
    /// The current content, when the verdict has one.
    pub fn content(&self) -> Option<&Content> {
        match &self.verdict {
            Verdict::Current { best, .. } => match &self.reads[*best] {
                HeaderRead::Valid(header) => Some(&header.content),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Reads the headers of all replicas and nothing else. Replicas that do not answer within a few seconds are unreadable.
///
/// # Errors
/// [`StoreError::AreaTooSmall`].
pub async fn inspect<D: BlockDevice>(
    identity: Identity,
    replicas: &[Replica<D>],
) -> Result<Inspection, StoreError> {
    let (reads, verdict) = read_all(identity, replicas, LOOKING).await?;
    Ok(Inspection {
        reads: reads.into_iter().map(|(_, copy)| copy.read).collect(),
        verdict,
    })
}

async fn read_all<D: BlockDevice>(
    identity: Identity,
    replicas: &[Replica<D>],
    patience: ReadPatience,
) -> Result<(Vec<(Geometry, CopyRead)>, Verdict), StoreError> {
    let geometries = replicas
        .iter()
        .map(geometry_of)
        .collect::<Result<Vec<_>, _>>()?;
    let silent = || HeaderRead::Unreadable("no answer".into());
    let Some(clock) = replicas.first().map(|replica| &replica.device) else {
        return Ok((Vec::new(), verdict(&[])));
    };
    let copies = join_with_patience(
        replicas
            .iter()
            .zip(&geometries)
            .map(|(replica, geometry)| boxed(read_replica(replica, *geometry, identity))),
        |copies: &[Option<CopyRead>]| {
            let reads: Vec<HeaderRead> = copies
                .iter()
                .map(|copy| copy.as_ref().map_or_else(silent, |copy| copy.read.clone()))
                .collect();
            Some(match verdict(&reads) {
                Verdict::Current { .. } => patience.rest,
                _ => patience.quorum,
            })
        },
        |duration| clock.sleep(duration),
    )
    .await;
    let copies: Vec<CopyRead> = copies
        .into_iter()
        .zip(replicas)
        .map(|(copy, replica)| {
            copy.unwrap_or_else(|| {
                replica.device.count_hang();
                CopyRead {
                    read: silent(),
                    copy: 0,
                }
            })
        })
        .collect();
    let reads: Vec<HeaderRead> = copies.iter().map(|copy| copy.read.clone()).collect();
    let verdict = verdict(&reads);
    Ok((geometries.into_iter().zip(copies).collect(), verdict))
}

/// Each replica and what it said, for messages.
pub(super) fn detail<D: BlockDevice>(replicas: &[Replica<D>], reads: &[HeaderRead]) -> String {
    let parts: Vec<String> = replicas
        .iter()
        .zip(reads)
        .map(|(replica, read)| {
            let device = replica.device.name();
            match read {
                HeaderRead::Valid(header) => format!(
                    "{device}: sequence {} of epoch {}",
                    header.content.sequence, header.content.epoch
                ),
                HeaderRead::Bad(error) => format!("{device}: {error}"),
                HeaderRead::Unreadable(error) => format!("{device}: {error}"),
            }
        })
        .collect();
    parts.join("; ")
}

/// Why a store cannot be opened from what its replicas say; `None` when it can.
pub(crate) fn refusal<D: BlockDevice>(
    replicas: &[Replica<D>],
    inspection: &Inspection,
) -> Option<StoreError> {
    let detail = || detail(replicas, &inspection.reads);
    Some(match inspection.verdict {
        Verdict::Current { .. } => return None,
        Verdict::LostQuorum { valid, need, of } => StoreError::LostQuorum {
            valid,
            need,
            of,
            detail: detail(),
        },
        Verdict::Fork { .. } => StoreError::Fork { detail: detail() },
        Verdict::Foreign(uuid) => StoreError::Foreign { uuid },
        Verdict::Unsupported(version) => StoreError::Unsupported { version },
        Verdict::Torn => StoreError::Torn { detail: detail() },
        Verdict::Empty => StoreError::Empty,
    })
}

/// The pages of one version, each from any replica that has it as the version describes it.
pub(crate) async fn read_version<D: BlockDevice>(
    replicas: &[Replica<D>],
    content: &Content,
) -> Result<Vec<bytes::Bytes>, StoreError> {
    let places = replicas
        .iter()
        .map(|replica| Ok((replica, geometry_of(replica)?)))
        .collect::<Result<Vec<_>, StoreError>>()?;
    let pages: Vec<u32> = content.used_pages().collect();
    read_pages(&places, content, &pages).await
}

impl<D: BlockDevice> PageStore<D> {
    /// Opens a store. Replicas that are behind are repaired; a commit that was in flight and is adopted, and one that
    /// `settle` says is doubtful, is committed again before this returns, so that what is served is durable.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is served that is not proven current.
    pub async fn open(
        identity: Identity,
        replicas: Vec<Replica<D>>,
        settle: bool,
    ) -> Result<PageStore<D>, StoreError> {
        PageStore::open_after(identity, replicas, settle, &[]).await
    }

    /// Opens the store again on `replicas`, after a commit whose outcome is not known, and commits what is found again.
    /// Replicas on which an abandoned write may still land say what they have, but are not written.
    ///
    /// # Errors
    /// [`StoreError`], also when too few replicas may be written yet.
    pub async fn reopen(&self, replicas: Vec<Replica<D>>) -> Result<PageStore<D>, StoreError> {
        let writing: Vec<Uuid> = self
            .replicas
            .iter()
            .filter(|state| state.writing && state.replica.device.abandoned() > 0)
            .map(ReplicaState::uuid)
            .collect();
        PageStore::open_after(self.identity, replicas, true, &writing).await
    }

    async fn open_after(
        identity: Identity,
        replicas: Vec<Replica<D>>,
        settle: bool,
        writing: &[Uuid],
    ) -> Result<PageStore<D>, StoreError> {
        let patience = if settle { LOOKING } else { OPENING };
        let (copies, verdict) = read_all(identity, &replicas, patience).await?;
        let reads: Vec<HeaderRead> = copies.iter().map(|(_, copy)| copy.read.clone()).collect();
        let inspection = Inspection { reads, verdict };
        let Verdict::Current { best, settled, .. } = inspection.verdict else {
            return Err(refusal(&replicas, &inspection).unwrap_or(StoreError::Empty));
        };
        let reads = inspection.reads;
        let HeaderRead::Valid(newest) = &reads[best] else {
            return Err(StoreError::Empty);
        };
        let content = newest.content.clone();
        let highest_claim = reads
            .iter()
            .filter_map(|read| match read {
                HeaderRead::Valid(header) => Some(header.claim),
                _ => None,
            })
            .max()
            .unwrap_or(0);
        let mut states = Vec::new();
        let mut repairable: Vec<Uuid> = Vec::new();
        for (replica, (geometry, copy)) in replicas.into_iter().zip(copies) {
            if !content.members.contains(&replica.uuid) {
                continue;
            }
            // What belongs to someone else or to a later version is left alone.
            let ours = matches!(
                copy.read,
                HeaderRead::Valid(_) | HeaderRead::Bad(HeaderError::Empty | HeaderError::Torn)
            );
            let writing = writing.contains(&replica.uuid);
            let sequence = match &copy.read {
                HeaderRead::Valid(header) => Some(header.content.sequence),
                _ => None,
            };
            let (health, next_copy, own) = match copy.read {
                HeaderRead::Valid(header) if header.content == content => {
                    (ReplicaHealth::Current, 1 - copy.copy, None)
                }
                HeaderRead::Valid(header) => (
                    ReplicaHealth::Stale(format!("at sequence {}", header.content.sequence)),
                    1 - copy.copy,
                    Some(*header),
                ),
                HeaderRead::Bad(error) => (ReplicaHealth::Stale(error.to_string()), 0, None),
                HeaderRead::Unreadable(error) => (ReplicaHealth::Stale(error), 0, None),
            };
            let health = if writing && health == ReplicaHealth::Current {
                ReplicaHealth::Stale("an operation that was given up has not ended".into())
            } else {
                health
            };
            if ours && !writing && health != ReplicaHealth::Current {
                repairable.push(replica.uuid);
            }
            states.push(ReplicaState {
                replica,
                geometry,
                health,
                next_copy,
                own,
                sequence,
                writing,
            });
        }
        let mut store = PageStore {
            identity,
            replicas: states,
            content,
            writer: fresh_uuid(),
            highest_claim,
            claimed: false,
            unsettled: None,
            limit: Some(patience.quorum),
        };
        if !settled || settle {
            store.commit_again(&repairable).await?;
        } else {
            for uuid in repairable {
                if let Err(error) = store.repair(uuid).await {
                    tracing::warn!(%error, "a stale copy could not be repaired");
                }
            }
            // With two members nothing can be committed, and the members cannot change, once one has died before the
            // other has been told of this opening.
            if store.content.members.len() == 2
                && let Err(error) = store.establish().await
            {
                tracing::warn!(%error, "the second of two copies is not there");
            }
        }
        store.limit = None;
        Ok(store)
    }

    /// Reads the headers of all replicas again, and the current pages from the devices, without changing anything.
    ///
    /// # Errors
    /// [`StoreError`] as for opening.
    pub async fn read_back(
        &self,
    ) -> Result<(Content, Vec<HeaderRead>, Vec<bytes::Bytes>), StoreError> {
        let replicas: Vec<Replica<D>> = self
            .replicas
            .iter()
            .map(|state| state.replica.clone())
            .collect();
        let inspection = inspect(self.identity, &replicas).await?;
        let Some(content) = inspection.content().cloned() else {
            return Err(StoreError::Torn {
                detail: detail(&replicas, &inspection.reads),
            });
        };
        let pages: Vec<u32> = content.used_pages().collect();
        let places: Vec<(&Replica<D>, Geometry)> = self
            .replicas
            .iter()
            .map(|state| (&state.replica, state.geometry))
            .collect();
        let pages = read_pages(&places, &content, &pages).await?;
        Ok((content, inspection.reads, pages))
    }
}
