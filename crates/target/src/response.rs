//! How a task ends.

use bytes::Bytes;
use scsi::sense::SenseFormat;
use scsi::{Sense, Status};

/// The end of a task that is told to the initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status.
    pub status: Status,
    /// Sense data in the format that D_SENSE asks for; empty for none.
    pub sense: Bytes,
    /// Data for the initiator.
    pub data_in: Bytes,
    /// The bytes that the command would have transferred with unlimited buffers, where that is more than `data_in`
    /// or what the task asked for; for the residual count.
    pub transfer_length_bytes: Option<u64>,
}

impl Response {
    /// A status with neither sense nor data.
    pub fn status(status: Status) -> Self {
        Self {
            status,
            sense: Bytes::new(),
            data_in: Bytes::new(),
            transfer_length_bytes: None,
        }
    }

    /// GOOD without data.
    pub fn good() -> Self {
        Self::status(Status::Good)
    }

    /// GOOD with data.
    pub fn data(data_in: impl Into<Bytes>) -> Self {
        Self {
            data_in: data_in.into(),
            ..Self::good()
        }
    }

    /// CHECK CONDITION.
    pub fn check(sense: Sense, format: SenseFormat) -> Self {
        Self {
            sense: sense.encode(format).into(),
            ..Self::status(Status::CheckCondition)
        }
    }
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To be sent to the initiator.
    Response(Response),
    /// The task was aborted and ends without a response.
    Aborted,
}

/// How a command fails before it is encoded for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// CHECK CONDITION.
    Check(Sense),
    /// RESERVATION CONFLICT.
    Conflict,
    /// Another status without sense data.
    Status(Status),
    /// The task was aborted while it ran.
    Aborted,
}

impl Failure {
    /// The response that tells it.
    pub(crate) fn into_response(self, format: SenseFormat) -> Response {
        match self {
            Failure::Check(sense) => Response::check(sense, format),
            Failure::Conflict => Response::status(Status::ReservationConflict),
            Failure::Status(status) => Response::status(status),
            // Only tasks are aborted, and they end without a response or with TASK ABORTED.
            Failure::Aborted => Response::status(Status::TaskAborted),
        }
    }
}

impl From<Sense> for Failure {
    fn from(sense: Sense) -> Self {
        Failure::Check(sense)
    }
}

impl From<scsi::cdb::CdbError> for Failure {
    fn from(error: scsi::cdb::CdbError) -> Self {
        Failure::Check(error.into())
    }
}

impl From<scsi::ParameterListError> for Failure {
    fn from(error: scsi::ParameterListError) -> Self {
        Failure::Check(error.into())
    }
}
