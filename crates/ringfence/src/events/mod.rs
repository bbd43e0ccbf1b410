//! The event log: the audit trail of who registered, reserved, preempted and was fenced, by whom, when, and from
//! which address.
//!
//! Events are lines of JSON in `STATE/events.jsonl`, oldest first. [`writer`] appends, rotates by size and makes
//! fencing events durable; [`reader`] reads over rotations and follows; [`text`] says an event in words.

pub mod reader;
pub mod text;
pub mod writer;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The name of the log in the state directory.
pub const LOG_NAME: &str = "events.jsonl";

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1 over the life of the state directory, without holes unless events were lost.
    pub sequence: u64,
    /// When.
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// Who used the control socket (SO_PEERCRED).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// User.
    pub uid: u32,
    /// Process.
    pub pid: u32,
}

/// One end of what happened at a logical unit: a nexus, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// iSCSI name.
    pub initiator: String,
    /// `0x` and 12 digits.
    pub isid: String,
    /// Relative target port identifier.
    pub target_port: u16,
    /// The address that the nexus is, or was last, logged in from; null when it is not logged in.
    pub address: Option<String>,
    /// The key that it is, or was, registered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// The daemon is ready.
    DaemonStarted {
        /// Its build.
        version: String,
        /// Its process.
        pid: u32,
        /// The bound portals.
        portals: Vec<String>,
    },
    /// The daemon stops.
    DaemonStopped {
        /// Why.
        reason: String,
    },
    /// A device joined the pool.
    DeviceAdded {
        /// Its name.
        device: String,
        /// Where it is.
        path: String,
        /// Who asked.
        by: Operator,
    },
    /// A device left the pool.
    DeviceRemoved {
        /// Its name.
        device: String,
        /// Who asked.
        by: Operator,
    },
    /// A volume was made.
    VolumeCreated {
        /// Its name.
        volume: String,
        /// Its LUN.
        lun: u16,
        /// Capacity.
        size_bytes: u64,
        /// Who asked.
        by: Operator,
    },
    /// A volume was deleted.
    VolumeDeleted {
        /// Its name.
        volume: String,
        /// Over the objection that it was in use.
        forced: bool,
        /// Who asked.
        by: Operator,
    },
    /// A volume is larger than before.
    VolumeGrown {
        /// Its name.
        volume: String,
        /// Capacity now.
        size_bytes: u64,
        /// Who asked.
        by: Operator,
    },
    /// A volume is not served.
    VolumeNotServed {
        /// Its name.
        volume: String,
        /// Why.
        reason: String,
    },
    /// What an initiator may do has changed; for less, its I/O has drained.
    GrantChanged {
        /// The volume.
        volume: String,
        /// iSCSI name, or `*`.
        initiator: String,
        /// `rw`, `ro` or `none`.
        access: String,
        /// Who asked.
        by: Operator,
    },
    /// An initiator logged in.
    SessionStarted {
        /// Identity of the session.
        session: u64,
        /// Who.
        party: Party,
        /// The portal's address.
        portal: String,
    },
    /// A session is over.
    SessionEnded {
        /// Identity of the session.
        session: u64,
        /// Who.
        party: Party,
        /// Why.
        reason: String,
    },
    /// An operator ended a session.
    SessionDropped {
        /// Identity of the session.
        session: u64,
        /// Whose it was.
        party: Party,
        /// Who asked.
        by: Operator,
    },
    /// A login was refused.
    LoginRefused {
        /// The name that was given, if it came so far.
        initiator: Option<String>,
        /// From where.
        address: String,
        /// The portal's address.
        portal: String,
        /// Why.
        reason: String,
    },
    /// A nexus registered, or changed its key.
    Registered {
        /// The volume.
        volume: String,
        /// Who, with the new key.
        party: Party,
        /// PRGENERATION after it.
        generation: u32,
    },
    /// A nexus gave up its registration.
    Unregistered {
        /// The volume.
        volume: String,
        /// Who, with the old key.
        party: Party,
        /// PRGENERATION after it.
        generation: u32,
    },
    /// A reservation was established.
    Reserved {
        /// The volume.
        volume: String,
        /// By whom.
        party: Party,
        /// Type as in `keys --json`.
        #[serde(rename = "type")]
        kind: String,
    },
    /// A reservation is gone, with no other in its place.
    Released {
        /// The volume.
        volume: String,
        /// By whom.
        party: Party,
    },
    /// Everything was cleared: all registrations and the reservation.
    Cleared {
        /// The volume.
        volume: String,
        /// By whom.
        party: Party,
        /// PRGENERATION after it.
        generation: u32,
        /// Who lost the registration.
        removed: Vec<Party>,
    },
    /// A PREEMPT or PREEMPT AND ABORT was carried out. One [`What::Fenced`] for each loser follows.
    Preempted {
        /// The volume.
        volume: String,
        /// By whom.
        party: Party,
        /// PREEMPT AND ABORT.
        abort: bool,
        /// PRGENERATION after it.
        generation: u32,
        /// The reservation type after it, if there is one.
        #[serde(rename = "type")]
        kind: Option<String>,
    },
    /// A nexus lost its registration to another, and its I/O has drained.
    Fenced {
        /// The volume.
        volume: String,
        /// Who lost it.
        party: Party,
        /// To whom.
        by: Party,
    },
    /// A registration, and the reservation with it, moved to another nexus (REGISTER AND MOVE).
    ReservationMoved {
        /// The volume.
        volume: String,
        /// From whom.
        party: Party,
        /// To whom.
        to: Party,
        /// PRGENERATION after it.
        generation: u32,
    },
    /// A lost reservation was replaced (REPLACE LOST RESERVATION).
    ReservationReplaced {
        /// The volume.
        volume: String,
        /// By whom.
        party: Party,
        /// PRGENERATION after it.
        generation: u32,
    },
    /// A logical unit or the target was reset by task management.
    Reset {
        /// The volume; null for all.
        volume: Option<String>,
        /// By whom.
        party: Party,
        /// `logical-unit`, `target-warm` or `target-cold`.
        kind: String,
    },
}

