//! Adding, moving and removing copies of one volume.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::start::Draft;
use super::{JobError, JobInfo, Migrate, WhichPlex};
use crate::block_device::BlockDevice;
use crate::config::{
    Config, DeviceRole, Extent, Job, JobKind, KeysReplica, Plex, PlexLayout, VolumeRecord,
};
use crate::fresh_uuid::fresh_uuid;
use crate::pool::create::twice;
use crate::pool::keep::{Decision, Retired, region_count, stale_in};
use crate::pool::placement::{Placing, PlexRequest, keys_goal};
use crate::pool::{Inner, LayoutRequest, Pool, PoolError};
use crate::volume::regions::Regions;

/// The layout of a plex as a request.
pub(super) fn request_of(plex: &Plex) -> LayoutRequest {
    match plex.layout {
        PlexLayout::Linear => LayoutRequest::Linear,
        PlexLayout::Striped { stripe_unit_bytes } => LayoutRequest::Striped {
            columns: Some(plex.columns.len()),
            stripe_unit_bytes: Some(stripe_unit_bytes),
        },
    }
}

/// Devices of plexes.
pub(super) fn devices_of<'a>(plexes: impl IntoIterator<Item = &'a Plex>) -> BTreeSet<Uuid> {
    plexes
        .into_iter()
        .flat_map(|plex| plex.extents().map(|extent| extent.device))
        .collect()
}

/// A job without anything in it.
pub(super) fn new_job(kind: JobKind, record: &VolumeRecord, rate: Option<u64>) -> Job {
    Job {
        uuid: fresh_uuid(),
        kind,
        fresh: Vec::new(),
        retire: Vec::new(),
        keys_fresh: Vec::new(),
        keys_retire: Vec::new(),
        rate_bytes_per_second: rate,
        paused: false,
        placement: record.placement.clone(),
        keys_placement: record.keys_placement.clone(),
    }
}

/// Extents that a volume has before a change and not after it; what two plexes shared comes once.
pub(super) fn freed(before: &VolumeRecord, after: &VolumeRecord) -> Vec<Extent> {
    let key = |extent: &Extent| (extent.device, extent.offset_bytes, extent.length_bytes);
    let kept: BTreeSet<_> = after.extents().map(key).collect();
    let mut extents: BTreeMap<_, Extent> = BTreeMap::new();
    for extent in before.extents() {
        if !kept.contains(&key(extent)) {
            extents.insert(key(extent), *extent);
        }
    }
    extents.into_values().collect()
}

impl<D: BlockDevice> Pool<D> {
    /// Adds a copy to a volume, on the named devices or on any that no other copy is on. Returns when the job is durable.
    ///
    /// # Errors
    /// [`PoolError`]; the volume is as before then.
    pub async fn volume_add_mirror(
        &self,
        volume: &str,
        on: &[String],
        rate: Option<u64>,
    ) -> Result<JobInfo, PoolError> {
        let found = self.volume(volume)?;
        let infos = self
            .start_jobs(vec![found], None, |inner, placing, _, record| {
                let mut job = new_job(JobKind::AddMirror, record, rate);
                let allowed = if on.is_empty() {
                    inner.data_devices(&record.placement)?
                } else {
                    let named = inner.named(on, Some(DeviceRole::Data))?;
                    if !job.placement.is_empty() {
                        job.placement.extend(&named);
                        job.placement.sort_unstable();
                        job.placement.dedup();
                    }
                    named
                };
                let layout = record.plexes.first().map(request_of).unwrap_or_default();
                let plex = placing.plex(&PlexRequest {
                    size_bytes: record.size_bytes,
                    layout,
                    on: &allowed,
                    avoid: &devices_of(&record.plexes),
                })?;
                Ok(Draft {
                    fresh: vec![(plex, Regions::new(region_count(record), true))],
                    keys: Vec::new(),
                    job,
                })
            })
            .await?;
        first(infos, volume)
    }

