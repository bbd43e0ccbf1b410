//! The one function from an address of a volume to addresses of devices.
//!
//! Invariants (promise 4), checked by [`Map::new`] and by property tests: the extents of all regions of a volume are
//! disjoint and inside the data areas of their devices; [`Map::translate`] returns only ranges of the region asked for.

use smallvec::SmallVec;
use uuid::Uuid;

use crate::config::{Extent, PlexLayout, VolumeRecord};
use crate::error::VolumeError;

/// A region of a volume's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// What a VM sees.
    Public,
    /// The private region with the registrations: one of its replicas, by position.
    Keys {
        /// Which replica, from 0.
        replica: usize,
    },
    /// The private region with the intents of atomic writes.
    Intent,
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

/// A volume's record compiled for translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    size_bytes: u64,
    devices: Vec<Uuid>,
    data_devices: usize,
    public: Vec<DeviceRange>,
    keys: Vec<DeviceRange>,
    intent: DeviceRange,
}

/// Why a volume's record has no valid map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A layout this version cannot serve.
    #[error("{plexes} plexes with {columns} columns: this version serves one plex with one column")]
    Unsupported {
        /// Number of plexes.
        plexes: usize,
        /// Number of columns of the first.
        columns: usize,
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
        /// Sum of the extents in bytes.
        backed_bytes: u64,
        /// Size of the volume in bytes.
        size_bytes: u64,
    },
}

impl Map {
    /// Compiles a record.
    ///
    /// # Errors
    /// [`MapError`] when the record is not one that can be served.
    pub fn new(record: &VolumeRecord) -> Result<Map, MapError> {
        let [plex] = record.plexes.as_slice() else {
            return Err(MapError::Unsupported {
                plexes: record.plexes.len(),
                columns: record.plexes.first().map_or(0, |plex| plex.columns.len()),
            });
        };
        let (PlexLayout::Linear, [column]) = (plex.layout, plex.columns.as_slice()) else {
            return Err(MapError::Unsupported {
                plexes: 1,
                columns: plex.columns.len(),
            });
        };
        if record.keys.is_empty() {
            return Err(MapError::NoKeys);
        }
        let mut devices = Vec::new();
        let mut public = Vec::with_capacity(column.extents.len());
        let mut backed_bytes = 0u64;
        for extent in &column.extents {
            public.push(range(&mut devices, backed_bytes, extent)?);
            backed_bytes =
                backed_bytes
                    .checked_add(extent.length_bytes)
                    .ok_or(MapError::Impossible {
                        device: extent.device,
                        offset_bytes: extent.offset_bytes,
                        length_bytes: extent.length_bytes,
                    })?;
        }
        if backed_bytes < record.size_bytes {
            return Err(MapError::TooShort {
                backed_bytes,
                size_bytes: record.size_bytes,
            });
        }
        // Before the keys: a volume can be served while a device that holds nothing but a replica is away.
        let intent = range(&mut devices, 0, &record.intent)?;
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
            public,
            keys,
            intent,
        };
        map.check_disjoint()?;
        Ok(map)
    }

    fn check_disjoint(&self) -> Result<(), MapError> {
        let mut all: Vec<DeviceRange> = self.ranges().collect();
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

    /// Every range of every region.
    pub fn ranges(&self) -> impl Iterator<Item = DeviceRange> + '_ {
        self.public
            .iter()
            .chain(&self.keys)
            .chain(std::iter::once(&self.intent))
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

    /// The devices of the public region and the intents: the first ones of [`Map::devices`].
    pub fn data_devices(&self) -> &[Uuid] {
        &self.devices[..self.data_devices]
    }

    /// Number of replicas of the private region.
    pub fn keys_replicas(&self) -> usize {
        self.keys.len()
    }

    /// Size of a region in bytes; 0 for a replica that is not there.
    pub fn region_bytes(&self, region: Region) -> u64 {
        match region {
            Region::Public => self.size_bytes,
            Region::Keys { replica } => self.keys.get(replica).map_or(0, |r| r.length_bytes),
            Region::Intent => self.intent.length_bytes,
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
        let runs: &[DeviceRange] = match region {
            Region::Public => &self.public,
            Region::Keys { replica } => self.keys.get(replica..=replica).ok_or_else(outside)?,
            Region::Intent => std::slice::from_ref(&self.intent),
        };
        let first =
            runs.partition_point(|run| run.region_offset_bytes + run.length_bytes <= offset_bytes);
        let mut ranges = DeviceRanges::new();
        let mut at = offset_bytes;
        for run in &runs[first.min(runs.len())..] {
            if at >= end {
                break;
            }
            let within = at - run.region_offset_bytes;
            let length_bytes = (run.length_bytes - within).min(end - at);
            ranges.push(DeviceRange {
                region_offset_bytes: at,
                device: run.device,
                device_index: run.device_index,
                device_offset_bytes: run.device_offset_bytes + within,
                length_bytes,
            });
            at += length_bytes;
        }
        Ok(ranges)
    }
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
