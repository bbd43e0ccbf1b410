//! Parameter data of REPORT SUPPORTED OPERATION CODES (SPC-4 6.35) and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
//! (SPC-4 6.36).

use crate::cdb::{CommandDescriptor, CommandId, ReportSupportedOperationCodes, ReportingOptions};
use crate::error::ParseError;
use crate::sense::Sense;
use crate::wire::{View, flag, length_u16, length_u32};

/// Command timeouts descriptor (SPC-4 6.35.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandTimeouts {
    /// COMMAND SPECIFIC.
    pub command_specific: u8,
    /// NOMINAL COMMAND PROCESSING TIMEOUT in seconds; 0 says nothing.
    pub nominal_seconds: u32,
    /// RECOMMENDED COMMAND TIMEOUT in seconds; 0 says nothing.
    pub recommended_seconds: u32,
}

impl CommandTimeouts {
    fn encode(&self) -> Vec<u8> {
        let mut data = vec![0x00, 0x0a, 0x00, self.command_specific];
        data.extend(self.nominal_seconds.to_be_bytes());
        data.extend(self.recommended_seconds.to_be_bytes());
        data
    }
}

/// Builds the data for REPORT SUPPORTED OPERATION CODES, not yet cut to the allocation length. `supported` are the
/// commands that the device server supports, `timeouts` tells the timeouts of each.
///
/// # Errors
/// INVALID FIELD IN CDB when REPORTING OPTIONS is 001b and the operation code has service actions, or 010b and it has
/// none. An operation code that is not supported at all is no error.
pub fn report_supported_operation_codes(
    command: &ReportSupportedOperationCodes,
    supported: &[CommandId],
    timeouts: impl Fn(CommandId) -> CommandTimeouts,
) -> Result<Vec<u8>, Sense> {
    let rows = supported.iter().map(|id| id.descriptor());
    if command.options == ReportingOptions::All {
        return Ok(all_commands(rows, command.return_timeouts, timeouts));
    }
    let of_code: Vec<&CommandDescriptor> = rows
        .filter(|row| row.operation_code == command.operation_code)
        .collect();
    let has_service_actions = of_code.iter().any(|row| row.service_action.is_some());
    let wrong_kind = match command.options {
        ReportingOptions::OperationCode => has_service_actions,
        ReportingOptions::ServiceAction => !of_code.is_empty() && !has_service_actions,
        ReportingOptions::All | ReportingOptions::Either => false,
    };
    if wrong_kind {
        return Err(Sense::invalid_field_in_cdb(2, Some(2)));
    }
    let found = of_code.into_iter().find(|row| match row.service_action {
        Some(code) => u16::from(code) == command.service_action,
        None => true,
    });
    Ok(one_command(found, command.return_timeouts, timeouts))
}

/// All_commands parameter data (SPC-4 6.35.2).
fn all_commands<'a>(
    rows: impl Iterator<Item = &'a CommandDescriptor>,
    return_timeouts: bool,
    timeouts: impl Fn(CommandId) -> CommandTimeouts,
) -> Vec<u8> {
    let mut list = Vec::new();
    for row in rows {
        list.extend([row.operation_code, 0, 0, row.service_action.unwrap_or(0), 0]);
        list.push(flag(return_timeouts, 1) | flag(row.service_action.is_some(), 0));
        list.extend(length_u16(row.usage.len()).to_be_bytes());
        if return_timeouts {
            list.extend(timeouts(row.id).encode());
        }
    }
    [&length_u32(list.len()).to_be_bytes()[..], &list].concat()
}

/// One_command parameter data (SPC-4 6.35.3); SUPPORT is 011b, in conformance with the standard, or 001b.
fn one_command(
    row: Option<&CommandDescriptor>,
    return_timeouts: bool,
    timeouts: impl Fn(CommandId) -> CommandTimeouts,
) -> Vec<u8> {
    let Some(row) = row else {
        return vec![0, 0x01, 0, 0];
    };
    let mut data = vec![0, flag(return_timeouts, 7) | 0x03];
    data.extend(length_u16(row.usage.len()).to_be_bytes());
    data.extend(row.usage);
    if return_timeouts {
        data.extend(timeouts(row.id).encode());
    }
    data
}

/// A command in the all_commands data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedCommand {
    /// OPERATION CODE.
    pub operation_code: u8,
    /// SERVICE ACTION, with SERVACTV one.
    pub service_action: Option<u16>,
    /// CDB LENGTH in bytes.
    pub cdb_length_bytes: u16,
    /// The command timeouts descriptor, with CTDP one.
    pub timeouts: Option<CommandTimeouts>,
}