    /// Moves a volume to other devices or to another layout, its keys too. Returns when the job is durable.
    ///
    /// # Errors
    /// [`PoolError`]; the volume is as before then.
    pub async fn volume_migrate(
        &self,
        volume: &str,
        request: Migrate,
    ) -> Result<JobInfo, PoolError> {
        let found = self.volume(volume)?;
        let infos = self
            .start_jobs(vec![found], None, |inner, placing, _, record| {
                let to = inner.named(&request.to, Some(DeviceRole::Data))?;
                if to.is_empty() {
                    let what = "no device to migrate to was named".into();
                    return Err(JobError::Nothing { what }.into());
                }
                let mut job = new_job(JobKind::Migrate, record, request.rate);
                job.retire = record.plexes.iter().map(|plex| plex.uuid).collect();
                job.placement = to.clone();
                let layout = request
                    .layout
                    .or_else(|| record.plexes.first().map(request_of))
                    .unwrap_or_default();
                let mirrors = request.mirrors.unwrap_or(record.plexes.len()).max(1);
                let mut avoid = BTreeSet::new();
                let mut fresh = Vec::with_capacity(mirrors);
                for _ in 0..mirrors {
                    let plex = placing.plex(&PlexRequest {
                        size_bytes: record.size_bytes,
                        layout,
                        on: &to,
                        avoid: &avoid,
                    })?;
                    avoid.extend(devices_of([&plex]));
                    fresh.push((plex, Regions::new(region_count(record), true)));
                }
                let targets = if request.keys_to.is_empty() {
                    keys_beside(inner, record, &to)?
                } else {
                    let named = inner.named(&request.keys_to, None)?;
                    if named.len() < request.keys_to.len() {
                        let name = twice(&request.keys_to);
                        return Err(PoolError::KeysTwice { name });
                    }
                    job.keys_placement = named.clone();
                    named
                };
                let keys = move_keys(placing, record, &targets, &mut job)?;
                Ok(Draft { fresh, keys, job })
            })
            .await?;
        first(infos, volume)
    }

    /// Takes a copy away from a volume.
    ///
    /// # Errors
    /// [`JobError::LastCopy`] when it holds the only valid copy of something, [`JobError::Busy`] while a job has to do
    /// with it; the volume is as before then.
    pub async fn volume_remove_mirror(
        &self,
        volume: &str,
        which: WhichPlex,
    ) -> Result<(), PoolError> {
        let found = self.volume(volume)?;
        let mutex = self.keeper.plexes(found.uuid());
        let _held = mutex.lock().await;
        let snapshot = self.snapshot().await;
        let record = found.record();
        let wanted = match &which {
            WhichPlex::Any => record
                .plexes
                .iter()
                .find(|plex| !plex.is_attached())
                .or(record.plexes.last()),
            WhichPlex::Position(at) => record.plexes.get(*at),
            WhichPlex::On(name) => {
                let device = snapshot.records.values().find(|d| d.name == *name);
                let device =
                    device.ok_or_else(|| PoolError::NoSuchDevice { name: name.clone() })?;
                record.plexes.iter().find(|plex| plex.is_on(device.uuid))
            }
        };
        let plex = wanted.cloned().ok_or_else(|| JobError::NoSuchPlex {
            volume: volume.into(),
            which: match &which {
                WhichPlex::Any => "at all".into(),
                WhichPlex::Position(at) => format!("{at}"),
                WhichPlex::On(name) => format!("on device {name}"),
            },
        })?;
        if let Some(job) = &record.job {
            return Err(JobError::Busy {
                volume: volume.into(),
                job: super::progress::name_of(&snapshot.records, &job.kind).to_string(),
            }
            .into());
        }
        if record.plexes.iter().filter(|p| p.is_attached()).count() == 1 && plex.is_attached() {
            return Err(JobError::LastCopy {
                volume: volume.into(),
                what: "that plex".into(),
                ranges: "everything".into(),
                advice: match record.plexes.len() {
                    1 => "add another mirror first, or delete the volume",
                    _ => "bring the other copies back first",
                },
            }
            .into());
        }
        self.check_dispensable(&found, &record, &[plex.uuid], "that plex")?;
        let mut after = VolumeRecord::clone(&record);
        after.plexes.retain(|p| p.uuid != plex.uuid);
        let extents = freed(&record, &after);
        let reserved = self.inner.lock().await.space.hold(extents.clone());
        let changed = self
            .change_volume(&found, Vec::new(), |record| {
                record.plexes.retain(|p| p.uuid != plex.uuid);
                Ok(())
            })
            .await;
        // After an error it may have happened all the same: then something may still be on its way to the copy, too.
        self.retire(Retired {
            id: fresh_uuid(),
            volume: Some(found.clone()),
            uncertain: changed.is_err(),
            extents,
            reserved,
        });
        changed
    }

