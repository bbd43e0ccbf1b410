//! PDUs that the initiator sends.

use super::pdu;

pdu! {
    /// NOP-Out (RFC 7143 11.18).
    NopOut = NOP_OUT {
        /// F bit; always set.
        flags / set_flags: u8 = 1,
        /// The LUN of a NOP-In that is answered.
        lun / set_lun: [u8; 8] = 8,
        /// Target Transfer Tag of a NOP-In that is answered, else reserved.
        ttt / set_ttt: u32 = 20,
        /// CmdSN.
        cmd_sn / set_cmd_sn: u32 = 24,
        /// ExpStatSN.
        exp_stat_sn / set_exp_stat_sn: u32 = 28,
    }
}

pdu! {
    /// SCSI Command (RFC 7143 11.3).
    ScsiCommand = SCSI_COMMAND {
        /// F, R, W and ATTR.
        flags / set_flags: u8 = 1,
        /// Bits 3 to 0 are the task priority of RFC 7144 4.2.
        priority / set_priority: u8 = 2,
        /// The logical unit.
        lun / set_lun: [u8; 8] = 8,
        /// Expected Data Transfer Length in bytes.
        expected_data_transfer_length_bytes / set_expected_data_transfer_length_bytes: u32 = 20,
        /// CmdSN.
        cmd_sn / set_cmd_sn: u32 = 24,
        /// ExpStatSN.
        exp_stat_sn / set_exp_stat_sn: u32 = 28,
        /// The first 16 bytes of the CDB, zero-padded.
        cdb / set_cdb: [u8; 16] = 32,
    }
}

impl ScsiCommand {
    /// R bit: the command reads.
    pub const READ: u8 = 0x40;
    /// W bit: the command writes.
    pub const WRITE: u8 = 0x20;
    /// ATTR, bits 2 to 0 (RFC 7143 11.3.1).
    pub const ATTRIBUTE: u8 = 0x07;
}

pdu! {
    /// Task Management Function Request (RFC 7143 11.5).
    TaskManagementRequest = TASK_MANAGEMENT_REQUEST {
        /// Bits 6 to 0 are the function.
        flags / set_flags: u8 = 1,
        /// The logical unit.
        lun / set_lun: [u8; 8] = 8,
        /// Referenced Task Tag.
        referenced_task_tag / set_referenced_task_tag: u32 = 20,
        /// CmdSN.
        cmd_sn / set_cmd_sn: u32 = 24,
        /// ExpStatSN.
        exp_stat_sn / set_exp_stat_sn: u32 = 28,
        /// RefCmdSN.
        ref_cmd_sn / set_ref_cmd_sn: u32 = 32,
        /// ExpDataSN, for TASK REASSIGN.
        exp_data_sn / set_exp_data_sn: u32 = 36,
    }
}

impl TaskManagementRequest {
    /// The function: byte 1 without the F bit.
    pub fn function(&self) -> u8 {
        self.0[1] & 0x7f
    }
}

pdu! {
    /// SCSI Data-Out (RFC 7143 11.7).
    DataOut = DATA_OUT {
        /// F bit.
        flags / set_flags: u8 = 1,
        /// The logical unit.
        lun / set_lun: [u8; 8] = 8,
        /// Target Transfer Tag of the R2T, or reserved for unsolicited data.
        ttt / set_ttt: u32 = 20,
        /// ExpStatSN.
        exp_stat_sn / set_exp_stat_sn: u32 = 28,
        /// DataSN, from 0 in each sequence.
        data_sn / set_data_sn: u32 = 36,
        /// Offset of this data in the command's, in bytes.
        buffer_offset_bytes / set_buffer_offset_bytes: u32 = 40,
    }
}

pdu! {
    /// Text Request (RFC 7143 11.10).
    TextRequest = TEXT_REQUEST {
        /// F and C bits.
        flags / set_flags: u8 = 1,
        /// The logical unit, with a Target Transfer Tag.
        lun / set_lun: [u8; 8] = 8,
        /// Target Transfer Tag of the response that is continued, or reserved.
        ttt / set_ttt: u32 = 20,
        /// CmdSN.
        cmd_sn / set_cmd_sn: u32 = 24,
        /// ExpStatSN.
        exp_stat_sn / set_exp_stat_sn: u32 = 28,
    }
}

pdu! {
    /// Login Request (RFC 7143 11.12).
    LoginRequest = LOGIN_REQUEST {
        /// T, C, CSG (bits 3 and 2) and NSG (bits 1 and 0).
        flags / set_flags: u8 = 1,
        /// Version-max.
        version_max / set_version_max: u8 = 2,
        /// Version-min.
        version_min / set_version_min: u8 = 3,
        /// ISID.
        isid / set_isid: [u8; 6] = 8,
        /// TSIH.
        tsih / set_tsih: u16 = 14,
        /// CID.
        cid / set_cid: u16 = 20,
        /// CmdSN.
        cmd_sn / set_cmd_sn: u32 = 24,
        /// ExpStatSN.
        exp_stat_sn / set_exp_stat_sn: u32 = 28,
    }
}

impl LoginRequest {
    /// T bit: ready for the next stage.
    pub const TRANSIT: u8 = 0x80;
    /// C bit: the text continues.
    pub const CONTINUE: u8 = 0x40;

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
    /// Logout Request (RFC 7143 11.14).
    LogoutRequest = LOGOUT_REQUEST {
        /// Bits 6 to 0 are the reason.
        flags / set_flags: u8 = 1,
        /// CID of the connection to close.
        cid / set_cid: u16 = 20,
        /// CmdSN.
        cmd_sn / set_cmd_sn: u32 = 24,
        /// ExpStatSN.
        exp_stat_sn / set_exp_stat_sn: u32 = 28,
    }
}

impl LogoutRequest {
    /// The reason: byte 1 without the F bit.
    pub fn reason(&self) -> u8 {
        self.0[1] & 0x7f
    }
}

pdu! {
    /// SNACK Request (RFC 7143 11.16).
    Snack = SNACK {
        /// Bits 3 to 0 are the type.
        flags / set_flags: u8 = 1,
        /// The logical unit.
        lun / set_lun: [u8; 8] = 8,
        /// Target Transfer Tag or SNACK Tag.
        ttt / set_ttt: u32 = 20,
        /// ExpStatSN.
        exp_stat_sn / set_exp_stat_sn: u32 = 28,
        /// BegRun.
        begin_run / set_begin_run: u32 = 40,
        /// RunLength.
        run_length / set_run_length: u32 = 44,
    }
}
