//! What several plexes' region logs say together.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Regions;
use super::log::page_offset;
use super::log_page::{
    self, Found, Geometry, Kind, LOG_BYTES, LOG_OFFSET, PAGE_BYTES, PAGES, SECTOR_REGIONS, SECTORS,
    Sector,
};
use crate::block_device::{BlockDevice, SECTOR_BYTES, aligned_buffer};
use crate::config::VolumeRecord;
use crate::device::Device;
use crate::error::VolumeError;

/// The pages of one log, sector by sector.
pub(super) struct LogPages {
    /// By page, copy and sector.
    sectors: Vec<[[Found; SECTORS]; 2]>,
    pub(super) newest: [u8; PAGES],
}

pub(super) async fn read_log<D: BlockDevice>(
    device: &Device<D>,
    offset_bytes: u64,
    volume: Uuid,
) -> Result<LogPages, VolumeError> {
    let (result, bytes) = device
        .read(offset_bytes + LOG_OFFSET, aligned_buffer(LOG_BYTES))
        .await;
    result?;
    Ok(parse_log(&bytes, volume))
}

fn parse_log(bytes: &[u8], volume: Uuid) -> LogPages {
    let mut newest = [0; PAGES];
    let sectors: Vec<[[Found; SECTORS]; 2]> = (0..PAGES)
        .map(|page| {
            [0, 1].map(|copy| {
                std::array::from_fn(|sector| {
                    let at = page_offset(0, page, copy) - LOG_OFFSET;
                    let at = at as usize + sector * SECTOR_BYTES;
                    log_page::decode(&bytes[at..at + SECTOR_BYTES], volume)
                })
            })
        })
        .collect();
    for (page, copies) in sectors.iter().enumerate() {
        // The copy that is newest in any sector: the other one is written next. A torn copy is not, unless nothing of
        // the older one is left to lose.
        let oldest_sector = |copy: &[Found; SECTORS]| {
            copy.iter()
                .map(|found| match found {
                    Found::Sector(sector) => sector.sequence,
                    _ => 0,
                })
                .min()
                .unwrap_or(0)
        };
        newest[page] = u8::from(oldest_sector(&copies[1]) > oldest_sector(&copies[0]));
    }
    debug_assert_eq!(bytes.len(), 2 * PAGES * PAGE_BYTES);
    LogPages { sectors, newest }
}

/// The page in which the logs have a plex's stale regions.
pub(super) fn page_of(logs: &[&LogPages], plex: Uuid) -> Option<usize> {
    logs.iter()
        .flat_map(|log| log.sectors.iter().enumerate())
        .flat_map(|(page, copies)| copies.iter().flatten().map(move |found| (page, found)))
        .filter_map(|(page, found)| match found {
            Found::Sector(sector) if sector.kind == Kind::Stale(plex) => {
                Some((sector.sequence, page))
            }
            _ => None,
        })
        .max()
        .map(|(_, page)| page)
}

/// What several logs say together.
pub(super) struct Merged {
    pub(super) sets: BTreeMap<Kind, Regions>,
    /// What is in a set only because a damaged sector may have had it.
    pub(super) unproven: BTreeMap<Kind, Regions>,
    /// The highest sequence in any of them.
    pub(super) highest: u64,
    /// All say the same, whole, in the volume's geometry.
    pub(super) uniform: bool,
}

/// One set, as far as sectors of one geometry tell it.
#[derive(Default)]
struct Candidate<'a> {
    /// By number of the sector: the one with the highest sequence.
    sectors: BTreeMap<u8, &'a Sector>,
}

