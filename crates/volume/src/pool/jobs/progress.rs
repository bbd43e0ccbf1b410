//! What operators see of jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use uuid::Uuid;

use super::moved::moved_ranges;
use crate::block_device::BlockDevice;
use crate::config::{DeviceRecord, Job, JobKind, Plex, PlexLayout, PlexState, VolumeRecord};
use crate::pool::keep::{region_count, stale_in};
use crate::pool::{Pool, PoolError};
use crate::volume::Volume;
use crate::volume::regions::Regions;

/// What a job does, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobName {
    /// One more plex.
    AddMirror,
    /// To other devices or another layout.
    Migrate,
    /// Away from a device that stays in the pool.
    Evacuate {
        /// The device.
        device: String,
    },
    /// From a device to another one that takes its place.
    Replace {
        /// The device that goes.
        old: String,
        /// The device that comes.
        new: String,
    },
    /// No job of an operator: plexes are being made the same again.
    Resync,
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobName::AddMirror => "add-mirror",
            JobName::Migrate => "migrate",
            JobName::Evacuate { .. } => "evacuate",
            JobName::Replace { .. } => "replace",
            JobName::Resync => "resync",
        })
    }
}

/// A run of a volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
}

/// Whether a job goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It does.
    Running,
    /// An operator paused it.
    Paused,
    /// It cannot; it goes on by itself when what it lacks is back.
    Stalled {
        /// Why.
        reason: String,
        /// What has no valid copy now; empty when something else is missing.
        ranges: Vec<ByteRange>,
    },
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Identity of the job; of the volume for a resync.
    pub id: Uuid,
    /// The volume.
    pub volume: String,
    /// What is done.
    pub kind: JobName,
    /// Whether it goes on.
    pub state: JobState,
    /// Bytes that need no copying any more. It only grows while the job lives, but for what a device that went away misses.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Limit that an operator set, in bytes per second.
    pub limit_bytes_per_second: Option<u64>,
    /// Names of the devices that the data comes from.
    pub from: Vec<String>,
    /// Names of the devices that it goes to.
    pub to: Vec<String>,
}

/// Whether a plex takes part, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlexInfo {
    /// Which copy, from 0.
    pub position: usize,
    /// Identity.
    pub uuid: Uuid,
    /// How its columns combine.
    pub layout: PlexLayout,
    /// Columns.
    pub columns: usize,
    /// Whether it takes part.
    pub state: PlexState,
    /// A job is filling it.
    pub fresh: bool,
    /// It goes when the job is done.
    pub retiring: bool,
    /// Names of its devices.
    pub devices: Vec<String>,
    /// Bytes of it that are not valid.
    pub stale_bytes: u64,
    /// Bytes in all.
    pub size_bytes: u64,
}

/// What a job does, by names.
pub(in crate::pool) fn name_of(devices: &BTreeMap<Uuid, DeviceRecord>, kind: &JobKind) -> JobName {
    let name = |uuid: &Uuid| {
        let record = devices.get(uuid);
        record.map_or_else(|| uuid.to_string(), |record| record.name.clone())
    };
    match kind {
        JobKind::AddMirror => JobName::AddMirror,
        JobKind::Migrate => JobName::Migrate,
        JobKind::Evacuate { device } => JobName::Evacuate {
            device: name(device),
        },
        JobKind::Replace { old, new } => JobName::Replace {
            old: name(old),
            new: name(new),
        },
    }
}

/// Runs of regions as bytes.
pub(super) fn ranges_of(regions: &Regions, region_bytes: u64, size_bytes: u64) -> Vec<ByteRange> {
    let mut ranges: Vec<ByteRange> = Vec::new();
    for region in regions.iter() {
        let start = u64::from(region) * region_bytes;
        let length_bytes = region_bytes.min(size_bytes.saturating_sub(start));
        match ranges.last_mut() {
            Some(last) if last.offset_bytes + last.length_bytes == start => {
                last.length_bytes += length_bytes;
            }
            _ => ranges.push(ByteRange {
                offset_bytes: start,
                length_bytes,
            }),
        }
    }
    ranges
}

