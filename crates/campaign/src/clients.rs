//! Clients: initiators that read, write, flush, unmap and register.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reservation::machine::step;
use reservation::{
    Command, InitiatorPort, LuReservations, Nexus, PersistentReserveOut, ServiceAction, State,
    Topology,
};
use volume::block_device::aligned_buffer;
use volume::private_region::REGISTRANT_CAPACITY;
use volume::sim::Random;

use crate::content;
use crate::plan::Plant;
use crate::state::Life;
use crate::violation::{trace, violation};
use crate::volume_model::{Atomic, SECTOR, SPOT_SECTORS};

/// A client that reads and writes until everything is to become quiet.
pub async fn data_client(life: Rc<Life>) {
    loop {
        let pause = life.below(400) * life.pace();
        life.pause(pause).await;
        if life.quiet.get() {
            return;
        }
        let Some(number) = life.pick_volume() else {
            life.sleep(Duration::from_millis(1)).await;
            continue;
        };
        match life.below(16) {
            0..=5 => write(&life, number).await,
            6 => write_atomic(&life, number).await,
            7 => zero(&life, number).await,
            8 | 9 => flush(&life, number).await,
            _ => read(&life, number).await,
        }
    }
}

/// Some blocks of a spot.
fn place(life: &Life, number: u32) -> Option<(usize, Range<u64>)> {
    let model = life.model.borrow();
    let volume = model.volumes.get(&number)?;
    let mut random = life.random.borrow_mut();
    let spot = random.below(volume.spots.len() as u64) as usize;
    let block = volume.block_sectors();
    let blocks = SPOT_SECTORS / block;
    let from = random.below(blocks);
    let to = random.within(from + 1..blocks + 1);
    let first = volume.spots.get(spot)?.first;
    Some((spot, first + from * block..first + to * block))
}

fn lock_of(life: &Life, number: u32, spot: usize) -> Option<Arc<async_lock::RwLock<()>>> {
    let model = life.model.borrow();
    Some(model.volumes.get(&number)?.spots.get(spot)?.lock.clone())
}

/// A buffer as a transport may hand it over: mostly aligned.
fn skew(life: &Life, data: Bytes) -> Bytes {
    if !life.one_in(4) {
        return data;
    }
    let mut buf = aligned_buffer(data.len() + 8).split_off(8);
    buf.copy_from_slice(&data);
    buf.freeze()
}

/// Judges the end of an operation; true when it succeeded.
fn ended<E: std::fmt::Display>(
    life: &Life,
    number: u32,
    kind: &'static str,
    result: Result<(), E>,
) -> bool {
    match result {
        Ok(()) => {
            life.done(kind);
            true
        }
        Err(error) if life.may_fail(number) => {
            life.poison(number);
            let _ = error;
            life.refused(kind);
            false
        }
        Err(error) => violation(&format!(
            "{kind} of volume {number} failed though nothing stands in its way: {error}"
        )),
    }
}

async fn write(life: &Life, number: u32) {
    let Some((spot, sectors)) = place(life, number) else {
        return;
    };
    let Some(lock) = lock_of(life, number, spot) else {
        return;
    };
    let _shared = lock.read().await;
    let Some(volume) = life.volume(number) else {
        return;
    };
    let id = life.counters.id();
    let data = content::data(number, sectors.start, sectors.end - sectors.start, id);
    let data = skew(life, data);
    let _active = life.begin("write", number);
    trace!("  write {id} of {sectors:?}");
    life.on_volume(number, |model, now| {
        model.begin(sectors.clone(), id, id, now)
    });
    let result = volume.write(sectors.start * SECTOR, data).await;
    let ok = ended(life, number, "write", result);
    life.on_volume(number, |model, now| {
        model.end(sectors.clone(), id, ok, now);
        if life.plan.plant == Some(Plant::EagerModel) && ok {
            model.flushed_part(sectors.clone(), now);
        }
    });
}

