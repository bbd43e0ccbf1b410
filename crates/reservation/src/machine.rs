//! The reservation state machine: a command or event applied to the state of a logical unit gives the next state and
//! what has to happen because of it.
//!
//! Everything here is a function of its arguments. [`step`] first asks the access table whether the sender may send
//! the command at all (SPC-4 table 66), then does what the clause of the service action says, in the order of checks
//! of the standard: a conflict comes before any complaint about a field. A rejected command changes nothing.

mod fence;
mod lost;
mod preempt;
mod register;
mod reserve;
mod transition;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::{self, Column};
use crate::command::{Command, Event, ServiceAction, Topology};
use crate::effects::{Cause, Effects, Fact};
use crate::reject::Reject;
use crate::state::{Nexus, State};
use transition::Transition;

/// All reservations of a logical unit.
///
/// Invariant: while there is a SCSI-2 reservation nobody is registered, because RESERVE conflicts with registrations
/// and every PERSISTENT RESERVE OUT conflicts with it; nor is information lost. No fenced initiator has a registration or a reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LuReservations {
    /// What the private region keeps.
    pub persistent: State,
    /// The nexus that reserved the logical unit with RESERVE(6) or RESERVE(10); never stored.
    pub scsi2: Option<Nexus>,
    /// Initiators that are fenced; the domains keep this, not the private region.
    pub fenced: BTreeSet<Arc<str>>,
}

impl LuReservations {
    /// Whether this initiator is fenced.
    pub fn is_fenced(&self, initiator: &str) -> bool {
        !self.fenced.is_empty() && self.fenced.contains(initiator)
    }
}

impl From<State> for LuReservations {
    /// The reservations right after a start.
    fn from(persistent: State) -> Self {
        Self {
            persistent,
            ..Self::default()
        }
    }
}

/// What an accepted command or event comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The reservations from now on.
    pub state: LuReservations,
    /// What has to happen.
    pub effects: Effects,
}

/// Applies `command`, sent by `nexus`.
///
/// # Errors
/// The answer to a command that is refused; the state stays as it is.
pub fn step(
    before: &LuReservations,
    topology: &Topology<'_>,
    nexus: &Nexus,
    command: &Command,
) -> Result<Step, Reject> {
    let (opcode, service_action) = match command {
        Command::PersistentReserveOut(out) => (0x5f, u16::from(out.service_action.code())),
        Command::RegisterAndMove(_) => (0x5f, 0x07),
        Command::Reserve => (0x56, 0),
        Command::Release => (0x57, 0),
    };
    admit(before, nexus, opcode, service_action)?;

    let mut transition = Transition::new(before, Some(nexus));
    match command {
        Command::PersistentReserveOut(out) => match out.service_action {
            ServiceAction::Register | ServiceAction::RegisterAndIgnoreExistingKey => {
                register::register(&mut transition, nexus, topology, out)?;
            }
            ServiceAction::Reserve => reserve::reserve(&mut transition, nexus, out)?,
            ServiceAction::Release => reserve::release(&mut transition, nexus, out)?,
            ServiceAction::Clear => reserve::clear(&mut transition, nexus, out)?,
            ServiceAction::Preempt => preempt::preempt(&mut transition, nexus, out, false)?,
            ServiceAction::PreemptAndAbort => preempt::preempt(&mut transition, nexus, out, true)?,
            ServiceAction::ReplaceLostReservation => lost::replace(&mut transition, nexus, out)?,
        },
        Command::RegisterAndMove(out) => {
            register::register_and_move(&mut transition, nexus, topology, out)?
        }
        Command::Reserve => scsi2_reserve(&mut transition, nexus)?,
        Command::Release => scsi2_release(&mut transition, nexus)?,
    }
    lost::confirm(&mut transition, Some(nexus));
    Ok(transition.finish())
}

