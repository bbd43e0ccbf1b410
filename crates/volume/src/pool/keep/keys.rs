//! The replicas of private regions: repaired where their device is well, built anew elsewhere where it is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use uuid::Uuid;

use super::{PoolEvent, Retired, Snapshot};
use crate::block_device::BlockDevice;
use crate::config::{DeviceRecord, DeviceRole, KeysReplica, VolumeRecord};
use crate::page_store::{Replica, ReplicaHealth, ReplicaInfo};
use crate::pool::placement::keys_goal;
use crate::pool::{Pool, PoolError};
use crate::private_region::PrivateRegion;
use crate::volume::Volume;

/// How long a replica may be behind on a device that hangs before another one is made elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);
/// A private region that is busy for longer is looked at another time.
const BUSY: Duration = Duration::from_secs(5);

/// Whether a witness has a use: there are two disks, of which neither may be a majority.
fn witness_is_needed(devices: &BTreeMap<Uuid, DeviceRecord>) -> bool {
    let disks = devices.values().filter(|d| d.role == DeviceRole::Data);
    disks.count() == 2
}

/// Replicas on a witness that has no use, unless an operator wants them there.
fn unneeded<D: BlockDevice>(snapshot: &Snapshot<D>, record: &VolumeRecord) -> Vec<Uuid> {
    if witness_is_needed(&snapshot.records) {
        return Vec::new();
    }
    record
        .keys
        .iter()
        .filter(|keys| {
            let device = snapshot.records.get(&keys.extent.device);
            device.is_some_and(|device| device.role == DeviceRole::Witness)
                && !record.keys_placement.contains(&keys.extent.device)
        })
        .map(|keys| keys.uuid)
        .collect()
}

