//! Provisioning and erasure: WRITE SAME, UNMAP, GET LBA STATUS, SANITIZE (SBC-3).

use super::block::{TEN_AND_SIXTEEN, TransferSize};
use super::raw::Raw;
use super::{CdbBytes, CdbError, CommandId};

/// WRITE SAME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteSame {
    /// Form of the CDB: Ten or Sixteen.
    pub size: TransferSize,
    /// First logical block.
    pub lba: u64,
    /// NUMBER OF LOGICAL BLOCKS; 0 means to the end of the medium when WSNZ is zero (block limits VPD page).
    pub length_blocks: u32,
    /// UNMAP: unmapping is as good as writing where the result reads the same.
    pub unmap: bool,
    /// ANCHOR; only with `unmap`.
    pub anchor: bool,
    /// NDOB (16-byte form): there is no data-out, the block is all zeroes.
    pub no_data_out_buffer: bool,
}

impl WriteSame {
    pub(super) fn decode(size: TransferSize, raw: &Raw) -> Result<WriteSame, CdbError> {
        let (lba, length_blocks) = size.range(raw);
        let (unmap, anchor) = (raw.bit(1, 3), raw.bit(1, 4));
        if anchor && !unmap {
            return Err(CdbError::InvalidField {
                byte: 1,
                bit: Some(4),
            });
        }
        // Bit 0 of the 10-byte form is reserved and already known to be zero.
        Ok(WriteSame {
            size,
            lba,
            length_blocks,
            unmap,
            anchor,
            no_data_out_buffer: raw.bit(1, 0),
        })
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let at_least = if self.no_data_out_buffer {
            TransferSize::Sixteen
        } else {
            self.size
        };
        let size = at_least.holding(TEN_AND_SIXTEEN, self.lba, self.length_blocks);
        let id = if size == TransferSize::Ten {
            CommandId::WriteSame10
        } else {
            CommandId::WriteSame16
        };
        size.put_range(CdbBytes::new(id), self.lba, self.length_blocks)
            .flag(1, 4, self.anchor)
            .flag(1, 3, self.unmap)
            .flag(1, 0, self.no_data_out_buffer)
    }
}

/// UNMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmap {
    /// ANCHOR.
    pub anchor: bool,
    /// PARAMETER LIST LENGTH in bytes.
    pub parameter_list_length: u16,
}

impl Unmap {
    pub(super) fn decode(raw: &Raw) -> Unmap {
        Unmap {
            anchor: raw.bit(1, 0),
            parameter_list_length: raw.u16(7),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::Unmap)
            .flag(1, 0, self.anchor)
            .put(7, self.parameter_list_length.to_be_bytes())
    }
}

/// GET LBA STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetLbaStatus {
    /// STARTING LOGICAL BLOCK ADDRESS.
    pub lba: u64,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u32,
}

impl GetLbaStatus {
    pub(super) fn decode(raw: &Raw) -> GetLbaStatus {
        GetLbaStatus {
            lba: raw.u64(2),
            allocation_length: raw.u32(10),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::GetLbaStatus)
            .put(2, self.lba.to_be_bytes())
            .put(10, self.allocation_length.to_be_bytes())
    }
}

/// Service action of SANITIZE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SanitizeAction {
    /// 01h: write a pattern over everything.
    Overwrite,
    /// 02h: erase in the medium's own way.
    BlockErase,
    /// 03h: forget the key that the medium is encrypted with.
    CryptographicErase,
    /// 1Fh: leave the state that a failed sanitize left behind.
    ExitFailureMode,
}

/// SANITIZE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sanitize {
    /// What to do.
    pub action: SanitizeAction,
    /// IMMED.
    pub immediate: bool,
    /// AUSE: EXIT FAILURE MODE is allowed after a failure of this one.
    pub allow_unrestricted_exit: bool,
    /// PARAMETER LIST LENGTH in bytes; zero except for OVERWRITE.
    pub parameter_list_length: u16,
}

impl Sanitize {
    pub(super) fn decode(id: CommandId, raw: &Raw) -> Result<Sanitize, CdbError> {
        let action = match id {
            CommandId::SanitizeOverwrite => SanitizeAction::Overwrite,
            CommandId::SanitizeBlockErase => SanitizeAction::BlockErase,
            CommandId::SanitizeCryptographicErase => SanitizeAction::CryptographicErase,
            CommandId::SanitizeExitFailureMode => SanitizeAction::ExitFailureMode,
            _ => {
                return Err(CdbError::InvalidField {
                    byte: 1,
                    bit: Some(4),
                });
            }
        };
        let parameter_list_length = raw.u16(7);
        if action != SanitizeAction::Overwrite && parameter_list_length != 0 {
            return Err(CdbError::InvalidField { byte: 7, bit: None });
        }
        Ok(Sanitize {
            action,
            immediate: raw.bit(1, 7),
            allow_unrestricted_exit: raw.bit(1, 5),
            parameter_list_length,
        })
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let id = match self.action {
            SanitizeAction::Overwrite => CommandId::SanitizeOverwrite,
            SanitizeAction::BlockErase => CommandId::SanitizeBlockErase,
            SanitizeAction::CryptographicErase => CommandId::SanitizeCryptographicErase,
            SanitizeAction::ExitFailureMode => CommandId::SanitizeExitFailureMode,
        };
        CdbBytes::new(id)
            .flag(1, 7, self.immediate)
            .flag(1, 5, self.allow_unrestricted_exit)
            .put(7, self.parameter_list_length.to_be_bytes())
    }
}
