//! Writing: format, commit, repair, and change of members.

use bytes::Bytes;
use uuid::Uuid;

use super::header::{Content, Header, PageEntry, RECORD_BYTES};
use super::verdict::majority;
use super::{
    Geometry, Identity, MAX_MEMBERS, PAGE_BYTES, PageChange, PageStore, Replica, ReplicaHealth,
    ReplicaState, StoreError, to_pages,
};
use crate::block_device::BlockDevice;
use crate::error::VolumeError;
use crate::fresh_uuid::fresh_uuid;
use crate::join::{boxed, join_all};

/// A page to be written: its number, its copy and its content.
type PageWrite = (u32, u8, Bytes);

async fn write_pages<D: BlockDevice>(
    replica: &Replica<D>,
    geometry: Geometry,
    pages: &[PageWrite],
) -> Result<(), VolumeError> {
    if pages.is_empty() {
        return Ok(());
    }
    for batch in pages.chunks(64) {
        let results = join_all(batch.iter().map(|(page, copy, data)| {
            let offset = replica.offset_bytes + geometry.page_offset_bytes(*page, *copy);
            boxed(replica.device.write(offset, data.clone()))
        }))
        .await;
        results.into_iter().collect::<Result<(), _>>()?;
    }
    replica.device.flush().await
}

async fn write_header<D: BlockDevice>(
    state: &ReplicaState<D>,
    identity: Identity,
    content: &Content,
    claim: u64,
) -> Result<(), VolumeError> {
    let header = Header {
        content: content.clone(),
        claim,
        replica: state.replica.uuid,
    };
    let offset = state.replica.offset_bytes + state.geometry.header_offset_bytes(state.next_copy);
    let bytes = to_pages(&header.encode(identity));
    state.replica.device.write(offset, bytes).await?;
    state.replica.device.flush().await
}

impl Content {
    /// Applies page changes to the table; each written page moves to its other copy.
    fn apply(&mut self, changes: Vec<(u32, PageChange)>) -> Vec<PageWrite> {
        let mut writes = Vec::with_capacity(changes.len());
        for (page, change) in changes {
            if self.pages.len() <= page as usize {
                self.pages.resize(page as usize + 1, PageEntry::default());
            }
            let entry = &mut self.pages[page as usize];
            match change {
                PageChange::Write(data) => {
                    let data = to_pages(&data);
                    entry.copy = 1 - entry.copy;
                    entry.crc32c = crc32c::crc32c(&data);
                    entry.used = true;
                    writes.push((page, entry.copy, data));
                }
                PageChange::Free => entry.used = false,
            }
        }
        writes
    }
}

impl<D: BlockDevice> PageStore<D> {
    /// Makes a new store with no pages on all of `replicas`. Whatever was in their areas is gone.
    ///
    /// # Errors
    /// Any device that fails.
    pub async fn format(
        identity: Identity,
        replicas: Vec<Replica<D>>,
        record: [u8; RECORD_BYTES],
    ) -> Result<PageStore<D>, StoreError> {
        let writer = fresh_uuid();
        let content = Content {
            epoch: 1,
            sequence: 1,
            writer,
            members: replicas.iter().map(|replica| replica.uuid).collect(),
            record,
            pages: Vec::new(),
        };
        let mut states = Vec::new();
        for replica in replicas {
            states.push(blank(replica).await?);
        }
        let results = join_all(
            states
                .iter()
                .map(|state| boxed(write_header(state, identity, &content, 1))),
        )
        .await;
        results.into_iter().collect::<Result<(), _>>()?;
        for state in &mut states {
            state.next_copy = 1;
            state.health = ReplicaHealth::Current;
        }
        Ok(PageStore {
            identity,
            replicas: states,
            content,
            writer,
            highest_claim: 1,
            claimed: true,
            unsettled: None,
        })
    }

