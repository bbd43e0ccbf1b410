//! Copying what plexes miss: resynchronization and the work of jobs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::pace::Pacer;
use super::tasks::Tasks;
use super::{PoolEvent, Stall, region_count, stale_in};
use crate::block_device::BlockDevice;
use crate::config::VolumeRecord;
use crate::pool::Pool;
use crate::pool::jobs::ByteRange;
use crate::volume::Volume;
use crate::volume::regions::Regions;
use crate::volume::regions::copy::{SyncError, Synced};

/// Regions of one volume that are copied at the same time.
const TOGETHER: usize = 8;
/// Copied regions whose bits are cleared with one commit of the log, and how long they wait for it at most.
const FINISH_REGIONS: usize = 64;
const FINISH_AFTER: Duration = Duration::from_secs(1);

/// What is to be done in a volume.
pub(super) struct Work {
    /// Plexes may differ there in writes that nobody acknowledged.
    pub(super) unsettled: Regions,
    /// Stale in plexes that are not being filled by a job.
    pub(super) resync: Regions,
    /// Stale in plexes that a job fills.
    pub(super) fresh: Regions,
}

impl Work {
    pub(super) fn of<D: BlockDevice>(volume: &Volume<D>, record: &VolumeRecord) -> Work {
        let none = || Regions::new(region_count(record), false);
        let (mut resync, mut fresh) = (none(), none());
        let filling: &[Uuid] = record.job.as_ref().map_or(&[], |job| &job.fresh);
        for plex in record.plexes.iter().filter(|plex| plex.is_attached()) {
            if volume.stale_count(plex.uuid) > 0 {
                let target = if filling.contains(&plex.uuid) {
                    &mut fresh
                } else {
                    &mut resync
                };
                target.union(&stale_in(volume, record, plex.uuid));
            }
        }
        Work {
            unsettled: volume.unsettled(),
            resync,
            fresh,
        }
    }

    /// Whether there is something that may be done now.
    pub(super) fn is_open(&self, job_paused: bool, resync_paused: bool) -> bool {
        !self.unsettled.is_empty()
            || !self.resync.is_empty() && !resync_paused
            || !self.fresh.is_empty() && !job_paused
    }
}

/// One step.
enum Step {
    Settle,
    Copy,
}

/// How a step ended.
enum Ended {
    Copied(u32),
    Settled(u32),
    Stopped(u32),
    /// No valid copy of these bytes.
    Lost(u32, Vec<std::ops::Range<u64>>),
    Failed(u32, String),
}

