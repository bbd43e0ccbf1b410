//! The configuration of a pool, in memory and in its page store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use uuid::Uuid;

use super::envelope::{self, Stored};
use super::{DeviceRecord, DocumentRecord, PoolRecord, VolumeRecord};
use crate::block_device::BlockDevice;
use crate::page_store::{
    Finding, Identity, PageChange, PageStore, RECORD_BYTES, Replica, ReplicaHealth, ReplicaInfo,
    StoreError,
};

/// How long a change waits for a majority of the copies that hangs. Changes are made under the pool's lock, which others
/// wait for.
const PATIENCE: Duration = Duration::from_secs(20);

const KIND_POOL: u16 = 1;
const KIND_DEVICE: u16 = 2;
const KIND_VOLUME: u16 = 3;
const KIND_DOCUMENT: u16 = 4;

/// Why the configuration could not be read or changed.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The copies.
    #[error("configuration: {0}")]
    Store(#[from] StoreError),
    /// A page that is not a record.
    #[error("configuration: page {page}: {problem}")]
    Page {
        /// The page.
        page: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// A record whose content cannot be read.
    #[error("configuration: record {uuid}: {problem}")]
    Record {
        /// The record.
        uuid: Uuid,
        /// What is wrong.
        problem: String,
    },
    /// The records contradict one another.
    #[error("configuration: {problem}")]
    Inconsistent {
        /// What is wrong.
        problem: String,
    },
}

/// The whole configuration of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The pool.
    pub pool: PoolRecord,
    /// Its devices.
    pub devices: BTreeMap<Uuid, DeviceRecord>,
    /// Its volumes.
    pub volumes: BTreeMap<Uuid, VolumeRecord>,
    /// Its documents.
    pub documents: BTreeMap<Uuid, DocumentRecord>,
}

/// A change of one record.
#[derive(Clone, Debug)]
pub enum Change {
    /// The pool's record.
    Pool(PoolRecord),
    /// A new or changed device.
    Device(DeviceRecord),
    /// A new or changed volume.
    Volume(Box<VolumeRecord>),
    /// A new or changed document.
    Document(Box<DocumentRecord>),
    /// A device, volume or document that is no more.
    Remove(Uuid),
}

/// The configuration and where it is kept. Changes are committed first and seen in [`ConfigStore::config`] after.
pub struct ConfigStore<D> {
    store: PageStore<D>,
    config: Config,
    pages: BTreeMap<Uuid, Vec<u32>>,
}

fn identity(pool: Uuid) -> Identity {
    Identity {
        store: pool,
        kind: *b"CONF",
    }
}

/// A change of the pages, planned but not written.
struct Plan {
    /// The pages of each record that changes; empty for one that is removed.
    places: BTreeMap<Uuid, Vec<u32>>,
    changes: Vec<(u32, PageChange)>,
}

impl<D: BlockDevice> ConfigStore<D> {
    /// Makes the configuration of a new pool on its first device.
    ///
    /// # Errors
    /// Any failure of the device.
    pub async fn create(
        pool: PoolRecord,
        device: DeviceRecord,
        replica: Replica<D>,
    ) -> Result<ConfigStore<D>, ConfigError> {
        let config = Config {
            pool: pool.clone(),
            devices: BTreeMap::new(),
            volumes: BTreeMap::new(),
            documents: BTreeMap::new(),
        };
        let store =
            PageStore::format(identity(pool.uuid), vec![replica], [0; RECORD_BYTES]).await?;
        let mut store = ConfigStore {
            store,
            config,
            pages: BTreeMap::new(),
        };
        store.store.limit(Some(PATIENCE));
        store
            .commit(vec![Change::Pool(pool), Change::Device(device)])
            .await?;
        Ok(store)
    }

    /// Opens the configuration of pool `pool` from its copies.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing that is not proven current is used.
    pub async fn open(
        pool: Uuid,
        replicas: Vec<Replica<D>>,
        settle: bool,
    ) -> Result<ConfigStore<D>, ConfigError> {
        let store = PageStore::open(identity(pool), replicas, settle).await?;
        ConfigStore::load(pool, store).await
    }

