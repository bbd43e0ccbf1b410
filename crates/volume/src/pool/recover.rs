//! Volumes that are not served because of their keys: what the replicas say, and going on from one of them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use reservation::{LostUntil, State};
use uuid::Uuid;

use super::open::{Restart, keys_replicas, map_of, open_volume};
use super::placement::keys_goal;
use super::space::Reserved;
use super::zeroing::zero;
use super::{Inner, Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::{Change, Extent, KeysReplica, VolumeRecord};
use crate::page_store::{Replica, ReplicaHealth};
use crate::private_region::{Inspection, PrivateRegion, Version};
use crate::volume::Volume;

/// How long a change of the keys that is under way may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);

/// How one replica of a private region is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysCopy {
    /// It has everything.
    Current,
    /// It misses something, and why.
    Stale(String),
    /// Its device is not there.
    Missing,
    /// It is there and is not a replica of this volume, or not a whole one.
    Damaged(String),
    /// Its device fails or does not answer.
    Unreadable(String),
    /// It does not count: it is to be made one, or to go.
    Unused,
}

impl fmt::Display for KeysCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeysCopy::Current => f.write_str("current"),
            KeysCopy::Stale(why) => write!(f, "stale: {why}"),
            KeysCopy::Missing => f.write_str("missing"),
            KeysCopy::Damaged(why) => write!(f, "damaged: {why}"),
            KeysCopy::Unreadable(why) => write!(f, "unreadable: {why}"),
            KeysCopy::Unused => f.write_str("unused"),
        }
    }
}

/// A replica of a private region, as it is on its device now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysReplicaStatus {
    /// Identity of the replica.
    pub uuid: Uuid,
    /// Name of its device.
    pub device: String,
    /// How it is.
    pub state: KeysCopy,
    /// Sequence of its newest valid header.
    pub sequence: Option<u64>,
}

/// One version of a volume's keys, on one device or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysVersion {
    /// Names of the devices that have it.
    pub devices: Vec<String>,
    /// Number of the commit.
    pub sequence: u64,
    /// Identifies it for [`Pool::keys_recover`].
    pub token: u64,
    /// What it holds, or why that cannot be read.
    pub state: Result<State, String>,
}

/// What the devices say about a volume's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysInspection {
    /// Why the keys cannot be served; `None` when they can.
    pub problem: Option<String>,
    /// Each replica that the configuration names.
    pub replicas: Vec<KeysReplicaStatus>,
    /// Each version, the newest first. Where copies contradict one another there are two of one sequence.
    pub versions: Vec<KeysVersion>,
    /// Position of the version that counts, when the keys can be served.
    pub current: Option<usize>,
}

/// Replicas that are written and that nobody knows of.
struct Draft {
    keys: Vec<KeysReplica>,
    reserved: Reserved,
}

/// Where the keys of a volume are.
struct Keys<D> {
    record: Arc<VolumeRecord>,
    replicas: Vec<Replica<D>>,
    /// Of each replica of the record: its device's name, and whether it is there.
    devices: Vec<(KeysReplica, String)>,
}

impl<D: BlockDevice> Pool<D> {
    /// Reads what the devices say about a volume's keys, whether it is served or not. Writes nothing.
    ///
    /// # Errors
    /// [`PoolError::NoSuchVolume`]; what the devices say is never an error.
    pub async fn keys_inspect(&self, name: &str) -> Result<KeysInspection, PoolError> {
        let (volume, keys) = {
            let inner = self.inner.lock().await;
            let volume = self.volume(name)?;
            let keys = keys_of(&inner, &volume)?;
            (volume, keys)
        };
        let said = PrivateRegion::inspect(volume.uuid(), &keys.replicas).await?;
        let mut inspection = present(&keys, &said);
        if let Ok(region) = volume.private_region() {
            // What is served knows more than the copies tell.
            for info in region.health().await {
                let status = inspection.replicas.iter_mut();
                if let ReplicaHealth::Stale(why) = info.health
                    && let Some(status) = status.into_iter().find(|status| {
                        status.uuid == info.uuid && status.state == KeysCopy::Current
                    })
                {
                    status.state = KeysCopy::Stale(why);
                }
            }
        }
        Ok(inspection)
    }