fn parse_timeouts(view: View<'_>, at: usize) -> Result<CommandTimeouts, ParseError> {
    Ok(CommandTimeouts {
        command_specific: view.u8(at + 3)?,
        nominal_seconds: view.u32(at + 4)?,
        recommended_seconds: view.u32(at + 8)?,
    })
}

/// Reads the complete descriptors of all_commands data.
///
/// # Errors
/// The header is cut short.
pub fn parse_all_commands(data: &[u8]) -> Result<Vec<ReportedCommand>, ParseError> {
    let view = View::new(data, "all_commands data");
    let length = usize::try_from(view.u32(0)?).unwrap_or(usize::MAX);
    let list = View::new(
        &data[4..length.saturating_add(4).min(data.len())],
        view.what,
    );
    let mut commands = Vec::new();
    let mut at = 0;
    while list.slice(at, 8).is_ok() {
        let flags = list.u8(at + 5)?;
        let timeouts = if flags & 0x02 != 0 {
            let Ok(timeouts) = parse_timeouts(list, at + 8) else {
                break;
            };
            Some(timeouts)
        } else {
            None
        };
        commands.push(ReportedCommand {
            operation_code: list.u8(at)?,
            service_action: if flags & 0x01 != 0 {
                Some(list.u16(at + 2)?)
            } else {
                None
            },
            cdb_length_bytes: list.u16(at + 6)?,
            timeouts,
        });
        at += if timeouts.is_some() { 20 } else { 8 };
    }
    Ok(commands)
}

