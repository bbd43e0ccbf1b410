//! `ringfence domain ...`.

pub mod member;
pub mod race;
mod text;

use clap::{Args, Subcommand};
use fencing::Prefer;
use serde_json::json;

use super::{Context, pick};
use crate::control::protocol::{QuorumWish, Request};
use crate::failure::Failure;
use crate::names::{host_port, object_name};
use crate::time::parse_duration_ms;
use member::MemberCommand;
use race::RaceArgs;
use text::{describe, list};

/// The commands on fence domains.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A fence domain is what a cluster shares: volumes that are fenced together, and the virtual machines (members)
that use them. When the cluster splits, the members' votes decide which part goes on; the others lose their
access to all of the volumes at once, and only then the winners are told.

First steps:
  ringfence domain create web --volumes data,logs --quorum-device disk1
  ringfence domain member add web vm1 --initiator iqn.2026-11.com.example:vm1
  ringfence domain member add web vm2 --initiator iqn.2026-11.com.example:vm2
  ringfence grant data domain:web rw
  ringfence grant logs domain:web rw
  ringfence domain show web"
)]
pub enum DomainCommand {
    /// Make a fence domain of volumes, and its mailbox
    Create(CreateArgs),
    /// List the fence domains
    List,
    /// Show a domain: members, votes, who is fenced, the last verdict
    Show(NameArgs),
    /// Delete a domain and its mailbox; its volumes and their data stay
    Delete(NameArgs),
    /// The virtual machines of a domain
    #[command(subcommand)]
    Member(MemberCommand),
    /// The volumes of a domain
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Claim for the part of a split cluster that still sees each other, and wait for the verdict
    Race(RaceArgs),
}

/// The commands on the volumes of a domain.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Take a volume into a domain: members that are fenced lose their access to it before this returns
    Add(VolumeArgs),
    /// Take a volume out of a domain: it is not fenced with the others any more
    Remove(VolumeArgs),
}

/// A domain by its name.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The domain's name
    #[arg(value_parser = object_name)]
    pub name: String,
}

/// A volume of a domain.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// The domain's name
    #[arg(value_parser = object_name)]
    pub domain: String,
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub volume: String,
}

/// Which group of a race the quorum device votes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PreferArg {
    /// The group with most members
    Largest,
    /// The group with most votes
    Weight,
    /// The group that holds the reservation on most volumes
    Holder,
}

impl From<PreferArg> for Prefer {
    fn from(prefer: PreferArg) -> Self {
        match prefer {
            PreferArg::Largest => Prefer::Largest,
            PreferArg::Weight => Prefer::Weight,
            PreferArg::Holder => Prefer::Holder,
        }
    }
}

/// `domain create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence domain create web --volumes data,logs
  ringfence domain create web --volumes data --quorum-device disk1                    one survivor can win
  ringfence domain create web --volumes data --quorum-device disk1 --quorum-votes 1   breaks ties only
  ringfence domain create web --volumes data --quorum-server arbiter.example:7654

The quorum device has votes of its own and gives all of them to one group of a race, durably. By default they are
the members' votes minus one: then a single survivor can win. Without a quorum device more than half of the
members must see each other. The mailbox NAME-mailbox is a small volume through which members claim without a
network to this machine; it is made and deleted with the domain.")]
pub struct CreateArgs {
    /// A name for it: letters, digits, '-', '_', '.'
    #[arg(value_parser = object_name)]
    pub name: String,
    /// The volumes that are fenced together
    #[arg(long, required = true, value_delimiter = ',', value_name = "VOLUME", value_parser = object_name)]
    pub volumes: Vec<String>,
    /// Keep the quorum's verdicts on this device of the pool
    #[arg(long, value_name = "DEVICE", value_parser = object_name, conflicts_with = "quorum_server")]
    pub quorum_device: Option<String>,
    /// Ask another ringfence daemon
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub quorum_server: Option<String>,
    /// What the domain is called at that daemon: several that serve the same cluster give the same [default: the domain's UUID]
    #[arg(long, value_name = "NAME", requires = "quorum_server", value_parser = object_name)]
    pub quorum_name: Option<String>,
    /// The quorum's votes [default: the members' votes minus one]
    #[arg(long, value_name = "VOTES", value_parser = votes)]
    pub quorum_votes: Option<u32>,
    /// Which group of a race is given the quorum's votes; then the first that claimed
    #[arg(long, value_name = "WHICH", default_value = "largest")]
    pub prefer: PreferArg,
    /// How long claims of a race are collected, up to 60s
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration_ms)]
    pub window: u64,
    /// The devices of the mailbox [default: chosen]
    #[arg(long, value_delimiter = ',', value_name = "DEVICE", value_parser = object_name)]
    pub mailbox_on: Vec<String>,
}

