//! `ringfence node`: the crate `node` in this binary.

use ::node::{NodeArgs, run_arguments};

use super::Context;
use crate::failure::{Failure, FailureKind};

/// Runs the node until it is told to stop, or asks the one that runs.
///
/// # Errors
/// Why it cannot start, or does not answer.
pub fn run(context: &Context, arguments: &NodeArgs) -> Result<(), Failure> {
    run_arguments(arguments, context.output.json).map_err(|error| {
        let kind = match error.exit_code() {
            2 => FailureKind::Usage,
            4 => FailureKind::Unreachable,
            _ => FailureKind::Failed,
        };
        Failure::new(kind, error.to_string())
    })
}
