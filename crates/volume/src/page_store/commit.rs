//! Writing: commits and claims.

use super::header::{Content, PageEntry, RECORD_BYTES};
use super::replica::{PageWrite, ReplicaState, STRAGGLER_PATIENCE};
use super::verdict::majority;
use super::{Identity, PageChange, PageStore, ReplicaHealth, StoreError, to_pages};
use crate::block_device::BlockDevice;
use crate::error::VolumeError;
use crate::join::{boxed, join_with_patience};

/// Why a store is unsettled whose commit was dropped half-way.
pub(super) const ABANDONED: &str = "a commit was abandoned";

/// What is written to each replica.
enum Step<'a> {
    /// Pages to the copies that are not current.
    Pages(&'a [PageWrite]),
    /// A claim beside what the replica has.
    Claim { current: &'a Content, claim: u64 },
    /// A header that makes its content current.
    Header { content: &'a Content, claim: u64 },
}

impl Step<'_> {
    fn concerns<D: BlockDevice>(&self, state: &ReplicaState<D>) -> bool {
        state.is_current() || matches!(self, Step::Claim { .. }) && state.own.is_some()
    }

    /// Ends without an answer of the device only when an operator fails it.
    async fn write<D: BlockDevice>(
        &self,
        state: &ReplicaState<D>,
        identity: Identity,
    ) -> Result<(), VolumeError> {
        let device = &state.replica.device;
        let writing = self.write_replica(state, identity);
        device.while_online("write", writing).await?
    }

    async fn write_replica<D: BlockDevice>(
        &self,
        state: &ReplicaState<D>,
        identity: Identity,
    ) -> Result<(), VolumeError> {
        match self {
            Step::Pages(pages) => state.write_pages(pages).await,
            Step::Claim { current, claim } => {
                let content = match &state.own {
                    Some(own) if !state.is_current() => &own.content,
                    _ => current,
                };
                state.write_header(identity, content, *claim).await
            }
            Step::Header { content, claim } => state.write_header(identity, content, *claim).await,
        }
    }

    fn written<D>(&self, state: &mut ReplicaState<D>) {
        match self {
            Step::Pages(_) => return,
            Step::Claim { .. } => {}
            Step::Header { content, .. } => state.sequence = Some(content.sequence),
        }
        state.next_copy = 1 - state.next_copy;
    }
}

impl Content {
    /// Applies page changes to the table; each written page moves to its other copy.
    pub(super) fn apply(&mut self, changes: Vec<(u32, PageChange)>) -> Vec<PageWrite> {
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
    /// Makes `record` and all page changes current together. A commit without page writes is one write and one flush
    /// per replica. It returns when a majority has it and every other replica has it too, has failed, or has not
    /// answered for [`STRAGGLER_PATIENCE`]; while a majority can still be reached, it waits for it without end.
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

    /// What must hold before a commit.
    pub(super) async fn prepare(
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
        if self.content.sequence == u64::MAX {
            return Err(StoreError::Full {
                needed: 0,
                capacity,
            });
        }
        // A commit that is dropped half-way leaves this behind; every way out of it below decides otherwise.
        self.unsettled = Some(ABANDONED.into());
        if !self.claimed {
            self.claim().await?;
        }
        Ok(())
    }

    /// Opens a new epoch: writes the claim beside what each replica has, on a majority. Alone, a replica needs no
    /// claim of its own: its next commit carries it.
    pub(super) async fn claim(&mut self) -> Result<(), StoreError> {
        // Even an unsuccessful claim may be on a device: the next one is higher.
        self.highest_claim += 1;
        let claim = self.highest_claim;
        if self.content.members.len() > 1 {
            let current = self.content.clone();
            let step = Step::Claim {
                current: &current,
                claim,
            };
            self.write_majority(&current, 0, step).await?;
        }
        self.claimed = true;
        Ok(())
    }

    pub(super) fn next_content(&self, record: [u8; RECORD_BYTES]) -> Result<Content, StoreError> {
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

    /// Writes changed pages to the copies that are not current. A failure leaves what is current untouched.
    pub(super) async fn write_changed_pages(
        &mut self,
        content: &Content,
        writes: &[PageWrite],
    ) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        // A member that is being added is not among the replicas yet; its pages are written by then.
        let added = self.added(content);
        self.write_majority(content, added, Step::Pages(writes))
            .await
    }

    /// Members of `content` that are new.
    fn added(&self, content: &Content) -> usize {
        content
            .members
            .iter()
            .filter(|member| !self.content.members.contains(member))
            .count()
    }

    /// Writes the header of `content` to all current replicas that are its members; a new member has it already.
    pub(super) async fn write_headers(&mut self, content: Content) -> Result<(), StoreError> {
        let added = self.added(&content);
        let step = Step::Header {
            content: &content,
            claim: self.highest_claim,
        };
        let written = self.write_majority(&content, added, step).await;
        match written {
            Ok(()) => {
                self.content = content;
                self.unsettled = None;
                Ok(())
            }
            // Nothing was tried: everything is as it was.
            Err(StoreError::NotCommitted { tried: false, .. }) if added == 0 => written,
            Err(error) => {
                let detail = error.to_string();
                self.unsettled = Some(detail.clone());
                Err(StoreError::Unsettled { detail })
            }
        }
    }

    /// Does `step` on the replicas that it concerns, are members of `content` and have no write of ours under way; `done`
    /// members beside them have it. Returns when a majority of the members has it and the patience with the others is
    /// over. Replicas that missed what a majority has are stale.
    async fn write_majority(
        &mut self,
        content: &Content,
        done: usize,
        step: Step<'_>,
    ) -> Result<(), StoreError> {
        let need = majority(content.members.len()).saturating_sub(done);
        let mut asked = Vec::new();
        for (index, state) in self.replicas.iter_mut().enumerate() {
            if step.concerns(state) && content.members.contains(&state.uuid()) && state.is_quiet() {
                asked.push(index);
            }
        }
        let refused = |written, tried, failures: Vec<String>| StoreError::NotCommitted {
            written: written + done,
            need: need + done,
            tried,
            detail: failures.join("; "),
        };
        if asked.len() < need {
            let out = self.out_of_use(content);
            self.unsettled = None;
            return Err(refused(0, false, out));
        }
        for index in &asked {
            self.replicas[*index].writing = true;
        }
        let Some(clock) = self.replicas.first().map(|state| &state.replica.device) else {
            self.unsettled = None;
            return if need == 0 {
                Ok(())
            } else {
                Err(refused(0, false, Vec::new()))
            };
        };
        let limit = self.limit;
        let results = join_with_patience(
            asked
                .iter()
                .map(|index| boxed(step.write(&self.replicas[*index], self.identity))),
            |results: &[Option<Result<(), VolumeError>>]| {
                let failed = results.iter().flatten().filter(|result| result.is_err());
                let written = results.iter().flatten().filter(|result| result.is_ok());
                let decided = written.count() >= need || results.len() - failed.count() < need;
                if decided {
                    Some(STRAGGLER_PATIENCE)
                } else {
                    limit
                }
            },
            |duration| clock.sleep(duration),
        )
        .await;
        let written = results.iter().filter(|r| matches!(r, Some(Ok(())))).count();
        let store = self.identity.store;
        let mut failures = Vec::new();
        for (index, result) in asked.into_iter().zip(results) {
            let state = &mut self.replicas[index];
            match result {
                Some(Ok(())) => {
                    state.writing = false;
                    step.written(state);
                }
                Some(Err(error)) => {
                    state.writing = error.is_hang();
                    failures.push(error.to_string());
                    if written >= need || error.is_hang() {
                        state.missed(store, error.to_string());
                    }
                }
                None => {
                    let device = &state.replica.device;
                    device.count_hang();
                    failures.push(format!("device {}: no answer", device.name()));
                    state.missed(store, "its device did not answer".into());
                }
            }
        }
        if written < need {
            self.unsettled = None;
            return Err(refused(written, true, failures));
        }
        Ok(())
    }

    /// Members that take no part, and why.
    fn out_of_use(&self, content: &Content) -> Vec<String> {
        self.health()
            .into_iter()
            .filter(|info| content.members.contains(&info.uuid))
            .filter_map(|info| match info.health {
                ReplicaHealth::Stale(why) => Some(format!("{}: {why}", info.device_name)),
                ReplicaHealth::Current => None,
            })
            .collect()
    }
}
