//! The target end: one connection, which is one session (MaxConnections=1, ErrorRecoveryLevel=0).
//!
//! [`Connection`] is one state in several files: `connection` is the outside, `receive` takes the stream apart and puts
//! commands in order, `command` begins tasks, `write` gathers Data-Out, `read` ends tasks, `control` is everything
//! that is not SCSI, `text_exchange` the text of the full feature phase, `login` and `security` the login phase.

mod command;
mod config;
mod connection;
mod control;
mod event;
mod login;
mod read;
mod receive;
mod response;
mod security;
mod task;
mod text_exchange;
mod write;

pub use config::{ChapAccount, ChapConfig, Config};
pub use connection::Connection;
pub use event::{
    CloseReason, Command, Event, Fatal, LoginRequest, LogoutReason, SendTargets, TaskAttribute,
    TaskFunction, TaskManagement,
};
pub use response::{
    AsyncEvent, DiscoveredTarget, LoginStatus, ScsiResponse, TaskResponse, UnknownTask,
};

pub use crate::parameters::{SessionParameters, SessionType};
