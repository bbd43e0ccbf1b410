//! The private region of a volume, read back.

use ::volume::pool::{KeysCopy, KeysInspection, KeysReplicaStatus};
use reservation::{Key, Nexus, State};

use super::Operations;
use super::describe::DeviceNames;
use crate::control::model::{
    Keys, KeysQuorum, KeysRegistration, KeysReplica, KeysReservation, LostUntil,
};
use crate::daemon::audit::{isid_text, key_text, type_name};
use crate::failure::Failure;

impl Operations {
    pub(super) fn keys(&self, name: &str) -> Result<Keys, Failure> {
        self.volume(name)?;
        Ok(present(name, self.keys_inspect(name)?))
    }

    /// Names of the pool's devices by identity.
    pub(super) fn device_names(&self) -> Result<DeviceNames, Failure> {
        let infos = self.device_infos()?;
        let named = infos.into_iter().map(|info| (info.uuid, info.name));
        Ok(DeviceNames(named.collect()))
    }
}

fn present(name: &str, inspection: KeysInspection) -> Keys {
    let count = |is: fn(&KeysCopy) -> bool| {
        let replicas = inspection.replicas.iter();
        replicas.filter(|replica| is(&replica.state)).count()
    };
    let of = count(|copy| *copy != KeysCopy::Unused);
    let quorum = KeysQuorum {
        current: count(|copy| *copy == KeysCopy::Current),
        of,
        needed: of / 2 + 1,
    };
    let current = inspection.current;
    let version = current.and_then(|position| inspection.versions.into_iter().nth(position));
    let state = version.and_then(|version| version.state.ok());
    Keys {
        volume: name.to_owned(),
        reason: inspection.problem,
        generation: state.as_ref().map(|state| state.generation),
        lost_until: state.as_ref().and_then(lost_until),
        reservation: state.as_ref().and_then(reservation),
        registrations: state.as_ref().map(registrations).unwrap_or_default(),
        replicas: replicas(inspection.replicas),
        quorum,
    }
}

/// Replicas as the command line shows them.
pub(super) fn replicas(replicas: Vec<KeysReplicaStatus>) -> Vec<KeysReplica> {
    replicas
        .into_iter()
        .map(|replica| KeysReplica {
            device: replica.device,
            state: replica.state.to_string(),
            sequence: replica.sequence,
        })
        .collect()
}

/// What ends the condition of a state whose information was lost.
pub(super) fn lost_until(state: &State) -> Option<LostUntil> {
    let lost = state.lost.as_ref()?;
    Some(match lost.until() {
        reservation::LostUntil::Registered => LostUntil::Registered,
        reservation::LostUntil::Replaced => LostUntil::Replaced,
    })
}

/// The group reservation of a state.
pub(super) fn reservation(state: &State) -> Option<KeysReservation> {
    let reservation = state.reservation.as_ref()?;
    let holder = reservation.holder.as_ref();
    Some(KeysReservation {
        kind: type_name(reservation.kind).to_owned(),
        key: key_text(holder.map_or(Key(0), |holder| key_of(state, holder))),
        holder: holder.map(|holder| holder.initiator.name.to_string()),
    })
}

/// The registrants of a state.
pub(super) fn registrations(state: &State) -> Vec<KeysRegistration> {
    state
        .registrants
        .iter()
        .map(|(nexus, registrant)| KeysRegistration {
            key: key_text(registrant.key),
            initiator: nexus.initiator.name.to_string(),
            isid: isid_text(nexus.initiator.isid),
            target_port: nexus.target_port,
            aptpl: state.aptpl,
            holder: holds(state, nexus),
            recovered: state.is_recovered(nexus),
        })
        .collect()
}

/// The holder is a registrant ([`State`]).
fn key_of(state: &State, nexus: &Nexus) -> Key {
    state
        .registrants
        .get(nexus)
        .map_or(Key(0), |registrant| registrant.key)
}

