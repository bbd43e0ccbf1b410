//! Comparing the copies of a volume, and of its keys.

use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use super::JobError;
use crate::block_device::BlockDevice;
use crate::page_store::Finding;
use crate::pool::keep::pace::Pacer;
use crate::pool::keep::stale_in;
use crate::pool::{Pool, PoolError};

/// Mismatches that are listed at most; more are counted.
const LISTED: usize = 1000;

/// A run in which copies of a volume differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// First byte.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
    /// Positions of the plexes that differ from the one that was believed.
    pub plexes: Vec<usize>,
    /// They are the same now.
    pub repaired: bool,
    /// What was found, for people.
    pub what: String,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Bytes of the volume that were compared.
    pub checked_bytes: u64,
    /// Bytes that are not complete in all copies yet, and were left out.
    pub skipped_bytes: u64,
    /// The first thousand mismatches.
    pub mismatches: Vec<Mismatch>,
    /// Bytes that differed.
    pub mismatched_bytes: u64,
    /// Bytes that are the same now.
    pub repaired_bytes: u64,
    /// What was wrong with replicas of the keys.
    pub keys: Vec<Finding>,
    /// It was stopped before the end.
    pub stopped: bool,
}

impl<D: BlockDevice> Pool<D> {
    /// Compares all copies of a volume, region by region, while clients go on, and the replicas of its keys. With
    /// `repair`, what differs is made like the first complete plex. `progress` is told of the bytes that are done and of
    /// all, and says `false` to stop.
    ///
    /// # Errors
    /// [`PoolError`]; what was compared before is not told then.
    pub async fn volume_verify(
        &self,
        name: &str,
        repair: bool,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Verified, PoolError> {
        let volume = self.volume(name)?;
        let mut verified = Verified {
            keys: volume.private_region()?.verify(repair).await?,
            ..Verified::default()
        };
        let size_bytes = volume.size_bytes();
        let clock = self.snapshot().await.devices.values().next().cloned();
        let (Some(clock), true) = (clock, volume.record().plexes.len() > 1) else {
            // One copy: nothing to compare it with.
            verified.stopped = !progress(size_bytes, size_bytes);
            return Ok(verified);
        };
        let load = {
            let volume = volume.clone();
            move || volume.client_load()
        };
        let pacer = Arc::new(Pacer::new(clock, Box::new(load)));
        let mut region = 0;
        while region < volume.regions() {
            let record = volume.record();
            let start = u64::from(region) * record.region_bytes;
            let length_bytes = record
                .region_bytes
                .min(record.size_bytes.saturating_sub(start));
            if !progress(start, record.size_bytes) {
                verified.stopped = true;
                return Ok(verified);
            }
            let complete: Vec<Uuid> = record
                .plexes
                .iter()
                .filter(|plex| {
                    plex.is_attached() && !stale_in(&volume, &record, plex.uuid).get(region)
                })
                .map(|plex| plex.uuid)
                .collect();
            region += 1;
            if complete.len() < 2 {
                continue;
            }
            let believed = complete.first().copied().filter(|_| repair);
            let compared = match volume.compare_region(region - 1, believed, &pacer).await {
                Ok(compared) => compared,
                // The other copies were removed meanwhile: nothing is left to compare with.
                Err(_) if volume.record().plexes.len() == 1 => break,
                Err(error) => {
                    // Deleted meanwhile, perhaps.
                    self.volume(&volume.record().name)?;
                    return Err(JobError::Copies {
                        volume: name.into(),
                        problem: format!("not compared from byte {start} on: {error}"),
                    }
                    .into());
                }
            };
            if compared.stopped {
                // The volume has grown: its regions may have other numbers now.
                region = 0;
                verified = Verified {
                    keys: std::mem::take(&mut verified.keys),
                    ..Verified::default()
                };
                continue;
            }
            verified.checked_bytes += length_bytes;
            let at = |plex: &Uuid| crate::pool::keep::position(&record, *plex);
            for found in compared.mismatches {
                let plexes = found.plexes.iter().map(at).collect();
                let what = "it differs from the first complete copy";
                verified.add(&found.range, plexes, found.repaired, what);
            }
            for (plex, range, repaired) in compared.unreadable {
                verified.add(&range, vec![at(&plex)], repaired, "it could not be read");
            }
        }
        let size_bytes = volume.size_bytes();
        verified.skipped_bytes = size_bytes.saturating_sub(verified.checked_bytes);
        verified.stopped = !progress(size_bytes, size_bytes);
        Ok(verified)
    }
}

impl Verified {
    fn add(&mut self, range: &Range<u64>, plexes: Vec<usize>, repaired: bool, what: &str) {
        let length_bytes = range.end - range.start;
        self.mismatched_bytes += length_bytes;
        if repaired {
            self.repaired_bytes += length_bytes;
        }
        if self.mismatches.len() < LISTED {
            self.mismatches.push(Mismatch {
                offset_bytes: range.start,
                length_bytes,
                plexes,
                repaired,
                what: what.into(),
            });
        }
    }
}
