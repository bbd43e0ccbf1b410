//! After a restart: is everything there that was promised?

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use volume::block_device::aligned_buffer;
use volume::sim::{Random, SimDevice, SimWorld};
use volume::{DeviceSource, Pool, Volume};

use crate::between;
use crate::health::compare_plexes;
use crate::owners::{Owners, number_of, watch};
use crate::state::{Counters, Model, Pending, boot_id};
use crate::violation::{trace, violation};
use crate::volume_model::{Identity, SECTOR, SPOT_SECTORS};

/// Where a disk is said to be.
pub fn path_of(disk: usize) -> String {
    format!("/disk{disk}")
}

/// A pool that was opened and found right.
pub struct Opened {
    /// The pool.
    pub pool: Arc<Pool<SimDevice>>,
    /// Who owns what on its disks.
    pub owners: Arc<Mutex<Owners>>,
}

/// Opens the pool as it is on the disks of `world` and makes `model` follow what of the operations under way happened.
/// Anything that cannot be ends the history. `None` when there is no pool, and may be none.
pub async fn open(
    world: &SimWorld,
    model: &mut Model,
    counters: &Counters,
    random: &mut Random,
    boot: u64,
) -> Option<Opened> {
    let opening = Opening {
        boot,
        ..Opening::default()
    };
    open_where(world, model, counters, random, &opening).await
}

/// Where and with what a pool is opened.
#[derive(Default)]
pub struct Opening {
    /// Number of the boot of the machine.
    pub boot: u64,
    /// What the paths of the disks begin with on this machine.
    pub machine: &'static str,
    /// Disks that are not there.
    pub away: BTreeSet<usize>,
}

/// As [`open`], on any machine. Disks may be away only when no change of the devices is under way: a majority of them
/// opens, a minority does not.
pub async fn open_where(
    world: &SimWorld,
    model: &mut Model,
    counters: &Counters,
    random: &mut Random,
    opening: &Opening,
) -> Option<Opened> {
    let Opening {
        boot,
        machine,
        away,
    } = opening;
    let members = model.devices.len();
    let mut disks: BTreeSet<usize> = model.devices.values().copied().collect();
    disks.extend(model.pending.values().filter_map(|pending| match pending {
        Pending::DeviceAdd(_, disk) => Some(*disk),
        _ => None,
    }));
    disks.retain(|disk| !away.contains(disk));
    let minority = !away.is_empty() && disks.len() <= members / 2;
    if minority && disks.is_empty() {
        // Without a disk it is another pool, an empty one.
        return None;
    }
    let sources = disks
        .iter()
        .map(|disk| DeviceSource {
            path: format!("{machine}{}", path_of(*disk)),
            device: world.device(*disk),
        })
        .collect();
    let pool = match Pool::open(sources, boot_id(*boot)).await {
        Ok(_) if minority => violation("a minority of the devices opens"),
        Ok(pool) => Arc::new(pool),
        Err(_) if minority => return None,
        // The very first device was being added.
        Err(_) if model.devices.is_empty() => return None,
        Err(error) if may_be_away(model) => {
            trace!("the pool does not open: {error}");
            return None;
        }
        Err(error) => violation(&format!("the pool does not open: {error}")),
    };
    let owners = Arc::<Mutex<Owners>>::default();
    watch(world, &pool, &owners);
    devices(&pool, model, &owners).await;
    owners.lock().refresh(&pool);
    volumes(&pool, model, random);
    model.pending.clear();
    model.closing.clear();
    let now = counters.tick();
    for volume in pool.volumes() {
        // Of what is not served nothing was made durable.
        if volume.fault().is_none()
            && let Some(number) = number_of(&volume.record().name)
            && let Some(expected) = model.volumes.get_mut(&number)
        {
            expected.opened(now);
        }
    }
    // A plex in trouble may be found out later.
    if away.is_empty()
        && model.trouble.is_none()
        && let Err(problem) = as_settled(world, &pool, &owners.lock())
    {
        violation(&problem);
    }
    Some(Opened { pool, owners })
}

