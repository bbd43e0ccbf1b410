//! What a target connection tells the application.

use bytes::BytesMut;
use smallvec::SmallVec;

use crate::parameters::{SessionParameters, SessionType};

/// Something the application must act upon, in the order in which it happened.
#[derive(Debug)]
pub enum Event {
    /// The initiator has identified (and, where asked, authenticated) itself. Answer with
    /// [`accept_login`](super::Connection::accept_login) or [`reject_login`](super::Connection::reject_login);
    /// nothing else happens on the connection until then.
    LoginRequest(LoginRequest),
    /// The login is complete: the full feature phase begins (RFC 7143 6.3).
    SessionEstablished(Box<SessionParameters>),
    /// A SCSI command, in CmdSN order. Answer with [`respond`](super::Connection::respond) at any time, or, when
    /// it has data to write, first with [`accept_write`](super::Connection::accept_write) to be given the data.
    Command(Command),
    /// All the data of a command that was accepted with [`accept_write`](super::Connection::accept_write) is here.
    CommandData {
        /// The task.
        itt: u32,
        /// The data, contiguous, its address a multiple of 4096 (unless it is empty); its length is what was accepted
        /// or what the initiator has, whichever is less.
        data: BytesMut,
    },
    /// The connection has ended this task by itself and has answered it (digest error, wrong data sequence); the
    /// application must forget it and not respond. Comes only for tasks that were delivered with `Command` and
    /// whose data had been accepted but not yet delivered.
    TaskFailed {
        /// The task.
        itt: u32,
    },
    /// A task management request. Answer with
    /// [`respond_task_management`](super::Connection::respond_task_management) after calling
    /// [`abort_task`](super::Connection::abort_task) for every task of this connection that it ended.
    TaskManagement(TaskManagement),
    /// SendTargets (RFC 7143 Appendix C). Answer with
    /// [`answer_send_targets`](super::Connection::answer_send_targets).
    SendTargets(SendTargets),
    /// The initiator logs out. End all tasks of the session, then call
    /// [`respond_logout`](super::Connection::respond_logout); [`Event::Closed`] follows.
    Logout(LogoutReason),
    /// The connection is over: send what is still queued, close the socket, end all tasks. The last event.
    Closed(CloseReason),
}

/// Who wants to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// InitiatorName (RFC 7143 13.3), validated to be at most 223 bytes.
    pub initiator_name: String,
    /// InitiatorAlias (RFC 7143 13.5).
    pub initiator_alias: Option<String>,
    /// The initiator's part of the session identifier (RFC 7143 11.12.5).
    pub isid: [u8; 6],
    /// 0 for a new session. Same initiator name, ISID and portal group with 0 is session reinstatement
    /// (RFC 7143 6.3.5): the application ends the old session before it accepts. Not 0 names an existing session,
    /// to which no connection can be added: refuse with [`LoginStatus::SESSION_DOES_NOT_EXIST`](super::LoginStatus)
    /// or [`LoginStatus::TOO_MANY_CONNECTIONS`](super::LoginStatus).
    pub tsih: u16,
    /// The connection identifier.
    pub cid: u16,
    /// Discovery or normal.
    pub session_type: SessionType,
    /// TargetName (RFC 7143 13.4), one of the configured names; `None` in discovery sessions that named none.
    pub target_name: Option<String>,
    /// The CHAP name that the initiator has proved to be; `None` when it was let in without CHAP.
    pub chap_name: Option<String>,
    /// The initiator asked the target to prove itself too, and it did (mutual CHAP, RFC 7143 12.1.3).
    pub mutual_chap: bool,
}

/// Task attributes (RFC 7143 11.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskAttribute {
    /// 0: untagged, treated as simple.
    Untagged,
    /// 1
    Simple,
    /// 2
    Ordered,
    /// 3
    HeadOfQueue,
    /// 4
    Aca,
    /// 5 to 7
    Reserved(u8),
}

