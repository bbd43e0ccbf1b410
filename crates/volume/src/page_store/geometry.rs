//! Where the parts of a page store are in its area.

use super::header::{ENTRY_BYTES, FIXED_BYTES, MAX_MEMBERS, MEMBER_BYTES};

/// Size of a page and unit of all I/O, in bytes.
pub const PAGE_BYTES: u64 = 4096;

/// Bytes of a header copy that do not depend on the number of pages.
const HEADER_BASE_BYTES: u64 = (FIXED_BYTES + MAX_MEMBERS * MEMBER_BYTES) as u64;

/// The layout of an area: two header copies, then for each page its two copies side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Room for one header copy in bytes; a multiple of [`PAGE_BYTES`].
    pub header_copy_bytes: u64,
    /// Number of pages that fit.
    pub capacity_pages: u32,
}

impl Geometry {
    /// The layout of an area of `length_bytes`, or `None` when not one page fits.
    pub fn of(length_bytes: u64) -> Option<Geometry> {
        let mut capacity = length_bytes / (2 * PAGE_BYTES + 2 * ENTRY_BYTES as u64);
        capacity = capacity.min(u64::from(u32::MAX));
        while capacity > 0 {
            let header_copy_bytes =
                (HEADER_BASE_BYTES + capacity * ENTRY_BYTES as u64).next_multiple_of(PAGE_BYTES);
            if 2 * header_copy_bytes + capacity * 2 * PAGE_BYTES <= length_bytes {
                return Some(Geometry {
                    header_copy_bytes,
                    capacity_pages: u32::try_from(capacity).ok()?,
                });
            }
            capacity -= 1;
        }
        None
    }

    /// Offset in the area of header copy 0 or 1.
    pub fn header_offset_bytes(&self, copy: u8) -> u64 {
        u64::from(copy) * self.header_copy_bytes
    }

    /// Offset in the area of copy 0 or 1 of a page; `page` is below the capacity.
    pub fn page_offset_bytes(&self, page: u32, copy: u8) -> u64 {
        debug_assert!(page < self.capacity_pages);
        2 * self.header_copy_bytes + (2 * u64::from(page) + u64::from(copy)) * PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_and_nothing_overlaps() {
        for length in [16_384, 1_056_768, 1_114_112, 4 << 20, 256 << 20] {
            let geometry = Geometry::of(length).unwrap();
            let last = geometry.page_offset_bytes(geometry.capacity_pages - 1, 1);
            assert!(last + PAGE_BYTES <= length);
            assert!(
                HEADER_BASE_BYTES + u64::from(geometry.capacity_pages) * ENTRY_BYTES as u64
                    <= geometry.header_copy_bytes
            );
            assert!(
                length - (last + PAGE_BYTES) < 4 * PAGE_BYTES,
                "no more than a page and a header page of {length} wasted"
            );
        }
        assert_eq!(Geometry::of(16_383), None);
    }
}
