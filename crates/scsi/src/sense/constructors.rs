//! Named sense data, so that no command spells a code by hand.

use super::{AdditionalSense, FieldPointer, Sense, SenseKey, SenseKeySpecific};

impl Sense {
    /// Sense data with a key and an additional sense code and nothing else.
    pub const fn new(key: SenseKey, additional: AdditionalSense) -> Sense {
        Sense {
            deferred: false,
            key,
            additional,
            information: None,
            command_specific: None,
            specific: None,
        }
    }

    /// The same with INFORMATION.
    pub const fn with_information(mut self, information: u64) -> Sense {
        self.information = Some(information);
        self
    }

    /// The same with COMMAND-SPECIFIC INFORMATION.
    pub const fn with_command_specific(mut self, value: u64) -> Sense {
        self.command_specific = Some(value);
        self
    }

    /// The same with sense key specific information.
    pub const fn with_specific(mut self, specific: SenseKeySpecific) -> Sense {
        self.specific = Some(specific);
        self
    }

    /// NO SENSE: what REQUEST SENSE returns when there is nothing to tell.
    pub const fn no_sense() -> Sense {
        Sense::new(SenseKey::NoSense, AdditionalSense::NONE)
    }

    /// ILLEGAL REQUEST with any additional sense code.
    pub const fn illegal_request(additional: AdditionalSense) -> Sense {
        Sense::new(SenseKey::IllegalRequest, additional)
    }

    /// INVALID COMMAND OPERATION CODE, pointing at byte 0 of the CDB.
    pub const fn invalid_operation_code() -> Sense {
        Sense::illegal_request(AdditionalSense::INVALID_COMMAND_OPERATION_CODE).with_specific(
            SenseKeySpecific::Field(FieldPointer {
                in_cdb: true,
                bit: None,
                byte: 0,
            }),
        )
    }

    /// INVALID FIELD IN CDB; `bit` is the most significant bit of a field smaller than a byte.
    pub const fn invalid_field_in_cdb(byte: u16, bit: Option<u8>) -> Sense {
        Sense::illegal_request(AdditionalSense::INVALID_FIELD_IN_CDB).with_specific(
            SenseKeySpecific::Field(FieldPointer {
                in_cdb: true,
                bit,
                byte,
            }),
        )
    }

    /// INVALID FIELD IN PARAMETER LIST.
    pub const fn invalid_field_in_parameter_list(byte: u16, bit: Option<u8>) -> Sense {
        Sense::parameter_list(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST, byte, bit)
    }

    /// ILLEGAL REQUEST with a code of the 26h family and a pointer into the parameter list.
    pub const fn parameter_list(additional: AdditionalSense, byte: u16, bit: Option<u8>) -> Sense {
        Sense::illegal_request(additional).with_specific(SenseKeySpecific::Field(FieldPointer {
            in_cdb: false,
            bit,
            byte,
        }))
    }

