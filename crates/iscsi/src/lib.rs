//! RFC 7143, sans-IO: both ends of an iSCSI connection as state machines.
//!
//! **I/O model.** [`target::Connection`] holds no socket and no clock. A driver feeds
//! received bytes and the time, takes events out, answers them, and sends the chunks that come out.
//!
//! **Error model.** What the peer does wrong is answered as the RFC says (Reject, login status, SCSI sense) and
//! the connection goes on; only what cannot be answered is returned as an error, after which the driver sends
//! what is still queued and closes the socket.
//!
//! **Who validates what.** Everything that comes from the peer is validated here, before anything is allocated
//! for it. CDBs, LUNs and access rights are the application's.

#![forbid(unsafe_code)]

pub mod target;
