//! The group reservation's record: what one header write commits. Slots are apart; the record says which of them count.

use reservation::{LostUntil, ReservationType};
use uuid::Uuid;

use super::REGISTRANT_CAPACITY;
use crate::page_store::RECORD_BYTES;

const VERSION: u32 = 1;
const FLAG_APTPL: u8 = 1;
const FLAG_LOST: u8 = 2;
const FLAG_PERSIST_ALWAYS: u8 = 4;
/// With [`FLAG_LOST`]: registrations that are made anew end the condition; without it only REPLACE LOST RESERVATION.
const FLAG_LOST_UNTIL_REGISTERED: u8 = 8;
const FLAGS: u8 = FLAG_APTPL | FLAG_LOST | FLAG_PERSIST_ALWAYS | FLAG_LOST_UNTIL_REGISTERED;
const NO_SLOT: u32 = u32::MAX;

pub(crate) const OFFSET_GENERATION: usize = 4;
pub(crate) const OFFSET_FLAGS: usize = 8;
pub(crate) const OFFSET_TYPE: usize = 9;
pub(crate) const OFFSET_HOLDER: usize = 12;
pub(crate) const OFFSET_BOOT: usize = 16;
pub(crate) const OFFSET_COUNT: usize = 32;
pub(crate) const OFFSET_SLOTS: usize = 64;
const SLOT_MAP_BYTES: usize = REGISTRANT_CAPACITY / 8;

/// A commit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRecord {
    /// PRGENERATION.
    pub generation: u32,
    /// APTPL.
    pub aptpl: bool,
    /// Information is known to be lost, and what ends that.
    pub lost: Option<LostUntil>,
    /// The volume was created with persist=always.
    pub persist_always: bool,
    /// The type of the reservation, if there is one.
    pub kind: Option<ReservationType>,
    /// The holder's slot, if the type has a holder.
    pub holder_slot: Option<u16>,
    /// The kernel's boot id when it was committed.
    pub boot_id: Uuid,
    /// The slots that hold a registrant, ascending.
    pub slots: Vec<u16>,
}

impl CommitRecord {
    /// The stored form.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| {
            out[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &VERSION.to_le_bytes());
        put(OFFSET_GENERATION, &self.generation.to_le_bytes());
        let mut flags = 0;
        for (set, flag) in [
            (self.aptpl, FLAG_APTPL),
            (self.lost.is_some(), FLAG_LOST),
            (self.persist_always, FLAG_PERSIST_ALWAYS),
            (
                self.lost == Some(LostUntil::Registered),
                FLAG_LOST_UNTIL_REGISTERED,
            ),
        ] {
            flags |= if set { flag } else { 0 };
        }
        put(OFFSET_FLAGS, &[flags]);
        put(OFFSET_TYPE, &[self.kind.map_or(0, ReservationType::code)]);
        let holder = self.holder_slot.map_or(NO_SLOT, u32::from);
        put(OFFSET_HOLDER, &holder.to_le_bytes());
        put(OFFSET_BOOT, self.boot_id.as_bytes());
        put(OFFSET_COUNT, &(self.slots.len() as u32).to_le_bytes());
        for slot in &self.slots {
            out[OFFSET_SLOTS + usize::from(*slot) / 8] |= 1 << (slot % 8);
        }
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Result<CommitRecord, &'static str> {
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        if u32_at(0) != VERSION {
            return Err("unknown version of the commit record");
        }
        let flags = bytes[OFFSET_FLAGS];
        if flags & !FLAGS != 0 {
            return Err("unknown flag in the commit record");
        }
        let lost = match (
            flags & FLAG_LOST != 0,
            flags & FLAG_LOST_UNTIL_REGISTERED != 0,
        ) {
            (false, false) => None,
            (true, false) => Some(LostUntil::Replaced),
            (true, true) => Some(LostUntil::Registered),
            (false, true) => return Err("nothing is lost until registrations are made anew"),
        };
        let kind = match bytes[OFFSET_TYPE] {
            0 => None,
            code => Some(ReservationType::from_code(code).ok_or("unknown reservation type")?),
        };
        let slots: Vec<u16> = (0..REGISTRANT_CAPACITY as u16)
            .filter(|slot| bytes[OFFSET_SLOTS + usize::from(*slot) / 8] >> (slot % 8) & 1 == 1)
            .collect();
        if slots.len() != u32_at(OFFSET_COUNT) as usize {
            return Err("the count of registrants does not match the slot map");
        }
        let holder_slot = match u32_at(OFFSET_HOLDER) {
            NO_SLOT => None,
            slot => Some(
                u16::try_from(slot)
                    .ok()
                    .filter(|slot| slots.binary_search(slot).is_ok())
                    .ok_or("the holder's slot holds no registrant")?,
            ),
        };
        if holder_slot.is_some() && kind.is_none() {
            return Err("a holder without a reservation");
        }
        let zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
        if !zero(10..12) || !zero(36..OFFSET_SLOTS) || !zero(OFFSET_SLOTS + SLOT_MAP_BYTES..256) {
            return Err("reserved bytes of the commit record are not zero");
        }
        Ok(CommitRecord {
            generation: u32_at(OFFSET_GENERATION),
            aptpl: flags & FLAG_APTPL != 0,
            lost,
            persist_always: flags & FLAG_PERSIST_ALWAYS != 0,
            kind,
            holder_slot,
            boot_id: Uuid::from_bytes(std::array::from_fn(|i| bytes[OFFSET_BOOT + i])),
            slots,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            generation: u32, aptpl: bool, lost in 0usize..3, persist_always: bool, boot: u128,
            slots in prop::collection::btree_set(0u16..1024, 0..40), kind in 0usize..7,
        ) {
            let kind = ReservationType::ALL.get(kind).copied();
            let lost = [None, Some(LostUntil::Replaced), Some(LostUntil::Registered)][lost];
            let record = CommitRecord {
                generation, aptpl, lost, persist_always, kind,
                holder_slot: kind.and(slots.first().copied()),
                boot_id: Uuid::from_u128(boot),
                slots: slots.into_iter().collect(),
            };
            prop_assert_eq!(CommitRecord::decode(&record.encode()), Ok(record));
        }

        /// A daemon that does not know a flag refuses the record instead of ignoring the flag.
        #[test]
        fn only_known_flags_in_combinations_that_mean_something(flags: u8) {
            let mut record = CommitRecord {
                generation: 1, aptpl: false, lost: None, persist_always: false, kind: None,
                holder_slot: None, boot_id: Uuid::nil(), slots: vec![],
            }
            .encode();
            record[OFFSET_FLAGS] = flags;
            let sound = flags < 16 && (flags & 8 == 0 || flags & 2 != 0);
            prop_assert_eq!(CommitRecord::decode(&record).is_ok(), sound);
        }

        #[test]
        fn noise_does_no_harm(bytes in prop::collection::vec(any::<u8>(), RECORD_BYTES), version: bool) {
            let mut record: [u8; RECORD_BYTES] = bytes.try_into().unwrap();
            if version {
                record[..4].copy_from_slice(&VERSION.to_le_bytes());
                record[OFFSET_FLAGS] &= FLAGS;
            }
            prop_assert!(CommitRecord::decode(&record).is_err());
        }
    }
}
