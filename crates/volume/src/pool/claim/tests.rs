//! May this device be taken? As a table.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::config::{DeviceRecord, DeviceRole, PoolRecord};
use crate::label::Areas;

const OURS: Uuid = Uuid::from_u128(1);
const THEIRS: Uuid = Uuid::from_u128(2);
const MEMBER: Uuid = Uuid::from_u128(3);
const STRANGER: Uuid = Uuid::from_u128(4);

fn config() -> Config {
    let areas = Areas::of(64 << 20).unwrap();
    let record = DeviceRecord {
        uuid: MEMBER,
        name: "d0".into(),
        path: "/disk0".into(),
        size_bytes: 64 << 20,
        data_offset_bytes: areas.data_offset_bytes,
        data_length_bytes: areas.data_length_bytes,
        role: DeviceRole::Data,
        failed: None,
        closed: false,
    };
    Config {
        pool: PoolRecord {
            uuid: OURS,
            next_lun: 0,
            handover: false,
        },
        devices: BTreeMap::from([(MEMBER, record)]),
        volumes: BTreeMap::new(),
        documents: BTreeMap::new(),
    }
}

fn label(pool: Uuid, device: Uuid) -> Result<Label, LabelError> {
    Ok(Label {
        pool,
        device,
        sequence: 1,
        size_bytes: 64 << 20,
        areas: Areas::of(64 << 20).unwrap(),
        name: "x".into(),
    })
}

#[test]
fn claims() {
    let ext4 = || Some("an ext4 file system".to_owned());
    let shrunk = || LabelError::Shrunk {
        label_bytes: 2,
        actual_bytes: 1,
    };
    let unreadable = || {
        LabelError::Device(VolumeError::Device {
            device: "x".into(),
            operation: "read",
            source: std::io::ErrorKind::Other.into(),
        })
    };
    type Case = (
        &'static str,
        Result<Label, LabelError>,
        Option<String>,
        bool,
        &'static str,
        &'static str,
    );
    // What it is, label, signature, in a pool, then the answers without and with force.
    #[rustfmt::skip]
    let table: Vec<Case> = vec![
        ("blank",                      Err(LabelError::Empty),   None,   true,  "free", "free"),
        ("blank, the first",           Err(LabelError::Empty),   None,   false, "free", "free"),
        ("a file system",              Err(LabelError::Foreign), ext4(), true,  "an ext4 file system", "erase"),
        ("something at the end only",  Err(LabelError::Empty),   ext4(), true,  "an ext4 file system", "erase"),
        ("a member",                   label(OURS, MEMBER),      None,   true,  "is device d0 of this pool", "is device d0 of this pool"),
        ("left behind by an addition", label(OURS, STRANGER),    None,   true,  "free", "free"),
        ("of another pool",            label(THEIRS, STRANGER),  None,   true,  "belongs to pool", "erase"),
        ("of a pool, the first",       label(THEIRS, STRANGER),  None,   false, "belongs to pool", "erase"),
        ("a damaged label",            Err(LabelError::Torn),    ext4(), true,  "damaged in both copies", "erase"),
        ("a later version's",          Err(LabelError::Unsupported { version: 9 }), ext4(), true, "version 9", "erase"),
        ("smaller than it was",        Err(shrunk()),            None,   true,  "2 when it was added", "erase"),
        ("one that cannot be read",    Err(unreadable()),        None,   true,  "read failed", "read failed"),
    ];
    for (what, label, signature, in_pool, without, with) in table {
        let again = match &label {
            Ok(label) => Ok(label.clone()),
            Err(LabelError::Empty) => Err(LabelError::Empty),
            Err(LabelError::Foreign) => Err(LabelError::Foreign),
            Err(LabelError::Torn) => Err(LabelError::Torn),
            Err(LabelError::Unsupported { version }) => {
                Err(LabelError::Unsupported { version: *version })
            }
            Err(LabelError::Shrunk { .. }) => Err(shrunk()),
            Err(_) => Err(unreadable()),
        };
        for (label, force, expected) in [(label, false, without), (again, true, with)] {
            let found = Found {
                label,
                signature: signature.clone(),
            };
            let config = config();
            let said = match claim("/x", found, in_pool.then_some(&config), force) {
                Ok(Claim::Free) => "free".to_owned(),
                Ok(Claim::Erase) => "erase".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(said.contains(expected), "{what}, force {force}: {said}");
        }
    }
}
