//! `ringfence domain race`, `ringfence fence` and `ringfence unfence`.

use clap::Args;
use fencing::Method;
use uuid::Uuid;

use crate::cli::{Context, pick};
use crate::control::model::RaceVerdict;
use crate::control::protocol::Request;
use crate::failure::Failure;
use crate::names::object_name;
use crate::time::parse_duration_ms;

/// `domain race`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence domain race web --as vm1 --with vm2        vm1 still sees vm2, and nobody else
  ringfence domain race web --as vm3                   vm3 sees nobody

It returns when the race is decided and, for a winner, when all losers are fenced and proven to be: after 0 not one
byte of a loser lands. Exit code 0: won. 3: lost, or nobody won; stop all work on the volumes. Anything else: there
is no verdict for this member, and it must not go on either.
A member of a running cluster races by 'ringfence node' and needs this command only for tests.")]
pub struct RaceArgs {
    /// The domain's name
    #[arg(value_parser = object_name)]
    pub domain: String,
    /// The member that claims
    #[arg(long = "as", value_name = "MEMBER", value_parser = object_name)]
    pub member: String,
    /// The other members that it still sees
    #[arg(long, value_delimiter = ',', value_name = "MEMBER", value_parser = object_name)]
    pub with: Vec<String>,
    /// The epoch that the member knows [default: the current one]
    #[arg(long, value_name = "NUMBER")]
    pub epoch: Option<u64>,
}

/// `fence`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence fence web vm2
  ringfence fence web vm2 --method fabric
  ringfence fence web vm2 --wait 10s

When it returns 0, the member has no access to any volume of the domain, durably, its I/O has ended, and one of its
methods is proven to have worked. Exit code 1: not proven within --wait; the member has no access, and the
daemon goes on. Fencing a fenced member waits for the proof of that fence.")]
pub struct FenceArgs {
    /// The domain's name
    #[arg(value_parser = object_name)]
    pub domain: String,
    /// The member's name
    #[arg(value_parser = object_name)]
    pub member: String,
    /// How, in this order until one is proven [default: the member's own methods]
    #[arg(long = "method", value_name = "METHOD", value_delimiter = ',')]
    pub methods: Vec<Method>,
    /// How long to wait for the proof
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = parse_duration_ms)]
    pub wait: u64,
}

/// `unfence`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence unfence web vm2

Its registrations do not come back: the member registers anew. Make sure first that nothing of what it did before
the fence is still on its way: restart it. 'ringfence node' unfences its own member when it comes up after a restart.")]
pub struct UnfenceArgs {
    /// The domain's name
    #[arg(value_parser = object_name)]
    pub domain: String,
    /// The member's name
    #[arg(value_parser = object_name)]
    pub member: String,
}

/// Carries `domain race` out.
pub(super) fn run(context: &Context, args: RaceArgs) -> Result<(), Failure> {
    let request = Request::DomainRace {
        domain: args.domain,
        member: args.member,
        with: args.with,
        id: Uuid::new_v4(),
        epoch: args.epoch,
    };
    let verdict = context.ask_for(request, pick!(Answer::Race))?;
    context.output.show(&verdict, in_words)?;
    if verdict.verdict == "won" {
        return Ok(());
    }
    Err(Failure::lost(format!(
        "{} lost the race of domain {} in epoch {}",
        verdict.member, verdict.domain, verdict.epoch
    ))
    .advise("stop all work on the domain's volumes; a fenced member needs 'ringfence unfence' after a restart"))
}

fn in_words(verdict: &RaceVerdict) -> String {
    let list = |names: &[String]| match names {
        [] => "nobody".to_owned(),
        names => names.join(", "),
    };
    format!(
        "{}: {} in epoch {}; winners: {}; fenced: {}",
        verdict.member,
        verdict.verdict,
        verdict.epoch,
        list(&verdict.winners),
        list(&verdict.fenced)
    )
}

/// Carries `fence` out.
pub fn fence(context: &Context, args: FenceArgs) -> Result<(), Failure> {
    let request = Request::Fence {
        domain: args.domain,
        member: args.member,
        methods: args.methods,
        wait_ms: args.wait,
    };
    let fence = context.ask_for(request, pick!(Answer::Fence))?;
    context.output.show(&fence, |fence| {
        let mut text = format!(
            "{} is fenced in domain {}, proven by {}, epoch {}",
            fence.member, fence.domain, fence.proven, fence.epoch
        );
        if !fence.not_served.is_empty() {
            text.push_str(&format!(
                "\nnot served to anybody now, and fenced when they come back: {}",
                fence.not_served.join(", ")
            ));
        }
        text
    })
}

/// Carries `unfence` out.
pub fn unfence(context: &Context, args: UnfenceArgs) -> Result<(), Failure> {
    let member = args.member.clone();
    let request = Request::Unfence {
        domain: args.domain,
        member: args.member,
    };
    let domain = context.ask_for(request, pick!(Answer::Domain))?;
    context.output.show(&domain, |domain| {
        format!(
            "{member} has access in domain {} again, epoch {}",
            domain.name, domain.epoch
        )
    })
}