    /// A person's choice for a volume whose keys have no majority or contradict one another: its keys become the version
    /// `token` (of [`Pool::keys_inspect`]) that device `from` has, marked as lost (SPC-4 5.13.5.3) `until` what ends that,
    /// on new replicas. Where an earlier recovery turns out to have happened, it is as that one said. The
    /// caller has stopped serving the volume. A volume that was served stays the same one; one with a fault is opened
    /// again and comes back in the place of the old one.
    ///
    /// The new replicas are written in space that nobody uses. Then one commit of the configuration names them instead of
    /// the old ones, which nobody asks any more: a crash before it leaves everything as it was.
    ///
    /// # Errors
    /// [`PoolError::KeysHaveQuorum`], [`PoolError::KeysNotThere`], [`PoolError::KeysBusy`]; no space; any device.
    pub async fn keys_recover(
        &self,
        name: &str,
        from: &str,
        token: u64,
        until: LostUntil,
    ) -> Result<Arc<Volume<D>>, PoolError> {
        // The keeper and jobs must not go on with what they know of the old replicas. They may hang with these.
        let keys_change = self.keeper.keys_change(self.volume(name)?.uuid());
        let clock = self.snapshot().await.devices.into_values().next();
        let late = async {
            match &clock {
                Some(clock) => clock.sleep(PATIENCE).await,
                None => std::future::pending().await,
            }
            None
        };
        let Some(_held) = or(async { Some(keys_change.lock().await) }, late).await else {
            return Err(PoolError::KeysBusy {
                volume: name.into(),
            });
        };
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(name)?;
        let keys = keys_of(&inner, &volume)?;
        drop(inner);
        let said = PrivateRegion::inspect(volume.uuid(), &keys.replicas).await?;
        if said.problem.is_none() {
            if let Ok(region) = volume.private_region()
                && region.is_closed().await
            {
                // A recovery whose outcome was not known: this is the outcome.
                region.replace(keys.replicas).await?;
                return Ok(volume);
            }
            return Err(PoolError::KeysHaveQuorum {
                volume: name.into(),
            });
        }
        let chosen = chosen(&said, &keys, name, from, token)?;
        if let Ok(region) = volume.private_region() {
            // The versions above come from at least one device.
            let clock = keys.replicas.first().map(|replica| &replica.device);
            let closed = match clock {
                Some(device) => device.within(PATIENCE, region.close()).await,
                None => None,
            };
            if closed.is_none() {
                return Err(PoolError::KeysBusy {
                    volume: name.into(),
                });
            }
        }
        let draft = match self
            .draft_recovery(&volume, &keys, (chosen, token), until)
            .await
        {
            Ok(draft) => draft,
            Err(error) => {
                // Nothing has changed.
                if let Ok(region) = volume.private_region() {
                    region.resume().await;
                }
                return Err(error);
            }
        };
        // From here on the old replicas may be dropped: what was closed stays closed when this fails.
        self.finish_recovery(&volume, &keys, draft).await
    }

    /// Writes the new replicas.
    async fn draft_recovery(
        &self,
        volume: &Arc<Volume<D>>,
        keys: &Keys<D>,
        (chosen, token): (Uuid, u64),
        until: LostUntil,
    ) -> Result<Draft, PoolError> {
        let inner = self.inner.lock().await;
        let (new, reserved) = place(&inner, &keys.record, chosen)?;
        let mut record = VolumeRecord::clone(&keys.record);
        record.keys = new;
        let map = map_of(&record)?;
        let targets = keys_replicas(&inner.devices, &record, &map);
        let extents = inner.on_devices(reserved.extents().iter().copied());
        drop(inner);
        let written = async {
            zero(&extents).await?;
            let (uuid, from) = (volume.uuid(), &keys.replicas);
            PrivateRegion::recover_from(uuid, from, chosen, token, until, targets).await?;
            Ok::<_, PoolError>(())
        }
        .await;
        match written {
            Ok(()) => Ok(Draft {
                keys: record.keys,
                reserved,
            }),
            Err(error) => {
                reserved.freed();
                Err(error)
            }
        }
    }

