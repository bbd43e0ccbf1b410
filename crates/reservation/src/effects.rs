//! What has to happen because of a step, as data.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::state::{Key, LostUntil, Nexus, ReservationType};

/// The consequences of one accepted command or event. The caller carries them out in the order of the design:
/// persist, publish, drain, abort, attention, answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The persistent state differs from the one before and must be durable before the answer.
    pub persist: bool,
    /// The nexuses that lost access to the medium: their admitted I/O is drained before the answer.
    pub narrowed: Narrowed,
    /// Nexuses whose commands are aborted before the answer (PREEMPT AND ABORT, SPC-4 5.13.11.2.6), all but the
    /// PERSISTENT RESERVE OUT command itself. The sender is among them when its own key is the one preempted.
    /// Whatever PREVENT ALLOW MEDIUM REMOVAL state they have ends too. Sorted, without duplicates. Of initiators that are
    /// fenced only the nexuses that were registered are here; the others' commands are aborted as well.
    pub abort: Vec<Nexus>,
    /// Unit attention conditions to establish, at most one for a nexus, never the sender's. Sorted by nexus.
    pub unit_attentions: Vec<(Nexus, UnitAttention)>,
    /// What to write to the audit trail, in the order of happening.
    pub facts: Vec<Fact>,
}

/// Unit attention conditions that reservations establish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnitAttention {
    /// RESERVATIONS PREEMPTED, 2Ah/03h.
    ReservationsPreempted,
    /// RESERVATIONS RELEASED, 2Ah/04h.
    ReservationsReleased,
    /// REGISTRATIONS PREEMPTED, 2Ah/05h.
    RegistrationsPreempted,
}

impl UnitAttention {
    /// Additional sense code and qualifier.
    pub const fn asc_ascq(self) -> (u8, u8) {
        match self {
            Self::ReservationsPreempted => (0x2a, 0x03),
            Self::ReservationsReleased => (0x2a, 0x04),
            Self::RegistrationsPreempted => (0x2a, 0x05),
        }
    }
}

/// The nexuses that may do less after a step than before, among all nexuses there are: a step does not know who is
/// connected, so those that neither state names are described together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// Nexuses that the state before or after names and that lost access.
    pub named: BTreeSet<Nexus>,
    /// Nexuses that the state before or after names and that did not lose access.
    pub spared: BTreeSet<Nexus>,
    /// Initiators of which every nexus that is not in `spared` lost access.
    pub initiators: BTreeSet<Arc<str>>,
    /// Initiators of which no nexus lost access.
    pub spared_initiators: BTreeSet<Arc<str>>,
    /// Every nexus in none of these sets lost access.
    pub all_others: bool,
}

impl Narrowed {
    /// Whether `nexus` lost access to commands that it could send before.
    pub fn includes(&self, nexus: &Nexus) -> bool {
        let name = &nexus.initiator.name;
        if self.named.contains(nexus) {
            return true;
        }
        if self.spared.contains(nexus) || self.spared_initiators.contains(name) {
            return false;
        }
        self.all_others || self.initiators.contains(name)
    }

    /// Nobody lost anything: there is nothing to drain.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.initiators.is_empty() && !self.all_others
    }
}

/// Why a registration or reservation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The nexus asked for it itself: RELEASE, or a registration with the key zero, or UNREG.
    Own,
    /// CLEAR, or an operator who ended the lost condition.
    Clear,
    /// PREEMPT or PREEMPT AND ABORT.
    Preempt,
    /// Its holder or last registrant is gone.
    Unregistered,
    /// REPLACE LOST RESERVATION.
    ReplaceLost,
    /// Power on without APTPL.
    PowerOn,
    /// Its initiator was fenced.
    Fence,
}

/// One thing that happened, for the audit trail. The sender of the command is known to the caller and not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A registration was made, or its key changed, or one that was recovered was made anew.
    Registered {
        /// Whose.
        nexus: Nexus,
        /// The new key.
        key: Key,
        /// The key before, if it was registered.
        replaced: Option<Key>,
    },
    /// A registration ended.
    Unregistered {
        /// Whose.
        nexus: Nexus,
        /// The key it had.
        key: Key,
        /// Why.
        cause: Cause,
    },
    /// A reservation was established.
    Reserved {
        /// Its type.
        kind: ReservationType,
        /// Its holder; `None` for the all-registrants types.
        holder: Option<Nexus>,
    },
    /// A reservation ended.
    Released {
        /// Its type.
        kind: ReservationType,
        /// Its holder; `None` for the all-registrants types.
        holder: Option<Nexus>,
        /// Why.
        cause: Cause,
    },
    /// REGISTER AND MOVE gave the reservation to another nexus, or it passed to an heir because its holder was fenced.
    Moved {
        /// Its type, unchanged.
        kind: ReservationType,
        /// The holder before.
        from: Nexus,
        /// The holder now.
        to: Nexus,
    },
    /// The logical unit's APTPL setting changed to this.
    PersistThroughPowerLoss(bool),
    /// The loss of persistent reservation information was recorded. The registrations there are count as recovered.
    InformationLost {
        /// What ends the condition.
        until: LostUntil,
    },
    /// REPLACE LOST RESERVATION, or an operator, ended the lost condition.
    LostReplaced,
    /// The lost condition ended by itself: somebody has registered since, and no recovered registration is left.
    LostConfirmed,
    /// A SCSI-2 reservation began.
    Scsi2Reserved(Nexus),
    /// The SCSI-2 reservation of this nexus ended.
    Scsi2Released(Nexus),
}
