//! Documents: records of the configuration whose content is not the pool's business. Fence domains are kept in them.

use uuid::Uuid;

use super::{Inner, Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::{Change, Config, DocumentRecord, Extent, MAX_DOCUMENT_BYTES};

impl<D: BlockDevice> Pool<D> {
    /// All documents of a kind, by name.
    pub async fn documents(&self, kind: &str) -> Vec<DocumentRecord> {
        let inner = self.inner.lock().await;
        let Some(store) = &inner.config else {
            return Vec::new();
        };
        let all = store.config().documents.values();
        let mut found: Vec<_> = all.filter(|record| record.kind == kind).cloned().collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Makes a document, or puts a new one in the place of the one with its identity; durable at `Ok`. Its extents are those
    /// that it had, and the one of [`Pool::reserve_quorum_region`]; those that it has no more are free.
    ///
    /// # Errors
    /// [`PoolError::NameTaken`] when another one of its kind has the name, [`PoolError::InvalidDocument`],
    /// [`PoolError::ConfigFull`]; the document is as before then.
    pub async fn put_document(&self, record: DocumentRecord) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let had = inner.config()?.documents.get(&record.uuid);
        let same = had.is_some_and(|had| had.extents == record.extents);
        let _quorum = if same || (had.is_none() && record.extents.is_empty()) {
            // A commit that decides a fence does not wait for a quorum device that hangs.
            None
        } else {
            drop(inner);
            let quorum = self.quorum.lock().await;
            inner = self.inner.lock().await;
            self.settle(&mut inner).await?;
            Some(quorum)
        };
        let config = inner.config()?;
        check(config, &record)?;
        let old = config.documents.get(&record.uuid);
        let had: Vec<Extent> = old.map_or_else(Vec::new, |old| old.extents.clone());
        let reserved = inner.quorum_regions.get(&record.uuid);
        let is_reserved =
            |extent: &Extent| reserved.is_some_and(|reserved| reserved.extents().contains(extent));
        let (added, kept): (Vec<Extent>, Vec<Extent>) = record
            .extents
            .iter()
            .partition(|extent| !had.contains(extent));
        if !added.iter().all(is_reserved) {
            return Err(PoolError::InvalidDocument {
                problem: "it has an extent that was not reserved for it".into(),
            });
        }
        let gone: Vec<Extent> = had.into_iter().filter(|old| !kept.contains(old)).collect();
        let freed = inner.space.hold(gone);
        let uuid = record.uuid;
        inner
            .commit(vec![Change::Document(Box::new(record))])
            .await?;
        freed.freed();
        if !added.is_empty()
            && let Some(reserved) = inner.quorum_regions.remove(&uuid)
        {
            reserved.committed();
        }
        Ok(())
    }

    /// Removes a document and gives its extents back. It is no error when there is none.
    ///
    /// # Errors
    /// [`PoolError`]; the document is as before then.
    pub async fn remove_document(&self, uuid: Uuid) -> Result<(), PoolError> {
        let _quorum = self.quorum.lock().await;
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let Some(record) = inner.config()?.documents.get(&uuid) else {
            return Ok(());
        };
        let extents = record.extents.clone();
        let freed = inner.space.hold(extents);
        inner.commit(vec![Change::Remove(uuid)]).await?;
        freed.freed();
        Ok(())
    }
}

impl<D: BlockDevice> Inner<D> {
    /// The documents that have an extent on a device, as people call them.
    pub(super) fn documents_on(&self, device: Uuid) -> Vec<String> {
        self.config
            .as_ref()
            .map_or_else(Vec::new, |store| documents_on(store.config(), device))
    }
}

/// The documents that have an extent on a device, as people call them: `domain NAME`.
pub(super) fn documents_on(config: &Config, device: Uuid) -> Vec<String> {
    let all = config.documents.values();
    let mut names: Vec<String> = all
        .filter(|record| record.extents.iter().any(|extent| extent.device == device))
        .map(|record| format!("{} {} (quorum)", record.kind, record.name))
        .collect();
    names.sort();
    names
}

fn check(config: &Config, record: &DocumentRecord) -> Result<(), PoolError> {
    super::check_name("document", &record.kind)?;
    super::check_name("document", &record.name)?;
    let wrong = |problem: String| Err(PoolError::InvalidDocument { problem });
    if record.body.len() > MAX_DOCUMENT_BYTES {
        return wrong(format!(
            "it has {} bytes, and at most {MAX_DOCUMENT_BYTES} are kept",
            record.body.len()
        ));
    }
    let uuid = record.uuid;
    if uuid == config.pool.uuid
        || config.devices.contains_key(&uuid)
        || config.volumes.contains_key(&uuid)
    {
        return wrong(format!("its identity {uuid} is that of something else"));
    }
    let mut others = config.documents.values().filter(|other| other.uuid != uuid);
    if others.any(|other| (&other.kind, &other.name) == (&record.kind, &record.name)) {
        return Err(PoolError::NameTaken {
            what: "document",
            name: record.name.clone(),
        });
    }
    Ok(())
}
