//! The commands that change reservations, decoded but not judged.
//!
//! Fields whose meaning depends on the state (SCOPE and TYPE are ignored by some forms of PREEMPT, a wrong key is
//! a conflict before a bad field is an error) stay raw here: the machine judges them in the standard's order.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::state::{InitiatorPort, LostUntil, Nexus};

/// A command for [`step`](crate::machine::step).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// PERSISTENT RESERVE OUT with any service action but REGISTER AND MOVE (SPC-4 6.16.3).
    PersistentReserveOut(PersistentReserveOut),
    /// PERSISTENT RESERVE OUT with REGISTER AND MOVE (SPC-4 6.16.4).
    RegisterAndMove(RegisterAndMove),
    /// RESERVE(6) or RESERVE(10) of the logical unit, not third-party (SPC-2 7.21, 7.22; SPC-4 5.13.3).
    Reserve,
    /// RELEASE(6) or RELEASE(10) of the logical unit, not third-party (SPC-2 7.16, 7.17; SPC-4 5.13.3).
    Release,
}

/// Service actions of PERSISTENT RESERVE OUT with the basic parameter list (SPC-4 table 213).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ServiceAction {
    /// 00h.
    Register = 0,
    /// 01h.
    Reserve = 1,
    /// 02h.
    Release = 2,
    /// 03h.
    Clear = 3,
    /// 04h.
    Preempt = 4,
    /// 05h.
    PreemptAndAbort = 5,
    /// 06h.
    RegisterAndIgnoreExistingKey = 6,
    /// 08h.
    ReplaceLostReservation = 8,
}

impl ServiceAction {
    /// All service actions with the basic parameter list.
    pub const ALL: [Self; 8] = [
        Self::Register,
        Self::Reserve,
        Self::Release,
        Self::Clear,
        Self::Preempt,
        Self::PreemptAndAbort,
        Self::RegisterAndIgnoreExistingKey,
        Self::ReplaceLostReservation,
    ];

    /// The service action of a SERVICE ACTION field; `None` for 07h (REGISTER AND MOVE, which has its own
    /// parameter list) and for reserved codes.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x00 => Some(Self::Register),
            0x01 => Some(Self::Reserve),
            0x02 => Some(Self::Release),
            0x03 => Some(Self::Clear),
            0x04 => Some(Self::Preempt),
            0x05 => Some(Self::PreemptAndAbort),
            0x06 => Some(Self::RegisterAndIgnoreExistingKey),
            0x08 => Some(Self::ReplaceLostReservation),
            _ => None,
        }
    }

    /// The code of the SERVICE ACTION field.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// PERSISTENT RESERVE OUT with the basic parameter list, as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentReserveOut {
    /// What to do.
    pub service_action: ServiceAction,
    /// SCOPE field, 0 to 15; 0 is LU_SCOPE.
    pub scope: u8,
    /// TYPE field, 0 to 15.
    pub kind: u8,
    /// RESERVATION KEY field.
    pub reservation_key: u64,
    /// SERVICE ACTION RESERVATION KEY field.
    pub service_action_reservation_key: u64,
    /// ALL_TG_PT bit.
    pub all_target_ports: bool,
    /// APTPL bit.
    pub aptpl: bool,
    /// The initiator ports of the TransportID list when the SPEC_I_PT bit is one, else `None`. The machine
    /// refuses the bit where the service action does not allow it; the decoder refuses TransportIDs that it
    /// cannot read.
    pub specified_initiator_ports: Option<Vec<InitiatorPort>>,
}

impl PersistentReserveOut {
    /// A command with every field but the service action zero.
    pub const fn new(service_action: ServiceAction) -> Self {
        Self {
            service_action,
            scope: 0,
            kind: 0,
            reservation_key: 0,
            service_action_reservation_key: 0,
            all_target_ports: false,
            aptpl: false,
            specified_initiator_ports: None,
        }
    }
}

