//! Requests and what comes back for them.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::model::{
    AccessRight, Device, Grant, Grants, Keys, Progress, Session, Status, Volume, VolumeMap,
};
use crate::events::Event;
use crate::failure::Failure;

/// The version of this protocol. It changes when a client of the one before would misunderstand an answer.
pub const PROTOCOL_VERSION: u32 = 1;

/// One request line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`PROTOCOL_VERSION`] of the client.
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

impl Envelope {
    /// Wraps `request` in the version of this build.
    pub fn new(request: Request) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            request,
        }
    }
}

/// How far a volume is to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// To this size in bytes.
    To(u64),
    /// By this many bytes.
    By(u64),
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is running. Answer: [`Answer::Status`].
    Status,
    /// Labels a device and takes it into the pool. Answer: [`Answer::Device`].
    DeviceAdd {
        /// Its name in the pool.
        name: String,
        /// The file or block device, as an absolute path.
        path: PathBuf,
        /// Create a sparse file of this size first; `path` must not exist.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
        /// Go round the page cache (O_DIRECT).
        #[serde(default)]
        direct: bool,
    },
    /// All devices. Answer: [`Answer::Devices`].
    DeviceList,
    /// One device. Answer: [`Answer::Device`].
    DeviceShow {
        /// Its name.
        name: String,
    },
    /// Takes an unused device out of the pool. Answer: [`Answer::Done`].
    DeviceRemove {
        /// Its name.
        name: String,
    },
    /// Creates a volume. Answer: [`Answer::Volume`].
    VolumeCreate {
        /// Its name.
        name: String,
        /// Capacity in bytes, a multiple of the block size.
        size_bytes: u64,
        /// The devices of its set, in this order; empty lets the pool choose.
        #[serde(default)]
        on: Vec<String>,
        /// The devices of its private region; empty lets the pool choose.
        #[serde(default)]
        keys_on: Vec<String>,
        /// Logical block size in bytes, 512 or 4096.
        block_size_bytes: u32,
        /// Keep reservations over a reboot of the machine even when registered with APTPL=0.
        #[serde(default)]
        persist_always: bool,
    },
    /// All volumes. Answer: [`Answer::Volumes`].
    VolumeList,
    /// One volume. Answer: [`Answer::Volume`].
    VolumeShow {
        /// Its name.
        name: String,
    },
    /// Deletes a volume. Answer: [`Answer::Done`].
    VolumeDelete {
        /// Its name.
        name: String,
        /// Also when initiators are logged in or registered.
        #[serde(default)]
        force: bool,
    },
    /// Makes a volume larger. Answer: [`Answer::Volume`].
    VolumeGrow {
        /// Its name.
        name: String,
        /// How far.
        growth: Growth,
    },
    /// Where a volume lies. Answer: [`Answer::Map`].
    VolumeMap {
        /// Its name.
        name: String,
        /// Only the extent of this byte of the public region.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset_bytes: Option<u64>,
    },
    /// Sets what an initiator may do. Answer: [`Answer::Grant`], when I/O that is no longer allowed has drained.
    Grant {
        /// The volume.
        volume: String,
        /// iSCSI name, or `*` for everyone not named.
        initiator: String,
        /// What it may do.
        access: AccessRight,
    },
    /// The grants of a volume. Answer: [`Answer::Grants`].
    Grants {
        /// The volume.
        volume: String,
    },
    /// The private region as read back from its replicas. Answer: [`Answer::Keys`].
    Keys {
        /// The volume.
        volume: String,
    },
    /// All iSCSI sessions. Answer: [`Answer::Sessions`].
    SessionList,
    /// Ends a session. Answer: [`Answer::Done`], when its connection is closed.
    SessionDrop {
        /// The identity of the session as listed.
        id: u64,
    },
    /// The event log: [`Frame::Event`]s, oldest first, then [`Answer::Done`]; with `follow` it goes on for ever.
    Events {
        /// Only events at or after this time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
        /// Go on with what happens.
        #[serde(default)]
        follow: bool,
    },
}

