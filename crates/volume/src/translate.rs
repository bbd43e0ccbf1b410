//! The one function from an address of a volume to addresses of devices.
//!
//! Invariants (promise 4), checked by [`Map::new`] and by property tests: the extents of all regions of a volume are
//! disjoint and inside the data areas of their devices; [`Map::translate`] returns only ranges of the region asked for.

use smallvec::SmallVec;
use uuid::Uuid;

use crate::config::{Extent, MAX_PLEXES, Plex, PlexLayout, VolumeRecord};
use crate::error::VolumeError;

/// A region of a volume's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// What a VM sees: one of its copies, by position.
    Public {
        /// Which plex, from 0.
        plex: usize,
    },
    /// A plex's intents of atomic writes and its region log.
    Log {
        /// Which plex, from 0.
        plex: usize,
    },
    /// The private region with the registrations: one of its replicas, by position.
    Keys {
        /// Which replica, from 0.
        replica: usize,
    },
}

/// A run of a device that backs a run of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRange {
    /// First byte in the region.
    pub region_offset_bytes: u64,
    /// The device.
    pub device: Uuid,
    /// Position of the device in [`Map::devices`].
    pub device_index: usize,
    /// First byte on the device.
    pub device_offset_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
}

/// The ranges of one translation, in address order, without a heap allocation when there is one.
pub type DeviceRanges = SmallVec<[DeviceRange; 1]>;

/// A plex compiled for translation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlexMap {
    uuid: Uuid,
    replaces: Option<Uuid>,
    /// Bytes of a stripe unit; `None` for one column.
    stripe_unit_bytes: Option<u64>,
    /// By column, the runs in the order of the column's own addresses.
    columns: Vec<Vec<DeviceRange>>,
    log: DeviceRange,
    /// Positions in [`Map::devices`].
    devices: Vec<usize>,
}

/// A volume's record compiled for translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    size_bytes: u64,
    devices: Vec<Uuid>,
    data_devices: usize,
    plexes: Vec<PlexMap>,
    keys: Vec<DeviceRange>,
}

/// Why a volume's record has no valid map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Numbers of plexes, columns or bytes of a stripe unit that cannot be.
    #[error("{problem}")]
    Layout {
        /// What is wrong.
        problem: String,
    },
    /// No replica of the private region.
    #[error("the volume has no private region")]
    NoKeys,
    /// An extent of no length, or one that ends past the last address.
    #[error("extent of {length_bytes} bytes at {offset_bytes} of device {device} is impossible")]
    Impossible {
        /// The device.
        device: Uuid,
        /// First byte.
        offset_bytes: u64,
        /// Length in bytes.
        length_bytes: u64,
    },
    /// Two extents share bytes of a device.
    #[error("two extents of device {device} overlap at byte {offset_bytes}")]
    Overlap {
        /// The device.
        device: Uuid,
        /// First shared byte.
        offset_bytes: u64,
    },
    /// The extents are shorter than the volume.
    #[error("the extents hold {backed_bytes} bytes of the volume's {size_bytes}")]
    TooShort {
        /// What they hold, in bytes.
        backed_bytes: u64,
        /// Size of the volume in bytes.
        size_bytes: u64,
    },
}

/// Smallest and largest stripe unit in bytes.
pub const STRIPE_UNIT_BYTES: std::ops::RangeInclusive<u64> = 4096..=16 << 20;

/// Bytes that a plex with these columns can hold, by their lengths; `None` when it is more than can be counted.
pub fn capacity_bytes(layout: PlexLayout, columns: impl Iterator<Item = u64>) -> Option<u64> {
    match layout {
        PlexLayout::Linear => columns.take(1).next(),
        PlexLayout::Striped { stripe_unit_bytes } => {
            let (shortest, count) = columns.fold((u64::MAX, 0u64), |(shortest, count), length| {
                (shortest.min(length), count + 1)
            });
            (shortest / stripe_unit_bytes)
                .checked_mul(stripe_unit_bytes)?
                .checked_mul(count)
        }
    }
}