async fn write_atomic(life: &Life, number: u32) {
    let Some((spot, sectors)) = place(life, number) else {
        return;
    };
    let Some(lock) = lock_of(life, number, spot) else {
        return;
    };
    let _alone = lock.write().await;
    let Some(volume) = life.volume(number) else {
        return;
    };
    let id = life.counters.id();
    let data = content::data(number, sectors.start, sectors.end - sectors.start, id);
    let _active = life.begin("write atomic", number);
    trace!("  atomic write {id} of {sectors:?}");
    life.on_volume(number, |model, now| {
        model.begin(sectors.clone(), id, id, now);
        model.atomics.push(Atomic {
            write: id,
            sectors: sectors.clone(),
        });
    });
    let result = volume.write_atomic(sectors.start * SECTOR, data).await;
    if !ended(life, number, "write atomic", result) {
        // Its intent may be there still: until the pool is opened again it is under way. What failed may be torn.
        life.on_volume(number, |model, _| {
            model.atomics.retain(|atomic| atomic.write != id)
        });
        return;
    }
    life.on_volume(number, |model, now| {
        model.end(sectors.clone(), id, true, now);
        model.atomics.retain(|atomic| atomic.write != id);
        model.flushed_part(sectors.clone(), now);
    });
}

async fn zero(life: &Life, number: u32) {
    let Some((spot, mut sectors)) = place(life, number) else {
        return;
    };
    let mut spots = vec![spot];
    if life.one_in(3) {
        // Over many spots and what is between them.
        let model = life.model.borrow();
        let Some(volume) = model.volumes.get(&number) else {
            return;
        };
        let all = volume.size_bytes / SECTOR;
        let mut random = life.random.borrow_mut();
        let from = random.below(all) / 8 * 8;
        let to = (from + 8 + random.below(4096)).min(all) / 8 * 8;
        sectors = from..to.max(from + 8).min(all);
        spots = (0..volume.spots.len()).collect();
    }
    let mut locks = Vec::new();
    for spot in spots {
        if let Some(lock) = lock_of(life, number, spot) {
            locks.push(lock.read_arc().await);
        }
    }
    let Some(volume) = life.volume(number) else {
        return;
    };
    let id = life.counters.id();
    let _active = life.begin("unmap", number);
    trace!("  unmap {id} of {sectors:?}");
    life.on_volume(number, |model, now| {
        model.begin(sectors.clone(), 0, id, now)
    });
    let length_bytes = (sectors.end - sectors.start) * SECTOR;
    let deallocate = !life.one_in(4);
    life.owners.lock().zeroes(number, true);
    let result = volume
        .write_zeroes(sectors.start * SECTOR, length_bytes, deallocate)
        .await;
    life.owners.lock().zeroes(number, false);
    let ok = ended(life, number, "unmap", result);
    life.on_volume(number, |model, now| model.end(sectors.clone(), id, ok, now));
}

async fn flush(life: &Life, number: u32) {
    let Some(volume) = life.volume(number) else {
        return;
    };
    let _active = life.begin("flush", number);
    let since = life.counters.tick();
    let result = volume.flush().await;
    if ended(life, number, "flush", result) {
        life.on_volume(number, |model, _| model.flushed(since));
    }
}

async fn read(life: &Life, number: u32) {
    let Some((_, sectors)) = place(life, number) else {
        return;
    };
    let Some(volume) = life.volume(number) else {
        return;
    };
    let _active = life.begin("read", number);
    let mut allowed = Vec::new();
    life.on_volume(number, |model, now| {
        allowed = model.allowed(sectors.clone(), now)
    });
    let length = ((sectors.end - sectors.start) * SECTOR) as usize;
    let buf: BytesMut = if life.one_in(4) {
        aligned_buffer(length + 8).split_off(8)
    } else {
        aligned_buffer(length)
    };
    let (result, buf) = volume.read(sectors.start * SECTOR, buf).await;
    if ended(life, number, "read", result) {
        let id = life.counters.id();
        life.on_volume(number, |model, now| {
            if let Err(problem) = model.check_read(sectors.clone(), &allowed, &buf, id, now) {
                violation(&format!("{problem}; {}", crate::health::describe(&volume)));
            }
        });
    }
}

