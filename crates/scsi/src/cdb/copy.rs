//! EXTENDED COPY(LID1) and the RECEIVE COPY commands that go with it (SPC-4).

use super::raw::Raw;
use super::{CdbBytes, CdbError, CommandId};

/// EXTENDED COPY(LID1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCopy {
    /// PARAMETER LIST LENGTH in bytes; 0 is no error and copies nothing.
    pub parameter_list_length: u32,
}

impl ExtendedCopy {
    pub(super) fn decode(raw: &Raw) -> ExtendedCopy {
        ExtendedCopy {
            parameter_list_length: raw.u32(10),
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(CommandId::ExtendedCopyLid1).put(10, self.parameter_list_length.to_be_bytes())
    }
}

/// Service action of RECEIVE COPY RESULTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiveCopyAction {
    /// 00h: COPY STATUS.
    CopyStatus,
    /// 01h: RECEIVE DATA, the held data of a copy.
    ReceiveData,
    /// 03h: OPERATING PARAMETERS, the limits of the copy manager.
    OperatingParameters,
    /// 04h: FAILED SEGMENT DETAILS.
    FailedSegmentDetails,
}

/// RECEIVE COPY RESULTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveCopyResults {
    /// SERVICE ACTION.
    pub action: ReceiveCopyAction,
    /// LIST IDENTIFIER; not evaluated with OPERATING PARAMETERS.
    pub list_identifier: u8,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u32,
}

impl ReceiveCopyResults {
    pub(super) fn decode(id: CommandId, raw: &Raw) -> Result<ReceiveCopyResults, CdbError> {
        let action = match id {
            CommandId::ReceiveCopyStatusLid1 => ReceiveCopyAction::CopyStatus,
            CommandId::ReceiveCopyDataLid1 => ReceiveCopyAction::ReceiveData,
            CommandId::ReceiveCopyOperatingParameters => ReceiveCopyAction::OperatingParameters,
            CommandId::ReceiveCopyFailureDetailsLid1 => ReceiveCopyAction::FailedSegmentDetails,
            _ => {
                return Err(CdbError::InvalidField {
                    byte: 1,
                    bit: Some(4),
                });
            }
        };
        Ok(ReceiveCopyResults {
            action,
            list_identifier: raw.u8(2),
            allocation_length: raw.u32(10),
        })
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let id = match self.action {
            ReceiveCopyAction::CopyStatus => CommandId::ReceiveCopyStatusLid1,
            ReceiveCopyAction::ReceiveData => CommandId::ReceiveCopyDataLid1,
            ReceiveCopyAction::OperatingParameters => CommandId::ReceiveCopyOperatingParameters,
            ReceiveCopyAction::FailedSegmentDetails => CommandId::ReceiveCopyFailureDetailsLid1,
        };
        CdbBytes::new(id)
            .put(2, [self.list_identifier])
            .put(10, self.allocation_length.to_be_bytes())
    }
}
