//! PDUs that the target sends.

use super::pdu;

pdu! {
    /// NOP-In (RFC 7143 11.19).
    NopIn = NOP_IN {
        /// F bit; always set.
        flags / set_flags: u8 = 1,
        /// LUN, to be copied into the answer.
        lun / set_lun: [u8; 8] = 8,
        /// Target Transfer Tag when an answer is wanted, else reserved.
        ttt / set_ttt: u32 = 20,
        /// StatSN.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
    }
}

pdu! {
    /// SCSI Response (RFC 7143 11.4).
    ScsiResponse = SCSI_RESPONSE {
        /// o, u, O and U bits.
        flags / set_flags: u8 = 1,
        /// iSCSI service response: 0 command completed at target, 1 target failure.
        response / set_response: u8 = 2,
        /// SCSI status.
        status / set_status: u8 = 3,
        /// SNACK Tag.
        snack_tag / set_snack_tag: u32 = 20,
        /// StatSN.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
        /// ExpDataSN: Data-In and R2T PDUs sent for the command.
        exp_data_sn / set_exp_data_sn: u32 = 36,
        /// Bidirectional Read Residual Count in bytes.
        bidirectional_residual_bytes / set_bidirectional_residual_bytes: u32 = 40,
        /// Residual Count in bytes.
        residual_bytes / set_residual_bytes: u32 = 44,
    }
}

impl ScsiResponse {
    /// O bit: residual overflow.
    pub const OVERFLOW: u8 = 0x04;
    /// U bit: residual underflow.
    pub const UNDERFLOW: u8 = 0x02;
}

pdu! {
    /// Task Management Function Response (RFC 7143 11.6).
    TaskManagementResponse = TASK_MANAGEMENT_RESPONSE {
        /// F bit; always set.
        flags / set_flags: u8 = 1,
        /// The response.
        response / set_response: u8 = 2,
        /// StatSN.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
    }
}

pdu! {
    /// SCSI Data-In (RFC 7143 11.7).
    DataIn = DATA_IN {
        /// F, A, O, U and S bits.
        flags / set_flags: u8 = 1,
        /// SCSI status, with S.
        status / set_status: u8 = 3,
        /// The logical unit, with a Target Transfer Tag.
        lun / set_lun: [u8; 8] = 8,
        /// Target Transfer Tag, with A.
        ttt / set_ttt: u32 = 20,
        /// StatSN, with S.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
        /// DataSN, from 0 over the whole command.
        data_sn / set_data_sn: u32 = 36,
        /// Offset of this data in the command's, in bytes.
        buffer_offset_bytes / set_buffer_offset_bytes: u32 = 40,
        /// Residual Count in bytes, with S.
        residual_bytes / set_residual_bytes: u32 = 44,
    }
}

impl DataIn {
    /// S bit: the PDU carries the status.
    pub const STATUS: u8 = 0x01;
    /// O bit: residual overflow.
    pub const OVERFLOW: u8 = 0x04;
    /// U bit: residual underflow.
    pub const UNDERFLOW: u8 = 0x02;
    /// A bit: acknowledgement wanted (not at ErrorRecoveryLevel 0).
    pub const ACKNOWLEDGE: u8 = 0x40;
}

pdu! {
    /// Text Response (RFC 7143 11.11).
    TextResponse = TEXT_RESPONSE {
        /// F and C bits.
        flags / set_flags: u8 = 1,
        /// LUN, with a Target Transfer Tag.
        lun / set_lun: [u8; 8] = 8,
        /// Target Transfer Tag when the exchange goes on, else reserved.
        ttt / set_ttt: u32 = 20,
        /// StatSN.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
    }
}

pdu! {
    /// Login Response (RFC 7143 11.13).
    LoginResponse = LOGIN_RESPONSE {
        /// T, C, CSG and NSG.
        flags / set_flags: u8 = 1,
        /// Version-max.
        version_max / set_version_max: u8 = 2,
        /// Version-active.
        version_active / set_version_active: u8 = 3,
        /// ISID.
        isid / set_isid: [u8; 6] = 8,
        /// TSIH.
        tsih / set_tsih: u16 = 14,
        /// StatSN.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
        /// Status-Class.
        status_class / set_status_class: u8 = 36,
        /// Status-Detail.
        status_detail / set_status_detail: u8 = 37,
    }
}

