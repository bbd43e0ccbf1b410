//! The wire forms.

use jiff::Timestamp;

use super::*;
use crate::control::model::{AccessRight, LostUntil};

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
            force: true,
        },
        Request::DeviceEvacuate {
            name: name(),
            rate_bytes_per_second: None,
        },
        Request::DeviceReplace {
            old: name(),
            new: name(),
            rate_bytes_per_second: Some(1),
        },
        Request::DeviceFail {
            name: name(),
            force: true,
        },
        Request::DeviceOnline {
            name: name(),
            path: Some("/dev/sdb".into()),
        },
        Request::PoolShow,
        Request::PoolImport {
            paths: vec!["/a".into()],
            direct: false,
        },
        Request::PoolExport { force: true },
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
            shape: Shape {
                layout: Some(LayoutName::Striped),
                columns: Some(4),
                stripe_unit_bytes: Some(65536),
                mirrors: Some(2),
            },
        },
        Request::VolumeRename {
            name: name(),
            new_name: name(),
        },
        Request::VolumeAddMirror {
            name: name(),
            on: vec![],
            rate_bytes_per_second: None,
        },
        Request::VolumeRemoveMirror {
            name: name(),
            plex: Some(0),
            on: None,
        },
        Request::VolumeMigrate {
            name: name(),
            to: vec!["a".into()],
            keys_to: vec![],
            shape: Shape::default(),
            rate_bytes_per_second: Some(u64::MAX),
        },
        Request::VolumeVerify {
            name: name(),
            repair: true,
        },
        Request::JobList,
        Request::JobShow { volume: name() },
        Request::JobControl {
            volume: name(),
            action: JobAction::Rate(Some(7)),
        },
        Request::JobControl {
            volume: name(),
            action: JobAction::Pause,
        },
        Request::JobWait {
            jobs: vec![JobName {
                volume: name(),
                id: name(),
            }],
        },
        Request::KeysRecoverShow {
            volume: name(),
            from: name(),
        },
        Request::KeysRecover {
            volume: name(),
            from: name(),
            proof: u64::MAX,
            clear: true,
            until: LostUntil::Replaced,
        },
        Request::KeysClearLost { volume: name() },
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
        Request::DomainCreate {
            name: name(),
            volumes: vec![name()],
            quorum: Some(QuorumWish::Server {
                address: "h:1".into(),
                name: Some(name()),
            }),
            quorum_votes: Some(1),
            prefer: fencing::Prefer::Holder,
            window_ms: Some(0),
            mailbox_on: vec![name()],
        },
        Request::DomainList,
        Request::DomainShow { name: name() },
        Request::DomainDelete { name: name() },
        Request::DomainVolumeAdd {
            domain: name(),
            volume: name(),
        },
        Request::DomainVolumeRemove {
            domain: name(),
            volume: name(),
        },
        Request::MemberAdd {
            domain: name(),
            member: name(),
            initiators: vec![name()],
            votes: 0,
            methods: vec![
                fencing::Method::Fabric,
                "stonith:x?a=%20".parse().expect("a method"),
            ],
        },
        Request::MemberRemove {
            domain: name(),
            member: name(),
        },
        Request::MemberList { domain: name() },
        Request::DomainRace {
            domain: name(),
            member: name(),
            with: vec![name()],
            id: uuid::Uuid::max(),
            epoch: Some(u64::MAX),
        },
        Request::Fence {
            domain: name(),
            member: name(),
            methods: vec![],
            wait_ms: 1,
        },
        Request::Unfence {
            domain: name(),
            member: name(),
        },
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
