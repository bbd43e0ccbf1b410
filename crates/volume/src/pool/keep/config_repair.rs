//! Copies of the configuration that are behind: brought up to date when their device is well.

use std::sync::Arc;

use uuid::Uuid;

use super::PoolEvent;
use crate::block_device::BlockDevice;
use crate::device::Device;
use crate::label;
use crate::page_store::{Replica, ReplicaHealth};
use crate::pool::{Inner, Pool};

impl<D: BlockDevice> Pool<D> {
    /// Repairs every copy of the configuration that can be repaired now.
    pub(super) async fn repair_config(&self) {
        loop {
            let snapshot = self.snapshot().await;
            let mut inner = self.inner.lock().await;
            let Some((device, absent)) = self.behind(&inner) else {
                return;
            };
            drop(inner);
            let now = device.now();
            // Where its copy is, the label says; read without the lock.
            let replica = if absent {
                match label::read(&device).await {
                    Ok(label) => Some(Replica {
                        uuid: device.uuid(),
                        device: device.clone(),
                        offset_bytes: label.areas.config_offset_bytes,
                        length_bytes: label.areas.config_length_bytes,
                    }),
                    Err(_) => None,
                }
            } else {
                None
            };
            inner = self.inner.lock().await;
            let repaired = match (&mut inner.config, replica) {
                (Some(config), Some(replica)) => config.rejoin(replica).await.is_ok(),
                (Some(config), None) if !absent => config.repair(device.uuid()).await.is_ok(),
                _ => false,
            };
            drop(inner);
            let mut state = self.keeper.state.lock();
            let known = state.devices.entry(device.uuid()).or_default();
            if repaired {
                known.config.worked();
            } else {
                known.config.failed(now);
            }
            drop(state);
            if repaired {
                self.config_well();
                self.keeper.tell(PoolEvent::ConfigReplicaRepaired {
                    device: snapshot.name(device.uuid()),
                });
            }
        }
    }

    /// A device whose copy is behind and that is well, and whether the store does not know where the copy is.
    fn behind(&self, inner: &Inner<D>) -> Option<(Arc<Device<D>>, bool)> {
        let config = inner.config.as_ref()?;
        if config.is_unsettled() {
            return None;
        }
        let state = self.keeper.state.lock();
        let well = |uuid: &Uuid| -> Option<Arc<Device<D>>> {
            let record = config.config().devices.get(uuid)?;
            let device = inner.devices.get(uuid)?;
            let known = state.devices.get(uuid);
            (record.failed.is_none()
                && device.is_online()
                && device.abandoned() == 0
                && known.is_none_or(|known| {
                    known.hung_since.is_none() && known.config.is_over(device.now())
                }))
            .then(|| device.clone())
        };
        config.health().into_iter().find_map(|info| {
            if info.health == ReplicaHealth::Current {
                return None;
            }
            Some((well(&info.uuid)?, info.device.is_none()))
        })
    }
}
