//! What PERSISTENT RESERVE IN reports (SPC-4 6.15), as plain data: the `scsi` crate makes bytes of it.

use std::collections::BTreeSet;

use crate::state::{InitiatorPort, Key, ReservationType, State};

/// READ KEYS (SPC-4 6.15.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// PRGENERATION.
    pub generation: u32,
    /// A key for each registered nexus, in the order of the nexuses; duplicates are reported.
    pub keys: Vec<Key>,
}

/// READ RESERVATION (SPC-4 6.15.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldReservation {
    /// PRGENERATION.
    pub generation: u32,
    /// The reservation, if any: its type, and its holder's key or zero for the all-registrants types.
    pub reservation: Option<(ReservationType, Key)>,
}

/// REPORT CAPABILITIES (SPC-4 6.15.4). The machine can do all of it, always; only PTPL_A varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// RLR_C: REPLACE LOST RESERVATION.
    pub replace_lost_reservation: bool,
    /// CRH: the exceptions of SPC-4 5.13.3.
    pub compatible_reservation_handling: bool,
    /// SIP_C: SPEC_I_PT.
    pub specify_initiator_ports: bool,
    /// ATP_C: ALL_TG_PT.
    pub all_target_ports: bool,
    /// PTPL_C: persist through power loss.
    pub persist_through_power_loss: bool,
    /// PTPL_A: persist through power loss is activated.
    pub persist_through_power_loss_activated: bool,
    /// ALLOW COMMANDS, three bits: what the access table says about the commands with a footnote in SPC-4 table 65.
    pub allow_commands: u8,
    /// The types that are supported; TMV is one.
    pub types: &'static [ReservationType],
}

/// One descriptor of READ FULL STATUS (SPC-4 6.15.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullStatus {
    /// The registered key.
    pub key: Key,
    /// The TransportID.
    pub initiator: InitiatorPort,
    /// RELATIVE TARGET PORT IDENTIFIER; `None` with ALL_TG_PT, when one descriptor stands for the nexuses of this
    /// initiator port through every target port.
    pub target_port: Option<u16>,
    /// R_HOLDER, with the type of the reservation.
    pub holds: Option<ReservationType>,
}

/// READ FULL STATUS (SPC-4 6.15.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullStatusList {
    /// PRGENERATION.
    pub generation: u32,
    /// The registered nexuses, in order.
    pub descriptors: Vec<FullStatus>,
}

/// ALLOW COMMANDS 100b: TEST UNIT READY and RECEIVE COPY RESULTS pass Write Exclusive and Exclusive Access; MODE
/// SENSE, READ ATTRIBUTE, READ BUFFER, RECEIVE DIAGNOSTIC RESULTS, REPORT SUPPORTED OPERATION CODES, REPORT SUPPORTED
/// TASK MANAGEMENT FUNCTIONS and READ DEFECT DATA pass Write Exclusive. The tests hold this against the table.
pub const ALLOW_COMMANDS: u8 = 0b100;

/// READ KEYS.
pub fn read_keys(state: &State) -> Keys {
    let keys = state
        .registrants
        .values()
        .map(|registrant| registrant.key)
        .collect();
    Keys {
        generation: state.generation,
        keys,
    }
}

/// READ RESERVATION.
pub fn read_reservation(state: &State) -> HeldReservation {
    let reservation = state.reservation.as_ref().map(|reservation| {
        let key = reservation
            .holder
            .as_ref()
            .and_then(|holder| state.key_of(holder))
            .unwrap_or(Key(0));
        (reservation.kind, key)
    });
    HeldReservation {
        generation: state.generation,
        reservation,
    }
}

/// REPORT CAPABILITIES.
pub fn report_capabilities(state: &State) -> Capabilities {
    Capabilities {
        replace_lost_reservation: true,
        compatible_reservation_handling: true,
        specify_initiator_ports: true,
        all_target_ports: true,
        persist_through_power_loss: true,
        persist_through_power_loss_activated: state.aptpl,
        allow_commands: ALLOW_COMMANDS,
        types: &ReservationType::ALL,
    }
}

