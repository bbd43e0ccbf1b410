//! Command descriptor blocks (SPC-4 4.3), decoded and encoded.
//!
//! [`CommandId::of`] names a command from operation code and service action, before any other field is looked at;
//! [`Cdb::decode`] checks and reads the rest. Reserved fields, the CONTROL byte (NACA is not supported) and the
//! protection fields (RDPROTECT, WRPROTECT, VRPROTECT) must be zero; GROUP NUMBER is allowed and not evaluated.

mod block;
mod cache;
mod command;
mod copy;
mod medium;
mod parameters;
mod primary;
mod provisioning;
mod raw;
mod reservation;

pub use block::{ByteCheck, CompareAndWrite, Transfer, TransferSize, Verify, WriteAtomic16};
pub use cache::{PreFetch, SynchronizeCache};
pub use command::{COMMANDS, CommandDescriptor, CommandId, commands_of};
pub use copy::{ExtendedCopy, ReceiveCopyAction, ReceiveCopyResults};
pub use medium::{ReadCapacity10, ReadCapacity16, ReadDefectData};
pub use parameters::{LogSense, ModeSelect, ModeSense, ModeSize, PageControl};
pub use primary::{
    Inquiry, PreventAllowMediumRemoval, ReportLuns, ReportSupportedOperationCodes,
    ReportSupportedTaskManagementFunctions, ReportTargetPortGroups, ReportingOptions, RequestSense,
    StartStopUnit,
};
pub use provisioning::{GetLbaStatus, Sanitize, SanitizeAction, Unmap, WriteSame};
pub use raw::CdbBytes;
pub use reservation::{
    PersistentReserveIn, PersistentReserveInAction, PersistentReserveOut,
    PersistentReserveOutAction, ReserveSize,
};

use crate::sense::Sense;
use raw::Raw;

/// A CDB that the device server must refuse. Converts to the [`Sense`] to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CdbError {
    /// INVALID COMMAND OPERATION CODE.
    #[error("operation code {0:02x}h is not supported")]
    UnsupportedOperationCode(u8),
    /// INVALID FIELD IN CDB.
    #[error("invalid field in CDB at byte {byte}, bit {bit:?}")]
    InvalidField {
        /// Offset of the first byte of the field.
        byte: u16,
        /// Most significant bit of the field, 7 to 0, where the field is smaller than a byte.
        bit: Option<u8>,
    },
    /// The transport delivered fewer bytes than the operation code needs.
    #[error("CDB of {length_bytes} bytes is too short for its operation code")]
    TooShort {
        /// Bytes delivered.
        length_bytes: usize,
    },
}

impl From<CdbError> for Sense {
    fn from(error: CdbError) -> Sense {
        match error {
            CdbError::UnsupportedOperationCode(_) => Sense::invalid_operation_code(),
            CdbError::InvalidField { byte, bit } => Sense::invalid_field_in_cdb(byte, bit),
            // The first byte that is missing.
            CdbError::TooShort { length_bytes } => {
                Sense::invalid_field_in_cdb(u16::try_from(length_bytes).unwrap_or(u16::MAX), None)
            }
        }
    }
}

