//! A change in the making: the state before, the state so far, and the effects collected on the way.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::{LuReservations, Step};
use crate::access::{self, Column};
use crate::effects::{Cause, Effects, Fact, Narrowed, UnitAttention};
use crate::reject::{CdbField, Reject};
use crate::state::{Key, Lost, Nexus, Registrant, Reservation, ReservationType};

pub(super) struct Transition<'a> {
    pub(super) before: &'a LuReservations,
    pub(super) after: LuReservations,
    pub(super) facts: Vec<Fact>,
    /// Gets no unit attention.
    sender: Option<&'a Nexus>,
    unit_attentions: BTreeMap<Nexus, UnitAttention>,
    abort: BTreeSet<Nexus>,
}

impl<'a> Transition<'a> {
    /// A change that nothing has happened in yet, by a command from `sender` or by an event.
    pub(super) fn new(before: &'a LuReservations, sender: Option<&'a Nexus>) -> Self {
        Self {
            before,
            after: before.clone(),
            facts: Vec::new(),
            sender,
            unit_attentions: BTreeMap::new(),
            abort: BTreeSet::new(),
        }
    }

    /// RESERVATION CONFLICT unless the sender is registered with this key (SPC-4 6.16.3).
    pub(super) fn authenticate(&self, sender: &Nexus, reservation_key: u64) -> Result<(), Reject> {
        match self.before.persistent.key_of(sender) {
            Some(Key(key)) if key == reservation_key => Ok(()),
            _ => Err(Reject::ReservationConflict),
        }
    }

    pub(super) fn count_generation(&mut self) {
        let generation = &mut self.after.persistent.generation;
        *generation = generation.wrapping_add(1);
    }

    pub(super) fn set_aptpl(&mut self, aptpl: bool) {
        if self.after.persistent.aptpl != aptpl {
            self.after.persistent.aptpl = aptpl;
            self.facts.push(Fact::PersistThroughPowerLoss(aptpl));
        }
    }

    /// Registers a nexus. A registration that was recovered is made anew by that: to be called for what the initiator port
    /// of the nexus does itself.
    pub(super) fn register(&mut self, nexus: Nexus, key: Key, all_target_ports: bool) {
        let registrant = Registrant {
            key,
            all_target_ports,
        };
        let replaced = self
            .after
            .persistent
            .registrants
            .insert(nexus.clone(), registrant);
        self.forget_recovered(&nexus);
        self.facts.push(Fact::Registered {
            nexus,
            key,
            replaced: replaced.map(|registrant| registrant.key),
        });
    }

    /// Removes registrations. The reservation, if these were its holders, is the caller's to end.
    pub(super) fn unregister(&mut self, nexuses: impl IntoIterator<Item = Nexus>, cause: Cause) {
        for nexus in nexuses {
            if let Some(Registrant { key, .. }) = self.after.persistent.registrants.remove(&nexus) {
                self.forget_recovered(&nexus);
                self.facts.push(Fact::Unregistered { nexus, key, cause });
            }
        }
    }

    fn forget_recovered(&mut self, nexus: &Nexus) {
        if let Some(Lost::UntilRegistered { recovered }) = &mut self.after.persistent.lost {
            recovered.remove(nexus);
        }
    }

    /// Makes `sender` the holder of a reservation of this type, or everyone if that is its type.
    pub(super) fn establish_reservation(&mut self, sender: &Nexus, kind: ReservationType) {
        let holder = (!kind.is_all_registrants()).then(|| sender.clone());
        self.facts.push(Fact::Reserved {
            kind,
            holder: holder.clone(),
        });
        self.after.persistent.reservation = Some(Reservation { kind, holder });
    }

    /// Ends the reservation, if there is one, and gives it back.
    pub(super) fn end_reservation(&mut self, cause: Cause) -> Option<Reservation> {
        let ended = self.after.persistent.reservation.take()?;
        self.facts.push(Fact::Released {
            kind: ended.kind,
            holder: ended.holder.clone(),
            cause,
        });
        Some(ended)
    }

    /// Ends the reservation if nobody holds it any more, and gives it back (SPC-4 table 71).
    pub(super) fn end_orphaned_reservation(&mut self) -> Option<Reservation> {
        let state = &self.after.persistent;
        let orphaned =
            state
                .reservation
                .as_ref()
                .is_some_and(|reservation| match &reservation.holder {
                    Some(holder) => !state.is_registered(holder),
                    None => state.registrants.is_empty(),
                });
        if orphaned {
            self.end_reservation(Cause::Unregistered)
        } else {
            None
        }
    }

