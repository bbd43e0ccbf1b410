//! From what the target and the sessions tell to the words of the event log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use reservation::{Cause, Fact, Key, Nexus, ReservationType};
use target::{EventKind, EventSink};

use super::refusals::Refusals;
use crate::events::writer::EventLog;
use crate::events::{Actor, Operator, Party, What};
use crate::iscsi::{SessionInfo, SessionObserver};

/// The name of a reservation type in JSON.
pub fn type_name(kind: ReservationType) -> &'static str {
    match kind {
        ReservationType::WriteExclusive => "write-exclusive",
        ReservationType::ExclusiveAccess => "exclusive-access",
        ReservationType::WriteExclusiveRegistrantsOnly => "write-exclusive-registrants-only",
        ReservationType::ExclusiveAccessRegistrantsOnly => "exclusive-access-registrants-only",
        ReservationType::WriteExclusiveAllRegistrants => "write-exclusive-all-registrants",
        ReservationType::ExclusiveAccessAllRegistrants => "exclusive-access-all-registrants",
    }
}

/// A key in JSON: `0x` and 16 digits.
pub fn key_text(key: Key) -> String {
    format!("0x{:016x}", key.0)
}

/// An ISID in JSON: `0x` and 12 digits.
pub fn isid_text(isid: [u8; 6]) -> String {
    let mut text = "0x".to_owned();
    for byte in isid {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Own => "own",
        Cause::Clear => "clear",
        Cause::Preempt => "preempt",
        Cause::Unregistered => "unregistered",
        Cause::ReplaceLost => "replace-lost",
        Cause::PowerOn => "power-on",
        Cause::Fence => "fence",
    }
}

/// Writes the audit trail. One for the daemon.
pub struct Audit {
    log: EventLog,
    /// Where each live nexus is logged in from.
    addresses: Mutex<HashMap<Nexus, String>>,
    /// The operators whose work on a volume or device is under way: what target and keeper then do without a nexus is
    /// theirs.
    acting: Mutex<HashMap<String, Operator>>,
    refusals: Mutex<Refusals>,
}

/// An operator's work on a volume or device; it ends when this is dropped.
pub struct Acting<'a> {
    audit: &'a Audit,
    volume: String,
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        lock(&self.audit.acting).remove(&self.volume);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Insertions and removals leave the maps whole, whatever happens around them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Audit {
    /// Writes to `log`.
    pub fn new(log: EventLog) -> Self {
        Self {
            log,
            addresses: Mutex::default(),
            acting: Mutex::default(),
            refusals: Mutex::default(),
        }
    }

    /// The log below.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// Says that `operator` works on `volume` until the guard is dropped. The caller serializes work on a volume.
    pub fn acting(&self, volume: &str, operator: &Operator) -> Acting<'_> {
        lock(&self.acting).insert(volume.to_owned(), operator.clone());
        Acting {
            audit: self,
            volume: volume.to_owned(),
        }
    }

    /// Who works on the volume `name`, if anybody does.
    pub fn operator_of(&self, name: &str) -> Option<Operator> {
        lock(&self.acting).get(name).cloned()
    }

    /// What stands for a device in [`Audit::acting`]; no volume has such a name.
    pub fn device(name: &str) -> String {
        format!("device {name}")
    }

    fn party(&self, nexus: &Nexus, key: Option<Key>) -> Party {
        Party {
            initiator: nexus.initiator.name.to_string(),
            isid: isid_text(nexus.initiator.isid),
            target_port: nexus.target_port,
            address: lock(&self.addresses).get(nexus).cloned(),
            key: key.map(key_text),
        }
    }

    fn fact(&self, volume: String, fact: Fact, by: Option<Actor>) -> What {
        match fact {
            Fact::Registered {
                nexus,
                key,
                replaced,
            } => What::Registered {
                volume,
                party: self.party(&nexus, Some(key)),
                replaced: replaced.map(key_text),
                by,
            },
            Fact::Unregistered { nexus, key, cause } => {
                let party = self.party(&nexus, Some(key));
                match cause {
                    Cause::Preempt => What::Preempted { volume, party, by },
                    Cause::Clear => What::Cleared { volume, party, by },
                    cause => What::Unregistered {
                        volume,
                        party,
                        cause: cause_name(cause).to_owned(),
                        by,
                    },
                }
            }
            Fact::Reserved { kind, holder } => What::Reserved {
                volume,
                kind: type_name(kind).to_owned(),
                holder: holder.map(|nexus| self.party(&nexus, None)),
                by,
            },
            Fact::Released {
                kind,
                holder,
                cause,
            } => What::Released {
                volume,
                kind: type_name(kind).to_owned(),
                holder: holder.map(|nexus| self.party(&nexus, None)),
                cause: cause_name(cause).to_owned(),
                by,
            },
            Fact::Moved { kind, from, to } => What::ReservationMoved {
                volume,
                kind: type_name(kind).to_owned(),
                party: self.party(&from, None),
                to: self.party(&to, None),
                by,
            },
            Fact::PersistThroughPowerLoss(aptpl) => {
                What::PersistThroughPowerLoss { volume, aptpl, by }
            }
            Fact::InformationLost { .. } => What::ReservationInformationLost { volume, by },
            Fact::LostReplaced => What::LostReservationReplaced { volume, by },
            Fact::LostConfirmed => What::LostReservationConfirmed { volume, by },
            Fact::Scsi2Reserved(nexus) => What::Scsi2Reserved {
                volume,
                party: self.party(&nexus, None),
            },
            Fact::Scsi2Released(nexus) => What::Scsi2Released {
                volume,
                party: self.party(&nexus, None),
                by,
            },
        }
    }
}

