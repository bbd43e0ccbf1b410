//! What the snapshots and the oracle do not show well: limits, events, and what matters most to a fence.

mod lost;

use super::*;
use crate::command::{PersistentReserveOut, RegisterAndMove};
use crate::effects::UnitAttention;
use crate::state::{InitiatorPort, Key, Registrant, Reservation, ReservationType};

const TOPOLOGY: Topology<'_> = Topology {
    target_ports: &[1, 2, 3],
    registrant_capacity: 1024,
};

fn nexus(number: u16, target_port: u16) -> Nexus {
    let [high, low] = number.to_be_bytes();
    Nexus {
        initiator: InitiatorPort {
            name: "iqn.2026-11.dev.ringfence:vm".into(),
            isid: [0, 0, 0, 0, high, low],
        },
        target_port,
    }
}

fn register(key: u64, change: impl FnOnce(&mut PersistentReserveOut)) -> Command {
    let mut out = PersistentReserveOut::new(ServiceAction::Register);
    out.service_action_reservation_key = key;
    change(&mut out);
    Command::PersistentReserveOut(out)
}

fn out(service_action: ServiceAction, own: u64, other: u64, kind: ReservationType) -> Command {
    Command::PersistentReserveOut(PersistentReserveOut {
        reservation_key: own,
        service_action_reservation_key: other,
        kind: kind.code(),
        ..PersistentReserveOut::new(service_action)
    })
}

fn run(lu: LuReservations, nexus: &Nexus, command: &Command) -> Step {
    step(&lu, &TOPOLOGY, nexus, command).unwrap()
}

/// Nexuses 0 to `count`, exclusively, are registered through port 1 with the key 1000 + number.
fn registered(count: u16) -> LuReservations {
    let registrant = |number| Registrant {
        key: Key(1000 + u64::from(number)),
        all_target_ports: false,
    };
    LuReservations::from(State {
        registrants: (0..count)
            .map(|number| (nexus(number, 1), registrant(number)))
            .collect(),
        ..State::default()
    })
}

#[test]
fn there_is_room_for_the_capacity_and_not_one_more() {
    let mut lu = LuReservations::default();
    for number in 0..1024 {
        lu = run(lu, &nexus(number, 1), &register(7, |_| {})).state;
    }
    assert_eq!(lu.persistent.registrants.len(), 1024);
    assert_eq!(lu.persistent.generation, 1024);
    let one_more = step(&lu, &TOPOLOGY, &nexus(1024, 1), &register(7, |_| {}));
    assert_eq!(one_more, Err(Reject::InsufficientRegistrationResources));
    // A full table does not keep anyone from changing a key or leaving.
    let changed = run(
        lu.clone(),
        &nexus(5, 1),
        &register(8, |out| out.reservation_key = 7),
    );
    assert_eq!(changed.state.persistent.registrants.len(), 1024);
    let left = run(
        lu,
        &nexus(5, 1),
        &register(0, |out| out.reservation_key = 7),
    );
    assert_eq!(left.state.persistent.registrants.len(), 1023);
}

#[test]
fn a_list_that_does_not_fit_registers_nobody() {
    let lu = registered(1020);
    let listed = |count: u16| {
        let ports = (2000..2000 + count)
            .map(|number| nexus(number, 1).initiator)
            .collect();
        register(7, |out| out.specified_initiator_ports = Some(ports))
    };
    assert_eq!(
        step(&lu, &TOPOLOGY, &nexus(1999, 1), &listed(4)),
        Err(Reject::InsufficientRegistrationResources),
        "the sender and four others are five"
    );
    let fits = run(lu.clone(), &nexus(1999, 1), &listed(3));
    assert_eq!(fits.state.persistent.registrants.len(), 1024);
    assert_eq!(fits.state.persistent.generation, 1);

    let on_all_ports = register(7, |out| out.all_target_ports = true);
    assert_eq!(
        run(lu, &nexus(1999, 2), &on_all_ports)
            .state
            .persistent
            .registrants
            .len(),
        1023
    );
    assert_eq!(
        step(&registered(1022), &TOPOLOGY, &nexus(1999, 2), &on_all_ports),
        Err(Reject::InsufficientRegistrationResources)
    );
}

