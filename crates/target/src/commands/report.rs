//! REPORT LUNS, REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS, REPORT TARGET PORT GROUPS, LOG SENSE
//! (SPC-4 6.9, 6.33 to 6.37).

use reservation::Nexus;
use scsi::cdb::{
    CommandId, LogSense, ReportLuns, ReportSupportedOperationCodes,
    ReportSupportedTaskManagementFunctions, ReportTargetPortGroups,
};
use scsi::log::{LogData, log_sense};
use scsi::lun::Lun;
use scsi::operation_codes::{
    CommandTimeouts, SupportedTaskManagement, report_supported_operation_codes,
};
use scsi::report_luns::{self, select_report};
use scsi::sense::AdditionalSense;
use scsi::target_port_groups::{self, AccessState, TargetPortGroup};
use scsi::unit_attention::UnitAttention;
use scsi::{Sense, truncated};
use volume::block_device::BlockDevice;

use super::Reply;
use super::table::{supported, timeout_seconds};
use crate::gate::Grant;
use crate::response::Failure;
use crate::target::Target;
use crate::task::Task;

/// REPORT LUNS. It clears REPORTED LUNS DATA HAS CHANGED on every logical unit of the nexus (SAM-5 5.14.1).
pub(crate) fn report_luns<D: BlockDevice>(
    task: &Task<D>,
    command: &ReportLuns,
) -> Result<Reply, Failure> {
    let attached = task.attached();
    let data = luns_for(&attached.target, &attached.nexus.nexus, command)?;
    Ok(Reply::data(data))
}

/// The LUNs that the initiator may see.
pub(crate) fn luns_for<D: BlockDevice>(
    target: &Target<D>,
    nexus: &Nexus,
    command: &ReportLuns,
) -> Result<Vec<u8>, Failure> {
    if command.allocation_length < 16 {
        return Err(Sense::invalid_field_in_cdb(6, None).into());
    }
    let luns: Vec<Lun> = match command.select_report {
        select_report::LOGICAL_UNITS | select_report::ALL => target
            .logical_units()
            .iter()
            .filter(|unit| unit.grant(nexus) != Grant::None)
            .filter_map(|unit| Lun::new(unit.lun))
            .collect(),
        select_report::WELL_KNOWN => Vec::new(),
        _ => return Err(Sense::invalid_field_in_cdb(2, None).into()),
    };
    if let Some(session) = target.session(nexus) {
        session.clear_attention(UnitAttention::ReportedLunsDataChanged);
    }
    Ok(truncated(
        report_luns::encode(&luns),
        command.allocation_length,
    ))
}

/// REPORT SUPPORTED OPERATION CODES.
pub(crate) fn operation_codes<D: BlockDevice>(
    task: &Task<D>,
    command: &ReportSupportedOperationCodes,
) -> Result<Reply, Failure> {
    task.allowed()?;
    let ids: Vec<CommandId> = supported().map(|command| command.id).collect();
    let data = report_supported_operation_codes(command, &ids, |id| CommandTimeouts {
        command_specific: 0,
        nominal_seconds: 0,
        recommended_seconds: timeout_seconds(id),
    })?;
    Ok(Reply::data(truncated(data, command.allocation_length)))
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
pub(crate) fn task_management_functions<D: BlockDevice>(
    task: &Task<D>,
    command: &ReportSupportedTaskManagementFunctions,
) -> Result<Reply, Failure> {
    task.allowed()?;
    let data = SupportedTaskManagement {
        abort_task: true,
        abort_task_set: true,
        clear_task_set: true,
        logical_unit_reset: true,
        target_reset: true,
        ..SupportedTaskManagement::default()
    }
    .encode(command.extended);
    Ok(Reply::data(truncated(data, command.allocation_length)))
}

/// REPORT TARGET PORT GROUPS: every port is a group of its own, and all are active/optimized.
pub(crate) fn port_groups<D: BlockDevice>(
    task: &Task<D>,
    command: &ReportTargetPortGroups,
) -> Result<Reply, Failure> {
    task.allowed()?;
    let ports = &task.attached().unit.shared.config.ports;
    let groups: Vec<TargetPortGroup> = ports
        .iter()
        .map(|&port| TargetPortGroup {
            preferred: false,
            state: AccessState::ActiveOptimized,
            supported: vec![AccessState::ActiveOptimized],
            group: port,
            status_code: 0,
            ports: vec![port],
        })
        .collect();
    let data = target_port_groups::encode(&groups, command.extended.then_some(0));
    Ok(Reply::data(truncated(data, command.allocation_length)))
}

/// LOG SENSE.
pub(crate) fn log<D: BlockDevice>(task: &Task<D>, command: &LogSense) -> Result<Reply, Failure> {
    task.allowed()?;
    let data = log_sense(
        command,
        &LogData {
            exception: AdditionalSense::NONE,
            temperature_celsius: None,
        },
    )?;
    Ok(Reply::data(truncated(
        data,
        command.allocation_length.into(),
    )))
}
