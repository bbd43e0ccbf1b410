//! Deleting volumes.

use super::zeroing::zero;
use super::{Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::{Change, Extent};

impl<D: BlockDevice> Pool<D> {
    /// Deletes a volume, of any layout and whatever job it has. The caller has stopped serving it: later operations fail,
    /// those in flight are waited for, and the space is given back to the devices.
    ///
    /// # Errors
    /// [`PoolError`]. A failure to give space back is not one: it is zeroed before it is used again.
    pub async fn volume_delete(&self, name: &str) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(name)?;
        let record = volume.record();
        let mut extents: Vec<Extent> = record.extents().copied().collect();
        // What a plex shares with the one it replaces comes twice.
        extents.sort_by_key(|extent| (extent.device, extent.offset_bytes));
        extents.dedup();
        let reserved = inner.space.hold(extents.clone());
        inner.commit(vec![Change::Remove(record.uuid)]).await?;
        self.update_volumes(|volumes| volumes.remove(record.lun));
        let usable = extents
            .into_iter()
            .filter(|extent| inner.is_usable(extent.device));
        let extents = inner.on_devices(usable);
        drop(inner);
        self.end(&volume).await;
        if let Ok(region) = volume.private_region() {
            region.close().await;
        }
        if let Err(error) = zero(&extents).await {
            tracing::warn!(volume = name, %error, "the space of a deleted volume could not be given back yet");
        }
        reserved.freed();
        Ok(())
    }
}
