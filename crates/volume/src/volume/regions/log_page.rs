//! The bytes of the region log.
//!
//! A page of 4 KiB holds one set of regions. It is eight sectors that each say everything about themselves, because a
//! sector is what no crash tears: a page that was being written at a crash is, sector by sector, the old or the new one,
//! and both are valid. So a crash never costs what it did not concern.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::bitmap::Regions;
use crate::block_device::{SECTOR_BYTES, aligned_buffer};
use crate::config::MAX_PLEXES;
use crate::volume::atomic_write;

/// Length of a page in bytes.
pub const PAGE_BYTES: usize = 4096;
/// Sectors of a page.
pub const SECTORS: usize = PAGE_BYTES / SECTOR_BYTES;
/// Pages of a log: one for the dirty regions, one for the stale regions of each plex.
pub const PAGES: usize = 1 + MAX_PLEXES;
/// Length of the region log in bytes: two copies of each page.
pub const LOG_BYTES: usize = 2 * PAGES * PAGE_BYTES;
/// First byte of the region log in a plex's log extent: after the intents.
pub const LOG_OFFSET: u64 = atomic_write::AREA_BYTES;
/// Regions in one sector.
pub const SECTOR_REGIONS: u32 = 8 * (OFFSET_CRC32C - OFFSET_REGIONS_SET) as u32;
/// Most regions of a volume.
pub const MAX_REGIONS: u32 = SECTOR_REGIONS * SECTORS as u32;

const MAGIC: [u8; 4] = *b"RFRL";
const VERSION: u16 = 1;

pub(crate) const OFFSET_VERSION: usize = 4;
pub(crate) const OFFSET_KIND: usize = 6;
pub(crate) const OFFSET_SECTOR: usize = 7;
pub(crate) const OFFSET_SEQUENCE: usize = 8;
pub(crate) const OFFSET_VOLUME: usize = 16;
pub(crate) const OFFSET_PLEX: usize = 32;
pub(crate) const OFFSET_COUNT: usize = 48;
pub(crate) const OFFSET_REGION_SHIFT: usize = 52;
pub(crate) const OFFSET_REGIONS_SET: usize = 56;
pub(crate) const OFFSET_CRC32C: usize = 508;

// The log has its place behind the intents.
const _: () = assert!(LOG_OFFSET + LOG_BYTES as u64 <= crate::volume::PLEX_LOG_BYTES);

/// What a set of regions says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Writes may be in flight there.
    Dirty,
    /// This plex has no valid data there.
    Stale(Uuid),
}

/// How a volume is divided into regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Geometry {
    /// Binary logarithm of the bytes of a region.
    pub(crate) region_shift: u8,
    /// Number of regions.
    pub(crate) count: u32,
}

impl Geometry {
    /// The regions of a volume of `size_bytes`; `None` when a region's size is not a power of two or there are more than
    /// [`MAX_REGIONS`].
    pub(crate) fn new(size_bytes: u64, region_bytes: u64) -> Option<Geometry> {
        if !region_bytes.is_power_of_two() {
            return None;
        }
        let count = u32::try_from(size_bytes.div_ceil(region_bytes)).ok()?;
        (count <= MAX_REGIONS).then_some(Geometry {
            region_shift: region_bytes.trailing_zeros() as u8,
            count,
        })
    }

    /// Bytes of a region.
    pub(crate) fn region_bytes(self) -> u64 {
        1 << self.region_shift
    }

    /// Sectors that hold a set.
    pub(crate) fn sectors(self) -> usize {
        self.count.div_ceil(SECTOR_REGIONS) as usize
    }
}

/// A sector of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sector {
    pub(crate) kind: Kind,
    /// Which sector of its page.
    pub(crate) number: u8,
    /// Of the commit that changed the set last; the higher one counts.
    pub(crate) sequence: u64,
    pub(crate) geometry: Geometry,
    /// Bit k of it is region `number * SECTOR_REGIONS + k`.
    pub(crate) regions: Regions,
}

/// What 512 bytes of a log are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Never written since the log was formatted.
    Blank,
    /// Nothing that was ever written there whole.
    Damaged,
    /// A sector.
    Sector(Sector),
}

