//! An operator's long work: mirrors that come and go, migration, evacuation, replacement, verifying.

use volume::PoolError;
use volume::pool::LayoutRequest;
use volume::pool::jobs::{JobControl, Migrate, WhichPlex};
use volume::sim::Random;

use crate::operator::went_well;
use crate::state::Life;
use crate::violation::violation;

/// Does one thing of these.
pub async fn job(life: &Life) {
    // What does without a disk in trouble must not be moved onto it.
    let trouble = life.model.borrow().trouble.is_some();
    match life.below(12) {
        0..=2 if trouble => remove_ill(life).await,
        3..=7 if trouble => control(life).await,
        0 | 1 => add_mirror(life).await,
        2 => remove_mirror(life).await,
        3..=5 => migrate(life).await,
        6 if life.below(4) == 0 => reopen(life).await,
        6 => evacuate(life).await,
        7 => replace(life).await,
        8..=10 => control(life).await,
        _ => verify(life).await,
    }
}

fn name(life: &Life) -> Option<String> {
    let number = life.pick_volume()?;
    life.name_of(number)
}

fn devices(life: &Life) -> Vec<String> {
    let mut names: Vec<String> = life.model.borrow().devices.keys().cloned().collect();
    life.random.borrow_mut().shuffle(&mut names);
    names
}

fn rate(random: &mut Random) -> Option<u64> {
    random.one_in(3).then(|| random.within(1 << 20..1 << 30))
}

async fn add_mirror(life: &Life) {
    let Some(name) = name(life) else { return };
    let (on, rate) = {
        let mut random = life.random.borrow_mut();
        (random.one_in(2), rate(&mut random))
    };
    let on: Vec<String> = if on {
        devices(life).into_iter().take(2).collect()
    } else {
        Vec::new()
    };
    let _active = life.begin("add mirror", 0);
    let result = life.pool.volume_add_mirror(&name, &on, rate).await;
    let _ = went_well(life, "add mirror", result);
}

/// The copy on a disk in trouble goes for good: what waits there may still be written when the disk is well again.
async fn remove_ill(life: &Life) {
    let device = {
        let model = life.model.borrow();
        let disk = model.trouble.as_ref().map(|trouble| trouble.disk);
        let mut devices = model.devices.iter();
        devices
            .find(|(_, on)| Some(**on) == disk)
            .map(|(name, disk)| (name.clone(), *disk))
    };
    let Some((device, disk)) = device else { return };
    let is_ill = |device| life.owners.lock().disk_of(device) == Some(disk);
    let records = life.pool.volumes().into_iter().map(|v| v.record());
    let mirrors: Vec<String> = records
        .filter(|record| record.plexes.len() > 1 && record.job.is_none())
        .filter(|record| record.extents().any(|extent| is_ill(extent.device)))
        .map(|record| record.name.clone())
        .collect();
    let name = life.random.borrow_mut().pick(&mirrors).cloned();
    let Some(name) = name else { return };
    let _active = life.begin("remove ill mirror", 0);
    life.owners.lock().refresh(&life.pool);
    let which = WhichPlex::On(device);
    let result = life.pool.volume_remove_mirror(&name, which).await;
    let _ = went_well(life, "remove ill mirror", result);
}

async fn remove_mirror(life: &Life) {
    let Some(name) = name(life) else { return };
    let _active = life.begin("remove mirror", 0);
    let which = match life.below(3) {
        0 => WhichPlex::Any,
        _ => WhichPlex::Position(life.below(3) as usize),
    };
    life.owners.lock().refresh(&life.pool);
    let result = life.pool.volume_remove_mirror(&name, which).await;
    let _ = went_well(life, "remove mirror", result);
}

