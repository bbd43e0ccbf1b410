//! PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16), RESERVE and RELEASE (SPC-2).

use super::raw::Raw;
use super::{CdbBytes, CdbError, CommandId};

/// Form of RESERVE and RELEASE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReserveSize {
    /// RESERVE(6), RELEASE(6).
    Six,
    /// RESERVE(10), RELEASE(10).
    Ten,
}

/// Service action of PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PersistentReserveInAction {
    /// 00h.
    ReadKeys = 0x00,
    /// 01h.
    ReadReservation = 0x01,
    /// 02h.
    ReportCapabilities = 0x02,
    /// 03h.
    ReadFullStatus = 0x03,
}

/// PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistentReserveIn {
    /// SERVICE ACTION.
    pub action: PersistentReserveInAction,
    /// ALLOCATION LENGTH in bytes.
    pub allocation_length: u16,
}

impl PersistentReserveIn {
    pub(super) fn decode(id: CommandId, raw: &Raw) -> Result<PersistentReserveIn, CdbError> {
        let action = match id {
            CommandId::PersistentReserveInReadKeys => PersistentReserveInAction::ReadKeys,
            CommandId::PersistentReserveInReadReservation => {
                PersistentReserveInAction::ReadReservation
            }
            CommandId::PersistentReserveInReportCapabilities => {
                PersistentReserveInAction::ReportCapabilities
            }
            CommandId::PersistentReserveInReadFullStatus => {
                PersistentReserveInAction::ReadFullStatus
            }
            _ => {
                return Err(CdbError::InvalidField {
                    byte: 1,
                    bit: Some(4),
                });
            }
        };
        Ok(PersistentReserveIn {
            action,
            allocation_length: raw.u16(7),
        })
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let id = match self.action {
            PersistentReserveInAction::ReadKeys => CommandId::PersistentReserveInReadKeys,
            PersistentReserveInAction::ReadReservation => {
                CommandId::PersistentReserveInReadReservation
            }
            PersistentReserveInAction::ReportCapabilities => {
                CommandId::PersistentReserveInReportCapabilities
            }
            PersistentReserveInAction::ReadFullStatus => {
                CommandId::PersistentReserveInReadFullStatus
            }
        };
        CdbBytes::new(id).put(7, self.allocation_length.to_be_bytes())
    }
}

/// Service action of PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PersistentReserveOutAction {
    /// 00h.
    Register = 0x00,
    /// 01h.
    Reserve = 0x01,
    /// 02h.
    Release = 0x02,
    /// 03h.
    Clear = 0x03,
    /// 04h.
    Preempt = 0x04,
    /// 05h.
    PreemptAndAbort = 0x05,
    /// 06h.
    RegisterAndIgnoreExistingKey = 0x06,
    /// 07h.
    RegisterAndMove = 0x07,
    /// 08h.
    ReplaceLostReservation = 0x08,
}

/// PERSISTENT RESERVE OUT. SCOPE and TYPE are kept raw: whether they matter depends on the service action and on the
/// state of the reservation (PREEMPT ignores them when it only removes registrations, SPC-4 5.12.11.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistentReserveOut {
    /// SERVICE ACTION.
    pub action: PersistentReserveOutAction,
    /// SCOPE, 0 to 15; 0 is the logical unit.
    pub scope: u8,
    /// TYPE, 0 to 15.
    pub kind: u8,
    /// PARAMETER LIST LENGTH in bytes.
    pub parameter_list_length: u32,
}

impl PersistentReserveOut {
    pub(super) fn decode(id: CommandId, raw: &Raw) -> Result<PersistentReserveOut, CdbError> {
        use PersistentReserveOutAction as A;
        let action = match id {
            CommandId::PersistentReserveOutRegister => A::Register,
            CommandId::PersistentReserveOutReserve => A::Reserve,
            CommandId::PersistentReserveOutRelease => A::Release,
            CommandId::PersistentReserveOutClear => A::Clear,
            CommandId::PersistentReserveOutPreempt => A::Preempt,
            CommandId::PersistentReserveOutPreemptAndAbort => A::PreemptAndAbort,
            CommandId::PersistentReserveOutRegisterAndIgnore => A::RegisterAndIgnoreExistingKey,
            CommandId::PersistentReserveOutRegisterAndMove => A::RegisterAndMove,
            CommandId::PersistentReserveOutReplaceLostReservation => A::ReplaceLostReservation,
            _ => {
                return Err(CdbError::InvalidField {
                    byte: 1,
                    bit: Some(4),
                });
            }
        };
        Ok(PersistentReserveOut {
            action,
            scope: raw.u8(2) >> 4,
            kind: raw.u8(2) & 0x0f,
            parameter_list_length: raw.u32(5),
        })
    }

    /// The command that the service action names.
    pub fn command_id(&self) -> CommandId {
        use PersistentReserveOutAction as A;
        match self.action {
            A::Register => CommandId::PersistentReserveOutRegister,
            A::Reserve => CommandId::PersistentReserveOutReserve,
            A::Release => CommandId::PersistentReserveOutRelease,
            A::Clear => CommandId::PersistentReserveOutClear,
            A::Preempt => CommandId::PersistentReserveOutPreempt,
            A::PreemptAndAbort => CommandId::PersistentReserveOutPreemptAndAbort,
            A::RegisterAndIgnoreExistingKey => CommandId::PersistentReserveOutRegisterAndIgnore,
            A::RegisterAndMove => CommandId::PersistentReserveOutRegisterAndMove,
            A::ReplaceLostReservation => CommandId::PersistentReserveOutReplaceLostReservation,
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        CdbBytes::new(self.command_id())
            .put(2, [self.scope << 4 | self.kind & 0x0f])
            .put(5, self.parameter_list_length.to_be_bytes())
    }
}
