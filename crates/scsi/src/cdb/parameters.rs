//! Mode and log parameters: MODE SENSE, MODE SELECT, LOG SENSE (SPC-4).

use super::raw::Raw;
use super::{CdbBytes, CommandId};

/// Form of MODE SENSE and MODE SELECT, and of the header of their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModeSize {
    /// 6-byte CDB, 4-byte header.
    Six,
    /// 10-byte CDB, 8-byte header.
    Ten,
}

/// PC: which values MODE SENSE returns, or LOG SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageControl {
    /// 00b: current values (LOG SENSE: threshold values).
    Current = 0,
    /// 01b: a mask of what MODE SELECT can change (LOG SENSE: cumulative values).
    Changeable = 1,
    /// 10b: default values (LOG SENSE: default threshold values).
    Default = 2,
    /// 11b: saved values (LOG SENSE: default cumulative values).
    Saved = 3,
}

impl PageControl {
    pub(crate) fn from_low_bits(code: u8) -> PageControl {
        match code & 0x3 {
            0 => PageControl::Current,
            1 => PageControl::Changeable,
            2 => PageControl::Default,
            _ => PageControl::Saved,
        }
    }
}

/// MODE SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// Form. Encoding uses the 10-byte form when the fields do not fit the 6-byte form.
    pub size: ModeSize,
    /// DBD: no block descriptors wanted.
    pub disable_block_descriptors: bool,
    /// LLBAA (10-byte form): long LBA block descriptors are welcome.
    pub long_lba_accepted: bool,
    /// PC.
    pub page_control: PageControl,
    /// PAGE CODE, 0 to 3Fh; 3Fh is every page.
    pub page_code: u8,
    /// SUBPAGE CODE; FFh is every subpage.
    pub subpage_code: u8,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u16,
}

impl ModeSense {
    pub(super) fn decode(size: ModeSize, raw: &Raw) -> ModeSense {
        ModeSense {
            size,
            disable_block_descriptors: raw.bit(1, 3),
            long_lba_accepted: raw.bit(1, 4),
            page_control: PageControl::from_low_bits(raw.u8(2) >> 6),
            page_code: raw.u8(2) & 0x3f,
            subpage_code: raw.u8(3),
            allocation_length: match size {
                ModeSize::Six => raw.u8(4).into(),
                ModeSize::Ten => raw.u16(7),
            },
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let page = (self.page_control as u8) << 6 | self.page_code & 0x3f;
        let common = |id: CommandId| {
            CdbBytes::new(id)
                .flag(1, 3, self.disable_block_descriptors)
                .put(2, [page, self.subpage_code])
        };
        match (self.size, u8::try_from(self.allocation_length)) {
            (ModeSize::Six, Ok(length)) if !self.long_lba_accepted => {
                common(CommandId::ModeSense6).put(4, [length])
            }
            _ => common(CommandId::ModeSense10)
                .flag(1, 4, self.long_lba_accepted)
                .put(7, self.allocation_length.to_be_bytes()),
        }
    }
}

/// MODE SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSelect {
    /// Form. Encoding uses the 10-byte form when the length does not fit the 6-byte form.
    pub size: ModeSize,
    /// PF: the pages are in the format of the standard.
    pub page_format: bool,
    /// SP: save the pages.
    pub save_pages: bool,
    /// PARAMETER LIST LENGTH in bytes; 0 is no error.
    pub parameter_list_length: u16,
}

impl ModeSelect {
    pub(super) fn decode(size: ModeSize, raw: &Raw) -> ModeSelect {
        ModeSelect {
            size,
            page_format: raw.bit(1, 4),
            save_pages: raw.bit(1, 0),
            parameter_list_length: match size {
                ModeSize::Six => raw.u8(4).into(),
                ModeSize::Ten => raw.u16(7),
            },
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let common = |id: CommandId| {
            CdbBytes::new(id)
                .flag(1, 4, self.page_format)
                .flag(1, 0, self.save_pages)
        };
        match (self.size, u8::try_from(self.parameter_list_length)) {
            (ModeSize::Six, Ok(length)) => common(CommandId::ModeSelect6).put(4, [length]),
            _ => common(CommandId::ModeSelect10).put(7, self.parameter_list_length.to_be_bytes()),
        }
    }
}

/// LOG SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSense {
    /// SP: save the parameters.
    pub save_parameters: bool,
    /// PC.
    pub page_control: PageControl,
    /// PAGE CODE, 0 to 3Fh.
    pub page_code: u8,
    /// SUBPAGE CODE.
    pub subpage_code: u8,
    /// PARAMETER POINTER: the first parameter code wanted.
    pub parameter_pointer: u16,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u16,
}

impl LogSense {
    pub(super) fn decode(raw: &Raw) -> LogSense {
        LogSense {
            save_parameters: raw.bit(1, 0),
            page_control: PageControl::from_low_bits(raw.u8(2) >> 6),
            page_code: raw.u8(2) & 0x3f,
            subpage_code: raw.u8(3),
            parameter_pointer: raw.u16(5),
            allocation_length: raw.u16(7),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::LogSense)
            .flag(1, 0, self.save_parameters)
            .put(
                2,
                [
                    (self.page_control as u8) << 6 | self.page_code & 0x3f,
                    self.subpage_code,
                ],
            )
            .put(5, self.parameter_pointer.to_be_bytes())
            .put(7, self.allocation_length.to_be_bytes())
    }
}
