//! RFC 7143, sans-IO: both ends of an iSCSI connection as state machines.
//!
//! **I/O model.** [`target::Connection`] and [`initiator::Connection`] hold no socket and no clock. A driver feeds
//! received bytes and the time, takes events out, answers them, and sends the chunks that come out.
//!
//! **Error model.** What the peer does wrong is answered as the RFC says (Reject, login status, SCSI sense) and
//! the connection goes on; only what cannot be answered is returned as an error, after which the driver sends
//! what is still queued and closes the socket.
//!
//! **Who validates what.** Everything that comes from the peer is validated here, before anything is allocated
//! for it. CDBs, LUNs and access rights are the application's.
//!
//! **Scope.** ErrorRecoveryLevel 0, MaxConnections 1, no bidirectional commands. A connection is a session.

#![forbid(unsafe_code)]

pub mod buffer;
pub mod chap;
pub mod digest;
mod frame;
pub mod initiator;
mod negotiate;
mod output;
mod parameters;
pub mod pdu;
pub mod sequence;
pub mod target;
pub mod text;

#[cfg(test)]
mod tests;

pub use negotiate::NegotiationError;
pub use parameters::{DEFAULT_DATA_SEGMENT_BYTES, SessionParameters, SessionType};
