//! An operator: creates, grows, deletes and moves things while clients work.

use std::rc::Rc;
use std::time::Duration;

use volume::config::{Access, BlockSize, Persist};
use volume::sim::Random;
use volume::{CreateVolume, DeviceSource, PoolError};

use crate::state::{Life, Pending};
use crate::verify::path_of;
use crate::violation::violation;
use crate::volume_model::{Identity, VolumeModel};

const MIB: u64 = 1 << 20;

/// An operator who goes on for ever.
pub async fn operator(life: Rc<Life>) {
    loop {
        let pause = life.below(6000);
        life.sleep(Duration::from_micros(pause)).await;
        if life.quiet.get() {
            life.sleep(Duration::from_millis(5)).await;
            continue;
        }
        match life.below(12) {
            0..=3 => create(&life).await,
            4 => delete(&life).await,
            5..=7 => grow(&life).await,
            8 => grant(&life).await,
            9 | 10 => device_add(&life).await,
            _ => device_remove(&life).await,
        }
    }
}

/// Whether the operation went well; an error that nothing explains ends the history.
fn went_well<T>(life: &Life, kind: &'static str, result: Result<T, PoolError>) -> Option<T> {
    match result {
        Ok(value) => {
            life.done(kind);
            Some(value)
        }
        Err(error) => {
            let refused = matches!(
                error,
                PoolError::NoSpace { .. }
                    | PoolError::DeviceInUse { .. }
                    | PoolError::NotLarger { .. }
                    | PoolError::NoSuchVolume { .. }
                    | PoolError::NoSuchDevice { .. }
                    | PoolError::NoDevice
            );
            if !refused && life.model.borrow().trouble.is_none() {
                violation(&format!(
                    "{kind} failed though nothing stands in its way: {error}"
                ));
            }
            life.refused(kind);
            None
        }
    }
}

fn some_devices(random: &mut Random, names: &[String], at_most: u64) -> Vec<String> {
    let mut names = names.to_vec();
    random.shuffle(&mut names);
    names.truncate(1 + random.below(at_most) as usize);
    names
}

fn request(life: &Life, number: u32) -> CreateVolume {
    let names: Vec<String> = life.model.borrow().devices.keys().cloned().collect();
    let mut random = life.random.borrow_mut();
    CreateVolume {
        name: format!("v{number}"),
        size_bytes: random.within(1..5) * MIB + random.below(3) * 4096,
        on: if random.one_in(2) {
            Vec::new()
        } else {
            some_devices(&mut random, &names, 2)
        },
        keys_on: if random.one_in(2) {
            Vec::new()
        } else {
            some_devices(&mut random, &names, 3)
        },
        block_size: if random.one_in(4) {
            BlockSize::B4096
        } else {
            BlockSize::B512
        },
        persist: if random.one_in(3) {
            Persist::Always
        } else {
            Persist::Aptpl
        },
        ..CreateVolume::default()
    }
}

async fn create(life: &Life) {
    if life.model.borrow().volumes.len() >= life.plan.volumes {
        return;
    }
    let number = life.counters.volumes.get() + 1;
    life.counters.volumes.set(number);
    let request = request(life, number);
    let model = VolumeModel::new(number, request.clone(), &mut life.random.borrow_mut());
    let id = life.counters.id();
    let _active = life.begin("create", 0);
    life.model
        .borrow_mut()
        .pending
        .insert(id, Pending::Create(Box::new(model)));
    let result = life.pool.volume_create(request).await;
    let made = went_well(life, "create", result);
    let mut model = life.model.borrow_mut();
    if let (Some(Pending::Create(mut volume)), Some(made)) = (model.pending.remove(&id), made) {
        volume.identity = Some(Identity::of(&made.record()));
        model.volumes.insert(number, *volume);
    }
}

async fn delete(life: &Life) {
    let Some(number) = life.pick_volume() else {
        return;
    };
    let Some(name) = life.name_of(number) else {
        return;
    };
    let id = life.counters.id();
    let _active = life.begin("delete", 0);
    {
        let mut model = life.model.borrow_mut();
        model.closing.insert(number);
        model.pending.insert(id, Pending::Delete(number));
    }
    let result = life.pool.volume_delete(&name).await;
    let gone = went_well(life, "delete", result).is_some();
    let mut model = life.model.borrow_mut();
    if gone {
        model.pending.remove(&id);
        model.volumes.remove(&number);
        model.closing.remove(&number);
    }
    // Else it may be gone or not, until the pool is opened again.
}

async fn grow(life: &Life) {
    let Some(number) = life.pick_volume() else {
        return;
    };
    let Some((name, size_bytes)) = life
        .model
        .borrow()
        .volumes
        .get(&number)
        .map(|v| (v.name.clone(), v.size_bytes))
    else {
        return;
    };
    if size_bytes > 10 * MIB {
        return;
    }
    let larger = size_bytes + 4096 * (1 + life.below(700));
    let id = life.counters.id();
    let _active = life.begin("grow", 0);
    life.model
        .borrow_mut()
        .pending
        .insert(id, Pending::Grow(number, larger));
    let result = life.pool.volume_grow(&name, larger).await;
    let grown = went_well(life, "grow", result).is_some();
    let mut model = life.model.borrow_mut();
    model.pending.remove(&id);
    if grown && let Some(volume) = model.volumes.get_mut(&number) {
        volume.grow(larger, &mut life.random.borrow_mut());
    }
}

async fn grant(life: &Life) {
    let Some(name) = life.pick_volume().and_then(|number| life.name_of(number)) else {
        return;
    };
    let _active = life.begin("grant", 0);
    let access = [Access::None, Access::Ro, Access::Rw][life.below(3) as usize];
    let result = life
        .pool
        .grant(&name, "iqn.2026-11.test:host1", access)
        .await;
    went_well(life, "grant", result);
}

async fn device_add(life: &Life) {
    let free = {
        let model = life.model.borrow();
        let used: Vec<usize> = model.devices.values().copied().collect();
        (0..life.world.disks()).find(|disk| !used.contains(disk))
    };
    let Some(disk) = free else { return };
    let name = format!("d{disk}");
    let source = DeviceSource {
        path: path_of(disk),
        device: life.world.device(disk),
    };
    let id = life.counters.id();
    let _active = life.begin("device add", 0);
    life.model
        .borrow_mut()
        .pending
        .insert(id, Pending::DeviceAdd(name.clone(), disk));
    let result = life.pool.device_add(&name, source).await;
    let added = went_well(life, "device add", result);
    let mut model = life.model.borrow_mut();
    model.pending.remove(&id);
    if let Some(info) = added {
        life.owners.lock().device(info.uuid, disk);
        model.devices.insert(name, disk);
    }
}

async fn device_remove(life: &Life) {
    let names: Vec<String> = life.model.borrow().devices.keys().cloned().collect();
    if names.len() < 2 {
        return;
    }
    let Some(name) = life.random.borrow_mut().pick(&names).cloned() else {
        return;
    };
    let id = life.counters.id();
    let _active = life.begin("device remove", 0);
    life.model
        .borrow_mut()
        .pending
        .insert(id, Pending::DeviceRemove(name.clone()));
    let result = life.pool.device_remove(&name).await;
    let removed = went_well(life, "device remove", result).is_some();
    let mut model = life.model.borrow_mut();
    model.pending.remove(&id);
    if removed {
        model.devices.remove(&name);
    }
}
