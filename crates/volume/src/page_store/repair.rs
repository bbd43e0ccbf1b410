//! Bringing replicas that missed something up to date, and looking for damage.

use uuid::Uuid;

use super::header::HeaderError;
use super::open::{read_copies, read_replica};
use super::replica::{PageWrite, REPAIR_PATIENCE};
use super::{HeaderRead, PAGE_BYTES, PageStore, ReplicaHealth, StoreError, to_pages};
use crate::block_device::{BlockDevice, aligned_buffer};

/// Something on a replica that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The replica.
    pub replica: Uuid,
    /// Its device's name; empty when the device is not there.
    pub device_name: String,
    /// What is wrong.
    pub problem: String,
    /// It was set right.
    pub repaired: bool,
}

impl<D: BlockDevice> PageStore<D> {
    /// Brings a replica that missed commits up to date. Safe at any time: what it copies is already durable on a
    /// majority. A replica that is current is left alone.
    ///
    /// # Errors
    /// [`StoreError::NotRepairable`] when nothing may be written to it now; the device's.
    pub async fn repair(&mut self, uuid: Uuid) -> Result<(), StoreError> {
        if let Some(detail) = &self.unsettled {
            return Err(StoreError::Unsettled {
                detail: detail.clone(),
            });
        }
        let Some(index) = self.replicas.iter().position(|state| state.uuid() == uuid) else {
            let why = if self.content.members.contains(&uuid) {
                "it is not there"
            } else {
                "it holds no replica"
            };
            return Err(StoreError::NotRepairable {
                device: String::new(),
                why: why.into(),
            });
        };
        if self.replicas[index].is_current() {
            return Ok(());
        }
        self.writable(index)?;
        self.look_again(index).await?;
        let pages = self.current_pages().await?;
        self.refill(index, &pages).await
    }

    async fn refill(&mut self, index: usize, pages: &[PageWrite]) -> Result<(), StoreError> {
        let state = &mut self.replicas[index];
        let filled = state
            .fill(self.identity, &self.content, self.highest_claim, pages)
            .await;
        if let Err(error) = filled {
            state.missed(self.identity.store, error.to_string());
            return Err(error.into());
        }
        Ok(())
    }

    /// Whether anything may be written to a replica now.
    fn writable(&mut self, index: usize) -> Result<(), StoreError> {
        let state = &mut self.replicas[index];
        let why = if !state.replica.device.is_online() {
            "it has failed"
        } else if !state.is_quiet() {
            "operations on it that were given up have not ended"
        } else {
            return Ok(());
        };
        Err(StoreError::NotRepairable {
            device: state.replica.device.name().to_owned(),
            why: why.into(),
        })
    }

    /// Reads the headers of a stale replica: which of its copies is the newer, and whether it is ours at all.
    async fn look_again(&mut self, index: usize) -> Result<(), StoreError> {
        let state = &mut self.replicas[index];
        let device = state.replica.device.clone();
        let reading = read_replica(&state.replica, state.geometry, self.identity);
        let copy = device.in_time(REPAIR_PATIENCE, "read", reading).await?;
        let refused = |why: String| {
            Err(StoreError::NotRepairable {
                device: device.name().to_owned(),
                why,
            })
        };
        match copy.read {
            HeaderRead::Valid(header) => {
                state.next_copy = 1 - copy.copy;
                state.sequence = Some(header.content.sequence);
                if header.content == self.content {
                    // It may be in a cache only: it is written again all the same.
                    state.own = None;
                } else if (header.content.epoch, header.content.sequence)
                    >= (self.content.epoch, self.content.sequence)
                    || header.content.epoch == self.content.epoch
                        && header.content.writer != self.content.writer
                {
                    // Nobody but this store writes: whatever it is, it is not to be written over.
                    return refused(format!(
                        "it has sequence {} of epoch {}, which nobody can have written after what is served",
                        header.content.sequence, header.content.epoch
                    ));
                } else {
                    state.own = Some(*header);
                }
                Ok(())
            }
            HeaderRead::Bad(
                HeaderError::Empty | HeaderError::Torn | HeaderError::Invalid { .. },
            ) => {
                state.next_copy = 0;
                state.own = None;
                state.sequence = None;
                Ok(())
            }
            HeaderRead::Bad(error) => refused(error.to_string()),
            HeaderRead::Unreadable(error) => refused(error),
        }
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
        let store = self.identity.store;
        for state in &mut self.replicas {
            if repairable.contains(&state.uuid()) && state.is_quiet() {
                let identity = self.identity;
                // The header that comes with it is the one before the commit; it is durable or will be.
                let filled = state
                    .fill(identity, &self.content, self.highest_claim, &pages)
                    .await;
                if let Err(error) = filled {
                    state.missed(store, error.to_string());
                }
            }
        }
        let content = self.next_content(self.content.record)?;
        self.write_headers(content).await
    }

