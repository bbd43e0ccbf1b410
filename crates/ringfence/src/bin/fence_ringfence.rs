//! The fence agent for Pacemaker and others of the fence-agents convention.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence::agent::main()
}
