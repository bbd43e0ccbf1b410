//! Promise 4 at the disks: what a client wrote lands where its volume says, and nowhere else.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use uuid::Uuid;
use volume::config::{Extent, Plex, PlexLayout};
use volume::sim::{Landing, SimDevice, SimWorld};
use volume::{Pool, VolumeRecord};

use crate::content::{self, Sector};
use crate::volume_model::SECTOR;

/// First byte after label and configuration on every device, at least.
const DATA_STARTS_AT: u64 = 5 << 20;

/// Who owns which bytes, as the records say.
#[derive(Default)]
pub struct Owners {
    disks: BTreeMap<Uuid, usize>,
    /// The records as last seen, and every extent that a volume ever had since the pool was opened.
    seen: BTreeMap<Uuid, Arc<VolumeRecord>>,
    past: BTreeMap<u32, Vec<Extent>>,
    /// Runs that no record has and that were zeroed since one had them: they were given back, and may be given to others.
    given_back: Vec<Extent>,
    /// Clients' zeroings under way, by volume: they may be on their way to what the volume had a moment ago.
    zeroing: BTreeMap<u32, usize>,
    /// What was found wrong.
    pub violation: Option<String>,
}

/// The number in the name of a volume (`v12`, `v12r3`).
pub fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix('v')?;
    digits.split('r').next()?.parse().ok()
}

/// Where byte `at` of the public region is in `plex` by definition: (device, offset).
pub fn locate(plex: &Plex, at: u64) -> Option<(Uuid, u64)> {
    let (column, mut within) = match plex.layout {
        PlexLayout::Linear => (0, at),
        PlexLayout::Striped { stripe_unit_bytes } => {
            let columns = plex.columns.len() as u64;
            let stripe = at / stripe_unit_bytes;
            let column = (stripe % columns) as usize;
            (
                column,
                stripe / columns * stripe_unit_bytes + at % stripe_unit_bytes,
            )
        }
    };
    for extent in &plex.columns.get(column)?.extents {
        if within < extent.length_bytes {
            return Some((extent.device, extent.offset_bytes + within));
        }
        within -= extent.length_bytes;
    }
    None
}

fn overlap(a: &Extent, b: &Extent) -> bool {
    a.device == b.device
        && a.offset_bytes < b.offset_bytes + b.length_bytes
        && b.offset_bytes < a.offset_bytes + a.length_bytes
}

fn holds(extent: &Extent, device: Uuid, offset_bytes: u64) -> bool {
    extent.device == device
        && (extent.offset_bytes..extent.offset_bytes + extent.length_bytes).contains(&offset_bytes)
}

impl Owners {
    /// Tells which disk a device is.
    pub fn device(&mut self, uuid: Uuid, disk: usize) {
        // A device that was removed and added again has another identity.
        self.disks.retain(|_, other| *other != disk);
        self.disks.insert(uuid, disk);
    }

    /// The disk of a device.
    pub fn disk_of(&self, uuid: Uuid) -> Option<usize> {
        self.disks.get(&uuid).copied()
    }

    /// Looks at the records: what a volume has now is its own, or was.
    pub fn refresh(&mut self, pool: &Pool<SimDevice>) {
        let mut now = BTreeMap::new();
        for volume in pool.volumes() {
            let record = volume.record();
            let known = self
                .seen
                .get(&record.uuid)
                .is_some_and(|seen| Arc::ptr_eq(seen, &record));
            if !known && let Some(number) = number_of(&record.name) {
                let past = self.past.entry(number).or_default();
                for extent in record.plexes.iter().flat_map(Plex::extents) {
                    if !past.contains(extent) {
                        past.push(*extent);
                    }
                    self.given_back.retain(|given| !overlap(given, extent));
                }
            }
            now.insert(record.uuid, record);
        }
        self.seen = now;
    }