impl PlexMap {
    fn new(devices: &mut Vec<Uuid>, plex: &Plex, size_bytes: u64) -> Result<PlexMap, MapError> {
        let layout = |problem: String| MapError::Layout { problem };
        let stripe_unit_bytes = match plex.layout {
            PlexLayout::Linear => {
                if plex.columns.len() != 1 {
                    let count = plex.columns.len();
                    return Err(layout(format!("a linear plex with {count} columns")));
                }
                None
            }
            PlexLayout::Striped { stripe_unit_bytes } => {
                if !stripe_unit_bytes.is_power_of_two()
                    || !STRIPE_UNIT_BYTES.contains(&stripe_unit_bytes)
                {
                    return Err(layout(format!(
                        "a stripe unit of {stripe_unit_bytes} bytes"
                    )));
                }
                if plex.columns.is_empty() {
                    return Err(layout("a striped plex without columns".into()));
                }
                Some(stripe_unit_bytes)
            }
        };
        let mut columns = Vec::with_capacity(plex.columns.len());
        let mut lengths = Vec::with_capacity(plex.columns.len());
        for column in &plex.columns {
            let mut runs = Vec::with_capacity(column.extents.len());
            let mut length = 0u64;
            for extent in &column.extents {
                runs.push(range(devices, length, extent)?);
                let impossible = MapError::Impossible {
                    device: extent.device,
                    offset_bytes: extent.offset_bytes,
                    length_bytes: extent.length_bytes,
                };
                length = length.checked_add(extent.length_bytes).ok_or(impossible)?;
            }
            columns.push(runs);
            lengths.push(length);
        }
        let backed_bytes = capacity_bytes(plex.layout, lengths.into_iter())
            .ok_or_else(|| layout("a plex with more bytes than can be counted".into()))?;
        if backed_bytes < size_bytes {
            return Err(MapError::TooShort {
                backed_bytes,
                size_bytes,
            });
        }
        let log = range(devices, 0, &plex.log)?;
        let mut own: Vec<usize> = columns
            .iter()
            .flatten()
            .chain(std::iter::once(&log))
            .map(|run| run.device_index)
            .collect();
        own.sort_unstable();
        own.dedup();
        Ok(PlexMap {
            uuid: plex.uuid,
            replaces: plex.replaces,
            stripe_unit_bytes,
            columns,
            log,
            devices: own,
        })
    }

    fn ranges(&self) -> impl Iterator<Item = &DeviceRange> {
        self.columns
            .iter()
            .flatten()
            .chain(std::iter::once(&self.log))
    }

    /// The device ranges of `start..end` of the public region, which is inside the plex.
    fn translate(&self, start: u64, end: u64) -> DeviceRanges {
        let mut ranges = DeviceRanges::new();
        let Some(unit) = self.stripe_unit_bytes else {
            runs_of(&self.columns[0], start, end - start, start, &mut ranges);
            return ranges;
        };
        let columns = self.columns.len() as u64;
        let mut at = start;
        while at < end {
            let (stripe, within) = (at / unit, at % unit);
            let (row, column) = (stripe / columns, stripe % columns);
            let length = (unit - within).min(end - at);
            let column = &self.columns[column as usize];
            runs_of(column, row * unit + within, length, at, &mut ranges);
            at += length;
        }
        ranges
    }
}

/// Appends the device ranges of `length` bytes at `column_offset` of a column, as `region_offset` of the region.
fn runs_of(
    runs: &[DeviceRange],
    column_offset: u64,
    length: u64,
    region_offset: u64,
    ranges: &mut DeviceRanges,
) {
    let end = column_offset + length;
    let first =
        runs.partition_point(|run| run.region_offset_bytes + run.length_bytes <= column_offset);
    let mut at = column_offset;
    for run in &runs[first..] {
        if at >= end {
            break;
        }
        let within = at - run.region_offset_bytes;
        let length_bytes = (run.length_bytes - within).min(end - at);
        ranges.push(DeviceRange {
            region_offset_bytes: region_offset + (at - column_offset),
            device: run.device,
            device_index: run.device_index,
            device_offset_bytes: run.device_offset_bytes + within,
            length_bytes,
        });
        at += length_bytes;
    }
}

impl Map {
    /// Compiles a record.
    ///
    /// # Errors
    /// [`MapError`] when the record is not one that can be served.
    pub fn new(record: &VolumeRecord) -> Result<Map, MapError> {
        if record.plexes.is_empty() || record.plexes.len() > MAX_PLEXES {
            let problem = format!("{} plexes", record.plexes.len());
            return Err(MapError::Layout { problem });
        }
        if record.keys.is_empty() {
            return Err(MapError::NoKeys);
        }
        let mut devices = Vec::new();
        let plexes = record
            .plexes
            .iter()
            .map(|plex| PlexMap::new(&mut devices, plex, record.size_bytes))
            .collect::<Result<Vec<_>, _>>()?;
        // Before the keys: a volume can be served while a device that holds nothing but a replica is away.
        let data_devices = devices.len();
        let keys = record
            .keys
            .iter()
            .map(|replica| range(&mut devices, 0, &replica.extent))
            .collect::<Result<Vec<_>, _>>()?;
        let map = Map {
            size_bytes: record.size_bytes,
            devices,
            data_devices,
            plexes,
            keys,
        };
        map.check_disjoint()?;
        Ok(map)
    }