/// A decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cdb {
    /// TEST UNIT READY (SPC-4).
    TestUnitReady,
    /// REQUEST SENSE (SPC-4 6.39).
    RequestSense(RequestSense),
    /// INQUIRY (SPC-4).
    Inquiry(Inquiry),
    /// MODE SELECT(6) and (10) (SPC-4).
    ModeSelect(ModeSelect),
    /// MODE SENSE(6) and (10) (SPC-4).
    ModeSense(ModeSense),
    /// LOG SENSE (SPC-4).
    LogSense(LogSense),
    /// REPORT LUNS (SPC-4 6.33).
    ReportLuns(ReportLuns),
    /// REPORT TARGET PORT GROUPS (SPC-4 6.37).
    ReportTargetPortGroups(ReportTargetPortGroups),
    /// REPORT SUPPORTED OPERATION CODES (SPC-4 6.35).
    ReportSupportedOperationCodes(ReportSupportedOperationCodes),
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36).
    ReportSupportedTaskManagementFunctions(ReportSupportedTaskManagementFunctions),
    /// START STOP UNIT (SBC-3).
    StartStopUnit(StartStopUnit),
    /// PREVENT ALLOW MEDIUM REMOVAL (SBC-3).
    PreventAllowMediumRemoval(PreventAllowMediumRemoval),
    /// RESERVE(6) and (10) (SPC-2).
    Reserve(ReserveSize),
    /// RELEASE(6) and (10) (SPC-2).
    Release(ReserveSize),
    /// PERSISTENT RESERVE IN (SPC-4 6.15).
    PersistentReserveIn(PersistentReserveIn),
    /// PERSISTENT RESERVE OUT (SPC-4 6.16).
    PersistentReserveOut(PersistentReserveOut),
    /// READ CAPACITY(10) (SBC-3).
    ReadCapacity10(ReadCapacity10),
    /// READ CAPACITY(16) (SBC-3).
    ReadCapacity16(ReadCapacity16),
    /// READ(6), (10), (12) and (16) (SBC-3).
    Read(Transfer),
    /// WRITE(6), (10), (12) and (16) (SBC-3).
    Write(Transfer),
    /// WRITE AND VERIFY(10), (12) and (16) (SBC-3).
    WriteAndVerify(Verify),
    /// VERIFY(10), (12) and (16) (SBC-3).
    Verify(Verify),
    /// ORWRITE(16) (SBC-3).
    OrWrite16(Transfer),
    /// COMPARE AND WRITE (SBC-3).
    CompareAndWrite(CompareAndWrite),
    /// WRITE ATOMIC(16) (SBC-4).
    WriteAtomic16(WriteAtomic16),
    /// PRE-FETCH(10) and (16) (SBC-3).
    PreFetch(PreFetch),
    /// SYNCHRONIZE CACHE(10) and (16) (SBC-3).
    SynchronizeCache(SynchronizeCache),
    /// READ DEFECT DATA(10) and (12) (SBC-3).
    ReadDefectData(ReadDefectData),
    /// WRITE SAME(10) and (16) (SBC-3).
    WriteSame(WriteSame),
    /// UNMAP (SBC-3).
    Unmap(Unmap),
    /// GET LBA STATUS (SBC-3).
    GetLbaStatus(GetLbaStatus),
    /// SANITIZE (SBC-3).
    Sanitize(Sanitize),
    /// EXTENDED COPY(LID1) (SPC-4).
    ExtendedCopy(ExtendedCopy),
    /// RECEIVE COPY RESULTS, any service action (SPC-4).
    ReceiveCopyResults(ReceiveCopyResults),
}

impl Cdb {
    /// Decodes a CDB. Bytes behind the length that the operation code implies are ignored (transports pad).
    ///
    /// # Errors
    /// See [`CdbError`]; the first wrong field of the CDB is the one reported.
    pub fn decode(cdb: &[u8]) -> Result<Cdb, CdbError> {
        Cdb::decode_as(CommandId::of(cdb)?, cdb)
    }