    /// Commits the configuration that names them.
    async fn finish_recovery(
        &self,
        volume: &Arc<Volume<D>>,
        keys: &Keys<D>,
        Draft {
            keys: new,
            reserved,
        }: Draft,
    ) -> Result<Arc<Volume<D>>, PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let now = self.volume(&keys.record.name)?.record();
        if now.uuid != keys.record.uuid || now.keys != keys.record.keys {
            reserved.freed();
            if let Ok(region) = volume.private_region() {
                region.resume().await;
            }
            return Err(PoolError::KeysBusy {
                volume: keys.record.name.clone(),
            });
        }
        let mut record = VolumeRecord {
            keys: new,
            ..VolumeRecord::clone(&now)
        };
        if let Some(job) = &mut record.job {
            // They were of the old replicas.
            job.keys_fresh.clear();
            job.keys_retire.clear();
        }
        let old = inner.space.hold(extents_of(&keys.record.keys));
        let changes = vec![Change::Volume(Box::new(record.clone()))];
        let recovered = match volume.private_region() {
            Ok(region) => {
                let layout = volume
                    .prepare_layout(&record, &inner.devices)
                    .map_err(|problem| PoolError::Inconsistent { problem })?;
                let targets = keys_replicas(&inner.devices, &record, &map_of(&record)?);
                inner.commit(changes).await?;
                volume.publish(record, layout);
                region.replace(targets).await?;
                volume.clone()
            }
            Err(_) => {
                inner.commit(changes).await?;
                volume.close().await;
                self.open_in_place(&mut inner, record).await?
            }
        };
        reserved.committed();
        // Where something may still land, nothing is placed before it has.
        old.freed();
        Ok(recovered)
    }

    /// Opens a volume again that is not served, after what was missing has come back. Returns the volume in the place of
    /// the old one; it may have a fault still. One that is served is left alone.
    ///
    /// # Errors
    /// [`PoolError::NoSuchVolume`], [`PoolError::Inconsistent`].
    pub async fn volume_reopen(&self, name: &str) -> Result<Arc<Volume<D>>, PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(name)?;
        if volume.fault().is_none() {
            return Ok(volume);
        }
        volume.close().await;
        let record = VolumeRecord::clone(&volume.record());
        self.open_in_place(&mut inner, record).await
    }

    pub(super) async fn open_in_place(
        &self,
        inner: &mut Inner<D>,
        record: VolumeRecord,
    ) -> Result<Arc<Volume<D>>, PoolError> {
        let map = Arc::new(map_of(&record)?);
        let lun = record.lun;
        let mut opened = Arc::new(
            open_volume(
                &inner.devices,
                record,
                map,
                self.boot_id,
                Restart::PowerOn,
                &self.keeper.reports,
            )
            .await,
        );
        if let Some(store) = &mut inner.config {
            let detached = self.detach_missing(store, &inner.devices, vec![opened.clone()]);
            opened = detached.await?.pop().unwrap_or(opened);
        }
        self.update_volumes(|volumes| volumes.insert(lun, opened.clone()));
        Ok(opened)
    }
}

fn extents_of(keys: &[KeysReplica]) -> Vec<Extent> {
    keys.iter().map(|replica| replica.extent).collect()
}

fn keys_of<D: BlockDevice>(inner: &Inner<D>, volume: &Volume<D>) -> Result<Keys<D>, PoolError> {
    let record = volume.record();
    let map = map_of(&record)?;
    let config = inner.config()?;
    let devices = record
        .keys
        .iter()
        .map(|replica| {
            let device = config.devices.get(&replica.extent.device);
            (
                *replica,
                device.map_or_else(String::new, |device| device.name.clone()),
            )
        })
        .collect();
    Ok(Keys {
        replicas: keys_replicas(&inner.devices, &record, &map),
        devices,
        record,
    })
}

