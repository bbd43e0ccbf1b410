//! Fencing an initiator: what PREEMPT AND ABORT does to one registrant (SPC-4 5.13.11.2.6), done to all nexuses of it by
//! the driver, and for good.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::drop_scsi2;
use super::transition::Transition;
use crate::effects::{Cause, Fact, UnitAttention};
use crate::state::{Nexus, Reservation};

/// Takes everything away from `initiators` and from whoever was fenced before.
pub(super) fn fence(
    transition: &mut Transition<'_>,
    initiators: &BTreeSet<Arc<str>>,
    heirs: &[Arc<str>],
) {
    transition.after.fenced.extend(initiators.iter().cloned());
    let after = &transition.after;
    let owner = after.scsi2.as_ref();
    if owner.is_some_and(|owner| after.is_fenced(&owner.initiator.name)) {
        drop_scsi2(transition);
    }
    let state = &transition.before.persistent;
    let gone: Vec<Nexus> = state
        .registrants
        .keys()
        .filter(|nexus| transition.after.is_fenced(&nexus.initiator.name))
        .cloned()
        .collect();
    if gone.is_empty() {
        return;
    }
    pass_on(transition, &gone, heirs);
    transition.unregister(gone.iter().cloned(), Cause::Fence);
    if transition
        .end_orphaned_reservation()
        .is_some_and(|ended| ended.kind.is_registrants_only())
    {
        // As when a holder gives up its registration (SPC-4 5.13.11.2.3).
        transition.attention_to_registrants(UnitAttention::ReservationsReleased);
    }
    transition.attention(&gone, UnitAttention::RegistrationsPreempted);
    transition.abort(gone);
    transition.count_generation();
}

/// Gives the reservation of a holder that goes to the first heir that is registered.
fn pass_on(transition: &mut Transition<'_>, gone: &[Nexus], heirs: &[Arc<str>]) {
    let state = &mut transition.after.persistent;
    let Some(Reservation {
        kind,
        holder: Some(from),
    }) = state.reservation.clone()
    else {
        return;
    };
    if !gone.contains(&from) {
        return;
    }
    let heir = heirs.iter().find_map(|heir| {
        let mut registrants = state.registrants.keys();
        registrants.find(|nexus| nexus.initiator.name == *heir && !gone.contains(nexus))
    });
    if let Some(to) = heir.cloned() {
        state.reservation = Some(Reservation {
            kind,
            holder: Some(to.clone()),
        });
        transition.facts.push(Fact::Moved { kind, from, to });
    }
}

/// Gives the SCSI-2 reservation to `nexus` where nothing is in the way.
pub(super) fn own(transition: &mut Transition<'_>, nexus: &Nexus) {
    let after = &transition.after;
    let free = after.scsi2.is_none()
        && after.persistent.registrants.is_empty()
        && after.persistent.lost.is_none()
        && !after.is_fenced(&nexus.initiator.name);
    if free {
        transition.facts.push(Fact::Scsi2Reserved(nexus.clone()));
        transition.after.scsi2 = Some(nexus.clone());
    }
}
