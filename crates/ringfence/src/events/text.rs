//! Events in words, one line each.

use std::fmt;

use super::{Actor, Event, Operator, Party, What};
use crate::control::model::LostUntil;
use crate::size::HumanSize;

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid } => write!(f, "uid {uid} (pid {pid})"),
            Self::Remote { certificate, peer } => write!(f, "{certificate} ({peer})"),
        }
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

/// The same for what only an operator or the daemon does.
pub(super) fn by_operator(operator: &Option<Operator>) -> String {
    operator
        .as_ref()
        .map_or_else(String::new, |operator| format!(" by {operator}"))
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
            Self::Domain(event) => event.fmt(f),
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
            Self::VolumeServed { volume } => write!(f, "{volume}: served again"),
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
            Self::LostReservationConfirmed { volume, by: actor } => {
                write!(
                    f,
                    "{volume}: lost information is over, no recovered registration is left{}",
                    by(actor, None)
                )
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
            Self::PoolImported { pool, devices, by } => {
                write!(
                    f,
                    "pool {pool} imported from {} by {by}",
                    devices.join(", ")
                )
            }
            Self::PoolExported { pool, forced, by } => {
                let forced = if *forced { " although in use" } else { "" };
                write!(f, "pool {pool} exported{forced} by {by}")
            }
            Self::DeviceFailed { device, reason, by } => {
                write!(f, "device {device} FAILED{}: {reason}", by_operator(by))
            }
            Self::DeviceHung { device, reason } => {
                write!(f, "device {device} DOES NOT ANSWER: {reason}")
            }
            Self::DeviceBack { device, by } => {
                write!(f, "device {device} is used again{}", by_operator(by))
            }
            Self::PlexDetached {
                volume,
                plex,
                devices,
                reason,
            } => {
                let devices = devices.join(", ");
                write!(f, "{volume}: plex {plex} on {devices} DETACHED: {reason}")
            }
            Self::PlexAttached {
                volume,
                plex,
                devices,
            } => {
                let devices = devices.join(", ");
                write!(f, "{volume}: plex {plex} on {devices} attached again")
            }
            Self::MirrorRemoved {
                volume,
                devices,
                by,
            } => {
                let devices = devices.join(", ");
                write!(f, "{volume}: mirror on {devices} removed by {by}")
            }
            Self::ResyncStarted { volume, size_bytes } => {
                write!(f, "{volume}: resync of {} began", HumanSize(*size_bytes))
            }
            Self::ResyncDone { volume } => write!(f, "{volume}: resync done"),
            Self::JobStarted {
                volume,
                job,
                to,
                by,
            } => {
                let (to, by) = (to.join(", "), by_operator(by));
                write!(f, "{volume}: {job} to {to} began{by}")
            }
            Self::JobDone { volume, job } => write!(f, "{volume}: {job} done"),
            Self::JobStalled {
                volume,
                job,
                reason,
            } => write!(f, "{volume}: {job} STALLED: {reason}"),
            Self::JobPaused { volume, job, by } => {
                write!(f, "{volume}: {job} paused{}", by_operator(by))
            }
            Self::JobResumed { volume, job, by } => {
                write!(f, "{volume}: {job} goes on{}", by_operator(by))
            }
            Self::JobCancelled { volume, job, by } => {
                write!(f, "{volume}: {job} cancelled{}", by_operator(by))
            }
            Self::VolumeVerified {
                volume,
                mismatched_bytes,
                repaired_bytes,
                by,
            } => match (mismatched_bytes, HumanSize(*repaired_bytes)) {
                (0, _) => write!(f, "{volume}: verified by {by}, no difference"),
                (differ, repaired) => {
                    let differ = HumanSize(*differ);
                    write!(
                        f,
                        "{volume}: verified by {by}, {differ} DIFFER, {repaired} repaired"
                    )
                }
            },
            Self::VolumeRenamed { volume, name, by } => {
                write!(f, "{volume}: renamed to {name} by {by}")
            }
            Self::KeysReplicaLost {
                volume,
                device,
                reason,
            } => write!(f, "{volume}: keys on {device} LOST: {reason}"),
            Self::KeysReplicaRebuilt { volume, device } => {
                write!(f, "{volume}: keys are on {device} now")
            }
            Self::KeysReplicaRepaired { volume, device } => {
                write!(f, "{volume}: keys on {device} are current again")
            }
            Self::ConfigReplicaRepaired { device } => {
                write!(f, "configuration on {device} is current again")
            }
            Self::QuorumLost { volume, reason } => match volume {
                Some(volume) => write!(f, "{volume}: QUORUM of the keys LOST: {reason}"),
                None => write!(f, "QUORUM of the pool's configuration LOST: {reason}"),
            },
            Self::QuorumBack { volume } => match volume {
                Some(volume) => write!(f, "{volume}: quorum of the keys is back"),
                None => write!(f, "quorum of the pool's configuration is back"),
            },
            Self::LastCopyFails {
                volume,
                plex,
                reason,
            } => write!(f, "{volume}: plex {plex}, the LAST COPY, FAILS: {reason}"),
            Self::DeviceReplaced { device, with } => {
                write!(f, "device {device} replaced by {with}")
            }
            Self::WitnessAdded { device, path } => {
                write!(f, "witness {device} ({path}) added beside two devices")
            }
            Self::WitnessRemoved { device } => write!(f, "witness {device} removed"),
            Self::KeysRecovered {
                volume,
                device,
                copy_sequence,
                until,
                by,
            } => write!(
                f,
                "{volume}: keys RECOVERED from {device} (sequence {copy_sequence}){} by {by}",
                match until {
                    Some(LostUntil::Registered) => ", lost until registered anew,",
                    Some(LostUntil::Replaced) => ", lost until replaced,",
                    None => "",
                }
            ),
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
                by: Some(Actor::Operator(Operator::Local { uid: 0, pid: 9 })),
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

    #[test]
    fn storage_in_words() {
        let operator = Operator::Local { uid: 0, pid: 9 };
        let devices = || vec!["d1".to_owned(), "d2".to_owned()];
        let lines = [
            What::DeviceFailed {
                device: "d1".into(),
                reason: "write failed: Input/output error".into(),
                by: None,
            },
            What::PlexDetached {
                volume: "v".into(),
                plex: 1,
                devices: devices(),
                reason: "device d1 failed".into(),
            },
            What::JobStarted {
                volume: "v".into(),
                job: "migrate".into(),
                to: devices(),
                by: Some(operator.clone()),
            },
            What::JobResumed {
                volume: "v".into(),
                job: "migrate".into(),
                by: None,
            },
            What::VolumeVerified {
                volume: "v".into(),
                mismatched_bytes: 8192,
                repaired_bytes: 4096,
                by: operator,
            },
            What::QuorumLost {
                volume: None,
                reason: "1 of 3 devices is there".into(),
            },
        ]
        .map(|what| what.to_string());
        insta::assert_snapshot!(lines.join("\n"), @r"
        device d1 FAILED: write failed: Input/output error
        v: plex 1 on d1, d2 DETACHED: device d1 failed
        v: migrate to d1, d2 began by uid 0 (pid 9)
        v: migrate goes on
        v: verified by uid 0 (pid 9), 8 KiB DIFFER, 4 KiB repaired
        QUORUM of the pool's configuration LOST: 1 of 3 devices is there
        ");
    }
}
