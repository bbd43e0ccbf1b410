//! Power-fail atomic writes: an intent that is durable before the data is written in place, and gone before the answer.
//!
//! The intent area has lanes, one for each atomic write in flight. A lane is a header page and room for
//! [`MAX_ATOMIC_BYTES`] of data. Steps of a write: header and data into a free lane, flush; data in place, flush;
//! header zeroed, flush; answer. After a crash a whole intent is written in place again, a damaged one is ignored: its
//! write had not begun in place.

use bytes::{Bytes, BytesMut};
use event_listener::{Event, EventListener};
use parking_lot::Mutex;
use uuid::Uuid;

use super::MAX_ATOMIC_BYTES;
use crate::block_device::aligned_buffer;

/// Length of an intent's header in bytes.
pub const HEADER_BYTES: usize = 4096;
/// Length of a lane in bytes.
pub const LANE_BYTES: u64 = HEADER_BYTES as u64 + MAX_ATOMIC_BYTES;
/// Lanes of a volume.
pub const LANES: u64 = 4;
/// Length of the intent area in bytes.
pub const AREA_BYTES: u64 = LANES * LANE_BYTES;

const MAGIC: [u8; 8] = *b"RINGFAW\0";
const VERSION: u32 = 1;

pub(crate) const OFFSET_VERSION: usize = 8;
pub(crate) const OFFSET_DATA_CRC32C: usize = 12;
pub(crate) const OFFSET_VOLUME: usize = 16;
pub(crate) const OFFSET_OFFSET: usize = 32;
pub(crate) const OFFSET_LENGTH: usize = 40;
pub(crate) const OFFSET_CRC32C: usize = 508;

/// A write that was to be atomic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Where in the public region.
    pub offset_bytes: u64,
    /// What.
    pub data: Bytes,
}

impl Intent {
    /// Header and data as they go into a lane, in whole pages of an aligned buffer.
    pub fn encode(&self, volume: Uuid) -> Bytes {
        let mut buf: BytesMut =
            aligned_buffer(HEADER_BYTES + self.data.len().next_multiple_of(4096));
        let mut put = |offset: usize, bytes: &[u8]| {
            buf[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &MAGIC);
        put(OFFSET_VERSION, &VERSION.to_le_bytes());
        let data_crc = crc32c::crc32c(&self.data);
        put(OFFSET_DATA_CRC32C, &data_crc.to_le_bytes());
        put(OFFSET_VOLUME, volume.as_bytes());
        put(OFFSET_OFFSET, &self.offset_bytes.to_le_bytes());
        put(OFFSET_LENGTH, &(self.data.len() as u64).to_le_bytes());
        put(HEADER_BYTES, &self.data);
        let crc = crc32c::crc32c(&buf[..OFFSET_CRC32C]);
        buf[OFFSET_CRC32C..OFFSET_CRC32C + 4].copy_from_slice(&crc.to_le_bytes());
        buf.freeze()
    }

    /// Where a header says that the data belongs: (offset, length, checksum); `None` for a lane without an intent.
    pub fn decode_header(header: &[u8], volume: Uuid) -> Option<(u64, u64, u32)> {
        let header = header.get(..512)?;
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let u64_at =
            |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| header[at + i]));
        let whole = header[..8] == MAGIC
            && crc32c::crc32c(&header[..OFFSET_CRC32C]) == u32_at(OFFSET_CRC32C)
            && u32_at(OFFSET_VERSION) == VERSION
            && header[OFFSET_VOLUME..OFFSET_OFFSET] == *volume.as_bytes();
        let length = u64_at(OFFSET_LENGTH);
        (whole && length > 0 && length <= MAX_ATOMIC_BYTES)
            .then(|| (u64_at(OFFSET_OFFSET), length, u32_at(OFFSET_DATA_CRC32C)))
    }

    /// The intent in a lane, if there is a whole one.
    pub fn decode(lane: &[u8], volume: Uuid) -> Option<Intent> {
        let (offset_bytes, length, crc) = Intent::decode_header(lane, volume)?;
        let data = lane.get(HEADER_BYTES..)?.get(..length as usize)?;
        (crc32c::crc32c(data) == crc).then(|| Intent {
            offset_bytes,
            data: Bytes::copy_from_slice(data),
        })
    }
}

/// The lanes that are free.
pub(crate) struct Lanes {
    free: Mutex<Vec<u64>>,
    released: Event,
}

/// A lane of one's own; free again when dropped.
pub(crate) struct Lane<'a> {
    lanes: &'a Lanes,
    number: u64,
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes {
            free: Mutex::new((0..LANES).collect()),
            released: Event::new(),
        }
    }
}

impl Lanes {
    /// A free lane, if there is one.
    pub(crate) fn take(&self) -> Option<Lane<'_>> {
        let number = self.free.lock().pop()?;
        Some(Lane {
            lanes: self,
            number,
        })
    }

    /// Whoever found none listens before it looks.
    pub(crate) fn listen(&self) -> EventListener {
        self.released.listen()
    }

    /// Those who wait look again.
    pub(crate) fn notify(&self) {
        self.released.notify(usize::MAX);
    }

    /// A lane that was kept is free again.
    pub(crate) fn release(&self, number: u64) {
        self.free.lock().push(number);
        self.released.notify(1);
    }
}

impl Lane<'_> {
    /// First byte of the lane in the intent area.
    pub(crate) fn offset_bytes(&self) -> u64 {
        self.number * LANE_BYTES
    }

    /// Its number; it is not free until [`Lanes::release`].
    pub(crate) fn keep(self) -> u64 {
        let number = self.number;
        std::mem::forget(self);
        number
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.lanes.release(self.number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VOLUME: Uuid = Uuid::from_u128(3);

    proptest! {
        #[test]
        fn what_is_written_is_read_and_damage_is_no_intent(
            offset_bytes: u64, length in 1usize..=MAX_ATOMIC_BYTES as usize, byte: u8, at: usize, bit in 0u8..8,
        ) {
            let intent = Intent { offset_bytes, data: vec![byte; length].into() };
            let mut lane = intent.encode(VOLUME).to_vec();
            prop_assert_eq!(Intent::decode(&lane, VOLUME), Some(intent));
            prop_assert_eq!(Intent::decode(&lane, Uuid::from_u128(4)), None);
            // Any bit of the header's sector or of the data.
            let at = at % (512 + length);
            let at = if at < 512 { at } else { at - 512 + HEADER_BYTES };
            lane[at] ^= 1 << bit;
            prop_assert_eq!(Intent::decode(&lane, VOLUME), None);
        }

        #[test]
        fn noise_is_no_intent(mut lane in prop::collection::vec(any::<u8>(), 0..9000)) {
            if lane.len() > 8 {
                lane[..8].copy_from_slice(&MAGIC);
            }
            prop_assert_eq!(Intent::decode(&lane, VOLUME), None);
        }
    }
}
