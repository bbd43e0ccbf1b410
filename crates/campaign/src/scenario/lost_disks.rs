//! Disks break for good, one or two at once, and the pool gets its strength back without them.
//!
//! Invariants:
//! - While a majority of the disks is left, every volume with a whole plex and a majority of its keys on what is left goes on,
//!   and through a crash: it is written and reserved, and nothing acknowledged is lost.
//! - Keys that no operator placed get back as many replicas as there should be, on disks that are left, without anybody
//!   asking.
//! - A disk that is put in the place of a lost one takes over everything that was there, and the lost one leaves the pool.
//! - From then on one more disk may go.
//! - When lost disks come back as they were, everything is served.

use std::collections::BTreeSet;
use std::time::Duration;

use volume::DeviceSource;
use volume::block_device::BlockDevice as _;
use volume::config::DeviceRole;
use volume::label::COPY_OFFSETS_BYTES;
use volume::page_store::ReplicaHealth;
use volume::pool::PoolErrorKind;

use super::{Branch, Keeping};
use crate::owners::number_of;
use crate::state::Pending;
use crate::verify::{Opened, path_of};
use crate::violation::{trace, violation};

/// How long the keeper has to bring keys elsewhere and a job to end, in seconds.
const ROUNDS: usize = 300;
/// Rounds between two changes by clients: nobody can know that a replica is lost before it is written.
const STIR_EVERY: usize = 20;
/// A disk with so much room takes a replica, wherever what is free lies.
const ROOM_BYTES: u64 = 8 << 20;
/// Size of a disk in the place of another.
const SPARE_BYTES: u64 = 80 << 20;

/// How disks are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// They are not there when the pool is opened.
    Away,
    /// They are there, and nothing on them says whose they are.
    NoLabel,
    /// They die while they are used.
    Die,
    /// An operator takes one out of use.
    Failed,
}

/// What was where the copies of the labels are: disk, byte, content.
type Labels = Vec<(usize, u64, Vec<u8>)>;

/// Disks that are to be away next, and the volumes that can do without them.
type Next = Option<(BTreeSet<usize>, BTreeSet<u32>)>;

pub(super) fn scenario(branch: &mut Branch<'_>) {
    let disks = branch.model.devices.len();
    if disks < 3 {
        return;
    }
    let most = if disks >= 5 { 2 } else { 1 };
    let mut lost = BTreeSet::new();
    for _ in 0..branch.random.within(1..most + 1) {
        lost.extend(branch.a_disk());
    }
    let way = match branch.random.below(5) {
        0 => Way::Away,
        1 => Way::NoLabel,
        2 if lost.len() == 1 => Way::Failed,
        _ => Way::Die,
    };
    trace!("  {lost:?}: {way:?}");
    let mut labels = Labels::new();
    let next = match way {
        Way::Away | Way::NoLabel => {
            let before = branch.world.clone();
            let tolerant = before.run(before_they_go(branch, &lost));
            before.observe(|_| {});
            let Some(tolerant) = tolerant else { return };
            branch.stop();
            branch.model.without = Some(tolerant);
            let mut away = BTreeSet::new();
            if way == Way::Away {
                away.clone_from(&lost);
            } else {
                labels = without_labels(branch, &lost);
            }
            let world = branch.world.clone();
            let next = world.run(async {
                let opened = branch.open(&away).await?;
                let _keeping = Keeping::new(&opened.pool);
                branch.check(&opened).await;
                let calm = super::nothing_is_emptied(&opened).await;
                go_on(branch, &opened, lost, calm).await
            });
            world.observe(|_| {});
            next
        }
        Way::Die | Way::Failed => {
            let world = branch.world.clone();
            let next = world.run(break_and_go_on(branch, way, lost));
            world.observe(|_| {});
            next
        }
    };
    if let Some((away, tolerant)) = next {
        branch.stop();
        branch.model.without = Some(tolerant);
        let world = branch.world.clone();
        world.run(async {
            if let Some(opened) = branch.open(&away).await {
                let _keeping = Keeping::new(&opened.pool);
                branch.check(&opened).await;
                if branch.random.one_in(2) {
                    branch.sleep(Duration::from_secs(10)).await;
                }
                branch.stir(&opened).await;
                branch.check(&opened).await;
            }
        });
        world.observe(|_| {});
    }
    everybody_comes_back(branch, &labels);
    branch.everything_is_back();
}

/// Whether the disks are in the pool still and a majority is without them: a removal was under way, perhaps.
fn may_go(branch: &Branch<'_>, lost: &BTreeSet<usize>) -> bool {
    let disks: BTreeSet<usize> = branch.model.devices.values().copied().collect();
    branch.model.leaving.is_empty() && lost.is_subset(&disks) && lost.len() * 2 < disks.len()
}

