//! Lost reservation information (docs/decisions/0005): who is told, for how long, and whose act ends it for whom.

use std::collections::BTreeSet;

use super::*;
use crate::access::Column;
use crate::effects::{Cause, Fact};
use crate::state::{Lost, LostUntil};

fn lose(lu: &LuReservations, until: LostUntil) -> LuReservations {
    apply(lu, &Event::InformationLost { until }).state
}

/// `count` recovered registrants, number 0 holding a reservation of this type.
fn recovered(count: u16, kind: Option<ReservationType>) -> LuReservations {
    let mut lu = registered(count);
    lu.persistent.reservation = kind.map(|kind| Reservation {
        kind,
        holder: (!kind.is_all_registrants()).then(|| nexus(0, 1)),
    });
    lose(&lu, LostUntil::Registered)
}

/// Nexus `number` registers anew with the key that it has.
fn anew(lu: &LuReservations, number: u16) -> Step {
    let key = 1000 + u64::from(number);
    let again = register(key, |out| out.reservation_key = key);
    run(lu.clone(), &nexus(number, 1), &again)
}

fn marked(lu: &LuReservations) -> BTreeSet<Nexus> {
    match &lu.persistent.lost {
        Some(Lost::UntilRegistered { recovered }) => recovered.clone(),
        other => panic!("{other:?}"),
    }
}

fn column(lu: &LuReservations, number: u16) -> Column {
    access::column(lu, &nexus(number, 1))
}

const WERO: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
const TOLD: Result<Step, Reject> = Err(Reject::ReservationInformationLost);

#[test]
fn until_replaced_shuts_everyone_out() {
    let lost = apply(
        &registered(3),
        &Event::InformationLost {
            until: LostUntil::Replaced,
        },
    );
    assert!(lost.effects.persist);
    assert!((0..4).all(|number| lost.effects.narrowed.includes(&nexus(number, 1))));
    let again = apply(
        &lost.state,
        &Event::InformationLost {
            until: LostUntil::Replaced,
        },
    );
    assert_eq!(
        (&again.state, again.effects),
        (&lost.state, Effects::default())
    );

    let refused = step(
        &lost.state,
        &TOPOLOGY,
        &nexus(0, 1),
        &register(5, |out| out.reservation_key = 1000),
    );
    assert_eq!(refused, TOLD);
    for nexus in [nexus(0, 1), nexus(9, 1)] {
        for service_action in [0x00, 0x06] {
            assert_eq!(
                admit(&lost.state, &nexus, 0x5f, service_action),
                Err(Reject::ReservationInformationLost),
                "known from the CDB alone"
            );
        }
    }
    replaces(&lost.state);
}

fn replaces(lost: &LuReservations) {
    let replace = out(
        ServiceAction::ReplaceLostReservation,
        0,
        5,
        ReservationType::WriteExclusive,
    );
    let replaced = run(lost.clone(), &nexus(9, 2), &replace);
    assert_eq!(replaced.effects.facts.last(), Some(&Fact::LostReplaced));
    let replaced = replaced.state.persistent;
    assert_eq!(replaced.lost, None);
    assert_eq!(
        replaced.registrants.keys().collect::<Vec<_>>(),
        [&nexus(9, 2)]
    );
    assert!(replaced.is_holder(&nexus(9, 2)));
    assert_eq!(replaced.generation, 0);
}

#[test]
fn replace_lost_reservation_ends_either_form() {
    let lost = recovered(3, Some(WERO));
    replaces(&lost);
    // Also what has been registered since goes.
    replaces(&anew(&lost, 1).state);
}

/// docs/decisions/0005: whatever the form, an operator can end it.
#[test]
fn an_operator_ends_the_lost_condition_as_clear_does() {
    let lu = registered(3);
    let nothing = apply(&lu, &Event::LossAccepted);
    assert_eq!(
        (nothing.state, nothing.effects),
        (lu.clone(), Effects::default())
    );
    let some_anew = anew(&lose(&lu, LostUntil::Registered), 1).state;
    for lost in [lose(&lu, LostUntil::Replaced), some_anew] {
        let ended = apply(&lost, &Event::LossAccepted);
        let state = &ended.state.persistent;
        assert!(state.lost.is_none() && state.registrants.is_empty());
        assert_eq!(state.generation, lost.persistent.generation.wrapping_add(1));
        assert!(ended.effects.persist && ended.effects.narrowed.is_empty());
        assert_eq!(ended.effects.facts.last(), Some(&Fact::LostReplaced));
        let told: Vec<_> = ended
            .effects
            .unit_attentions
            .iter()
            .map(|(_, what)| *what)
            .collect();
        assert_eq!(told, [UnitAttention::ReservationsPreempted; 3]);
        run(ended.state, &nexus(0, 1), &register(5, |_| {}));
    }
}

