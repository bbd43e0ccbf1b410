//! Transfers and verification: READ, WRITE, VERIFY and their relatives (SBC-3, WRITE ATOMIC SBC-4).

use super::raw::Raw;
use super::{CdbBytes, CdbError, CommandId};

/// Which of the forms of a command: its CDB length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransferSize {
    /// 6-byte CDB: 21-bit LBA, 1 to 256 blocks.
    Six,
    /// 10-byte CDB: 32-bit LBA, 16-bit length.
    Ten,
    /// 12-byte CDB: 32-bit LBA, 32-bit length.
    Twelve,
    /// 16-byte CDB: 64-bit LBA, 32-bit length.
    Sixteen,
}

impl TransferSize {
    pub(super) fn pick<T>(self, six: T, ten: T, twelve: T, sixteen: T) -> T {
        match self {
            TransferSize::Six => six,
            TransferSize::Ten => ten,
            TransferSize::Twelve => twelve,
            TransferSize::Sixteen => sixteen,
        }
    }

    /// Reads LOGICAL BLOCK ADDRESS and the length field where this form has them.
    pub(super) fn range(self, raw: &Raw) -> (u64, u32) {
        match self {
            TransferSize::Six => (
                u64::from(raw.u24(1) & 0x1f_ffff),
                if raw.u8(4) == 0 {
                    256
                } else {
                    raw.u8(4).into()
                },
            ),
            TransferSize::Ten => (raw.u32(2).into(), raw.u16(7).into()),
            TransferSize::Twelve => (raw.u32(2).into(), raw.u32(6)),
            TransferSize::Sixteen => (raw.u64(2), raw.u32(10)),
        }
    }

    /// The smallest of `forms` (in ascending order) that is at least this one and holds the range; the last where none
    /// does.
    pub(super) fn holding(
        self,
        forms: &[TransferSize],
        lba: u64,
        length_blocks: u32,
    ) -> TransferSize {
        let holds = |form: TransferSize| match form {
            TransferSize::Six => lba < 1 << 21 && (1..=256).contains(&length_blocks),
            TransferSize::Ten => lba <= u32::MAX.into() && length_blocks <= u16::MAX.into(),
            TransferSize::Twelve => lba <= u32::MAX.into(),
            TransferSize::Sixteen => true,
        };
        forms
            .iter()
            .copied()
            .find(|&form| form >= self && holds(form))
            .unwrap_or(TransferSize::Sixteen)
    }

    /// Writes the range into a CDB of this form, which [`TransferSize::holding`] chose.
    pub(super) fn put_range(self, cdb: CdbBytes, lba: u64, length_blocks: u32) -> CdbBytes {
        match self {
            TransferSize::Six => {
                let [.., high, middle, low] = lba.to_be_bytes();
                cdb.put(1, [high & 0x1f, middle, low])
                    .put(4, [length_blocks as u8])
            }
            TransferSize::Ten => cdb
                .put(2, (lba as u32).to_be_bytes())
                .put(7, (length_blocks as u16).to_be_bytes()),
            TransferSize::Twelve => cdb
                .put(2, (lba as u32).to_be_bytes())
                .put(6, length_blocks.to_be_bytes()),
            TransferSize::Sixteen => cdb
                .put(2, lba.to_be_bytes())
                .put(10, length_blocks.to_be_bytes()),
        }
    }
}

/// READ, WRITE or ORWRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Form of the CDB. Encoding uses the next larger form when the range does not fit this one.
    pub size: TransferSize,
    /// First logical block.
    pub lba: u64,
    /// TRANSFER LENGTH in logical blocks; 0 transfers nothing. The 6-byte form's 0 is already 256 here.
    pub length_blocks: u32,
    /// DPO: the blocks are not worth caching.
    pub dpo: bool,
    /// FUA (or SBC-2's FUA_NV): read from or write to the medium.
    pub fua: bool,
}

const ALL_FORMS: &[TransferSize] = &[
    TransferSize::Six,
    TransferSize::Ten,
    TransferSize::Twelve,
    TransferSize::Sixteen,
];
const TEN_TO_SIXTEEN: &[TransferSize] = &[
    TransferSize::Ten,
    TransferSize::Twelve,
    TransferSize::Sixteen,
];
pub(super) const TEN_AND_SIXTEEN: &[TransferSize] = &[TransferSize::Ten, TransferSize::Sixteen];

impl Transfer {
    pub(super) fn decode(size: TransferSize, raw: &Raw) -> Transfer {
        let (lba, length_blocks) = size.range(raw);
        let flags = if size == TransferSize::Six {
            0
        } else {
            raw.u8(1)
        };
        Transfer {
            size,
            lba,
            length_blocks,
            dpo: flags & 0x10 != 0,
            fua: flags & 0x0a != 0,
        }
    }

    /// The same with the smallest form, from `size` up, that holds range and flags.
    pub(super) fn fitted(&self) -> Transfer {
        let at_least = if self.dpo || self.fua {
            self.size.max(TransferSize::Ten)
        } else {
            self.size
        };
        Transfer {
            size: at_least.holding(ALL_FORMS, self.lba, self.length_blocks),
            ..*self
        }
    }