/// Life before; returns the volumes that can do without the disks.
async fn before_they_go(branch: &mut Branch<'_>, lost: &BTreeSet<usize>) -> Option<BTreeSet<u32>> {
    let opened = branch.open(&BTreeSet::new()).await?;
    let _keeping = Keeping::new(&opened.pool);
    branch.check(&opened).await;
    branch.sleep(Duration::from_secs(10)).await;
    branch.stir(&opened).await;
    if !may_go(branch, lost) {
        return None;
    }
    Some(branch.tolerant(&opened, lost).await)
}

/// Takes the labels from disks; returns what was there.
fn without_labels(branch: &mut Branch<'_>, lost: &BTreeSet<usize>) -> Labels {
    let mut labels = Labels::new();
    for disk in lost {
        let image = branch.world.image(*disk);
        let garbage = branch.random.one_in(2);
        for at in COPY_OFFSETS_BYTES {
            let mut before = vec![0; 4096];
            image.read(at, &mut before);
            let mut bytes = vec![0; before.len()];
            if garbage {
                bytes
                    .chunks_exact_mut(8)
                    .for_each(|word| word.copy_from_slice(&branch.random.bits().to_le_bytes()));
            }
            branch.world.overwrite(*disk, at, &bytes);
            labels.push((*disk, at, before));
        }
    }
    labels
}

/// The disks break while the pool is in use.
async fn break_and_go_on(branch: &mut Branch<'_>, way: Way, lost: BTreeSet<usize>) -> Next {
    let opened = branch.open(&BTreeSet::new()).await?;
    let calm = super::nothing_is_emptied(&opened).await;
    let _keeping = Keeping::new(&opened.pool);
    branch.check(&opened).await;
    branch.sleep(Duration::from_secs(10)).await;
    branch.stir(&opened).await;
    if !may_go(branch, &lost) {
        return None;
    }
    let mut tolerant = branch.tolerant(&opened, &lost).await;
    // What a job is doing to the keys meanwhile is another question.
    for volume in opened.pool.volumes() {
        let record = volume.record();
        if let (Some(_), Some(number)) = (&record.job, number_of(&record.name)) {
            tolerant.remove(&number);
        }
    }
    branch.model.without = Some(tolerant);
    for disk in &lost {
        if way == Way::Die {
            branch.world.die(*disk);
            continue;
        }
        match opened.pool.device_fail(&name_of(branch, *disk)).await {
            Ok(()) => {}
            Err(error) if error.kind() == PoolErrorKind::Failed => {
                violation(&format!("a disk cannot be taken out of use: {error}"));
            }
            // It is needed.
            Err(_) => return None,
        }
    }
    if way == Way::Die && branch.random.one_in(3) {
        // Somebody meets it, and then the power fails.
        branch.stir(&opened).await;
        return Some((lost, branch.model.without.clone().unwrap_or_default()));
    }
    go_on(branch, &opened, lost, calm).await
}

fn name_of(branch: &Branch<'_>, disk: usize) -> String {
    let mut devices = branch.model.devices.iter();
    let found = devices.find(|(_, on)| **on == disk);
    found.map_or_else(String::new, |(name, _)| name.clone())
}

/// Life without the disks.
async fn go_on(
    branch: &mut Branch<'_>,
    opened: &Opened,
    mut lost: BTreeSet<usize>,
    calm: bool,
) -> Next {
    branch.stir(opened).await;
    branch.check(opened).await;
    if calm {
        keys_come(branch, opened, &lost).await;
    }
    if branch.random.one_in(2) {
        replace_one(branch, opened, &mut lost).await;
    }
    if !branch.model.leaving.is_empty() {
        return None;
    }
    branch.stir(opened).await;
    let mut away = lost;
    away.extend(branch.a_disk());
    if away.len() >= branch.model.devices.len() {
        return None;
    }
    let tolerant = branch.tolerant(opened, &away).await;
    Some((away, tolerant))
}

/// Waits until the keys that no operator placed have all their replicas on the disks that are left, where there is room.
async fn keys_come(branch: &mut Branch<'_>, opened: &Opened, lost: &BTreeSet<usize>) {
    let mut problem = None;
    for round in 0..ROUNDS {
        if round % STIR_EVERY == 0 {
            branch.stir(opened).await;
        }
        problem = weak_keys(branch, opened, lost).await;
        if problem.is_none() {
            return;
        }
        second(branch).await;
    }
    if let Some(problem) = problem {
        violation(&format!(
            "the keys do not leave the lost disks {lost:?}: {problem}"
        ));
    }
}

async fn second(branch: &Branch<'_>) {
    branch.world.device(0).sleep(Duration::from_secs(1)).await;
}