    /// Every used page of the current content, as it must be on each replica.
    pub(super) async fn current_pages(&self) -> Result<Vec<PageWrite>, StoreError> {
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

    /// Reads both header copies and every used page of every replica and tells what is not as it should be; with
    /// `repair`, sets it right from the other replicas.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`].
    pub async fn verify(&mut self, repair: bool) -> Result<Vec<Finding>, StoreError> {
        if let Some(detail) = &self.unsettled {
            return Err(StoreError::Unsettled {
                detail: detail.clone(),
            });
        }
        let mut findings = Vec::new();
        for member in &self.content.members {
            if self.replicas.iter().all(|state| state.uuid() != *member) {
                findings.push(Finding {
                    replica: *member,
                    device_name: String::new(),
                    problem: "its device is not there".into(),
                    repaired: false,
                });
            }
        }
        let good = self.current_pages().await;
        for index in 0..self.replicas.len() {
            let problems = self.problems(index).await;
            if problems.is_empty() {
                continue;
            }
            let repaired = repair
                && match &good {
                    Ok(pages) if self.writable(index).is_ok() => {
                        self.look_again(index).await.is_ok()
                            && self.refill(index, pages).await.is_ok()
                            // The other header copy, too.
                            && self.refill(index, &[]).await.is_ok()
                    }
                    _ => false,
                };
            let state = &self.replicas[index];
            findings.extend(problems.into_iter().map(|problem| Finding {
                replica: state.uuid(),
                device_name: state.replica.device.name().to_owned(),
                problem,
                repaired,
            }));
        }
        Ok(findings)
    }

    /// What is not as it should be on one replica.
    async fn problems(&self, index: usize) -> Vec<String> {
        let state = &self.replicas[index];
        let mut problems = Vec::new();
        if let ReplicaHealth::Stale(why) = &state.health {
            problems.push(format!("it is stale: {why}"));
            if !state.replica.device.is_online() || state.writing {
                return problems;
            }
        }
        let device = &state.replica.device;
        let reading = read_copies(&state.replica, state.geometry, self.identity);
        let copies = match device.in_time(REPAIR_PATIENCE, "read", reading).await {
            Ok(copies) => copies,
            Err(error) => return vec![error.to_string()],
        };
        let has_it = copies.iter().any(
            |read| matches!(read, HeaderRead::Valid(header) if header.content == self.content),
        );
        if !has_it && state.is_current() {
            problems.push(format!(
                "no header copy has sequence {}",
                self.content.sequence
            ));
        }
        for (number, read) in copies.iter().enumerate() {
            match read {
                // A copy that was never written is empty until the second commit.
                HeaderRead::Valid(_) | HeaderRead::Bad(HeaderError::Empty) => {}
                HeaderRead::Bad(error) => {
                    problems.push(format!("header copy {number}: {error}"));
                }
                HeaderRead::Unreadable(error) => {
                    problems.push(format!("header copy {number}: {error}"));
                }
            }
        }
        if !state.is_current() {
            return problems;
        }
        for page in self.used_pages() {
            let Some(entry) = self.content.pages.get(page as usize) else {
                continue;
            };
            let offset =
                state.replica.offset_bytes + state.geometry.page_offset_bytes(page, entry.copy);
            let reading = device.read(offset, aligned_buffer(PAGE_BYTES as usize));
            match device.in_time(REPAIR_PATIENCE, "read", reading).await {
                Ok((Ok(()), buf)) if crc32c::crc32c(&buf) == entry.crc32c => {}
                Ok((Ok(()), _)) => {
                    problems.push(format!("page {page} does not match its checksum"));
                }
                Ok((Err(error), _)) => problems.push(format!("page {page}: {error}")),
                Err(error) => {
                    problems.push(format!("page {page}: {error}"));
                    return problems;
                }
            }
        }
        problems
    }
}