/// A client that registers, reserves and preempts until everything is to become quiet.
pub async fn keys_client(life: Rc<Life>) {
    loop {
        let pause = life.below(1500) * life.pace();
        life.pause(pause).await;
        if life.quiet.get() {
            return;
        }
        if let Some(number) = life.pick_volume() {
            reserve(&life, number).await;
        }
    }
}

/// A registrant of the clients.
pub fn nexus(number: u64) -> Nexus {
    Nexus {
        initiator: InitiatorPort {
            name: format!("iqn.2026-11.test:host{number}").into(),
            isid: [number as u8; 6],
        },
        target_port: 1 + (number % 2) as u16,
    }
}

/// The next state, and the kind of the command that leads there.
pub fn next_state(random: &mut Random, before: &State) -> Option<(&'static str, State)> {
    let sender = nexus(random.below(20));
    let key = before.key_of(&sender).map_or(0, |key| key.0);
    let victims: Vec<u64> = before
        .registrants
        .values()
        .map(|registrant| registrant.key.0)
        .collect();
    let (kind, action) = *random.pick(&[
        ("register", ServiceAction::Register),
        ("register", ServiceAction::RegisterAndIgnoreExistingKey),
        ("register", ServiceAction::RegisterAndIgnoreExistingKey),
        ("reserve", ServiceAction::Reserve),
        ("release", ServiceAction::Release),
        ("preempt", ServiceAction::Preempt),
        ("preempt", ServiceAction::PreemptAndAbort),
        ("clear", ServiceAction::Clear),
    ])?;
    if kind == "clear" && !random.one_in(4) {
        return None;
    }
    let mut out = PersistentReserveOut::new(action);
    out.reservation_key = key;
    out.kind = *random.pick(&[1, 3, 5, 6, 7, 8])?;
    out.aptpl = random.one_in(2);
    out.all_target_ports = random.one_in(8);
    out.service_action_reservation_key = match kind {
        "register" => random.below(6) * 0x1111,
        "preempt" => random.pick(&victims).copied().unwrap_or(0),
        _ => 0,
    };
    let topology = Topology {
        target_ports: &[1, 2],
        registrant_capacity: REGISTRANT_CAPACITY,
    };
    let before = LuReservations::from(before.clone());
    let after = step(
        &before,
        &topology,
        &sender,
        &Command::PersistentReserveOut(out),
    )
    .ok()?;
    Some((kind, after.state.persistent))
}

async fn reserve(life: &Life, number: u32) {
    let Some(volume) = life.volume(number) else {
        return;
    };
    let before = {
        let model = life.model.borrow();
        let Some(volume) = model.volumes.get(&number) else {
            return;
        };
        if volume.keys.in_flight.is_some() {
            return;
        }
        volume.keys.acknowledged.clone()
    };
    let next = next_state(&mut life.random.borrow_mut(), &before);
    let Some((kind, after)) = next else {
        return;
    };
    let region = match volume.private_region() {
        Ok(region) => region,
        Err(error) => {
            ended(life, number, kind, Err(error));
            return;
        }
    };
    let _active = life.begin(kind, number);
    life.on_volume(number, |model, _| {
        model.keys.in_flight = Some(after.clone())
    });
    let result = if life.plan.plant == Some(Plant::ForgottenKeys) && life.one_in(20) {
        Ok(())
    } else {
        region.commit(&after).await
    };
    if ended(life, number, kind, result) {
        life.on_volume(number, |model, _| {
            model.keys.acknowledged = after;
            model.keys.in_flight = None;
        });
        return;
    }
    // As the target does: nobody is answered before it is known what is stored.
    loop {
        match region.recover().await {
            Ok(found) => {
                life.on_volume(number, |model, _| {
                    if !model.keys.allowed().contains(&&found) {
                        violation(&format!(
                            "volume {number}: the keys were recovered as {found:?}, neither {:?}",
                            model.keys
                        ));
                    }
                    model.keys.acknowledged = found.clone();
                    model.keys.in_flight = None;
                });
                return;
            }
            Err(_) => life.sleep(Duration::from_millis(200)).await,
        }
    }
}
