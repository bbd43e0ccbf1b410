//! The reservation state of one logical unit, as plain data.

use std::collections::{BTreeMap, BTreeSet};
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

impl ReservationType {
    /// All six types, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    /// The type of a TYPE field; `None` for the reserved and obsolete codes (SPC-4 6.15.3.4).
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x1 => Some(Self::WriteExclusive),
            0x3 => Some(Self::ExclusiveAccess),
            0x5 => Some(Self::WriteExclusiveRegistrantsOnly),
            0x6 => Some(Self::ExclusiveAccessRegistrantsOnly),
            0x7 => Some(Self::WriteExclusiveAllRegistrants),
            0x8 => Some(Self::ExclusiveAccessAllRegistrants),
            _ => None,
        }
    }

    /// The code of the TYPE field, 1 to 8.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Reads stay shared: types 1, 5 and 7.
    pub const fn is_write_exclusive(self) -> bool {
        matches!(
            self,
            Self::WriteExclusive
                | Self::WriteExclusiveRegistrantsOnly
                | Self::WriteExclusiveAllRegistrants
        )
    }

    /// Types 5 and 6: one holder, every registrant has access.
    pub const fn is_registrants_only(self) -> bool {
        matches!(
            self,
            Self::WriteExclusiveRegistrantsOnly | Self::ExclusiveAccessRegistrantsOnly
        )
    }

    /// Types 7 and 8: every registrant is a holder.
    pub const fn is_all_registrants(self) -> bool {
        matches!(
            self,
            Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants
        )
    }
}

impl fmt::Display for ReservationType {
    /// The name used by the command line and its JSON, such as `write-exclusive-registrants-only`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteExclusive => "write-exclusive",
            Self::ExclusiveAccess => "exclusive-access",
            Self::WriteExclusiveRegistrantsOnly => "write-exclusive-registrants-only",
            Self::ExclusiveAccessRegistrantsOnly => "exclusive-access-registrants-only",
            Self::WriteExclusiveAllRegistrants => "write-exclusive-all-registrants",
            Self::ExclusiveAccessAllRegistrants => "exclusive-access-all-registrants",
        })
    }
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

/// What ends the condition that persistent reservation information was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LostUntil {
    /// Registrations made anew: see [`Lost::UntilRegistered`].
    #[default]
    Registered,
    /// PERSISTENT RESERVE OUT with REPLACE LOST RESERVATION and nothing else (SPC-4 5.13.5.3.2), or an operator.
    Replaced,
}

impl fmt::Display for LostUntil {
    /// `registered` or `replaced`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered => "registered",
            Self::Replaced => "replaced",
        })
    }
}

/// Persistent reservation information was lost and a person said so: a lost persistent reservation condition (SPC-4
/// 5.13.5.3). Whoever it applies to gets DATA PROTECT, PERSISTENT RESERVATION INFORMATION LOST for every command outside
/// a short list. REPLACE LOST RESERVATION ends it in either form. It is part of the state: it outlives restarts and moves
/// with the keys of a volume that is migrated or carried to another machine, marks and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It applies to every nexus.
    UntilReplaced,
    /// It applies to every nexus that has not registered since, by itself: those whose registration is one of `recovered`,
    /// and those that have none. It ends when a registration has been made since and none of the recovered ones is left:
    /// each has been made anew, or was unregistered, preempted, cleared or fenced (docs/decisions/0005).
    UntilRegistered {
        /// The registrants that came with what survived and have not registered since.
        recovered: BTreeSet<Nexus>,
    },
}

impl Lost {
    /// What ends it.
    pub const fn until(&self) -> LostUntil {
        match self {
            Self::UntilReplaced => LostUntil::Replaced,
            Self::UntilRegistered { .. } => LostUntil::Registered,
        }
    }

    /// Whether it applies to `nexus`, which is registered.
    pub fn applies_to_registrant(&self, nexus: &Nexus) -> bool {
        match self {
            Self::UntilReplaced => true,
            Self::UntilRegistered { recovered } => recovered.contains(nexus),
        }
    }
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
    /// Persistent reservation information was lost, and what ends that.
    pub lost: Option<Lost>,
}