/// Whether everything that counts as settled is: what is in place, and that all plexes are the same where the region log says
/// that nothing was in flight.
fn as_settled(world: &SimWorld, pool: &Pool<SimDevice>, owners: &Owners) -> Result<(), String> {
    between::check(world, pool, owners)?;
    for volume in pool.volumes() {
        let record = volume.record();
        let plexes = 0..record.plexes.len();
        let whole = record.plexes.iter().all(|plex| plex.is_attached())
            && plexes.clone().all(|plex| volume.stale_bytes(plex) == 0);
        if plexes.len() > 1 && whole && volume.fault().is_none() && volume.unsettled_bytes() == 0 {
            compare_plexes(world, &volume, owners)?;
        }
    }
    Ok(())
}

/// Whether the disk in trouble can take the pool with it.
fn may_be_away(model: &Model) -> bool {
    let removed = |pending: &&Pending| matches!(pending, Pending::DeviceRemove(_));
    let leaving = model.pending.values().filter(removed).count() + model.leaving.len();
    let certain = model.devices.len().saturating_sub(leaving);
    let ill = model
        .trouble
        .as_ref()
        .is_some_and(|trouble| trouble.lifted.is_none());
    ill && certain < 3
}

async fn devices(pool: &Pool<SimDevice>, model: &mut Model, owners: &Mutex<Owners>) {
    let mut found = std::collections::BTreeMap::new();
    for info in pool.devices().await {
        let disk = info
            .path
            .rsplit_once("/disk")
            .map(|(_, disk)| disk)
            .and_then(|disk| disk.parse().ok());
        let Some(disk) = disk else {
            violation(&format!("device {} is at {}", info.name, info.path));
        };
        owners.lock().device(info.uuid, disk);
        found.insert(info.name, disk);
    }
    for (name, disk) in &found {
        let added = model
            .pending
            .values()
            .any(|p| matches!(p, Pending::DeviceAdd(n, d) if n == name && d == disk));
        if model.devices.get(name) != Some(disk) && !added {
            violation(&format!("device {name} on disk {disk} was never added"));
        }
    }
    for name in model.devices.keys() {
        let removed = model
            .pending
            .values()
            .any(|p| matches!(p, Pending::DeviceRemove(n) if n == name))
            || model.leaving.contains(name);
        if !found.contains_key(name) && !removed {
            violation(&format!("device {name} is gone"));
        }
    }
    model.leaving.retain(|name| found.contains_key(name));
    model.devices = found;
}

/// Makes the model follow the volumes that are there.
fn volumes(pool: &Pool<SimDevice>, model: &mut Model, random: &mut Random) {
    let pending = std::mem::take(&mut model.pending);
    let mut maybe_gone = BTreeSet::new();
    let mut grown = BTreeSet::new();
    let mut renamed = BTreeSet::new();
    for pending in pending.into_values() {
        match pending {
            Pending::Create(volume) => {
                maybe_gone.insert(volume.number);
                model.volumes.insert(volume.number, *volume);
            }
            Pending::Delete(number) => {
                maybe_gone.insert(number);
            }
            Pending::Grow(number, size) => {
                grown.insert((number, size));
            }
            Pending::Rename(number, name) => {
                renamed.insert((number, name));
            }
            Pending::DeviceAdd(..) | Pending::DeviceRemove(_) => {}
        }
    }
    let mut found = BTreeSet::new();
    for volume in pool.volumes() {
        let record = volume.record();
        let Some(expected) =
            number_of(&record.name).and_then(|number| model.volumes.get_mut(&number))
        else {
            violation(&format!("volume {} is back from the dead", record.name));
        };
        let number = expected.number;
        found.insert(number);
        let identity = expected
            .identity
            .get_or_insert_with(|| Identity::of(&record));
        if *identity != Identity::of(&record) {
            violation(&format!(
                "volume {number} was {identity:?} and is {:?}",
                Identity::of(&record)
            ));
        }
        if record.size_bytes != expected.size_bytes {
            if !grown.contains(&(number, record.size_bytes)) {
                violation(&format!(
                    "volume {number} has {} bytes, not {}",
                    record.size_bytes, expected.size_bytes
                ));
            }
            expected.grow(record.size_bytes, random);
        }
        if record.name != expected.name {
            if !renamed.contains(&(number, record.name.clone())) {
                violation(&format!(
                    "volume {number} is named {}, not {}",
                    record.name, expected.name
                ));
            }
            expected.name = record.name.clone();
        }
    }
    for number in model.volumes.keys() {
        if !found.contains(number) && !maybe_gone.contains(number) {
            violation(&format!("volume {number} is gone"));
        }
    }
    model.volumes.retain(|number, _| found.contains(number));
}