    /// No byte of a device has two uses, but for extents that a plex shares with the one it replaces.
    fn check_disjoint(&self) -> Result<(), MapError> {
        let mut all: Vec<DeviceRange> = self.keys.clone();
        for plex in &self.plexes {
            let replaced = plex
                .replaces
                .and_then(|uuid| self.plexes.iter().find(|other| other.uuid == uuid));
            all.extend(plex.ranges().filter(|run| {
                !replaced.is_some_and(|other| other.ranges().any(|theirs| same_place(run, theirs)))
            }));
        }
        all.sort_by_key(|range| (range.device, range.device_offset_bytes));
        for pair in all.windows(2) {
            // `range` proved that offset + length does not overflow.
            if pair[0].device == pair[1].device
                && pair[0].device_offset_bytes + pair[0].length_bytes > pair[1].device_offset_bytes
            {
                return Err(MapError::Overlap {
                    device: pair[1].device,
                    offset_bytes: pair[1].device_offset_bytes,
                });
            }
        }
        Ok(())
    }

    /// Every range of every region; one that two plexes share comes twice.
    pub fn ranges(&self) -> impl Iterator<Item = DeviceRange> + '_ {
        self.plexes
            .iter()
            .flat_map(PlexMap::ranges)
            .chain(&self.keys)
            .copied()
    }

    /// Size of the public region in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The devices of all regions; [`DeviceRange::device_index`] points into it.
    pub fn devices(&self) -> &[Uuid] {
        &self.devices
    }

    /// Number of plexes.
    pub fn plexes(&self) -> usize {
        self.plexes.len()
    }

    /// The devices of a plex, its log's included, as positions in [`Map::devices`]; empty for a plex that is not there.
    pub fn plex_devices(&self, plex: usize) -> &[usize] {
        self.plexes.get(plex).map_or(&[], |plex| &plex.devices)
    }

    /// The devices of all plexes: the first ones of [`Map::devices`].
    pub fn data_devices(&self) -> &[Uuid] {
        &self.devices[..self.data_devices]
    }

    /// Number of replicas of the private region.
    pub fn keys_replicas(&self) -> usize {
        self.keys.len()
    }

    /// Size of a region in bytes; 0 for one that is not there.
    pub fn region_bytes(&self, region: Region) -> u64 {
        match region {
            Region::Public { plex } => self.plexes.get(plex).map_or(0, |_| self.size_bytes),
            Region::Log { plex } => self.plexes.get(plex).map_or(0, |p| p.log.length_bytes),
            Region::Keys { replica } => self.keys.get(replica).map_or(0, |r| r.length_bytes),
        }
    }

    /// The device ranges of `length_bytes` at `offset_bytes` of `region`, in address order; together they have exactly
    /// that length.
    ///
    /// # Errors
    /// [`VolumeError::OutOfBounds`] unless the whole range is inside the region.
    pub fn translate(
        &self,
        region: Region,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<DeviceRanges, VolumeError> {
        let size_bytes = self.region_bytes(region);
        let outside = || VolumeError::OutOfBounds {
            offset_bytes,
            length_bytes,
            size_bytes,
        };
        let end = offset_bytes
            .checked_add(length_bytes)
            .filter(|end| *end <= size_bytes)
            .ok_or_else(outside)?;
        let run = match region {
            Region::Public { plex } => {
                let plex = self.plexes.get(plex).ok_or_else(outside)?;
                return Ok(plex.translate(offset_bytes, end));
            }
            Region::Log { plex } => &self.plexes.get(plex).ok_or_else(outside)?.log,
            Region::Keys { replica } => self.keys.get(replica).ok_or_else(outside)?,
        };
        let mut ranges = DeviceRanges::new();
        runs_of(
            std::slice::from_ref(run),
            offset_bytes,
            length_bytes,
            offset_bytes,
            &mut ranges,
        );
        Ok(ranges)
    }
}

fn same_place(a: &DeviceRange, b: &DeviceRange) -> bool {
    (a.device, a.device_offset_bytes, a.length_bytes)
        == (b.device, b.device_offset_bytes, b.length_bytes)
}

fn range(
    devices: &mut Vec<Uuid>,
    region_offset_bytes: u64,
    extent: &Extent,
) -> Result<DeviceRange, MapError> {
    if extent.length_bytes == 0
        || extent
            .offset_bytes
            .checked_add(extent.length_bytes)
            .is_none()
    {
        return Err(MapError::Impossible {
            device: extent.device,
            offset_bytes: extent.offset_bytes,
            length_bytes: extent.length_bytes,
        });
    }
    let device_index = devices
        .iter()
        .position(|device| *device == extent.device)
        .unwrap_or_else(|| {
            devices.push(extent.device);
            devices.len() - 1
        });
    Ok(DeviceRange {
        region_offset_bytes,
        device: extent.device,
        device_index,
        device_offset_bytes: extent.offset_bytes,
        length_bytes: extent.length_bytes,
    })
}

#[cfg(test)]
mod tests;