/// The replica on device `from`, if it has the version `token`.
fn chosen<D>(
    said: &Inspection,
    keys: &Keys<D>,
    volume: &str,
    from: &str,
    token: u64,
) -> Result<Uuid, PoolError> {
    let on_device = |replica: &Uuid| {
        let mut devices = keys.devices.iter();
        devices.any(|(known, name)| known.uuid == *replica && name == from)
    };
    said.versions
        .iter()
        .filter(|version| version.token == token)
        .flat_map(|version| &version.replicas)
        .find(|replica| on_device(replica))
        .copied()
        .ok_or_else(|| PoolError::KeysNotThere {
            volume: volume.into(),
            device: from.into(),
        })
}

/// Places new replicas: as many as are wanted, on the devices of the old ones first.
fn place<D: BlockDevice>(
    inner: &Inner<D>,
    record: &VolumeRecord,
    chosen: Uuid,
) -> Result<(Vec<KeysReplica>, Reserved), PoolError> {
    let mut first: Vec<Uuid> = record
        .keys
        .iter()
        .map(|replica| replica.extent.device)
        .collect();
    // The one that was chosen before all.
    if let Some(index) = record.keys.iter().position(|keys| keys.uuid == chosen) {
        first.swap(0, index);
    }
    let wanted = usize::from(record.keys_wanted).max(1);
    let mut on = inner.keys_devices(&record.keys_placement, &first)?;
    if on.is_empty() {
        // The places that were named are gone; the keys are worth more than their place.
        on = inner.keys_devices(&[], &first)?;
    }
    let mut placing = inner.placing()?;
    let mut keys: Vec<KeysReplica> = Vec::new();
    let mut taken = BTreeSet::new();
    let goal = keys_goal(wanted, on.len()).max(1);
    while keys.len() < goal {
        match placing.keys(&on, &taken) {
            Ok(replica) => {
                taken.insert(replica.extent.device);
                keys.push(replica);
            }
            Err(error) if keys.is_empty() => return Err(error),
            Err(_) => {
                keys.truncate(keys_goal(wanted, keys.len()).max(1));
                break;
            }
        }
    }
    Ok((keys, placing.finish()))
}

fn present<D>(keys: &Keys<D>, said: &Inspection) -> KeysInspection {
    let current: Option<&Version> = said.current.map(|index| &said.versions[index]);
    let replicas = keys
        .devices
        .iter()
        .map(|(replica, device)| {
            let report = said
                .replicas
                .iter()
                .find(|report| report.uuid == replica.uuid);
            let state = match report {
                None => KeysCopy::Missing,
                Some(report) => match (&report.problem, current) {
                    (Some(why), _) if report.unreadable => KeysCopy::Unreadable(why.clone()),
                    (Some(why), _) => KeysCopy::Damaged(why.clone()),
                    (None, Some(version)) if version.replicas.contains(&replica.uuid) => {
                        KeysCopy::Current
                    }
                    (None, Some(version)) if !version.members.contains(&replica.uuid) => {
                        KeysCopy::Unused
                    }
                    (None, Some(_)) => KeysCopy::Stale("it is behind the others".into()),
                    (None, None) => KeysCopy::Stale("no majority says what is current".into()),
                },
            };
            KeysReplicaStatus {
                uuid: replica.uuid,
                device: device.clone(),
                state,
                sequence: report.and_then(|report| report.sequence),
            }
        })
        .collect();
    let versions = said.versions.iter();
    KeysInspection {
        problem: said.problem.clone(),
        replicas,
        versions: versions
            .map(|version| KeysVersion {
                devices: version.device_names.clone(),
                sequence: version.sequence,
                token: version.token,
                state: version.state.clone(),
            })
            .collect(),
        current: said.current,
    }
}
