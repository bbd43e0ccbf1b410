//! `ringfence grant` and `ringfence grants`.

use clap::Args;

use super::output::table;
use super::{Context, pick};
use crate::control::model::{AccessRight, Grants};
use crate::control::protocol::Request;
use crate::failure::Failure;
use crate::names::{DOMAIN_PREFIX, grantee, object_name};

/// `grant`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence grant shared iqn.2026-11.com.example:vm1 rw
  ringfence grant shared '*' ro         everyone who is not named may read
  ringfence grant shared iqn.2026-11.com.example:vm1 none
  ringfence grant shared domain:web rw  every member of the fence domain web, those of later too

When access is taken away the command returns only after the initiator's I/O in flight has ended:
after it, not one byte of it lands. An initiator has its name in /etc/iscsi/initiatorname.iscsi.")]
pub struct GrantArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub volume: String,
    /// The initiator's iSCSI name, domain:NAME for the members of a fence domain, or '*' for everyone who is not named
    /// (by default nobody may do anything)
    #[arg(value_parser = grantee)]
    pub initiator: String,
    /// What it may do: read and write, only read, or nothing
    pub access: AccessRight,
}

/// `grants`.
#[derive(Debug, Args)]
pub struct GrantsArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub volume: String,
}

/// Carries `grant` out.
pub fn run(context: &Context, args: GrantArgs) -> Result<(), Failure> {
    let request = Request::Grant {
        volume: args.volume,
        initiator: args.initiator,
        access: args.access,
    };
    let grant = context.ask_for(request, pick!(Answer::Grant))?;
    context.output.show(&grant, |grant| {
        let who = match grant.initiator.strip_prefix(DOMAIN_PREFIX) {
            Some(domain) => format!("the members of {domain}"),
            None if grant.initiator == "*" => "everyone".to_owned(),
            None => grant.initiator.clone(),
        };
        format!("{who}: {} on {}", grant.access, grant.volume)
    })
}

/// Carries `grants` out.
pub fn list(context: &Context, args: GrantsArgs) -> Result<(), Failure> {
    let request = Request::Grants {
        volume: args.volume,
    };
    let grants = context.ask_for(request, pick!(Answer::Grants))?;
    context.output.show(&grants, describe)
}

fn describe(grants: &Grants) -> String {
    let rows = grants
        .grants
        .iter()
        .map(|grant| vec![grant.initiator.clone(), grant.access.to_string()]);
    table(&["INITIATOR", "ACCESS"], &[], rows)
}
