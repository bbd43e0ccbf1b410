//! RESERVE (SPC-4 5.13.9), RELEASE (5.13.11.2.2) and CLEAR (5.13.11.2.7).

use super::transition::{Transition, requested_type};
use crate::command::PersistentReserveOut;
use crate::effects::{Cause, UnitAttention};
use crate::reject::{ParameterField, Reject};
use crate::state::Nexus;

/// SPEC_I_PT is invalid with every service action but REGISTER (SPC-4 6.16.3).
pub(super) fn refuse_spec_i_pt(out: &PersistentReserveOut) -> Result<(), Reject> {
    if out.specified_initiator_ports.is_some() {
        return Err(Reject::InvalidFieldInParameterList(
            ParameterField::SpecifyInitiatorPorts,
        ));
    }
    Ok(())
}

/// RESERVE. The access table has already refused anyone but the holder while there is a reservation.
pub(super) fn reserve(
    transition: &mut Transition<'_>,
    sender: &Nexus,
    out: &PersistentReserveOut,
) -> Result<(), Reject> {
    transition.authenticate(sender, out.reservation_key)?;
    refuse_spec_i_pt(out)?;
    let kind = requested_type(out.scope, out.kind)?;
    match &transition.before.persistent.reservation {
        None => transition.establish_reservation(sender, kind),
        Some(existing) if existing.kind == kind => {}
        Some(_) => return Err(Reject::ReservationConflict),
    }
    Ok(())
}

/// RELEASE. For anyone but a holder GOOD and nothing done, whatever SCOPE and TYPE say.
pub(super) fn release(
    transition: &mut Transition<'_>,
    sender: &Nexus,
    out: &PersistentReserveOut,
) -> Result<(), Reject> {
    transition.authenticate(sender, out.reservation_key)?;
    refuse_spec_i_pt(out)?;
    let state = &transition.before.persistent;
    let Some(existing) = state
        .reservation
        .as_ref()
        .filter(|_| state.is_holder(sender))
    else {
        return Ok(());
    };
    let kind = existing.kind;
    if out.scope != 0 || out.kind != kind.code() {
        return Err(Reject::InvalidRelease);
    }
    transition.end_reservation(Cause::Own);
    if kind.is_registrants_only() || kind.is_all_registrants() {
        transition.attention_to_registrants(UnitAttention::ReservationsReleased);
    }
    Ok(())
}

/// CLEAR.
pub(super) fn clear(
    transition: &mut Transition<'_>,
    sender: &Nexus,
    out: &PersistentReserveOut,
) -> Result<(), Reject> {
    transition.authenticate(sender, out.reservation_key)?;
    refuse_spec_i_pt(out)?;
    clear_all(transition);
    Ok(())
}

/// What CLEAR does once it is allowed.
pub(super) fn clear_all(transition: &mut Transition<'_>) {
    transition.attention_to_registrants(UnitAttention::ReservationsPreempted);
    transition.end_reservation(Cause::Clear);
    let everyone: Vec<_> = transition
        .before
        .persistent
        .registrants
        .keys()
        .cloned()
        .collect();
    transition.unregister(everyone, Cause::Clear);
    transition.count_generation();
}