    /// Establishes a unit attention condition for each of these nexuses but the sender.
    pub(super) fn attention<'n>(
        &mut self,
        nexuses: impl IntoIterator<Item = &'n Nexus>,
        attention: UnitAttention,
    ) {
        for nexus in nexuses {
            if self.sender != Some(nexus) {
                self.unit_attentions.insert(nexus.clone(), attention);
            }
        }
    }

    /// Establishes a unit attention condition for every nexus that is registered now but the sender.
    pub(super) fn attention_to_registrants(&mut self, attention: UnitAttention) {
        let registrants: Vec<_> = self.after.persistent.registrants.keys().cloned().collect();
        self.attention(&registrants, attention);
    }

    pub(super) fn abort(&mut self, nexuses: impl IntoIterator<Item = Nexus>) {
        self.abort.extend(nexuses);
    }

    fn has_fenced_registrant(&self) -> bool {
        let after = &self.after;
        let mut named = after.persistent.registrants.keys().chain(&after.scsi2);
        named.any(|nexus| after.is_fenced(&nexus.initiator.name))
    }

    pub(super) fn finish(self) -> Step {
        debug_assert_eq!(self.after.persistent.check(), Ok(()));
        debug_assert!(self.after.scsi2.is_none() || self.after.persistent.registrants.is_empty());
        debug_assert!(self.after.scsi2.is_none() || self.after.persistent.lost.is_none());
        debug_assert!(!self.has_fenced_registrant());
        let effects = Effects {
            persist: self.before.persistent != self.after.persistent,
            narrowed: narrowed(self.before, &self.after),
            abort: self.abort.into_iter().collect(),
            unit_attentions: self.unit_attentions.into_iter().collect(),
            facts: self.facts,
        };
        Step {
            state: self.after,
            effects,
        }
    }
}

/// The type that SCOPE and TYPE ask for.
pub(super) fn requested_type(scope: u8, kind: u8) -> Result<ReservationType, Reject> {
    if scope != 0 {
        return Err(Reject::InvalidFieldInCdb(CdbField::Scope));
    }
    ReservationType::from_code(kind).ok_or(Reject::InvalidFieldInCdb(CdbField::Type))
}

/// Who may do less in `after` than in `before`. Walks the registrants of both in step: with a thousand of them a
/// look-up for each is what would take the time.
fn narrowed(before: &LuReservations, after: &LuReservations) -> Narrowed {
    let others_before = access::column_of_others(before);
    let others_after = access::column_of_others(after);
    let mut narrowed = Narrowed {
        all_others: others_before.narrows_to(others_after),
        ..Narrowed::default()
    };
    for initiator in before.fenced.union(&after.fenced) {
        let column = |reservations: &LuReservations, others| match reservations.is_fenced(initiator)
        {
            true => Column::Fenced,
            false => others,
        };
        let (from, to) = (column(before, others_before), column(after, others_after));
        if from.narrows_to(to) {
            narrowed.initiators.insert(initiator.clone());
        } else if narrowed.all_others {
            narrowed.spared_initiators.insert(initiator.clone());
        }
    }
    let some_fenced = !narrowed.initiators.is_empty();
    let mut judge = |nexus: &Nexus, from: Column, to: Column| {
        if from.narrows_to(to) {
            narrowed.named.insert(nexus.clone());
        } else if narrowed.all_others || some_fenced {
            narrowed.spared.insert(nexus.clone());
        }
    };

    let mut old = before.persistent.registrants.keys().peekable();
    let mut new = after.persistent.registrants.keys().peekable();
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some(old), Some(new)) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        let Some(nexus) = was.or(is) else { break };
        let column = |reservations: &LuReservations, registered, others| {
            if reservations.is_fenced(&nexus.initiator.name) {
                Column::Fenced
            } else if registered {
                access::column_of_registrant(reservations, nexus)
            } else {
                others
            }
        };
        judge(
            nexus,
            column(before, was.is_some(), others_before),
            column(after, is.is_some(), others_after),
        );
    }
    // Nobody is registered while there is a SCSI-2 reservation, so its holder has not been judged above.
    for holder in before.scsi2.iter().chain(&after.scsi2) {
        judge(
            holder,
            access::column(before, holder),
            access::column(after, holder),
        );
    }
    narrowed
}