/// Reads one_command data: the CDB usage data of a command that is supported in conformance with the standard, `None`
/// for one that is not supported.
///
/// # Errors
/// The data is cut short, or SUPPORT is neither 001b nor 011b.
pub fn parse_one_command(data: &[u8]) -> Result<Option<Vec<u8>>, ParseError> {
    let view = View::new(data, "one_command data");
    match view.u8(1)? & 0x07 {
        1 => Ok(None),
        3 => Ok(Some(view.slice(4, view.u16(2)?.into())?.to_vec())),
        _ => Err(view.invalid(1)),
    }
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SupportedTaskManagement {
    /// ATS: ABORT TASK.
    pub abort_task: bool,
    /// ATSS: ABORT TASK SET.
    pub abort_task_set: bool,
    /// CACAS: CLEAR ACA.
    pub clear_aca: bool,
    /// CTSS: CLEAR TASK SET.
    pub clear_task_set: bool,
    /// LURS: LOGICAL UNIT RESET.
    pub logical_unit_reset: bool,
    /// QTS: QUERY TASK.
    pub query_task: bool,
    /// TRS: TARGET RESET (obsolete).
    pub target_reset: bool,
    /// QAES: QUERY ASYNCHRONOUS EVENT.
    pub query_asynchronous_event: bool,
    /// QTSS: QUERY TASK SET.
    pub query_task_set: bool,
    /// ITNRS: I_T NEXUS RESET.
    pub i_t_nexus_reset: bool,
}

impl SupportedTaskManagement {
    /// Builds the data: 4 bytes, or 16 with REPD, where no timeouts are given.
    pub fn encode(&self, extended: bool) -> Vec<u8> {
        let mut data = vec![
            flag(self.abort_task, 7)
                | flag(self.abort_task_set, 6)
                | flag(self.clear_aca, 5)
                | flag(self.clear_task_set, 4)
                | flag(self.logical_unit_reset, 3)
                | flag(self.query_task, 2)
                | flag(self.target_reset, 1),
            flag(self.query_asynchronous_event, 2)
                | flag(self.query_task_set, 1)
                | flag(self.i_t_nexus_reset, 0),
            0,
            if extended { 0x0c } else { 0 },
        ];
        if extended {
            data.extend([0; 12]);
        }
        data
    }

    /// Reads the first two bytes of the data.
    ///
    /// # Errors
    /// The data is shorter.
    pub fn parse(data: &[u8]) -> Result<SupportedTaskManagement, ParseError> {
        let view = View::new(data, "task management functions data");
        let (first, second) = (view.u8(0)?, view.u8(1)?);
        Ok(SupportedTaskManagement {
            abort_task: first & 0x80 != 0,
            abort_task_set: first & 0x40 != 0,
            clear_aca: first & 0x20 != 0,
            clear_task_set: first & 0x10 != 0,
            logical_unit_reset: first & 0x08 != 0,
            query_task: first & 0x04 != 0,
            target_reset: first & 0x02 != 0,
            query_asynchronous_event: second & 0x04 != 0,
            query_task_set: second & 0x02 != 0,
            i_t_nexus_reset: second & 0x01 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPPORTED: [CommandId; 3] = [
        CommandId::Inquiry,
        CommandId::ReadCapacity16,
        CommandId::GetLbaStatus,
    ];

    fn timeouts(id: CommandId) -> CommandTimeouts {
        CommandTimeouts {
            command_specific: 0,
            nominal_seconds: 1,
            recommended_seconds: id as u32,
        }
    }

    fn report(
        options: ReportingOptions,
        operation_code: u8,
        service_action: u16,
        return_timeouts: bool,
    ) -> Result<Vec<u8>, Sense> {
        let command = ReportSupportedOperationCodes {
            return_timeouts,
            options,
            operation_code,
            service_action,
            allocation_length: 1000,
        };
        report_supported_operation_codes(&command, &SUPPORTED, timeouts)
    }

    #[test]
    fn all_commands_bytes_by_hand() {
        let data = report(ReportingOptions::All, 0, 0, false).expect("valid");
        let expected = [
            0, 0, 0, 24, 0x12, 0, 0, 0, 0, 0, 0, 6, 0x9e, 0, 0, 0x10, 0, 1, 0, 16, 0x9e, 0, 0,
            0x12, 0, 1, 0, 16,
        ];
        assert_eq!(data, expected);
        let data = report(ReportingOptions::All, 0, 0, true).expect("valid");
        assert_eq!(
            data[..24],
            [
                0, 0, 0, 60, 0x12, 0, 0, 0, 0, 2, 0, 6, 0, 10, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4
            ]
        );
        let read = parse_all_commands(&data).expect("valid");
        assert_eq!(read.len(), 3);
        assert_eq!(read[2].service_action, Some(0x12));
        assert_eq!(read[2].timeouts, Some(timeouts(CommandId::GetLbaStatus)));
        assert_eq!(parse_all_commands(&data[..63]).expect("cut"), read[..2]);
    }

    #[test]
    fn one_command_by_reporting_option() {
        use ReportingOptions as O;
        let wrong = Err(Sense::invalid_field_in_cdb(2, Some(2)));
        let none = Ok(vec![0, 1, 0, 0]);
        let inquiry = Ok(vec![0, 3, 0, 6, 0x12, 0x01, 0xff, 0xff, 0xff, 0]);
        assert_eq!(report(O::OperationCode, 0x12, 0, false), inquiry);
        assert_eq!(report(O::OperationCode, 0x9e, 0x10, false), wrong);
        assert_eq!(report(O::OperationCode, 0xff, 0, false), none);
        assert_eq!(report(O::ServiceAction, 0x12, 0, false), wrong);
        assert_eq!(report(O::ServiceAction, 0x9e, 0x11, false), none);
        assert_eq!(report(O::ServiceAction, 0xff, 0, false), none);
        assert_eq!(report(O::Either, 0x12, 0, false), inquiry);
        assert_eq!(report(O::Either, 0x9e, 0x11, false), none);
        let found = report(O::ServiceAction, 0x9e, 0x12, true).expect("valid");
        assert_eq!((found.len(), found[1]), (4 + 16 + 12, 0x83));
        let usage = parse_one_command(&found)
            .expect("valid")
            .expect("supported");
        assert_eq!(usage, CommandId::GetLbaStatus.descriptor().usage);
        assert_eq!(parse_one_command(&[0, 1, 0, 0]), Ok(None));
        assert!(parse_one_command(&found[..19]).is_err());
    }

    #[test]
    fn task_management_bytes_by_hand() {
        let value = SupportedTaskManagement {
            abort_task: true,
            abort_task_set: true,
            clear_task_set: true,
            logical_unit_reset: true,
            target_reset: true,
            ..SupportedTaskManagement::default()
        };
        assert_eq!(value.encode(false), [0xda, 0, 0, 0]);
        assert_eq!(
            value.encode(true),
            [0xda, 0, 0, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            SupportedTaskManagement::parse(&value.encode(false)),
            Ok(value)
        );
        assert!(SupportedTaskManagement::parse(&[0]).is_err());
    }
}
