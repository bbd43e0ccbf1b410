//! Free space: what the records and the extents that are held leave of the devices.
//!
//! An extent is *held* while it is nobody's: it was placed and is being zeroed, or a commit has freed it and I/O may still
//! be in flight. Held extents are given to nobody else, so that neither needs the pool's lock.
//!
//! The free maps are kept and changed step by step. Wherever the outcome of a change is not known they are dropped, and
//! built again from the records and what is held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::PoolError;
use crate::allocator::{FreeMap, Run};
use crate::config::{Config, Extent};

/// The free space of every device.
///
/// # Errors
/// [`PoolError::Inconsistent`] when extents of volumes or documents overlap or leave their device's data area.
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
    for extent in config.documents.values().flat_map(|record| &record.extents) {
        used.entry(extent.device).or_default().push(run(extent));
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

/// The free space of a pool. Used under the pool's lock, but for what is held.
#[derive(Default)]
pub(super) struct Space {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// `None`: to be built again.
    maps: Option<BTreeMap<Uuid, FreeMap>>,
    held: BTreeMap<u64, Vec<Extent>>,
    next_id: u64,
}

fn run(extent: &Extent) -> Run {
    Run {
        offset_bytes: extent.offset_bytes,
        length_bytes: extent.length_bytes,
    }
}

impl Shared {
    fn maps(&mut self, config: &Config) -> Result<&mut BTreeMap<Uuid, FreeMap>, PoolError> {
        let maps = match self.maps.take() {
            Some(maps) => maps,
            None => {
                let mut maps = free_maps(config)?;
                for extent in self.held.values().flatten() {
                    if let Some(map) = maps.get_mut(&extent.device) {
                        map.take_what_is_free(run(extent));
                    }
                }
                maps
            }
        };
        Ok(self.maps.insert(maps))
    }

    fn hold(&mut self, extents: Vec<Extent>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.held.insert(id, extents);
        id
    }

    /// Makes extents free that nobody has.
    fn give(&mut self, extents: &[Extent]) {
        let given = self.maps.as_mut().is_some_and(|maps| {
            extents.iter().all(|extent| {
                maps.get_mut(&extent.device)
                    .is_some_and(|map| map.give(run(extent)))
            })
        });
        if !given {
            self.maps = None;
        }
    }
}

impl Space {
    /// Drops the maps: the records have changed in a way that was not followed.
    pub(super) fn forget(&self) {
        self.shared.lock().maps = None;
    }

    /// Holds extents that the records have and a commit is about to free.
    pub(super) fn hold(&self, extents: Vec<Extent>) -> Reserved {
        let id = self.shared.lock().hold(extents.clone());
        Reserved {
            shared: self.shared.clone(),
            id,
            extents,
            done: false,
        }
    }

    /// Begins to take extents.
    pub(super) fn take(&self) -> Taking {
        let id = self.shared.lock().hold(Vec::new());
        Taking {
            shared: self.shared.clone(),
            id,
        }
    }

    /// Whether something on `device` is held.
    pub(super) fn is_held_on(&self, device: Uuid) -> bool {
        let shared = self.shared.lock();
        let mut held = shared.held.values().flatten();
        held.any(|extent| extent.device == device)
    }

    /// Free bytes of each device: (all, for data).
    ///
    /// # Errors
    /// As for [`free_maps`].
    pub(super) fn free_bytes(
        &self,
        config: &Config,
    ) -> Result<BTreeMap<Uuid, FreeBytes>, PoolError> {
        let mut shared = self.shared.lock();
        let maps = shared.maps(config)?;
        Ok(maps
            .iter()
            .map(|(uuid, map)| {
                let free = FreeBytes {
                    all: map.free_bytes(),
                    for_data: map.free_for_data_bytes(),
                };
                (*uuid, free)
            })
            .collect())
    }
}

/// What is free on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FreeBytes {
    /// In all.
    pub(super) all: u64,
    /// What data extents can use of it.
    pub(super) for_data: u64,
}

/// Extents being taken; given back when it is dropped.
pub(super) struct Taking {
    shared: Arc<Mutex<Shared>>,
    id: u64,
}

impl Taking {
    fn with<T>(
        &self,
        config: &Config,
        device: Uuid,
        take: impl FnOnce(&mut FreeMap) -> (Vec<Run>, T),
    ) -> Result<Option<(Vec<Extent>, T)>, PoolError> {
        let mut shared = self.shared.lock();
        let Some(map) = shared.maps(config)?.get_mut(&device) else {
            return Ok(None);
        };
        let (runs, value) = take(map);
        let extents: Vec<Extent> = runs
            .into_iter()
            .map(|run| Extent {
                device,
                offset_bytes: run.offset_bytes,
                length_bytes: run.length_bytes,
            })
            .collect();
        if let Some(held) = shared.held.get_mut(&self.id) {
            held.extend(&extents);
        }
        Ok(Some((extents, value)))
    }