/// Parses a number of votes.
fn votes(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|votes| *votes <= fencing::domain::MAX_VOTES)
        .ok_or_else(|| {
            format!(
                "votes are a number from 0 to {}",
                fencing::domain::MAX_VOTES
            )
        })
}

/// Carries a domain command out.
pub fn run(context: &Context, command: DomainCommand) -> Result<(), Failure> {
    match command {
        DomainCommand::Create(args) => create(context, args),
        DomainCommand::List => {
            let domains = context.ask_for(Request::DomainList, pick!(Answer::Domains))?;
            context.output.show(&domains, |domains| list(domains))
        }
        DomainCommand::Show(NameArgs { name }) => {
            let domain = context.ask_for(Request::DomainShow { name }, pick!(Answer::Domain))?;
            context.output.show(&domain, describe)
        }
        DomainCommand::Delete(NameArgs { name }) => {
            context.tell(Request::DomainDelete { name: name.clone() })?;
            context.output.show(&json!({ "deleted": name }), |_| {
                format!("domain {name} deleted; its volumes stay")
            })
        }
        DomainCommand::Member(command) => member::run(context, command),
        DomainCommand::Volume(VolumeCommand::Add(VolumeArgs { domain, volume })) => {
            let request = Request::DomainVolumeAdd {
                domain,
                volume: volume.clone(),
            };
            let domain = context.ask_for(request, pick!(Answer::Domain))?;
            context.output.show(&domain, |domain| {
                format!("volume {volume} is in domain {} now", domain.name)
            })
        }
        DomainCommand::Volume(VolumeCommand::Remove(VolumeArgs { domain, volume })) => {
            let request = Request::DomainVolumeRemove {
                domain,
                volume: volume.clone(),
            };
            let domain = context.ask_for(request, pick!(Answer::Domain))?;
            context.output.show(&domain, |domain| {
                format!("volume {volume} is not in domain {} any more", domain.name)
            })
        }
        DomainCommand::Race(args) => race::run(context, args),
    }
}

fn create(context: &Context, args: CreateArgs) -> Result<(), Failure> {
    let quorum = match (args.quorum_device, args.quorum_server) {
        (Some(device), _) => Some(QuorumWish::Device(device)),
        (None, server) => server.map(|address| QuorumWish::Server {
            address,
            name: args.quorum_name,
        }),
    };
    if quorum.is_none() && args.quorum_votes.is_some() {
        return Err(Failure::usage("--quorum-votes without a quorum device")
            .advise("name one with --quorum-device or --quorum-server"));
    }
    let request = Request::DomainCreate {
        name: args.name,
        volumes: args.volumes,
        quorum,
        quorum_votes: args.quorum_votes,
        prefer: args.prefer.into(),
        window_ms: Some(args.window),
        mailbox_on: args.mailbox_on,
    };
    let domain = context.ask_for(request, pick!(Answer::Domain))?;
    context.output.show(&domain, |domain| {
        format!(
            "domain {} created, mailbox {} is LUN {}; add members with: ringfence domain member add {} MEMBER --initiator NAME",
            domain.name, domain.mailbox.volume, domain.mailbox.lun, domain.name
        )
    })
}
