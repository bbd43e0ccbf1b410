//! Commands of every device type (SPC-4), and START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL.

use super::raw::Raw;
use super::{CdbBytes, CdbError, CommandId};

/// REQUEST SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSense {
    /// DESC: descriptor format wanted.
    pub descriptor: bool,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u8,
}

impl RequestSense {
    pub(super) fn decode(raw: &Raw) -> RequestSense {
        RequestSense {
            descriptor: raw.bit(1, 0),
            allocation_length: raw.u8(4),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::RequestSense)
            .flag(1, 0, self.descriptor)
            .put(4, [self.allocation_length])
    }
}

/// INQUIRY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// EVPD with PAGE CODE: the vital product data page wanted; `None` is standard INQUIRY data.
    pub vpd_page: Option<u8>,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u16,
}

impl Inquiry {
    pub(super) fn decode(raw: &Raw) -> Result<Inquiry, CdbError> {
        let vpd_page = match (raw.bit(1, 0), raw.u8(2)) {
            (true, page) => Some(page),
            (false, 0) => None,
            (false, _) => return Err(CdbError::InvalidField { byte: 2, bit: None }),
        };
        Ok(Inquiry {
            vpd_page,
            allocation_length: raw.u16(3),
        })
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::Inquiry)
            .flag(1, 0, self.vpd_page.is_some())
            .put(2, [self.vpd_page.unwrap_or(0)])
            .put(3, self.allocation_length.to_be_bytes())
    }
}

/// START STOP UNIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartStopUnit {
    /// IMMED.
    pub immediate: bool,
    /// POWER CONDITION MODIFIER, 0 to 15.
    pub power_condition_modifier: u8,
    /// POWER CONDITION, 0 to 15; 0 is START_VALID, where `load_eject` and `start` count.
    pub power_condition: u8,
    /// NO_FLUSH: stop without writing the caches back.
    pub no_flush: bool,
    /// LOEJ: load (with START) or eject.
    pub load_eject: bool,
    /// START.
    pub start: bool,
}

impl StartStopUnit {
    pub(super) fn decode(raw: &Raw) -> StartStopUnit {
        StartStopUnit {
            immediate: raw.bit(1, 0),
            power_condition_modifier: raw.u8(3) & 0x0f,
            power_condition: raw.u8(4) >> 4,
            no_flush: raw.bit(4, 2),
            load_eject: raw.bit(4, 1),
            start: raw.bit(4, 0),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::StartStopUnit)
            .flag(1, 0, self.immediate)
            .put(
                3,
                [
                    self.power_condition_modifier & 0x0f,
                    self.power_condition << 4,
                ],
            )
            .flag(4, 2, self.no_flush)
            .flag(4, 1, self.load_eject)
            .flag(4, 0, self.start)
    }
}

/// PREVENT ALLOW MEDIUM REMOVAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreventAllowMediumRemoval {
    /// PREVENT: 01b prevents, 00b allows; 10b and 11b are obsolete and refused.
    pub prevent: bool,
}

impl PreventAllowMediumRemoval {
    pub(super) fn decode(raw: &Raw) -> Result<PreventAllowMediumRemoval, CdbError> {
        match raw.u8(4) & 0x03 {
            0 => Ok(PreventAllowMediumRemoval { prevent: false }),
            1 => Ok(PreventAllowMediumRemoval { prevent: true }),
            _ => Err(CdbError::InvalidField {
                byte: 4,
                bit: Some(1),
            }),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::PreventAllowMediumRemoval).flag(4, 0, self.prevent)
    }
}

/// REPORT LUNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportLuns {
    /// SELECT REPORT: 00h, 01h (well-known logical units only), 02h (all), other values to the device server.
    pub select_report: u8,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u32,
}

impl ReportLuns {
    pub(super) fn decode(raw: &Raw) -> ReportLuns {
        ReportLuns {
            select_report: raw.u8(2),
            allocation_length: raw.u32(6),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::ReportLuns)
            .put(2, [self.select_report])
            .put(6, self.allocation_length.to_be_bytes())
    }
}

/// REPORT TARGET PORT GROUPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportTargetPortGroups {
    /// PARAMETER DATA FORMAT 001b: the extended header is wanted; 000b: the length-only header.
    pub extended: bool,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u32,
}

impl ReportTargetPortGroups {
    pub(super) fn decode(raw: &Raw) -> Result<ReportTargetPortGroups, CdbError> {
        let extended = match raw.u8(1) >> 5 {
            0 => false,
            1 => true,
            _ => {
                return Err(CdbError::InvalidField {
                    byte: 1,
                    bit: Some(7),
                });
            }
        };
        Ok(ReportTargetPortGroups {
            extended,
            allocation_length: raw.u32(6),
        })
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::ReportTargetPortGroups)
            .flag(1, 5, self.extended)
            .put(6, self.allocation_length.to_be_bytes())
    }
}

/// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReportingOptions {
    /// 000b: every command.
    All = 0,
    /// 001b: one operation code that has no service actions.
    OperationCode = 1,
    /// 010b: one operation code and service action.
    ServiceAction = 2,
    /// 011b: as 001b or 010b, whichever the operation code needs; never an error.
    Either = 3,
}

/// REPORT SUPPORTED OPERATION CODES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportSupportedOperationCodes {
    /// RCTD: command timeouts descriptors are wanted.
    pub return_timeouts: bool,
    /// REPORTING OPTIONS.
    pub options: ReportingOptions,
    /// REQUESTED OPERATION CODE.
    pub operation_code: u8,
    /// REQUESTED SERVICE ACTION.
    pub service_action: u16,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u32,
}

impl ReportSupportedOperationCodes {
    pub(super) fn decode(raw: &Raw) -> Result<ReportSupportedOperationCodes, CdbError> {
        let options = match raw.u8(2) & 0x07 {
            0 => ReportingOptions::All,
            1 => ReportingOptions::OperationCode,
            2 => ReportingOptions::ServiceAction,
            3 => ReportingOptions::Either,
            _ => {
                return Err(CdbError::InvalidField {
                    byte: 2,
                    bit: Some(2),
                });
            }
        };
        Ok(ReportSupportedOperationCodes {
            return_timeouts: raw.bit(2, 7),
            options,
            operation_code: raw.u8(3),
            service_action: raw.u16(4),
            allocation_length: raw.u32(6),
        })
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::ReportSupportedOperationCodes)
            .flag(2, 7, self.return_timeouts)
            .or(2, self.options as u8)
            .put(3, [self.operation_code])
            .put(4, self.service_action.to_be_bytes())
            .put(6, self.allocation_length.to_be_bytes())
    }
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportSupportedTaskManagementFunctions {
    /// REPD: the extended parameter data with timeouts is wanted.
    pub extended: bool,
    /// ALLOCATION LENGTH in bytes, at least 4.
    pub allocation_length: u32,
}

impl ReportSupportedTaskManagementFunctions {
    pub(super) fn decode(raw: &Raw) -> Result<ReportSupportedTaskManagementFunctions, CdbError> {
        let allocation_length = raw.u32(6);
        if allocation_length < 4 {
            return Err(CdbError::InvalidField { byte: 6, bit: None });
        }
        Ok(ReportSupportedTaskManagementFunctions {
            extended: raw.bit(2, 7),
            allocation_length,
        })
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::ReportSupportedTaskManagementFunctions)
            .flag(2, 7, self.extended)
            .put(6, self.allocation_length.to_be_bytes())
    }
}