/// The heart of it: a registration is the act of one nexus, and lets nobody else in.
#[test]
fn registering_anew_lets_nobody_else_in() {
    for kind in ReservationType::ALL {
        let lost = recovered(3, Some(kind));
        for number in 0..4 {
            assert_eq!(column(&lost, number), Column::Unconfirmed);
        }
        let step = anew(&lost, 1);
        assert!(step.effects.persist && step.effects.narrowed.named.len() <= 1);
        assert!(!step.effects.facts.contains(&Fact::LostConfirmed));
        let one = step.state;
        assert_eq!(marked(&one), [nexus(0, 1), nexus(2, 1)].into());
        for number in [0, 2, 3] {
            assert_eq!(
                column(&one, number),
                Column::Unconfirmed,
                "{kind}: {number}"
            );
        }
        let served = match kind {
            ReservationType::WriteExclusive => Column::WriteExclusiveRegistered,
            ReservationType::ExclusiveAccess => Column::ExclusiveAccessRegistered,
            kind if kind.is_all_registrants() => Column::Holder,
            _ => Column::RegistrantsOnly,
        };
        assert_eq!(
            column(&one, 1),
            served,
            "the reservation of the copy stands"
        );
        assert_eq!(one.persistent.reservation, lost.persistent.reservation);
        // Nor does the same initiator's other port: that is another nexus.
        assert_eq!(access::column(&one, &nexus(1, 2)), Column::Unconfirmed);
    }
}

#[test]
fn it_ends_when_every_recovered_registration_has_been_made_anew() {
    let mut lu = recovered(3, Some(WERO));
    for number in [2, 0, 1] {
        assert!(lu.persistent.lost.is_some());
        let step = anew(&lu, number);
        assert_eq!(
            step.effects.facts.contains(&Fact::LostConfirmed),
            number == 1
        );
        lu = step.state;
    }
    assert_eq!(lu.persistent.lost, None);
    assert_eq!(column(&lu, 0), Column::Holder);
    assert_eq!(column(&lu, 9), Column::WriteExclusiveRegistrants);
}

#[test]
fn it_ends_when_the_rest_is_preempted_or_cleared_by_one_that_has_registered() {
    let lost = recovered(3, Some(WERO));
    let preempt = |key| out(ServiceAction::PreemptAndAbort, 1001, key, WERO);
    let clear = out(ServiceAction::Clear, 1001, 0, WERO);
    for command in [&preempt(1000), &clear] {
        assert_eq!(
            step(&lost, &TOPOLOGY, &nexus(1, 1), command),
            TOLD,
            "not before it has registered itself"
        );
    }
    let one = anew(&lost, 1).state;
    let read_keys = admit(&one, &nexus(1, 1), 0x5e, 0x00);
    assert_eq!((read_keys, one.persistent.registrants.len()), (Ok(()), 3));

    let without_holder = run(one.clone(), &nexus(1, 1), &preempt(1000));
    assert_eq!(marked(&without_holder.state), [nexus(2, 1)].into());
    assert_eq!(without_holder.effects.abort, [nexus(0, 1)]);
    assert_eq!(column(&without_holder.state, 1), Column::Holder);
    assert_eq!(column(&without_holder.state, 0), Column::Unconfirmed);
    let done = run(without_holder.state, &nexus(1, 1), &preempt(1002));
    assert_eq!(done.effects.facts.last(), Some(&Fact::LostConfirmed));
    assert_eq!(done.state.persistent.lost, None);
    assert_eq!(column(&done.state, 0), Column::WriteExclusiveRegistrants);

    let cleared = run(one, &nexus(1, 1), &clear);
    assert_eq!(cleared.effects.facts.last(), Some(&Fact::LostConfirmed));
    assert_eq!(cleared.state.persistent.lost, None);
    assert_eq!(column(&cleared.state, 9), Column::Open);
}

#[test]
fn the_first_registration_ends_it_where_the_copy_was_empty() {
    let lost = lose(&LuReservations::default(), LostUntil::Registered);
    assert_eq!(column(&lost, 0), Column::Unconfirmed);
    assert!(apply(&lost, &Event::Reset).state.persistent.lost.is_some());
    let step = run(lost, &nexus(0, 1), &register(5, |_| {}));
    assert_eq!(step.effects.facts.last(), Some(&Fact::LostConfirmed));
    assert_eq!(step.state.persistent.lost, None);
}