/// Ranges for people; the first few of many.
pub(in crate::pool) fn text_of(ranges: &[ByteRange]) -> String {
    const SHOWN: usize = 8;
    if ranges.is_empty() {
        return "nothing".into();
    }
    let mut parts: Vec<String> = ranges
        .iter()
        .take(SHOWN)
        .map(|range| format!("{} bytes at {}", range.length_bytes, range.offset_bytes))
        .collect();
    if ranges.len() > SHOWN {
        parts.push(format!("{} more ranges", ranges.len() - SHOWN));
    }
    parts.join(", ")
}

/// Bytes that a job has to copy in all: what its fresh plexes do not share.
fn total_bytes(record: &VolumeRecord, job: &Job, region_bytes: u64) -> u64 {
    let plex = |uuid: &Uuid| record.plexes.iter().find(|plex| plex.uuid == *uuid);
    job.fresh
        .iter()
        .filter_map(plex)
        .map(|fresh| match fresh.replaces.as_ref().and_then(plex) {
            None => record.size_bytes,
            Some(old) => {
                let mut regions = BTreeSet::new();
                for range in moved_ranges(old, fresh, record.size_bytes) {
                    regions.extend(range.start / region_bytes..range.end.div_ceil(region_bytes));
                }
                (regions.len() as u64 * region_bytes).min(record.size_bytes)
            }
        })
        .sum()
}

fn devices_by_name<'a>(
    devices: &BTreeMap<Uuid, DeviceRecord>,
    plexes: impl IntoIterator<Item = &'a Plex>,
) -> Vec<String> {
    let mut names: Vec<String> = plexes
        .into_iter()
        .flat_map(Plex::extents)
        .filter_map(|extent| Some(devices.get(&extent.device)?.name.clone()))
        .collect();
    names.sort();
    names.dedup();
    names
}

impl<D: BlockDevice> Pool<D> {
    /// What goes on now: at most one job for each volume, or its resync, by LUN.
    pub async fn jobs(&self) -> Vec<JobInfo> {
        let snapshot = self.snapshot().await;
        self.volumes()
            .iter()
            .filter(|volume| volume.fault().is_none())
            .filter_map(|volume| self.job_info(&snapshot.records, volume, &volume.record()))
            .collect()
    }

    /// The job of a volume, or its resync, if there is any.
    ///
    /// # Errors
    /// [`PoolError::NoSuchVolume`].
    pub async fn job_status(&self, volume: &str) -> Result<Option<JobInfo>, PoolError> {
        let volume = self.volume(volume)?;
        let snapshot = self.snapshot().await;
        Ok(self.job_info(&snapshot.records, &volume, &volume.record()))
    }

