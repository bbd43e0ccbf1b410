//! Where new extents go.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::PoolError;
use crate::allocator::{FreeMap, Run};
use crate::config::{Config, Extent};
use crate::private_region::MIN_REGION_BYTES;
use crate::volume::PLEX_LOG_BYTES;

/// The free space of every device.
///
/// # Errors
/// [`PoolError::Inconsistent`] when extents of the volumes overlap or leave their device's data area.
pub(super) fn free_maps(config: &Config) -> Result<BTreeMap<Uuid, FreeMap>, PoolError> {
    let mut used: BTreeMap<Uuid, Vec<Run>> = BTreeMap::new();
    for volume in config.volumes.values() {
        // What a plex shares with the one it replaces comes twice; `Map::new` allows no other coincidence.
        let extents: BTreeSet<(Uuid, u64, u64)> = volume
            .extents()
            .map(|extent| (extent.device, extent.offset_bytes, extent.length_bytes))
            .collect();
        for (device, offset_bytes, length_bytes) in extents {
            used.entry(device).or_default().push(Run {
                offset_bytes,
                length_bytes,
            });
        }
    }
    config
        .devices
        .values()
        .map(|device| {
            let area = Run {
                offset_bytes: device.data_offset_bytes,
                length_bytes: device.data_length_bytes,
            };
            let map = FreeMap::new(area, used.remove(&device.uuid).unwrap_or_default()).map_err(
                |error| PoolError::Inconsistent {
                    problem: format!("device {}: {error}", device.name),
                },
            )?;
            Ok((device.uuid, map))
        })
        .collect()
}

/// The extents of a new volume.
pub(super) struct Placement {
    pub(super) data: Vec<Extent>,
    pub(super) keys: Vec<Extent>,
    pub(super) log: Extent,
}

fn extent(device: Uuid, run: Run) -> Extent {
    Extent {
        device,
        offset_bytes: run.offset_bytes,
        length_bytes: run.length_bytes,
    }
}

fn take_private(
    maps: &mut BTreeMap<Uuid, FreeMap>,
    device: Uuid,
    length_bytes: u64,
) -> Option<Extent> {
    let run = maps.get_mut(&device)?.take_private(length_bytes)?;
    Some(extent(device, run))
}

/// Places a volume on `on` with its private region on `keys_on`, or with the data where that is empty: on one device if
/// one has room for all of it, else over several in the order given.
pub(super) fn place(
    config: &Config,
    size_bytes: u64,
    on: &[Uuid],
    keys_on: &[Uuid],
) -> Result<Placement, PoolError> {
    let maps = free_maps(config)?;
    let no_space = |what, needed_bytes, devices: &[Uuid]| PoolError::NoSpace {
        what,
        needed_bytes,
        places: places(config, &maps, devices),
    };
    let mut maps_after_keys = maps.clone();
    let mut keys = Vec::new();
    for device in keys_on {
        let taken = take_private(&mut maps_after_keys, *device, MIN_REGION_BYTES)
            .ok_or_else(|| no_space("a private region", MIN_REGION_BYTES, &[*device]))?;
        keys.push(taken);
    }
    // First the home alone, for each device; then the home with all others behind it.
    for spread in [false, true] {
        for home in on {
            let mut maps = maps_after_keys.clone();
            let mut keys = keys.clone();
            if keys.is_empty() {
                match take_private(&mut maps, *home, MIN_REGION_BYTES) {
                    Some(taken) => keys.push(taken),
                    None => continue,
                }
            }
            let Some(log) = take_private(&mut maps, *home, PLEX_LOG_BYTES) else {
                continue;
            };
            let others = on.iter().filter(|device| spread && *device != home);
            let order: Vec<Uuid> = std::iter::once(home).chain(others).copied().collect();
            if let Some(data) = take_data(&mut maps, size_bytes, &order) {
                return Ok(Placement { data, keys, log });
            }
        }
    }
    let private = if keys_on.is_empty() {
        MIN_REGION_BYTES
    } else {
        0
    } + PLEX_LOG_BYTES;
    Err(no_space(
        "a volume with its private areas",
        size_bytes.saturating_add(private),
        on,
    ))
}

/// Extents of `size_bytes` in all from `order`, or nothing.
pub(super) fn take_data(
    maps: &mut BTreeMap<Uuid, FreeMap>,
    size_bytes: u64,
    order: &[Uuid],
) -> Option<Vec<Extent>> {
    let mut need = size_bytes;
    let mut extents = Vec::new();
    for device in order {
        if need == 0 {
            break;
        }
        for run in maps.get_mut(device)?.take_data(need) {
            need = need.saturating_sub(run.length_bytes);
            extents.push(extent(*device, run));
        }
    }
    (need == 0).then_some(extents)
}

/// How much is free on each of `devices`, and who uses the rest.
pub(super) fn places(config: &Config, maps: &BTreeMap<Uuid, FreeMap>, devices: &[Uuid]) -> String {
    let parts: Vec<String> = devices
        .iter()
        .filter_map(|uuid| {
            let record = config.devices.get(uuid)?;
            let free = maps.get(uuid)?.free_bytes();
            let users = users(config, *uuid);
            let users = if users.is_empty() {
                "in use by no volume".to_owned()
            } else {
                format!("in use by {}", users.join(", "))
            };
            Some(format!(
                "{} has {free} of {} bytes free ({users})",
                record.name, record.data_length_bytes
            ))
        })
        .collect();
    parts.join("; ")
}

/// Names of the volumes that have an extent on a device.
pub(super) fn users(config: &Config, device: Uuid) -> Vec<String> {
    let mut names: Vec<String> = config
        .volumes
        .values()
        .filter(|volume| volume.extents().any(|extent| extent.device == device))
        .map(|volume| volume.name.clone())
        .collect();
    names.sort();
    names
}