    /// Decodes a CDB whose command [`CommandId::of`] has already named.
    ///
    /// # Errors
    /// As [`Cdb::decode`].
    pub fn decode_as(id: CommandId, cdb: &[u8]) -> Result<Cdb, CdbError> {
        use CommandId as C;
        let raw = Raw::checked(id, cdb)?;
        Ok(match id {
            C::TestUnitReady => Cdb::TestUnitReady,
            C::RequestSense => Cdb::RequestSense(RequestSense::decode(&raw)),
            C::Inquiry => Cdb::Inquiry(Inquiry::decode(&raw)?),
            C::ModeSelect6 => Cdb::ModeSelect(ModeSelect::decode(ModeSize::Six, &raw)),
            C::ModeSelect10 => Cdb::ModeSelect(ModeSelect::decode(ModeSize::Ten, &raw)),
            C::ModeSense6 => Cdb::ModeSense(ModeSense::decode(ModeSize::Six, &raw)),
            C::ModeSense10 => Cdb::ModeSense(ModeSense::decode(ModeSize::Ten, &raw)),
            C::LogSense => Cdb::LogSense(LogSense::decode(&raw)),
            C::ReportLuns => Cdb::ReportLuns(ReportLuns::decode(&raw)),
            C::ReportTargetPortGroups => {
                Cdb::ReportTargetPortGroups(ReportTargetPortGroups::decode(&raw)?)
            }
            C::ReportSupportedOperationCodes => {
                Cdb::ReportSupportedOperationCodes(ReportSupportedOperationCodes::decode(&raw)?)
            }
            C::ReportSupportedTaskManagementFunctions => {
                Cdb::ReportSupportedTaskManagementFunctions(
                    ReportSupportedTaskManagementFunctions::decode(&raw)?,
                )
            }
            C::StartStopUnit => Cdb::StartStopUnit(StartStopUnit::decode(&raw)),
            C::PreventAllowMediumRemoval => {
                Cdb::PreventAllowMediumRemoval(PreventAllowMediumRemoval::decode(&raw)?)
            }
            C::Reserve6 => Cdb::Reserve(ReserveSize::Six),
            C::Reserve10 => Cdb::Reserve(ReserveSize::Ten),
            C::Release6 => Cdb::Release(ReserveSize::Six),
            C::Release10 => Cdb::Release(ReserveSize::Ten),
            C::PersistentReserveInReadKeys
            | C::PersistentReserveInReadReservation
            | C::PersistentReserveInReportCapabilities
            | C::PersistentReserveInReadFullStatus => {
                Cdb::PersistentReserveIn(PersistentReserveIn::decode(id, &raw)?)
            }
            C::PersistentReserveOutRegister
            | C::PersistentReserveOutReserve
            | C::PersistentReserveOutRelease
            | C::PersistentReserveOutClear
            | C::PersistentReserveOutPreempt
            | C::PersistentReserveOutPreemptAndAbort
            | C::PersistentReserveOutRegisterAndIgnore
            | C::PersistentReserveOutRegisterAndMove
            | C::PersistentReserveOutReplaceLostReservation => {
                Cdb::PersistentReserveOut(PersistentReserveOut::decode(id, &raw)?)
            }
            C::ReadCapacity10 => Cdb::ReadCapacity10(ReadCapacity10::decode(&raw)?),
            C::ReadCapacity16 => Cdb::ReadCapacity16(ReadCapacity16::decode(&raw)?),
            C::Read6 => Cdb::Read(Transfer::decode(TransferSize::Six, &raw)),
            C::Read10 => Cdb::Read(Transfer::decode(TransferSize::Ten, &raw)),
            C::Read12 => Cdb::Read(Transfer::decode(TransferSize::Twelve, &raw)),
            C::Read16 => Cdb::Read(Transfer::decode(TransferSize::Sixteen, &raw)),
            C::Write6 => Cdb::Write(Transfer::decode(TransferSize::Six, &raw)),
            C::Write10 => Cdb::Write(Transfer::decode(TransferSize::Ten, &raw)),
            C::Write12 => Cdb::Write(Transfer::decode(TransferSize::Twelve, &raw)),
            C::Write16 => Cdb::Write(Transfer::decode(TransferSize::Sixteen, &raw)),
            C::OrWrite16 => Cdb::OrWrite16(Transfer::decode(TransferSize::Sixteen, &raw)),
            C::WriteAndVerify10 => {
                Cdb::WriteAndVerify(Verify::decode(TransferSize::Ten, &raw)?.without_one_block()?)
            }
            C::WriteAndVerify12 => Cdb::WriteAndVerify(
                Verify::decode(TransferSize::Twelve, &raw)?.without_one_block()?,
            ),
            C::WriteAndVerify16 => Cdb::WriteAndVerify(
                Verify::decode(TransferSize::Sixteen, &raw)?.without_one_block()?,
            ),
            C::Verify10 => Cdb::Verify(Verify::decode(TransferSize::Ten, &raw)?),
            C::Verify12 => Cdb::Verify(Verify::decode(TransferSize::Twelve, &raw)?),
            C::Verify16 => Cdb::Verify(Verify::decode(TransferSize::Sixteen, &raw)?),
            C::CompareAndWrite => Cdb::CompareAndWrite(CompareAndWrite::decode(&raw)),
            C::WriteAtomic16 => Cdb::WriteAtomic16(WriteAtomic16::decode(&raw)),
            C::PreFetch10 => Cdb::PreFetch(PreFetch::decode(TransferSize::Ten, &raw)),
            C::PreFetch16 => Cdb::PreFetch(PreFetch::decode(TransferSize::Sixteen, &raw)),
            C::SynchronizeCache10 => {
                Cdb::SynchronizeCache(SynchronizeCache::decode(TransferSize::Ten, &raw))
            }
            C::SynchronizeCache16 => {
                Cdb::SynchronizeCache(SynchronizeCache::decode(TransferSize::Sixteen, &raw))
            }
            C::ReadDefectData10 => {
                Cdb::ReadDefectData(ReadDefectData::decode(TransferSize::Ten, &raw))
            }
            C::ReadDefectData12 => {
                Cdb::ReadDefectData(ReadDefectData::decode(TransferSize::Twelve, &raw))
            }
            C::WriteSame10 => Cdb::WriteSame(WriteSame::decode(TransferSize::Ten, &raw)?),
            C::WriteSame16 => Cdb::WriteSame(WriteSame::decode(TransferSize::Sixteen, &raw)?),
            C::Unmap => Cdb::Unmap(Unmap::decode(&raw)),
            C::GetLbaStatus => Cdb::GetLbaStatus(GetLbaStatus::decode(&raw)),
            C::SanitizeOverwrite
            | C::SanitizeBlockErase
            | C::SanitizeCryptographicErase
            | C::SanitizeExitFailureMode => Cdb::Sanitize(Sanitize::decode(id, &raw)?),
            C::ExtendedCopyLid1 => Cdb::ExtendedCopy(ExtendedCopy::decode(&raw)),
            C::ReceiveCopyStatusLid1
            | C::ReceiveCopyDataLid1
            | C::ReceiveCopyOperatingParameters
            | C::ReceiveCopyFailureDetailsLid1 => {
                Cdb::ReceiveCopyResults(ReceiveCopyResults::decode(id, &raw)?)
            }
        })
    }

