//! The initiator end: one connection, which is one session (MaxConnections=1, ErrorRecoveryLevel=0).
//!
//! [`Connection`] is one state in several files: `connection` is the outside, `login` the login phase, `submit` what goes
//! out, `receive` what comes in.

mod config;
mod connection;
mod event;
mod login;
mod receive;
mod submit;

pub use config::{Chap, Config, DigestChoice, Session};
pub use connection::Connection;
pub use event::{AsyncMessage, CloseReason, Command, Completion, Event, Expected, Fatal, Residual};

pub use crate::parameters::{SessionParameters, SessionType};
pub use crate::target::{DiscoveredTarget, LoginStatus, TaskFunction};
