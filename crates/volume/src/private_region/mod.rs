//! The private region: where a volume's registrations and reservation are kept.
//!
//! Registrants have slots in the pages of a page store; the group reservation and the map of the slots that count are
//! its commit record. So one header commits any number of slots, and what only takes away or changes the reservation
//! (PREEMPT, CLEAR, RESERVE, RELEASE) writes a header and nothing else.

pub mod commit_record;
mod inspect;
mod replicas;
pub mod slot;
mod table;

use arc_swap::ArcSwap;
use async_lock::{Mutex, MutexGuard};
use bytes::Bytes;
use reservation::machine::apply;
use reservation::{Event, LuReservations, State, StateError};
use thiserror::Error;
use uuid::Uuid;

use crate::block_device::BlockDevice;
use crate::config::Persist;
use crate::page_store::{
    HeaderRead, Identity, PageStore, Replica, ReplicaHealth, ReplicaInfo, StoreError,
};
pub use inspect::{Inspection, ReplicaReport, Version};
use table::Table;

/// Registrants that a private region holds.
pub const REGISTRANT_CAPACITY: usize = 1024;

/// Bytes that the page store of a private region needs at least.
pub const MIN_REGION_BYTES: u64 =
    2 * 4096 + (REGISTRANT_CAPACITY / slot::SLOTS_PER_PAGE) as u64 * 8192;

/// The private region of a volume, open. Commits are serialized inside; a commit that has begun must be run to its
/// end: one that is dropped leaves the region to be settled by [`PrivateRegion::recover`].
pub struct PrivateRegion<D> {
    volume: Uuid,
    boot_id: Uuid,
    persist: Persist,
    inner: Mutex<Inner<D>>,
    /// As last seen, for those who do not want to wait.
    health: ArcSwap<Vec<ReplicaInfo>>,
}

struct Inner<D> {
    store: PageStore<D>,
    table: Table,
    /// Where replicas are or may be: at least all members of the store that are there.
    replicas: Vec<Replica<D>>,
    /// Another object has the region now, or nobody.
    retired: bool,
}

/// A replica as it was read back from its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Name of the device.
    pub device: String,
    /// `current`, or `stale`, `damaged` or `unreadable` with the reason.
    pub state: String,
    /// Sequence of its newest valid header, if it has one.
    pub sequence: Option<u64>,
}

/// What is on the devices now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    /// The state that a restart would adopt.
    pub state: State,
    /// Each replica.
    pub replicas: Vec<ReplicaStatus>,
}

