//! What is supported, and under which conditions it runs. The forms of the commands are in [`scsi::cdb::COMMANDS`],
//! the access rights in [`reservation::access::TABLE`]; this table joins them and adds what is the target's own.

use scsi::cdb::{COMMANDS, CommandDescriptor, CommandId};

use crate::unit::condition::Condition;

/// When a command runs although the logical unit is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Readiness {
    /// Only when the logical unit is ready.
    Ready,
    /// Also when it has been stopped.
    Stopped,
    /// Also while it is sanitized (SBC-3 4.11.2), or after that has failed.
    Sanitizing,
}

/// Does the target carry out the command?
pub(crate) fn is_supported(id: CommandId) -> bool {
    // There is no key to change, so nothing that cryptographic erase could do.
    id != CommandId::SanitizeCryptographicErase
}

/// The supported commands in the order of REPORT SUPPORTED OPERATION CODES.
pub(crate) fn supported() -> impl Iterator<Item = &'static CommandDescriptor> {
    COMMANDS.iter().filter(|command| is_supported(command.id))
}

/// Recommended command timeout in seconds: what a busy device may need, and for SANITIZE a whole medium.
pub(crate) fn timeout_seconds(id: CommandId) -> u32 {
    use CommandId as C;
    match id {
        C::SanitizeOverwrite | C::SanitizeBlockErase => 24 * 60 * 60,
        C::ExtendedCopyLid1 | C::WriteSame10 | C::WriteSame16 | C::Unmap => 300,
        _ => 60,
    }
}

/// When the command runs although the logical unit is not ready.
pub(crate) fn readiness(id: CommandId) -> Readiness {
    use CommandId as C;
    match id {
        C::Inquiry
        | C::RequestSense
        | C::ReportLuns
        | C::LogSense
        | C::ReportSupportedOperationCodes
        | C::ReportSupportedTaskManagementFunctions
        | C::ReportTargetPortGroups
        | C::PersistentReserveInReadKeys
        | C::PersistentReserveInReadReservation
        | C::PersistentReserveInReportCapabilities
        | C::PersistentReserveInReadFullStatus => Readiness::Sanitizing,
        C::StartStopUnit
        | C::PreventAllowMediumRemoval
        | C::ModeSense6
        | C::ModeSense10
        | C::ModeSelect6
        | C::ModeSelect10
        | C::ReadCapacity10
        | C::ReadCapacity16
        | C::Reserve6
        | C::Reserve10
        | C::Release6
        | C::Release10
        | C::ReceiveCopyStatusLid1
        | C::ReceiveCopyDataLid1
        | C::ReceiveCopyOperatingParameters
        | C::ReceiveCopyFailureDetailsLid1
        | C::SynchronizeCache10
        | C::SynchronizeCache16
        | C::PersistentReserveOutRegister
        | C::PersistentReserveOutReserve
        | C::PersistentReserveOutRelease
        | C::PersistentReserveOutClear
        | C::PersistentReserveOutPreempt
        | C::PersistentReserveOutPreemptAndAbort
        | C::PersistentReserveOutRegisterAndIgnore
        | C::PersistentReserveOutRegisterAndMove
        | C::PersistentReserveOutReplaceLostReservation => Readiness::Stopped,
        _ => Readiness::Ready,
    }
}

/// Does the command run in this condition?
pub(crate) fn runs_while(id: CommandId, condition: &Condition) -> bool {
    if condition.has_sanitize_failed() && condition.sanitize_progress().is_none() {
        // SBC-3 4.11.4: SANITIZE itself is the way out.
        return readiness(id) >= Readiness::Sanitizing || id.descriptor().operation_code == 0x48;
    }
    if condition.sanitize_progress().is_some() {
        return readiness(id) >= Readiness::Sanitizing;
    }
    readiness(id) >= Readiness::Stopped
}

/// INQUIRY, REPORT LUNS and REQUEST SENSE neither end with a unit attention condition nor, but as each says, clear
/// one (SAM-5 5.14.1).
pub(crate) fn ignores_unit_attention(id: CommandId) -> bool {
    use CommandId as C;
    matches!(id, C::Inquiry | C::ReportLuns | C::RequestSense)
}

/// Commands that change what others may do or see, without writing the medium: an initiator with a read-only grant
/// may not send them. (A reader that could reserve would be able to stop the writers.)
pub(crate) fn needs_write_grant(id: CommandId) -> bool {
    use CommandId as C;
    super::is_persistent_reserve_out(id)
        || matches!(
            id,
            C::Reserve6
                | C::Reserve10
                | C::ModeSelect6
                | C::ModeSelect10
                | C::StartStopUnit
                | C::PreventAllowMediumRemoval
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_row_in_the_access_table() {
        for command in COMMANDS {
            let mut cdb = [0; 16];
            cdb[0] = command.operation_code;
            cdb[1] = command.service_action.unwrap_or(0);
            let row = reservation::access::row_of(&cdb);
            assert!(row.is_some(), "{}", command.name);
        }
    }

    #[test]
    fn what_writes_the_medium_needs_a_ready_logical_unit() {
        for command in COMMANDS {
            let mut cdb = [0; 16];
            cdb[0] = command.operation_code;
            cdb[1] = command.service_action.unwrap_or(0);
            if reservation::access::row_of(&cdb).is_some_and(|row| row.writes_medium()) {
                assert_eq!(readiness(command.id), Readiness::Ready, "{}", command.name);
            }
        }
    }
}