/// Every registrant holds an all-registrants reservation (SPC-4 5.13.7).
fn holds(state: &State, nexus: &Nexus) -> bool {
    state.reservation.as_ref().is_some_and(|reservation| {
        reservation
            .holder
            .as_ref()
            .is_none_or(|holder| holder == nexus)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::volume::pool::KeysVersion;
    use reservation::{InitiatorPort, Registrant, Reservation, ReservationType};
    use uuid::Uuid;

    fn nexus(name: &str) -> Nexus {
        Nexus {
            initiator: InitiatorPort {
                name: name.into(),
                isid: [0, 2, 0x3d, 0, 0, 1],
            },
            target_port: 1,
        }
    }

    fn inspection(reservation: Option<Reservation>) -> KeysInspection {
        let mut state = State {
            generation: 3,
            aptpl: true,
            reservation,
            ..State::default()
        };
        for (name, key) in [("iqn.x:a", 0x0123_4567_89ab_cdef), ("iqn.x:b", 0xb)] {
            let registrant = Registrant {
                key: Key(key),
                all_target_ports: false,
            };
            state.registrants.insert(nexus(name), registrant);
        }
        KeysInspection {
            problem: None,
            current: Some(0),
            replicas: vec![KeysReplicaStatus {
                uuid: Uuid::nil(),
                device: "disk1".into(),
                state: KeysCopy::Current,
                sequence: Some(9),
            }],
            versions: vec![KeysVersion {
                devices: vec!["disk1".into()],
                sequence: 9,
                token: 1,
                state: Ok(state),
            }],
        }
    }

    #[test]
    fn keys_as_json() {
        let held = inspection(Some(Reservation {
            kind: ReservationType::WriteExclusiveRegistrantsOnly,
            holder: Some(nexus("iqn.x:a")),
        }));
        let text = serde_json::to_string_pretty(&present("shared", held)).unwrap();
        insta::assert_snapshot!(text, @r#"
        {
          "volume": "shared",
          "reason": null,
          "generation": 3,
          "lost_until": null,
          "reservation": {
            "type": "write-exclusive-registrants-only",
            "key": "0x0123456789abcdef",
            "holder": "iqn.x:a"
          },
          "registrations": [
            {
              "key": "0x0123456789abcdef",
              "initiator": "iqn.x:a",
              "isid": "0x00023d000001",
              "target_port": 1,
              "aptpl": true,
              "holder": true,
              "recovered": false
            },
            {
              "key": "0x000000000000000b",
              "initiator": "iqn.x:b",
              "isid": "0x00023d000001",
              "target_port": 1,
              "aptpl": true,
              "holder": false,
              "recovered": false
            }
          ],
          "replicas": [
            {
              "device": "disk1",
              "state": "current",
              "sequence": 9
            }
          ],
          "quorum": {
            "current": 1,
            "of": 1,
            "needed": 1
          }
        }
        "#);
    }

    #[test]
    fn what_was_recovered_is_told_from_what_was_registered_since() {
        use reservation::Lost;
        let mut inspection = inspection(None);
        let mut with = |lost| {
            inspection.versions[0].state.as_mut().unwrap().lost = Some(lost);
            let keys = present("shared", inspection.clone());
            let recovered: Vec<bool> = keys.registrations.iter().map(|r| r.recovered).collect();
            (keys.lost_until, recovered)
        };
        let recovered = [nexus("iqn.x:b")].into();
        assert_eq!(
            with(Lost::UntilRegistered { recovered }),
            (Some(LostUntil::Registered), vec![false, true])
        );
        assert_eq!(
            with(Lost::UntilReplaced),
            (Some(LostUntil::Replaced), vec![true, true])
        );
        assert_eq!(
            serde_json::to_string(&LostUntil::Registered).unwrap(),
            r#""registered""#
        );
    }

    #[test]
    fn an_all_registrants_reservation_is_held_by_all_and_has_no_key() {
        let keys = present(
            "shared",
            inspection(Some(Reservation {
                kind: ReservationType::ExclusiveAccessAllRegistrants,
                holder: None,
            })),
        );
        let reservation = keys.reservation.unwrap();
        assert_eq!(reservation.key, "0x0000000000000000");
        assert_eq!(reservation.holder, None);
        assert!(keys.registrations.iter().all(|r| r.holder));
        let none = present("shared", inspection(None));
        assert_eq!(none.reservation, None);
        assert!(none.registrations.iter().all(|r| !r.holder));
    }
}