    /// The bytes of the command, CONTROL zero. Where a field does not fit the form asked for, the next larger form is
    /// used; values wider than their field in any form lose their upper bits.
    pub fn encode(&self) -> CdbBytes {
        use CommandId as C;
        match self {
            Cdb::TestUnitReady => CdbBytes::new(CommandId::TestUnitReady),
            Cdb::RequestSense(command) => command.encode(),
            Cdb::Inquiry(command) => command.encode(),
            Cdb::ModeSelect(command) => command.encode(),
            Cdb::ModeSense(command) => command.encode(),
            Cdb::LogSense(command) => command.encode(),
            Cdb::ReportLuns(command) => command.encode(),
            Cdb::ReportTargetPortGroups(command) => command.encode(),
            Cdb::ReportSupportedOperationCodes(command) => command.encode(),
            Cdb::ReportSupportedTaskManagementFunctions(command) => command.encode(),
            Cdb::StartStopUnit(command) => command.encode(),
            Cdb::PreventAllowMediumRemoval(command) => command.encode(),
            Cdb::Reserve(ReserveSize::Six) => CdbBytes::new(CommandId::Reserve6),
            Cdb::Reserve(ReserveSize::Ten) => CdbBytes::new(CommandId::Reserve10),
            Cdb::Release(ReserveSize::Six) => CdbBytes::new(CommandId::Release6),
            Cdb::Release(ReserveSize::Ten) => CdbBytes::new(CommandId::Release10),
            Cdb::PersistentReserveIn(command) => command.encode(),
            Cdb::PersistentReserveOut(command) => command.encode(),
            Cdb::ReadCapacity10(command) => command.encode(),
            Cdb::ReadCapacity16(command) => command.encode(),
            Cdb::Read(command) => {
                let command = command.fitted();
                command.encode(command.size.pick(C::Read6, C::Read10, C::Read12, C::Read16))
            }
            Cdb::Write(command) => {
                let command = command.fitted();
                command.encode(
                    command
                        .size
                        .pick(C::Write6, C::Write10, C::Write12, C::Write16),
                )
            }
            Cdb::OrWrite16(command) => Transfer {
                size: TransferSize::Sixteen,
                ..*command
            }
            .encode(C::OrWrite16),
            Cdb::WriteAndVerify(command) => {
                let command = command.fitted();
                let (ten, twelve, sixteen) = (
                    C::WriteAndVerify10,
                    C::WriteAndVerify12,
                    C::WriteAndVerify16,
                );
                command.encode(command.size.pick(ten, ten, twelve, sixteen))
            }
            Cdb::Verify(command) => {
                let command = command.fitted();
                command.encode(command.size.pick(
                    C::Verify10,
                    C::Verify10,
                    C::Verify12,
                    C::Verify16,
                ))
            }
            Cdb::CompareAndWrite(command) => command.encode(),
            Cdb::WriteAtomic16(command) => command.encode(),
            Cdb::PreFetch(command) => command.encode(),
            Cdb::SynchronizeCache(command) => command.encode(),
            Cdb::ReadDefectData(command) => command.encode(),
            Cdb::WriteSame(command) => command.encode(),
            Cdb::Unmap(command) => command.encode(),
            Cdb::GetLbaStatus(command) => command.encode(),
            Cdb::Sanitize(command) => command.encode(),
            Cdb::ExtendedCopy(command) => command.encode(),
            Cdb::ReceiveCopyResults(command) => command.encode(),
        }
    }
}