impl LoginResponse {
    /// Current stage: 0 security, 1 operational, 3 full feature.
    pub fn current_stage(&self) -> u8 {
        self.0[1] >> 2 & 3
    }

    /// Next stage, meaningful with T.
    pub fn next_stage(&self) -> u8 {
        self.0[1] & 3
    }
}

pdu! {
    /// Logout Response (RFC 7143 11.15).
    LogoutResponse = LOGOUT_RESPONSE {
        /// F bit; always set.
        flags / set_flags: u8 = 1,
        /// 0 closed, 1 CID not found, 2 recovery not supported, 3 cleanup failed.
        response / set_response: u8 = 2,
        /// StatSN.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
        /// Time2Wait in seconds.
        time2wait_s / set_time2wait_s: u16 = 40,
        /// Time2Retain in seconds.
        time2retain_s / set_time2retain_s: u16 = 42,
    }
}

pdu! {
    /// Ready To Transfer (RFC 7143 11.8).
    ReadyToTransfer = READY_TO_TRANSFER {
        /// F bit; always set.
        flags / set_flags: u8 = 1,
        /// LUN, to be copied into Data-Out.
        lun / set_lun: [u8; 8] = 8,
        /// Target Transfer Tag, to be copied into Data-Out.
        ttt / set_ttt: u32 = 20,
        /// The next StatSN (not used up).
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
        /// R2TSN, from 0 in each command.
        r2t_sn / set_r2t_sn: u32 = 36,
        /// Offset of the data wanted, in bytes.
        buffer_offset_bytes / set_buffer_offset_bytes: u32 = 40,
        /// Desired Data Transfer Length in bytes.
        desired_data_transfer_length_bytes / set_desired_data_transfer_length_bytes: u32 = 44,
    }
}

pdu! {
    /// Asynchronous Message (RFC 7143 11.9).
    AsyncMessage = ASYNC_MESSAGE {
        /// F bit; always set.
        flags / set_flags: u8 = 1,
        /// The logical unit, for SCSI events.
        lun / set_lun: [u8; 8] = 8,
        /// StatSN.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
        /// AsyncEvent.
        event / set_event: u8 = 36,
        /// AsyncVCode.
        vendor_code / set_vendor_code: u8 = 37,
        /// Parameter1.
        parameter1 / set_parameter1: u16 = 38,
        /// Parameter2.
        parameter2 / set_parameter2: u16 = 40,
        /// Parameter3.
        parameter3 / set_parameter3: u16 = 42,
    }
}

pdu! {
    /// Reject (RFC 7143 11.17). The data segment is the header of the PDU that is rejected.
    Reject = REJECT {
        /// F bit; always set.
        flags / set_flags: u8 = 1,
        /// Reason.
        reason / set_reason: u8 = 2,
        /// StatSN.
        stat_sn / set_stat_sn: u32 = 24,
        /// ExpCmdSN.
        exp_cmd_sn / set_exp_cmd_sn: u32 = 28,
        /// MaxCmdSN.
        max_cmd_sn / set_max_cmd_sn: u32 = 32,
        /// DataSN or R2TSN, for data digest errors.
        data_sn / set_data_sn: u32 = 36,
    }
}

/// Reasons of a Reject (RFC 7143 11.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RejectReason {
    /// Data (payload) digest error.
    DataDigestError = 0x02,
    /// SNACK Reject.
    SnackReject = 0x03,
    /// Protocol error (such as a SNACK for a status that was acknowledged).
    ProtocolError = 0x04,
    /// Command not supported.
    CommandNotSupported = 0x05,
    /// Too many immediate commands.
    ImmediateCommandReject = 0x06,
    /// Task in progress.
    TaskInProgress = 0x07,
    /// Invalid data acknowledgement.
    InvalidDataAck = 0x08,
    /// Invalid PDU field.
    InvalidPduField = 0x09,
    /// Cannot generate a Target Transfer Tag; out of resources.
    LongOperationReject = 0x0a,
    /// Waiting for a logout.
    WaitingForLogout = 0x0c,
}
