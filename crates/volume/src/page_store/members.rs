//! Making a store, and change of its members.

use bytes::Bytes;
use uuid::Uuid;

use super::header::{Content, RECORD_BYTES};
use super::replica::{ReplicaState, blank, geometry_of};
use super::{Identity, MAX_MEMBERS, PageChange, PageStore, Replica, ReplicaHealth, StoreError};
use crate::block_device::BlockDevice;
use crate::fresh_uuid::fresh_uuid;
use crate::join::{boxed, join_all};

/// What a new store holds from the start.
pub struct Beginning {
    /// Epoch of the first commit, at least 1; above every one that may come back from replicas that are given up.
    pub epoch: u64,
    /// The commit record.
    pub record: [u8; RECORD_BYTES],
    /// Pages.
    pub pages: Vec<(u32, Bytes)>,
}

impl Beginning {
    /// No pages.
    pub fn empty(record: [u8; RECORD_BYTES]) -> Beginning {
        Beginning {
            epoch: 1,
            record,
            pages: Vec::new(),
        }
    }
}

impl<D: BlockDevice> PageStore<D> {
    /// Makes a new store with no pages on all of `replicas`. Whatever was in their areas is gone.
    ///
    /// # Errors
    /// Any device that fails or does not answer.
    pub async fn format(
        identity: Identity,
        replicas: Vec<Replica<D>>,
        record: [u8; RECORD_BYTES],
    ) -> Result<PageStore<D>, StoreError> {
        PageStore::create(identity, replicas, Beginning::empty(record)).await
    }

    /// Makes a new store on all of `replicas`. Whatever was in their areas is gone.
    ///
    /// # Errors
    /// Any device that fails or does not answer; [`StoreError::Full`].
    pub async fn create(
        identity: Identity,
        replicas: Vec<Replica<D>>,
        beginning: Beginning,
    ) -> Result<PageStore<D>, StoreError> {
        let writer = fresh_uuid();
        let mut content = Content {
            epoch: beginning.epoch,
            sequence: 1,
            writer,
            members: replicas.iter().map(|replica| replica.uuid).collect(),
            record: beginning.record,
            pages: Vec::new(),
        };
        let changes = beginning.pages.into_iter();
        let pages = content.apply(
            changes
                .map(|(page, data)| (page, PageChange::Write(data)))
                .collect(),
        );
        let mut states = Vec::new();
        for replica in replicas {
            let geometry = geometry_of(&replica)?;
            if content.pages.len() > geometry.capacity_pages as usize {
                return Err(StoreError::Full {
                    needed: content.pages.len() as u64,
                    capacity: geometry.capacity_pages,
                });
            }
            states.push(blank(replica).await?);
        }
        let results = join_all(
            states
                .iter_mut()
                .map(|state| boxed(state.fill(identity, &content, content.epoch, &pages))),
        )
        .await;
        results.into_iter().collect::<Result<(), _>>()?;
        Ok(PageStore {
            identity,
            replicas: states,
            highest_claim: content.epoch,
            content,
            writer,
            claimed: true,
            unsettled: None,
            limit: None,
        })
    }

    /// Commits as [`PageStore::commit`] and takes a new member in with the same commit.
    ///
    /// # Errors
    /// As for [`PageStore::commit`]; the new member must be writable, in the time of a repair. What was begun on it may
    /// still land while its device has abandoned operations.
    pub async fn add_member(
        &mut self,
        replica: Replica<D>,
        record: [u8; RECORD_BYTES],
        changes: Vec<(u32, PageChange)>,
    ) -> Result<(), StoreError> {
        let geometry = geometry_of(&replica)?;
        let capacity = self.capacity_pages().min(geometry.capacity_pages);
        if self.content.members.len() >= MAX_MEMBERS || self.content.pages.len() > capacity as usize
        {
            return Err(StoreError::Full {
                needed: self.content.pages.len() as u64,
                capacity,
            });
        }
        if replica.device.abandoned() > 0 {
            return Err(StoreError::NotRepairable {
                device: replica.device.name().to_owned(),
                why: "operations on it that were given up have not ended".into(),
            });
        }
        self.establish().await?;
        self.prepare(&changes, capacity).await?;
        let added = self.add_prepared(replica, record, changes).await;
        if added.is_err() && self.unsettled.as_deref() == Some(super::commit::ABANDONED) {
            self.unsettled = None;
        }
        added
    }

