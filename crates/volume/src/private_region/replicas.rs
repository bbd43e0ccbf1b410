//! The replicas of a private region: their health, repair, and change.

use std::sync::Arc;

use uuid::Uuid;

use super::{PrivateRegion, PrivateRegionError};
use crate::block_device::BlockDevice;
use crate::page_store::{Finding, Replica, ReplicaInfo};

impl<D: BlockDevice> PrivateRegion<D> {
    /// Every replica that counts, those whose device is not there too. No I/O and no waiting: while a commit is under
    /// way, what was seen last.
    pub async fn health(&self) -> Vec<ReplicaInfo> {
        if let Some(inner) = self.inner.try_lock() {
            self.health.store(Arc::new(inner.store.health()));
        }
        Vec::clone(&self.health.load())
    }

    /// As [`PrivateRegion::health`], but of now: it waits for a commit that is under way. Whoever changes the replicas, or the
    /// configuration's candidates for them, decides on this.
    ///
    /// # Errors
    /// The region is closed.
    pub async fn health_now(&self) -> Result<Vec<ReplicaInfo>, PrivateRegionError> {
        let inner = self.lock().await?;
        let health = inner.store.health();
        self.health.store(Arc::new(health.clone()));
        Ok(health)
    }

    /// Whether a commit has failed in a way that only [`PrivateRegion::recover`] settles; `None` while one is under way.
    pub fn is_unsettled(&self) -> Option<bool> {
        Some(self.inner.try_lock()?.store.is_unsettled())
    }

    /// Brings a stale replica up to date. Commits wait meanwhile, for at most a few seconds.
    ///
    /// # Errors
    /// [`crate::page_store::StoreError::NotRepairable`] when nothing may be written to it now (its device is not there,
    /// has failed, or has operations that were given up and have not ended); the device's.
    pub async fn repair(&self, replica: Uuid) -> Result<(), PrivateRegionError> {
        let mut inner = self.lock().await?;
        Ok(inner.store.repair(replica).await?)
    }

    /// Makes `replica` one that counts, with the state as it is. Whatever is in its area is gone, unless it counts
    /// already: then it is taken back in, when its device was not there, and repaired. The configuration names it as a
    /// candidate before.
    ///
    /// # Errors
    /// The replica does not count then, or, after [`crate::page_store::StoreError::Unsettled`], may count:
    /// [`PrivateRegion::recover`] settles it. In either case something may still be written to its area while its
    /// device has abandoned operations, and a later opening that finds it may take it for a member: it stays a candidate
    /// until [`PrivateRegion::remove_replica`] or another attempt has succeeded.
    pub async fn add_replica(&self, replica: Replica<D>) -> Result<(), PrivateRegionError> {
        let mut inner = self.lock().await?;
        let uuid = replica.uuid;
        let counts = inner.store.members().contains(&uuid);
        if counts {
            inner.store.rejoin(replica.clone())?;
        }
        inner.replicas.retain(|known| known.uuid != uuid);
        inner.replicas.push(replica.clone());
        if counts {
            return Ok(inner.store.repair(uuid).await?);
        }
        let record = *inner.store.record();
        Ok(inner.store.add_member(replica, record, Vec::new()).await?)
    }

    /// Makes a replica one that does not count. Its device may be dead. The configuration drops it after. When it returns,
    /// no later opening believes it.
    ///
    /// # Errors
    /// As for [`PrivateRegion::commit`]; [`crate::page_store::StoreError::LastMember`].
    pub async fn remove_replica(&self, replica: Uuid) -> Result<(), PrivateRegionError> {
        let mut inner = self.lock().await?;
        let record = *inner.store.record();
        // What does not count may have been half added: the commit outranks what it may say.
        inner
            .store
            .remove_member(replica, record, Vec::new())
            .await?;
        inner.replicas.retain(|known| known.uuid != replica);
        Ok(())
    }

    /// Reads both header copies and every used page of every replica and tells what is not as it should be; with
    /// `repair`, sets it right from the other replicas. Commits wait meanwhile.
    ///
    /// # Errors
    /// [`crate::page_store::StoreError::Unsettled`].
    pub async fn verify(&self, repair: bool) -> Result<Vec<Finding>, PrivateRegionError> {
        let mut inner = self.lock().await?;
        Ok(inner.store.verify(repair).await?)
    }
}
