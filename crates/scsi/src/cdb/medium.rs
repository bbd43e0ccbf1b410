//! What the medium is: READ CAPACITY, READ DEFECT DATA (SBC-3).

use super::block::TransferSize;
use super::raw::Raw;
use super::{CdbBytes, CdbError, CommandId};

/// READ CAPACITY(10) with the fields that SBC-3 makes obsolete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCapacity10 {
    /// LOGICAL BLOCK ADDRESS; zero unless `pmi`.
    pub lba: u32,
    /// PMI.
    pub pmi: bool,
}

impl ReadCapacity10 {
    pub(super) fn decode(raw: &Raw) -> Result<ReadCapacity10, CdbError> {
        let command = ReadCapacity10 {
            lba: raw.u32(2),
            pmi: raw.bit(8, 0),
        };
        if command.lba != 0 && !command.pmi {
            return Err(CdbError::InvalidField { byte: 2, bit: None });
        }
        Ok(command)
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::ReadCapacity10)
            .put(2, self.lba.to_be_bytes())
            .flag(8, 0, self.pmi)
    }
}

/// READ CAPACITY(16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadCapacity16 {
    /// LOGICAL BLOCK ADDRESS (obsolete); zero unless `pmi`.
    pub lba: u64,
    /// PMI (obsolete).
    pub pmi: bool,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u32,
}

impl ReadCapacity16 {
    pub(super) fn decode(raw: &Raw) -> Result<ReadCapacity16, CdbError> {
        let command = ReadCapacity16 {
            lba: raw.u64(2),
            pmi: raw.bit(14, 0),
            allocation_length: raw.u32(10),
        };
        if command.lba != 0 && !command.pmi {
            return Err(CdbError::InvalidField { byte: 2, bit: None });
        }
        Ok(command)
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::ReadCapacity16)
            .put(2, self.lba.to_be_bytes())
            .put(10, self.allocation_length.to_be_bytes())
            .flag(14, 0, self.pmi)
    }
}

/// READ DEFECT DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadDefectData {
    /// Form of the CDB: Ten or Twelve.
    pub size: TransferSize,
    /// REQ_PLIST: the defects known at manufacturing.
    pub primary: bool,
    /// REQ_GLIST: the defects that grew since.
    pub grown: bool,
    /// DEFECT LIST FORMAT, 0 to 7.
    pub format: u8,
    /// ADDRESS DESCRIPTOR INDEX (12-byte form; else 0).
    pub descriptor_index: u32,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u32,
}

impl ReadDefectData {
    pub(super) fn decode(size: TransferSize, raw: &Raw) -> ReadDefectData {
        let (flags, descriptor_index, allocation_length) = match size {
            TransferSize::Six | TransferSize::Ten => (raw.u8(2), 0, raw.u16(7).into()),
            TransferSize::Twelve | TransferSize::Sixteen => (raw.u8(1), raw.u32(2), raw.u32(6)),
        };
        ReadDefectData {
            size,
            primary: flags & 0x10 != 0,
            grown: flags & 0x08 != 0,
            format: flags & 0x07,
            descriptor_index,
            allocation_length,
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let flags = u8::from(self.primary) << 4 | u8::from(self.grown) << 3 | self.format & 0x07;
        match u16::try_from(self.allocation_length) {
            Ok(length) if self.size <= TransferSize::Ten && self.descriptor_index == 0 => {
                CdbBytes::new(CommandId::ReadDefectData10)
                    .or(2, flags)
                    .put(7, length.to_be_bytes())
            }
            _ => CdbBytes::new(CommandId::ReadDefectData12)
                .or(1, flags)
                .put(2, self.descriptor_index.to_be_bytes())
                .put(6, self.allocation_length.to_be_bytes()),
        }
    }
}
