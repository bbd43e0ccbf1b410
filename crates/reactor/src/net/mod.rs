//! TCP on a reactor.
//!
//! Sockets stay in blocking mode: with a ring, reception waits in the kernel; everything that is called directly
//! carries `MSG_DONTWAIT`.

mod listener;
mod stream;

pub use listener::{Accepted, TcpListener};
pub use stream::TcpStream;