/// The page of a set, in an aligned buffer.
pub(crate) fn encode(
    volume: Uuid,
    kind: Kind,
    sequence: u64,
    geometry: Geometry,
    set: &Regions,
) -> Bytes {
    let mut page: BytesMut = aligned_buffer(PAGE_BYTES);
    for (number, sector) in page.chunks_exact_mut(SECTOR_BYTES).enumerate() {
        let first = number as u32 * SECTOR_REGIONS;
        let mut put = |offset: usize, bytes: &[u8]| {
            sector[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        let (code, plex) = match kind {
            Kind::Dirty => (1, Uuid::nil()),
            Kind::Stale(plex) => (2, plex),
        };
        put(0, &MAGIC);
        put(OFFSET_VERSION, &VERSION.to_le_bytes());
        put(OFFSET_KIND, &[code]);
        put(OFFSET_SECTOR, &[number as u8]);
        put(OFFSET_SEQUENCE, &sequence.to_le_bytes());
        put(OFFSET_VOLUME, volume.as_bytes());
        put(OFFSET_PLEX, plex.as_bytes());
        put(OFFSET_COUNT, &geometry.count.to_le_bytes());
        put(OFFSET_REGION_SHIFT, &[geometry.region_shift]);
        for bit in 0..SECTOR_REGIONS {
            if set.get(first + bit) {
                sector[OFFSET_REGIONS_SET + bit as usize / 8] |= 1 << (bit % 8);
            }
        }
        let crc = crc32c::crc32c(&sector[..OFFSET_CRC32C]);
        sector[OFFSET_CRC32C..].copy_from_slice(&crc.to_le_bytes());
    }
    page.freeze()
}

/// Reads 512 bytes.
pub(crate) fn decode(bytes: &[u8], volume: Uuid) -> Found {
    if bytes.iter().all(|byte| *byte == 0) {
        return Found::Blank;
    }
    match sector(bytes, volume) {
        Some(sector) => Found::Sector(sector),
        None => Found::Damaged,
    }
}

fn sector(bytes: &[u8], volume: Uuid) -> Option<Sector> {
    let bytes: &[u8; SECTOR_BYTES] = bytes.try_into().ok()?;
    let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    let uuid_at = |at: usize| {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[at..at + 16]);
        Uuid::from_bytes(uuid)
    };
    let whole = bytes[..4] == MAGIC
        && crc32c::crc32c(&bytes[..OFFSET_CRC32C]) == u32_at(OFFSET_CRC32C)
        && u16::from_le_bytes([bytes[OFFSET_VERSION], bytes[OFFSET_VERSION + 1]]) == VERSION
        && uuid_at(OFFSET_VOLUME) == volume;
    if !whole {
        return None;
    }
    let kind = match bytes[OFFSET_KIND] {
        1 => Kind::Dirty,
        2 => Kind::Stale(uuid_at(OFFSET_PLEX)),
        _ => return None,
    };
    let geometry = Geometry {
        region_shift: bytes[OFFSET_REGION_SHIFT],
        count: u32_at(OFFSET_COUNT),
    };
    let number = bytes[OFFSET_SECTOR];
    if geometry.region_shift > 60 || geometry.count > MAX_REGIONS || usize::from(number) >= SECTORS
    {
        return None;
    }
    let mut regions = Regions::new(SECTOR_REGIONS, false);
    for bit in 0..SECTOR_REGIONS {
        if bytes[OFFSET_REGIONS_SET + bit as usize / 8] >> (bit % 8) & 1 == 1 {
            regions.set(bit);
        }
    }
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&bytes[OFFSET_SEQUENCE..OFFSET_SEQUENCE + 8]);
    Some(Sector {
        kind,
        number,
        sequence: u64::from_le_bytes(sequence),
        geometry,
        regions,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VOLUME: Uuid = Uuid::from_u128(3);

    proptest! {
        #[test]
        fn what_is_written_is_read_and_a_damaged_sector_is_known(
            count in 1..=MAX_REGIONS,
            set in prop::collection::btree_set(0..MAX_REGIONS, 0..50),
            sequence: u64,
            stale: bool,
            at in 0..PAGE_BYTES,
            bit in 0u8..8,
        ) {
            let geometry = Geometry { region_shift: 20, count };
            let kind = if stale { Kind::Stale(Uuid::from_u128(9)) } else { Kind::Dirty };
            let mut regions = Regions::new(count, false);
            for region in set {
                regions.set(region);
            }
            let mut page = encode(VOLUME, kind, sequence, geometry, &regions).to_vec();
            let mut found = Regions::new(count, false);
            for (number, bytes) in page.chunks_exact(SECTOR_BYTES).enumerate() {
                let Found::Sector(sector) = decode(bytes, VOLUME) else {
                    panic!("sector {number}");
                };
                prop_assert_eq!((sector.kind, sector.sequence), (kind, sequence));
                prop_assert_eq!((sector.geometry, usize::from(sector.number)), (geometry, number));
                for region in sector.regions.iter() {
                    found.set(number as u32 * SECTOR_REGIONS + region);
                }
                prop_assert_eq!(decode(bytes, Uuid::from_u128(4)), Found::Damaged);
            }
            prop_assert_eq!(found, regions);
            page[at] ^= 1 << bit;
            let damaged = &page[at / SECTOR_BYTES * SECTOR_BYTES..][..SECTOR_BYTES];
            prop_assert_eq!(decode(damaged, VOLUME), Found::Damaged);
        }

        #[test]
        fn noise_is_no_sector(mut bytes in prop::collection::vec(any::<u8>(), SECTOR_BYTES)) {
            bytes[..4].copy_from_slice(&MAGIC);
            prop_assert_eq!(decode(&bytes, VOLUME), Found::Damaged);
        }
    }

    #[test]
    fn nothing_is_blank() {
        assert_eq!(decode(&[0; SECTOR_BYTES], VOLUME), Found::Blank);
    }
}
