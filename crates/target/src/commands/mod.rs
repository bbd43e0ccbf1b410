//! The commands. [`table`] says what is supported and under which conditions each runs; the other modules carry them
//! out, one family each.

pub(crate) mod copy;
mod exclusive;
pub(crate) mod inquiry;
mod medium;
mod mode;
pub(crate) mod plan;
mod provisioning;
pub(crate) mod read_write;
mod report;
mod reservations;
mod sanitize;
pub(crate) mod table;
pub(crate) mod unknown_lun;
mod verify;
pub(crate) mod window;

use bytes::{Bytes, BytesMut};
use reservation::Command;
use scsi::Status;
use scsi::cdb::{Cdb, CommandId};
use volume::VolumeError;
use volume::block_device::BlockDevice;

use crate::response::{Failure, Response};
use crate::task::Task;
pub(crate) use table::{ignores_unit_attention, needs_write_grant, runs_while};

/// How a command ends well.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) data: Bytes,
    /// The whole length, where `data` was cut to what the initiator expects.
    pub(crate) transfer_length_bytes: Option<u64>,
}

impl Reply {
    /// GOOD without data.
    pub(crate) fn good() -> Self {
        Self::data(Bytes::new())
    }

    /// GOOD with data.
    pub(crate) fn data(data: impl Into<Bytes>) -> Self {
        Self {
            status: Status::Good,
            data: data.into(),
            transfer_length_bytes: None,
        }
    }

    pub(crate) fn into_response(self) -> Response {
        Response {
            transfer_length_bytes: self.transfer_length_bytes,
            ..Response {
                status: self.status,
                ..Response::data(self.data)
            }
        }
    }
}

/// Carries out every command but READ and WRITE, which [`Task::execute`] does itself.
pub(crate) async fn dispatch<D: BlockDevice>(
    task: &Task<D>,
    data: BytesMut,
) -> Result<Reply, Failure> {
    let data = data.freeze();
    match &task.cdb {
        Cdb::TestUnitReady => inquiry::test_unit_ready(task),
        Cdb::RequestSense(command) => inquiry::request_sense(task, command),
        Cdb::Inquiry(command) => inquiry::inquiry(task, command),
        Cdb::ModeSelect(command) => mode::select(task, command, data).await,
        Cdb::ModeSense(command) => mode::sense(task, command),
        Cdb::StartStopUnit(command) => medium::start_stop(task, command).await,
        Cdb::PreventAllowMediumRemoval(command) => medium::prevent_allow(task, command),
        Cdb::Reserve(_) => reservations::change(task, &Command::Reserve).await,
        Cdb::Release(_) => reservations::change(task, &Command::Release).await,
        Cdb::PersistentReserveIn(command) => reservations::reserve_in(task, command),
        Cdb::PersistentReserveOut(command) => reservations::reserve_out(task, command, data).await,
        Cdb::ReadCapacity10(_) => medium::read_capacity_10(task),
        Cdb::ReadCapacity16(command) => medium::read_capacity_16(task, command),
        Cdb::Read(command) => read_write::read(task, command).await,
        Cdb::Write(command) => read_write::write(task, command, data).await,
        Cdb::WriteAndVerify(command) => verify::write_and_verify(task, command, data).await,
        Cdb::Verify(command) => verify::verify(task, command, data).await,
        Cdb::OrWrite16(command) => exclusive::or_write(task, command, data).await,
        Cdb::CompareAndWrite(command) => exclusive::compare_and_write(task, command, data).await,
        Cdb::WriteAtomic16(command) => exclusive::write_atomic(task, command, data).await,
        Cdb::PreFetch(_) => medium::pre_fetch(task),
        Cdb::SynchronizeCache(command) => medium::synchronize_cache(task, command).await,
        Cdb::ReadDefectData(command) => medium::read_defect_data(task, command),
        Cdb::WriteSame(command) => provisioning::write_same(task, command, data).await,
        Cdb::Unmap(_) => provisioning::unmap(task, data).await,
        Cdb::GetLbaStatus(command) => provisioning::get_lba_status(task, command).await,
        Cdb::Sanitize(command) => sanitize::sanitize(task, command, data).await,
        Cdb::LogSense(command) => report::log(task, command),
        Cdb::ReportLuns(command) => report::report_luns(task, command),
        Cdb::ReportTargetPortGroups(command) => report::port_groups(task, command),
        Cdb::ReportSupportedOperationCodes(command) => report::operation_codes(task, command),
        Cdb::ReportSupportedTaskManagementFunctions(command) => {
            report::task_management_functions(task, command)
        }
        Cdb::ExtendedCopy(_) => copy::extended_copy(task, data).await,
        Cdb::ReceiveCopyResults(command) => copy::receive_results(task, command),
    }
}

/// What a failed operation of the volume is to the initiator; `lba` is the first block of the operation.
pub(crate) fn medium_failure(error: &VolumeError, lba: u64, write: bool) -> Failure {
    use scsi::Sense;
    use scsi::sense::AdditionalSense;
    tracing::error!(%error, lba, "medium error");
    let sense = match error {
        VolumeError::OutOfBounds { .. } => Sense::lba_out_of_range(lba),
        VolumeError::Device { source, .. }
            if write && source.kind() == std::io::ErrorKind::StorageFull =>
        {
            Sense::space_allocation_failed()
        }
        VolumeError::NotServed { .. }
        | VolumeError::WritesRefused { .. }
        | VolumeError::Undecided { .. } => {
            Sense::not_ready(AdditionalSense::MANUAL_INTERVENTION_REQUIRED)
        }
        _ if write => Sense::write_error(lba),
        _ => Sense::unrecovered_read_error(lba),
    };
    sense.into()
}

/// Is this the command, in any of its lengths or service actions?
pub(crate) fn is_persistent_reserve_out(id: CommandId) -> bool {
    id.descriptor().operation_code == 0x5f
}