impl EventSink for Audit {
    fn record(&self, event: target::Event) {
        let by = match &event.nexus {
            Some(nexus) => {
                let mut party = self.party(nexus, None);
                party.address = event.peer.or(party.address);
                Some(Actor::Nexus(party))
            }
            None => event
                .volume
                .as_ref()
                .and_then(|volume| self.operator_of(volume))
                .map(Actor::Operator),
        };
        let volume = event.volume.clone().unwrap_or_default();
        self.log.record(match event.kind {
            EventKind::Reservation(fact) => self.fact(volume, fact, by),
            EventKind::Fenced { nexus, aborted } => What::Fenced {
                volume,
                party: self.party(&nexus, None),
                aborted,
                by,
            },
            EventKind::LogicalUnitReset | EventKind::TargetReset => What::Reset {
                volume: event.volume,
                by,
            },
            EventKind::FailedClosed { reason } => What::VolumeNotServed { volume, reason },
            EventKind::SanitizeStarted => What::SanitizeStarted { volume, by },
            EventKind::SanitizeEnded { complete } => What::SanitizeEnded { volume, complete },
            // The daemon records these itself, with what only it knows: the operator and the portal.
            EventKind::GrantsChanged | EventKind::Attached | EventKind::Detached { .. } => return,
        });
    }
}

/// The nexus of a session; `None` for a discovery session, which has none.
fn nexus_of(session: &SessionInfo) -> Option<Nexus> {
    (!session.discovery).then(|| Nexus {
        initiator: reservation::InitiatorPort {
            name: session.initiator.as_str().into(),
            isid: session.isid,
        },
        target_port: session.target_port,
    })
}

/// A session as a party of an event.
pub fn party_of(session: &SessionInfo) -> Party {
    Party {
        initiator: session.initiator.clone(),
        isid: isid_text(session.isid),
        target_port: session.target_port,
        address: Some(session.peer.to_string()),
        key: None,
    }
}

impl SessionObserver for Audit {
    fn session_started(&self, session: &SessionInfo) {
        if let Some(nexus) = nexus_of(session) {
            lock(&self.addresses).insert(nexus, session.peer.to_string());
        }
        self.log.record(What::SessionStarted {
            session: session.id,
            party: party_of(session),
            portal: session.portal.to_string(),
        });
    }

    fn session_ended(&self, session: &SessionInfo, reason: &str) {
        if let Some(nexus) = nexus_of(session) {
            let mut addresses = lock(&self.addresses);
            // After a reinstatement the nexus belongs to the new session.
            if addresses
                .get(&nexus)
                .is_some_and(|a| *a == session.peer.to_string())
            {
                addresses.remove(&nexus);
            }
        }
        self.log.record(What::SessionEnded {
            session: session.id,
            party: party_of(session),
            reason: reason.to_owned(),
        });
    }

