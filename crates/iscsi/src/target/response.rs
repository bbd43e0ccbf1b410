//! What the application tells a target connection.

use bytes::Bytes;
use smallvec::SmallVec;

/// The end of a SCSI task.
#[derive(Clone, Debug, Default)]
pub struct ScsiResponse {
    /// SCSI status byte (00h GOOD, 02h CHECK CONDITION, 18h RESERVATION CONFLICT, …).
    pub status: u8,
    /// Sense data, without the length prefix that iSCSI adds; empty for none.
    pub sense: Bytes,
    /// Data for the initiator, in order. What exceeds the expected data transfer length is not sent and counted as
    /// residual overflow; what falls short of it is counted as underflow.
    pub data_in: SmallVec<[Bytes; 1]>,
    /// The bytes that the command would have transferred with unlimited buffers, for the residual count. `None`: the
    /// length of `data_in` for reads, what was asked of `accept_write` for writes.
    pub transfer_length_bytes: Option<u64>,
}

impl ScsiResponse {
    /// GOOD without data.
    pub fn good() -> Self {
        Self::default()
    }

    /// GOOD with data for the initiator.
    pub fn data(data: Bytes) -> Self {
        Self {
            data_in: SmallVec::from_buf([data]),
            ..Self::default()
        }
    }

    /// A status without sense data.
    pub fn status(status: u8) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// CHECK CONDITION with sense data.
    pub fn check_condition(sense: impl Into<Bytes>) -> Self {
        Self {
            status: 0x02,
            sense: sense.into(),
            ..Self::default()
        }
    }
}

/// The answer to a task management request (RFC 7143 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskResponse {
    /// 0
    Complete,
    /// 1
    TaskDoesNotExist,
    /// 2
    LunDoesNotExist,
    /// 3
    TaskStillAllegiant,
    /// 4
    ReassignmentNotSupported,
    /// 5
    NotSupported,
    /// 6
    AuthorizationFailed,
    /// 7, RFC 7144
    Succeeded,
    /// 255
    Rejected,
}

/// A status class and detail of a Login Response (RFC 7143 11.13.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LoginStatus {
    /// 0 success, 1 redirection, 2 initiator error, 3 target error.
    pub class: u8,
    /// Meaning depends on the class.
    pub detail: u8,
}

impl LoginStatus {
    /// Login proceeds.
    pub const SUCCESS: Self = Self::new(0, 0);
    /// The target has moved for a while.
    pub const MOVED_TEMPORARILY: Self = Self::new(1, 1);
    /// The target has moved.
    pub const MOVED_PERMANENTLY: Self = Self::new(1, 2);
    /// Miscellaneous initiator error.
    pub const INITIATOR_ERROR: Self = Self::new(2, 0);
    /// The initiator could not be authenticated.
    pub const AUTHENTICATION_FAILURE: Self = Self::new(2, 1);
    /// The initiator is not allowed access to the target.
    pub const AUTHORIZATION_FAILURE: Self = Self::new(2, 2);
    /// No such target.
    pub const TARGET_NOT_FOUND: Self = Self::new(2, 3);
    /// The target is gone for good.
    pub const TARGET_REMOVED: Self = Self::new(2, 4);
    /// The version range is not supported.
    pub const UNSUPPORTED_VERSION: Self = Self::new(2, 5);
    /// Too many connections in the session.
    pub const TOO_MANY_CONNECTIONS: Self = Self::new(2, 6);
    /// InitiatorName or TargetName is missing.
    pub const MISSING_PARAMETER: Self = Self::new(2, 7);
    /// The target does not support a session spanning this connection.
    pub const CANNOT_INCLUDE_IN_SESSION: Self = Self::new(2, 8);
    /// The session type is not supported.
    pub const SESSION_TYPE_NOT_SUPPORTED: Self = Self::new(2, 9);
    /// TSIH names no session.
    pub const SESSION_DOES_NOT_EXIST: Self = Self::new(2, 10);
    /// Invalid request type during login.
    pub const INVALID_DURING_LOGIN: Self = Self::new(2, 11);
    /// Target hardware or software error.
    pub const TARGET_ERROR: Self = Self::new(3, 0);
    /// The target is not operational.
    pub const SERVICE_UNAVAILABLE: Self = Self::new(3, 1);
    /// The target lacks resources.
    pub const OUT_OF_RESOURCES: Self = Self::new(3, 2);

    /// Any class and detail.
    pub const fn new(class: u8, detail: u8) -> Self {
        Self { class, detail }
    }
}

impl std::fmt::Debug for LoginStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoginStatus({:02x}{:02x}h)", self.class, self.detail)
    }
}

impl std::fmt::Display for LoginStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = match *self {
            Self::INITIATOR_ERROR => "initiator error",
            Self::AUTHENTICATION_FAILURE => "authentication failure",
            Self::AUTHORIZATION_FAILURE => "authorization failure",
            Self::TARGET_NOT_FOUND => "no such target",
            Self::TARGET_REMOVED => "target removed",
            Self::UNSUPPORTED_VERSION => "unsupported version",
            Self::TOO_MANY_CONNECTIONS => "too many connections",
            Self::MISSING_PARAMETER => "missing parameter",
            Self::CANNOT_INCLUDE_IN_SESSION => "cannot include in session",
            Self::SESSION_TYPE_NOT_SUPPORTED => "session type not supported",
            Self::SESSION_DOES_NOT_EXIST => "session does not exist",
            Self::INVALID_DURING_LOGIN => "invalid request during login",
            Self::TARGET_ERROR => "target error",
            Self::SERVICE_UNAVAILABLE => "service unavailable",
            Self::OUT_OF_RESOURCES => "out of resources",
            _ => "login status",
        };
        write!(f, "{words} ({:02x}{:02x}h)", self.class, self.detail)
    }
}

/// A target as SendTargets reports it (RFC 7143 Appendix C).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredTarget {
    /// TargetName.
    pub name: String,
    /// Addresses with their portal group tags, such as (`192.0.2.1:3260`, 1) or (`[2001:db8::1]:3260`, 2).
    pub portals: Vec<(String, u16)>,
}

/// Asynchronous Message events (RFC 7143 11.9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// 0: sense data of a logical unit.
    Scsi {
        /// The logical unit.
        lun: [u8; 8],
        /// Sense data without length prefix.
        sense: Bytes,
    },
    /// 1: the target asks the initiator to log out within the given seconds.
    LogoutRequest {
        /// Seconds the initiator has.
        timeout_s: u16,
    },
    /// 2: the target will drop the connection.
    ConnectionDrop {
        /// Seconds to wait before connecting again.
        time2wait_s: u16,
        /// Seconds tasks are kept.
        time2retain_s: u16,
    },
    /// 3: the target will drop all connections of the session.
    SessionDrop {
        /// Seconds to wait before connecting again.
        time2wait_s: u16,
        /// Seconds tasks are kept.
        time2retain_s: u16,
    },
}

/// The task named does not exist (any more): aborted, failed or responded to already. A late answer may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such task")]
pub struct UnknownTask;
