//! Where a volume lies.

use ::volume::config::PlexLayout;
use ::volume::translate::{DeviceRange, Map, Region};

use super::Operations;
use super::describe::DeviceNames;
use crate::control::model::{MapEntry, VolumeMap};
use crate::failure::Failure;

impl Operations {
    pub(super) fn volume_map(
        &self,
        name: &str,
        offset_bytes: Option<u64>,
    ) -> Result<VolumeMap, Failure> {
        let volume = self.volume(name)?;
        let (map, record) = (volume.map(), volume.record());
        let devices = self.device_names()?;
        let mut extents = Vec::new();
        if let Some(offset_bytes) = offset_bytes {
            for plex in 0..map.plexes() {
                let region = Region::Public { plex };
                let ranges = map.translate(region, offset_bytes, 1).map_err(|_| {
                    Failure::usage(format!(
                        "offset {offset_bytes} is past the end of volume {name}, which has {} bytes",
                        map.size_bytes()
                    ))
                })?;
                extents.extend(ranges.iter().map(|range| entry(region, range, &devices)));
            }
            return Ok(VolumeMap {
                volume: name.to_owned(),
                extents,
            });
        }
        for (position, plex) in record.plexes.iter().enumerate() {
            match plex.layout {
                PlexLayout::Linear => {
                    whole(
                        &map,
                        Region::Public { plex: position },
                        &devices,
                        &mut extents,
                    );
                }
                // A line for each stripe unit would be millions: the columns as they lie.
                PlexLayout::Striped { .. } => {
                    for (column, runs) in plex.columns.iter().enumerate() {
                        let mut offset_bytes = 0;
                        for extent in &runs.extents {
                            extents.push(MapEntry {
                                region: "public".to_owned(),
                                copy: copy(position),
                                column: Some(column),
                                offset_bytes,
                                length_bytes: extent.length_bytes,
                                device: devices.name(extent.device),
                                device_offset_bytes: extent.offset_bytes,
                            });
                            offset_bytes += extent.length_bytes;
                        }
                    }
                }
            }
        }
        for replica in 0..map.keys_replicas() {
            whole(&map, Region::Keys { replica }, &devices, &mut extents);
        }
        for plex in 0..map.plexes() {
            whole(&map, Region::Log { plex }, &devices, &mut extents);
        }
        Ok(VolumeMap {
            volume: name.to_owned(),
            extents,
        })
    }
}

/// All of a region that is not striped.
fn whole(map: &Map, region: Region, devices: &DeviceNames, extents: &mut Vec<MapEntry>) {
    // The whole of a region is inside it.
    let ranges = map.translate(region, 0, map.region_bytes(region));
    let ranges = ranges.unwrap_or_default();
    extents.extend(ranges.iter().map(|range| entry(region, range, devices)));
}

fn entry(region: Region, range: &DeviceRange, devices: &DeviceNames) -> MapEntry {
    let (region, position) = match region {
        Region::Public { plex } => ("public", plex),
        Region::Keys { replica } => ("private", replica),
        Region::Log { plex } => ("log", plex),
    };
    MapEntry {
        region: region.to_owned(),
        copy: copy(position),
        column: None,
        offset_bytes: range.region_offset_bytes,
        length_bytes: range.length_bytes,
        device: devices.name(range.device),
        device_offset_bytes: range.device_offset_bytes,
    }
}

/// A volume has far less plexes and replicas.
fn copy(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}
