//! The event log: the audit trail of who registered, reserved, preempted and was fenced, by whom, when, and from
//! which address.
//!
//! Events are lines of JSON in `STATE/events.jsonl`, oldest first. [`writer`] appends, rotates by size and makes
//! fencing events durable; [`reader`] reads over rotations and follows; [`text`] says an event in words.

pub mod domain;
mod domain_text;
mod durable;
pub mod reader;
pub mod text;
mod what;
pub mod writer;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use what::What;

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

/// Who asked the daemon for something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Operator {
    /// Over the control socket (SO_PEERCRED).
    Local {
        /// User.
        uid: u32,
        /// Process.
        pid: u32,
    },
    /// Over the network, with a certificate.
    Remote {
        /// The common name of its certificate.
        certificate: String,
        /// Where it called from.
        peer: String,
    },
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

/// Who made something happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Actor {
    /// An initiator, with a command.
    Nexus(Party),
    /// An operator, over the control socket.
    Operator(Operator),
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
                aborted: true,
                by: Some(Actor::Nexus(party("iqn.x:a", "0x000000000000000a"))),
            },
        };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"sequence":7,"time":"2026-11-23T14:30:00.25Z","event":"fenced","volume":"shared","#,
                r#""party":{"initiator":"iqn.x:b","isid":"0x00023d000001","target_port":1,"address":"127.0.0.1:40000","key":"0x000000000000000b"},"#,
                r#""aborted":true,"by":{"initiator":"iqn.x:a","isid":"0x00023d000001","target_port":1,"address":"127.0.0.1:40000","key":"0x000000000000000a"}}"#
            )
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn actors_are_told_apart() {
        let operator = Actor::Operator(Operator::Local { uid: 0, pid: 7 });
        let line = serde_json::to_string(&operator).unwrap();
        assert_eq!(line, r#"{"uid":0,"pid":7}"#);
        assert_eq!(serde_json::from_str::<Actor>(&line).unwrap(), operator);
    }
}
