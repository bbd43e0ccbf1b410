//! Events in words, one line each.

use std::fmt;

use super::{Event, Operator, Party, What};
use crate::size::HumanSize;

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} (pid {})", self.uid, self.pid)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (isid {}, port {}",
            self.initiator, self.isid, self.target_port
        )?;
        if let Some(address) = &self.address {
            write!(f, ", from {address}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", key {key}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}  {}", self.time, self.what)
    }
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
            Self::VolumeCreated {
                volume,
                lun,
                size_bytes,
                by,
            } => write!(
                f,
                "volume {volume} created as LUN {lun}, {}, by {by}",
                HumanSize(*size_bytes)
            ),
            Self::VolumeDeleted { volume, forced, by } => {
                let forced = if *forced { " although in use" } else { "" };
                write!(f, "volume {volume} deleted{forced} by {by}")
            }
            Self::VolumeGrown {
                volume,
                size_bytes,
                by,
            } => {
                write!(
                    f,
                    "volume {volume} grown to {} by {by}",
                    HumanSize(*size_bytes)
                )
            }
            Self::VolumeNotServed { volume, reason } => {
                write!(f, "volume {volume} is NOT SERVED: {reason}")
            }
            Self::GrantChanged {
                volume,
                initiator,
                access,
                by,
            } => {
                write!(f, "volume {volume}: {initiator} granted {access} by {by}")
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
            } => write!(
                f,
                "login of {} from {address} at {portal} refused: {reason}",
                initiator.as_deref().unwrap_or("an unnamed initiator")
            ),
            Self::Registered {
                volume,
                party,
                generation,
            } => {
                write!(
                    f,
                    "volume {volume}: {party} registered, generation {generation}"
                )
            }
            Self::Unregistered {
                volume,
                party,
                generation,
            } => {
                write!(
                    f,
                    "volume {volume}: {party} unregistered, generation {generation}"
                )
            }
            Self::Reserved {
                volume,
                party,
                kind,
            } => {
                write!(f, "volume {volume}: {party} reserved, {kind}")
            }
            Self::Released { volume, party } => write!(f, "volume {volume}: {party} released"),
            Self::Cleared {
                volume,
                party,
                generation,
                removed,
            } => write!(
                f,
                "volume {volume}: {party} cleared {} registrations, generation {generation}",
                removed.len()
            ),
            Self::Preempted {
                volume,
                party,
                abort,
                generation,
                kind,
            } => {
                let and_aborted = if *abort { " and aborted" } else { "" };
                let kind = kind.as_deref().unwrap_or("no reservation");
                write!(
                    f,
                    "volume {volume}: {party} preempted{and_aborted}, {kind}, generation {generation}"
                )
            }
            Self::Fenced { volume, party, by } => {
                write!(f, "volume {volume}: {party} FENCED by {by}")
            }
            Self::ReservationMoved {
                volume,
                party,
                to,
                generation,
            } => write!(
                f,
                "volume {volume}: {party} moved its reservation to {to}, generation {generation}"
            ),
            Self::ReservationReplaced {
                volume,
                party,
                generation,
            } => write!(
                f,
                "volume {volume}: {party} replaced a lost reservation, generation {generation}"
            ),
            Self::Reset {
                volume,
                party,
                kind,
            } => {
                let what = volume
                    .as_deref()
                    .map_or("all volumes".to_owned(), |v| format!("volume {v}"));
                write!(f, "{what}: {kind} reset by {party}")
            }
        }
    }
}
