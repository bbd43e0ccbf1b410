//! `cargo xtask sim`: model-checked campaigns over the volume manager on simulated disks (the `campaign` crate).

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::process::{finish, run_within, tail};
use crate::races;
use crate::targets::TargetKind;

/// The package of the campaigns over the volume manager.
const PACKAGE: &str = "campaign";
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
/// The run inside `cargo xtask test` goes through the histories that once broke something and so many others, the same
/// ones each time: it fails for what was changed, not for what chance finds. Chance belongs to `cargo xtask sim`.
const SHORT_HISTORIES: u64 = 60;
/// The first of these others, without `--seed`.
const SHORT_SEED: u64 = 1;

/// Arguments of `cargo xtask sim`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Go on until so many crashes were made, opened and checked
    #[arg(long, default_value_t = 100_000)]
    crash_points: u64,
    /// Races between the members of fence domains, instead of the volume manager
    #[arg(long)]
    pub domains: bool,
    /// How many histories, with --domains
    #[arg(long, default_value_t = 100_000, requires = "domains")]
    pub histories: u64,
    /// Members with the real node, which take more time, with --domains
    #[arg(long, requires = "domains")]
    pub nodes: bool,
    /// Seed of the first history; the others follow it. By default another one each time; it is printed
    #[arg(long)]
    pub seed: Option<u64>,
    /// End after so many minutes at the latest
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Run the history of --seed alone, as a failed run printed it
    #[arg(long, requires = "seed")]
    pub replay: bool,
    /// Tell everything that is done, with --replay
    #[arg(long, requires = "replay")]
    pub trace: bool,
    /// Go on after a failure
    #[arg(long)]
    pub keep_going: bool,
    /// Build a defect into the test: it must be found
    #[arg(long)]
    pub plant: Option<String>,
}

/// Runs a campaign; it prints its progress, a summary, and how a failure is replayed.
///
/// # Errors
/// When a promise was broken.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.domains {
        return races::run(arguments);
    }
    let context = Context::new(arguments.seed, TargetKind::Ringfence)?;
    let mut campaign = Command::new(build(&context, PACKAGE)?);
    println!("seed {}", context.seed);
    campaign.arg(format!("--crash-points={}", arguments.crash_points));
    arguments.run(campaign, context.seed)
}

impl Arguments {
    /// Runs a campaign with the arguments that all of them have.
    ///
    /// # Errors
    /// When it fails; it says why itself.
    pub fn run(&self, mut campaign: Command, seed: u64) -> Result<()> {
        campaign.arg(format!("--seed={seed}"));
        if let Some(minutes) = self.minutes {
            campaign.arg(format!("--minutes={minutes}"));
        }
        if let Some(plant) = &self.plant {
            campaign.arg(format!("--plant={plant}"));
        }
        let flags = [
            ("--replay", self.replay),
            ("--trace", self.trace),
            ("--keep-going", self.keep_going),
        ];
        campaign.args(
            flags
                .iter()
                .filter(|(_, given)| *given)
                .map(|(flag, _)| flag),
        );
        let status = campaign.status().context("the campaign does not start")?;
        ensure!(status.success(), "the campaign failed");
        Ok(())
    }
}

/// A campaign of less than a minute, always the same one unless `--seed` chooses others.
///
/// # Errors
/// When a promise was broken; the message says how to replay it.
pub fn short_run(context: &Context) -> Result<String> {
    let mut campaign = Command::new(build(context, PACKAGE)?);
    let seed = context.chosen_seed.unwrap_or(SHORT_SEED);
    campaign
        .arg("--kept")
        .arg(format!("--histories={SHORT_HISTORIES}"))
        .arg(format!("--seed={seed}"));
    let finished = finish(&mut campaign, Duration::from_secs(900))?;
    ensure!(finished.code == 0, "{}", tail(&finished.text(), 60));
    let text = finished.text();
    let words = text
        .lines()
        .find(|line| line.contains(" crash points in ") && !line.contains(" s  "));
    Ok(words.unwrap_or_default().to_owned())
}

/// Builds the campaign of this package, fast and with every assertion; gives its path.
///
/// # Errors
/// When it does not build.
pub fn build(context: &Context, package: &str) -> Result<PathBuf> {
    let args = [
        "build",
        "-q",
        "--profile",
        "campaign",
        "--locked",
        "-p",
        package,
    ];
    run_within(&mut context.cargo(&args), BUILD_LIMIT)?;
    Ok(context.target_folder()?.join("campaign").join(package))
}