#[test]
fn recovered_nexuses_need_their_key_or_to_ignore_it() {
    let lost = recovered(2, None);
    let by = |command: &Command| step(&lost, &TOPOLOGY, &nexus(0, 1), command);
    for wrong in [0, 1001] {
        let refused = by(&register(5, |out| out.reservation_key = wrong));
        assert_eq!(refused, Err(Reject::ReservationConflict));
    }
    let changed = by(&register(5, |out| out.reservation_key = 1000)).unwrap();
    assert_eq!(changed.state.persistent.key_of(&nexus(0, 1)), Some(Key(5)));
    assert_eq!(marked(&changed.state), [nexus(1, 1)].into());
    let ignored = by(&register(5, |out| {
        out.service_action = ServiceAction::RegisterAndIgnoreExistingKey;
    }));
    assert_eq!(marked(&ignored.unwrap().state), [nexus(1, 1)].into());
}

/// Leaving is an act of one's own as well, and takes nothing from what keeps others out. But it vouches for nothing.
#[test]
fn unregistering_removes_the_mark_and_confirms_nothing() {
    let lost = recovered(2, Some(WERO));
    let leave = |lu: &LuReservations, number: u16| {
        let key = 1000 + u64::from(number);
        let nexus = nexus(number, 1);
        run(
            lu.clone(),
            &nexus,
            &register(0, |out| out.reservation_key = key),
        )
    };
    let one = leave(&lost, 1).state;
    assert_eq!(marked(&one), [nexus(0, 1)].into());
    let none = leave(&one, 0).state;
    assert_eq!(marked(&none), [].into());
    assert_eq!(none.persistent.reservation, None);
    assert_eq!(column(&none, 1), Column::Unconfirmed, "nobody has vouched");
    assert!(step(&none, &TOPOLOGY, &nexus(1, 1), &register(0, |_| {})) == TOLD);
    let first = run(none, &nexus(1, 1), &register(5, |_| {}));
    assert_eq!(first.state.persistent.lost, None);

    // The last recovered one leaves where another has registered: that one has vouched.
    let ended = leave(&anew(&lost, 1).state, 0);
    assert_eq!(ended.effects.facts.last(), Some(&Fact::LostConfirmed));
    // One that has registered anew leaves: it is a stranger again, and nothing has ended.
    let left = leave(&anew(&lost, 1).state, 1).state;
    assert_eq!(marked(&left), [nexus(0, 1)].into());
    assert_eq!(column(&left, 1), Column::Unconfirmed);
}

/// SPEC_I_PT and REGISTER AND MOVE register others: that would be no act of theirs.
#[test]
fn nobody_confirms_for_others() {
    let lost = recovered(2, Some(WERO));
    let listed = register(5, |out| {
        out.specified_initiator_ports = Some(vec![nexus(7, 1).initiator]);
    });
    let spec_i_pt = Err(Reject::InvalidFieldInParameterList(
        crate::reject::ParameterField::SpecifyInitiatorPorts,
    ));
    assert_eq!(step(&lost, &TOPOLOGY, &nexus(8, 1), &listed), spec_i_pt);
    let empty = lose(&LuReservations::default(), LostUntil::Registered);
    assert_eq!(step(&empty, &TOPOLOGY, &nexus(8, 1), &listed), spec_i_pt);

    let move_to = |number: u16, unregister| {
        Command::RegisterAndMove(RegisterAndMove {
            reservation_key: 1000,
            service_action_reservation_key: 7,
            unregister,
            aptpl: false,
            destination: nexus(number, 1),
        })
    };
    let three = recovered(3, Some(WERO));
    assert_eq!(
        step(&three, &TOPOLOGY, &nexus(0, 1), &move_to(1, false)),
        TOLD
    );
    let holder = anew(&three, 0).state;
    let no_act_of_its_own = Err(Reject::InvalidFieldInParameterList(
        crate::reject::ParameterField::DestinationTransportId,
    ));
    for number in [1, 7] {
        let refused = step(&holder, &TOPOLOGY, &nexus(0, 1), &move_to(number, false));
        assert_eq!(refused, no_act_of_its_own);
    }
    let both = anew(&holder, 1).state;
    let moved = run(both, &nexus(0, 1), &move_to(1, true)).state;
    assert_eq!(column(&moved, 1), Column::Holder);
    assert_eq!(column(&moved, 0), Column::Unconfirmed);
    assert_eq!(marked(&moved), [nexus(2, 1)].into());
}