    /// Makes `record` and all page changes current together. A commit without page writes is one write and one flush
    /// per replica.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::NotCommitted`] leave everything as it was;
    /// [`StoreError::Unsettled`] means that the store must be opened again.
    pub async fn commit(
        &mut self,
        record: [u8; RECORD_BYTES],
        changes: Vec<(u32, PageChange)>,
    ) -> Result<(), StoreError> {
        self.prepare(&changes, self.capacity_pages()).await?;
        let mut content = self.next_content(record)?;
        let writes = content.apply(changes);
        self.write_changed_pages(&content, &writes).await?;
        self.write_headers(content).await
    }

    /// Commits as [`PageStore::commit`] and takes a new member in with the same commit.
    ///
    /// # Errors
    /// As for [`PageStore::commit`]; the new member must be writable.
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
        self.prepare(&changes, capacity).await?;
        let (mut state, old_pages) = match self.member_and_pages(replica).await {
            Ok(ready) => ready,
            Err(error) => {
                self.unsettled = None;
                return Err(error);
            }
        };
        let mut content = self.next_content(record)?;
        content.members.push(state.replica.uuid);
        let writes = content.apply(changes);
        let mut all: Vec<PageWrite> = old_pages
            .into_iter()
            .filter(|(page, ..)| {
                content.pages[*page as usize].used
                    && !writes.iter().any(|(written, ..)| written == page)
            })
            .collect();
        all.extend(writes.iter().cloned());
        let not_committed = |error: VolumeError| StoreError::NotCommitted {
            written: 0,
            need: 1,
            detail: error.to_string(),
        };
        if let Err(error) = write_pages(&state.replica, state.geometry, &all).await {
            self.unsettled = None;
            return Err(not_committed(error));
        }
        self.write_changed_pages(&content, &writes).await?;
        // The new member first: if it were in the members but not on the new device after a crash, the old devices
        // alone might not be a majority any more.
        if let Err(error) = write_header(&state, self.identity, &content, self.highest_claim).await
        {
            // It may hold this sequence number: never use that number again in this epoch.
            self.claimed = false;
            self.unsettled = None;
            return Err(not_committed(error));
        }
        state.next_copy = 1;
        state.health = ReplicaHealth::Current;
        self.replicas.push(state);
        self.write_headers_but(content, 1).await
    }

    /// Commits as [`PageStore::commit`] and leaves a member out from this commit on.
    ///
    /// # Errors
    /// As for [`PageStore::commit`].
    pub async fn remove_member(
        &mut self,
        uuid: Uuid,
        record: [u8; RECORD_BYTES],
        changes: Vec<(u32, PageChange)>,
    ) -> Result<(), StoreError> {
        self.prepare(&changes, self.capacity_pages()).await?;
        let mut content = self.next_content(record)?;
        content.members.retain(|member| *member != uuid);
        let writes = content.apply(changes);
        self.write_changed_pages(&content, &writes).await?;
        self.write_headers(content).await?;
        self.replicas.retain(|state| state.replica.uuid != uuid);
        Ok(())
    }

    /// Brings a replica that missed commits up to date. Safe at any time: what it copies is already durable on a
    /// majority.
    ///
    /// # Errors
    /// The device's.
    pub async fn repair(&mut self, uuid: Uuid) -> Result<(), StoreError> {
        let pages = self.current_pages().await?;
        for index in 0..self.replicas.len() {
            let state = &self.replicas[index];
            if state.replica.uuid != uuid || state.health == ReplicaHealth::Current {
                continue;
            }
            write_pages(&state.replica, state.geometry, &pages).await?;
            write_header(state, self.identity, &self.content, self.highest_claim).await?;
            let state = &mut self.replicas[index];
            state.next_copy = 1 - state.next_copy;
            state.health = ReplicaHealth::Current;
            state.own = None;
        }
        Ok(())
    }

    /// Commits the current content again under a new epoch, on repaired replicas too, so that it is durable on a
    /// majority whatever it was before.
    pub(super) async fn commit_again(&mut self, repairable: &[Uuid]) -> Result<(), StoreError> {
        let pages = if repairable.is_empty() {
            Vec::new()
        } else {
            self.current_pages().await?
        };
        self.claim().await?;
        for state in &mut self.replicas {
            if repairable.contains(&state.replica.uuid) {
                match write_pages(&state.replica, state.geometry, &pages).await {
                    Ok(()) => {
                        state.health = ReplicaHealth::Current;
                        state.own = None;
                    }
                    Err(error) => state.health = ReplicaHealth::Stale(error.to_string()),
                }
            }
        }
        let content = self.next_content(self.content.record)?;
        self.write_headers(content).await
    }

    async fn member_and_pages(
        &self,
        replica: Replica<D>,
    ) -> Result<(ReplicaState<D>, Vec<PageWrite>), StoreError> {
        let pages = self.current_pages().await?;
        Ok((blank(replica).await?, pages))
    }

    /// What must hold before a commit.
    async fn prepare(
        &mut self,
        changes: &[(u32, PageChange)],
        capacity: u32,
    ) -> Result<(), StoreError> {
        if let Some(detail) = &self.unsettled {
            return Err(StoreError::Unsettled {
                detail: detail.clone(),
            });
        }
        let last = changes.iter().map(|(page, _)| *page).max().unwrap_or(0);
        if last >= capacity {
            return Err(StoreError::Full {
                needed: u64::from(last) + 1,
                capacity,
            });
        }
        if !self.claimed {
            self.claim().await?;
        }
        // A commit that is dropped half-way leaves this behind; every way out of it below decides otherwise.
        self.unsettled = Some("a commit was abandoned".into());
        Ok(())
    }

    /// Opens a new epoch: writes the claim beside what each replica has, on a majority. Alone, a replica needs no
    /// claim of its own: its next commit carries it.
    async fn claim(&mut self) -> Result<(), StoreError> {
        let claim = self.highest_claim + 1;
        if self.content.members.len() > 1 {
            let outcome = join_all(self.replicas.iter().map(|state| {
                boxed(async {
                    let content = match (&state.health, &state.own) {
                        (ReplicaHealth::Current, _) => &self.content,
                        (ReplicaHealth::Stale(_), Some(own)) => &own.content,
                        (ReplicaHealth::Stale(_), None) => return None,
                    };
                    Some(write_header(state, self.identity, content, claim).await)
                })
            }))
            .await;
            let mut written = 0;
            let mut failures = Vec::new();
            for (state, result) in self.replicas.iter_mut().zip(outcome) {
                match result {
                    Some(Ok(())) => {
                        state.next_copy = 1 - state.next_copy;
                        written += 1;
                    }
                    Some(Err(error)) => failures.push(error.to_string()),
                    None => {}
                }
            }
            // Even an unsuccessful claim may be on a device: the next one is higher.
            self.highest_claim = claim;
            let need = majority(self.content.members.len());
            if written < need {
                return Err(StoreError::NotCommitted {
                    written,
                    need,
                    detail: failures.join("; "),
                });
            }
        }
        self.highest_claim = claim;
        self.claimed = true;
        Ok(())
    }

    fn next_content(&self, record: [u8; RECORD_BYTES]) -> Result<Content, StoreError> {
        let sequence = self
            .content
            .sequence
            .checked_add(1)
            .ok_or(StoreError::Full {
                needed: 0,
                capacity: self.capacity_pages(),
            })?;
        Ok(Content {
            epoch: self.highest_claim,
            sequence,
            writer: self.writer,
            record,
            ..self.content.clone()
        })
    }

    /// Every used page of the current content, as it must be on each replica.
    async fn current_pages(&self) -> Result<Vec<PageWrite>, StoreError> {
        let used: Vec<u32> = self.used_pages().collect();
        let data = self.read_pages(&used).await?;
        Ok(used
            .into_iter()
            .zip(data)
            .map(|(page, data)| {
                (
                    page,
                    self.content.pages[page as usize].copy,
                    to_pages(&data),
                )
            })
            .collect())
    }

    /// Writes changed pages to the copies that are not current. A failure leaves what is current untouched.
    async fn write_changed_pages(
        &mut self,
        content: &Content,
        writes: &[PageWrite],
    ) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        let outcome = join_all(self.replicas.iter().map(|state| {
            boxed(async {
                match &state.health {
                    ReplicaHealth::Current => {
                        Some(write_pages(&state.replica, state.geometry, writes).await)
                    }
                    ReplicaHealth::Stale(_) => None,
                }
            })
        }))
        .await;
        let (written, failures) = self.tally(content, &outcome);
        let need = majority(content.members.len());
        // A member that is being added is not among the replicas yet; its pages are written by then.
        let written = written + content.members.len().saturating_sub(self.known(content));
        if written < need {
            self.unsettled = None;
            return Err(StoreError::NotCommitted {
                written,
                need,
                detail: failures.join("; "),
            });
        }
        for (state, result) in self.replicas.iter_mut().zip(outcome) {
            if let Some(Err(error)) = result {
                state.health = ReplicaHealth::Stale(error.to_string());
            }
        }
        Ok(())
    }

    /// Members of the store's current list that are also in `content`.
    fn known(&self, content: &Content) -> usize {
        content
            .members
            .iter()
            .filter(|member| self.content.members.contains(member))
            .count()
    }

    fn tally(
        &self,
        content: &Content,
        outcome: &[Option<Result<(), VolumeError>>],
    ) -> (usize, Vec<String>) {
        let mut written = 0;
        let mut failures = Vec::new();
        for (state, result) in self.replicas.iter().zip(outcome) {
            match result {
                Some(Ok(())) if content.members.contains(&state.replica.uuid) => written += 1,
                Some(Err(error)) => failures.push(error.to_string()),
                _ => {}
            }
        }
        (written, failures)
    }

    async fn write_headers(&mut self, content: Content) -> Result<(), StoreError> {
        self.write_headers_but(content, 0).await
    }

    /// Writes the header of `content` to all current replicas but the last `done`, which have it.
    async fn write_headers_but(&mut self, content: Content, done: usize) -> Result<(), StoreError> {
        let todo = self.replicas.len() - done;
        let claim = self.highest_claim;
        let outcome: Vec<Option<Result<(), VolumeError>>> =
            join_all(self.replicas.iter().enumerate().map(|(index, state)| {
                let content = &content;
                let identity = self.identity;
                boxed(async move {
                    let member = content.members.contains(&state.replica.uuid);
                    if index >= todo {
                        Some(Ok(()))
                    } else if member && state.health == ReplicaHealth::Current {
                        Some(write_header(state, identity, content, claim).await)
                    } else {
                        None
                    }
                })
            }))
            .await;
        let (written, failures) = self.tally(&content, &outcome);
        let need = majority(content.members.len());
        if written < need {
            let detail = format!(
                "only {written} of the {need} copies needed were written ({})",
                failures.join("; ")
            );
            self.unsettled = Some(detail.clone());
            return Err(StoreError::Unsettled { detail });
        }
        for (index, (state, result)) in self.replicas.iter_mut().zip(outcome).enumerate() {
            match result {
                Some(Ok(())) if index < todo => state.next_copy = 1 - state.next_copy,
                Some(Err(error)) => state.health = ReplicaHealth::Stale(error.to_string()),
                _ => {}
            }
        }
        self.content = content;
        self.unsettled = None;
        Ok(())
    }
}

fn geometry_of<D>(replica: &Replica<D>) -> Result<Geometry, StoreError> {
    Geometry::of(replica.length_bytes).ok_or(StoreError::AreaTooSmall {
        length_bytes: replica.length_bytes,
    })
}

/// Empties both header copies of an area.
async fn blank<D: BlockDevice>(replica: Replica<D>) -> Result<ReplicaState<D>, StoreError> {
    let geometry = geometry_of(&replica)?;
    debug_assert_eq!(replica.offset_bytes % PAGE_BYTES, 0);
    replica
        .device
        .write_zeroes(replica.offset_bytes, 2 * geometry.header_copy_bytes, false)
        .await?;
    replica.device.flush().await?;
    Ok(ReplicaState {
        replica,
        geometry,
        health: ReplicaHealth::Stale("not written yet".into()),
        next_copy: 0,
        own: None,
    })
}