impl<D: BlockDevice> Pool<D> {
    /// Copies until there is nothing left that can be copied now, or the pacer was stopped.
    pub(super) async fn copy(&self, volume: &Arc<Volume<D>>) {
        let snapshot = self.snapshot().await;
        let Some(clock) = snapshot.devices.values().next().cloned() else {
            return;
        };
        let load = {
            let volume = volume.clone();
            move || volume.client_load()
        };
        let pacer = Arc::new(Pacer::new(clock.clone(), Box::new(load)));
        let rate = {
            let mut state = self.keeper.state.lock();
            let known = state.volumes.entry(volume.uuid()).or_default();
            known.pacer = Some(pacer.clone());
            known.copied_at = clock.now();
            known.resync_rate
        };
        let record = volume.record();
        pacer.set_rate(
            record
                .job
                .as_ref()
                .map_or(rate, |job| job.rate_bytes_per_second),
        );
        // Nothing may be copied to a plex while somebody writes through a layout that does not have it.
        volume.drained().await;
        self.tell_resync(volume);
        let mut lost: Vec<ByteRange> = Vec::new();
        let mut skipped: BTreeSet<u32> = BTreeSet::new();
        // Once each: what becomes unsettled again is for the next time.
        let mut settled: BTreeSet<u32> = BTreeSet::new();
        let mut failure: Option<String> = None;
        let mut copied: Vec<u32> = Vec::new();
        let mut finished_at = clock.now();
        let ended: RefCell<Vec<Ended>> = RefCell::default();
        let mut running: Tasks<'_, u32> = Tasks::new();
        loop {
            // A copier that has nothing to wait for must not keep the others of its thread from going on.
            futures_lite::future::yield_now().await;
            for outcome in ended.borrow_mut().drain(..) {
                match outcome {
                    Ended::Copied(region) => {
                        self.copied(volume, clock.now());
                        copied.push(region);
                    }
                    Ended::Settled(region) => {
                        self.copied(volume, clock.now());
                        settled.insert(region);
                    }
                    // The volume has grown, perhaps: its regions are others now.
                    Ended::Stopped(region) => {
                        skipped.insert(region);
                    }
                    Ended::Lost(region, ranges) => {
                        skipped.insert(region);
                        lost.extend(ranges.into_iter().map(|range| ByteRange {
                            offset_bytes: range.start,
                            length_bytes: range.end - range.start,
                        }));
                    }
                    Ended::Failed(region, error) => {
                        skipped.insert(region);
                        failure.get_or_insert(error);
                    }
                }
            }
            // What is still to be done; a region that was copied waits for `finish` and is not copied again.
            let record = volume.record();
            let busy = running.count(|_| true);
            if !pacer.is_stopped() && busy < TOGETHER {
                let (job_paused, resync_paused) = self.paused(&record);
                let work = Work::of(volume, &record);
                let next = |regions: &Regions, running: &Tasks<'_, u32>, but: &BTreeSet<u32>| {
                    regions.iter().find(|region| {
                        !running.has(region)
                            && !skipped.contains(region)
                            && !but.contains(region)
                            && !copied.contains(region)
                    })
                };
                let none = BTreeSet::new();
                let mut free = TOGETHER - busy;
                while free > 0 {
                    let unsettled = next(&work.unsettled, &running, &settled);
                    let copy = || {
                        next(&work.resync, &running, &none)
                            .filter(|_| !resync_paused)
                            .or_else(|| next(&work.fresh, &running, &none).filter(|_| !job_paused))
                            .map(|region| (region, Step::Copy))
                    };
                    let step = unsettled.map(|region| (region, Step::Settle)).or_else(copy);
                    let Some((region, step)) = step else { break };
                    let (ended, pacer) = (&ended, &pacer);
                    running.start(region, async move {
                        let outcome = step_of(volume, region, step, pacer).await;
                        ended.borrow_mut().push(outcome);
                    });
                    free -= 1;
                }
            }
            let idle = running.count(|_| true) == 0;
            let due = clock.now().saturating_sub(finished_at) >= FINISH_AFTER;
            if !copied.is_empty() && (idle || due || copied.len() >= FINISH_REGIONS) {
                let regions = std::mem::take(&mut copied);
                finished_at = clock.now();
                match running.drive(volume.finish(&regions)).await {
                    Ok(_) => self.copied(volume, clock.now()),
                    Err(error) => {
                        failure.get_or_insert(error.to_string());
                    }
                }
                // Once each: what is stale again, or still, is for the next time.
                skipped.extend(regions);
                continue;
            }
            if idle {
                break;
            }
            running.run(pending()).await;
        }
        drop(running);
        self.copy_ended(volume, clock.now(), lost, failure, pacer.is_stopped());
    }

    /// Whether an operator paused the job, and the resync.
    pub(super) fn paused(&self, record: &VolumeRecord) -> (bool, bool) {
        let job = record.job.as_ref().is_some_and(|job| job.paused);
        let state = self.keeper.state.lock();
        let resync = state
            .volumes
            .get(&record.uuid)
            .is_some_and(|known| known.resync_paused);
        (job, resync)
    }

    fn copied(&self, volume: &Volume<D>, now: Duration) {
        let mut state = self.keeper.state.lock();
        state.volumes.entry(volume.uuid()).or_default().copied_at = now;
    }

    fn tell_resync(&self, volume: &Volume<D>) {
        let record = volume.record();
        let work = Work::of(volume, &record);
        let mut regions = work.resync;
        regions.union(&work.unsettled);
        if regions.is_empty() {
            return;
        }
        let size_bytes =
            (u64::from(regions.count_ones()) * record.region_bytes).min(record.size_bytes);
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(volume.uuid()).or_default();
        if known.resync_bytes.is_some() {
            return;
        }
        known.resync_bytes = Some(size_bytes);
        drop(state);
        self.keeper.tell(PoolEvent::ResyncStarted {
            volume: record.name.clone(),
            size_bytes,
        });
    }

    fn copy_ended(
        &self,
        volume: &Volume<D>,
        now: Duration,
        mut lost: Vec<ByteRange>,
        failure: Option<String>,
        stopped: bool,
    ) {
        let record = volume.record();
        let work = Work::of(volume, &record);
        lost.sort_by_key(|range| range.offset_bytes);
        let (job_paused, resync_paused) = self.paused(&record);
        let still_open = work.is_open(job_paused, resync_paused);
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(record.uuid).or_default();
        known.pacer = None;
        if lost.is_empty() && failure.is_none() {
            if !stopped {
                known.stall = None;
            }
            if still_open && !stopped {
                // Something became stale or unsettled again while it was copied.
                known.copy.failed(now);
            } else {
                known.copy.worked();
            }
        } else {
            known.copy.failed(now);
            known.stall = Some(Stall {
                reason: failure.unwrap_or_else(|| "there is no valid copy of a part".into()),
                ranges: merged(lost),
            });
        }
        let resynced = work.resync.is_empty() && work.unsettled.is_empty();
        let told = resynced && known.resync_bytes.take().is_some();
        drop(state);
        if told {
            self.keeper.tell(PoolEvent::ResyncDone {
                volume: record.name.clone(),
            });
        }
        self.keeper.wake();
    }
}

async fn step_of<D: BlockDevice>(
    volume: &Volume<D>,
    region: u32,
    step: Step,
    pacer: &Arc<Pacer<D>>,
) -> Ended {
    let failed = |error: SyncError| Ended::Failed(region, error.to_string());
    match step {
        Step::Settle => match volume.settle_region(region, pacer).await {
            Ok(Synced { stopped: true, .. }) => Ended::Stopped(region),
            Ok(_) => Ended::Settled(region),
            Err(error) => failed(error),
        },
        Step::Copy => match volume.sync_region(region, pacer).await {
            Ok(Synced { stopped: true, .. }) => Ended::Stopped(region),
            Ok(Synced { unreadable, .. }) if !unreadable.is_empty() => {
                Ended::Lost(region, unreadable)
            }
            Ok(_) => Ended::Copied(region),
            Err(SyncError::NoCopy(_)) => {
                let record = volume.record();
                let start = u64::from(region) * record.region_bytes;
                let end = (start + record.region_bytes).min(record.size_bytes);
                Ended::Lost(region, std::iter::once(start..end).collect())
            }
            Err(error) => failed(error),
        },
    }
}

/// Neighbours put together; the ranges are sorted.
fn merged(ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut all: Vec<ByteRange> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.offset_bytes + last.length_bytes >= range.offset_bytes => {
                let end = (range.offset_bytes + range.length_bytes)
                    .max(last.offset_bytes + last.length_bytes);
                last.length_bytes = end - last.offset_bytes;
            }
            _ => all.push(range),
        }
    }
    all
}
