//! The iSCSI targets that the harness can drive: ringfence, and Debian's tgt to compare with.

pub mod layout;
pub mod ringfence;
pub mod tgt;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

/// Which target a run uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TargetKind {
    /// The one under test.
    Ringfence,
    /// Debian's tgt, to tell a fault of the harness from one of ringfence.
    Tgt,
}

/// A running target with volumes.
pub trait Target {
    /// Starts the daemon; returns when it answers.
    ///
    /// # Errors
    /// When it does not come up; the message has the end of its log.
    fn start(&mut self) -> Result<()>;

    /// Ends the daemon with SIGKILL.
    ///
    /// # Errors
    /// When it was not running.
    fn kill(&mut self) -> Result<()>;

    /// Whether the daemon still runs.
    ///
    /// # Errors
    /// When it does not, with the end of its log.
    fn check_running(&mut self) -> Result<()>;

    /// The last lines of the daemon's own output.
    fn log_tail(&self) -> String;

    /// Process id of the running daemon.
    fn pid(&self) -> Option<u32>;

    /// iSCSI name.
    fn name(&self) -> &str;

    /// Where it listens.
    fn portals(&self) -> &[SocketAddr];

    /// Makes a volume that every initiator may read and write; returns its LUN.
    ///
    /// # Errors
    /// When the target refuses.
    fn create_volume(&mut self, name: &str, size_mib: u32, block_size_bytes: u32) -> Result<u16>;

    /// Lets every initiator only read a volume.
    ///
    /// # Errors
    /// When the target refuses.
    fn make_read_only(&mut self, name: &str) -> Result<()>;

    /// The URL of a volume for libiscsi and QEMU.
    fn url(&self, portal: usize, lun: u16) -> String {
        format!("iscsi://{}/{}/{lun}", self.portals()[portal], self.name())
    }
}

/// A free TCP port of a loopback address.
fn free_port(address: IpAddr) -> Result<u16> {
    Ok(std::net::TcpListener::bind((address, 0))?
        .local_addr()?
        .port())
}

/// `count` portals on the loopback interface, in turn of IPv4 and IPv6, each with a free port.
///
/// # Errors
/// When the kernel has none.
pub fn loopback_portals(count: usize) -> Result<Vec<SocketAddr>> {
    let addresses = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ];
    (0..count)
        .map(|index| {
            let address = addresses[index % 2];
            Ok(SocketAddr::new(address, free_port(address)?))
        })
        .collect()
}