    /// Refuses when plexes hold the only valid copy of something.
    pub(super) fn check_dispensable(
        &self,
        volume: &crate::volume::Volume<D>,
        record: &VolumeRecord,
        plexes: &[Uuid],
        what: &str,
    ) -> Result<(), PoolError> {
        let trouble = plexes
            .iter()
            .map(|plex| (*plex, crate::pool::keep::Trouble::default()))
            .collect();
        let needed = self
            .decisions(volume, record, &trouble)
            .into_values()
            .any(|decision| !matches!(decision, Decision::Detach | Decision::Nothing));
        if !needed {
            return Ok(());
        }
        Err(JobError::LastCopy {
            volume: record.name.clone(),
            what: what.into(),
            ranges: super::progress::text_of(&self.only_in(volume, record, plexes)),
            advice: "bring other copies back or wait until they are complete",
        }
        .into())
    }

    /// The ranges of which only `plexes` have a valid copy.
    pub(super) fn only_in(
        &self,
        volume: &crate::volume::Volume<D>,
        record: &VolumeRecord,
        plexes: &[Uuid],
    ) -> Vec<super::ByteRange> {
        let mut regions = Regions::new(region_count(record), true);
        for plex in record.plexes.iter().filter(|plex| plex.is_attached()) {
            if !plexes.contains(&plex.uuid) {
                let mut valid = Regions::new(region_count(record), true);
                valid.subtract(&stale_in(volume, record, plex.uuid));
                regions.subtract(&valid);
            }
        }
        super::progress::ranges_of(&regions, record.region_bytes, record.size_bytes)
    }
}

/// The one job that was started.
fn first(infos: Vec<JobInfo>, volume: &str) -> Result<JobInfo, PoolError> {
    infos.into_iter().next().ok_or_else(|| {
        let volume = volume.into();
        JobError::NoJob { volume }.into()
    })
}

/// Devices for the keys of a volume that goes to `to`: those, witnesses, others that the data is not on now, and where there
/// are too few of these, those that it leaves: fewer copies than there could be would only be made again.
fn keys_beside<D: BlockDevice>(
    inner: &Inner<D>,
    record: &VolumeRecord,
    to: &[Uuid],
) -> Result<Vec<Uuid>, PoolError> {
    // Where a copy is one stays, if nothing speaks against it.
    let has = |device: &Uuid| record.keys.iter().any(|keys| keys.extent.device == *device);
    let config: &Config = inner.config()?;
    let leaving = devices_of(&record.plexes);
    let rank = |device: &Uuid| {
        if to.contains(device) {
            0
        } else if config
            .devices
            .get(device)
            .is_some_and(|record| record.role == DeviceRole::Witness)
        {
            1
        } else if leaving.contains(device) {
            3
        } else {
            2
        }
    };
    let mut devices = inner.keys_devices_and(&[], to, to)?;
    devices.sort_by_key(|device| (rank(device), !has(device)));
    Ok(devices)
}

/// Replicas on `targets`, as many as there should be: those that are there stay, others come, the rest goes.
pub(super) fn move_keys(
    placing: &mut Placing<'_>,
    record: &VolumeRecord,
    targets: &[Uuid],
    job: &mut Job,
) -> Result<Vec<KeysReplica>, PoolError> {
    let goal = keys_goal(usize::from(record.keys_wanted), targets.len());
    let targets = &targets[..goal.min(targets.len())];
    let mut fresh = Vec::new();
    let mut has: BTreeSet<Uuid> = record.keys.iter().map(|keys| keys.extent.device).collect();
    for target in targets {
        if has.insert(*target) {
            // A replica there already is taken; elsewhere than there it must not go.
            fresh.push(placing.keys(std::slice::from_ref(target), &BTreeSet::new())?);
        }
    }
    job.keys_retire = record
        .keys
        .iter()
        .filter(|keys| !targets.contains(&keys.extent.device))
        .map(|keys| keys.uuid)
        .collect();
    Ok(fresh)
}
