//! What the keeper does before a pool is served: plexes whose devices are not there take no part from the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{PoolEvent, position};
use crate::block_device::BlockDevice;
use crate::config::{Change, ConfigStore, PlexState, VolumeRecord};
use crate::device::Device;
use crate::join::{boxed, join_all};
use crate::pool::{Pool, PoolError};
use crate::volume::Volume;

/// Volumes whose logs are written at the same time.
const TOGETHER: usize = 64;

impl<D: BlockDevice> Pool<D> {
    /// Detaches the plexes that cannot take part: their regions that may differ become stale in the logs of the others,
    /// then one commit says `detached` for all volumes. Volumes that cannot be served because of it get a fault.
    ///
    /// # Errors
    /// The commit's.
    pub(in crate::pool) async fn detach_missing(
        &self,
        config: &mut ConfigStore<D>,
        devices: &BTreeMap<Uuid, Arc<Device<D>>>,
        mut volumes: Vec<Arc<Volume<D>>>,
    ) -> Result<Vec<Arc<Volume<D>>>, PoolError> {
        let mut faults: BTreeMap<Uuid, String> = BTreeMap::new();
        let mut changed: Vec<(Arc<Volume<D>>, VolumeRecord)> = Vec::new();
        let concerned: Vec<_> = volumes
            .iter()
            .filter(|volume| volume.fault().is_none())
            .filter_map(|volume| {
                let going = volume.to_detach();
                (!going.is_empty()).then_some((volume, going))
            })
            .collect();
        for batch in concerned.chunks(TOGETHER) {
            let outcomes = join_all(batch.iter().map(|(volume, going)| {
                boxed(async move {
                    let uuids: Vec<Uuid> = going.iter().map(|(uuid, _)| *uuid).collect();
                    volume.begin_detach(&uuids).await
                })
            }))
            .await;
            for ((volume, going), outcome) in batch.iter().zip(outcomes) {
                match outcome {
                    Err(error) => {
                        let why: Vec<&str> = going.iter().map(|(_, why)| why.as_str()).collect();
                        faults.insert(volume.uuid(), format!("{error} ({})", why.join("; ")));
                    }
                    Ok(()) => {
                        let mut record = VolumeRecord::clone(&volume.record());
                        for plex in &mut record.plexes {
                            if let Some((_, why)) =
                                going.iter().find(|(uuid, _)| *uuid == plex.uuid)
                            {
                                plex.state = PlexState::Detached {
                                    reason: why.clone(),
                                };
                            }
                        }
                        changed.push(((*volume).clone(), record));
                    }
                }
            }
        }
        for volume in &mut volumes {
            if let Some(fault) = faults.remove(&volume.uuid()) {
                let record = VolumeRecord::clone(&volume.record());
                *volume = Arc::new(Volume::faulted(record, volume.map(), fault));
            }
        }
        if changed.is_empty() {
            return Ok(volumes);
        }
        let mut ready = Vec::new();
        for (volume, record) in changed {
            let layout = volume
                .prepare_layout(&record, devices)
                .map_err(|problem| PoolError::Inconsistent { problem })?;
            ready.push((volume, record, layout));
        }
        let changes = ready
            .iter()
            .map(|(_, record, _)| Change::Volume(Box::new(record.clone())))
            .collect();
        config.commit(changes).await?;
        for (volume, record, layout) in ready {
            let before = volume.record();
            for plex in &record.plexes {
                let PlexState::Detached { reason } = &plex.state else {
                    continue;
                };
                let at = position(&before, plex.uuid);
                if before.plexes.get(at).is_some_and(|p| p.is_attached()) {
                    self.keeper.tell(PoolEvent::PlexDetached {
                        volume: record.name.clone(),
                        plex: at,
                        devices: Vec::new(),
                        reason: reason.clone(),
                    });
                }
            }
            volume.publish(record, layout);
        }
        Ok(volumes)
    }
}
