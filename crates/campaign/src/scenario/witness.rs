//! A pool of two disks gets a witness (`docs/decisions/0007-witness.md`).
//!
//! Invariants:
//! - A crash while it joins leaves it in the pool or out of it, and the pool whole.
//! - With it, each of the three may be away: the pool comes up, and every volume with a whole plex on what is left. Keys
//!   that no operator placed get a replica there, without anybody asking.
//! - A witness that was lost is replaced by another one, and then may be removed.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_lite::future::or;
use volume::DeviceSource;
use volume::block_device::BlockDevice as _;
use volume::config::DeviceRole;

use super::{Branch, Keeping};
use crate::state::Pending;
use crate::verify::{Opened, path_of};
use crate::violation::violation;

/// Room for keys and configuration.
const BYTES: u64 = 48 << 20;
/// How long the keeper has to bring the keys where they belong.
const ROUNDS: usize = 120;

pub(super) fn scenario(branch: &mut Branch<'_>) {
    if branch.model.devices.len() != 2 || !branch.model.pending.is_empty() {
        return;
    }
    let first = branch.world.disks();
    branch.world.add(BYTES, 512);
    branch.world.add(BYTES, 512);
    let world = branch.world.clone();
    let interrupted = branch.random.one_in(4);
    let next = world.run(async {
        let opened = branch.open(&BTreeSet::new()).await?;
        let calm = super::nothing_is_emptied(&opened).await;
        let _keeping = Keeping::new(&opened.pool);
        branch.check(&opened).await;
        if interrupted {
            let moment = branch.random.below(20_000);
            let clock = branch.world.device(0);
            let late = async {
                clock.sleep(Duration::from_micros(moment)).await;
            };
            let join = async {
                join(branch, &opened, "witness", first).await;
            };
            or(join, late).await;
            return None;
        }
        join(branch, &opened, "witness", first).await;
        if calm {
            keys_come(branch, &opened).await;
        }
        branch.stir(&opened).await;
        let away: BTreeSet<usize> = branch.a_disk().into_iter().collect();
        let tolerant = branch.tolerant(&opened, &away).await;
        Some((away, tolerant))
    });
    world.observe(|_| {});
    if let Some((away, tolerant)) = next {
        branch.stop();
        branch.model.without = Some(tolerant);
        let world = branch.world.clone();
        world.run(async {
            let Some(opened) = branch.open(&away).await else {
                violation("two of three do not come up");
            };
            branch.check(&opened).await;
            branch.stir(&opened).await;
            let needed = opened.pool.witness_needed().await;
            if needed != away.contains(&first) {
                violation(&format!("without {away:?} a witness is needed: {needed}"));
            }
            if needed && super::nothing_is_emptied(&opened).await && branch.random.one_in(2) {
                let _keeping = Keeping::new(&opened.pool);
                join(branch, &opened, "witness-2", first + 1).await;
                keys_come(branch, &opened).await;
                leave(branch, &opened).await;
                branch.stir(&opened).await;
            }
        });
        world.observe(|_| {});
    }
    branch.everything_is_back();
}

async fn join(branch: &mut Branch<'_>, opened: &Opened, name: &str, disk: usize) {
    let id = branch.counters.id();
    let pending = Pending::DeviceAdd(name.into(), disk);
    branch.model.pending.insert(id, pending);
    let source = DeviceSource {
        path: path_of(disk),
        device: branch.world.device(disk),
    };
    match opened.pool.witness_add(source).await {
        Ok(info) if info.name == name && info.role == DeviceRole::Witness => {
            opened.owners.lock().device(info.uuid, disk);
        }
        Ok(info) => violation(&format!("a witness came as {info:?}")),
        Err(error) => violation(&format!("a witness cannot be added: {error}")),
    }
    branch.model.pending.remove(&id);
    branch.model.devices.insert(name.into(), disk);
}

/// Waits until the keys that no operator placed have three current replicas.
async fn keys_come(branch: &Branch<'_>, opened: &Opened) {
    let mut problem = String::new();
    for _ in 0..ROUNDS {
        problem.clear();
        for volume in opened.pool.volumes() {
            let record = volume.record();
            let Ok(region) = volume.private_region() else {
                continue;
            };
            let placed = !record.keys_placement.is_empty() || record.job.is_some();
            let Ok(health) = region.health_now().await else {
                continue;
            };
            let all = super::current_keys(&volume, |_| true).await;
            let wanted = usize::from(record.keys_wanted).min(3);
            if !placed && (health.len() < wanted || !all) {
                problem = format!("{}: {health:?}", record.name);
            }
        }
        if problem.is_empty() {
            return;
        }
        let clock = branch.world.device(0);
        clock.sleep(Duration::from_secs(1)).await;
    }
    violation(&format!("the keys do not come to the witness: {problem}"));
}

/// The witness that is not there any more leaves as soon as nothing is on it.
async fn leave(branch: &mut Branch<'_>, opened: &Opened) {
    for _ in 0..ROUNDS {
        let surplus = opened.pool.witnesses_to_remove().await;
        let Some(old) = surplus.first() else { return };
        if old.name != "witness" {
            violation(&format!("the wrong witness is to go: {surplus:?}"));
        }
        if old.volumes.is_empty() {
            if let Err(error) = opened.pool.device_remove(&old.name).await {
                violation(&format!("a witness that is lost cannot leave: {error}"));
            }
            branch.model.devices.remove("witness");
            return;
        }
        let clock = branch.world.device(0);
        clock.sleep(Duration::from_secs(1)).await;
    }
    // A volume whose operator wants its keys there, or with a job, keeps it.
}
