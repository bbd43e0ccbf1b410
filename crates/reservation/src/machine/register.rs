//! REGISTER, REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7) and REGISTER AND MOVE (5.13.8).

use std::collections::BTreeSet;

use super::transition::Transition;
use crate::command::{PersistentReserveOut, RegisterAndMove, ServiceAction, Topology};
use crate::effects::{Cause, Fact, UnitAttention};
use crate::reject::{CdbField, ParameterField, Reject};
use crate::state::{InitiatorPort, Key, Nexus, Reservation};

/// REGISTER by table 67, REGISTER AND IGNORE EXISTING KEY by table 68, both on the nexuses of table 69.
///
/// While information is lost this is how an initiator port speaks for itself, through the target port that it names or all
/// of them: its registrations are made anew, or end. It cannot speak for others, so SPEC_I_PT is refused then; and a
/// nexus that neither has a registration nor wants one is told of the loss.
pub(super) fn register(
    transition: &mut Transition<'_>,
    sender: &Nexus,
    topology: &Topology<'_>,
    out: &PersistentReserveOut,
) -> Result<(), Reject> {
    let spec_i_pt = Reject::InvalidFieldInParameterList(ParameterField::SpecifyInitiatorPorts);
    let state = &transition.before.persistent;
    let checks_key = out.service_action == ServiceAction::Register;
    let sender_key = state.key_of(sender);

    if checks_key && out.reservation_key != sender_key.map_or(0, |Key(key)| key) {
        return Err(Reject::ReservationConflict);
    }
    if !checks_key && out.specified_initiator_ports.is_some() {
        return Err(spec_i_pt);
    }
    let new_key = out.service_action_reservation_key;
    if sender_key.is_none() && new_key == 0 {
        return match &state.lost {
            None => Ok(()),
            Some(_) => Err(Reject::ReservationInformationLost),
        };
    }
    if (sender_key.is_some() || state.lost.is_some()) && out.specified_initiator_ports.is_some() {
        return Err(spec_i_pt);
    }

    let own = nexuses(&sender.initiator, sender, topology, out.all_target_ports);
    // docs/decisions/0004: as if received through each port, so a port registered with another key conflicts.
    let another_key = |nexus: &Nexus| {
        state
            .key_of(nexus)
            .is_some_and(|Key(key)| key != out.reservation_key)
    };
    if checks_key && own.iter().any(another_key) {
        return Err(Reject::ReservationConflict);
    }

    if new_key == 0 {
        unregister(transition, own);
    } else {
        // The sender is not registered if anyone is specified, so its own TransportID among them adds nothing.
        let mut registered = own;
        for initiator in out.specified_initiator_ports.iter().flatten() {
            let specified = nexuses(initiator, sender, topology, out.all_target_ports);
            if transition.before.is_fenced(&initiator.name)
                || specified.iter().any(|nexus| state.is_registered(nexus))
            {
                return Err(Reject::InvalidFieldInParameterList(
                    ParameterField::SpecifiedTransportId,
                ));
            }
            registered.extend(specified);
        }
        let added = registered
            .iter()
            .filter(|nexus| !state.is_registered(nexus))
            .count();
        check_capacity(state.registrants.len(), added, topology)?;
        for nexus in registered {
            transition.register(nexus, Key(new_key), out.all_target_ports);
        }
    }
    transition.set_aptpl(out.aptpl);
    transition.count_generation();
    Ok(())
}

/// The nexuses of an initiator port that a registration is for: through the target port on which the command came,
/// or through every one.
fn nexuses(
    initiator: &InitiatorPort,
    sender: &Nexus,
    topology: &Topology<'_>,
    all_target_ports: bool,
) -> BTreeSet<Nexus> {
    let others: &[u16] = if all_target_ports {
        topology.target_ports
    } else {
        &[]
    };
    let ports = others.iter().copied().chain([sender.target_port]);
    ports
        .map(|target_port| Nexus {
            initiator: initiator.clone(),
            target_port,
        })
        .collect()
}

/// Registrations end by the wish of their own initiator port (SPC-4 5.13.11.2.3), and the reservation with them if
/// that leaves it without a holder.
fn unregister(transition: &mut Transition<'_>, nexuses: BTreeSet<Nexus>) {
    transition.unregister(nexuses, Cause::Own);
    if transition
        .end_orphaned_reservation()
        .is_some_and(|ended| ended.kind.is_registrants_only())
    {
        transition.attention_to_registrants(UnitAttention::ReservationsReleased);
    }
}

fn check_capacity(registrants: usize, added: usize, topology: &Topology<'_>) -> Result<(), Reject> {
    if added > 0 && registrants.saturating_add(added) > topology.registrant_capacity {
        return Err(Reject::InsufficientRegistrationResources);
    }
    Ok(())
}

/// REGISTER AND MOVE by table 70. The checks on nexuses and keys come first, so that only a holder learns anything
/// about the fields. While information is lost only a nexus that has registered anew gets here, and it moves the
/// reservation only to another one: its registering the destination would be no act of the destination.
pub(super) fn register_and_move(
    transition: &mut Transition<'_>,
    sender: &Nexus,
    topology: &Topology<'_>,
    out: &RegisterAndMove,
) -> Result<(), Reject> {
    let state = &transition.before.persistent;
    let invalid = Reject::InvalidFieldInParameterList;

    transition.authenticate(sender, out.reservation_key)?;
    let kind = match &state.reservation {
        None => return Err(Reject::InvalidFieldInCdb(CdbField::ServiceAction)),
        Some(reservation) if reservation.holder.as_ref() != Some(sender) => {
            return Err(Reject::ReservationConflict);
        }
        Some(reservation) => reservation.kind,
    };
    if out.service_action_reservation_key == 0 {
        return Err(invalid(ParameterField::ServiceActionReservationKey));
    }
    if out.destination.initiator == sender.initiator
        || transition.before.is_fenced(&out.destination.initiator.name)
    {
        return Err(invalid(ParameterField::DestinationTransportId));
    }
    if !topology.target_ports.contains(&out.destination.target_port) {
        return Err(invalid(ParameterField::RelativeTargetPort));
    }
    if state.lost.is_some() && !state.has_registered_anew(&out.destination) {
        return Err(invalid(ParameterField::DestinationTransportId));
    }
    let added = usize::from(!state.is_registered(&out.destination));
    let kept = state
        .registrants
        .len()
        .saturating_sub(usize::from(out.unregister));
    check_capacity(kept, added, topology)?;

    transition.set_aptpl(out.aptpl);
    transition.register(
        out.destination.clone(),
        Key(out.service_action_reservation_key),
        false,
    );
    transition.after.persistent.reservation = Some(Reservation {
        kind,
        holder: Some(out.destination.clone()),
    });
    transition.facts.push(Fact::Moved {
        kind,
        from: sender.clone(),
        to: out.destination.clone(),
    });
    if out.unregister {
        transition.unregister([sender.clone()], Cause::Own);
    }
    transition.count_generation();
    Ok(())
}
