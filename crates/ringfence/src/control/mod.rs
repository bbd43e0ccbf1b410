//! The control interface: newline-delimited JSON over a unix socket.
//!
//! A client connects to `STATE/control.sock` (mode 0600), writes one [`protocol::Envelope`] a line and reads
//! [`protocol::Frame`]s, one a line, until a final one (`answer` or `error`). It may then send the next request.
//! Both ends use the types of [`protocol`] and [`model`]; a version that the other end does not know is refused.

pub mod client;
pub mod line;
pub mod model;
pub mod protocol;
pub mod server;

#[cfg(test)]
mod tests;