    /// PARAMETER LIST LENGTH ERROR.
    pub const fn parameter_list_length_error() -> Sense {
        Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR)
    }

    /// LOGICAL BLOCK ADDRESS OUT OF RANGE with the first address that is, in INFORMATION.
    pub const fn lba_out_of_range(lba: u64) -> Sense {
        Sense::illegal_request(AdditionalSense::LBA_OUT_OF_RANGE).with_information(lba)
    }

    /// LOGICAL UNIT NOT SUPPORTED.
    pub const fn logical_unit_not_supported() -> Sense {
        Sense::illegal_request(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED)
    }

    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    pub const fn invalid_release() -> Sense {
        Sense::illegal_request(AdditionalSense::INVALID_RELEASE_OF_PERSISTENT_RESERVATION)
    }

    /// INSUFFICIENT REGISTRATION RESOURCES.
    pub const fn insufficient_registration_resources() -> Sense {
        Sense::illegal_request(AdditionalSense::INSUFFICIENT_REGISTRATION_RESOURCES)
    }

    /// SAVING PARAMETERS NOT SUPPORTED: MODE SENSE with PC=11b.
    pub const fn saving_parameters_not_supported() -> Sense {
        Sense::illegal_request(AdditionalSense::SAVING_PARAMETERS_NOT_SUPPORTED)
    }

    /// COMMAND SEQUENCE ERROR.
    pub const fn command_sequence_error() -> Sense {
        Sense::illegal_request(AdditionalSense::COMMAND_SEQUENCE_ERROR)
    }

    /// MEDIUM REMOVAL PREVENTED.
    pub const fn medium_removal_prevented() -> Sense {
        Sense::illegal_request(AdditionalSense::MEDIUM_REMOVAL_PREVENTED)
    }

    /// MISCOMPARE DURING VERIFY OPERATION; `offset_bytes` is the offset of the first byte that differs, counted from
    /// the start of the data-out (SBC-3, COMPARE AND WRITE and VERIFY).
    pub const fn miscompare(offset_bytes: u64) -> Sense {
        Sense::new(
            SenseKey::Miscompare,
            AdditionalSense::MISCOMPARE_DURING_VERIFY,
        )
        .with_information(offset_bytes)
    }

    /// DATA PROTECT, WRITE PROTECTED: the nexus may only read.
    pub const fn write_protected() -> Sense {
        Sense::new(SenseKey::DataProtect, AdditionalSense::WRITE_PROTECTED)
    }

    /// DATA PROTECT, LOGICAL UNIT SOFTWARE WRITE PROTECTED: SWP is one in the control mode page.
    pub const fn software_write_protected() -> Sense {
        Sense::new(
            SenseKey::DataProtect,
            AdditionalSense::SOFTWARE_WRITE_PROTECTED,
        )
    }

    /// DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT: the storage below is full.
    pub const fn space_allocation_failed() -> Sense {
        Sense::new(
            SenseKey::DataProtect,
            AdditionalSense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        )
    }

    /// UNIT ATTENTION with the code of the condition.
    pub const fn unit_attention(additional: AdditionalSense) -> Sense {
        Sense::new(SenseKey::UnitAttention, additional)
    }

    /// NOT READY with the reason.
    pub const fn not_ready(additional: AdditionalSense) -> Sense {
        Sense::new(SenseKey::NotReady, additional)
    }

    /// NOT READY, MEDIUM NOT PRESENT: stopped or ejected.
    pub const fn medium_not_present() -> Sense {
        Sense::not_ready(AdditionalSense::MEDIUM_NOT_PRESENT)
    }

    /// NOT READY, SANITIZE IN PROGRESS; `progress` in 1/65536.
    pub const fn sanitize_in_progress(progress: u16) -> Sense {
        Sense::not_ready(AdditionalSense::SANITIZE_IN_PROGRESS)
            .with_specific(SenseKeySpecific::Progress(progress))
    }

    /// MEDIUM ERROR, SANITIZE COMMAND FAILED.
    pub const fn sanitize_failed() -> Sense {
        Sense::new(
            SenseKey::MediumError,
            AdditionalSense::SANITIZE_COMMAND_FAILED,
        )
    }

    /// MEDIUM ERROR, UNRECOVERED READ ERROR at an address.
    pub const fn unrecovered_read_error(lba: u64) -> Sense {
        Sense::new(
            SenseKey::MediumError,
            AdditionalSense::UNRECOVERED_READ_ERROR,
        )
        .with_information(lba)
    }

    /// MEDIUM ERROR, WRITE ERROR at an address.
    pub const fn write_error(lba: u64) -> Sense {
        Sense::new(SenseKey::MediumError, AdditionalSense::WRITE_ERROR).with_information(lba)
    }

    /// HARDWARE ERROR, INTERNAL TARGET FAILURE.
    pub const fn internal_target_failure() -> Sense {
        Sense::new(
            SenseKey::HardwareError,
            AdditionalSense::INTERNAL_TARGET_FAILURE,
        )
    }

    /// ABORTED COMMAND with a reason: the initiator may send the command again.
    pub const fn aborted_command(additional: AdditionalSense) -> Sense {
        Sense::new(SenseKey::AbortedCommand, additional)
    }

    /// COPY ABORTED with a reason.
    pub const fn copy_aborted(additional: AdditionalSense) -> Sense {
        Sense::new(SenseKey::CopyAborted, additional)
    }
}