async fn weak_keys(branch: &Branch<'_>, opened: &Opened, lost: &BTreeSet<usize>) -> Option<String> {
    let is_lost = |device| {
        let disk = opened.owners.lock().disk_of(device);
        disk.is_none_or(|disk| lost.contains(&disk))
    };
    let devices = opened.pool.devices().await;
    let roomy = devices.iter().filter(|info| {
        let usable = info.present && info.online && info.failed.is_none() && info.abandoned == 0;
        usable
            && info.role == DeviceRole::Data
            && info.free_bytes >= ROOM_BYTES
            && !is_lost(info.uuid)
    });
    let room = roomy.count();
    for volume in opened.pool.volumes() {
        let record = volume.record();
        let wanted = usize::from(record.keys_wanted);
        let number = number_of(&record.name);
        let tolerant = branch.model.without.as_ref();
        let counts = number.is_some_and(|n| tolerant.is_none_or(|without| without.contains(&n)));
        if !counts || !record.keys_placement.is_empty() || record.job.is_some() || room < wanted {
            continue;
        }
        let Ok(region) = volume.private_region() else {
            continue;
        };
        let Ok(health) = region.health_now().await else {
            continue;
        };
        let whole = health.iter().filter(|info| {
            info.health == ReplicaHealth::Current
                && info.device.is_some_and(|device| !is_lost(device))
        });
        if health.len() < wanted || whole.count() < health.len() {
            return Some(format!("{}: {health:?}", record.name));
        }
    }
    None
}

/// A new disk takes the place of a lost one.
async fn replace_one(branch: &mut Branch<'_>, opened: &Opened, lost: &mut BTreeSet<usize>) {
    let Some(disk) = lost.iter().next().copied() else {
        return;
    };
    let old = name_of(branch, disk);
    let spare = branch.world.disks();
    let source = DeviceSource {
        path: path_of(spare),
        device: branch.world.add(SPARE_BYTES, 512),
    };
    let id = branch.counters.id();
    let pending = Pending::DeviceAdd("spare".into(), spare);
    branch.model.pending.insert(id, pending);
    match opened.pool.device_add("spare", source).await {
        Ok(info) => opened.owners.lock().device(info.uuid, spare),
        Err(error) => violation(&format!("a new disk is refused: {error}")),
    }
    branch.model.pending.remove(&id);
    branch.model.devices.insert("spare".into(), spare);
    branch.model.leaving.insert(old.clone());
    // What only the lost disks have keeps them.
    let without = branch.model.without.as_ref();
    // Nor can a plex be filled that has a part on another lost disk.
    let all = lost.len() == 1
        && without.is_none_or(|without| branch.model.volumes.keys().all(|n| without.contains(n)));
    match opened.pool.device_replace(&old, "spare", None).await {
        Ok(_) => {}
        Err(error) if error.kind() == PoolErrorKind::Failed && all => {
            violation(&format!("a lost disk cannot be replaced: {error}"));
        }
        Err(error) => {
            trace!("  replace refused: {error}");
            branch.model.leaving.remove(&old);
            return;
        }
    }
    for _ in 0..ROUNDS {
        let devices = opened.pool.devices().await;
        if devices.iter().all(|info| info.name != old) {
            branch.model.devices.remove(&old);
            branch.model.leaving.remove(&old);
            lost.remove(&disk);
            return;
        }
        second(branch).await;
    }
    if all {
        let mut left = String::new();
        for volume in opened.pool.volumes() {
            left += &crate::health::describe(&volume);
        }
        violation(&format!("{old} is replaced and does not leave: {left}"));
    }
}

/// The lost disks are there again, as they were, and an operator takes them back.
fn everybody_comes_back(branch: &mut Branch<'_>, labels: &Labels) {
    branch.stop();
    for (disk, at, bytes) in labels {
        branch.world.overwrite(*disk, *at, bytes);
    }
    (0..branch.world.disks()).for_each(|disk| branch.world.revive(disk));
    // Nobody is served for sure before that.
    branch.model.without = Some(BTreeSet::new());
    let world = branch.world.clone();
    world.run(async {
        let Some(opened) = branch.open(&BTreeSet::new()).await else {
            return;
        };
        let _keeping = Keeping::new(&opened.pool);
        branch.check(&opened).await;
        let mut problem = None;
        for _ in 0..ROUNDS {
            problem = take_back(branch, &opened).await;
            if problem.is_none() {
                break;
            }
            second(branch).await;
        }
        if let Some(problem) = problem {
            violation(&format!("a disk cannot be taken back: {problem}"));
        }
        branch.model.without = None;
        branch.check(&opened).await;
        // Time for what was missed to be copied, and for all plexes to count as the same.
        branch.sleep(Duration::from_secs(30)).await;
    });
    world.observe(|_| {});
}

/// Brings every device online; why one is not.
async fn take_back(branch: &Branch<'_>, opened: &Opened) -> Option<String> {
    for info in opened.pool.devices().await {
        if info.failed.is_none() && info.online && info.present {
            continue;
        }
        let Some(disk) = opened.owners.lock().disk_of(info.uuid) else {
            continue;
        };
        let source = DeviceSource {
            path: path_of(disk),
            device: branch.world.device(disk),
        };
        if let Err(error) = opened.pool.device_online(&info.name, source).await {
            return Some(format!("{}: {error}", info.name));
        }
    }
    None
}
