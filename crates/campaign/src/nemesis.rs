//! Disks in trouble: one at a time, until everything is whole again.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use volume::sim::{Effect, Fault, Operations, SimDevice};
use volume::{DeviceSource, Volume};

use crate::health::{unhealthy, weak};
use crate::state::{Ill, Life, Trouble};
use crate::verify::path_of;
use crate::violation::trace;

/// Brings trouble, and takes it away again, until everything is to become quiet.
pub async fn nemesis(life: Rc<Life>) {
    loop {
        let pause = life.below(40_000);
        life.sleep(Duration::from_micros(pause)).await;
        let trouble = life
            .model
            .borrow()
            .trouble
            .as_ref()
            .map(|trouble| trouble.lifted.is_some());
        match trouble {
            _ if life.quiet.get() => return,
            None if life.one_in(2) => begin(&life).await,
            Some(false) => {
                // Long enough, sometimes, for everybody to lose patience.
                if life.one_in(3) {
                    let patience = life.below(30);
                    life.sleep(Duration::from_secs(patience)).await;
                }
                lift(&life).await;
            }
            _ => {}
        }
    }
}

/// Whether everything in it is there without the device.
fn does_without(volume: &Volume<SimDevice>, device: uuid::Uuid) -> bool {
    let record = volume.record();
    let plex = record.plexes.iter().enumerate().any(|(position, plex)| {
        plex.is_attached() && !plex.is_on(device) && volume.stale_bytes(position) == 0
    });
    let away = record
        .keys
        .iter()
        .filter(|keys| keys.extent.device == device)
        .count();
    // A job may end with nothing but its fresh plexes.
    let job = record.job.as_ref().is_none_or(|job| {
        let fresh = record
            .plexes
            .iter()
            .filter(|plex| job.fresh.contains(&plex.uuid));
        job.fresh.is_empty() || fresh.clone().all(|plex| !plex.is_on(device))
    });
    plex && job && volume.unsettled_bytes() == 0 && away * 2 < record.keys.len()
}

async fn begin(life: &Life) {
    // Only where nothing else is wrong: what two troubles together may do is another question.
    if weak(&life.pool).await.is_some() {
        return;
    }
    let devices = life.pool.devices().await;
    let Some(info) = life.random.borrow_mut().pick(&devices).cloned() else {
        return;
    };
    let Some(disk) = life.owners.lock().disk_of(info.uuid) else {
        return;
    };
    // Without a majority of the configuration no plex can be detached.
    let quorum = devices.len() >= 3;
    let tolerant: BTreeSet<u32> = life
        .pool
        .volumes()
        .iter()
        .filter(|volume| quorum && does_without(volume, info.uuid))
        .filter_map(|volume| crate::owners::number_of(&volume.record().name))
        .collect();
    let half = life.world.device(disk);
    let middle = volume::block_device::BlockDevice::size_bytes(&*half) / 2;
    let (kind, ill, fault) = match life.below(10) {
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
        6 => (
            "flush error",
            Ill::Faulty,
            Some(Fault::new(Effect::Error).on(Operations::FLUSHES).once()),
        ),
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
        let Some(trouble) = &mut model.trouble else {
            return;
        };
        if trouble.lifted.is_none() {
            trace!(
                "{:?} disk {} is well again",
                life.world.time(),
                trouble.disk
            );
            trouble.heal(&life.world);
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
    for info in life.pool.devices().await {
        let away = info.failed.is_some() || !info.online || !info.present;
        if away && life.owners.lock().disk_of(info.uuid) == Some(disk) {
            let source = DeviceSource {
                path: path_of(disk),
                device: life.world.device(disk),
            };
            let result = life.pool.device_online(&info.name, source).await;
            trace!(
                "{:?} device online: {:?}",
                life.world.time(),
                result.map(|_| ())
            );
        }
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
            && active.values().all(|(.., since)| *since > lifted)
    };
    let lifted = life.model.borrow().trouble.as_ref().is_some_and(over);
    if lifted && unhealthy(&life.pool).await.is_none() {
        trace!("{:?} everything is whole again", life.world.time());
        life.model.borrow_mut().trouble = None;
    }
}
