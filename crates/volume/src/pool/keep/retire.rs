//! Extents that a commit took from a volume: given to others only when nothing can reach them any more.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::block_device::BlockDevice;
use crate::config::Extent;
use crate::device::Device;
use crate::fresh_uuid::fresh_uuid;
use crate::pool::space::Reserved;
use crate::pool::{Inner, Pool};
use crate::volume::Volume;

/// Between two looks at a device with operations that nobody waits for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Extents that no record has any more, held until they are really free.
pub(in crate::pool) struct Retired<D> {
    /// Tells it from others.
    pub(in crate::pool) id: Uuid,
    /// Whose they were, when its layouts may still be in use.
    pub(in crate::pool) volume: Option<Arc<Volume<D>>>,
    /// The outcome of the commit that takes them from the volume is not known: its record may have them still.
    pub(in crate::pool) uncertain: bool,
    pub(in crate::pool) extents: Vec<Extent>,
    pub(in crate::pool) reserved: Reserved,
}

impl<D: BlockDevice> Pool<D> {
    /// To be given back by the keeper.
    pub(in crate::pool) fn retire(&self, retired: Retired<D>) {
        self.keeper.retired.lock().push(retired);
        self.keeper.wake();
    }

    /// The space of a volume that was deleted, as is found now, and that somebody may use still.
    pub(in crate::pool) fn retire_volume(&self, inner: &Inner<D>, volume: Arc<Volume<D>>) {
        let mut extents: Vec<Extent> = volume.record().extents().copied().collect();
        // What a plex shares with the one it replaces comes twice.
        extents.sort_by_key(|extent| (extent.device, extent.offset_bytes));
        extents.dedup();
        let reserved = inner.space.hold(extents.clone());
        self.retire(Retired {
            id: fresh_uuid(),
            volume: Some(volume),
            uncertain: false,
            extents,
            reserved,
        });
    }

    /// Waits until no layout with the extents is in use and no operation is left on their devices, gives the space back to
    /// the devices, and frees them.
    pub(super) async fn give_back(&self, retired: Retired<D>) {
        if let Some(volume) = &retired.volume {
            if retired.uncertain && !self.is_gone(volume, &retired.extents).await {
                retired.reserved.committed();
                return;
            }
            if volume.is_closed() {
                self.end(volume).await;
                if let Ok(region) = volume.private_region() {
                    region.close().await;
                }
            } else {
                volume.drained().await;
            }
        }
        let snapshot = self.snapshot().await;
        for extent in &retired.extents {
            // One that is not there has nothing in flight from this process.
            let Some(device) = snapshot.devices.get(&extent.device) else {
                continue;
            };
            wait_until_quiet(device).await;
            if let Err(error) = device
                .write_zeroes(extent.offset_bytes, extent.length_bytes, true)
                .await
            {
                tracing::debug!(%error, "space could not be given back to a device");
            }
            wait_until_quiet(device).await;
        }
        retired.reserved.freed();
    }

    /// Waits until it is known whether a volume has any of these extents. That of a volume that was deleted counts as its
    /// own: the deletion gives it back.
    async fn is_gone(&self, volume: &Volume<D>, extents: &[Extent]) -> bool {
        let record = self.known_record(volume).await;
        !record
            .extents()
            .any(|a| extents.iter().any(|b| overlap(a, b)))
    }
}

/// Whether two extents have a byte in common.
fn overlap(a: &Extent, b: &Extent) -> bool {
    a.device == b.device
        && a.offset_bytes < b.offset_bytes.saturating_add(b.length_bytes)
        && b.offset_bytes < a.offset_bytes.saturating_add(a.length_bytes)
}

async fn wait_until_quiet<D: BlockDevice>(device: &Device<D>) {
    while device.abandoned() > 0 {
        device.sleep(LOOK_AGAIN).await;
    }
}
