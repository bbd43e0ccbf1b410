//! PREEMPT and PREEMPT AND ABORT (SPC-4 5.13.11.2.4 to 5.13.11.2.6); `docs/decisions/0001` goes through the cases
//! in which a nexus preempts its own key.

use super::reserve::refuse_spec_i_pt;
use super::transition::{Transition, requested_type};
use crate::command::PersistentReserveOut;
use crate::effects::{Cause, UnitAttention};
use crate::reject::{ParameterField, Reject};
use crate::state::{Key, Nexus};

/// What table 72 of SPC-4 says to do.
enum Action {
    /// Replace the reservation and remove the registrations of the preempted nexuses, but not the sender's.
    Replace,
    /// Remove the registrations of the preempted nexuses, the sender's too if it is one of them.
    Remove,
}

/// PREEMPT, and PREEMPT AND ABORT with `abort`.
pub(super) fn preempt(
    transition: &mut Transition<'_>,
    sender: &Nexus,
    out: &PersistentReserveOut,
    abort: bool,
) -> Result<(), Reject> {
    transition.authenticate(sender, out.reservation_key)?;
    refuse_spec_i_pt(out)?;
    let state = &transition.before.persistent;
    let preempted_key = Key(out.service_action_reservation_key);
    let all_registrants = state
        .reservation
        .as_ref()
        .is_some_and(|reservation| reservation.kind.is_all_registrants());

    let preempted: Vec<Nexus> = match (preempted_key, all_registrants) {
        (Key(0), true) => state.registrants.keys().cloned().collect(),
        (Key(0), false) => {
            return Err(Reject::InvalidFieldInParameterList(
                ParameterField::ServiceActionReservationKey,
            ));
        }
        (key, _) => {
            let matching = state
                .registrants
                .iter()
                .filter(|(_, registrant)| registrant.key == key);
            matching.map(|(nexus, _)| nexus.clone()).collect()
        }
    };
    if preempted.is_empty() {
        return Err(Reject::ReservationConflict);
    }
    let holder = state
        .reservation
        .as_ref()
        .and_then(|reservation| reservation.holder.as_ref());
    let action =
        if preempted_key == Key(0) || holder.is_some_and(|holder| preempted.contains(holder)) {
            Action::Replace
        } else {
            Action::Remove
        };

    match action {
        Action::Replace => {
            let kind = requested_type(out.scope, out.kind)?;
            let others = preempted.iter().filter(|nexus| *nexus != sender).cloned();
            let existing = state.reservation.as_ref();
            let unchanged = existing.is_some_and(|existing| {
                existing.kind == kind
                    && existing
                        .holder
                        .as_ref()
                        .is_none_or(|holder| holder == sender)
            });
            transition.unregister(others, Cause::Preempt);
            if !unchanged {
                transition.end_reservation(Cause::Preempt);
                transition.establish_reservation(sender, kind);
            }
            if existing.is_some_and(|existing| existing.kind != kind) {
                transition.attention_to_registrants(UnitAttention::ReservationsReleased);
            }
        }
        // SCOPE and TYPE are ignored.
        Action::Remove => {
            transition.unregister(preempted.iter().cloned(), Cause::Preempt);
            transition.end_orphaned_reservation();
        }
    }
    transition.attention(&preempted, UnitAttention::RegistrationsPreempted);
    if abort {
        transition.abort(preempted);
    }
    transition.count_generation();
    Ok(())
}