impl What {
    /// Whether the event belongs to the fencing audit and is made durable at once.
    pub fn is_fencing(&self) -> bool {
        match self {
            Self::Registered { .. }
            | Self::Unregistered { .. }
            | Self::Reserved { .. }
            | Self::Released { .. }
            | Self::Cleared { .. }
            | Self::Preempted { .. }
            | Self::Fenced { .. }
            | Self::ReservationMoved { .. }
            | Self::ReservationReplaced { .. }
            | Self::GrantChanged { .. }
            | Self::SessionDropped { .. }
            | Self::VolumeDeleted { .. }
            | Self::DaemonStopped { .. } => true,
            Self::DaemonStarted { .. }
            | Self::DeviceAdded { .. }
            | Self::DeviceRemoved { .. }
            | Self::VolumeCreated { .. }
            | Self::VolumeGrown { .. }
            | Self::VolumeNotServed { .. }
            | Self::SessionStarted { .. }
            | Self::SessionEnded { .. }
            | Self::LoginRefused { .. }
            | Self::Reset { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_an_event_is_as_documented() {
        let party = |name: &str, key: &str| Party {
            initiator: name.to_owned(),
            isid: "0x00023d000001".to_owned(),
            target_port: 1,
            address: Some("127.0.0.1:40000".to_owned()),
            key: Some(key.to_owned()),
        };
        let event = Event {
            sequence: 7,
            time: "2026-11-23T14:30:00.25Z".parse().unwrap(),
            what: What::Fenced {
                volume: "shared".to_owned(),
                party: party("iqn.x:b", "0x000000000000000b"),
                by: party("iqn.x:a", "0x000000000000000a"),
            },
        };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"sequence":7,"time":"2026-11-23T14:30:00.25Z","event":"fenced","volume":"shared","#,
                r#""party":{"initiator":"iqn.x:b","isid":"0x00023d000001","target_port":1,"address":"127.0.0.1:40000","key":"0x000000000000000b"},"#,
                r#""by":{"initiator":"iqn.x:a","isid":"0x00023d000001","target_port":1,"address":"127.0.0.1:40000","key":"0x000000000000000a"}}"#
            )
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }
}
