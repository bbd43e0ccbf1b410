//! What clients write: every sector says whose it is, where it belongs and which write it was.

use bytes::Bytes;
use volume::block_device::{SECTOR_BYTES, aligned_buffer};

/// First bytes of every sector that a client writes; nothing else begins with them.
const MAGIC: [u8; 8] = *b"\xc1ient\xdaTa";

/// The volume of what an earlier life left on a disk; the number of such a write is the byte of the disk where it is.
pub const EARLIER: u32 = u32::MAX;

/// What a sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sector {
    /// Zeroes.
    Zero,
    /// A sector of a client's write.
    Written {
        /// Number of the volume.
        volume: u32,
        /// Number of the sector in the volume.
        sector: u64,
        /// Number of the write.
        write: u64,
    },
    /// Anything else.
    Strange,
}

fn encode(volume: u32, sector: u64, write: u64, out: &mut [u8]) {
    let word =
        (write ^ sector.rotate_left(32) ^ u64::from(volume)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for chunk in out.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    out[0..8].copy_from_slice(&MAGIC);
    out[8..16].copy_from_slice(&u64::from(volume).to_le_bytes());
    out[16..24].copy_from_slice(&sector.to_le_bytes());
    out[24..32].copy_from_slice(&write.to_le_bytes());
}

/// The sectors from `first` on, as write `write` of `volume` writes them, in an aligned buffer.
pub fn data(volume: u32, first: u64, sectors: u64, write: u64) -> Bytes {
    let mut buf = aligned_buffer(sectors as usize * SECTOR_BYTES);
    for (number, out) in (first..).zip(buf.chunks_exact_mut(SECTOR_BYTES)) {
        encode(volume, number, write, out);
    }
    buf.freeze()
}

/// Whether a sector begins as a client's does.
pub fn is_tagged(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Reads a sector of 512 bytes.
pub fn decode(bytes: &[u8]) -> Sector {
    if bytes[..8] == [0; 8] {
        return if bytes.iter().all(|byte| *byte == 0) {
            Sector::Zero
        } else {
            Sector::Strange
        };
    }
    if !is_tagged(bytes) || bytes.len() != SECTOR_BYTES {
        return Sector::Strange;
    }
    let word =
        |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| bytes[at + byte]));
    let (volume, sector, write) = (word(8) as u32, word(16), word(24));
    let mut whole = [0; SECTOR_BYTES];
    encode(volume, sector, write, &mut whole);
    if whole == *bytes {
        Sector::Written {
            volume,
            sector,
            write,
        }
    } else {
        Sector::Strange
    }
}
