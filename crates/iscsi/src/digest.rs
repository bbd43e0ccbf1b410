//! CRC32C digests (RFC 7143 13.1, 11.2.3).

use crate::pdu::padding_bytes;

/// Length of a digest in bytes.
pub const DIGEST_BYTES: usize = 4;

/// A digest under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digest(u32);

impl Digest {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// Adds the zeroes that pad a segment of `length_bytes`.
    pub fn pad(&mut self, length_bytes: usize) {
        self.update(&[0; 3][..padding_bytes(length_bytes)]);
    }

    /// The four bytes on the wire: least significant byte first, as the bit order of RFC 7143 13.1 comes out.
    pub fn to_wire(self) -> [u8; DIGEST_BYTES] {
        self.0.to_le_bytes()
    }
}

/// The digest of a header with its additional segments.
pub fn of_header(header: &[u8], additional: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut digest = Digest::default();
    digest.update(header);
    digest.update(additional);
    digest.to_wire()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
        of_header(bytes, &[])
    }

    /// The examples of RFC 7143 Appendix B.4 (RFC 3720 B.4).
    #[test]
    fn examples_of_the_standard() {
        assert_eq!(of(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(of(&[0xff; 32]), [0x43, 0xab, 0xa8, 0x62]);
        let up: Vec<u8> = (0..32).collect();
        assert_eq!(of(&up), [0x4e, 0x79, 0xdd, 0x46]);
        let down: Vec<u8> = (0..32).rev().collect();
        assert_eq!(of(&down), [0x5c, 0xdb, 0x3f, 0x11]);
    }

    #[test]
    fn padding_counts() {
        let mut padded = Digest::default();
        padded.update(&[1, 2, 3, 4, 5]);
        padded.pad(5);
        assert_eq!(padded.to_wire(), of(&[1, 2, 3, 4, 5, 0, 0, 0]));
    }
}
