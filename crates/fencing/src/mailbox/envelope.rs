//! The envelope: what surrounds every payload of the mailbox, in two alternating copies.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use uuid::Uuid;

use super::UNIT_BYTES;

/// First bytes of a copy.
pub const MAGIC: [u8; 8] = *b"RINGFMB\0";
/// The format that this code writes and reads.
pub const VERSION: u32 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 64;

const OFFSET_VERSION: usize = 8;
const OFFSET_KIND: usize = 12;
const OFFSET_DOMAIN: usize = 16;
const OFFSET_SEQUENCE: usize = 32;
const OFFSET_LENGTH: usize = 40;
const OFFSET_INDEX: usize = 44;
const OFFSET_CRC: usize = 48;

/// Where a pair of copies is in the volume, and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What kind of payload: stored, so that one is never read as another.
    pub kind: u32,
    /// Which of its kind: the slot of a member, else 0.
    pub index: u32,
    /// Where the first copy begins, in bytes; the second follows it.
    pub offset_bytes: u64,
    /// Bytes of a copy, a multiple of [`UNIT_BYTES`].
    pub copy_bytes: usize,
}

/// What is read from a pair of copies: the newest that is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// The domain that it belongs to.
    pub domain: Uuid,
    /// Its number; the next write takes the next one.
    pub sequence: u64,
    /// What it says.
    pub payload: T,
}

/// Why nothing can be read from a pair of copies.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// Nothing was ever written there.
    #[error("nothing has been written there yet")]
    Empty,
    /// It is not of this mailbox: no magic, or another domain, kind or slot.
    #[error("it does not belong to this mailbox")]
    Foreign,
    /// Copies are ours, but none has its right checksum.
    #[error("no copy has its right checksum")]
    Torn,
    /// It was written in a later format.
    #[error("it is in format {0}; this program knows format 1")]
    Unsupported(u32),
    /// The checksum is right, and the payload is none. There is no falling back to the older copy: it was replaced.
    #[error("what it says cannot be: {0}")]
    Impossible(String),
}

/// A payload is too long for its place.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{length_bytes} bytes do not fit: there is room for {limit_bytes}")]
pub struct TooLong {
    /// Bytes that it would take.
    pub length_bytes: usize,
    /// Bytes that there are.
    pub limit_bytes: usize,
}

/// Bytes of one copy to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyWrite {
    /// Where in the volume, in bytes.
    pub offset_bytes: u64,
    /// A multiple of [`UNIT_BYTES`]; what is behind it in the copy does not matter.
    pub bytes: Vec<u8>,
}

enum Copy<'a> {
    Empty,
    Foreign,
    Torn,
    Unsupported(u32),
    Sound {
        domain: Uuid,
        sequence: u64,
        payload: &'a [u8],
    },
}