    async fn add_prepared(
        &mut self,
        replica: Replica<D>,
        record: [u8; RECORD_BYTES],
        changes: Vec<(u32, PageChange)>,
    ) -> Result<(), StoreError> {
        let old_pages = self.current_pages().await?;
        let mut state = blank(replica).await?;
        let mut content = self.next_content(record)?;
        content.members.push(state.uuid());
        let writes = content.apply(changes);
        let mut all: Vec<_> = old_pages
            .into_iter()
            .filter(|(page, ..)| {
                content.pages[*page as usize].used
                    && !writes.iter().any(|(written, ..)| written == page)
            })
            .collect();
        all.extend(writes.iter().cloned());
        self.write_changed_pages(&content, &writes).await?;
        // From here on the new member may hold this sequence number: it is never used again in this epoch, unless the
        // commit succeeds.
        self.claimed = false;
        // The new member first: if it were in the members but not on the new device after a crash, the old devices
        // alone might not be a majority any more.
        state
            .fill(self.identity, &content, self.highest_claim, &all)
            .await
            .map_err(|error| StoreError::NotCommitted {
                written: 0,
                need: 1,
                tried: true,
                detail: error.to_string(),
            })?;
        let written = self.write_headers(content).await;
        self.replicas.push(state);
        written?;
        self.claimed = true;
        Ok(())
    }

    /// Commits as [`PageStore::commit`] and leaves a member out from this commit on. The member may be dead. What is not
    /// a member is left out already.
    ///
    /// # Errors
    /// As for [`PageStore::commit`]; [`StoreError::LastMember`].
    pub async fn remove_member(
        &mut self,
        uuid: Uuid,
        record: [u8; RECORD_BYTES],
        changes: Vec<(u32, PageChange)>,
    ) -> Result<(), StoreError> {
        if self.content.members == [uuid] {
            return Err(StoreError::LastMember);
        }
        self.establish().await?;
        self.prepare(&changes, self.capacity_pages()).await?;
        let mut content = self.next_content(record)?;
        content.members.retain(|member| *member != uuid);
        let writes = content.apply(changes);
        self.write_changed_pages(&content, &writes).await?;
        self.write_headers(content).await?;
        self.replicas.retain(|state| state.uuid() != uuid);
        Ok(())
    }

    /// Before the members change, this opening must have committed with the members as they are: else a change that an
    /// earlier opening began, and that nobody acknowledged, could come back with the majority of a list that this one
    /// does not know. A commit of the same content does it.
    pub(super) async fn establish(&mut self) -> Result<(), StoreError> {
        if self.claimed && self.content.writer == self.writer {
            return Ok(());
        }
        self.commit(self.content.record, Vec::new()).await
    }

    /// Takes a member back in whose device was not there; stale, to be repaired.
    ///
    /// # Errors
    /// [`StoreError::NotRepairable`] when an operation on the device that it was on before may still land;
    /// [`StoreError::AreaTooSmall`].
    pub fn rejoin(&mut self, replica: Replica<D>) -> Result<(), StoreError> {
        let geometry = geometry_of(&replica)?;
        let known = self
            .replicas
            .iter_mut()
            .position(|state| state.uuid() == replica.uuid);
        if let Some(index) = known {
            let state = &mut self.replicas[index];
            if std::sync::Arc::ptr_eq(&state.replica.device, &replica.device) {
                return Ok(());
            }
            if !state.is_quiet() {
                return Err(StoreError::NotRepairable {
                    device: replica.device.name().to_owned(),
                    why: "operations on it that were given up have not ended".into(),
                });
            }
            self.replicas.remove(index);
        }
        self.replicas.push(ReplicaState {
            replica,
            geometry,
            health: ReplicaHealth::Stale("its device was away".into()),
            next_copy: 0,
            own: None,
            sequence: None,
            writing: false,
        });
        Ok(())
    }
}
