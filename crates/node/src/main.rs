//! The node alone, for guests: small, and static when built for it.

use std::process::ExitCode;

use clap::Parser;
use node::{NodeArgs, run_arguments};

/// Watches the other members of a fence domain through the network and the domain's mailbox disk, and races for its group
/// when they vanish. The same as `ringfence node`.
#[derive(Parser)]
#[command(name = "ringfence-node", version, max_term_width = 110)]
struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run_arguments(&cli.node, cli.json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringfence-node: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
