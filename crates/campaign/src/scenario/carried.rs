//! The disks come to another machine, all of them or without one.
//!
//! Invariants:
//! - What was exported in order is there: every acknowledged write, and every registration, also those made without APTPL.
//! - Without an export the way is a power cut; where an export was interrupted, it is one or the other, for each volume.
//! - An import that is interrupted is as good as none: the next one on this machine finds the same.
//! - A majority of the disks comes up, with every volume that has a whole plex and a majority of its keys there. A minority
//!   does not come up, and looking at it changes nothing.
//! - When everything is together again, everything is served, and nothing of what the missing disk held is believed before.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_lite::future::or;
use uuid::Uuid;
use volume::block_device::BlockDevice as _;
use volume::label::Areas;
use volume::sim::{Effect, Fault, Operations, Stop};
use volume::{DeviceSource, Pool};

use super::{Branch, Keeping};
use crate::owners::number_of;
use crate::state::boot_id;
use crate::verify::{Opened, path_of};
use crate::violation::{trace, violation};

/// How the pool left its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Exported,
    Perhaps,
    Torn,
}

pub(super) fn scenario(branch: &mut Branch<'_>) {
    let mut away: BTreeSet<usize> = BTreeSet::new();
    if branch.model.devices.len() > 1 && branch.random.one_in(2) {
        away.extend(branch.a_disk());
    }
    let home = branch.world.clone();
    let left = home.run(leave(branch, &away));
    home.observe(|_| {});
    let Some((left, tolerant)) = left else { return };
    trace!("  {left:?}");
    move_over(branch, left);
    if left == Left::Exported && branch.random.one_in(3) {
        interrupted_import(branch);
    }
    let there = branch.world.clone();
    there.run(async {
        if !away.is_empty() {
            branch.model.without = Some(tolerant);
        }
        // A minority was looked at: the disk that was forgotten is brought.
        let opened = match branch.open(&away).await {
            Some(opened) => Some(opened),
            None => {
                branch.model.without = None;
                branch.open(&BTreeSet::new()).await
            }
        };
        let Some(opened) = opened else { return };
        branch.check(&opened).await;
        for volume in opened.pool.volumes() {
            let number = number_of(&volume.record().name);
            let expected = number.and_then(|number| branch.model.volumes.get_mut(&number));
            // What is not served now is not of this boot.
            if let (Some(expected), true) = (expected, volume.fault().is_some()) {
                let always = expected.persist_always();
                expected.keys.perhaps_rebooted(always);
            }
        }
        branch.stir(&opened).await;
        if branch.random.one_in(2) {
            let _keeping = Keeping::new(&opened.pool);
            branch.sleep(Duration::from_secs(10)).await;
            branch.stir(&opened).await;
            branch.check(&opened).await;
        }
    });
    there.observe(|_| {});
    branch.everything_is_back();
}

/// What happens on the first machine.
async fn leave(branch: &mut Branch<'_>, away: &BTreeSet<usize>) -> Option<(Left, BTreeSet<u32>)> {
    let opened = branch.open(&BTreeSet::new()).await?;
    let keeping = Keeping::new(&opened.pool);
    branch.check(&opened).await;
    branch.stir(&opened).await;
    if branch.random.one_in(2) {
        branch.sleep(Duration::from_secs(5)).await;
    }
    if !branch.model.leaving.is_empty() {
        return None;
    }
    let left = match branch.random.below(4) {
        0 => Left::Torn,
        1 => {
            let moment = branch.random.below(60_000);
            let late = branch.world.device(0);
            let late = async {
                late.sleep(Duration::from_micros(moment)).await;
                Left::Perhaps
            };
            or(export(&opened.pool, keeping), late).await
        }
        _ => {
            // The records of an empty pool say nothing: those that count are looked at before.
            let tolerant = branch.tolerant(&opened, away).await;
            if away.is_empty() {
                a_copy_lags_behind(branch, &opened);
            }
            for volume in opened.pool.volumes() {
                if let Some(number) = number_of(&volume.record().name) {
                    branch.write(&volume, number).await;
                }
            }
            return Some((export(&opened.pool, keeping).await, tolerant));
        }
    };
    // What was interrupted may have changed which copies there are.
    let tolerant = match left {
        Left::Torn => branch.tolerant(&opened, away).await,
        Left::Exported | Left::Perhaps => BTreeSet::new(),
    };
    Some((left, tolerant))
}

/// One copy of the configuration, on a disk with the only copy of some data, takes too long for the commit that marks the pool: that commit makes
/// nothing durable there.
fn a_copy_lags_behind(branch: &mut Branch<'_>, opened: &Opened) {
    let records = opened.pool.volumes().into_iter().map(|v| v.record());
    let single = records.filter(|record| record.plexes.len() == 1);
    let plexes = single.flat_map(|record| record.plexes.clone());
    let devices: Vec<Uuid> = plexes
        .filter_map(|plex| Some(plex.extents().next()?.device))
        .collect();
    let device = branch.random.pick(&devices).copied();
    let disk = device.and_then(|device| opened.owners.lock().disk_of(device));
    let Some(disk) = disk else { return };
    let device = branch.world.device(disk);
    let Some(areas) = Areas::of(device.size_bytes()) else {
        return;
    };
    let start = areas.config_offset_bytes;
    let moment = Duration::from_millis(branch.random.within(1_100..4_000));
    let fault = Fault::new(Effect::Hang(Some(moment))).on(Operations::CHANGES);
    let fault = fault.range(start..start + areas.config_length_bytes);
    branch.world.inject(disk, fault.once());
}

async fn export(pool: &Pool<volume::sim::SimDevice>, keeping: Keeping) -> Left {
    if let Err(error) = pool.close().await {
        violation(&format!("the pool does not close: {error}"));
    }
    drop(keeping);
    if let Err(error) = pool.export().await {
        violation(&format!("the pool cannot be exported: {error}"));
    }
    Left::Exported
}

/// To the other machine: another boot.
fn move_over(branch: &mut Branch<'_>, left: Left) {
    let now = branch.counters.tick();
    let keys: Vec<_> = branch
        .model
        .volumes
        .iter_mut()
        .map(|(number, volume)| {
            if left == Left::Exported {
                volume.flushed(now);
            }
            (*number, volume.keys.clone())
        })
        .collect();
    branch.stop_by(Stop::PowerCut);
    branch.machine = "/mnt";
    for (number, keys) in keys {
        let Some(volume) = branch.model.volumes.get_mut(&number) else {
            continue;
        };
        match left {
            Left::Torn => {}
            Left::Exported => volume.keys = keys,
            Left::Perhaps => {
                volume.keys = keys;
                let always = volume.persist_always();
                volume.keys.perhaps_rebooted(always);
            }
        }
    }
}

/// An import of what was exported that does not come to its end.
fn interrupted_import(branch: &mut Branch<'_>) {
    let there = branch.world.clone();
    there.run(async {
        let disks = branch.model.devices.values();
        let sources = disks
            .map(|disk| DeviceSource {
                path: format!("/mnt{}", path_of(*disk)),
                device: there.device(*disk),
            })
            .collect();
        let boot = boot_id(branch.boot);
        let import = async {
            drop(Pool::open(sources, boot).await);
        };
        or(import, branch_sleep(&there, branch.random.below(30_000))).await;
    });
    branch.stop_by(Stop::Kill);
}

async fn branch_sleep(world: &volume::sim::SimWorld, micros: u64) {
    world.device(0).sleep(Duration::from_micros(micros)).await;
}
