//! A heartbeat, and its form on the wire.
//!
//! | offset | size | field, little endian |
//! | --- | --- | --- |
//! | 0 | 4 | `RFHB` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | flags: 1 its storage answers, 2 it is leaving |
//! | 6 | 1 | slot of the sender |
//! | 7 | 1 | number of echoes, n |
//! | 8 | 16 | UUID of the domain |
//! | 24 | 16 | incarnation of the sender |
//! | 40 | 8 | counter |
//! | 48 | 8 | epoch |
//! | 56 | 8 | links, a bit a slot |
//! | 64 | 8 | group, a bit a slot |
//! | 72 | 24 | view: number, members, 8 bytes each; master 1 byte; 1 if there is a view; 6 bytes of zero |
//! | 96 | 9n | echoes: slot, counter |
//! | 96 + 9n | 32 | HMAC-SHA256 of all before, keyed with the domain's secret |

use hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;
use uuid::Uuid;

use crate::domain::{MAX_MEMBERS, Secret};
use crate::mailbox::View;
use crate::slots::SlotSet;

/// Most bytes of a heartbeat: fits an Ethernet frame.
pub const MAX_HEARTBEAT_BYTES: usize = FIXED_BYTES + MAX_MEMBERS * ECHO_BYTES + MAC_BYTES;

const MAGIC: [u8; 4] = *b"RFHB";
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 96;
const ECHO_BYTES: usize = 9;
const MAC_BYTES: usize = 32;
const FLAG_STORAGE: u8 = 1;
const FLAG_LEAVING: u8 = 2;

/// What a node says to a peer. All of it is about the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The domain.
    pub domain: Uuid,
    /// Slot of the sender.
    pub from: u16,
    /// Incarnation of the sender; its peers know the right one from its slot in the mailbox.
    pub incarnation: Uuid,
    /// When it was sent, by the sender's clock in milliseconds; grows with each heartbeat, also over a restart of the
    /// node in one boot.
    pub counter: u64,
    /// The epoch that it knows.
    pub epoch: u64,
    /// Its storage answers.
    pub storage: bool,
    /// It stops in order.
    pub leaving: bool,
    /// With whom it has a link: they have echoed what it sent not long ago.
    pub links: SlotSet,
    /// Its group.
    pub group: SlotSet,
    /// The view that it has adopted; a master's is the one that it publishes.
    pub view: Option<View>,
    /// The last counter that it has heard of each peer, for those that it has heard not long ago.
    pub echoes: Vec<(u16, u64)>,
}

/// Why a datagram is no heartbeat of this domain. Nothing more is said: whoever sent it is not told either.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HeartbeatError {
    /// It is not of the form of a heartbeat.
    #[error("it is no heartbeat")]
    Form,
    /// It is not authenticated with this domain's secret.
    #[error("it is not authenticated with the domain's secret")]
    Authentication,
}

impl Heartbeat {
    /// The datagram. Echoes beyond [`MAX_MEMBERS`] are left out.
    pub fn seal(&self, secret: &Secret) -> Vec<u8> {
        let echoes = &self.echoes[..self.echoes.len().min(MAX_MEMBERS)];
        let mut bytes = Vec::with_capacity(MAX_HEARTBEAT_BYTES);
        bytes.extend(MAGIC);
        let storage = if self.storage { FLAG_STORAGE } else { 0 };
        let leaving = if self.leaving { FLAG_LEAVING } else { 0 };
        // Slots and the number of echoes are at most 64.
        bytes.extend([
            VERSION,
            storage | leaving,
            self.from as u8,
            echoes.len() as u8,
        ]);
        bytes.extend(self.domain.as_bytes());
        bytes.extend(self.incarnation.as_bytes());
        for number in [
            self.counter,
            self.epoch,
            self.links.bits(),
            self.group.bits(),
        ] {
            bytes.extend(number.to_le_bytes());
        }
        let view = self.view.unwrap_or(View {
            number: 0,
            master: 0,
            members: SlotSet::EMPTY,
        });
        bytes.extend(view.number.to_le_bytes());
        bytes.extend(view.members.bits().to_le_bytes());
        bytes.extend([
            view.master as u8,
            u8::from(self.view.is_some()),
            0,
            0,
            0,
            0,
            0,
            0,
        ]);
        for (slot, counter) in echoes {
            bytes.push(*slot as u8);
            bytes.extend(counter.to_le_bytes());
        }
        let mac = authenticator(secret).chain_update(&bytes).finalize();
        bytes.extend(mac.into_bytes());
        bytes
    }

