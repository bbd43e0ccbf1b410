//! What goes into and comes out of an initiator connection.

use bytes::{Bytes, BytesMut};

use crate::NegotiationError;
use crate::parameters::SessionParameters;
use crate::target::{DiscoveredTarget, LoginStatus};

/// Something that has happened, in order.
#[derive(Debug)]
pub enum Event {
    /// The full feature phase has begun.
    LoggedIn {
        /// The session handle that the target gave.
        tsih: u16,
        /// What was agreed.
        parameters: Box<SessionParameters>,
    },
    /// A command has ended.
    Completed(Completion),
    /// A task management function was answered.
    TaskManagement {
        /// The tag that `task_management` gave.
        itt: u32,
        /// RFC 7143 11.6.1: 0 complete, 1 no such task, 2 no such LUN, 4 reassignment not supported, 5 not supported,
        /// 6 not authorized, 255 rejected.
        response: u8,
    },
    /// The answer to SendTargets.
    Targets(Vec<DiscoveredTarget>),
    /// An echo to `ping_with`.
    Pong(BytesMut),
    /// An asynchronous message.
    Async(AsyncMessage),
    /// The target rejected a PDU (RFC 7143 11.17).
    Rejected {
        /// RFC 7143 11.17.1.
        reason: u8,
        /// The header of the PDU that it rejects; shorter when the target sent less.
        header: BytesMut,
    },
    /// The connection is over; commands still outstanding are lost. The last event.
    Closed(CloseReason),
}

/// A command to be sent.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The logical unit.
    pub lun: [u8; 8],
    /// The CDB, up to 16 bytes, or up to 260 as an extended CDB.
    pub cdb: Bytes,
    /// Data for the target; at most 2^32-1 bytes.
    pub data_out: Bytes,
    /// The most data wanted from the target, in bytes. Not together with `data_out`.
    pub data_in_length_bytes: u32,
    /// Task attribute: 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA.
    pub attribute: u8,
    /// Overrides what `data_out` and `data_in_length_bytes` say is expected: for tests of residuals. The R and W bits
    /// are as given.
    pub expected_override: Option<Expected>,
}

/// Flags and length that do not follow from the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// R bit.
    pub read: bool,
    /// W bit.
    pub write: bool,
    /// Expected Data Transfer Length, in bytes.
    pub length_bytes: u32,
}

/// The end of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tag that `submit` gave.
    pub itt: u32,
    /// iSCSI service response: 0 completed at target, 1 target failure.
    pub response: u8,
    /// SCSI status.
    pub status: u8,
    /// Sense data, without its length prefix.
    pub sense: BytesMut,
    /// Data from the target.
    pub data_in: BytesMut,
    /// Residual count.
    pub residual: Residual,
}

/// Residual count (RFC 7143 11.4.5), in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residual {
    /// As expected.
    #[default]
    None,
    /// Less was transferred than expected.
    Underflow(u32),
    /// More would have been transferred.
    Overflow(u32),
}

/// An Asynchronous Message (RFC 7143 11.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsyncMessage {
    /// 0 SCSI event, 1 logout requested, 2 connection drop, 3 session drop, 4 renegotiation.
    pub event: u8,
    /// The logical unit of a SCSI event.
    pub lun: [u8; 8],
    /// Parameter1 to Parameter3.
    pub parameters: [u16; 3],
    /// Sense data of a SCSI event, without its length prefix.
    pub sense: BytesMut,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Logout was answered; 0 is success (RFC 7143 11.15.1).
    LoggedOut {
        /// The response.
        response: u8,
    },
    /// The target refused the login, or redirected it (status class 1).
    LoginRefused(LoginStatus),
    /// The login took too long.
    LoginTimeout,
    /// The target did not answer a ping in time.
    PeerDead,
    /// The target broke the protocol.
    Fatal(Fatal),
}

/// What ends a connection at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A header or data digest was wrong; at ErrorRecoveryLevel 0 the session ends.
    #[error("digest error")]
    Digest,
    /// A PDU longer than this end takes.
    #[error("the target sent a PDU that is too long")]
    TooLong,
    /// A PDU that does not belong here.
    #[error("the target sent operation code {opcode:02x}h out of place")]
    Unexpected {
        /// The operation code.
        opcode: u8,
    },
    /// StatSN, DataSN or offset out of order: a PDU is missing.
    #[error("the target sent a PDU out of sequence")]
    OutOfSequence,
    /// Data or an R2T outside of what the command has.
    #[error("the target transfers what the command does not have")]
    OutOfBounds,
    /// Text that does not parse, or a login that leads nowhere.
    #[error("the target's login or text answers make no sense")]
    BadText,
    /// A negotiation that cannot go on.
    #[error("negotiation: {0}")]
    Negotiation(#[from] NegotiationError),
    /// The target did not prove itself, or authentication methods do not meet.
    #[error("the target could not be authenticated")]
    Authentication,
    /// The login was refused.
    #[error("the target refused the login: {0:?}")]
    LoginRefused(LoginStatus),
    /// Bytes after the connection was closed.
    #[error("the connection is closed")]
    Closed,
}
