//! An operator: creates, grows, deletes and moves things while clients work.

use std::rc::Rc;

use volume::config::{Access, BlockSize, Persist};
use volume::pool::{LayoutRequest, PoolErrorKind};
use volume::sim::Random;
use volume::{CreateVolume, DeviceSource, PoolError};

use crate::jobs::job;
use crate::state::{Life, Model, Pending};
use crate::verify::path_of;
use crate::violation::{trace, violation};
use crate::volume_model::{Identity, VolumeModel};

const MIB: u64 = 1 << 20;

/// An operator who goes on until everything is to become quiet.
pub async fn operator(life: Rc<Life>) {
    loop {
        let pause = life.below(6000) * life.pace();
        life.pause(pause).await;
        if life.quiet.get() {
            return;
        }
        if life.one_in(3) {
            job(&life).await;
            continue;
        }
        match life.below(12) {
            0..=3 => create(&life).await,
            4 => delete(&life).await,
            5..=7 => grow(&life).await,
            8 if life.one_in(2) => grant(&life).await,
            8 => rename(&life).await,
            9 | 10 => device_add(&life).await,
            _ => device_remove(&life).await,
        }
    }
}

/// Whether the operation went well; an error that nothing explains ends the history. `Err(true)` is a refusal, after which
/// everything is as before; after `Err(false)` nobody knows before the pool is opened again.
pub fn went_well<T>(
    life: &Life,
    kind: &'static str,
    result: Result<T, PoolError>,
) -> Result<T, bool> {
    match result {
        Ok(value) => {
            life.done(kind);
            Ok(value)
        }
        Err(error) => {
            // The volume may have been deleted meanwhile.
            let refused = !matches!(error.kind(), PoolErrorKind::Failed)
                || error.to_string().contains("it was deleted");
            trace!("  {kind} refused: {error}");
            if !refused && life.model.borrow().trouble.is_none() {
                violation(&format!(
                    "{kind} failed though nothing stands in its way: {error}"
                ));
            }
            life.refused(kind);
            Err(refused)
        }
    }
}

/// Takes what was under way off the list, unless nobody knows what became of it.
fn settled<T>(model: &mut Model, id: u64, result: &Result<T, bool>) -> Option<Pending> {
    match result {
        Ok(_) | Err(true) => model.pending.remove(&id),
        Err(false) => None,
    }
}

/// At least `least` devices, and up to `more` others.
fn some_devices(random: &mut Random, names: &[String], least: usize, more: u64) -> Vec<String> {
    let mut names = names.to_vec();
    random.shuffle(&mut names);
    names.truncate(least + random.below(more + 1) as usize);
    names
}

/// The kind of a creation.
fn create_kind(request: &CreateVolume) -> &'static str {
    match (request.layout, request.mirrors) {
        (LayoutRequest::Linear, 0..=1) => "create linear",
        (LayoutRequest::Linear, _) => "create mirror",
        (LayoutRequest::Striped { .. }, 0..=1) => "create striped",
        (LayoutRequest::Striped { .. }, _) => "create striped mirror",
    }
}

fn request(life: &Life, number: u32) -> CreateVolume {
    let names: Vec<String> = life.model.borrow().devices.keys().cloned().collect();
    let mut random = life.random.borrow_mut();
    let wish = [1, 1, 2, 2, 2, 3][random.below(6) as usize];
    let mirrors = wish.min(names.len());
    let layout = layout(&mut random, names.len());
    let needed = match layout {
        LayoutRequest::Linear => mirrors,
        LayoutRequest::Striped { .. } => 2 * mirrors,
    };
    CreateVolume {
        name: format!("v{number}"),
        size_bytes: random.within(1..5) * MIB + random.below(3) * 4096,
        on: match random.below(2) {
            0 => Vec::new(),
            _ => some_devices(&mut random, &names, needed, 1),
        },
        keys_on: match random.below(3) {
            0 => some_devices(&mut random, &names, 1, 2),
            _ => Vec::new(),
        },
        block_size: match random.below(4) {
            0 => BlockSize::B4096,
            _ => BlockSize::B512,
        },
        persist: match random.below(3) {
            0 => Persist::Always,
            _ => Persist::Aptpl,
        },
        layout,
        mirrors,
    }
}