/// READ FULL STATUS of a logical unit that is reached through these target ports. Registrations made with ALL_TG_PT
/// are reported in one descriptor as long as they cover every target port with one key and are all holders or all
/// not; otherwise, as the standard permits, each nexus has its own.
pub fn read_full_status(state: &State, target_ports: &[u16]) -> FullStatusList {
    let ports: BTreeSet<u16> = target_ports.iter().copied().collect();
    let mut registrants = state.registrants.iter().peekable();
    let mut descriptors = Vec::with_capacity(state.registrants.len());
    while let Some(&(first, _)) = registrants.peek() {
        let initiator = &first.initiator;
        let mut group = Vec::new();
        while let Some((nexus, registrant)) =
            registrants.next_if(|(nexus, _)| nexus.initiator == *initiator)
        {
            let holds = state
                .reservation
                .as_ref()
                .filter(|_| state.is_holder(nexus))
                .map(|held| held.kind);
            group.push((nexus.target_port, *registrant, holds));
        }
        let (_, registrant, holds) = group[0];
        let one = registrant.all_target_ports
            && group
                .iter()
                .all(|&(_, other, other_holds)| other == registrant && other_holds == holds)
            && group
                .iter()
                .map(|&(port, ..)| port)
                .collect::<BTreeSet<_>>()
                == ports;
        let listed = if one { &group[..1] } else { &group[..] };
        descriptors.extend(listed.iter().map(|&(port, registrant, holds)| FullStatus {
            key: registrant.key,
            initiator: initiator.clone(),
            target_port: (!one).then_some(port),
            holds,
        }));
    }
    FullStatusList {
        generation: state.generation,
        descriptors,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Nexus, Registrant, Reservation};

    fn initiator(name: &str) -> InitiatorPort {
        InitiatorPort {
            name: name.into(),
            isid: [0; 6],
        }
    }

    /// Registrants as (name, port, key, ALL_TG_PT).
    fn state(registrants: &[(&str, u16, u64, bool)]) -> State {
        let registrants = registrants
            .iter()
            .map(|&(name, target_port, key, all_target_ports)| {
                (
                    Nexus {
                        initiator: initiator(name),
                        target_port,
                    },
                    Registrant {
                        key: Key(key),
                        all_target_ports,
                    },
                )
            });
        State {
            generation: 7,
            registrants: registrants.collect(),
            ..State::default()
        }
    }

    fn reserve(state: &mut State, kind: ReservationType, holder: Option<(&str, u16)>) {
        let holder = holder.map(|(name, target_port)| Nexus {
            initiator: initiator(name),
            target_port,
        });
        state.reservation = Some(Reservation { kind, holder });
    }

    #[test]
    fn keys_are_reported_with_duplicates() {
        let keys = read_keys(&state(&[
            ("a", 1, 5, false),
            ("b", 1, 5, false),
            ("a", 2, 6, false),
        ]));
        assert_eq!(
            keys,
            Keys {
                generation: 7,
                keys: vec![Key(5), Key(6), Key(5)]
            }
        );
    }

    #[test]
    fn the_reservation_is_reported_with_the_holders_key_or_zero() {
        let mut state = state(&[("a", 1, 5, false), ("b", 1, 6, false)]);
        assert_eq!(
            read_reservation(&state),
            HeldReservation {
                generation: 7,
                reservation: None
            }
        );
        reserve(&mut state, ReservationType::ExclusiveAccess, Some(("b", 1)));
        assert_eq!(
            read_reservation(&state).reservation,
            Some((ReservationType::ExclusiveAccess, Key(6)))
        );
        reserve(
            &mut state,
            ReservationType::ExclusiveAccessAllRegistrants,
            None,
        );
        assert_eq!(
            read_reservation(&state).reservation,
            Some((ReservationType::ExclusiveAccessAllRegistrants, Key(0)))
        );
    }

    #[test]
    fn only_activation_varies_in_the_capabilities() {
        let mut state = State::default();
        let off = report_capabilities(&state);
        state.aptpl = true;
        let on = report_capabilities(&state);
        assert_eq!(
            on,
            Capabilities {
                persist_through_power_loss_activated: true,
                ..off
            }
        );
        assert!(!off.persist_through_power_loss_activated && off.persist_through_power_loss);
        assert_eq!(on.types.len(), 6);
    }

    /// Target ports of the descriptors; `None` for all in one.
    fn ports(state: &State) -> Vec<Option<u16>> {
        read_full_status(state, &[2, 1])
            .descriptors
            .iter()
            .map(|descriptor| descriptor.target_port)
            .collect()
    }

    #[test]
    fn full_status_has_one_descriptor_for_all_target_ports_only_when_that_is_true() {
        let all = [("a", 1, 5, true), ("a", 2, 5, true)];
        assert_eq!(ports(&state(&all)), [None]);
        assert_eq!(
            ports(&state(&[("a", 1, 5, false), ("a", 2, 5, false)])),
            [Some(1), Some(2)]
        );
        assert_eq!(
            ports(&state(&[("a", 1, 5, true), ("a", 2, 6, true)])),
            [Some(1), Some(2)],
            "keys differ"
        );
        assert_eq!(
            ports(&state(&[("a", 1, 5, true), ("a", 2, 5, false)])),
            [Some(1), Some(2)],
            "one came later"
        );
        assert_eq!(
            ports(&state(&[("a", 2, 5, true)])),
            [Some(2)],
            "a port is missing"
        );
        assert_eq!(
            ports(&state(&[
                ("a", 1, 5, true),
                ("a", 2, 5, true),
                ("a", 3, 5, true)
            ])),
            [Some(1), Some(2), Some(3)]
        );

        let mut held = state(&all);
        reserve(&mut held, ReservationType::WriteExclusive, Some(("a", 1)));
        assert_eq!(ports(&held), [Some(1), Some(2)], "one of them holds");
        reserve(
            &mut held,
            ReservationType::WriteExclusiveAllRegistrants,
            None,
        );
        assert_eq!(ports(&held), [None], "both of them hold");
    }

    #[test]
    fn full_status_tells_who_holds() {
        let mut state = state(&[("a", 1, 5, true), ("a", 2, 5, true), ("b", 2, 6, false)]);
        reserve(
            &mut state,
            ReservationType::WriteExclusiveRegistrantsOnly,
            Some(("b", 2)),
        );
        let status = |name, key, target_port, holds| FullStatus {
            key: Key(key),
            initiator: initiator(name),
            target_port,
            holds,
        };
        assert_eq!(
            read_full_status(&state, &[1, 2]),
            FullStatusList {
                generation: 7,
                descriptors: vec![
                    status("a", 5, None, None),
                    status(
                        "b",
                        6,
                        Some(2),
                        Some(ReservationType::WriteExclusiveRegistrantsOnly)
                    ),
                ],
            }
        );
        assert_eq!(read_full_status(&State::default(), &[1, 2]).descriptors, []);
    }
}