#[test]
fn a_move_into_the_last_slot_counts_the_one_it_frees() {
    let mut lu = registered(1024);
    lu.persistent.reservation = Some(Reservation {
        kind: ReservationType::WriteExclusive,
        holder: Some(nexus(0, 1)),
    });
    let to_new = |unregister| {
        Command::RegisterAndMove(RegisterAndMove {
            reservation_key: 1000,
            service_action_reservation_key: 7,
            unregister,
            aptpl: false,
            destination: nexus(3000, 2),
        })
    };
    let refused = step(&lu, &TOPOLOGY, &nexus(0, 1), &to_new(false));
    assert_eq!(refused, Err(Reject::InsufficientRegistrationResources));
    let moved = run(lu, &nexus(0, 1), &to_new(true));
    assert_eq!(moved.state.persistent.registrants.len(), 1024);
    assert_eq!(moved.effects.narrowed.named, [nexus(0, 1)].into());
    assert!(!moved.effects.narrowed.all_others);
}

/// A capacity below what is stored, as after opening a volume with other options, takes nothing away.
#[test]
fn a_smaller_capacity_only_stops_growth() {
    let small = Topology {
        registrant_capacity: 2,
        ..TOPOLOGY
    };
    let lu = registered(5);
    let change = register(9, |out| out.reservation_key = 1003);
    assert!(step(&lu, &small, &nexus(3, 1), &change).is_ok());
    assert!(step(&lu, &small, &nexus(9, 1), &register(9, |_| {})).is_err());
}

#[test]
fn reserving_cuts_off_everyone_else_named_or_not() {
    let lu = registered(3);
    let reserve = |kind| {
        run(
            lu.clone(),
            &nexus(0, 1),
            &out(ServiceAction::Reserve, 1000, 0, kind),
        )
        .effects
        .narrowed
    };
    let exclusive = reserve(ReservationType::WriteExclusive);
    assert!(!exclusive.includes(&nexus(0, 1)));
    assert!(
        exclusive.includes(&nexus(1, 1))
            && exclusive.includes(&nexus(1, 2))
            && exclusive.includes(&nexus(77, 9))
    );
    let registrants_only = reserve(ReservationType::ExclusiveAccessRegistrantsOnly);
    assert!(
        !registrants_only.includes(&nexus(1, 1)),
        "registrants keep access"
    );
    assert!(
        registrants_only.includes(&nexus(1, 2)),
        "the same initiator through another port is another nexus"
    );
}

#[test]
fn preempting_drains_the_preempted_even_without_abort() {
    let mut lu = registered(3);
    lu.persistent.reservation = Some(Reservation {
        kind: ReservationType::WriteExclusiveRegistrantsOnly,
        holder: Some(nexus(0, 1)),
    });
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    let step = run(
        lu,
        &nexus(1, 1),
        &out(ServiceAction::Preempt, 1001, 1000, kind),
    );
    assert_eq!(step.effects.narrowed.named, [nexus(0, 1)].into());
    assert_eq!(step.effects.abort, []);
    assert_eq!(
        step.effects.unit_attentions,
        [(nexus(0, 1), UnitAttention::RegistrationsPreempted)]
    );
    assert!(step.effects.persist);
}

/// A holder that preempts itself with the type it has: the reservation is the same, and the audit trail does not say
/// that it ended.
#[test]
fn preempting_oneself_to_the_same_type_moves_nothing() {
    let kind = ReservationType::WriteExclusive;
    let mut lu = registered(2);
    lu.persistent.reservation = Some(Reservation {
        kind,
        holder: Some(nexus(0, 1)),
    });
    let step = run(
        lu.clone(),
        &nexus(0, 1),
        &out(ServiceAction::Preempt, 1000, 1000, kind),
    );
    lu.persistent.generation = 1;
    assert_eq!(step.state, lu);
    assert_eq!(
        step.effects,
        Effects {
            persist: true,
            ..Effects::default()
        }
    );
}

#[test]
fn what_changes_nothing_is_not_persisted() {
    let mut lu = registered(2);
    let kind = ReservationType::ExclusiveAccess;
    lu.persistent.reservation = Some(Reservation {
        kind,
        holder: Some(nexus(0, 1)),
    });
    let again = run(
        lu.clone(),
        &nexus(0, 1),
        &out(ServiceAction::Reserve, 1000, 0, kind),
    );
    let released_by_another = run(
        lu.clone(),
        &nexus(1, 1),
        &out(ServiceAction::Release, 1001, 0, kind),
    );
    for step in [again, released_by_another] {
        assert_eq!(
            step,
            Step {
                state: lu.clone(),
                effects: Effects::default()
            }
        );
    }
    let empty = LuReservations::default();
    let nothing = run(empty.clone(), &nexus(0, 1), &register(0, |_| {}));
    assert_eq!(
        nothing,
        Step {
            state: empty.clone(),
            effects: Effects::default()
        }
    );
    let scsi2 = run(empty, &nexus(0, 1), &Command::Reserve);
    assert!(
        !scsi2.effects.persist,
        "a SCSI-2 reservation is never stored"
    );
    assert!(
        scsi2.effects.narrowed.includes(&nexus(1, 1))
            && !scsi2.effects.narrowed.includes(&nexus(0, 1))
    );
}

