//! `cargo xtask sim --domains`: simulated races between the members of fence domains (the `fencing-campaign` crate).

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::process::{finish, run_within, tail};
use crate::sim::Arguments;
use crate::targets::TargetKind;

const BUILD_LIMIT: Duration = Duration::from_secs(1800);
/// The run inside `cargo xtask test` ends with the first of the two; its histories are the same each time.
const SHORT_HISTORIES: &str = "5000";
const SHORT_MINUTES: &str = "0.4";

/// Runs a campaign; it prints a summary, and how a failure is replayed.
///
/// # Errors
/// When a promise was broken.
pub fn run(arguments: &Arguments) -> Result<()> {
    let context = Context::new(arguments.seed, TargetKind::Ringfence)?;
    let mut campaign = Command::new(build(&context)?);
    campaign
        .arg(format!("--histories={}", arguments.histories))
        .arg(format!("--seed={}", context.seed));
    if let Some(minutes) = arguments.minutes {
        campaign.arg(format!("--minutes={minutes}"));
    }
    if let Some(plant) = &arguments.plant {
        campaign.arg(format!("--plant={plant}"));
    }
    let flags = [
        ("--replay", arguments.replay),
        ("--trace", arguments.trace),
        ("--keep-going", arguments.keep_going),
    ];
    for (flag, given) in flags {
        if given {
            campaign.arg(flag);
        }
    }
    let status = campaign.status().context("the campaign does not start")?;
    ensure!(status.success(), "the campaign failed");
    Ok(())
}

/// A campaign of less than half a minute.
///
/// # Errors
/// When a promise was broken; the message says how to replay it.
pub fn short_run(context: &Context) -> Result<String> {
    let mut campaign = Command::new(build(context)?);
    campaign.args(["--histories", SHORT_HISTORIES, "--minutes", SHORT_MINUTES]);
    let finished = finish(&mut campaign, Duration::from_secs(300))?;
    let text = finished.text();
    ensure!(finished.code == 0, "{}", tail(&text, 60));
    let words = text.lines().find(|line| line.contains(" histories from "));
    Ok(words.unwrap_or_default().to_owned())
}

fn build(context: &Context) -> Result<PathBuf> {
    let args = [
        "build",
        "-q",
        "--profile",
        "campaign",
        "--locked",
        "-p",
        "fencing-campaign",
    ];
    run_within(&mut context.cargo(&args), BUILD_LIMIT)?;
    Ok(context.target_folder()?.join("campaign/fencing-campaign"))
}
