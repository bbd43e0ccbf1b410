//! Too few replicas of a volume's keys are left, and a person goes on from one of them.
//!
//! Invariants:
//! - The volume is not served before; the others are as they were.
//! - What is offered was acknowledged, or under way, at some time.
//! - What is chosen is what is served, marked as lost, on this boot and on each later one; nothing of the replicas that were
//!   given up comes back, and the data is as it was.
//! - Each registration of it is marked as recovered, in the form in which registering anew ends the loss; which of them have
//!   been made anew is found again, and the end of it as well.

use std::collections::BTreeSet;

use reservation::machine::{apply, step};
use reservation::{
    Command, Event, LostUntil, LuReservations, PersistentReserveOut, ServiceAction, State, Topology,
};
use volume::page_store::ReplicaHealth;
use volume::pool::PoolError;
use volume::private_region::REGISTRANT_CAPACITY;

use super::{Branch, Keeping};
use crate::clients::nexus;
use crate::owners::number_of;
use crate::verify::Opened;
use crate::violation::{trace, violation};

/// A volume, the states that its keys had, and where its replicas begin: disk and byte.
struct Case {
    number: u32,
    past: Vec<State>,
    replicas: Vec<(usize, u64)>,
}

pub(super) fn scenario(branch: &mut Branch<'_>) {
    let before = branch.world.clone();
    let case = before.run(prepare(branch));
    before.observe(|_| {});
    let Some(mut case) = case else { return };
    branch.stop();
    // So many that the rest is none: their headers are gone.
    branch.random.shuffle(&mut case.replicas);
    let all = case.replicas.len();
    let lost = branch
        .random
        .within(all as u64 - all as u64 / 2..all as u64) as usize;
    for (disk, at) in &case.replicas[..lost] {
        trace!("  the replica at {at} of disk {disk} is gone");
        branch.world.overwrite(*disk, *at, &[0x5a; 128 << 10]);
    }
    let world = branch.world.clone();
    world.run(recover(branch, &case));
    world.observe(|_| {});
    branch.everything_is_back();
}

async fn prepare(branch: &mut Branch<'_>) -> Option<Case> {
    let opened = branch.open(&BTreeSet::new()).await?;
    branch.check(&opened).await;
    let volumes = opened.pool.volumes();
    let volume = branch.random.pick(&volumes)?.clone();
    let number = number_of(&volume.record().name)?;
    let mut past = vec![branch.model.volumes.get(&number)?.keys.acknowledged.clone()];
    for _ in 0..branch.random.within(1..5) {
        branch.stir(&opened).await;
        past.push(branch.model.volumes.get(&number)?.keys.acknowledged.clone());
    }
    let health = volume.private_region().ok()?.health_now().await.ok()?;
    let current = |info: &volume::page_store::ReplicaInfo| info.health == ReplicaHealth::Current;
    if health.len() < 2 || !health.iter().all(current) {
        return None;
    }
    let record = volume.record();
    let owners = opened.owners.lock();
    let members = record
        .keys
        .iter()
        .filter(|keys| health.iter().any(|info| info.uuid == keys.uuid));
    let replicas: Option<Vec<_>> = members
        .map(|keys| {
            Some((
                owners.disk_of(keys.extent.device)?,
                keys.extent.offset_bytes,
            ))
        })
        .collect();
    // What a candidate says that does not count yet is another story.
    (record.keys.len() == health.len()).then_some(Case {
        number,
        past,
        replicas: replicas?,
    })
}