impl Place {
    /// Encodes the copy that carries `sequence`: even numbers are in the first copy, odd ones in the second.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn encode<T: Serialize>(
        &self,
        domain: Uuid,
        sequence: u64,
        payload: &T,
    ) -> Result<CopyWrite, TooLong> {
        // Our own structures: string keys, nothing that cannot be JSON.
        let payload = serde_json::to_vec(payload).unwrap_or_default();
        let limit_bytes = self.copy_bytes - HEADER_BYTES;
        if payload.is_empty() || payload.len() > limit_bytes {
            return Err(TooLong {
                length_bytes: payload.len(),
                limit_bytes,
            });
        }
        let end = HEADER_BYTES + payload.len();
        let mut bytes = vec![0; end.next_multiple_of(UNIT_BYTES)];
        bytes[..8].copy_from_slice(&MAGIC);
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(OFFSET_VERSION, &VERSION.to_le_bytes());
        put(OFFSET_KIND, &self.kind.to_le_bytes());
        put(OFFSET_DOMAIN, domain.as_bytes());
        put(OFFSET_SEQUENCE, &sequence.to_le_bytes());
        put(OFFSET_LENGTH, &(payload.len() as u32).to_le_bytes());
        put(OFFSET_INDEX, &self.index.to_le_bytes());
        put(HEADER_BYTES, &payload);
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[OFFSET_CRC..OFFSET_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        Ok(CopyWrite {
            offset_bytes: self.copy_offset_bytes(sequence),
            bytes,
        })
    }

    /// Where the copy that carries `sequence` begins, in bytes.
    pub fn copy_offset_bytes(&self, sequence: u64) -> u64 {
        self.offset_bytes + (sequence % 2) * self.copy_bytes as u64
    }

    /// How many bytes of a copy must be read to have all of it, from its first [`UNIT_BYTES`]: a multiple of those. One
    /// unit for what is not ours.
    pub fn length_bytes(&self, start: &[u8]) -> usize {
        let ours = start.len() >= HEADER_BYTES && start[..8] == MAGIC;
        let length = ours.then(|| u32_at(start, OFFSET_LENGTH) as usize);
        length
            .and_then(|length| length.checked_add(HEADER_BYTES))
            .filter(|end| *end <= self.copy_bytes)
            .map_or(UNIT_BYTES, |end| end.next_multiple_of(UNIT_BYTES))
    }

    /// Reads the newest sound copy. A copy is sound with its magic, version, kind, index, a sequence number of its
    /// position and the right checksum; one that is not, torn by a crash or by a read beside the write, is passed over
    /// for the other. `domain`, where known, must be the one written.
    ///
    /// # Errors
    /// [`ReadError`], the most telling one of the two copies.
    pub fn decode<T: DeserializeOwned>(
        &self,
        copies: [&[u8]; 2],
        domain: Option<Uuid>,
    ) -> Result<Read<T>, ReadError> {
        let first = self.copy(copies[0], 0, domain);
        let second = self.copy(copies[1], 1, domain);
        let newest = match (&first, &second) {
            (Copy::Sound { sequence: a, .. }, Copy::Sound { sequence: b, .. }) if b > a => &second,
            (Copy::Sound { .. }, _) => &first,
            _ => &second,
        };
        if let Copy::Sound {
            domain,
            sequence,
            payload,
        } = *newest
        {
            let payload = serde_json::from_slice(payload)
                .map_err(|error| ReadError::Impossible(error.to_string()))?;
            return Ok(Read {
                domain,
                sequence,
                payload,
            });
        }
        Err(match (&first, &second) {
            (Copy::Unsupported(version), _) | (_, Copy::Unsupported(version)) => {
                ReadError::Unsupported(*version)
            }
            (Copy::Torn, _) | (_, Copy::Torn) => ReadError::Torn,
            (Copy::Empty, Copy::Empty) => ReadError::Empty,
            _ => ReadError::Foreign,
        })
    }

    fn copy<'a>(&self, bytes: &'a [u8], position: u64, domain: Option<Uuid>) -> Copy<'a> {
        let Some(header) = bytes.get(..HEADER_BYTES) else {
            return Copy::Foreign;
        };
        if header[..8] != MAGIC {
            let zero = header.iter().all(|byte| *byte == 0);
            return if zero { Copy::Empty } else { Copy::Foreign };
        }
        let length = u32_at(header, OFFSET_LENGTH) as usize;
        let end = HEADER_BYTES.saturating_add(length);
        // A version that is not known may have its checksum elsewhere.
        let version = u32_at(header, OFFSET_VERSION);
        if version != VERSION {
            return Copy::Unsupported(version);
        }
        if end > self.copy_bytes || end > bytes.len() {
            return Copy::Torn;
        }
        let mut crc = crc32c::crc32c(&header[..OFFSET_CRC]);
        crc = crc32c::crc32c_append(crc, &[0; 4]);
        crc = crc32c::crc32c_append(crc, &bytes[OFFSET_CRC + 4..end]);
        if crc != u32_at(header, OFFSET_CRC) {
            return Copy::Torn;
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&header[OFFSET_DOMAIN..OFFSET_DOMAIN + 16]);
        let written = Uuid::from_bytes(uuid);
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&header[OFFSET_SEQUENCE..OFFSET_SEQUENCE + 8]);
        let sequence = u64::from_le_bytes(sequence);
        let ours = u32_at(header, OFFSET_KIND) == self.kind
            && u32_at(header, OFFSET_INDEX) == self.index
            && domain.is_none_or(|domain| domain == written)
            && sequence % 2 == position;
        if !ours {
            return Copy::Foreign;
        }
        Copy::Sound {
            domain: written,
            sequence,
            payload: &bytes[HEADER_BYTES..end],
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