#[test]
fn resets_and_losses_end_scsi2_reservations_only() {
    let scsi2 = LuReservations {
        scsi2: Some(nexus(0, 1)),
        ..LuReservations::default()
    };
    assert_eq!(apply(&scsi2, &Event::Reset).state.scsi2, None);
    assert_eq!(
        apply(&scsi2, &Event::NexusLoss(nexus(0, 1))).state.scsi2,
        None
    );
    assert_eq!(apply(&scsi2, &Event::NexusLoss(nexus(0, 2))).state, scsi2);

    let mut lu = registered(2);
    lu.persistent.reservation = Some(Reservation {
        kind: ReservationType::ExclusiveAccess,
        holder: Some(nexus(0, 1)),
    });
    for event in [Event::Reset, Event::NexusLoss(nexus(0, 1))] {
        assert_eq!(
            apply(&lu, &event),
            Step {
                state: lu.clone(),
                effects: Effects::default()
            }
        );
    }
}

#[test]
fn power_on_keeps_what_aptpl_or_the_volume_says() {
    let mut lu = registered(2);
    lu.persistent.generation = 9;
    lu.persistent.reservation = Some(Reservation {
        kind: ReservationType::ExclusiveAccess,
        holder: Some(nexus(0, 1)),
    });
    let power_on =
        |lu: &LuReservations, persist_always| apply(lu, &Event::PowerOn { persist_always });

    let dropped = power_on(&lu, false);
    assert_eq!(dropped.state, LuReservations::default());
    assert!(dropped.effects.persist && dropped.effects.unit_attentions.is_empty());

    let mut kept = lu.clone();
    kept.persistent.generation = 0;
    assert_eq!(power_on(&lu, true).state, kept);
    lu.persistent.aptpl = true;
    kept.persistent.aptpl = true;
    assert_eq!(power_on(&lu, false).state, kept);
}

/// docs/decisions/0004: with ALL_TG_PT the other ports of the initiator are registered, changed and unregistered with
/// the one that the command came through.
#[test]
fn all_target_ports_follow_each_other() {
    let all = |key, own| {
        register(key, |out| {
            out.reservation_key = own;
            out.all_target_ports = true;
        })
    };
    let ports = |lu: &LuReservations| -> Vec<(u16, u64)> {
        lu.persistent
            .registrants
            .iter()
            .map(|(nexus, registrant)| (nexus.target_port, registrant.key.0))
            .collect()
    };
    let lu = run(LuReservations::default(), &nexus(0, 2), &all(5, 0)).state;
    assert_eq!(ports(&lu), [(1, 5), (2, 5), (3, 5)]);
    assert_eq!(lu.persistent.generation, 1);
    let changed = run(lu.clone(), &nexus(0, 3), &all(6, 5)).state;
    assert_eq!(ports(&changed), [(1, 6), (2, 6), (3, 6)]);
    assert_eq!(ports(&run(changed, &nexus(0, 1), &all(0, 6)).state), []);

    // A port where the initiator left by itself is registered again, or left alone.
    let two = run(
        lu.clone(),
        &nexus(0, 1),
        &register(0, |out| out.reservation_key = 5),
    )
    .state;
    assert_eq!(ports(&two), [(2, 5), (3, 5)]);
    assert_eq!(
        ports(&run(two.clone(), &nexus(0, 2), &all(6, 5)).state),
        [(1, 6), (2, 6), (3, 6)]
    );
    assert_eq!(ports(&run(two, &nexus(0, 2), &all(0, 5)).state), []);

    // A port with another key is a conflict for all, and nothing changes.
    let other = run(
        lu,
        &nexus(0, 1),
        &register(9, |out| out.reservation_key = 5),
    )
    .state;
    assert_eq!(
        step(&other, &TOPOLOGY, &nexus(0, 2), &all(6, 5)),
        Err(Reject::ReservationConflict)
    );
    assert_eq!(
        step(&other, &TOPOLOGY, &nexus(0, 2), &all(0, 5)),
        Err(Reject::ReservationConflict)
    );
}

#[test]
fn generation_wraps() {
    let mut lu = registered(1);
    lu.persistent.generation = u32::MAX;
    let step = run(
        lu,
        &nexus(0, 1),
        &register(1, |out| out.reservation_key = 1000),
    );
    assert_eq!(step.state.persistent.generation, 0);
}