impl State {
    /// The key that `nexus` is registered with.
    pub fn key_of(&self, nexus: &Nexus) -> Option<Key> {
        self.registrants.get(nexus).map(|registrant| registrant.key)
    }

    /// Whether `nexus` is registered.
    pub fn is_registered(&self, nexus: &Nexus) -> bool {
        self.registrants.contains_key(nexus)
    }

    /// Whether `nexus` is a persistent reservation holder (SPC-4 5.13.10): for the all-registrants types every
    /// registrant is.
    pub fn is_holder(&self, nexus: &Nexus) -> bool {
        match &self.reservation {
            None => false,
            Some(Reservation {
                holder: Some(holder),
                ..
            }) => holder == nexus,
            Some(Reservation { holder: None, .. }) => self.is_registered(nexus),
        }
    }

    /// Whether `nexus` has a registration that came with what survived of lost information, and has not registered since.
    pub fn is_recovered(&self, nexus: &Nexus) -> bool {
        self.lost
            .as_ref()
            .is_some_and(|lost| self.is_registered(nexus) && lost.applies_to_registrant(nexus))
    }

    /// Whether `nexus` has registered while [`Lost::UntilRegistered`] stands.
    pub fn has_registered_anew(&self, nexus: &Nexus) -> bool {
        self.lost.is_some() && self.is_registered(nexus) && !self.is_recovered(nexus)
    }

    /// The first broken invariant, in words; `Ok` for a state that this crate can have produced. Whoever reads a
    /// state from storage checks it before use.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn check(&self) -> Result<(), StateError> {
        if self
            .registrants
            .iter()
            .any(|(_, registrant)| registrant.key == Key(0))
        {
            return Err(StateError::ZeroKey);
        }
        if let Some(Lost::UntilRegistered { recovered }) = &self.lost {
            if !recovered.iter().all(|nexus| self.is_registered(nexus)) {
                return Err(StateError::RecoveredNotRegistered);
            }
            if recovered.is_empty() && !self.registrants.is_empty() {
                return Err(StateError::NothingRecovered);
            }
        }
        match &self.reservation {
            None => Ok(()),
            Some(Reservation { kind, holder }) => match (kind.is_all_registrants(), holder) {
                (true, Some(_)) => Err(StateError::HolderOfAllRegistrants),
                (true, None) if self.registrants.is_empty() => Err(StateError::NoRegistrants),
                (false, None) => Err(StateError::NoHolder),
                (false, Some(holder)) if !self.is_registered(holder) => {
                    Err(StateError::HolderNotRegistered)
                }
                _ => Ok(()),
            },
        }
    }
}

