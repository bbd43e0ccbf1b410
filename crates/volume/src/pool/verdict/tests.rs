//! What the devices say, and what is made of it: as tables.

use super::*;
use crate::config::{DeviceRole, PoolRecord};

const P: u128 = 0x100;
const Q: u128 = 0x200;

fn areas() -> Areas {
    // Large enough for `of`.
    Areas::of(64 << 20).unwrap()
}

/// `a`: device a of pool P; `a'`: another device with the same label; `Qx`: device x of pool Q; `?` and `-`: a device that
/// carries no label that can be used; `a!`: device a, whose label has other areas than the configuration.
fn offers(text: &str) -> Vec<Offer> {
    text.split_whitespace()
        .enumerate()
        .map(|(number, word)| {
            let path = format!("/{number}{word}");
            let (pool, name) = match word.strip_prefix('Q') {
                Some(rest) => (Q, rest),
                None => (P, word),
            };
            let first = name.chars().next().unwrap_or('?');
            let says = match first {
                '?' => Err("the label is damaged in both copies".into()),
                '-' => Err("the device has no label".into()),
                name => Ok(Says {
                    pool: Uuid::from_u128(pool),
                    device: Uuid::from_u128(pool + name as u128),
                    areas: if word.ends_with('!') {
                        Areas {
                            data_length_bytes: 1 << 20,
                            ..areas()
                        }
                    } else {
                        areas()
                    },
                }),
            };
            Offer { path, says }
        })
        .collect()
}

/// Devices of pool P; one with `*` is recorded as failed.
fn config(text: &str) -> Config {
    let devices = text
        .split_whitespace()
        .map(|word| {
            let name = word.chars().next().unwrap();
            let uuid = Uuid::from_u128(P + name as u128);
            let record = DeviceRecord {
                uuid,
                name: name.to_string(),
                path: "/old".into(),
                size_bytes: 64 << 20,
                data_offset_bytes: areas().data_offset_bytes,
                data_length_bytes: areas().data_length_bytes,
                role: DeviceRole::Data,
                failed: word.ends_with('*').then(|| "it broke".into()),
                closed: false,
            };
            (uuid, record)
        })
        .collect();
    Config {
        pool: PoolRecord {
            uuid: Uuid::from_u128(P),
            next_lun: 0,
            handover: false,
        },
        devices,
        volumes: BTreeMap::new(),
        documents: BTreeMap::new(),
    }
}

#[test]
fn which_pool() {
    for (given, expected) in [
        ("a", "P"),
        ("a b c", "P"),
        ("Qx", "Q"),
        ("? a -", "P"),
        ("", "none of the devices carries a pool"),
        (
            "? -",
            "/0?: the label is damaged in both copies; /1-: the device has no label",
        ),
        ("a a'", "/0a and /1a' have the same label"),
        ("a b Qx", "/0a belongs to pool"),
        ("Qx a", "one pool at a time"),
    ] {
        let said = match pool_of(&offers(given)) {
            Ok(pool) if pool.as_u128() == P => "P".into(),
            Ok(_) => "Q".into(),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expected), "{given}: {said}");
    }
}

#[test]
fn how_each_device_stands() {
    // Configuration, what is given, whose copy of the configuration is current, and the standings.
    for (configured, given, current, expected) in [
        ("a b c", "a b c", "a b c", "a Current, b Current, c Current"),
        ("a b c", "c b a", "a b c", "a Current, b Current, c Current"),
        ("a b c", "a b", "a b", "a Current, b Current, c Missing"),
        ("a b c", "a b c", "a b", "a Current, b Current, c Stale"),
        ("a b c", "a b ?", "a b", "a Current, b Current, c Missing"),
        // One that is recorded as failed is not used, however current it says it is.
        ("a b c*", "a b c", "a b c", "a Current, b Current, c Failed"),
        ("a b c*", "a b", "a b", "a Current, b Current, c Missing"),
        // Removed while it was away, or never fully added: no standing.
        ("a b", "a b c", "a b", "a Current, b Current"),
        // Says it is device b, of another pool.
        ("a b", "a Qb", "a", "a Current, b Missing"),
        ("a b", "a b!", "a b", "disagree about its areas"),
    ] {
        let current = current
            .split_whitespace()
            .map(|name| Uuid::from_u128(P + name.chars().next().unwrap() as u128))
            .collect();
        let config = config(configured);
        let said = match standings(&config, &offers(given), &current) {
            Ok(standings) => standings
                .iter()
                .map(|(uuid, standing)| format!("{} {standing:?}", config.devices[uuid].name))
                .collect::<Vec<_>>()
                .join(", "),
            Err(error) => error.to_string(),
        };
        if expected.starts_with("a ") {
            assert_eq!(said, expected, "{configured} / {given}");
        } else {
            assert!(said.contains(expected), "{configured} / {given}: {said}");
        }
    }
}
