//! `cargo xtask sim --domains`: simulated races between the members of fence domains (the `fencing-campaign` crate).

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::process::{finish, tail};
use crate::sim::{Arguments, build};
use crate::targets::TargetKind;

/// The package of these campaigns.
const PACKAGE: &str = "fencing-campaign";
/// The runs inside `cargo xtask test` end with the histories or the time; their histories are the same each time.
const SHORT_HISTORIES: &str = "4000";
const SHORT_NODE_HISTORIES: &str = "1000";
const SHORT_MINUTES: &str = "0.2";

/// Runs a campaign; it prints a summary, and how a failure is replayed.
///
/// # Errors
/// When a promise was broken.
pub fn run(arguments: &Arguments) -> Result<()> {
    let context = Context::new(arguments.seed, TargetKind::Ringfence)?;
    let mut campaign = Command::new(build(&context, PACKAGE)?);
    campaign.arg(format!("--histories={}", arguments.histories));
    if arguments.nodes {
        campaign.arg("--nodes");
    }
    arguments.run(campaign, context.seed)
}

/// A campaign of less than half a minute.
///
/// # Errors
/// When a promise was broken; the message says how to replay it.
pub fn short_run(context: &Context) -> Result<String> {
    let mut all = Vec::new();
    for (histories, nodes) in [
        (SHORT_HISTORIES, None),
        (SHORT_NODE_HISTORIES, Some("--nodes")),
    ] {
        let mut campaign = Command::new(build(context, PACKAGE)?);
        campaign.args(["--histories", histories, "--minutes", SHORT_MINUTES]);
        campaign.args(nodes);
        let finished = finish(&mut campaign, Duration::from_secs(300))?;
        let text = finished.text();
        ensure!(finished.code == 0, "{}", tail(&text, 60));
        let words = text.lines().find(|line| line.contains(" histories from "));
        all.push(words.unwrap_or_default().to_owned());
    }
    Ok(all.join("; "))
}
