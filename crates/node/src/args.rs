//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use uuid::Uuid;

/// Options of a node.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct NodeArgs {
    /// Ask the node that runs here
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
    /// The domain's mailbox disk, by a name that stays, such as /dev/disk/by-id/wwn-0x...
    #[arg(long, value_name = "DISK", required = true)]
    pub domain_disk: Option<PathBuf>,
    /// Which member this is, if its initiator's name (/etc/iscsi/initiatorname.iscsi) does not tell
    #[arg(long, value_name = "NAME")]
    pub member: Option<String>,
    /// Where to hear the other members' heartbeats (UDP), an address that they can reach; again for another network
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    pub listen: Vec<SocketAddr>,
    /// Where a member hears, if not where it says in its slot of the mailbox
    #[arg(long, value_name = "NAME=ADDRESS:PORT", value_parser = parse_peer)]
    pub peer: Vec<(String, SocketAddr)>,
    /// Between heartbeats, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(20..=10_000))]
    pub interval: u64,
    /// After how long without an answer a link is lost, in milliseconds; at least four intervals
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(80..=600_000))]
    pub timeout: u64,
    /// After how long a member that has a key and has never been seen is raced for, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub join_timeout: u64,
    /// After how long without a sign of the head on the mailbox disk this member has lost, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1_000..=3_600_000))]
    pub storage_timeout: u64,
    /// Run when the group goes on and others are fenced (sh -c; RINGFENCE_* in the environment)
    #[arg(long, value_name = "COMMAND")]
    pub on_won: Option<String>,
    /// Run when this member does not go on: it must stop all I/O. Without it and with a watchdog: reboot at once
    #[arg(long, value_name = "COMMAND")]
    pub on_lost: Option<String>,
    /// Run when this member has been fenced without a race
    #[arg(long, value_name = "COMMAND")]
    pub on_fenced: Option<String>,
    /// How long a hook may take before it is killed, in milliseconds. With a watchdog: a reboot follows if it was on-lost
    /// or on-fenced
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub hook_timeout: u64,
    /// A watchdog, petted only while this member has access
    #[arg(long, value_name = "DEVICE")]
    pub watchdog: Option<PathBuf>,
    /// Register a key of this boot on the domain's volumes (the default)
    #[arg(long, overrides_with = "no_register")]
    pub register: bool,
    /// Leave registering to other software
    #[arg(long)]
    pub no_register: bool,
    /// Where the key of this boot is kept
    #[arg(long, value_name = "DIR", default_value = "/run/ringfence")]
    pub run_dir: PathBuf,
    /// The socket of `status`
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/ringfence/node.sock",
        global = true
    )]
    pub socket: PathBuf,
    /// Where the disks are by identity
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/dev/disk/by-id",
        hide = true
    )]
    pub by_id: PathBuf,
    /// What this boot is called, where the kernel's boot id is shared with others: containers, tests
    #[arg(long, value_name = "UUID", hide = true)]
    pub incarnation: Option<Uuid>,
    /// Where to write `b` for a reboot at once
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/proc/sysrq-trigger",
        hide = true
    )]
    pub sysrq_trigger: PathBuf,
}

/// Questions to a node that runs.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum NodeCommand {
    /// Show which members it sees, its group, its view and the last verdict
    Status,
}

fn parse_peer(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text
        .split_once('=')
        .ok_or("it is of the form NAME=ADDRESS:PORT")?;
    let address = address.parse().map_err(|_| {
        format!(
            "{address:?} is no address with a port, such as 192.0.2.7:7440 or [2001:db8::7]:7440"
        )
    })?;
    Ok((name.to_owned(), address))
}
