//! `ringfence demo`.

use clap::Args;

use super::Context;
use crate::failure::Failure;

/// `demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "The demo starts a real daemon on two file-backed devices in a temporary directory, logs three
initiators in over iSCSI on 127.0.0.1, lets them register, write, split and preempt, shows the private
region before and after, kills the daemon with -9, and finds the keys again. It needs no root and
leaves nothing behind."
)]
pub struct DemoArgs {
    /// Do not pause for the reader between the steps
    #[arg(long)]
    pub fast: bool,
}

/// Carries `demo` out.
pub fn run(context: &Context, args: &DemoArgs) -> Result<(), Failure> {
    crate::demo::run(context.output, !args.fast)
}
