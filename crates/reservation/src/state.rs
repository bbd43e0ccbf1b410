//! The reservation state of one logical unit, as plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// An initiator port: in iSCSI the initiator name and the ISID (RFC 7143 9.1.1, SPC-4 7.6.4.6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InitiatorPort {
    /// iSCSI name, 1 to 223 bytes, as normalized at login.
    pub name: Arc<str>,
    /// Initiator session identifier.
    pub isid: [u8; 6],
}

/// A nexus: one initiator port seen through one target port. It is the identity of a registrant and outlives
/// connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexus {
    /// The initiator's end.
    pub initiator: InitiatorPort,
    /// Relative target port identifier (SPC-4 7.6.4), 1 to 65535.
    pub target_port: u16,
}

/// A reservation key. Zero means "no key" on the wire and is never stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", self.0)
    }
}

/// Type of a persistent reservation (SPC-4 table of persistent reservation type codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReservationType {
    /// 1h.
    WriteExclusive = 1,
    /// 3h.
    ExclusiveAccess = 3,
    /// 5h.
    WriteExclusiveRegistrantsOnly = 5,
    /// 6h.
    ExclusiveAccessRegistrantsOnly = 6,
    /// 7h.
    WriteExclusiveAllRegistrants = 7,
    /// 8h.
    ExclusiveAccessAllRegistrants = 8,
}

/// What is stored for one registered nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// The registered key; never zero.
    pub key: Key,
    /// The registration was made with ALL_TG_PT.
    pub all_target_ports: bool,
}

/// The group reservation. Scope is always the logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Type of the reservation.
    pub kind: ReservationType,
    /// The holder; `None` exactly for the two all-registrants types, which every registrant holds.
    pub holder: Option<Nexus>,
}

/// Everything that must be kept for the persistent reservations of a logical unit. This is what the private
/// region stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// PRGENERATION.
    pub generation: u32,
    /// The most recent APTPL value received (SPC-4 5.12.5): one for the whole logical unit.
    pub aptpl: bool,
    /// Registrants by nexus.
    pub registrants: BTreeMap<Nexus, Registrant>,
    /// The reservation, if any; its holder is a key of `registrants`.
    pub reservation: Option<Reservation>,
}
