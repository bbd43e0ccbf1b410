//! Pools come and go as a whole: import and export.
//!
//! **Handover.** An export in order marks the pool (`PoolRecord::handover`) when nobody is served any more; an import of a
//! marked pool is no power cycle, so that registrations made without APTPL stay (they would be dropped by a reboot). The
//! order at import: every private region is stamped with the boot identity of the machine it is on now, durably; then the
//! mark is removed; then volumes are served.
//!
//! | crash | what is found |
//! | --- | --- |
//! | at export, before the mark | a pool that was not exported: the next open is a restart like any other |
//! | at export, after the mark | an exported pool; volumes were not served since the mark |
//! | at import, while stamping | the mark: the next import stamps all again, whatever boot they have |
//! | at import, after the mark is removed | an open pool whose private regions are of this boot |
//!
//! Jobs do not stop an export: they are in the records and go on after the import. A volume whose private region could not
//! be opened at import is not stamped: once it can be, a reboot lies in between, as far as anyone knows.

use super::claim::PATIENCE;
use super::{DeviceSource, Inner, Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::Change;
use crate::join::{boxed, join_all};

impl<D: BlockDevice> Pool<D> {
    /// Brings the pool that lives on `devices` up in this one, which is empty: volumes, grants and keys, with nothing but
    /// what is on the devices. The checks are those of [`Pool::open`].
    ///
    /// # Errors
    /// [`PoolError::NotEmpty`]; as for [`Pool::open`]. The pool is empty then.
    pub async fn import(&self, devices: Vec<DeviceSource<D>>) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        if let Some(store) = &inner.config {
            return Err(PoolError::NotEmpty {
                devices: store.config().devices.len(),
            });
        }
        if !inner.joining.is_empty() {
            return Err(PoolError::NotEmpty {
                devices: inner.joining.len(),
            });
        }
        self.assemble(&mut inner, devices).await?;
        // `Pool::close` came before the export of the last one.
        self.resume();
        Ok(())
    }

    /// Ends the use of the pool in order, so that it can be imported elsewhere. The caller has stopped serving its volumes
    /// and the keeper (`Pool::close`); afterwards this pool is empty and lets go of its devices.
    ///
    /// # Errors
    /// [`PoolError`] before anything has ended: the pool is as before.
    pub async fn export(&self) -> Result<(), PoolError> {
        // Without the lock: a flush may wait for a plex to be detached, which is a commit.
        let clock = self.inner.lock().await.devices.values().next().cloned();
        let volumes = self.volumes();
        let served = volumes.iter().filter(|volume| volume.fault().is_none());
        let flushes = served.clone().map(|volume| {
            let clock = clock.clone();
            boxed(async move {
                match clock {
                    Some(clock) => clock.in_time(PATIENCE, "flush", volume.flush()).await?,
                    None => volume.flush().await,
                }
            })
        });
        for flushed in join_all(flushes).await {
            flushed?;
        }
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        if !inner.making.is_empty() || !inner.joining.is_empty() {
            return Err(PoolError::DeviceInUse {
                name: "of the pool".into(),
                volumes: "volumes or devices that are being added".into(),
            });
        }
        let mut pool = inner.config()?.pool.clone();
        pool.handover = true;
        if let Err(error) = inner.commit(vec![Change::Pool(pool)]).await {
            // The pool stays in use: if the mark is there after all, settling removes it.
            self.settle(&mut inner).await?;
            return Err(error);
        }
        let volumes = self.volumes();
        let closes = volumes.iter().map(|volume| {
            let clock = clock.clone();
            boxed(async move {
                let close = async {
                    volume.close().await;
                    if let Ok(region) = volume.private_region() {
                        region.close().await;
                    }
                };
                match clock {
                    Some(clock) => clock.within(PATIENCE, close).await.is_some(),
                    None => {
                        close.await;
                        true
                    }
                }
            })
        });
        let stuck = join_all(closes)
            .await
            .iter()
            .filter(|ended| !**ended)
            .count();
        if stuck > 0 {
            tracing::warn!(volumes = stuck, "operations are still in flight");
        }
        self.update_volumes(|volumes| *volumes = Default::default());
        *inner = Inner::default();
        Ok(())
    }
}
