//! A blocking iSCSI initiator for tests, the demo and benchmarks: sockets around [`iscsi::initiator::Connection`].
//!
//! **I/O model.** A [`Session`] owns a TCP connection and is used by one thread. Calls wait for their answer, at most
//! as long as the session's timeout; [`Session::submit`] and [`Session::next_completion`] keep several commands
//! outstanding. The socket is only read and written inside these calls: a session that is left alone does not
//! answer the target's pings, unless [`Session::serve`] is called now and then.
//!
//! **Error model.** [`Error::Command`] is a command that ended with a status other than GOOD; the session goes on. All
//! other errors but [`Error::Timeout`] and [`Error::Rejected`] end the session; nothing is retried and nothing reconnects.

#![forbid(unsafe_code)]

mod commands;
mod discover;
mod error;
mod reservations;
mod session;
mod socket;

pub use discover::discover;
pub use error::{CommandError, Error};
pub use iscsi::initiator::{
    AsyncMessage, Chap, Command, Completion, Config, DigestChoice, DiscoveredTarget, Residual,
    SessionParameters, TaskFunction,
};
pub use reservations::ReservationType;
pub use session::Session;
