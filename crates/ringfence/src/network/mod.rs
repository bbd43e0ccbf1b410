//! The daemon over the network: mutual TLS, and of the control requests those that the client's certificate is for.
//!
//! Used by fence agents of cluster managers (`fence_ringfence`) and by other heads that use this daemon as their quorum
//! server. The lines are those of the control socket ([`crate::control`]). What a certificate is for is in its subject:
//! see [`role::Role`].

pub mod certificates;
pub mod client;
mod identity;
pub mod role;
pub mod server;
#[cfg(test)]
mod tests;

pub use identity::Identity;

use std::time::Duration;

/// The port where none is named.
pub const DEFAULT_API_PORT: u16 = 3262;

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
