//! `cargo xtask test`: every check as a named step with its time and a clear result.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::context::Context;
use crate::e2e::{cli, demo, domains, guests, hostile, kill9, libiscsi, qemu, storage};
use crate::fuzz;
use crate::packages;
use crate::process::run_within;
use crate::races;
use crate::sim;
use crate::targets::TargetKind;
use crate::targets::layout::Layout;

const CARGO_LIMIT: Duration = Duration::from_secs(1800);

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run only these steps (repeat the option for several)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Show the steps and end
    #[arg(long)]
    list: bool,
    /// Seed for the randomized steps, as an earlier run printed it
    #[arg(long)]
    seed: Option<u64>,
    /// Use this build of ringfence instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Another target in the place of ringfence, for the steps that can do with it: libiscsi, qemu, guests
    #[arg(long, value_enum, default_value = "ringfence")]
    target: TargetKind,
}

/// A named part of the run; what it returns is shown beside its result.
struct Step {
    name: &'static str,
    about: &'static str,
    /// Whether it takes the Debian packages and the release binary.
    real_clients: bool,
    run: fn(&Context) -> Result<String>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "the code is formatted",
        real_clients: false,
        run: |context| cargo(context, &["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        about: "no lint warns",
        real_clients: false,
        run: |context| {
            cargo(
                context,
                &[
                    "clippy",
                    "-q",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ],
            )
        },
    },
    Step {
        name: "unit",
        about: "cargo test of every crate",
        real_clients: false,
        run: |context| cargo(context, &["test", "-q", "--workspace", "--locked"]),
    },
    Step {
        name: "fuzz",
        about: "the fuzz targets: kept corpus and a short run",
        real_clients: false,
        run: fuzz::short_run,
    },
    Step {
        name: "sim",
        about: "a short campaign over the volume manager on simulated disks",
        real_clients: false,
        run: sim::short_run,
    },
    Step {
        name: "races",
        about: "a short campaign of races between the members of fence domains",
        real_clients: false,
        run: races::short_run,
    },
    Step {
        name: "cli",
        about: "every command of the CLI, its JSON and exit codes",
        real_clients: true,
        run: cli::run,
    },
    Step {
        name: "demo",
        about: "ringfence demo",
        real_clients: true,
        run: demo::run,
    },
    Step {
        name: "libiscsi",
        about: "libiscsi's conformance suite, 512-byte blocks",
        real_clients: true,
        run: |context| libiscsi::run(context, 512),
    },
    Step {
        name: "libiscsi-4096",
        about: "the same with 4096-byte blocks, on the epoll fall-back",
        real_clients: true,
        run: |context| libiscsi::run(context, 4096),
    },
    Step {
        name: "libiscsi-layouts",
        about: "the same on striped and mirrored volumes",
        real_clients: true,
        run: libiscsi::run_layouts,
    },
    Step {
        name: "qemu",
        about: "qemu-img and qemu-io over iscsi://",
        real_clients: true,
        run: |context| qemu::run_scenario(context, Layout::Linear),
    },
    Step {
        name: "hostile",
        about: "hostile input at the portal beside an honest session",
        real_clients: true,
        run: |context| hostile::run(context, Layout::Linear),
    },
    Step {
        name: "kill9",
        about: "kill -9 at random moments while nexuses register, reserve and preempt",
        real_clients: true,
        run: |context| kill9::run(context, Layout::Linear, 200),
    },
    Step {
        name: "layouts",
        about: "qemu, hostile and kill9 on striped mirrors",
        real_clients: true,
        run: |context| {
            let layout = Layout::StripedMirror;
            let words = [
                qemu::run_scenario(context, layout).context("qemu")?,
                hostile::run(context, layout).context("hostile")?,
                kill9::run(context, layout, 60).context("kill9")?,
            ];
            Ok(words.join("; "))
        },
    },
    Step {
        name: "kill9-moves",
        about: "kill -9 while a volume migrates, resyncs and grows under load",
        real_clients: true,
        run: storage::kill9::run,
    },
    Step {
        name: "failing",
        about: "devices that fail, hang and become read-only under load",
        real_clients: true,
        run: storage::failing::run,
    },
    Step {
        name: "damaged",
        about: "noise over data, keys and configuration, and a file cut short",
        real_clients: true,
        run: storage::damaged::run,
    },
    Step {
        name: "operations",
        about: "every operation on devices and layouts with an initiator attached",
        real_clients: true,
        run: storage::operations::run,
    },
    Step {
        name: "elsewhere",
        about: "a pool that moves to another daemon, whole and with a device missing",
        real_clients: true,
        run: storage::elsewhere::run,
    },
    Step {
        name: "recovery",
        about: "keys without a quorum: not served until a copy is chosen",
        real_clients: true,
        run: storage::recovery::run,
    },
    Step {
        name: "domains",
        about: "fence domains: races, methods, kill -9 in the middle of a fence, moves, stops",
        real_clients: true,
        run: domains::run,
    },
    Step {
        name: "nodes",
        about: "ringfence node in three members: suspicion, stop, partition, boot, pause, kill",
        real_clients: true,
        run: domains::nodes,
    },
    Step {
        name: "guests",
        about: "two Linux guests: open-iscsi, sg3_utils, multipath, fence_scsi",
        real_clients: true,
        run: |context| guests::run(context, &[]),
    },
];

/// Runs the steps and prints `N passed, N failed` as the last line.
///
/// # Errors
/// When a step failed, or there is no such step.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for step in STEPS {
            println!("{:<14} {}", step.name, step.about);
        }
        return Ok(());
    }
    let chosen = choose(&arguments.only)?;
    let context = Context::new(arguments.seed, arguments.target)?;
    if let Some(binary) = &arguments.binary {
        context.use_binary(binary)?;
    }
    println!("seed {}", context.seed);
    let start = Instant::now();
    let (mut passed, mut failed) = (0_u32, Vec::new());
    let mut note = |name: &'static str, result: Result<String>, time: Duration| match result {
        Ok(words) => {
            passed += 1;
            println!("ok     {name:<14} {:>6.1} s  {words}", time.as_secs_f32());
        }
        Err(error) => {
            println!(
                "FAILED {name:<14} {:>6.1} s\n{error:#}\n",
                time.as_secs_f32()
            );
            failed.push(name);
        }
    };
    let timed = |work: &dyn Fn() -> Result<String>| {
        let start = Instant::now();
        (work(), start.elapsed())
    };
    let mut able = true;
    if chosen.iter().any(|step| step.real_clients) {
        let (result, time) = timed(&packages::ensure_installed);
        able = result.is_ok();
        note("packages", result, time);
        if able {
            let (result, time) = timed(&|| Ok(context.ringfence()?.display().to_string()));
            able = result.is_ok();
            note("build", result, time);
        }
    }
    for step in chosen {
        println!("...... {:<14} {}", step.name, step.about);
        let (result, time) = timed(&|| {
            ensure!(able || !step.real_clients, "cannot run: see above");
            (step.run)(&context)
        });
        note(step.name, result, time);
    }
    let failed_count = failed.len();
    if failed_count > 0 {
        println!(
            "failed: {}; files kept in {}",
            failed.join(", "),
            context.keep_files().display()
        );
    }
    println!("{:.0} s", start.elapsed().as_secs_f32());
    println!("{passed} passed, {failed_count} failed");
    if failed_count > 0 {
        std::process::exit(1);
    }
    Ok(())
}

fn choose(only: &[String]) -> Result<Vec<&'static Step>> {
    for name in only {
        if !STEPS.iter().any(|step| step.name == name) {
            bail!("no step is called {name}; see --list");
        }
    }
    Ok(STEPS
        .iter()
        .filter(|step| only.is_empty() || only.iter().any(|name| name == step.name))
        .collect())
}

fn cargo(context: &Context, args: &[&str]) -> Result<String> {
    run_within(&mut context.cargo(args), CARGO_LIMIT).map(|_| String::new())
}
