//! Evacuating, replacing, failing and bringing back devices.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::moved::moved_ranges;
use super::plexes::{devices_of, new_job};
use super::start::Draft;
use super::{JobError, JobInfo};
use crate::block_device::BlockDevice;
use crate::config::{DeviceRecord, DeviceRole, JobKind, Plex, VolumeRecord};
use crate::pool::keep::{PoolEvent, stale_in};
use crate::pool::placement::Placing;
use crate::pool::{Inner, Pool, PoolError};
use crate::volume::Volume;

/// How long an operator waits for the keeper to take plexes out: longer than that takes when their copies answer.
const DETACH_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where what is on a device goes.
#[derive(Clone, Copy)]
struct Move {
    from: Uuid,
    /// `None`: anywhere.
    to: Option<Uuid>,
}

/// The plexes of a volume that take part and have something on `device`.
pub(super) fn attached_on<D: BlockDevice>(volume: &Volume<D>, device: Uuid) -> Vec<Uuid> {
    let record = volume.record();
    let plexes = record.plexes.iter();
    plexes
        .filter(|plex| plex.is_attached() && plex.is_on(device))
        .map(|plex| plex.uuid)
        .collect()
}

impl<D: BlockDevice> Pool<D> {
    /// Moves everything of volumes away from a device that stays in the pool: one job for each volume that has data or
    /// keys there. It is [`Closed`](crate::pool::Closed) from then on. Returns when the jobs are durable.
    ///
    /// # Errors
    /// [`PoolError`]; no job was started then.
    pub async fn device_evacuate(
        &self,
        name: &str,
        rate: Option<u64>,
    ) -> Result<Vec<JobInfo>, PoolError> {
        let from = self.device_record(name).await?.uuid;
        self.check_no_quorum_region(name, from).await?;
        self.move_away(Move { from, to: None }, rate).await
    }

    /// Puts a device in the place of another one, which may be dead: one job for each volume that has data or keys there.
    /// When they are done, the old device leaves the pool. Returns when the jobs are durable.
    ///
    /// # Errors
    /// [`PoolError`]; no job was started then. [`JobError::LastCopy`] names what only the old device had, if it is dead.
    pub async fn device_replace(
        &self,
        old: &str,
        new: &str,
        rate: Option<u64>,
    ) -> Result<Vec<JobInfo>, PoolError> {
        if old == new {
            return Err(JobError::SameDevice { name: old.into() }.into());
        }
        let from = self.device_record(old).await?.uuid;
        self.check_no_quorum_region(old, from).await?;
        let to = self.device_record(new).await?;
        {
            let inner = self.inner.lock().await;
            inner.named(std::slice::from_ref(&to.name), Some(DeviceRole::Data))?;
        }
        let to = to.uuid;
        let moved = self.move_away(Move { from, to: Some(to) }, rate).await?;
        self.keeper.state.lock().leaving.insert(from, to);
        self.keeper.wake();
        Ok(moved)
    }

    /// A quorum region does not move: what was granted there must not be forgotten between two places.
    async fn check_no_quorum_region(&self, name: &str, device: Uuid) -> Result<(), PoolError> {
        let documents = self.inner.lock().await.documents_on(device);
        if documents.is_empty() {
            return Ok(());
        }
        Err(PoolError::QuorumDevice {
            name: name.into(),
            documents: documents.join(", "),
        })
    }

    async fn move_away(&self, way: Move, rate: Option<u64>) -> Result<Vec<JobInfo>, PoolError> {
        let volumes: Vec<Arc<Volume<D>>> = self
            .volumes()
            .into_iter()
            .filter(|volume| {
                let record = volume.record();
                record.extents().any(|extent| extent.device == way.from)
            })
            .collect();
        if volumes.is_empty() {
            let mut inner = self.inner.lock().await;
            self.settle(&mut inner).await?;
            let closing = inner.closing(way.from, &[])?;
            inner.commit(vec![closing]).await?;
            return Ok(Vec::new());
        }
        self.start_jobs(volumes, Some(way.from), |inner, placing, volume, record| {
            self.draft_move(inner, placing, volume, record, way, rate)
        })
        .await
    }