/// Reads everything: data, atomic writes, keys. What is found is what stays.
pub async fn check(pool: &Pool<SimDevice>, model: &mut Model, counters: &Counters) {
    for volume in pool.volumes() {
        let Some(number) = number_of(&volume.record().name) else {
            continue;
        };
        let tolerant = model
            .trouble
            .as_ref()
            .is_none_or(|trouble| trouble.tolerant.contains(&number))
            && model
                .without
                .as_ref()
                .is_none_or(|tolerant| tolerant.contains(&number));
        if let Some(fault) = volume.fault() {
            if tolerant {
                violation(&format!("volume {number} is not served: {fault}"));
            }
            continue;
        }
        data(&volume, number, model, counters, tolerant).await;
        keys(&volume, number, model, tolerant).await;
    }
}

async fn data(
    volume: &Volume<SimDevice>,
    number: u32,
    model: &mut Model,
    counters: &Counters,
    tolerant: bool,
) {
    let Some(expected) = model.volumes.get_mut(&number) else {
        return;
    };
    let firsts: Vec<u64> = expected.spots.iter().map(|spot| spot.first).collect();
    for first in firsts {
        let sectors = first..first + SPOT_SECTORS;
        let allowed = expected.allowed(sectors.clone(), counters.tick());
        let length = (SPOT_SECTORS * SECTOR) as usize;
        let (result, buf) = volume.read(first * SECTOR, aligned_buffer(length)).await;
        if let Err(error) = result {
            if tolerant {
                violation(&format!("volume {number} cannot be read: {error}"));
            }
            continue;
        }
        let torn = expected.atomics.iter().find(|atomic| {
            let inside = atomic.sectors.clone().filter(|sector| sectors.contains(sector));
            let written = inside.filter(|sector| {
                let at = ((sector - first) * SECTOR) as usize;
                let found = crate::content::decode(&buf[at..at + SECTOR as usize]);
                matches!(found, crate::content::Sector::Written { write, .. } if write == atomic.write)
            });
            let count = written.count() as u64;
            sectors.contains(&atomic.sectors.start) && count != 0 && count != atomic.sectors.end - atomic.sectors.start
        });
        if let Some(atomic) = torn
            && tolerant
        {
            violation(&format!("volume {number}: {atomic:?} is there in part"));
        }
        let (id, now) = (counters.id(), counters.tick());
        if let Err(problem) = expected.check_read(sectors, &allowed, &buf, id, now) {
            violation(&format!("{problem}; {}", crate::health::describe(volume)));
        }
    }
    expected.atomics.clear();
}

async fn keys(volume: &Volume<SimDevice>, number: u32, model: &mut Model, tolerant: bool) {
    let Some(expected) = model.volumes.get_mut(&number) else {
        return;
    };
    let found = match volume.private_region() {
        Ok(region) => region.load().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(found) if expected.keys.allowed().contains(&&found) => {
            expected.keys.acknowledged = found;
            expected.keys.in_flight = None;
        }
        Ok(found) => violation(&format!(
            "volume {number}: keys {found:?} where {:?} was acknowledged",
            expected.keys
        )),
        Err(error) if tolerant => violation(&format!("volume {number}: no keys: {error}")),
        Err(_) => {}
    }
}