async fn recover(branch: &mut Branch<'_>, case: &Case) {
    let others = branch.model.volumes.keys().copied();
    branch.model.without = Some(others.filter(|number| *number != case.number).collect());
    let Some(opened) = branch.open(&BTreeSet::new()).await else {
        return;
    };
    let _keeping = Keeping::new(&opened.pool);
    branch.check(&opened).await;
    let Some(name) = name_of(&opened, case.number) else {
        violation(&format!("volume {} is gone", case.number));
    };
    if opened
        .pool
        .volume(&name)
        .is_ok_and(|volume| volume.fault().is_none())
    {
        violation(&format!("{name} is served from a minority of its keys"));
    }
    let said = match opened.pool.keys_inspect(&name).await {
        Ok(said) => said,
        Err(error) => violation(&format!("the keys of {name} cannot be inspected: {error}")),
    };
    if said.problem.is_none() || said.versions.is_empty() {
        violation(&format!(
            "the keys of {name} are lost, and this is said: {said:?}"
        ));
    }
    let Some(version) = branch.random.pick(&said.versions).cloned() else {
        return;
    };
    let (Ok(state), Some(from)) = (&version.state, version.devices.first()) else {
        violation(&format!("what is left of the keys of {name}: {version:?}"));
    };
    if !case.past.contains(state) {
        violation(&format!("the keys of {name} never were {state:?}"));
    }
    let until = match branch.random.one_in(3) {
        true => LostUntil::Replaced,
        false => LostUntil::Registered,
    };
    let recovered = opened
        .pool
        .keys_recover(&name, from, version.token, until)
        .await;
    match recovered {
        Ok(_) => {}
        Err(PoolError::NoSpace { .. }) => return,
        Err(error) => violation(&format!("the keys of {name} are not recovered: {error}")),
    }
    let survived = LuReservations::from(state.clone());
    let lost = apply(&survived, &Event::InformationLost { until }).state;
    trace!(
        "  {} registrations are recovered, lost until {until}",
        state.registrants.len()
    );
    let mut expected = lost.persistent;
    if let Some(volume) = branch.model.volumes.get_mut(&case.number) {
        volume.keys.acknowledged = expected.clone();
        // The recovery is the first opening since the stop: that may have been a reboot.
        let always = volume.persist_always();
        volume.keys.perhaps_rebooted(always);
    }
    branch.model.without = None;
    branch.check(&opened).await;
    if until == LostUntil::Registered && !branch.random.one_in(3) {
        register_anew(branch, &opened, case.number).await;
        branch.stir(&opened).await;
    } else if branch.random.one_in(2) {
        // REPLACE LOST RESERVATION, and life goes on.
        let Ok(volume) = opened.pool.volume(&name) else {
            return;
        };
        expected = State {
            generation: expected.generation.wrapping_add(1),
            ..State::default()
        };
        let committed = match volume.private_region() {
            Ok(region) => region.commit(&expected).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = committed {
            violation(&format!("recovered keys cannot be changed: {error}"));
        }
        if let Some(volume) = branch.model.volumes.get_mut(&case.number) {
            volume.keys.acknowledged = expected;
            volume.keys.in_flight = None;
        }
        branch.stir(&opened).await;
    }
}

/// Some of those whose registration was recovered register anew, perhaps all, and perhaps a stranger first.
async fn register_anew(branch: &mut Branch<'_>, opened: &Opened, number: u32) {
    let Some(volume) = opened
        .pool
        .volumes()
        .into_iter()
        .find(|volume| number_of(&volume.record().name) == Some(number))
    else {
        return;
    };
    let Some(expected) = branch.model.volumes.get_mut(&number) else {
        return;
    };
    let mut senders: Vec<_> = expected.keys.acknowledged.registrants.keys().collect();
    senders.retain(|_| !branch.random.one_in(3));
    let mut senders: Vec<_> = senders.into_iter().cloned().collect();
    if senders.is_empty() || branch.random.one_in(3) {
        senders.insert(0, nexus(branch.random.below(20)));
    }
    let topology = Topology {
        target_ports: &[1, 2],
        registrant_capacity: REGISTRANT_CAPACITY,
    };
    for sender in senders {
        let mut out = PersistentReserveOut::new(ServiceAction::RegisterAndIgnoreExistingKey);
        out.service_action_reservation_key = 0x7777;
        out.aptpl = branch.random.one_in(2);
        let before = LuReservations::from(expected.keys.acknowledged.clone());
        let command = Command::PersistentReserveOut(out);
        let after = match step(&before, &topology, &sender, &command) {
            Ok(step) => step.state.persistent,
            Err(reject) => violation(&format!("{sender:?} cannot register anew: {reject}")),
        };
        trace!("  {sender:?} registers anew: {:?}", after.lost);
        expected.keys.in_flight = Some(after.clone());
        let committed = match volume.private_region() {
            Ok(region) => region.commit(&after).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = committed {
            violation(&format!("recovered keys cannot be changed: {error}"));
        }
        expected.keys.acknowledged = after;
        expected.keys.in_flight = None;
    }
}

fn name_of(opened: &Opened, number: u32) -> Option<String> {
    let volumes = opened.pool.volumes();
    let names = volumes.iter().map(|volume| volume.record().name.clone());
    names
        .into_iter()
        .find(|name| number_of(name) == Some(number))
}
