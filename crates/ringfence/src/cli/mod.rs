//! The command line: what it accepts, and how results and failures are shown.

pub mod certificate;
pub mod demo;
pub mod device;
pub mod domain;
pub mod events;
pub mod grant;
pub mod job;
pub mod keys;
pub mod node;
pub mod output;
pub mod pool;
pub mod progress;
pub mod serve;
pub mod session;
pub mod status;
#[cfg(test)]
mod tests;
pub mod volume;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::control::client::{Client, unexpected};
use crate::control::protocol::{Answer, Request};
use crate::failure::Failure;
use output::Output;

/// The state directory when none is named.
pub const DEFAULT_STATE: &str = "/var/lib/ringfence";

/// Shared virtual disks for clusters of virtual machines, with I/O fencing that can be trusted.
///
/// ringfence exports volumes over iSCSI. A volume lies on files or block devices (the pool) and keeps the SCSI-3
/// persistent reservations of its users in a private region beside the data, so that a fenced machine stays
/// fenced through crashes and restarts.
#[derive(Debug, Parser)]
#[command(
    name = "ringfence",
    version,
    propagate_version = false,
    max_term_width = 110,
    after_help = "First steps:
  ringfence demo                                    see it work, in 20 seconds
  ringfence serve &                                 start the daemon (or: systemctl start ringfence)
  ringfence device add disk1 /srv/disk1.img --size 100G
  ringfence volume create shared --size 20G
  ringfence grant shared iqn.2026-11.com.example:vm1 rw
  ringfence keys shared                             who is registered, who holds the reservation

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 race lost, 4 no daemon, 5 no such object,
6 refused as things stand (in use, exists, no space), 7 state or device belongs to another daemon."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command, accepted anywhere.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// Print JSON instead of tables (the schemas are stable); failures too, on stderr
    #[arg(long, global = true, display_order = 900)]
    pub json: bool,
    /// Directory of the daemon's state: lock, control socket, event log
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "RINGFENCE_STATE",
        hide_env_values = true,
        default_value = DEFAULT_STATE,
        display_order = 901
    )]
    pub state: PathBuf,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: serve all volumes of the pool over iSCSI
    Serve(Box<serve::ServeArgs>),
    /// Tell what the running daemon serves, and where
    Status,
    /// All devices together: show, move to another machine
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// The devices that volumes lie on
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Virtual disks
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Long work on volumes: migrations, new mirrors, evacuated and replaced devices, resyncs
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Virtual machines whose access to several volumes is taken away together, and who wins when they split
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// Take a virtual machine's access away from all volumes of a fence domain
    Fence(domain::race::FenceArgs),
    /// Give a fenced virtual machine its access back
    Unfence(domain::race::UnfenceArgs),
    /// Say what an initiator or the members of a fence domain may do with a volume
    Grant(grant::GrantArgs),
    /// List what initiators may do with a volume
    Grants(grant::GrantsArgs),
    /// Show registrations and reservation of a volume, read back from its private region
    Keys(keys::KeysArgs),
    /// iSCSI sessions
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// The audit trail: who registered, reserved, preempted, was fenced, and by whom
    Events(events::EventsArgs),
    /// In a member of a fence domain: watch the other members, and race for the group when they vanish
    Node(Box<::node::NodeArgs>),
    /// Certificates for the daemon over the network: fence agents and quorum servers
    #[command(subcommand)]
    Certificate(certificate::CertificateCommand),
    /// See it work: three initiators, a split, a fence, a crash, in under 20 seconds
    Demo(demo::DemoArgs),
}

/// What every command needs.
pub struct Context {
    /// The state directory, absolute.
    pub state: PathBuf,
    /// Where results go.
    pub output: Output,
}

impl Context {
    /// Asks the daemon.
    pub fn ask(&self, request: Request) -> Result<Answer, Failure> {
        Client::connect(&self.state)?.ask(request)
    }

    /// Asks the daemon and takes the answer of the kind that `pick` knows.
    pub fn ask_for<T>(
        &self,
        request: Request,
        pick: impl FnOnce(Answer) -> Result<T, Box<Answer>>,
    ) -> Result<T, Failure> {
        pick(self.ask(request)?).map_err(|answer| unexpected(&answer))
    }

    /// Asks the daemon for something that has no result.
    pub fn tell(&self, request: Request) -> Result<(), Failure> {
        self.ask_for(request, pick!(Answer::Done))
    }
}

/// Takes one variant of [`Answer`] apart, for [`Context::ask_for`].
macro_rules! pick {
    (Answer::Done) => {
        |answer| match answer {
            $crate::control::protocol::Answer::Done => Ok(()),
            other => Err(Box::new(other)),
        }
    };
    (Answer::$variant:ident) => {
        |answer| match answer {
            $crate::control::protocol::Answer::$variant(inner) => Ok(inner),
            other => Err(Box::new(other)),
        }
    };
}
pub(crate) use pick;

/// Carries a parsed command line out. Results are on stdout when it returns.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let state = std::path::absolute(&cli.global.state).map_err(|error| {
        Failure::usage(format!(
            "the state directory {} cannot be used: {error}",
            cli.global.state.display()
        ))
    })?;
    let context = Context {
        state,
        output: Output {
            json: cli.global.json,
        },
    };
    match cli.command {
        Command::Serve(args) => serve::run(&context, *args),
        Command::Status => status::run(&context),
        Command::Pool(command) => pool::run(&context, command),
        Command::Device(command) => device::run(&context, command),
        Command::Volume(command) => volume::run(&context, command),
        Command::Job(command) => job::run(&context, command),
        Command::Domain(command) => domain::run(&context, command),
        Command::Fence(args) => domain::race::fence(&context, args),
        Command::Unfence(args) => domain::race::unfence(&context, args),
        Command::Grant(args) => grant::run(&context, args),
        Command::Grants(args) => grant::list(&context, args),
        Command::Keys(args) => keys::run(&context, args),
        Command::Session(command) => session::run(&context, command),
        Command::Events(args) => events::run(&context, &args),
        Command::Node(args) => node::run(&context, &args),
        Command::Certificate(command) => certificate::run(&context, command),
        Command::Demo(args) => demo::run(&context, &args),
    }
}
