//! `ringfence serve`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Context;
use crate::failure::Failure;
use crate::names::iscsi_name;
use crate::network::{DEFAULT_API_PORT, Identity};
use crate::size::parse_size_not_zero;

/// The port of a portal that names none (RFC 7143, IANA).
pub const DEFAULT_PORT: u16 = 3260;

/// `serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  ringfence serve                                                    127.0.0.1:3260, for a try
  ringfence serve --portal 10.0.1.5 --portal 10.0.2.5:3260           two paths for multipath
  ringfence serve --portal '[::1]:3260' --chap-file /etc/ringfence/chap
  ringfence serve --state /tmp/rf --portal 127.0.0.1:0               any free port; it is printed

Each portal is a target port of its own; its relative target port identifier is its position, so
keep their order: registrations are by target port. The daemon prints its portals and 'ready', logs
to stderr (RUST_LOG=debug for more), tells systemd (Type=notify), and stops gracefully on SIGTERM or
SIGINT: sessions are asked to log out, I/O is drained and flushed.

The CHAP file: a line is 'user secret [mutual-user mutual-secret] [initiator=NAME]', secrets have at least 12
characters, and others may not read it (chmod 600). See docs/operators/chap.md.")]
pub struct ServeArgs {
    /// Address to listen on, repeatable: ADDR, ADDR:PORT or [V6]:PORT [default: 127.0.0.1:3260]
    #[arg(long = "portal", value_name = "ADDR:PORT", value_parser = portal)]
    pub portals: Vec<SocketAddr>,
    /// iSCSI name of the target [default: iqn.2026-11.dev.ringfence:HOSTNAME]
    #[arg(long, value_name = "IQN", value_parser = iscsi_name, env = "RINGFENCE_TARGET_NAME", hide_env_values = true)]
    pub target_name: Option<String>,
    /// Require CHAP with the secrets of this file
    #[arg(long, value_name = "FILE")]
    pub chap_file: Option<PathBuf>,
    /// Also answer fence agents and other heads at this address, over mutual TLS: ADDR or ADDR:PORT [default port: 3262]
    #[arg(long, value_name = "ADDR:PORT", value_parser = api, requires = "tls_cert")]
    pub api: Option<SocketAddr>,
    /// Certificate of this daemon, PEM: for --api, and to ask quorum servers
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "tls_ca")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Certificates of the authorities whose certificates others may have, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,
    /// Threads for network and disk I/O [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub reactors: Option<u16>,
    /// How to talk to the kernel; auto takes io_uring where it is allowed
    #[arg(long, value_enum, default_value_t = IoEngine::Auto)]
    pub io: IoEngine,
    /// Ping an idle initiator after this many seconds, and end its session when it does not answer (0: never)
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub nop_interval: u32,
    /// Limit SANITIZE to this many bytes per second, so that it leaves the devices to others [default: none]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub sanitize_rate: Option<NonZeroU64>,
    /// End when the parent process ends: for the demo and for tests
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
    /// How long sessions may take to log out at shutdown, in seconds, before they are cut
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub shutdown_timeout: u32,
}

/// The values of `--io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IoEngine {
    /// io_uring where the kernel allows it, else epoll; which one is logged
    Auto,
    /// io_uring, or fail
    #[value(name = "io_uring", alias = "io-uring")]
    IoUring,
    /// epoll and a pool of threads
    Epoll,
}

/// Parses bytes per second.
fn rate(text: &str) -> Result<NonZeroU64, String> {
    let bytes = parse_size_not_zero(text)?;
    NonZeroU64::new(bytes).ok_or_else(|| "a rate must be more than zero".to_owned())
}

/// Parses a portal address.
fn portal(text: &str) -> Result<SocketAddr, String> {
    listen_address(text, DEFAULT_PORT).ok_or_else(|| {
        "a portal is an IP address of this machine with an optional port: 10.0.0.5, 10.0.0.5:3260, [::1]:3260"
            .to_owned()
    })
}

/// Parses the address of the API.
fn api(text: &str) -> Result<SocketAddr, String> {
    listen_address(text, DEFAULT_API_PORT).ok_or_else(|| {
        "the API listens at an IP address of this machine with an optional port: 10.0.0.5, 10.0.0.5:3262, [::1]:3262"
            .to_owned()
    })
}

fn listen_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(address, default_port))
}

impl ServeArgs {
    /// Certificate, key and authority, where they were given.
    pub fn identity(&self) -> Option<Identity> {
        Some(Identity {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            authority: self.tls_ca.clone()?,
        })
    }
}

/// Carries `serve` out: returns after a graceful shutdown.
pub fn run(context: &Context, args: ServeArgs) -> Result<(), Failure> {
    crate::daemon::run(&context.state, args, context.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals() {
        let table = [
            ("127.0.0.1", "127.0.0.1:3260"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("::1", "[::1]:3260"),
            ("[::1]", "[::1]:3260"),
            ("[::1]:99", "[::1]:99"),
        ];
        for (text, want) in table {
            assert_eq!(portal(text).map(|a| a.to_string()).as_deref(), Ok(want));
        }
        for bad in ["", "localhost", "1.2.3.4:70000", "1.2.3", "[::1"] {
            assert!(portal(bad).is_err(), "{bad}");
        }
    }
}