    /// Encodes as `id`, whose form is `self.size`.
    pub(super) fn encode(&self, id: CommandId) -> CdbBytes {
        let cdb = self
            .size
            .put_range(CdbBytes::new(id), self.lba, self.length_blocks);
        cdb.flag(1, 4, self.dpo).flag(1, 3, self.fua)
    }
}

/// BYTCHK of VERIFY and WRITE AND VERIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteCheck {
    /// 00b: VERIFY reads the medium and takes no data-out; WRITE AND VERIFY verifies without comparing.
    Medium,
    /// 01b: compare the medium with the data-out, block by block.
    Compare,
    /// 11b (VERIFY only): the data-out is one block, compared with every block.
    CompareOneBlock,
}

/// VERIFY or WRITE AND VERIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Form of the CDB; never [`TransferSize::Six`] when decoded.
    pub size: TransferSize,
    /// First logical block.
    pub lba: u64,
    /// VERIFICATION LENGTH or TRANSFER LENGTH in logical blocks.
    pub length_blocks: u32,
    /// DPO.
    pub dpo: bool,
    /// BYTCHK.
    pub byte_check: ByteCheck,
}

impl Verify {
    pub(super) fn decode(size: TransferSize, raw: &Raw) -> Result<Verify, CdbError> {
        let (lba, length_blocks) = size.range(raw);
        let byte_check = match raw.u8(1) >> 1 & 0x3 {
            0 => ByteCheck::Medium,
            1 => ByteCheck::Compare,
            3 => ByteCheck::CompareOneBlock,
            _ => {
                return Err(CdbError::InvalidField {
                    byte: 1,
                    bit: Some(2),
                });
            }
        };
        Ok(Verify {
            size,
            lba,
            length_blocks,
            dpo: raw.bit(1, 4),
            byte_check,
        })
    }

    /// Refuses BYTCHK=11b, which WRITE AND VERIFY does not define.
    pub(super) fn without_one_block(self) -> Result<Verify, CdbError> {
        match self.byte_check {
            ByteCheck::CompareOneBlock => Err(CdbError::InvalidField {
                byte: 1,
                bit: Some(2),
            }),
            _ => Ok(self),
        }
    }

    pub(super) fn fitted(&self) -> Verify {
        Verify {
            size: self
                .size
                .holding(TEN_TO_SIXTEEN, self.lba, self.length_blocks),
            ..*self
        }
    }

    pub(super) fn encode(&self, id: CommandId) -> CdbBytes {
        let check = match self.byte_check {
            ByteCheck::Medium => 0,
            ByteCheck::Compare => 1,
            ByteCheck::CompareOneBlock => 3,
        };
        let cdb = self
            .size
            .put_range(CdbBytes::new(id), self.lba, self.length_blocks);
        cdb.flag(1, 4, self.dpo).or(1, check << 1)
    }
}

/// COMPARE AND WRITE: the data-out is twice `length_blocks`, first the blocks to compare, then those to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareAndWrite {
    /// First logical block.
    pub lba: u64,
    /// NUMBER OF LOGICAL BLOCKS.
    pub length_blocks: u8,
    /// DPO.
    pub dpo: bool,
    /// FUA or FUA_NV.
    pub fua: bool,
}

impl CompareAndWrite {
    pub(super) fn decode(raw: &Raw) -> CompareAndWrite {
        CompareAndWrite {
            lba: raw.u64(2),
            length_blocks: raw.u8(13),
            dpo: raw.bit(1, 4),
            fua: raw.u8(1) & 0x0a != 0,
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::CompareAndWrite)
            .flag(1, 4, self.dpo)
            .flag(1, 3, self.fua)
            .put(2, self.lba.to_be_bytes())
            .put(13, [self.length_blocks])
    }
}

/// WRITE ATOMIC(16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAtomic16 {
    /// First logical block.
    pub lba: u64,
    /// ATOMIC BOUNDARY in logical blocks: the write is atomic within each span of this many blocks; 0 means that the
    /// whole write is.
    pub boundary_blocks: u16,
    /// TRANSFER LENGTH in logical blocks.
    pub length_blocks: u16,
    /// DPO.
    pub dpo: bool,
    /// FUA.
    pub fua: bool,
}

impl WriteAtomic16 {
    pub(super) fn decode(raw: &Raw) -> WriteAtomic16 {
        WriteAtomic16 {
            lba: raw.u64(2),
            boundary_blocks: raw.u16(10),
            length_blocks: raw.u16(12),
            dpo: raw.bit(1, 4),
            fua: raw.bit(1, 3),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::WriteAtomic16)
            .flag(1, 4, self.dpo)
            .flag(1, 3, self.fua)
            .put(2, self.lba.to_be_bytes())
            .put(10, self.boundary_blocks.to_be_bytes())
            .put(12, self.length_blocks.to_be_bytes())
    }
}
