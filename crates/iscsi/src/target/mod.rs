//! The target end: one connection, which is one session (MaxConnections=1, ErrorRecoveryLevel=0).

mod config;
mod connection;
mod event;
mod response;

pub use config::{ChapAccount, ChapConfig, Config};
pub use connection::Connection;
pub use event::{
    CloseReason, Command, Event, Fatal, LoginRequest, LogoutReason, SendTargets, SessionParameters,
    SessionType, TaskAttribute, TaskFunction, TaskManagement,
};
pub use response::{
    AsyncEvent, DiscoveredTarget, LoginStatus, ScsiResponse, TaskResponse, UnknownTask,
};
