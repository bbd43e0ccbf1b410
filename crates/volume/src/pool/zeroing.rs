//! Zeroes in extents that nobody uses, without the pool's lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Inner, PoolError};
use crate::block_device::BlockDevice;
use crate::config::Extent;
use crate::device::Device;
use crate::error::VolumeError;
use crate::join::{boxed, join_all};

/// Bytes zeroed by one operation: what a device that has to write them all can do in [`PATIENCE`].
const PIECE_BYTES: u64 = 256 << 20;

/// How long one piece may take before the device counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);

impl<D: BlockDevice> Inner<D> {
    /// `extents` with their devices; those on devices that are not there are left out.
    pub(super) fn on_devices(
        &self,
        extents: impl IntoIterator<Item = Extent>,
    ) -> Vec<(Arc<Device<D>>, Extent)> {
        extents
            .into_iter()
            .filter_map(|extent| Some((self.devices.get(&extent.device)?.clone(), extent)))
            .collect()
    }
}

/// Zeroes extents and makes that durable, the devices beside one another.
///
/// # Errors
/// [`PoolError::Device`], that of any device.
pub(super) async fn zero<D: BlockDevice>(
    extents: &[(Arc<Device<D>>, Extent)],
) -> Result<(), PoolError> {
    let mut by_device: BTreeMap<Uuid, (Arc<Device<D>>, Vec<Extent>)> = BTreeMap::new();
    for (device, extent) in extents {
        by_device
            .entry(device.uuid())
            .or_insert_with(|| (device.clone(), Vec::new()))
            .1
            .push(*extent);
    }
    let work = by_device
        .values()
        .map(|(device, extents)| boxed(zero_on(device, extents)));
    for result in join_all(work).await {
        result?;
    }
    Ok(())
}

async fn zero_on<D: BlockDevice>(
    device: &Device<D>,
    extents: &[Extent],
) -> Result<(), VolumeError> {
    let incarnation = device.incarnation();
    for extent in extents {
        let mut done = 0;
        while done < extent.length_bytes {
            let length = PIECE_BYTES.min(extent.length_bytes - done);
            let work = device.write_zeroes(extent.offset_bytes + done, length, true);
            device.in_time(PATIENCE, "write zeroes", work).await??;
            done += length;
        }
    }
    let flush = device.flush_since(incarnation);
    device.in_time(PATIENCE, "flush", flush).await?
}