/// A SCSI command (RFC 7143 11.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Initiator Task Tag: names the task on this connection until it is responded to.
    pub itt: u32,
    /// The LUN as it was sent.
    pub lun: [u8; 8],
    /// The task attribute.
    pub attribute: TaskAttribute,
    /// The CDB: the 16 bytes of the header, followed by an extended CDB's bytes if there are any (RFC 7143 11.2.2.3).
    pub cdb: SmallVec<[u8; 16]>,
    /// CmdSN, for the RefCmdSN of task management.
    pub cmd_sn: u32,
    /// Sent as an immediate command (RFC 7143 4.2.2.1).
    pub immediate: bool,
    /// R bit: the initiator expects data.
    pub read: bool,
    /// W bit: the initiator has data to send.
    pub write: bool,
    /// Expected Data Transfer Length in bytes: of data in for `read`, of data out for `write`.
    pub expected_data_length_bytes: u32,
}

/// Task management functions (RFC 7143 11.5.1). TASK REASSIGN is answered by the connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskFunction {
    /// 1
    AbortTask,
    /// 2
    AbortTaskSet,
    /// 3
    ClearAca,
    /// 4
    ClearTaskSet,
    /// 5
    LogicalUnitReset,
    /// 6
    TargetWarmReset,
    /// 7
    TargetColdReset,
    /// 9, RFC 7144
    QueryTask,
    /// 10, RFC 7144
    QueryTaskSet,
    /// 11, RFC 7144
    ITNexusReset,
    /// 12, RFC 7144
    QueryAsynchronousEvent,
}

/// A task management request (RFC 7143 11.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskManagement {
    /// The request's own tag.
    pub itt: u32,
    /// What to do.
    pub function: TaskFunction,
    /// The LUN as it was sent; meaningless for target resets.
    pub lun: [u8; 8],
    /// For [`TaskFunction::AbortTask`] and `QueryTask`: the task meant.
    pub referenced_itt: u32,
    /// For `AbortTask`: the CmdSN of the task meant.
    pub ref_cmd_sn: u32,
}

/// Which targets are asked for (RFC 7143 Appendix C).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendTargets {
    /// `SendTargets=All`
    All,
    /// `SendTargets=<name>`, and the empty value in a normal session, which means the session's own target.
    Named(String),
}

/// Why the initiator logs out (RFC 7143 11.14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutReason {
    /// 0: the session ends.
    CloseSession,
    /// 1: the connection ends, and with it the session.
    CloseConnection,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Logout, answered.
    LoggedOut,
    /// The login was refused, by the application or by the connection.
    LoginRefused(super::LoginStatus),
    /// The login took too long.
    LoginTimeout,
    /// The initiator did not answer a ping in time.
    PeerDead,
    /// The peer broke the protocol in a way that cannot be answered.
    Fatal(Fatal),
}

/// What cannot be answered: the stream has lost its framing, or the peer breaks the rules of its phase. The driver
/// sends what is still queued and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A header digest was wrong (RFC 7143 7.7: at ErrorRecoveryLevel 0 the session ends).
    #[error("header digest error")]
    HeaderDigest,
    /// A data segment longer than this end declared, or than the phase allows.
    #[error("data segment of {length_bytes} bytes, {limit_bytes} are allowed")]
    DataSegmentTooLong {
        /// What the header says.
        length_bytes: u32,
        /// What is allowed.
        limit_bytes: u32,
    },
    /// Additional header segments longer than allowed, or malformed so that framing is lost.
    #[error("additional header segments of {length_bytes} bytes, {limit_bytes} are allowed")]
    HeaderTooLong {
        /// What the header says.
        length_bytes: u32,
        /// What is allowed.
        limit_bytes: u32,
    },
    /// A PDU that is not a Login Request in the login phase, or bytes while a login was being answered.
    #[error("not a login request in the login phase")]
    NotLoggedIn,
    /// More commands or rejected PDUs queued than any conforming initiator causes.
    #[error("the peer exceeds the limits of the connection")]
    LimitExceeded,
    /// The login was refused; the refusal is queued.
    #[error("login refused")]
    LoginRefused,
    /// Bytes after the connection was closed.
    #[error("the connection is closed")]
    Closed,
}
