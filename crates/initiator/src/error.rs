//! What can go wrong.

use iscsi::initiator::{CloseReason, Completion, Fatal};
use scsi::{ParseError, Sense, Status};

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
    /// The target closed the TCP connection.
    #[error("the target closed the connection")]
    Disconnected,
    /// The iSCSI connection is over.
    #[error("the session is over: {0:?}")]
    Closed(CloseReason),
    /// The target broke the protocol, or refused the login.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// A command ended with a status other than GOOD.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The target's data is malformed.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The target rejected a request (RFC 7143 11.17.1).
    #[error("the target rejected the request with reason {0:02x}h")]
    Rejected(u8),
}

impl Error {
    /// True when a command ended with RESERVATION CONFLICT.
    pub fn is_reservation_conflict(&self) -> bool {
        matches!(self, Self::Command(error) if error.status == Status::ReservationConflict.code())
    }

    /// True when a command ended with TASK ABORTED: another nexus aborted it, as PREEMPT AND ABORT does.
    pub fn is_task_aborted(&self) -> bool {
        matches!(self, Self::Command(error) if error.status == Status::TaskAborted.code())
    }

    /// The sense data of a command that ended with CHECK CONDITION.
    pub fn sense(&self) -> Option<Sense> {
        match self {
            Self::Command(error) => error.sense,
            _ => None,
        }
    }
}

/// A status other than GOOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// The SCSI status byte.
    pub status: u8,
    /// Sense data, when there is some that can be read.
    pub sense: Option<Sense>,
}

impl CommandError {
    /// The error of a completion, unless it is GOOD.
    pub fn check(completion: &Completion) -> Result<(), CommandError> {
        if completion.response == 0 && completion.status == Status::Good.code() {
            return Ok(());
        }
        Err(CommandError {
            status: completion.status,
            sense: Sense::parse(&completion.sense).ok(),
        })
    }
}

impl std::error::Error for CommandError {}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Status::from_code(self.status) {
            Some(status) => status.fmt(f)?,
            None => write!(f, "status {:02x}h", self.status)?,
        }
        match &self.sense {
            Some(sense) => write!(f, ": {:?}, {}", sense.key, sense.additional),
            None => Ok(()),
        }
    }
}
