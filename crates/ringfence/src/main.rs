//! The ringfence binary.

use std::process::ExitCode;

use clap::Parser;
use ringfence::cli::output::Output;
use ringfence::cli::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output {
        json: cli.global.json,
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}
