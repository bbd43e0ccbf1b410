//! Disks in trouble: one at a time, until everything is whole again.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use uuid::Uuid;
use volume::sim::{Effect, Fault, Operations, SimDevice};
use volume::{DeviceSource, Volume, VolumeRecord};

use crate::health::{unhealthy, weak};
use crate::state::{Ill, Life, Trouble};
use crate::verify::path_of;
use crate::violation::trace;

/// Brings trouble, and takes it away again, until everything is to become quiet.
pub async fn nemesis(life: Rc<Life>) {
    loop {
        let pause = life.below(40_000);
        life.sleep(Duration::from_micros(pause)).await;
        let (trouble, hangs) = {
            let model = life.model.borrow();
            let trouble = model.trouble.as_ref();
            let hangs = trouble.is_some_and(|trouble| trouble.ill == Ill::Hanging);
            (trouble.map(|trouble| trouble.lifted.is_some()), hangs)
        };
        match trouble {
            _ if life.quiet.get() => return,
            None if life.one_in(2) => begin(&life).await,
            Some(false) => {
                // Long enough, sometimes, for everybody to lose patience.
                if life.one_in(if hangs { 2 } else { 3 }) {
                    let patience = life.below(30);
                    life.sleep(Duration::from_secs(patience)).await;
                }
                lift(&life).await;
            }
            _ => {}
        }
    }
}

/// Whether its keys have a majority without the device, whatever a job that is under way does with them: goes on, or is
/// taken back. The record has candidates too, of which some do not count yet and some no more; `members` count.
fn keys_do_without(record: &VolumeRecord, members: usize, device: Uuid) -> bool {
    let keys = &record.keys;
    if keys.iter().all(|keys| keys.extent.device != device) {
        return true;
    }
    let but = |gone: &[Uuid]| keys.iter().filter(|k| !gone.contains(&k.uuid)).count();
    let (before, after) = match &record.job {
        Some(job) => (but(&job.keys_fresh), but(&job.keys_retire)),
        None => (keys.len(), keys.len()),
    };
    // They come and go one at a time, in turn, so that there are never fewer than these; no two are on one device.
    members.min(before).min(after) > 2
}

/// Whether everything in it is there without the device; `members` replicas of its keys count.
fn does_without(volume: &Volume<SimDevice>, members: usize, device: Uuid) -> bool {
    let record = volume.record();
    let plex = record.plexes.iter().enumerate().any(|(position, plex)| {
        plex.is_attached() && !plex.is_on(device) && volume.stale_bytes(position) == 0
    });
    // A job may end with nothing but its fresh plexes.
    let job = record.job.as_ref().is_none_or(|job| {
        let fresh = record
            .plexes
            .iter()
            .filter(|plex| job.fresh.contains(&plex.uuid));
        job.fresh.is_empty() || fresh.clone().all(|plex| !plex.is_on(device))
    });
    let keys = keys_do_without(&record, members, device);
    plex && job && keys && volume.unsettled_bytes() == 0
}

async fn begin(life: &Life) {
    // Only where nothing else is wrong: what two troubles together may do is another question.
    if weak(&life.pool).await.is_some() {
        return;
    }
    let mut members = BTreeMap::new();
    for volume in life.pool.volumes() {
        let Ok(region) = volume.private_region() else {
            continue;
        };
        let health = region.health_now().await;
        members.insert(volume.uuid(), health.map_or(0, |health| health.len()));
    }
    let devices = life.pool.devices().await;
    let Some(info) = life.random.borrow_mut().pick(&devices).cloned() else {
        return;
    };
    let Some(disk) = life.owners.lock().disk_of(info.uuid) else {
        return;
    };
    // A job that is about to begin may leave fewer copies of keys than there are, and where the last of them go is not known.
    let moves_keys = ["evacuate", "migrate", "replace"];
    let moving = life
        .active
        .borrow()
        .values()
        .any(|(kind, ..)| moves_keys.contains(kind));
    let held = |volume: &Volume<SimDevice>| {
        let record = volume.record();
        let mut keys = record.keys.iter();
        keys.any(|keys| keys.extent.device == info.uuid)
    };
    // Without a majority of the configuration no plex can be detached.
    let quorum = devices.len() >= 3;
    let tolerant: BTreeSet<u32> = life
        .pool
        .volumes()
        .iter()
        .filter(|volume| {
            let members = members.get(&volume.uuid()).copied().unwrap_or(0);
            let surely = !(moving && held(volume));
            quorum && surely && does_without(volume, members, info.uuid)
        })
        .filter_map(|volume| crate::owners::number_of(&volume.record().name))
        .collect();
    let half = life.world.device(disk);
    let middle = volume::block_device::BlockDevice::size_bytes(&*half) / 2;
    let which = life.below(10);
    // Of a dead disk: without power, as its cache is. Of a failed flush: what the kernel tells once.
    let loses = matches!(which, 0 | 6) && life.one_in(2);
    let (kind, ill, fault) = match which {
        0 if loses => ("loses power", Ill::Dead, None),
        0 => ("dies", Ill::Dead, None),
        1 => ("hangs", Ill::Hanging, None),
        2 => {
            let moment = Duration::from_millis(1 + life.below(20_000));
            (
                "hangs for a time",
                Ill::Faulty,
                Some(Fault::new(Effect::Hang(Some(moment))).times(1 + life.below(3))),
            )
        }
        3 => (
            "write errors",
            Ill::Faulty,
            Some(
                Fault::new(Effect::Error)
                    .on(Operations::CHANGES)
                    .range(0..middle),
            ),
        ),
        4 => (
            "read errors",
            Ill::Faulty,
            Some(
                Fault::new(Effect::Error)
                    .on(Operations::READS)
                    .range(0..middle),
            ),
        ),
        5 => (
            "write error",
            Ill::Faulty,
            Some(
                Fault::new(Effect::ErrorInPart)
                    .on(Operations::CHANGES)
                    .once(),
            ),
        ),
        6 => {
            let (kind, effect) = if loses {
                ("flush error and loss", Effect::ErrorAndLoss)
            } else {
                ("flush error", Effect::Error)
            };
            let fault = Fault::new(effect).on(Operations::FLUSHES).once();
            (kind, Ill::Faulty, Some(fault))
        }
        7 => (
            "read error",
            Ill::Faulty,
            Some(Fault::new(Effect::Error).on(Operations::READS).once()),
        ),
        8 => ("device fail", Ill::Failed, None),
        _ => ("slow", Ill::Faulty, None),
    };
    if life.quiet.get() {
        return;
    }
    trace!(
        "{:?} disk {disk}: {kind}; {tolerant:?} do without it",
        life.world.time()
    );
    *life.summary.borrow_mut().faults.entry(kind).or_default() += 1;
    life.model.borrow_mut().trouble = Some(Trouble {
        disk,
        tolerant,
        ill,
        loses,
        cut_off: false,
        lifted: None,
    });
    match (ill, fault) {
        (Ill::Failed, _) => {
            let _active = life.begin("device fail", 0);
            match life.pool.device_fail(&info.name).await {
                Ok(()) => life.done("device fail"),
                Err(error) => {
                    trace!("  device fail refused: {error}");
                    life.refused("device fail");
                }
            }
        }
        (Ill::Dead, _) => life.world.die(disk),
        (Ill::Hanging, _) => life.world.hang(disk),
        (_, Some(fault)) => life.world.inject(disk, fault),
        (_, None) => life.world.slow(disk, 300),
    }
}

