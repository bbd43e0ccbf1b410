//! Reading and writing the fields of a CDB of at most 16 bytes.

use super::{CdbError, CommandId};

/// A CDB on the wire: 6, 10, 12 or 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CdbBytes {
    bytes: [u8; 16],
    length: u8,
}

impl CdbBytes {
    /// A CDB with operation code and service action set, everything else zero.
    pub(super) fn new(id: CommandId) -> CdbBytes {
        let descriptor = id.descriptor();
        let mut bytes = [0; 16];
        bytes[0] = descriptor.operation_code;
        bytes[1] = descriptor.service_action.unwrap_or(0);
        // Every row of the table has 6 to 16 bytes.
        CdbBytes {
            bytes,
            length: descriptor.usage.len() as u8,
        }
    }

    /// The 16 bytes padded with zeroes, as the iSCSI basic header segment carries them (RFC 7143 11.3.5).
    pub fn padded(&self) -> [u8; 16] {
        self.bytes
    }

    pub(super) fn or(mut self, at: usize, bits: u8) -> CdbBytes {
        self.bytes[at] |= bits;
        self
    }

    pub(super) fn flag(self, at: usize, bit: u8, value: bool) -> CdbBytes {
        self.or(at, u8::from(value) << bit)
    }

    pub(super) fn put<const N: usize>(mut self, at: usize, value: [u8; N]) -> CdbBytes {
        self.bytes[at..at + N].copy_from_slice(&value);
        self
    }
}

impl std::ops::Deref for CdbBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for CdbBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// A CDB to decode, padded to 16 bytes. The offsets given to its methods are constants below 16.
#[derive(Clone, Copy)]
pub(super) struct Raw([u8; 16]);

impl Raw {
    /// Takes the CDB of `id` from `cdb` and refuses non-zero bits in reserved or unsupported fields.
    pub(super) fn checked(id: CommandId, cdb: &[u8]) -> Result<Raw, CdbError> {
        let descriptor = id.descriptor();
        let length = descriptor.usage.len();
        let cdb = cdb.get(..length).ok_or(CdbError::TooShort {
            length_bytes: cdb.len(),
        })?;
        let mut bytes = [0; 16];
        bytes[..length].copy_from_slice(cdb);
        match u128::from_be_bytes(bytes) & !descriptor.allowed {
            0 => Ok(Raw(bytes)),
            wrong => Err(first_wrong_field(wrong, descriptor.allowed)),
        }
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    pub(super) fn bit(&self, at: usize, bit: u8) -> bool {
        self.0[at] >> bit & 1 != 0
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    pub(super) fn u24(&self, at: usize) -> u32 {
        u32::from_be_bytes([0, self.0[at], self.0[at + 1], self.0[at + 2]])
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }
}

/// Finds the field of the first non-zero bit that is not allowed: the run of disallowed bits within its byte, named by
/// its most significant bit (SPC-4 4.5.2.4.2), or the byte alone when the whole byte is reserved.
#[cold]
fn first_wrong_field(wrong: u128, allowed: u128) -> CdbError {
    // `wrong` is not zero, so there are at most 127 leading zeroes.
    let at = (wrong.leading_zeros() / 8) as usize;
    let wrong = wrong.to_be_bytes()[at];
    let allowed = allowed.to_be_bytes()[at];
    let mut bit = 7 - wrong.leading_zeros() as u8;
    while bit < 7 && allowed >> (bit + 1) & 1 == 0 {
        bit += 1;
    }
    CdbError::InvalidField {
        byte: at as u16,
        bit: (allowed != 0).then_some(bit),
    }
}
