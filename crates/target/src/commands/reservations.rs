//! PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE: from wire forms to the reservation machine and back.

use bytes::Bytes;
use reservation::{Command, InitiatorPort, Nexus, RegisterAndMove, ServiceAction, report};
use scsi::cdb::{
    PersistentReserveIn, PersistentReserveInAction, PersistentReserveOut,
    PersistentReserveOutAction,
};
use scsi::pr::{
    Capabilities, FullStatus, LU_SCOPE, OutParameters, ReservationDescriptor, TransportId,
    encode_full_status, encode_keys, encode_reservation,
};
use scsi::{Sense, truncated};
use volume::block_device::BlockDevice;

use super::Reply;
use crate::response::Failure;
use crate::task::Task;

/// PERSISTENT RESERVE OUT.
pub(crate) async fn reserve_out<D: BlockDevice>(
    task: &Task<D>,
    cdb: &PersistentReserveOut,
    list: Bytes,
) -> Result<Reply, Failure> {
    let list = task.data(list)?;
    let parameters = OutParameters::parse(cdb.action, &list)?;
    let command = command(cdb, parameters)?;
    change(task, &command).await
}

/// RESERVE and RELEASE of SCSI-2, and what [`reserve_out`] made of its parameters.
pub(crate) async fn change<D: BlockDevice>(
    task: &Task<D>,
    command: &Command,
) -> Result<Reply, Failure> {
    task.allowed()?;
    task.attached().unit.reserve(task, command).await?;
    Ok(Reply::good())
}

fn command(cdb: &PersistentReserveOut, parameters: OutParameters) -> Result<Command, Failure> {
    let basic = match parameters {
        OutParameters::Basic(basic) => basic,
        OutParameters::RegisterAndMove(list) => {
            let destination = Nexus {
                initiator: initiator_port(&list.transport_id, 24)?,
                target_port: list.relative_target_port,
            };
            return Ok(Command::RegisterAndMove(RegisterAndMove {
                reservation_key: list.reservation_key,
                service_action_reservation_key: list.service_action_reservation_key,
                unregister: list.unregister,
                aptpl: list.aptpl,
                destination,
            }));
        }
    };
    let service_action = match cdb.action {
        PersistentReserveOutAction::Register => ServiceAction::Register,
        PersistentReserveOutAction::Reserve => ServiceAction::Reserve,
        PersistentReserveOutAction::Release => ServiceAction::Release,
        PersistentReserveOutAction::Clear => ServiceAction::Clear,
        PersistentReserveOutAction::Preempt => ServiceAction::Preempt,
        PersistentReserveOutAction::PreemptAndAbort => ServiceAction::PreemptAndAbort,
        PersistentReserveOutAction::RegisterAndIgnoreExistingKey => {
            ServiceAction::RegisterAndIgnoreExistingKey
        }
        PersistentReserveOutAction::ReplaceLostReservation => ServiceAction::ReplaceLostReservation,
        // Its parameter list is of the other form.
        PersistentReserveOutAction::RegisterAndMove => {
            return Err(Sense::parameter_list_length_error().into());
        }
    };
    let ports = || {
        let ids = basic.transport_ids.iter();
        ids.map(|id| initiator_port(id, 28)).collect()
    };
    Ok(Command::PersistentReserveOut(
        reservation::PersistentReserveOut {
            service_action,
            scope: cdb.scope,
            kind: cdb.kind,
            reservation_key: basic.reservation_key,
            service_action_reservation_key: basic.service_action_reservation_key,
            all_target_ports: basic.all_tg_pt,
            aptpl: basic.aptpl,
            specified_initiator_ports: basic.spec_i_pt.then(ports).transpose()?,
        },
    ))
}

/// The initiator port that a TransportID names; `offset` is where its list begins, for the field pointer.
fn initiator_port(id: &TransportId, offset: u16) -> Result<InitiatorPort, Failure> {
    // Without ISID it names a device, not a port (SPC-4 7.6.4.6, TPID FORMAT 00b).
    let isid = id
        .isid
        .ok_or_else(|| Sense::invalid_field_in_parameter_list(offset, None))?;
    Ok(InitiatorPort {
        name: id.name.to_lowercase().into(),
        isid,
    })
}

/// PERSISTENT RESERVE IN.
pub(crate) fn reserve_in<D: BlockDevice>(
    task: &Task<D>,
    cdb: &PersistentReserveIn,
) -> Result<Reply, Failure> {
    task.allowed()?;
    let unit = &task.attached().unit;
    let Some(reservations) = unit.reservations() else {
        return Err(unit.not_known());
    };
    let state = &reservations.persistent;
    let data = match cdb.action {
        PersistentReserveInAction::ReadKeys => {
            let keys = report::read_keys(state);
            let list: Vec<u64> = keys.keys.iter().map(|key| key.0).collect();
            encode_keys(keys.generation, &list)
        }
        PersistentReserveInAction::ReadReservation => {
            let held = report::read_reservation(state);
            let descriptor = held.reservation.map(|(kind, key)| ReservationDescriptor {
                key: key.0,
                scope: LU_SCOPE,
                kind: kind.code(),
            });
            encode_reservation(held.generation, descriptor)
        }
        PersistentReserveInAction::ReportCapabilities => {
            let can = report::report_capabilities(state);
            let mut types = [false; 9];
            for kind in can.types {
                types[usize::from(kind.code())] = true;
            }
            Capabilities {
                replace_lost_reservation: can.replace_lost_reservation,
                compatible_reservation_handling: can.compatible_reservation_handling,
                specify_initiator_ports: can.specify_initiator_ports,
                all_target_ports: can.all_target_ports,
                persist_through_power_loss: can.persist_through_power_loss,
                allow_commands: can.allow_commands,
                persist_through_power_loss_active: can.persist_through_power_loss_activated,
                types,
            }
            .encode()
        }
        PersistentReserveInAction::ReadFullStatus => {
            let status = report::read_full_status(state, &unit.shared.config.ports);
            let list: Vec<FullStatus> = status.descriptors.iter().map(full_status).collect();
            encode_full_status(status.generation, &list)
        }
    };
    Ok(Reply::data(truncated(data, cdb.allocation_length.into())))
}

fn full_status(descriptor: &report::FullStatus) -> FullStatus {
    FullStatus {
        key: descriptor.key.0,
        all_tg_pt: descriptor.target_port.is_none(),
        holder: descriptor.holds.map(|kind| (LU_SCOPE, kind.code())),
        relative_target_port: descriptor.target_port.unwrap_or(0),
        transport_id: TransportId {
            name: descriptor.initiator.name.to_string(),
            isid: Some(descriptor.initiator.isid),
        },
    }
}