    /// Up to `length_bytes` for data.
    pub(super) fn data(
        &mut self,
        config: &Config,
        device: Uuid,
        length_bytes: u64,
    ) -> Result<Vec<Extent>, PoolError> {
        let taken = self.with(config, device, |map| (map.take_data(length_bytes), ()))?;
        Ok(taken.map(|(extents, ())| extents).unwrap_or_default())
    }

    /// Up to `length_bytes` right behind `end`.
    pub(super) fn data_at(
        &mut self,
        config: &Config,
        device: Uuid,
        end: u64,
        length_bytes: u64,
    ) -> Result<Option<Extent>, PoolError> {
        let taken = self.with(config, device, |map| {
            (
                map.take_data_at(end, length_bytes).into_iter().collect(),
                (),
            )
        })?;
        Ok(taken.and_then(|(extents, ())| extents.first().copied()))
    }

    /// One run of `length_bytes` for a private area.
    pub(super) fn private(
        &mut self,
        config: &Config,
        device: Uuid,
        length_bytes: u64,
    ) -> Result<Option<Extent>, PoolError> {
        let taken = self.with(config, device, |map| {
            (map.take_private(length_bytes).into_iter().collect(), ())
        })?;
        Ok(taken.and_then(|(extents, ())| extents.first().copied()))
    }

    /// Where to [`Taking::back_to`].
    pub(super) fn mark(&self) -> usize {
        let shared = self.shared.lock();
        shared.held.get(&self.id).map_or(0, Vec::len)
    }

    /// Gives back what was taken since `mark`.
    pub(super) fn back_to(&mut self, mark: usize) {
        let mut shared = self.shared.lock();
        let Some(held) = shared.held.get_mut(&self.id) else {
            return;
        };
        let back = held.split_off(mark.min(held.len()));
        shared.give(&back);
    }

    /// Keeps what was taken.
    pub(super) fn finish(self) -> Reserved {
        let extents = {
            let shared = self.shared.lock();
            shared.held.get(&self.id).cloned().unwrap_or_default()
        };
        let reserved = Reserved {
            shared: self.shared.clone(),
            id: self.shared.lock().hold(extents.clone()),
            extents,
            done: false,
        };
        // Held twice for a moment; this one gives nothing back.
        self.shared.lock().held.remove(&self.id);
        reserved
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        if let Some(extents) = shared.held.remove(&self.id) {
            shared.give(&extents);
        }
    }
}

/// Extents that are held. Dropped without a word of who has them, the free maps are built again from the records:
/// always right, once the commit about them is done.
#[must_use]
pub(super) struct Reserved {
    shared: Arc<Mutex<Shared>>,
    id: u64,
    extents: Vec<Extent>,
    done: bool,
}

impl Reserved {
    /// The extents.
    pub(super) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The records have all of them now, or still.
    pub(super) fn committed(mut self) {
        self.shared.lock().held.remove(&self.id);
        self.done = true;
    }

    /// Nobody has them.
    pub(super) fn freed(mut self) {
        let mut shared = self.shared.lock();
        shared.held.remove(&self.id);
        shared.give(&self.extents);
        drop(shared);
        self.done = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.done {
            let mut shared = self.shared.lock();
            shared.held.remove(&self.id);
            shared.maps = None;
        }
    }
}

/// How much is free on each of `devices`, and who uses the rest.
pub(super) fn places(
    config: &Config,
    free: &BTreeMap<Uuid, FreeBytes>,
    devices: &[Uuid],
) -> String {
    let parts: Vec<String> = devices
        .iter()
        .filter_map(|uuid| {
            let record = config.devices.get(uuid)?;
            let free = free.get(uuid)?.all;
            let users = users(config, *uuid);
            let users = match users.len() {
                0 => "in use by no volume".to_owned(),
                1..=8 => format!("in use by {}", users.join(", ")),
                more => format!("in use by {} and {} more", users[..8].join(", "), more - 8),
            };
            Some(format!(
                "{} has {free} of {} bytes free ({users})",
                record.name, record.data_length_bytes
            ))
        })
        .collect();
    if parts.is_empty() {
        "no device can be used".into()
    } else {
        parts.join("; ")
    }
}

/// Names of the volumes that have an extent on a device, then the documents.
pub(super) fn users(config: &Config, device: Uuid) -> Vec<String> {
    let mut names: Vec<String> = config
        .volumes
        .values()
        .filter(|volume| volume.extents().any(|extent| extent.device == device))
        .map(|volume| volume.name.clone())
        .collect();
    names.sort();
    names.extend(super::documents::documents_on(config, device));
    names
}