async fn migrate(life: &Life) {
    let Some(name) = name(life) else { return };
    let names = devices(life);
    let request = {
        let mut random = life.random.borrow_mut();
        let layout = match random.below(3) {
            0 => None,
            1 => Some(LayoutRequest::Linear),
            _ => Some(LayoutRequest::Striped {
                columns: Some(2),
                stripe_unit_bytes: Some(4096 << random.below(6)),
            }),
        };
        let to = 1 + random.below(names.len() as u64) as usize;
        let keys = random.one_in(3).then(|| 1 + random.below(3) as usize);
        Migrate {
            to: names.iter().take(to).cloned().collect(),
            keys_to: names
                .iter()
                .rev()
                .take(keys.unwrap_or(0))
                .cloned()
                .collect(),
            layout,
            mirrors: random.one_in(2).then(|| 1 + random.below(2) as usize),
            rate: rate(&mut random),
        }
    };
    let _active = life.begin("migrate", 0);
    life.owners.lock().refresh(&life.pool);
    let result = life.pool.volume_migrate(&name, request).await;
    let _ = went_well(life, "migrate", result);
}

async fn evacuate(life: &Life) {
    let Some(device) = devices(life).into_iter().next() else {
        return;
    };
    let rate = rate(&mut life.random.borrow_mut());
    let _active = life.begin("evacuate", 0);
    let result = life.pool.device_evacuate(&device, rate).await;
    let _ = went_well(life, "evacuate", result);
}

/// Takes a device into use that was evacuated, perhaps.
async fn reopen(life: &Life) {
    let devices = life.pool.devices().await;
    let mut closed = devices.into_iter().filter(|info| info.closed.is_some());
    let Some(info) = closed.next() else {
        return;
    };
    let _active = life.begin("device online", 0);
    let result = life.pool.device_reopen(&info.name).await;
    let _ = went_well(life, "device online", result);
}

async fn replace(life: &Life) {
    let names = devices(life);
    // With two devices left a disk in trouble takes the pool with it; that is tested enough.
    let ([old, new, ..], true) = (names.as_slice(), names.len() > 3) else {
        return;
    };
    let rate = rate(&mut life.random.borrow_mut());
    let _active = life.begin("replace", 0);
    // An earlier job may have it leave already: then it does, whatever becomes of this one.
    let first = life.model.borrow_mut().leaving.insert(old.clone());
    let result = life.pool.device_replace(old, new, rate).await;
    if let Err(true) = went_well(life, "replace", result)
        && first
    {
        life.model.borrow_mut().leaving.remove(old);
    }
}

async fn control(life: &Life) {
    let Some(name) = name(life) else { return };
    let (kind, control) = match life.below(6) {
        0 => ("pause job", JobControl::Pause),
        1..=3 => ("resume job", JobControl::Resume),
        4 => ("cancel job", JobControl::Cancel),
        _ => (
            "rate of job",
            JobControl::Rate(rate(&mut life.random.borrow_mut())),
        ),
    };
    let _active = life.begin(kind, 0);
    life.owners.lock().refresh(&life.pool);
    let result = life.pool.job_control(&name, control).await;
    let _ = went_well(life, kind, result);
}

async fn verify(life: &Life) {
    let Some(name) = name(life) else { return };
    let _active = life.begin("verify", 0);
    let repair = life.one_in(2);
    let result = life.pool.volume_verify(&name, repair, |_, _| true).await;
    if let Ok(verified) = went_well(life, "verify", result)
        && life.model.borrow().trouble.is_none()
        && !verified.mismatches.is_empty()
    {
        violation(&format!("verifying {name} found {:?}", verified.mismatches));
    }
}

/// Lets every job go on; for the end of a history.
pub async fn resume_all(life: &Life) {
    for volume in life.pool.volumes() {
        let name = volume.record().name.clone();
        for control in [JobControl::Resume, JobControl::Rate(None)] {
            let _: Result<_, PoolError> = life.pool.job_control(&name, control).await;
        }
    }
}

/// Gives up every job that is left; some may have nowhere to go.
pub async fn cancel_all(life: &Life) {
    for volume in life.pool.volumes() {
        let name = volume.record().name.clone();
        let _: Result<_, PoolError> = life.pool.job_control(&name, JobControl::Cancel).await;
    }
}