/// An invariant of [`State`] that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A registrant's key is zero.
    #[error("a registrant has the key zero")]
    ZeroKey,
    /// What is marked as recovered is a registration.
    #[error("a recovered registration that is none")]
    RecoveredNotRegistered,
    /// The condition of lost information is over when every registration was made since.
    #[error("lost information, though every registration was made since")]
    NothingRecovered,
    /// Types 7 and 8 have no single holder.
    #[error("an all-registrants reservation names a holder")]
    HolderOfAllRegistrants,
    /// Types 7 and 8 end with the last registration.
    #[error("an all-registrants reservation without registrants")]
    NoRegistrants,
    /// Types 1, 3, 5 and 6 have a holder.
    #[error("a reservation without a holder")]
    NoHolder,
    /// A reservation ends with its holder's registration.
    #[error("the holder of the reservation is not registered")]
    HolderNotRegistered,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nexus(name: &str) -> Nexus {
        Nexus {
            initiator: InitiatorPort {
                name: name.into(),
                isid: [0; 6],
            },
            target_port: 1,
        }
    }

    fn state(
        registrants: &[(&str, u64)],
        reservation: Option<(ReservationType, Option<&str>)>,
    ) -> State {
        let registrants = registrants.iter().map(|&(name, key)| {
            (
                nexus(name),
                Registrant {
                    key: Key(key),
                    all_target_ports: false,
                },
            )
        });
        State {
            registrants: registrants.collect(),
            reservation: reservation.map(|(kind, holder)| Reservation {
                kind,
                holder: holder.map(nexus),
            }),
            ..State::default()
        }
    }

    #[test]
    fn type_codes_round_trip() {
        let known: Vec<u8> = (0..=255)
            .filter(|&code| ReservationType::from_code(code).is_some())
            .collect();
        assert_eq!(known, [1, 3, 5, 6, 7, 8]);
        for kind in ReservationType::ALL {
            assert_eq!(ReservationType::from_code(kind.code()), Some(kind));
        }
    }

    #[test]
    fn types_are_sorted_into_families() {
        let codes = |family: fn(ReservationType) -> bool| {
            ReservationType::ALL
                .into_iter()
                .filter(|&kind| family(kind))
                .map(ReservationType::code)
                .collect::<Vec<_>>()
        };
        assert_eq!(codes(ReservationType::is_write_exclusive), [1, 5, 7]);
        assert_eq!(codes(ReservationType::is_registrants_only), [5, 6]);
        assert_eq!(codes(ReservationType::is_all_registrants), [7, 8]);
    }

    #[test]
    fn only_sound_states_pass_the_check() {
        use ReservationType::{ExclusiveAccessAllRegistrants as All, WriteExclusive as One};
        let a = [("a", 1)];
        assert_eq!(State::default().check(), Ok(()));
        assert_eq!(state(&a, None).check(), Ok(()));
        assert_eq!(state(&a, Some((One, Some("a")))).check(), Ok(()));
        assert_eq!(state(&a, Some((All, None))).check(), Ok(()));
        assert_eq!(state(&[("a", 0)], None).check(), Err(StateError::ZeroKey));
        assert_eq!(
            state(&a, Some((All, Some("a")))).check(),
            Err(StateError::HolderOfAllRegistrants)
        );
        assert_eq!(
            state(&[], Some((All, None))).check(),
            Err(StateError::NoRegistrants)
        );
        assert_eq!(
            state(&a, Some((One, None))).check(),
            Err(StateError::NoHolder)
        );
        assert_eq!(
            state(&a, Some((One, Some("b")))).check(),
            Err(StateError::HolderNotRegistered)
        );
    }

    #[test]
    fn marks_stand_for_registrations_and_end_with_the_condition() {
        let lost = |registrants: &[(&str, u64)], recovered: &[&str]| State {
            lost: Some(Lost::UntilRegistered {
                recovered: recovered.iter().map(|name| nexus(name)).collect(),
            }),
            ..state(registrants, None)
        };
        let both = [("a", 1), ("b", 2)];
        assert_eq!(lost(&[], &[]).check(), Ok(()), "an empty copy");
        assert_eq!(lost(&both, &["a", "b"]).check(), Ok(()));
        assert_eq!(
            lost(&[("a", 1)], &["b"]).check(),
            Err(StateError::RecoveredNotRegistered)
        );
        assert_eq!(lost(&both, &[]).check(), Err(StateError::NothingRecovered));
        let one = lost(&both, &["a"]);
        assert_eq!(one.check(), Ok(()));
        assert!(one.is_recovered(&nexus("a")) && !one.has_registered_anew(&nexus("a")));
        assert!(!one.is_recovered(&nexus("b")) && one.has_registered_anew(&nexus("b")));
        assert!(!one.is_recovered(&nexus("c")) && !one.has_registered_anew(&nexus("c")));
        let strict = State {
            lost: Some(Lost::UntilReplaced),
            ..state(&both, None)
        };
        assert_eq!(strict.check(), Ok(()));
        assert!(strict.is_recovered(&nexus("a")) && !strict.has_registered_anew(&nexus("a")));
        assert!(!state(&both, None).is_recovered(&nexus("a")));
    }

    #[test]
    fn every_registrant_holds_an_all_registrants_reservation() {
        let state = state(
            &[("a", 1), ("b", 2)],
            Some((ReservationType::WriteExclusiveAllRegistrants, None)),
        );
        assert!(
            state.is_holder(&nexus("a"))
                && state.is_holder(&nexus("b"))
                && !state.is_holder(&nexus("c"))
        );
    }
}