/// One line of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// One event of a stream; more frames follow.
    Event(Event),
    /// How far a long operation is; more frames follow.
    Progress(Progress),
    /// Done. The last frame of a request.
    Answer(Answer),
    /// Not done, and why. The last frame of a request.
    Error(Failure),
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Done; there is nothing more to tell.
    Done,
    /// To [`Request::Status`].
    Status(Status),
    /// One device.
    Device(Device),
    /// Devices by name.
    Devices(Vec<Device>),
    /// One volume.
    Volume(Volume),
    /// Volumes by LUN.
    Volumes(Vec<Volume>),
    /// Where a volume lies.
    Map(VolumeMap),
    /// The grant as it is now.
    Grant(Grant),
    /// All grants of a volume.
    Grants(Grants),
    /// A private region.
    Keys(Keys),
    /// Sessions by identity.
    Sessions(Vec<Session>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(request: Request) -> String {
        let line = serde_json::to_string(&Envelope::new(request.clone())).unwrap();
        assert!(!line.contains('\n'), "one request is one line");
        let back: Envelope = serde_json::from_str(&line).unwrap();
        assert_eq!(back, Envelope::new(request));
        line
    }

    #[test]
    fn requests_survive_the_wire() {
        let name = || "vol\n1".to_owned();
        let requests = [
            Request::Status,
            Request::DeviceAdd {
                name: name(),
                path: "/dev/sd b".into(),
                size_bytes: Some(1 << 30),
                direct: true,
            },
            Request::DeviceList,
            Request::DeviceShow { name: name() },
            Request::DeviceRemove { name: name() },
            Request::VolumeCreate {
                name: name(),
                size_bytes: u64::MAX,
                on: vec!["a".into(), "b".into()],
                keys_on: vec!["c".into()],
                block_size_bytes: 4096,
                persist_always: true,
            },
            Request::VolumeList,
            Request::VolumeShow { name: name() },
            Request::VolumeDelete {
                name: name(),
                force: true,
            },
            Request::VolumeGrow {
                name: name(),
                growth: Growth::By(1),
            },
            Request::VolumeMap {
                name: name(),
                offset_bytes: Some(0),
            },
            Request::Grant {
                volume: name(),
                initiator: "*".into(),
                access: AccessRight::ReadOnly,
            },
            Request::Grants { volume: name() },
            Request::Keys { volume: name() },
            Request::SessionList,
            Request::SessionDrop { id: u64::MAX },
            Request::Events {
                since: Some(Timestamp::UNIX_EPOCH),
                follow: true,
            },
        ];
        for request in requests {
            round_trip(request);
        }
    }

    #[test]
    fn the_wire_form_is_as_documented() {
        assert_eq!(
            round_trip(Request::Grant {
                volume: "v".into(),
                initiator: "iqn.x:y".into(),
                access: AccessRight::ReadWrite
            }),
            r#"{"version":1,"request":{"op":"grant","volume":"v","initiator":"iqn.x:y","access":"rw"}}"#
        );
        let error = Frame::Error(Failure::not_found("no volume 'x'").advise("see 'volume list'"));
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"error":{"kind":"not-found","message":"no volume 'x'","advice":"see 'volume list'"}}"#
        );
        assert_eq!(
            serde_json::to_string(&Frame::Answer(Answer::Done)).unwrap(),
            r#"{"answer":"done"}"#
        );
    }

    #[test]
    fn unknown_fields_and_operations_are_refused() {
        for line in [
            r#"{"version":1,"request":{"op":"format-everything"}}"#,
            r#"{"version":1,"request":{"op":"volume-delete","name":"v","forced":true}}"#,
            r#"{"version":1}"#,
        ] {
            assert!(serde_json::from_str::<Envelope>(line).is_err(), "{line}");
        }
    }
}
