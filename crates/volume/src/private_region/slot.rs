//! A registrant's slot: 512 bytes, with its own checksum.

use std::sync::Arc;

use reservation::{InitiatorPort, Key, Nexus, Registrant};
use uuid::Uuid;

/// Length of a slot in bytes.
pub const SLOT_BYTES: usize = 512;
/// Slots in a page.
pub const SLOTS_PER_PAGE: usize = 8;
/// Longest initiator name in bytes (RFC 7143 4.2.7.1).
pub const MAX_NAME_BYTES: usize = 223;

const MAGIC: [u8; 4] = *b"RFSL";
const VERSION: u16 = 1;
const FLAG_ALL_TARGET_PORTS: u8 = 1;
const FLAG_RECOVERED: u8 = 2;

pub(crate) const OFFSET_VERSION: usize = 4;
pub(crate) const OFFSET_FLAGS: usize = 6;
pub(crate) const OFFSET_NAME_LENGTH: usize = 7;
pub(crate) const OFFSET_KEY: usize = 8;
pub(crate) const OFFSET_ISID: usize = 16;
pub(crate) const OFFSET_TARGET_PORT: usize = 22;
pub(crate) const OFFSET_SLOT: usize = 24;
pub(crate) const OFFSET_CRC32C: usize = 28;
pub(crate) const OFFSET_VOLUME: usize = 32;
pub(crate) const OFFSET_NAME: usize = 48;

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Whose it is.
    pub nexus: Nexus,
    /// The registration.
    pub registrant: Registrant,
    /// It came with what survived of lost information, and has not been made anew
    /// ([`Lost::UntilRegistered`](reservation::Lost::UntilRegistered)).
    pub recovered: bool,
}

/// Writes the slot numbered `slot` of `volume`. The caller has checked the name's length.
pub fn encode(out: &mut [u8], volume: Uuid, slot: u16, registration: &Registration) {
    let Registration {
        nexus,
        registrant,
        recovered,
    } = registration;
    let mut put = |offset: usize, bytes: &[u8]| {
        out[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    let name = nexus.initiator.name.as_bytes();
    put(0, &[0; SLOT_BYTES]);
    put(0, &MAGIC);
    put(OFFSET_VERSION, &VERSION.to_le_bytes());
    let mut flags = 0;
    for (set, flag) in [
        (registrant.all_target_ports, FLAG_ALL_TARGET_PORTS),
        (*recovered, FLAG_RECOVERED),
    ] {
        flags |= if set { flag } else { 0 };
    }
    put(OFFSET_FLAGS, &[flags, name.len() as u8]);
    put(OFFSET_KEY, &registrant.key.0.to_le_bytes());
    put(OFFSET_ISID, &nexus.initiator.isid);
    put(OFFSET_TARGET_PORT, &nexus.target_port.to_le_bytes());
    put(OFFSET_SLOT, &u32::from(slot).to_le_bytes());
    put(OFFSET_VOLUME, volume.as_bytes());
    put(OFFSET_NAME, name);
    let crc = crc32c::crc32c(&out[..SLOT_BYTES]);
    out[OFFSET_CRC32C..OFFSET_CRC32C + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the slot numbered `slot` of `volume`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn decode(bytes: &[u8], volume: Uuid, slot: u16) -> Result<Registration, &'static str> {
    let bytes: &[u8; SLOT_BYTES] = bytes.try_into().map_err(|_| "wrong length")?;
    if bytes[..4] != MAGIC {
        return Err("not a slot");
    }
    let mut unsigned = *bytes;
    unsigned[OFFSET_CRC32C..OFFSET_CRC32C + 4].fill(0);
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    if crc32c::crc32c(&unsigned) != u32_at(OFFSET_CRC32C) {
        return Err("checksum does not match");
    }
    if u16_at(OFFSET_VERSION) != VERSION {
        return Err("unknown version");
    }
    if u32_at(OFFSET_SLOT) != u32::from(slot)
        || bytes[OFFSET_VOLUME..OFFSET_NAME] != *volume.as_bytes()
    {
        return Err("belongs elsewhere");
    }
    let flags = bytes[OFFSET_FLAGS];
    if flags & !(FLAG_ALL_TARGET_PORTS | FLAG_RECOVERED) != 0 {
        return Err("unknown flag");
    }
    let length = usize::from(bytes[OFFSET_NAME_LENGTH]);
    if length == 0 || length > MAX_NAME_BYTES {
        return Err("impossible length of the name");
    }
    let name = std::str::from_utf8(&bytes[OFFSET_NAME..OFFSET_NAME + length])
        .map_err(|_| "the name is not UTF-8")?;
    let key = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[OFFSET_KEY + i]));
    let target_port = u16_at(OFFSET_TARGET_PORT);
    if key == 0 {
        return Err("the key is zero");
    }
    if target_port == 0 {
        return Err("the target port is zero");
    }
    Ok(Registration {
        nexus: Nexus {
            initiator: InitiatorPort {
                name: Arc::from(name),
                isid: std::array::from_fn(|i| bytes[OFFSET_ISID + i]),
            },
            target_port,
        },
        registrant: Registrant {
            key: Key(key),
            all_target_ports: flags & FLAG_ALL_TARGET_PORTS != 0,
        },
        recovered: flags & FLAG_RECOVERED != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VOLUME: Uuid = Uuid::from_u128(5);

    prop_compose! {
        fn registration()(
            name in "[a-z0-9.:-]{1,223}", isid: [u8; 6], target_port in 1u16.., key in 1u64..,
            all_target_ports: bool, recovered: bool,
        ) -> Registration {
            let initiator = InitiatorPort { name: name.into(), isid };
            Registration {
                nexus: Nexus { initiator, target_port },
                registrant: Registrant { key: Key(key), all_target_ports },
                recovered,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(registration in registration(), slot in 0u16..1024) {
            let mut bytes = [0xff; SLOT_BYTES];
            encode(&mut bytes, VOLUME, slot, &registration);
            prop_assert_eq!(decode(&bytes, VOLUME, slot), Ok(registration));
            prop_assert!(decode(&bytes, VOLUME, slot + 1).is_err());
            prop_assert!(decode(&bytes, Uuid::from_u128(6), slot).is_err());
        }

        #[test]
        fn any_changed_bit_is_noticed(registration in registration(), at in 0..SLOT_BYTES, bit in 0u8..8) {
            let mut bytes = [0; SLOT_BYTES];
            encode(&mut bytes, VOLUME, 3, &registration);
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes, VOLUME, 3).is_err());
        }

        #[test]
        fn noise_with_a_right_checksum_does_no_harm(mut bytes in prop::collection::vec(any::<u8>(), SLOT_BYTES)) {
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
            bytes[OFFSET_SLOT..OFFSET_SLOT + 4].copy_from_slice(&3u32.to_le_bytes());
            bytes[OFFSET_VOLUME..OFFSET_NAME].copy_from_slice(VOLUME.as_bytes());
            bytes[OFFSET_CRC32C..OFFSET_CRC32C + 4].fill(0);
            let crc = crc32c::crc32c(&bytes);
            bytes[OFFSET_CRC32C..OFFSET_CRC32C + 4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(Registration { nexus, registrant, .. }) = decode(&bytes, VOLUME, 3) {
                prop_assert!(registrant.key != Key(0) && nexus.target_port != 0);
                prop_assert!(!nexus.initiator.name.is_empty());
            }
        }
    }
}
