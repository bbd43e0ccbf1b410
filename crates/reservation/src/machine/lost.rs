//! Lost reservation information (SPC-4 5.13.5.3): how the condition begins, and the three ways in which it ends, REPLACE
//! LOST RESERVATION (5.13.11.3), an operator, and registrations that were made anew (docs/decisions/0005).

use super::reserve::{clear_all, refuse_spec_i_pt};
use super::transition::{Transition, requested_type};
use crate::command::PersistentReserveOut;
use crate::effects::{Cause, Fact};
use crate::reject::{ParameterField, Reject};
use crate::state::{Key, Lost, LostUntil, Nexus};

/// Every registration that survived is a recovered one from now on, also where some had been made anew after an earlier
/// loss.
pub(super) fn begin(transition: &mut Transition<'_>, until: LostUntil) {
    let state = &mut transition.after.persistent;
    let lost = Some(match until {
        LostUntil::Replaced => Lost::UntilReplaced,
        LostUntil::Registered => Lost::UntilRegistered {
            recovered: state.registrants.keys().cloned().collect(),
        },
    });
    if state.lost != lost {
        state.lost = lost;
        transition.facts.push(Fact::InformationLost { until });
    }
}

/// Ends the condition when nothing of what was recovered is left and somebody has registered since: a registrant there is
/// now, or the sender, which may have ended its own registration with the last recovered ones (CLEAR, PREEMPT of a key
/// that is its own too). Without either nobody has vouched for anything, and the condition waits for the first who does.
pub(super) fn confirm(transition: &mut Transition<'_>, sender: Option<&Nexus>) {
    let state = &transition.after.persistent;
    let Some(Lost::UntilRegistered { recovered }) = &state.lost else {
        return;
    };
    let before = &transition.before.persistent;
    let vouched = !state.registrants.is_empty()
        || sender.is_some_and(|sender| before.has_registered_anew(sender));
    if recovered.is_empty() && vouched {
        transition.after.persistent.lost = None;
        transition.facts.push(Fact::LostConfirmed);
    }
}

/// An operator ends the lost condition: as CLEAR.
pub(super) fn accept(transition: &mut Transition<'_>) {
    if transition.before.persistent.lost.is_some() {
        clear_all(transition);
        transition.after.persistent.lost = None;
        transition.facts.push(Fact::LostReplaced);
    }
}

/// REPLACE LOST RESERVATION: everything that is left, registered anew or not, makes way for one registrant that holds the
/// reservation. Nothing was lost: INVALID RELEASE. No unit attention is established, and PRGENERATION starts again at
/// zero.
pub(super) fn replace(
    transition: &mut Transition<'_>,
    sender: &Nexus,
    out: &PersistentReserveOut,
) -> Result<(), Reject> {
    let invalid = |field| Err(Reject::InvalidFieldInParameterList(field));
    if transition.before.persistent.lost.is_none() {
        return Err(Reject::InvalidRelease);
    }
    if out.reservation_key != 0 {
        return invalid(ParameterField::ReservationKey);
    }
    if out.service_action_reservation_key == 0 {
        return invalid(ParameterField::ServiceActionReservationKey);
    }
    if out.all_target_ports {
        return invalid(ParameterField::AllTargetPorts);
    }
    refuse_spec_i_pt(out)?;
    let kind = requested_type(out.scope, out.kind)?;

    transition.end_reservation(Cause::ReplaceLost);
    let everyone: Vec<_> = transition
        .before
        .persistent
        .registrants
        .keys()
        .cloned()
        .collect();
    transition.unregister(everyone, Cause::ReplaceLost);
    transition.register(
        sender.clone(),
        Key(out.service_action_reservation_key),
        false,
    );
    transition.establish_reservation(sender, kind);
    transition.set_aptpl(out.aptpl);
    transition.after.persistent.generation = 0;
    transition.after.persistent.lost = None;
    transition.facts.push(Fact::LostReplaced);
    Ok(())
}