    fn login_refused(
        &self,
        initiator: Option<&str>,
        peer: SocketAddr,
        portal: SocketAddr,
        reason: &str,
    ) {
        let Some(unrecorded) = lock(&self.refusals).count(Instant::now()) else {
            return;
        };
        self.log.record(What::LoginRefused {
            initiator: initiator.map(str::to_owned),
            address: peer.to_string(),
            portal: portal.to_string(),
            reason: reason.to_owned(),
            unrecorded,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Event;
    use crate::events::reader::Reader;
    use crate::events::writer::Limits;
    use reservation::InitiatorPort;

    fn nexus(name: &str) -> Nexus {
        Nexus {
            initiator: InitiatorPort {
                name: format!("iqn.x:{name}").into(),
                isid: [0, 2, 0x3d, 0, 0, 1],
            },
            target_port: 1,
        }
    }

    fn session(name: &str, id: u64, port: u16) -> SessionInfo {
        SessionInfo {
            id,
            initiator: format!("iqn.x:{name}"),
            isid: nexus(name).initiator.isid,
            tsih: 1,
            discovery: false,
            target_port: 1,
            portal: ([10, 0, 0, 1], 3260).into(),
            peer: ([10, 0, 0, 7], port).into(),
            auth: "none",
            since: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn event(by: Option<&str>, kind: EventKind) -> target::Event {
        target::Event {
            volume: Some("v".to_owned()),
            nexus: by.map(nexus),
            peer: by.map(|_| "10.0.0.9:1".to_owned()),
            kind,
        }
    }

    /// Runs `act` on an audit trail and gives what came of it, without the sessions.
    fn trail(act: impl FnOnce(&Audit)) -> Vec<What> {
        let dir = tempfile::tempdir().unwrap();
        let (log, thread) = EventLog::start(dir.path(), Limits::default()).unwrap();
        act(&Audit::new(log));
        thread.stop();
        let mut trail = Vec::new();
        Reader::new(dir.path(), 8, None)
            .poll(|Event { what, .. }| {
                match what {
                    What::SessionStarted { .. } | What::SessionEnded { .. } => {}
                    other => trail.push(other),
                }
                Ok::<(), std::io::Error>(())
            })
            .unwrap();
        trail
    }

    #[test]
    fn a_preempt_names_both_ends_and_where_they_are() {
        let trail = trail(|audit| {
            audit.session_started(&session("b", 1, 4000));
            let fact = Fact::Unregistered {
                nexus: nexus("b"),
                key: Key(0xb),
                cause: Cause::Preempt,
            };
            audit.record(event(Some("a"), EventKind::Reservation(fact)));
            let fenced = EventKind::Fenced {
                nexus: nexus("b"),
                aborted: true,
            };
            audit.record(event(Some("a"), fenced));
        });
        let lines: Vec<_> = trail.iter().map(ToString::to_string).collect();
        let a = "iqn.x:a (isid 0x00023d000001, port 1, from 10.0.0.9:1)";
        assert_eq!(
            lines,
            [
                format!(
                    "v: iqn.x:b (key 0x000000000000000b, isid 0x00023d000001, port 1, from 10.0.0.7:4000) PREEMPTED by {a}"
                ),
                format!(
                    "v: iqn.x:b (isid 0x00023d000001, port 1, from 10.0.0.7:4000) FENCED by {a}, its commands aborted"
                ),
            ]
        );
    }

    #[test]
    fn what_an_operator_causes_is_his() {
        let operator = Operator::Local { uid: 7, pid: 8 };
        let fenced = || EventKind::Fenced {
            nexus: nexus("b"),
            aborted: false,
        };
        let trail = trail(|audit| {
            let acting = audit.acting("v", &operator);
            audit.record(event(None, fenced()));
            drop(acting);
            audit.record(event(None, fenced()));
        });
        let by: Vec<_> = trail
            .into_iter()
            .map(|what| match what {
                What::Fenced { by, .. } => by,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(by, [Some(Actor::Operator(operator)), None]);
    }

    #[test]
    fn a_nexus_is_where_its_newest_session_is() {
        let address = |audit: &Audit| audit.party(&nexus("b"), None).address;
        let dir = tempfile::tempdir().unwrap();
        let (log, thread) = EventLog::start(dir.path(), Limits::default()).unwrap();
        let audit = Audit::new(log);
        assert_eq!(address(&audit), None);
        audit.session_started(&session("b", 1, 4000));
        audit.session_started(&session("b", 2, 4001));
        audit.session_ended(&session("b", 1, 4000), "reinstated");
        assert_eq!(address(&audit).as_deref(), Some("10.0.0.7:4001"));
        audit.session_ended(&session("b", 2, 4001), "logout");
        assert_eq!(address(&audit), None);
        thread.stop();
    }
}