/// PERSISTENT RESERVE OUT with REGISTER AND MOVE, as sent. SCOPE and TYPE are ignored (SPC-4 5.13.8) and so not
/// carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterAndMove {
    /// RESERVATION KEY field.
    pub reservation_key: u64,
    /// SERVICE ACTION RESERVATION KEY field: the key to register for the destination.
    pub service_action_reservation_key: u64,
    /// UNREG bit: the sender's registration ends with the move.
    pub unregister: bool,
    /// APTPL bit.
    pub aptpl: bool,
    /// RELATIVE TARGET PORT IDENTIFIER and TransportID: the nexus that becomes the holder.
    pub destination: Nexus,
}

/// What a step needs to know of the target around the logical unit.
#[derive(Clone, Copy, Debug)]
pub struct Topology<'a> {
    /// Relative identifiers of every target port of the target, in any order, each once. ALL_TG_PT registers on
    /// them; REGISTER AND MOVE must name one of them.
    pub target_ports: &'a [u16],
    /// The most registrants that the logical unit can hold.
    pub registrant_capacity: usize,
}

/// Something other than a command that ends a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// LOGICAL UNIT RESET, TARGET WARM RESET, TARGET COLD RESET or any other hard reset: the SCSI-2 reservation
    /// ends (SPC-2 5.5.1), persistent state stays (SPC-4 5.13.5.1).
    Reset,
    /// I_T nexus loss, logout or session end of this nexus: its SCSI-2 reservation ends, its registration stays, recovered
    /// or made anew as it was: a registrant is a nexus, not a session.
    NexusLoss(Nexus),
    /// The machine was powered off and on again, or rebooted. PRGENERATION is zero afterwards (SPC-4 6.15.2), and
    /// without APTPL registrations and reservation are gone (SPC-4 5.13.11.2.1). A condition of lost information stays, as
    /// do the marks of the registrations that stay; with [`Lost::UntilRegistered`](crate::Lost::UntilRegistered) and no
    /// registration left it waits for the first new one, also when some had been made anew before: of those that have
    /// these nobody knows now.
    PowerOn {
        /// The volume was made to keep its state whatever APTPL says (`--persist always`).
        persist_always: bool,
    },
    /// The private region came up with less than was acknowledged, and an operator accepted that (SPC-4 5.13.5.3).
    /// What survived stays, every registration of it as a recovered one; also where information was lost before and
    /// some had registered since.
    InformationLost {
        /// What ends it.
        until: LostUntil,
    },
    /// An operator ended the lost condition, for initiators that do not know REPLACE LOST RESERVATION: what survived goes
    /// as with CLEAR. To them it was an unrecoverable loss, which takes an operator to end (SPC-4 5.13.5.3.1 b,
    /// 5.13.5.3.2). Without a loss it does nothing.
    LossAccepted,
    /// These initiators lose their access, through whatever port and session. What they have registered is removed as by
    /// PREEMPT AND ABORT (SPC-4 5.13.11.2.6). A reservation that one of them holds passes, with its type, to the first heir
    /// that is registered; the all-registrants types stay while anyone is registered; else it ends. A SCSI-2 reservation of
    /// theirs ends. Fencing again does nothing, but remove what a state that was read from storage still has of them.
    ///
    /// While information is lost an heir inherits whether or not it has registered anew, and is told until it does. Where
    /// those that are fenced had the last recovered registrations and another has registered anew, the condition ends; a
    /// fence that leaves no registration does not end it.
    Fence {
        /// Names of the initiators.
        initiators: BTreeSet<Arc<str>>,
        /// Names of initiators that inherit the reservation, in order of preference.
        heirs: Vec<Arc<str>>,
    },
    /// These initiators are not fenced any more. They are registered no longer; nothing else keeps them out.
    Unfence {
        /// Names of the initiators.
        initiators: BTreeSet<Arc<str>>,
    },
    /// The driver gives the SCSI-2 reservation to a nexus, as if it had sent RESERVE. Nothing happens where RESERVE would
    /// conflict or be ignored: somebody is registered, another nexus has reserved, the nexus is fenced; nor while information
    /// is lost.
    Own(Nexus),
}
