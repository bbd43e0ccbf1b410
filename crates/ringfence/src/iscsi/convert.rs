//! Between the words of the transport and those of the target.

use ::iscsi::target as wire;
use ::target::Response;
use scsi::sam::{TaskAttribute, TaskManagementFunction, TaskManagementResponse};
use smallvec::SmallVec;

/// The attribute; `None` for a reserved code.
pub(super) fn attribute(attribute: wire::TaskAttribute) -> Option<TaskAttribute> {
    Some(match attribute {
        wire::TaskAttribute::Untagged => TaskAttribute::Untagged,
        wire::TaskAttribute::Simple => TaskAttribute::Simple,
        wire::TaskAttribute::Ordered => TaskAttribute::Ordered,
        wire::TaskAttribute::HeadOfQueue => TaskAttribute::HeadOfQueue,
        wire::TaskAttribute::Aca => TaskAttribute::Aca,
        wire::TaskAttribute::Reserved(_) => return None,
    })
}

/// The function; `None` for those of RFC 7144, which are not negotiated.
pub(super) fn function(function: wire::TaskFunction) -> Option<TaskManagementFunction> {
    use TaskManagementFunction as F;
    Some(match function {
        wire::TaskFunction::AbortTask => F::AbortTask,
        wire::TaskFunction::AbortTaskSet => F::AbortTaskSet,
        wire::TaskFunction::ClearAca => F::ClearAca,
        wire::TaskFunction::ClearTaskSet => F::ClearTaskSet,
        wire::TaskFunction::LogicalUnitReset => F::LogicalUnitReset,
        wire::TaskFunction::TargetWarmReset => F::TargetWarmReset,
        wire::TaskFunction::TargetColdReset => F::TargetColdReset,
        wire::TaskFunction::QueryTask
        | wire::TaskFunction::QueryTaskSet
        | wire::TaskFunction::ITNexusReset
        | wire::TaskFunction::QueryAsynchronousEvent => return None,
    })
}

/// The answer to a task management request.
pub(super) fn task_response(response: TaskManagementResponse) -> wire::TaskResponse {
    use TaskManagementResponse as R;
    match response {
        R::FunctionComplete => wire::TaskResponse::Complete,
        R::TaskDoesNotExist => wire::TaskResponse::TaskDoesNotExist,
        R::LunDoesNotExist => wire::TaskResponse::LunDoesNotExist,
        R::TaskStillAllegiant => wire::TaskResponse::TaskStillAllegiant,
        R::TaskReassignNotSupported => wire::TaskResponse::ReassignmentNotSupported,
        R::FunctionNotSupported => wire::TaskResponse::NotSupported,
        R::FunctionAuthorizationFailed => wire::TaskResponse::AuthorizationFailed,
        R::FunctionRejected => wire::TaskResponse::Rejected,
    }
}

/// The end of a command.
pub(super) fn response(response: Response) -> wire::ScsiResponse {
    wire::ScsiResponse {
        status: response.status as u8,
        sense: response.sense,
        data_in: if response.data_in.is_empty() {
            SmallVec::new()
        } else {
            SmallVec::from_buf([response.data_in])
        },
        transfer_length_bytes: response.transfer_length_bytes,
    }
}