    /// Opens the configuration again after a commit whose outcome is not known, and commits what is found again.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub async fn reopen(&self) -> Result<ConfigStore<D>, ConfigError> {
        let store = self.store.reopen(self.replicas()).await?;
        ConfigStore::load(self.config.pool.uuid, store).await
    }

    async fn load(pool: Uuid, mut store: PageStore<D>) -> Result<ConfigStore<D>, ConfigError> {
        store.limit(Some(PATIENCE));
        let used: Vec<u32> = store.used_pages().collect();
        let bytes = store.read_pages(&used).await?;
        let (config, pages) = parse(used.into_iter().zip(bytes))?;
        if config.pool.uuid != pool {
            return Err(ConfigError::Inconsistent {
                problem: format!("it is of pool {}", config.pool.uuid),
            });
        }
        Ok(ConfigStore {
            store,
            config,
            pages,
        })
    }

    /// The configuration as last committed.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Devices whose copy is current.
    pub fn current_on(&self) -> BTreeSet<Uuid> {
        self.store
            .replicas()
            .filter(|(_, health)| **health == ReplicaHealth::Current)
            .map(|(replica, _)| replica.uuid)
            .collect()
    }

    /// Every copy that counts (its identity is its device's), those on devices that are not there too.
    pub fn health(&self) -> Vec<ReplicaInfo> {
        self.store.health()
    }

    /// Brings the stale copy on a device up to date.
    ///
    /// # Errors
    /// [`StoreError::NotRepairable`] when nothing may be written there now; the device's.
    pub async fn repair(&mut self, device: Uuid) -> Result<(), ConfigError> {
        Ok(self.store.repair(device).await?)
    }

    /// Takes the copy on a device back in that was not there, and repairs it.
    ///
    /// # Errors
    /// As for [`ConfigStore::repair`].
    pub async fn rejoin(&mut self, replica: Replica<D>) -> Result<(), ConfigError> {
        let uuid = replica.uuid;
        self.store.rejoin(replica)?;
        self.repair(uuid).await
    }

    /// Reads every copy and tells what is not as it should be; with `repair`, sets it right.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`].
    pub async fn verify(&mut self, repair: bool) -> Result<Vec<Finding>, ConfigError> {
        Ok(self.store.verify(repair).await?)
    }

    /// Number of the last commit.
    pub fn sequence(&self) -> u64 {
        self.store.sequence()
    }

    /// Whether a commit failed in a way that opening again must settle.
    pub fn is_unsettled(&self) -> bool {
        self.store.is_unsettled()
    }

    /// Where the copies are that could be reached.
    pub fn replicas(&self) -> Vec<Replica<D>> {
        self.store
            .replicas()
            .map(|(replica, _)| replica.clone())
            .collect()
    }

    /// Commits changes together.
    ///
    /// # Errors
    /// [`ConfigError::Store`]: nothing changed, or [`StoreError::Unsettled`].
    pub async fn commit(&mut self, changes: Vec<Change>) -> Result<(), ConfigError> {
        let plan = self.plan(&changes)?;
        self.store.commit([0; RECORD_BYTES], plan.changes).await?;
        self.adopt(changes, plan.places);
        Ok(())
    }

    /// Commits changes together with a new copy on another device.
    ///
    /// # Errors
    /// As for [`ConfigStore::commit`].
    pub async fn add_replica(
        &mut self,
        replica: Replica<D>,
        changes: Vec<Change>,
    ) -> Result<(), ConfigError> {
        let plan = self.plan(&changes)?;
        self.store
            .add_member(replica, [0; RECORD_BYTES], plan.changes)
            .await?;
        self.adopt(changes, plan.places);
        Ok(())
    }

    /// Commits changes together with the end of a device's copy.
    ///
    /// # Errors
    /// As for [`ConfigStore::commit`].
    pub async fn remove_replica(
        &mut self,
        device: Uuid,
        changes: Vec<Change>,
    ) -> Result<(), ConfigError> {
        let plan = self.plan(&changes)?;
        self.store
            .remove_member(device, [0; RECORD_BYTES], plan.changes)
            .await?;
        self.adopt(changes, plan.places);
        Ok(())
    }

    /// Chooses pages: a record keeps the ones it has, takes the lowest free ones for more, and frees what it does not
    /// need.
    fn plan(&self, changes: &[Change]) -> Result<Plan, ConfigError> {
        let mut places: BTreeMap<Uuid, Vec<u32>> = BTreeMap::new();
        let mut page_changes: BTreeMap<u32, PageChange> = BTreeMap::new();
        let mut free = self.store.free_pages();
        for change in changes {
            let (uuid, parts) = match change {
                Change::Pool(record) => (record.uuid, encode(KIND_POOL, record.uuid, record)?),
                Change::Device(record) => (record.uuid, encode(KIND_DEVICE, record.uuid, record)?),
                Change::Volume(record) => {
                    (record.uuid, encode(KIND_VOLUME, record.uuid, &**record)?)
                }
                Change::Document(record) => (record.uuid, encode_document(record)?),
                Change::Remove(uuid) => (*uuid, Vec::new()),
            };
            let mut own = places
                .remove(&uuid)
                .or_else(|| self.pages.get(&uuid).cloned())
                .unwrap_or_default();
            if own.len() < parts.len() {
                own.extend(free.by_ref().take(parts.len() - own.len()));
            }
            for page in own.split_off(parts.len()) {
                page_changes.insert(page, PageChange::Free);
            }
            for (page, part) in own.iter().zip(parts) {
                page_changes.insert(*page, PageChange::Write(part));
            }
            places.insert(uuid, own);
        }
        Ok(Plan {
            places,
            changes: page_changes.into_iter().collect(),
        })
    }

    /// Takes over what was committed.
    fn adopt(&mut self, changes: Vec<Change>, places: BTreeMap<Uuid, Vec<u32>>) {
        for change in changes {
            match change {
                Change::Pool(record) => self.config.pool = record,
                Change::Device(record) => {
                    self.config.devices.insert(record.uuid, record);
                }
                Change::Volume(record) => {
                    self.config.volumes.insert(record.uuid, *record);
                }
                Change::Document(record) => {
                    self.config.documents.insert(record.uuid, *record);
                }
                Change::Remove(uuid) => {
                    self.config.devices.remove(&uuid);
                    self.config.volumes.remove(&uuid);
                    self.config.documents.remove(&uuid);
                }
            }
        }
        for (uuid, pages) in places {
            if pages.is_empty() {
                self.pages.remove(&uuid);
            } else {
                self.pages.insert(uuid, pages);
            }
        }
    }
}