    /// Reads a datagram that is authenticated with the secret.
    ///
    /// # Errors
    /// [`HeartbeatError`].
    pub fn open(bytes: &[u8], secret: &Secret) -> Result<Self, HeartbeatError> {
        let form = HeartbeatError::Form;
        let start = bytes.get(..8).ok_or(form)?;
        let (count, slot) = (usize::from(start[7]), u16::from(start[6]));
        let end = FIXED_BYTES + count * ECHO_BYTES;
        let shaped = start[..4] == MAGIC && start[4] == VERSION && start[5] & !3 == 0;
        if !shaped || count > MAX_MEMBERS || bytes.len() != end + MAC_BYTES {
            return Err(form);
        }
        authenticator(secret)
            .chain_update(&bytes[..end])
            .verify_slice(&bytes[end..])
            .map_err(|_| HeartbeatError::Authentication)?;
        let is_slot = |slot: u16| usize::from(slot) < MAX_MEMBERS;
        let view = View {
            number: u64_at(bytes, 72),
            members: SlotSet::from_bits(u64_at(bytes, 80)),
            master: u16::from(bytes[88]),
        };
        let view = match bytes[89] {
            0 => None,
            1 if view.members.first() == Some(view.master) => Some(view),
            _ => return Err(form),
        };
        let mut echoes = Vec::with_capacity(count);
        for echo in bytes[FIXED_BYTES..end].chunks_exact(ECHO_BYTES) {
            echoes.push((u16::from(echo[0]), u64_at(echo, 1)));
        }
        if !is_slot(slot) || echoes.iter().any(|(slot, _)| !is_slot(*slot)) {
            return Err(form);
        }
        Ok(Self {
            domain: uuid_at(bytes, 8),
            from: slot,
            incarnation: uuid_at(bytes, 24),
            counter: u64_at(bytes, 40),
            epoch: u64_at(bytes, 48),
            storage: start[5] & FLAG_STORAGE != 0,
            leaving: start[5] & FLAG_LEAVING != 0,
            links: SlotSet::from_bits(u64_at(bytes, 56)),
            group: SlotSet::from_bits(u64_at(bytes, 64)),
            view,
            echoes,
        })
    }
}

fn authenticator(secret: &Secret) -> Hmac<Sha256> {
    // HMAC takes keys of any length; 32 bytes are shorter than a block.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block[..32].copy_from_slice(secret.bytes());
    Hmac::new(&block)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_bytes(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(byte: u8) -> Secret {
        Secret::new([byte; 32])
    }

    fn any_heartbeat() -> impl Strategy<Value = Heartbeat> {
        let echoes = prop::collection::vec((0u16..64, any::<u64>()), 0..64);
        let sets = (any::<u64>(), any::<u64>(), any::<u64>());
        (
            any::<[u64; 4]>(),
            0u16..64,
            sets,
            any::<[bool; 2]>(),
            echoes,
        )
            .prop_map(|(numbers, from, (links, group, members), flags, echoes)| {
                let members = SlotSet::from_bits(members);
                Heartbeat {
                    domain: Uuid::from_u64_pair(numbers[0], 1),
                    from,
                    incarnation: Uuid::from_u64_pair(2, numbers[1]),
                    counter: numbers[2],
                    epoch: numbers[3],
                    storage: flags[0],
                    leaving: flags[1],
                    links: SlotSet::from_bits(links),
                    group: SlotSet::from_bits(group),
                    view: members.first().map(|master| View {
                        number: numbers[0],
                        master,
                        members,
                    }),
                    echoes,
                }
            })
    }

    proptest! {
        #[test]
        fn round_trip(heartbeat in any_heartbeat(), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = heartbeat.seal(&secret(1));
            prop_assert!(bytes.len() <= MAX_HEARTBEAT_BYTES);
            prop_assert_eq!(Heartbeat::open(&bytes, &secret(1)), Ok(heartbeat));
            prop_assert_eq!(Heartbeat::open(&bytes, &secret(2)), Err(HeartbeatError::Authentication));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Heartbeat::open(&bytes, &secret(1)).is_err());
        }

        #[test]
        fn any_bytes_are_answered(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
            if magic && bytes.len() > 8 {
                bytes[..5].copy_from_slice(b"RFHB\x01");
            }
            prop_assert!(Heartbeat::open(&bytes, &secret(1)).is_err());
        }
    }

    /// RFC 4231 test case 2 has a shorter key; this is HMAC-SHA256 computed by another implementation.
    #[test]
    fn the_authenticator_is_hmac_sha256() {
        let mac = authenticator(&secret(0x0b))
            .chain_update(b"Hi There")
            .finalize();
        let text: String = mac
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            text,
            "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7"
        );
    }
}
