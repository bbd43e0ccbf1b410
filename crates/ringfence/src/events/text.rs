//! Events in words, one line each.

use std::fmt;

use super::{Actor, Event, Operator, Party, What};
use crate::size::HumanSize;

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} (pid {})", self.uid, self.pid)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.initiator)?;
        if let Some(key) = &self.key {
            write!(f, "key {key}, ")?;
        }
        write!(f, "isid {}, port {}", self.isid, self.target_port)?;
        if let Some(address) = &self.address {
            write!(f, ", from {address}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nexus(party) => party.fmt(f),
            Self::Operator(operator) => operator.fmt(f),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}  {}", self.time, self.what)
    }
}

/// ` by X`, or nothing when it was `party` itself or the daemon.
fn by(actor: &Option<Actor>, party: Option<&Party>) -> String {
    match actor {
        None => String::new(),
        Some(Actor::Nexus(nexus)) if party.is_some_and(|party| same(party, nexus)) => String::new(),
        Some(actor) => format!(" by {actor}"),
    }
}

fn same(a: &Party, b: &Party) -> bool {
    (&a.initiator, &a.isid, a.target_port) == (&b.initiator, &b.isid, b.target_port)
}

fn everyone(holder: &Option<Party>) -> String {
    holder
        .as_ref()
        .map_or_else(|| "all registrants".to_owned(), Party::to_string)
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DaemonStarted {
                version,
                pid,
                portals,
            } => {
                write!(
                    f,
                    "daemon {version} started (pid {pid}) on {}",
                    portals.join(", ")
                )
            }
            Self::DaemonStopped { reason } => write!(f, "daemon stopped: {reason}"),
            Self::DeviceAdded { device, path, by } => {
                write!(f, "device {device} ({path}) added by {by}")
            }
            Self::DeviceRemoved { device, by } => write!(f, "device {device} removed by {by}"),
            Self::DeviceNotOpened { path, reason } => {
                write!(f, "device {path} was NOT OPENED: {reason}")
            }
            Self::VolumeCreated {
                volume,
                lun,
                size_bytes,
                by,
            } => {
                let size = HumanSize(*size_bytes);
                write!(f, "{volume}: created as LUN {lun}, {size}, by {by}")
            }
            Self::VolumeDeleted { volume, forced, by } => {
                let forced = if *forced { " although in use" } else { "" };
                write!(f, "{volume}: deleted{forced} by {by}")
            }
            Self::VolumeGrown {
                volume,
                size_bytes,
                by,
            } => {
                write!(f, "{volume}: grown to {} by {by}", HumanSize(*size_bytes))
            }
            Self::VolumeNotServed { volume, reason } => {
                write!(f, "{volume}: NOT SERVED: {reason}")
            }
            Self::GrantChanged {
                volume,
                initiator,
                access,
                by,
            } => {
                write!(f, "{volume}: {initiator} granted {access} by {by}")
            }
            Self::SessionStarted {
                session,
                party,
                portal,
            } => {
                write!(f, "session {session}: {party} logged in at {portal}")
            }
            Self::SessionEnded {
                session,
                party,
                reason,
            } => {
                write!(f, "session {session}: {party} ended: {reason}")
            }
            Self::SessionDropped { session, party, by } => {
                write!(f, "session {session}: {party} dropped by {by}")
            }
            Self::LoginRefused {
                initiator,
                address,
                portal,
                reason,
                unrecorded,
            } => {
                let name = initiator.as_deref().unwrap_or("an unnamed initiator");
                write!(
                    f,
                    "login of {name} from {address} at {portal} refused: {reason}"
                )?;
                match unrecorded {
                    0 => Ok(()),
                    more => write!(f, " (and {more} before it, not recorded)"),
                }
            }
            Self::Registered {
                volume,
                party,
                replaced,
                by: actor,
            } => {
                let replaced = replaced
                    .as_ref()
                    .map_or(String::new(), |old| format!(" in place of {old}"));
                write!(
                    f,
                    "{volume}: {party} registered{replaced}{}",
                    by(actor, Some(party))
                )
            }
            Self::Unregistered {
                volume,
                party,
                cause,
                by: actor,
            } => {
                write!(
                    f,
                    "{volume}: {party} unregistered ({cause}){}",
                    by(actor, Some(party))
                )
            }
            Self::Preempted {
                volume,
                party,
                by: actor,
            } => {
                write!(f, "{volume}: {party} PREEMPTED{}", by(actor, None))
            }
            Self::Cleared {
                volume,
                party,
                by: actor,
            } => {
                write!(f, "{volume}: {party} cleared{}", by(actor, None))
            }
            Self::Reserved {
                volume,
                kind,
                holder,
                by: actor,
            } => {
                let who = everyone(holder);
                write!(
                    f,
                    "{volume}: {kind} reserved for {who}{}",
                    by(actor, holder.as_ref())
                )
            }
            Self::Released {
                volume,
                kind,
                holder,
                cause,
                by: actor,
            } => {
                let who = everyone(holder);
                let by = by(actor, holder.as_ref());
                write!(f, "{volume}: {kind} of {who} released ({cause}){by}")
            }
            Self::ReservationMoved {
                volume,
                kind,
                party,
                to,
                by: actor,
            } => {
                write!(
                    f,
                    "{volume}: {kind} moved from {party} to {to}{}",
                    by(actor, Some(party))
                )
            }
            Self::PersistThroughPowerLoss {
                volume,
                aptpl,
                by: actor,
            } => {
                write!(
                    f,
                    "{volume}: APTPL set to {}{}",
                    u8::from(*aptpl),
                    by(actor, None)
                )
            }
            Self::ReservationInformationLost { volume, by: actor } => {
                write!(
                    f,
                    "{volume}: reservation information LOST{}",
                    by(actor, None)
                )
            }
            Self::LostReservationReplaced { volume, by: actor } => {
                write!(f, "{volume}: lost reservation replaced{}", by(actor, None))
            }
            Self::Scsi2Reserved { volume, party } => {
                write!(f, "{volume}: {party} reserved (SCSI-2)")
            }
            Self::Scsi2Released {
                volume,
                party,
                by: actor,
            } => {
                write!(
                    f,
                    "{volume}: {party} released (SCSI-2){}",
                    by(actor, Some(party))
                )
            }
            Self::Fenced {
                volume,
                party,
                aborted,
                by: actor,
            } => {
                let aborted = if *aborted {
                    ", its commands aborted"
                } else {
                    ""
                };
                write!(f, "{volume}: {party} FENCED{}{aborted}", by(actor, None))
            }
            Self::Reset { volume, by: actor } => {
                let what = volume.as_deref().unwrap_or("all volumes");
                write!(f, "{what}: reset{}", by(actor, None))
            }
            Self::SanitizeStarted { volume, by: actor } => {
                write!(f, "{volume}: SANITIZE began{}", by(actor, None))
            }
            Self::SanitizeEnded { volume, complete } => {
                let end = if *complete { "done" } else { "NOT COMPLETE" };
                write!(f, "{volume}: SANITIZE {end}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str, key: Option<&str>) -> Party {
        Party {
            initiator: format!("iqn.x:{name}"),
            isid: "0x00023d000001".to_owned(),
            target_port: 1,
            address: Some("10.0.0.7:40000".to_owned()),
            key: key.map(str::to_owned),
        }
    }

    #[test]
    fn fencing_in_words() {
        let a = party("a", None);
        let by_a = Some(Actor::Nexus(a.clone()));
        let lines = [
            What::Registered {
                volume: "v".into(),
                party: party("a", Some("0x000000000000000a")),
                replaced: None,
                by: by_a.clone(),
            },
            What::Reserved {
                volume: "v".into(),
                kind: "write-exclusive".into(),
                holder: Some(a),
                by: by_a.clone(),
            },
            What::Preempted {
                volume: "v".into(),
                party: party("b", Some("0x000000000000000b")),
                by: by_a.clone(),
            },
            What::Fenced {
                volume: "v".into(),
                party: party("b", None),
                aborted: true,
                by: Some(Actor::Operator(Operator { uid: 0, pid: 9 })),
            },
        ]
        .map(|what| what.to_string());
        insta::assert_snapshot!(lines.join("\n"), @r"
        v: iqn.x:a (key 0x000000000000000a, isid 0x00023d000001, port 1, from 10.0.0.7:40000) registered
        v: write-exclusive reserved for iqn.x:a (isid 0x00023d000001, port 1, from 10.0.0.7:40000)
        v: iqn.x:b (key 0x000000000000000b, isid 0x00023d000001, port 1, from 10.0.0.7:40000) PREEMPTED by iqn.x:a (isid 0x00023d000001, port 1, from 10.0.0.7:40000)
        v: iqn.x:b (isid 0x00023d000001, port 1, from 10.0.0.7:40000) FENCED by uid 0 (pid 9), its commands aborted
        ");
    }
}