    fn draft_move(
        &self,
        inner: &Inner<D>,
        placing: &mut Placing<'_>,
        volume: &Volume<D>,
        record: &VolumeRecord,
        way: Move,
        rate: Option<u64>,
    ) -> Result<Draft, PoolError> {
        let Move { from, to } = way;
        let kind = match to {
            None => JobKind::Evacuate { device: from },
            Some(new) => JobKind::Replace { old: from, new },
        };
        let mut job = new_job(kind, record, rate);
        for list in [&mut job.placement, &mut job.keys_placement] {
            if let (true, Some(new)) = (list.contains(&from), to)
                && !list.contains(&new)
            {
                list.push(new);
            }
            list.retain(|device| *device != from);
        }
        // What is there and cannot be read is lost, unless another plex has it.
        let readable = inner.devices.get(&from).is_some_and(|d| d.is_online());
        let going: Vec<&Plex> = record.plexes.iter().filter(|p| p.is_on(from)).collect();
        if !readable {
            let attached: Vec<Uuid> = going
                .iter()
                .filter(|plex| plex.is_attached())
                .map(|plex| plex.uuid)
                .collect();
            self.check_dispensable(volume, record, &attached, "the device")?;
        }
        let mut fresh = Vec::new();
        for plex in going {
            let others = record.plexes.iter().filter(|other| other.uuid != plex.uuid);
            let mut avoid = devices_of(others);
            avoid.extend(devices_of(fresh.iter().map(|(plex, _): &(Plex, _)| plex)));
            let new = match to {
                Some(new) => placing.replacement(plex, from, &[new], &avoid)?,
                None => {
                    let kept = inner.data_devices(&job.placement)?;
                    match placing.replacement(plex, from, &kept, &avoid) {
                        // It has to leave: where the devices it keeps to have no room, others will do.
                        Err(PoolError::NoSpace { .. }) if !job.placement.is_empty() => {
                            let any = inner.data_devices(&[])?;
                            placing.replacement(plex, from, &any, &avoid)?
                        }
                        placed => placed?,
                    }
                }
            };
            if !job.placement.is_empty() {
                job.placement.extend(devices_of([&new]));
                job.placement.sort_unstable();
                job.placement.dedup();
            }
            let mut stale = stale_in(volume, record, plex.uuid);
            for range in moved_ranges(plex, &new, record.size_bytes) {
                for region in
                    range.start / record.region_bytes..range.end.div_ceil(record.region_bytes)
                {
                    // Regions are at most 32,000.
                    stale.set(u32::try_from(region).unwrap_or(u32::MAX));
                }
            }
            job.retire.push(plex.uuid);
            fresh.push((new, stale));
        }
        let mut keys = Vec::new();
        let mut taken: BTreeSet<Uuid> = record.keys.iter().map(|keys| keys.extent.device).collect();
        for replica in record.keys.iter().filter(|k| k.extent.device == from) {
            let mut targets: Vec<Uuid> = to.into_iter().collect();
            targets.extend(inner.keys_devices(&job.keys_placement, &[])?);
            targets.retain(|device| *device != from && !taken.contains(device));
            if let Some(target) = targets.first() {
                taken.insert(*target);
                keys.push(placing.keys(&targets, &BTreeSet::new())?);
            } else if record.keys.len() == 1 {
                // The only one must not just go.
                return Err(PoolError::NoSpace {
                    what: "the keys",
                    needed_bytes: crate::private_region::MIN_REGION_BYTES,
                    places: "no other device can take them".into(),
                });
            }
            job.keys_retire.push(replica.uuid);
        }
        Ok(Draft { fresh, keys, job })
    }

    /// Has the plexes of a volume on a device that is out of use taken out. Returns when they are, when that has been
    /// tried without success, and after a while in any case.
    pub(super) async fn detach_soon(&self, volume: &Arc<Volume<D>>, device: Uuid) {
        self.keeper.not_hopeless(volume.uuid());
        let clock = self.handle_of(device);
        let (Some(clock), true) = (clock, self.keeper.is_running()) else {
            return self.detach_troubled(volume).await;
        };
        // The keeper's task is never dropped half-way, whatever it waits for.
        self.keeper.wake();
        let until = clock.now().saturating_add(DETACH_PATIENCE);
        while clock.now() < until
            && !attached_on(volume, device).is_empty()
            && !self.keeper.is_hopeless(volume.uuid())
        {
            clock.sleep(LOOK_AGAIN).await;
        }
    }

    pub(in crate::pool) async fn device_record(
        &self,
        name: &str,
    ) -> Result<DeviceRecord, PoolError> {
        let inner = self.inner.lock().await;
        let found = match &inner.config {
            Some(config) => config.config().devices.values().find(|d| d.name == name),
            None => None,
        };
        found
            .cloned()
            .ok_or_else(|| PoolError::NoSuchDevice { name: name.into() })
    }

    /// Takes a replaced device out of the pool when no volume has anything on it any more.
    pub(in crate::pool) async fn let_go(&self, old: Uuid, new: Uuid) {
        let snapshot = self.snapshot().await;
        let used = self
            .volumes()
            .iter()
            .any(|volume| volume.record().extents().any(|extent| extent.device == old));
        if used {
            return;
        }
        let (name, by) = (snapshot.name(old), snapshot.name(new));
        match self.device_remove(&name).await {
            Ok(()) => {
                self.keeper.state.lock().leaving.remove(&old);
                self.keeper
                    .tell(PoolEvent::DeviceReplaced { device: name, by });
            }
            Err(error) => {
                tracing::debug!(name, %error, "a replaced device cannot leave yet");
                let now = snapshot.devices.values().next().map(|clock| clock.now());
                let mut state = self.keeper.state.lock();
                let known = state.devices.entry(old).or_default();
                known.let_go.failed(now.unwrap_or_default());
            }
        }
    }
}