fn layout(random: &mut Random, devices: usize) -> LayoutRequest {
    if devices < 2 || random.one_in(2) {
        return LayoutRequest::Linear;
    }
    LayoutRequest::Striped {
        columns: random.one_in(2).then_some(2),
        stripe_unit_bytes: Some(4096 << random.below(6)),
    }
}

async fn rename(life: &Life) {
    let Some(number) = life.pick_idle_volume() else {
        return;
    };
    let Some(name) = life.name_of(number) else {
        return;
    };
    let id = life.counters.id();
    let new = format!("v{number}r{id}");
    let _active = life.begin("rename", 0);
    life.model
        .borrow_mut()
        .pending
        .insert(id, Pending::Rename(number, new.clone()));
    let result = life.pool.volume_rename(&name, &new).await;
    let renamed = went_well(life, "rename", result);
    let mut model = life.model.borrow_mut();
    settled(&mut model, id, &renamed);
    if renamed.is_ok()
        && let Some(volume) = model.volumes.get_mut(&number)
    {
        volume.name = new;
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
    let kind = create_kind(&request);
    let _active = life.begin(kind, 0);
    life.model
        .borrow_mut()
        .pending
        .insert(id, Pending::Create(Box::new(model)));
    let result = life.pool.volume_create(request).await;
    let made = went_well(life, kind, result);
    let mut model = life.model.borrow_mut();
    if let Some(Pending::Create(mut volume)) = settled(&mut model, id, &made)
        && let Ok(made) = made
    {
        volume.identity = Some(Identity::of(&made.record()));
        model.volumes.insert(number, *volume);
    }
}

async fn delete(life: &Life) {
    let Some(number) = life.pick_idle_volume() else {
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
    life.owners.lock().refresh(&life.pool);
    let result = life.pool.volume_delete(&name).await;
    let gone = went_well(life, "delete", result);
    let mut model = life.model.borrow_mut();
    settled(&mut model, id, &gone);
    match gone {
        Ok(()) => {
            model.volumes.remove(&number);
            model.closing.remove(&number);
        }
        Err(true) => {
            model.closing.remove(&number);
        }
        Err(false) => {}
    }
}

async fn grow(life: &Life) {
    let Some(number) = life.pick_idle_volume() else {
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
    let grown = went_well(life, "grow", result);
    let mut model = life.model.borrow_mut();
    settled(&mut model, id, &grown);
    if grown.is_ok()
        && let Some(volume) = model.volumes.get_mut(&number)
        && volume.size_bytes < larger
    {
        volume.grow(larger, &mut life.random.borrow_mut());
    }
}

async fn grant(life: &Life) {
    let Some(name) = life
        .pick_idle_volume()
        .and_then(|number| life.name_of(number))
    else {
        return;
    };
    let _active = life.begin("grant", 0);
    let access = [Access::None, Access::Ro, Access::Rw][life.below(3) as usize];
    let result = life
        .pool
        .grant(&name, "iqn.2026-11.test:host1", access)
        .await;
    let _ = went_well(life, "grant", result);
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
    settled(&mut model, id, &added);
    if let Ok(info) = added {
        life.owners.lock().device(info.uuid, disk);
        model.devices.insert(name, disk);
    }
}

async fn device_remove(life: &Life) {
    let names: Vec<String> = {
        let model = life.model.borrow();
        let stay = |name: &&String| !model.leaving.contains(*name);
        model.devices.keys().filter(stay).cloned().collect()
    };
    let removing = {
        let model = life.model.borrow();
        model
            .pending
            .values()
            .any(|pending| matches!(pending, Pending::DeviceRemove(_)))
    };
    // The last one would take the pool with it.
    if names.len() < 2 || removing {
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
    let removed = went_well(life, "device remove", result);
    let mut model = life.model.borrow_mut();
    settled(&mut model, id, &removed);
    if removed.is_ok() {
        model.devices.remove(&name);
    }
}