    /// A client zeroes something of a volume, or has.
    pub fn zeroes(&mut self, number: u32, begins: bool) {
        let count = self.zeroing.entry(number).or_default();
        *count = if begins {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
    }

    fn device_of(&self, disk: usize) -> Option<Uuid> {
        let mut known = self.disks.iter();
        known.find(|(_, d)| **d == disk).map(|(uuid, _)| *uuid)
    }

    /// Zeroes landed: where no record has the place, whoever had it was done with it.
    fn zeroed(&mut self, pool: &Pool<SimDevice>, landing: Landing<'_>) {
        let Some(device) = self.device_of(landing.disk) else {
            return;
        };
        self.refresh(pool);
        let run = Extent {
            device,
            offset_bytes: landing.offset_bytes,
            length_bytes: landing.length_bytes,
        };
        let overlaps = |extent: &Extent| overlap(extent, &run);
        let mut owned = self.seen.values().flat_map(|record| record.extents());
        let a_client = self.past.iter().any(|(number, past)| {
            self.zeroing.get(number).is_some_and(|count| *count > 0) && past.iter().any(overlaps)
        });
        if !owned.any(overlaps) && !a_client && !self.given_back.contains(&run) {
            self.given_back.push(run);
        }
    }

    /// Looks at what lands.
    fn landing(&mut self, pool: &Pool<SimDevice>, landing: Landing<'_>) {
        let Some(data) = landing.data else {
            self.zeroed(pool, landing);
            return;
        };
        let mut fresh = false;
        for (index, bytes) in data.chunks_exact(SECTOR as usize).enumerate() {
            if !content::is_tagged(bytes) || self.violation.is_some() {
                continue;
            }
            if !std::mem::replace(&mut fresh, true) {
                self.refresh(pool);
            }
            let at = landing.offset_bytes + index as u64 * SECTOR;
            let problem = match content::decode(bytes) {
                // A block that was written in part, on a plex that is not believed there yet.
                Sector::Written {
                    volume: content::EARLIER,
                    write,
                    ..
                } if write == at => None,
                Sector::Written { volume, sector, .. } => {
                    self.judge(landing.disk, at, volume, sector)
                }
                Sector::Zero | Sector::Strange => Some("damaged data".to_owned()),
            };
            if let Some(problem) = problem {
                let found = content::decode(bytes);
                self.violation = Some(format!(
                    "{found:?} lands at {at} of disk {}, in {} bytes at {}: {problem}",
                    landing.disk,
                    data.len(),
                    landing.offset_bytes
                ));
            }
        }
    }

    fn judge(&self, disk: usize, at: u64, number: u32, sector: u64) -> Option<String> {
        let Some(device) = self.device_of(disk) else {
            // It was added a moment ago.
            return None;
        };
        if at < DATA_STARTS_AT {
            return Some("that is the label or the configuration".into());
        }
        for record in self.seen.values() {
            let own = number_of(&record.name) == Some(number);
            if record
                .keys
                .iter()
                .any(|keys| holds(&keys.extent, device, at))
            {
                return Some(format!("that is the private region of {}", record.name));
            }
            for plex in &record.plexes {
                if !plex.extents().any(|extent| holds(extent, device, at)) {
                    continue;
                }
                if !own {
                    return Some(format!(
                        "that belongs to {}: {:?}",
                        record.name, record.plexes
                    ));
                }
                // In an intent, or in its place of one of the plexes (two may share extents).
                let in_place = |plex: &Plex| {
                    holds(&plex.log, device, at)
                        || locate(plex, sector * SECTOR) == Some((device, at))
                };
                if record.plexes.iter().any(in_place) {
                    return None;
                }
                return Some(format!("in {} it belongs elsewhere", record.name));
            }
        }
        // Nobody's: what was the volume's a moment ago (a plex that was retired, a volume that was deleted).
        let past = self
            .past
            .get(&number)
            .is_some_and(|past| past.iter().any(|extent| holds(extent, device, at)));
        if !past {
            return Some("that belongs to nobody".into());
        }
        let mut given_back = self.given_back.iter();
        let late = given_back.any(|extent| holds(extent, device, at));
        late.then(|| "that was the volume's and was given back".into())
    }
}

/// Watches everything that lands on the disks of `world` while `pool` lives.
pub fn watch(world: &SimWorld, pool: &Arc<Pool<SimDevice>>, owners: &Arc<Mutex<Owners>>) {
    let (pool, owners): (Weak<Pool<SimDevice>>, _) = (Arc::downgrade(pool), owners.clone());
    world.observe(move |landing| {
        if let Some(pool) = pool.upgrade() {
            owners.lock().landing(&pool, landing);
        }
    });
}