    pub(in crate::pool) fn job_info(
        &self,
        devices: &BTreeMap<Uuid, DeviceRecord>,
        volume: &Volume<D>,
        record: &VolumeRecord,
    ) -> Option<JobInfo> {
        if record.plexes.len() == 1 && record.job.is_none() || volume.fault().is_some() {
            return None;
        }
        let region_bytes = record.region_bytes;
        let bytes = |regions: u64| regions.saturating_mul(region_bytes).min(record.size_bytes);
        let (stall, resync_paused, resync_rate, resync_bytes) = {
            let state = self.keeper.state.lock();
            match state.volumes.get(&record.uuid) {
                Some(known) => (
                    known.stall.clone(),
                    known.resync_paused,
                    known.resync_rate,
                    known.resync_bytes,
                ),
                None => (None, false, None, None),
            }
        };
        let stalled = |stall: Option<crate::pool::keep::Stall>| match stall {
            Some(stall) => JobState::Stalled {
                reason: stall.reason,
                ranges: stall.ranges,
            },
            None => JobState::Running,
        };
        let Some(job) = &record.job else {
            let mut left = Regions::new(region_count(record), false);
            left.union(&volume.unsettled());
            for plex in record.plexes.iter().filter(|plex| plex.is_attached()) {
                left.union(&stale_in(volume, record, plex.uuid));
            }
            if left.is_empty() {
                return None;
            }
            let left_bytes = bytes(u64::from(left.count_ones()));
            let total_bytes = resync_bytes.unwrap_or(0).max(left_bytes);
            let behind = |plex: &&Plex| plex.is_attached() && volume.stale_count(plex.uuid) > 0;
            return Some(JobInfo {
                id: record.uuid,
                volume: record.name.clone(),
                kind: JobName::Resync,
                state: if resync_paused {
                    JobState::Paused
                } else {
                    stalled(stall)
                },
                done_bytes: total_bytes - left_bytes,
                total_bytes,
                limit_bytes_per_second: resync_rate,
                from: devices_by_name(
                    devices,
                    record
                        .plexes
                        .iter()
                        .filter(|p| p.is_attached() && !behind(p)),
                ),
                to: devices_by_name(devices, record.plexes.iter().filter(behind)),
            });
        };
        let fresh = |plex: &&Plex| job.fresh.contains(&plex.uuid);
        let away: Vec<&Plex> = record
            .plexes
            .iter()
            .filter(|plex| fresh(plex) && !plex.is_attached())
            .collect();
        let stall = stall.or_else(|| {
            (!away.is_empty()).then(|| crate::pool::keep::Stall {
                reason: format!(
                    "a new copy is detached; it waits for {}",
                    devices_by_name(devices, away.iter().copied()).join(", ")
                ),
                ranges: Vec::new(),
            })
        });
        let total_bytes = total_bytes(record, job, region_bytes);
        let left: u64 = job
            .fresh
            .iter()
            .map(|plex| bytes(u64::from(volume.stale_count(*plex))))
            .sum();
        let sources = record.plexes.iter().filter(|plex| {
            !fresh(plex) && (job.retire.is_empty() || job.retire.contains(&plex.uuid))
        });
        Some(JobInfo {
            id: job.uuid,
            volume: record.name.clone(),
            kind: name_of(devices, &job.kind),
            state: if job.paused {
                JobState::Paused
            } else {
                stalled(stall)
            },
            done_bytes: total_bytes.saturating_sub(left),
            total_bytes,
            limit_bytes_per_second: job.rate_bytes_per_second,
            from: devices_by_name(devices, sources),
            to: devices_by_name(devices, record.plexes.iter().filter(fresh)),
        })
    }

    /// The copies of a volume.
    ///
    /// # Errors
    /// [`PoolError::NoSuchVolume`].
    pub async fn plexes(&self, volume: &str) -> Result<Vec<PlexInfo>, PoolError> {
        let volume = self.volume(volume)?;
        let snapshot = self.snapshot().await;
        let record = volume.record();
        let listed = |plex: &Plex, list: fn(&Job) -> &[Uuid]| {
            let job = record.job.as_ref();
            job.is_some_and(|job| list(job).contains(&plex.uuid))
        };
        let tracked = volume.fault().is_none() && (record.plexes.len() > 1 || record.job.is_some());
        Ok(record
            .plexes
            .iter()
            .enumerate()
            .map(|(position, plex)| PlexInfo {
                position,
                uuid: plex.uuid,
                layout: plex.layout,
                columns: plex.columns.len(),
                state: plex.state.clone(),
                fresh: listed(plex, |job| &job.fresh),
                retiring: listed(plex, |job| &job.retire),
                devices: snapshot.names(plex),
                stale_bytes: if tracked {
                    u64::from(volume.stale_count(plex.uuid))
                        .saturating_mul(record.region_bytes)
                        .min(record.size_bytes)
                } else {
                    0
                },
                size_bytes: record.size_bytes,
            })
            .collect())
    }
}