impl<D: BlockDevice> Pool<D> {
    /// Looks at the replicas of one volume's keys and does what can be done now.
    pub(super) async fn look_after_keys(&self, volume: Arc<Volume<D>>) {
        let Ok(region) = volume.private_region() else {
            return;
        };
        let mutex = self.keeper.keys_change(volume.uuid());
        let _held = mutex.lock().await;
        let snapshot = self.snapshot().await;
        let Some(clock) = snapshot.devices.values().next().cloned() else {
            return;
        };
        // A change of the replicas that was cut off, or a commit whose user does not come again: nothing can be changed there
        // until it is read again, and nobody else may do so for a long time.
        if region.is_unsettled() == Some(true) {
            let settled = region.recover().await;
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(volume.uuid()).or_default();
            if let Err(error) = settled {
                let name = &volume.record().name;
                tracing::debug!(volume = name, %error, "the keys cannot be read again yet");
                known.keys.failed(clock.now());
                return;
            }
            known.finish.worked();
        }
        let busy = async {
            clock.sleep(BUSY).await;
            None
        };
        let Some(Ok(health)) = or(async { Some(region.health_now().await) }, busy).await else {
            return;
        };
        let record = volume.record();
        let current = |info: &&ReplicaInfo| info.health == ReplicaHealth::Current;
        let well = health.iter().filter(current).count();
        let members: BTreeSet<Uuid> = health.iter().map(|info| info.uuid).collect();
        let in_job = |uuid: &Uuid| {
            let job = record.job.as_ref();
            job.is_some_and(|job| job.keys_fresh.contains(uuid) || job.keys_retire.contains(uuid))
        };
        let leftover = record
            .keys
            .iter()
            .any(|keys| !members.contains(&keys.uuid) && !in_job(&keys.uuid));
        let lost = self.note_lost_keys(&record, &health, clock.now());
        let unneeded = unneeded(&snapshot, &record);
        if well == health.len()
            && !leftover
            && unneeded.is_empty()
            && members.len() >= usize::from(record.keys_wanted)
        {
            return;
        }
        let done = self
            .mend_keys(&volume, region, &record, &health, &lost)
            .await;
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(record.uuid).or_default();
        match done {
            Ok(true) => known.keys.worked(),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(volume = record.name, %error, "the keys could not be mended yet");
                known.keys.failed(clock.now());
            }
        }
    }

    /// Remembers since when replicas are not current and tells of new ones. Returns how long each has been so.
    fn note_lost_keys(
        &self,
        record: &VolumeRecord,
        health: &[ReplicaInfo],
        now: Duration,
    ) -> BTreeMap<Uuid, Duration> {
        let mut events = Vec::new();
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(record.uuid).or_default();
        known.keys_lost.retain(|uuid, _| {
            health
                .iter()
                .any(|info| info.uuid == *uuid && info.health != ReplicaHealth::Current)
        });
        for info in health {
            if let ReplicaHealth::Stale(reason) = &info.health {
                known.keys_lost.entry(info.uuid).or_insert_with(|| {
                    events.push(PoolEvent::KeysReplicaLost {
                        volume: record.name.clone(),
                        device: info.device_name.clone(),
                        reason: reason.clone(),
                    });
                    now
                });
            }
        }
        let lost = known
            .keys_lost
            .iter()
            .map(|(uuid, since)| (*uuid, now.saturating_sub(*since)))
            .collect();
        drop(state);
        for event in events {
            self.keeper.tell(event);
        }
        lost
    }

    /// One step towards as many current replicas as are wanted. `Ok(true)` when it did something.
    async fn mend_keys(
        &self,
        volume: &Arc<Volume<D>>,
        region: &PrivateRegion<D>,
        record: &VolumeRecord,
        health: &[ReplicaInfo],
        lost: &BTreeMap<Uuid, Duration>,
    ) -> Result<bool, PoolError> {
        let snapshot = self.snapshot().await;
        let device_of = |uuid: Uuid| {
            let keys = record.keys.iter().find(|keys| keys.uuid == uuid);
            keys.map(|keys| keys.extent.device)
        };
        let mut dead = Vec::new();
        for info in health {
            if info.health == ReplicaHealth::Current {
                continue;
            }
            let device = device_of(info.uuid);
            let usable = device.is_some_and(|device| snapshot.unusable(device).is_none());
            let quiet = device
                .and_then(|device| snapshot.devices.get(&device))
                .is_some_and(|device| device.abandoned() == 0);
            let hung = device.is_some_and(|device| {
                let state = self.keeper.state.lock();
                let known = state.devices.get(&device);
                known.is_some_and(|known| known.hung_since.is_some())
            });
            if usable && quiet && !hung {
                let repaired = if info.device.is_some() {
                    region.repair(info.uuid).await
                } else {
                    match self.replica_of(record, info.uuid, &snapshot.devices) {
                        Some(replica) => region.add_replica(replica).await,
                        None => continue,
                    }
                };
                if repaired.is_ok() {
                    self.keeper.tell(PoolEvent::KeysReplicaRepaired {
                        volume: record.name.clone(),
                        device: device.map_or_else(String::new, |device| snapshot.name(device)),
                    });
                    return Ok(true);
                }
            }
            let waited = lost.get(&info.uuid).copied().unwrap_or_default();
            if !usable || waited >= PATIENCE {
                dead.push(info.uuid);
            }
        }
        // What an interrupted change left behind goes first: then the record says what there is.
        let members: BTreeSet<Uuid> = health.iter().map(|info| info.uuid).collect();
        let job = record.job.as_ref();
        let leftovers: Vec<Uuid> = record
            .keys
            .iter()
            .map(|keys| keys.uuid)
            .filter(|uuid| {
                !members.contains(uuid)
                    && !job.is_some_and(|job| {
                        job.keys_fresh.contains(uuid) || job.keys_retire.contains(uuid)
                    })
            })
            .collect();
        if !leftovers.is_empty() {
            for uuid in &leftovers {
                region.remove_replica(*uuid).await?;
            }
            self.drop_keys(volume, &leftovers).await?;
            return Ok(true);
        }
        // A witness that is not needed any more is left like one that is dead, but only for another device.
        for replica in unneeded(&snapshot, record) {
            if members.contains(&replica) && !dead.contains(&replica) {
                dead.push(replica);
            }
        }
        let good = members.len() - dead.len();
        let new = self.place_keys(volume, record, good, &dead).await?;
        let Some(new) = new else {
            // There are as many as there should be without it: a dead one more, which a job left behind, only asks for a
            // larger majority.
            if let Some(gone) = dead.first()
                && record.job.is_none()
                && good >= usize::from(record.keys_wanted).max(1)
            {
                region.remove_replica(*gone).await?;
                self.drop_keys(volume, &[*gone]).await?;
                return Ok(true);
            }
            // One disk is left: a replica beside it would be needed and not help.
            let unneeded = unneeded(&snapshot, record);
            if good == 1 && members.len() == 2 && unneeded.iter().any(|gone| dead.contains(gone)) {
                region.remove_replica(dead[0]).await?;
                self.drop_keys(volume, &dead[..1]).await?;
                return Ok(true);
            }
            return Ok(false);
        };
        let replica = self
            .replica_of(&volume.record(), new.uuid, &self.snapshot().await.devices)
            .ok_or_else(|| PoolError::Inconsistent {
                problem: "a replica of the keys that was just placed is gone".into(),
            })?;
        let added = region.add_replica(replica).await;
        {
            let mut state = self.keeper.state.lock();
            let refused = &mut state.volumes.entry(record.uuid).or_default().keys_refused;
            match &added {
                Ok(()) => refused.clear(),
                Err(_) => drop(refused.insert(new.extent.device)),
            }
        }
        added?;
        self.keeper.tell(PoolEvent::KeysReplicaRebuilt {
            volume: record.name.clone(),
            device: snapshot.name(new.extent.device),
        });
        if let Some(dead) = dead.first() {
            region.remove_replica(*dead).await?;
            self.drop_keys(volume, &[*dead]).await?;
        }
        Ok(true)
    }

    /// Commits a candidate for one more replica, where there should be one more than `good` and a device for it.
    async fn place_keys(
        &self,
        volume: &Arc<Volume<D>>,
        record: &VolumeRecord,
        good: usize,
        dead: &[Uuid],
    ) -> Result<Option<KeysReplica>, PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let data: Vec<Uuid> = record
            .plexes
            .iter()
            .filter(|plex| plex.is_attached())
            .flat_map(|plex| plex.extents().map(|extent| extent.device))
            .collect();
        let candidates = inner.keys_devices(&record.keys_placement, &data)?;
        let taken: BTreeSet<Uuid> = record.keys.iter().map(|keys| keys.extent.device).collect();
        let free: Vec<Uuid> = candidates
            .into_iter()
            .filter(|device| !taken.contains(device))
            .collect();
        let free = if free.is_empty() || witness_is_needed(&inner.config()?.devices) {
            free
        } else {
            inner.data_devices(&free)?
        };
        let goal = keys_goal(usize::from(record.keys_wanted), good + free.len());
        // A dead one is worth replacing by itself; without one, an even number is no better than the odd one below.
        if free.is_empty() || (good >= goal || dead.is_empty() && good + 1 > goal) {
            return Ok(None);
        }
        let refused = {
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(record.uuid).or_default();
            if free
                .iter()
                .all(|device| known.keys_refused.contains(device))
            {
                known.keys_refused.clear();
            }
            known.keys_refused.clone()
        };
        // A device may have died that nobody else writes to: with one that fails again and again it would never end.
        let (others, tried): (Vec<Uuid>, Vec<Uuid>) = free
            .into_iter()
            .partition(|device| !refused.contains(device));
        let mut placing = inner.placing()?;
        let replica = match placing.keys(&others, &taken) {
            Err(_) if !tried.is_empty() => placing.keys(&tried, &taken)?,
            placed => placed?,
        };
        let reserved = placing.finish();
        drop(inner);
        self.change_volume(volume, Vec::new(), |record| {
            record.keys.push(replica);
            Ok(())
        })
        .await?;
        reserved.committed();
        Ok(Some(replica))
    }

    /// Commits that candidates are none any more and gives their extents back; they do not count already.
    pub(in crate::pool) async fn drop_keys(
        &self,
        volume: &Arc<Volume<D>>,
        gone: &[Uuid],
    ) -> Result<(), PoolError> {
        let extents = volume
            .record()
            .keys
            .iter()
            .filter(|keys| gone.contains(&keys.uuid))
            .map(|keys| keys.extent)
            .collect::<Vec<_>>();
        let reserved = self.inner.lock().await.space.hold(extents.clone());
        self.change_volume(volume, Vec::new(), |record| {
            record.keys.retain(|keys| !gone.contains(&keys.uuid));
            Ok(())
        })
        .await?;
        self.retire(Retired {
            id: crate::fresh_uuid::fresh_uuid(),
            volume: None,
            uncertain: false,
            extents,
            reserved,
        });
        Ok(())
    }

    /// Where a replica is, if its device is there.
    pub(in crate::pool) fn replica_of(
        &self,
        record: &VolumeRecord,
        uuid: Uuid,
        devices: &BTreeMap<Uuid, Arc<crate::device::Device<D>>>,
    ) -> Option<Replica<D>> {
        let map = crate::pool::open::map_of(record).ok()?;
        crate::pool::open::keys_replicas(devices, record, &map)
            .into_iter()
            .find(|replica| replica.uuid == uuid)
    }
}
