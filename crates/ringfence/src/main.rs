//! The ringfence binary.

use std::process::ExitCode;

use clap::Parser;
use ringfence::cli::output::Output;
use ringfence::cli::{Cli, run};
use ringfence::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
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

/// Shows help and version as they are, and a usage error as JSON when that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if !error.use_stderr() || !json {
        error.exit();
    }
    let text = error.to_string();
    let mut lines = text.lines();
    let message = lines.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let failure = Failure::usage(message.trim()).advise(
        lines
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
    );
    Output { json }.failure(&failure);
    ExitCode::from(failure.kind.exit_code())
}