/// Merges logs: for each set and sector the highest sequence counts, if at least one log has both copies of that sector
/// whole; a damaged copy may have been newer. Where none has, everything in the sector counts as set.
pub(super) fn merge(logs: &[&LogPages], record: &VolumeRecord, geometry: Geometry) -> Merged {
    let mut candidates: BTreeMap<Kind, BTreeMap<Geometry, Candidate<'_>>> = BTreeMap::new();
    let mut highest = 0;
    for log in logs {
        for found in log.sectors.iter().flatten().flatten() {
            let Found::Sector(sector) = found else {
                continue;
            };
            highest = highest.max(sector.sequence);
            let best = candidates
                .entry(sector.kind)
                .or_default()
                .entry(sector.geometry)
                .or_default()
                .sectors
                .entry(sector.number)
                .or_insert(sector);
            if sector.sequence > best.sequence {
                *best = sector;
            }
        }
    }
    let mut uniform = !logs.is_empty();
    let mut sets = BTreeMap::new();
    let mut unproven = BTreeMap::new();
    let kinds =
        std::iter::once(Kind::Dirty).chain(record.plexes.iter().map(|plex| Kind::Stale(plex.uuid)));
    for kind in kinds {
        let Some(by_geometry) = candidates.get(&kind) else {
            uniform = false;
            continue;
        };
        // Of the geometries that are there completely, the newest: a grow writes the same sets in the new one, and
        // overwrites the old one only after that.
        let chosen = by_geometry
            .iter()
            .filter(|(geometry, candidate)| {
                (0..geometry.sectors()).all(|n| candidate.sectors.contains_key(&(n as u8)))
            })
            .max_by_key(|(_, candidate)| {
                candidate
                    .sectors
                    .values()
                    .map(|sector| sector.sequence)
                    .max()
            });
        let Some((their_geometry, candidate)) = chosen else {
            uniform = false;
            continue;
        };
        let mut set = Regions::new(their_geometry.count, false);
        let mut doubt = set.clone();
        for number in 0..their_geometry.sectors() {
            let first = number as u32 * SECTOR_REGIONS;
            let Some(sector) = candidate.sectors.get(&(number as u8)) else {
                continue;
            };
            let vouched = logs.iter().any(|log| vouches(log, kind, number));
            for region in sector.regions.iter() {
                set.set(first + region);
            }
            if !vouched {
                doubt.set_range(first..first + SECTOR_REGIONS);
            }
            uniform &= logs
                .iter()
                .all(|log| vouches(log, kind, number) && newest(log, kind, number) == Some(sector));
        }
        uniform &= *their_geometry == geometry;
        doubt.subtract(&set);
        set.union(&doubt);
        let resized = |set: &Regions| {
            let (theirs, ours) = (their_geometry.region_bytes(), geometry.region_bytes());
            set.resized(theirs, ours, geometry.count)
        };
        sets.insert(kind, resized(&set));
        unproven.insert(kind, resized(&doubt));
    }
    Merged {
        sets,
        unproven,
        highest,
        uniform,
    }
}

/// The sectors of a log that may hold this set's sector with this number: both copies of every page that has the set.
fn places(log: &LogPages, kind: Kind, number: usize) -> impl Iterator<Item = [&Found; 2]> {
    log.sectors
        .iter()
        .enumerate()
        .filter_map(move |(page, copies)| {
            let here = match kind {
                Kind::Dirty => page == 0,
                Kind::Stale(_) => copies
                    .iter()
                    .flatten()
                    .any(|found| matches!(found, Found::Sector(sector) if sector.kind == kind)),
            };
            here.then(|| [&copies[0][number], &copies[1][number]])
        })
}

/// Whether nothing that a log had of this sector can be lost.
fn vouches(log: &LogPages, kind: Kind, number: usize) -> bool {
    let mut any = false;
    for copies in places(log, kind, number) {
        any = true;
        if copies.iter().any(|found| **found == Found::Damaged) {
            return false;
        }
    }
    any
}

fn newest(log: &LogPages, kind: Kind, number: usize) -> Option<&Sector> {
    places(log, kind, number)
        .flatten()
        .filter_map(|found| match found {
            Found::Sector(sector) if sector.kind == kind => Some(sector),
            _ => None,
        })
        .max_by_key(|sector| sector.sequence)
}