/// Judges a reservation command by its operation code and service action alone, as [`step`] does first: a conflict
/// that this finds can be answered before the parameter list is fetched or looked at.
///
/// # Errors
/// The answer to a command that is refused. A service action that the access table does not know is not refused here.
pub fn admit(
    before: &LuReservations,
    nexus: &Nexus,
    opcode: u8,
    service_action: u16,
) -> Result<(), Reject> {
    let column = access::column(before, nexus);
    match access::row(opcode, service_action) {
        Some(row) if !row.permits(column) => {
            Err(column.refusal().unwrap_or(Reject::ReservationConflict))
        }
        _ => Ok(()),
    }
}

/// Applies something that is not a command.
pub fn apply(before: &LuReservations, event: &Event) -> Step {
    let mut transition = Transition::new(before, None);
    match event {
        Event::Reset => drop_scsi2(&mut transition),
        Event::NexusLoss(nexus) => {
            if before.scsi2.as_ref() == Some(nexus) {
                drop_scsi2(&mut transition);
            }
        }
        Event::PowerOn { persist_always } => {
            drop_scsi2(&mut transition);
            transition.after.persistent.generation = 0;
            if !before.persistent.aptpl && !persist_always {
                transition.end_reservation(Cause::PowerOn);
                let everyone: Vec<_> = before.persistent.registrants.keys().cloned().collect();
                transition.unregister(everyone, Cause::PowerOn);
            }
        }
        Event::LossAccepted => lost::accept(&mut transition),
        Event::Fence { initiators, heirs } => fence::fence(&mut transition, initiators, heirs),
        Event::Unfence { initiators } => {
            let fenced = &mut transition.after.fenced;
            fenced.retain(|initiator| !initiators.contains(initiator));
        }
        Event::Own(nexus) => fence::own(&mut transition, nexus),
        Event::InformationLost { until } => {
            drop_scsi2(&mut transition);
            lost::begin(&mut transition, *until);
        }
    }
    lost::confirm(&mut transition, None);
    transition.finish()
}

/// RESERVE(6) and RESERVE(10): SPC-2 7.21.2 with the exceptions of SPC-4 5.13.3.
fn scsi2_reserve(transition: &mut Transition<'_>, sender: &Nexus) -> Result<(), Reject> {
    if exempt_from_scsi2(transition.before, sender)? {
        return Ok(());
    }
    if transition.after.scsi2.is_none() {
        transition.facts.push(Fact::Scsi2Reserved(sender.clone()));
        transition.after.scsi2 = Some(sender.clone());
    }
    Ok(())
}

/// RELEASE(6) and RELEASE(10): SPC-2 7.16.2 with the exceptions of SPC-4 5.13.3. Releasing what another nexus has
/// reserved, or what nobody has, is no error and does nothing.
fn scsi2_release(transition: &mut Transition<'_>, sender: &Nexus) -> Result<(), Reject> {
    if exempt_from_scsi2(transition.before, sender)? {
        return Ok(());
    }
    if transition.after.scsi2.as_ref() == Some(sender) {
        drop_scsi2(transition);
    }
    Ok(())
}

/// Whether RESERVE or RELEASE is answered with GOOD and ignored: its sender holds the persistent reservation, or is
/// registered under one for registrants (SPC-4 5.13.3). Anything else conflicts while anyone is registered (SPC-2
/// 5.5.1).
fn exempt_from_scsi2(before: &LuReservations, sender: &Nexus) -> Result<bool, Reject> {
    match access::column(before, sender) {
        Column::Holder | Column::RegistrantsOnly => Ok(true),
        _ if before.persistent.registrants.is_empty() => Ok(false),
        _ => Err(Reject::ReservationConflict),
    }
}

fn drop_scsi2(transition: &mut Transition<'_>) {
    if let Some(holder) = transition.after.scsi2.take() {
        transition.facts.push(Fact::Scsi2Released(holder));
    }
}

#[cfg(test)]
mod tests;