/// docs/decisions/0004: ALL_TG_PT is as if sent through each port, by the same initiator port.
#[test]
fn all_target_ports_are_made_anew_together() {
    let all = |key, own| {
        register(key, |out| {
            out.reservation_key = own;
            out.all_target_ports = true;
        })
    };
    let lu = run(LuReservations::default(), &nexus(0, 2), &all(5, 0)).state;
    let lu = run(lu, &nexus(1, 1), &register(6, |_| {})).state;
    let lost = lose(&lu, LostUntil::Registered);
    let one_port = run(
        lost.clone(),
        &nexus(0, 2),
        &register(5, |out| out.reservation_key = 5),
    );
    assert_eq!(
        marked(&one_port.state),
        [nexus(0, 1), nexus(0, 3), nexus(1, 1)].into()
    );
    let every_port = run(lost, &nexus(0, 2), &all(5, 5)).state;
    assert_eq!(marked(&every_port), [nexus(1, 1)].into());
}

#[test]
fn marks_outlive_what_registrations_outlive() {
    let mut lu = anew(&recovered(3, Some(WERO)), 1).state;
    let events = [
        Event::Reset,
        Event::NexusLoss(nexus(1, 1)),
        Event::Own(nexus(9, 1)),
    ];
    for event in events {
        let step = apply(&lu, &event);
        assert_eq!((&step.state, step.effects), (&lu, Effects::default()));
    }
    let power_on =
        |lu: &LuReservations, persist_always| apply(lu, &Event::PowerOn { persist_always }).state;
    assert_eq!(marked(&power_on(&lu, true)), marked(&lu));
    // Without APTPL one that had registered anew is forgotten like the others: somebody has to vouch once more.
    let dropped = power_on(&lu, false);
    assert!(dropped.persistent.registrants.is_empty());
    assert_eq!(column(&dropped, 1), Column::Unconfirmed);
    let first = run(dropped, &nexus(2, 1), &register(5, |_| {}));
    assert_eq!(first.state.persistent.lost, None);

    lu.persistent.aptpl = true;
    assert_eq!(marked(&power_on(&lu, false)), marked(&lu));
    // Lost once more: nothing that was registered since the first time counts.
    let again = lose(&lu, LostUntil::Registered);
    assert_eq!(marked(&again).len(), 3);
    assert_eq!(column(&again, 1), Column::Unconfirmed);
    assert_eq!(
        column(&lose(&lu, LostUntil::Replaced), 1),
        Column::InformationLost
    );
}

/// A fence takes marks away like a PREEMPT; it ends the condition only where another has registered anew.
#[test]
fn a_fence_takes_marks_with_it() {
    let of = |name: &str| Nexus {
        initiator: InitiatorPort {
            name: name.into(),
            isid: [0; 6],
        },
        target_port: 1,
    };
    let registrant = Registrant {
        key: Key(7),
        all_target_ports: false,
    };
    let mut lu = LuReservations::from(State {
        registrants: [(of("a"), registrant), (of("b"), registrant)].into(),
        reservation: Some(Reservation {
            kind: WERO,
            holder: Some(of("a")),
        }),
        ..State::default()
    });
    lu = lose(&lu, LostUntil::Registered);
    let fence = |lu: &LuReservations, name: &str, heirs: &[&str]| {
        let order = Event::Fence {
            initiators: [name.into()].into(),
            heirs: heirs.iter().map(|heir| (*heir).into()).collect(),
        };
        apply(lu, &order)
    };
    // The heir holds, and is told until it registers.
    let inherited = fence(&lu, "a", &["b"]);
    assert!(inherited.state.persistent.is_holder(&of("b")));
    assert_eq!(
        access::column(&inherited.state, &of("b")),
        Column::Unconfirmed
    );
    assert_eq!(marked(&inherited.state), [of("b")].into());
    let nobody = fence(&inherited.state, "b", &[]);
    assert_eq!(marked(&nobody.state), [].into());
    assert_eq!(access::column(&nobody.state, &of("a")), Column::Fenced);

    let again = register(7, |out| out.reservation_key = 7);
    let one = run(lu, &of("b"), &again).state;
    let ended = fence(&one, "a", &["b"]);
    assert_eq!(ended.effects.facts.last(), Some(&Fact::LostConfirmed));
    assert_eq!(access::column(&ended.state, &of("b")), Column::Holder);
    // The one that had registered is fenced: it has vouched for nothing that counts now.
    let gone = fence(&one, "b", &["a"]);
    assert_eq!(marked(&gone.state), [of("a")].into());
    let ended = gone.effects.facts;
    assert!(ended.iter().any(|fact| matches!(
        fact,
        Fact::Unregistered {
            cause: Cause::Fence,
            ..
        }
    )));
}