/// The pages of a record.
fn encode<T: Serialize>(kind: u16, uuid: Uuid, record: &T) -> Result<Vec<Bytes>, ConfigError> {
    let problem = |problem| ConfigError::Record { uuid, problem };
    let payload = serde_json::to_vec(record).map_err(|error| problem(error.to_string()))?;
    pages(kind, uuid, payload)
}

/// The pages of a document.
fn encode_document(record: &DocumentRecord) -> Result<Vec<Bytes>, ConfigError> {
    let mut payload = serde_json::to_vec(record).map_err(|error| ConfigError::Record {
        uuid: record.uuid,
        problem: error.to_string(),
    })?;
    payload.push(b'\n');
    payload.extend_from_slice(&record.body);
    pages(KIND_DOCUMENT, record.uuid, payload)
}

fn pages(kind: u16, uuid: Uuid, payload: Vec<u8>) -> Result<Vec<Bytes>, ConfigError> {
    let problem = |problem| ConfigError::Record { uuid, problem };
    if payload.len() > envelope::MAX_RECORD_BYTES {
        return Err(problem(format!(
            "{} bytes, more than {}",
            payload.len(),
            envelope::MAX_RECORD_BYTES
        )));
    }
    let stored = Stored {
        kind,
        uuid,
        payload,
    };
    Ok(stored.encode())
}

fn parse_record<T: DeserializeOwned>(stored: &Stored) -> Result<T, ConfigError> {
    serde_json::from_slice(&stored.payload).map_err(|error| ConfigError::Record {
        uuid: stored.uuid,
        problem: error.to_string(),
    })
}

/// A line of JSON, then the content.
fn parse_document(stored: &Stored) -> Result<DocumentRecord, ConfigError> {
    let problem = |problem| ConfigError::Record {
        uuid: stored.uuid,
        problem,
    };
    let end = stored.payload.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| problem("its first line has no end".into()))?;
    let (line, body) = stored.payload.split_at(end);
    let mut record: DocumentRecord =
        serde_json::from_slice(line).map_err(|error| problem(error.to_string()))?;
    record.body = body[1..].to_vec();
    Ok(record)
}

type Parsed = (Config, BTreeMap<Uuid, Vec<u32>>);

/// Reads a configuration from pages.
fn parse(pages: impl IntoIterator<Item = (u32, Bytes)>) -> Result<Parsed, ConfigError> {
    let records =
        envelope::decode(pages).map_err(|(page, problem)| ConfigError::Page { page, problem })?;
    let mut pool = None;
    let mut devices = BTreeMap::new();
    let mut volumes = BTreeMap::new();
    let mut documents = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (stored, pages) in records {
        let uuid = match stored.kind {
            KIND_POOL => {
                let record: PoolRecord = parse_record(&stored)?;
                let uuid = record.uuid;
                if pool.replace(record).is_some() {
                    return Err(ConfigError::Inconsistent {
                        problem: "two pool records".into(),
                    });
                }
                uuid
            }
            KIND_DEVICE => {
                let record: DeviceRecord = parse_record(&stored)?;
                let uuid = record.uuid;
                devices.insert(uuid, record);
                uuid
            }
            KIND_VOLUME => {
                let record: VolumeRecord = parse_record(&stored)?;
                let uuid = record.uuid;
                volumes.insert(uuid, record);
                uuid
            }
            KIND_DOCUMENT => {
                let record = parse_document(&stored)?;
                let uuid = record.uuid;
                documents.insert(uuid, record);
                uuid
            }
            kind => {
                return Err(ConfigError::Record {
                    uuid: stored.uuid,
                    problem: format!("unknown kind {kind}"),
                });
            }
        };
        if uuid != stored.uuid {
            return Err(ConfigError::Record {
                uuid: stored.uuid,
                problem: format!("its content says {uuid}"),
            });
        }
        places.insert(uuid, pages);
    }
    let pool = pool.ok_or(ConfigError::Inconsistent {
        problem: "no pool record".into(),
    })?;
    let config = Config {
        pool,
        devices,
        volumes,
        documents,
    };
    Ok((config, places))
}