/// Why a private region could not be opened, read or committed.
#[derive(Debug, Error)]
pub enum PrivateRegionError {
    /// More registrants than slots; nothing was changed.
    #[error("{registrants} registrants: the private region holds {capacity}")]
    Full {
        /// Number asked for.
        registrants: usize,
        /// Number of slots.
        capacity: usize,
    },
    /// A state that cannot be: nothing was written.
    #[error("the state to be kept is impossible: {0}")]
    Impossible(#[from] StateError),
    /// A registrant that no slot can hold; nothing was written.
    #[error("initiator name of {length_bytes} bytes: it has 1 to 223")]
    Name {
        /// Its length in bytes.
        length_bytes: usize,
    },
    /// The replicas.
    #[error("private region: {0}")]
    Store(#[from] StoreError),
    /// A slot that counts is not valid.
    #[error("private region: slot {slot}: {problem}")]
    Slot {
        /// The slot.
        slot: u16,
        /// What is wrong.
        problem: &'static str,
    },
    /// A person chose a version that is not there, or not there any more.
    #[error("private region: that device does not hold the version that was chosen")]
    NotThatVersion,
    /// The region was deleted, or is served through another object.
    #[error("private region: it is closed")]
    Closed,
    /// The commit record or the whole does not make sense.
    #[error("private region: {problem}")]
    Inconsistent {
        /// What is wrong.
        problem: String,
    },
}

fn identity(volume: Uuid) -> Identity {
    Identity {
        store: volume,
        kind: *b"KEYS",
    }
}

impl<D: BlockDevice> PrivateRegion<D> {
    /// Makes the empty private region of a new volume.
    ///
    /// # Errors
    /// Any device that fails.
    pub async fn create(
        volume: Uuid,
        replicas: Vec<Replica<D>>,
        boot_id: Uuid,
        persist: Persist,
    ) -> Result<PrivateRegion<D>, PrivateRegionError> {
        let table = Table::default();
        let record = table.record(boot_id, persist == Persist::Always).encode();
        let store = PageStore::format(identity(volume), replicas.clone(), record).await?;
        Ok(PrivateRegion {
            volume,
            boot_id,
            persist,
            health: ArcSwap::from_pointee(store.health()),
            inner: Mutex::new(Inner {
                store,
                table,
                replicas,
                retired: false,
            }),
        })
    }

    /// Opens a private region: validates everything, repairs replicas that are behind and, when the machine was
    /// rebooted since the last commit, makes what power on leaves of the state durable before it is served (SPC-4
    /// 5.13.11.2.1: without APTPL, nothing).
    ///
    /// # Errors
    /// [`PrivateRegionError`]: the volume must not be served then.
    pub async fn open(
        volume: Uuid,
        replicas: Vec<Replica<D>>,
        boot_id: Uuid,
        persist: Persist,
    ) -> Result<PrivateRegion<D>, PrivateRegionError> {
        let region = PrivateRegion::loaded(volume, replicas, boot_id, persist).await?;
        region.power_on_after_reboot().await?;
        Ok(region)
    }

    /// What the replicas hold, as it is; whether power was lost since is the caller's to say.
    async fn loaded(
        volume: Uuid,
        replicas: Vec<Replica<D>>,
        boot_id: Uuid,
        persist: Persist,
    ) -> Result<PrivateRegion<D>, PrivateRegionError> {
        let store = PageStore::open(identity(volume), replicas.clone(), false).await?;
        let inner = load(volume, store, replicas).await?;
        Ok(PrivateRegion {
            volume,
            boot_id,
            persist,
            health: ArcSwap::from_pointee(inner.store.health()),
            inner: Mutex::new(inner),
        })
    }

    async fn lock(&self) -> Result<MutexGuard<'_, Inner<D>>, PrivateRegionError> {
        let inner = self.inner.lock().await;
        if inner.retired {
            return Err(PrivateRegionError::Closed);
        }
        Ok(inner)
    }

    /// Ends all use of the region through this object: what is under way is waited for, what comes later fails with
    /// [`PrivateRegionError::Closed`] and touches no device.
    pub async fn close(&self) {
        self.inner.lock().await.retired = true;
    }

    /// Whether [`PrivateRegion::close`] was called.
    pub async fn is_closed(&self) -> bool {
        self.inner.lock().await.retired
    }

    /// Takes [`PrivateRegion::close`] back; what was known then is known still.
    pub async fn resume(&self) {
        self.inner.lock().await.retired = false;
    }

    /// Goes on with other replicas, those of [`PrivateRegion::recover_from`], after [`PrivateRegion::close`]. The user loads
    /// the state again.
    ///
    /// # Errors
    /// As for [`PrivateRegion::open`]; it stays closed then.
    pub async fn replace(&self, replicas: Vec<Replica<D>>) -> Result<(), PrivateRegionError> {
        let mut inner = self.inner.lock().await;
        let store = PageStore::open(identity(self.volume), replicas.clone(), false).await?;
        *inner = load(self.volume, store, replicas).await?;
        Ok(())
    }

    /// As [`PrivateRegion::open`] after a pool was exported in order, perhaps on another machine: no power was lost, so
    /// that registrations made without APTPL stay. They get this boot's identity, durably: the next reboot is one again.
    ///
    /// # Errors
    /// [`PrivateRegionError`]: the volume must not be served then.
    pub async fn take_over(
        volume: Uuid,
        replicas: Vec<Replica<D>>,
        boot_id: Uuid,
        persist: Persist,
    ) -> Result<PrivateRegion<D>, PrivateRegionError> {
        let region = PrivateRegion::loaded(volume, replicas, boot_id, persist).await?;
        let mut inner = region.inner.lock().await;
        let state = inner.table.state().clone();
        region.commit_locked(&mut inner, &state).await?;
        drop(inner);
        Ok(region)
    }

    async fn power_on_after_reboot(&self) -> Result<(), PrivateRegionError> {
        let mut inner = self.lock().await?;
        let record = commit_record::CommitRecord::decode(inner.store.record())
            .map_err(|problem| inconsistent(problem.into()))?;
        if record.boot_id == self.boot_id {
            return Ok(());
        }
        let before = LuReservations::from(inner.table.state().clone());
        let power_on = Event::PowerOn {
            persist_always: record.persist_always || self.persist == Persist::Always,
        };
        let after = apply(&before, &power_on).state.persistent;
        if after == before.persistent {
            // Power on changes nothing, and would again.
            return Ok(());
        }
        tracing::info!(
            volume = %self.volume,
            before = before.persistent.registrants.len(),
            after = after.registrants.len(),
            "the machine was rebooted since the registrations were made"
        );
        self.commit_locked(&mut inner, &after).await
    }

    /// The state as last committed or, after opening, as loaded.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`] after a failed commit: see [`PrivateRegion::recover`].
    pub async fn load(&self) -> Result<State, PrivateRegionError> {
        let inner = self.lock().await?;
        if inner.store.is_unsettled() {
            return Err(StoreError::Unsettled {
                detail: "an earlier commit failed".into(),
            }
            .into());
        }
        Ok(inner.table.state().clone())
    }

    /// Makes `state` durable on a write quorum of replicas. Only slots that changed are written; a change that only
    /// removes registrants or concerns the reservation is one header write and flush per replica.
    ///
    /// # Errors
    /// [`PrivateRegionError::Full`], `Impossible`, `Name` and [`StoreError::NotCommitted`] leave everything as it was.
    /// After [`StoreError::Unsettled`] whether the state will be found after a restart is not known: every later commit
    /// fails too until [`PrivateRegion::recover`] has settled it.
    pub async fn commit(&self, state: &State) -> Result<(), PrivateRegionError> {
        let mut inner = self.lock().await?;
        self.commit_locked(&mut inner, state).await
    }

    async fn commit_locked(
        &self,
        inner: &mut Inner<D>,
        state: &State,
    ) -> Result<(), PrivateRegionError> {
        state.check()?;
        let (table, dirty) = inner.table.with(state)?;
        let record = table
            .record(self.boot_id, self.persist == Persist::Always)
            .encode();
        if dirty.is_empty() && record == *inner.store.record() && !inner.store.is_unsettled() {
            return Ok(());
        }
        let changes = table.pages(self.volume, &dirty);
        inner.store.commit(record, changes).await?;
        inner.table = table;
        Ok(())
    }

    /// After a failed commit: opens the replicas again, commits what is found once more, so that it is durable, and
    /// returns it: the state before the failed commit or after it.
    ///
    /// # Errors
    /// [`PrivateRegionError`]: the volume must not be served.
    pub async fn recover(&self) -> Result<State, PrivateRegionError> {
        let mut inner = self.lock().await?;
        let replicas = inner.replicas.clone();
        let store = inner.store.reopen(replicas.clone()).await?;
        *inner = load(self.volume, store, replicas).await?;
        Ok(inner.table.state().clone())
    }

    /// Reads the replicas again, for `ringfence keys`.
    ///
    /// # Errors
    /// As for [`PrivateRegion::open`].
    pub async fn read_back(&self) -> Result<ReadBack, PrivateRegionError> {
        let inner = self.lock().await?;
        let (content, reads, pages) = inner.store.read_back().await?;
        let used: Vec<u32> = content.used_pages().collect();
        let table = Table::decode(self.volume, &content.record, &used, &pages)?;
        let replicas = inner
            .store
            .replicas()
            .zip(&reads)
            .map(|((replica, health), read)| {
                let (state, sequence) = match read {
                    HeaderRead::Valid(header) => (
                        match health {
                            ReplicaHealth::Current if header.content == content => {
                                "current".to_owned()
                            }
                            ReplicaHealth::Current => "stale: behind the others".to_owned(),
                            ReplicaHealth::Stale(why) => format!("stale: {why}"),
                        },
                        Some(header.content.sequence),
                    ),
                    HeaderRead::Bad(error) => (format!("damaged: {error}"), None),
                    HeaderRead::Unreadable(error) => (format!("unreadable: {error}"), None),
                };
                ReplicaStatus {
                    device: replica.device.name().to_owned(),
                    state,
                    sequence,
                }
            })
            .collect();
        Ok(ReadBack {
            state: table.state().clone(),
            replicas,
        })
    }
}

async fn load<D: BlockDevice>(
    volume: Uuid,
    store: PageStore<D>,
    replicas: Vec<Replica<D>>,
) -> Result<Inner<D>, PrivateRegionError> {
    let used: Vec<u32> = store.used_pages().collect();
    let pages: Vec<Bytes> = store.read_pages(&used).await?;
    let table = Table::decode(volume, store.record(), &used, &pages)?;
    Ok(Inner {
        store,
        table,
        replicas,
        retired: false,
    })
}

fn inconsistent(problem: String) -> PrivateRegionError {
    PrivateRegionError::Inconsistent { problem }
}

#[cfg(test)]
mod tests;