/// The disk is well again; what it did remains to be repaired.
pub async fn lift(life: &Life) {
    {
        let mut model = life.model.borrow_mut();
        let Some(trouble) = &model.trouble else {
            return;
        };
        if trouble.lifted.is_none() {
            trace!(
                "{:?} disk {} is well again",
                life.world.time(),
                trouble.disk
            );
            model.heal(&life.world, life.counters.tick());
        }
    }
    bring_online(life).await;
}

/// Brings devices back that were given up, as an operator does.
async fn bring_online(life: &Life) {
    let Some(disk) = life
        .model
        .borrow()
        .trouble
        .as_ref()
        .filter(|t| t.lifted.is_some())
        .map(|t| t.disk)
    else {
        return;
    };
    notice(life, disk).await;
    for info in life.pool.devices().await {
        let away = info.failed.is_some() || !info.online || !info.present;
        if away && life.owners.lock().disk_of(info.uuid) == Some(disk) {
            let source = DeviceSource {
                path: path_of(disk),
                device: life.world.device(disk),
            };
            let result = life.pool.device_online(&info.name, source).await;
            if result.is_ok() {
                reopened(life);
            }
            trace!(
                "{:?} device online: {:?}",
                life.world.time(),
                result.map(|_| ())
            );
        }
    }
}

/// A disk that was without power is noticed to be another one by the first flush of it; with nothing on it, an operator sees it.
async fn notice(life: &Life, disk: usize) {
    let cut_off = || {
        let model = life.model.borrow();
        model
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.cut_off)
    };
    if !cut_off() {
        return;
    }
    let on_it = |device| life.owners.lock().disk_of(device) == Some(disk);
    for volume in life.pool.volumes() {
        let record = volume.record();
        let mut extents = record.extents().map(|extent| extent.device);
        if volume.fault().is_none() && extents.any(on_it) {
            let flushed = volume.flush().await;
            trace!("  flush of {}: {flushed:?}", record.name);
        }
    }
    let devices = life.pool.devices().await;
    match devices.iter().find(|info| on_it(info.uuid)) {
        Some(info) if info.online && info.failed.is_none() => {
            let failed = life.pool.device_fail(&info.name).await;
            trace!("  device fail of {}: {failed:?}", info.name);
        }
        Some(_) => {}
        None => reopened(life),
    }
}

fn reopened(life: &Life) {
    if let Some(trouble) = &mut life.model.borrow_mut().trouble {
        trouble.cut_off = false;
    }
}

/// Ends the trouble when everything is whole again.
pub async fn end_if_healthy(life: &Life) {
    // What met the trouble may still fail later.
    let over = |trouble: &Trouble| {
        let Some(lifted) = trouble.lifted else {
            return false;
        };
        let active = life.active.borrow();
        life.world.going_wrong(trouble.disk) == 0
            && !trouble.cut_off
            && active.values().all(|(.., since)| *since > lifted)
    };
    let lifted = life.model.borrow().trouble.as_ref().is_some_and(over);
    if lifted && unhealthy(&life.pool).await.is_none() {
        trace!("{:?} everything is whole again", life.world.time());
        life.model.borrow_mut().trouble = None;
    }
}
