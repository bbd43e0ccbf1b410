//! `cargo xtask vm`: the guest image, and a guest to try something in.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::e2e::{cluster, guests};
use crate::packages;
use crate::targets::TargetKind;
use crate::vm::accelerator;
use crate::vm::guest::Guest;
use crate::vm::image::Image;
use crate::vm::network::Network;

/// Arguments of `cargo xtask vm`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only build the image
    #[arg(long)]
    build_only: bool,
    /// Run scenarios: those of the `guests` step of `cargo xtask test`, or of clusters of three guests; without a name, all of
    /// the former
    #[arg(long, value_name = "NAME", num_args = 0.., conflicts_with = "script")]
    scenario: Option<Vec<String>>,
    /// The target that the scenarios use
    #[arg(long, value_enum, default_value = "ringfence")]
    target: TargetKind,
    /// Use this build of ringfence instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Shell scripts to run in the guest, one after the other; without any, the guest shows its kernel and disks
    script: Vec<String>,
}

/// Builds the image when it is not cached, boots a guest and runs the scripts in it.
///
/// # Errors
/// When packages are missing, the build fails, or the guest does not boot.
pub fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure_installed()?;
    let context = Context::new(None, arguments.target)?;
    if let Some(binary) = &arguments.binary {
        context.use_binary(binary)?;
    }
    let start = Instant::now();
    let image = Image::obtain(&context.repository)?;
    println!(
        "image: {} ({:.1} s)",
        image.root.display(),
        start.elapsed().as_secs_f32()
    );
    if arguments.build_only {
        return Ok(());
    }
    if let Some(names) = &arguments.scenario {
        return run_scenarios(context, names);
    }
    let folder = context.folder("vm")?;
    let accelerator = accelerator::choose(&image, &folder);
    let network = Network::create()?;
    let start = Instant::now();
    let mut guest = Guest::start(
        &image,
        accelerator,
        &network,
        &network.seat(1)?,
        1,
        &folder,
        None,
    )?;
    guest.wait_ready()?;
    println!(
        "{} is up with {accelerator:?} ({:.1} s)",
        guest.name,
        start.elapsed().as_secs_f32()
    );
    let default = vec!["uname -a; lsblk; ip -brief address".to_owned()];
    let scripts = if arguments.script.is_empty() {
        &default
    } else {
        &arguments.script
    };
    for script in scripts {
        let answer = guest.run_within(script, Duration::from_secs(600))?;
        print!("{}", answer.text);
        println!("exit code {}", answer.code);
    }
    Ok(())
}

fn run_scenarios(context: Context, names: &[String]) -> Result<()> {
    let clusters: Vec<&str> = cluster::names().collect();
    let pairs: Vec<&str> = guests::names().collect();
    for name in names {
        ensure!(
            clusters.contains(&name.as_str()) || pairs.contains(&name.as_str()),
            "no scenario is called {name}; there are {} and {}",
            pairs.join(", "),
            clusters.join(", ")
        );
    }
    let (clusters, pairs): (Vec<String>, Vec<String>) = names
        .iter()
        .cloned()
        .partition(|name| clusters.contains(&name.as_str()));
    let result = if clusters.is_empty() || !pairs.is_empty() {
        guests::run(&context, &pairs).map(|words| println!("{words}"))
    } else {
        Ok(())
    };
    let result = result.and_then(|()| cluster::run(&context, &clusters));
    if result.is_err() {
        println!("files kept in {}", context.keep_files().display());
    }
    result
}
