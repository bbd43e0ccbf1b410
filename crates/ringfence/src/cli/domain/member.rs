//! `ringfence domain member ...`.

use clap::{Args, Subcommand};
use fencing::Method;

use super::{NameArgs, text, votes};
use crate::cli::{Context, pick};
use crate::control::protocol::Request;
use crate::failure::Failure;
use crate::names::{iscsi_name, object_name};

/// The commands on members.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Make a virtual machine a member
    Add(AddArgs),
    /// Take a member out of the domain
    Remove(RemoveArgs),
    /// List the members of a domain
    List(NameArgs),
}

/// `domain member add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence domain member add web vm1 --initiator iqn.2026-11.com.example:vm1
  ringfence domain member add web vm2 --initiator iqn.2026-11.com.example:vm2 --votes 2 --method fabric
  ringfence domain member add web vm3 --initiator iqn.2026-11.com.example:vm3 \\
      --method 'stonith:qmp?socket=/run/vm3.qmp&action=reset',reservation

Methods are tried in order until one is proven to have worked. Whatever they are, the member's registrations and
its access to the domain's volumes go first.
  reservation       that, and nothing more: proven when it is durable and the member's I/O has ended (the default)
  fabric            its sessions are ended as well, and its logins refused until it is unfenced
  reserve-release   the other of two members becomes the exclusive owner of every volume (SCSI-2 RESERVE)
  stonith:AGENT     a fence agent (stonith:fence_virsh?ip=...&plug=...) or stonith:qmp; proven when it confirms

A member has a vote in races while it has a key on one of the volumes.")]
pub struct AddArgs {
    /// The domain's name
    #[arg(value_parser = object_name)]
    pub domain: String,
    /// A name for the member; 'ringfence node' in the virtual machine uses the same
    #[arg(value_parser = object_name)]
    pub member: String,
    /// An iSCSI name of the virtual machine; again for each further one
    #[arg(long = "initiator", required = true, value_name = "NAME", value_delimiter = ',', value_parser = iscsi_name)]
    pub initiators: Vec<String>,
    /// Its votes
    #[arg(long, default_value_t = 1, value_parser = votes)]
    pub votes: u32,
    /// How it is fenced: methods in the order in which they are tried [default: reservation]
    #[arg(long = "method", value_name = "METHOD", value_delimiter = ',')]
    pub methods: Vec<Method>,
}

/// `domain member remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The domain's name
    #[arg(value_parser = object_name)]
    pub domain: String,
    /// The member's name
    #[arg(value_parser = object_name)]
    pub member: String,
}

/// Carries a member command out.
pub fn run(context: &Context, command: MemberCommand) -> Result<(), Failure> {
    match command {
        MemberCommand::Add(args) => {
            let member = args.member.clone();
            let request = Request::MemberAdd {
                domain: args.domain,
                member: args.member,
                initiators: args.initiators,
                votes: args.votes,
                methods: args.methods,
            };
            let domain = context.ask_for(request, pick!(Answer::Domain))?;
            context.output.show(&domain, |domain| {
                format!(
                    "{member} is a member of {} now; it has {}",
                    domain.name,
                    match domain.members.len() {
                        1 => "1 member".to_owned(),
                        many => format!("{many} members"),
                    }
                )
            })
        }
        MemberCommand::Remove(RemoveArgs { domain, member }) => {
            let request = Request::MemberRemove {
                domain,
                member: member.clone(),
            };
            let domain = context.ask_for(request, pick!(Answer::Domain))?;
            context.output.show(&domain, |domain| {
                format!("{member} is no member of {} any more", domain.name)
            })
        }
        MemberCommand::List(NameArgs { name }) => {
            let request = Request::MemberList { domain: name };
            let members = context.ask_for(request, pick!(Answer::Members))?;
            context
                .output
                .show(&members, |members| text::members(members))
        }
    }
}
