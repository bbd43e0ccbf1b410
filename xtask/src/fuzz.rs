//! `cargo xtask fuzz`: the libFuzzer targets of `fuzz/`, built on the stable toolchain.
//!
//! `cargo fuzz` wants a nightly for its sanitizers; coverage alone needs only LLVM's pass, which stable rustc can be
//! told to run. The code under test has no unsafe blocks, so what is looked for are panics (overflows included), hangs
//! and unbounded memory, all of which libFuzzer sees without a sanitizer.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::context::Context;
use crate::process::{command, finish, run, run_within, tail};
use crate::targets::TargetKind;

const BUILD_LIMIT: Duration = Duration::from_secs(900);
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";
/// One input may take this long before it counts as a hang.
const HANG_SECONDS: u32 = 10;
const MEMORY_LIMIT_MIB: u32 = 1024;
const INPUT_LIMIT_BYTES: u32 = 8192;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The target; all of them without it
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Show the targets and end
    #[arg(long)]
    list: bool,
    /// Put what was found worth keeping into the corpus, reduced to what adds coverage
    #[arg(long)]
    keep: bool,
    /// Run this one input, as a failed run saved it, instead of fuzzing
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<PathBuf>,
}

/// Fuzzes one or all targets, starting from the kept corpus.
///
/// # Errors
/// When a target does not build, or finds something; the message says where the input was saved.
pub fn run_task(arguments: &Arguments) -> Result<()> {
    let context = Context::new(None, TargetKind::Ringfence)?;
    let fuzz = Fuzz::new(&context)?;
    if arguments.list {
        println!("{}", fuzz.targets.join("\n"));
        return Ok(());
    }
    let chosen: Vec<&String> = match &arguments.target {
        Some(name) => vec![
            fuzz.targets
                .iter()
                .find(|known| *known == name)
                .with_context(|| format!("no target is called {name}"))?,
        ],
        None => fuzz.targets.iter().collect(),
    };
    fuzz.build()?;
    if let (Some(input), Some(target)) = (&arguments.replay, &arguments.target) {
        let finished = finish(fuzz.binary(target).arg(input), Duration::from_secs(60))?;
        println!("{}", finished.text());
        ensure!(finished.code == 0, "{target} fails on {}", input.display());
        return Ok(());
    }
    let mut failed = Vec::new();
    for target in chosen {
        match fuzz.run(target, arguments.seconds, arguments.keep) {
            Ok(words) => println!("ok     {target:<12} {words}"),
            Err(error) => {
                println!("FAILED {target:<12} {error:#}");
                failed.push(target.as_str());
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The step of `cargo xtask test`: the kept corpus, and a few seconds of new inputs for each target.
///
/// # Errors
/// As for [`run_task`].
pub fn short_run(context: &Context) -> Result<String> {
    const SECONDS: u32 = 8;
    let fuzz = Fuzz::new(context)?;
    fuzz.build()?;
    for target in &fuzz.targets {
        let words = fuzz
            .run(target, SECONDS, false)
            .with_context(|| format!("target {target}"))?;
        println!("       ok     {target:<12} {words}");
    }
    Ok(format!("{} targets, {SECONDS} s each", fuzz.targets.len()))
}

struct Fuzz<'a> {
    context: &'a Context,
    folder: PathBuf,
    host: String,
    build_folder: PathBuf,
    targets: Vec<String>,
}

impl<'a> Fuzz<'a> {
    fn new(context: &'a Context) -> Result<Self> {
        let folder = context.repository.join("fuzz");
        let manifest = folder.join("Cargo.toml");
        let manifest = manifest.to_str().context("a path in UTF-8")?;
        let metadata = run(&mut context.cargo(&[
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--manifest-path",
            manifest,
        ]))?;
        let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
        let targets = metadata["packages"][0]["targets"]
            .as_array()
            .context("no fuzz targets")?;
        let version = run(&mut command("rustc", ["-vV"]))?;
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("rustc has no host")?;
        Ok(Self {
            context,
            host: host.into(),
            build_folder: context.target_folder()?.join("fuzz"),
            targets: targets
                .iter()
                .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
                .collect(),
            folder,
        })
    }

    fn build(&self) -> Result<()> {
        let mut build = self.context.cargo(&[
            "build",
            "--release",
            "--locked",
            "--bins",
            "--target",
            &self.host,
            "--target-dir",
        ]);
        build
            .arg(&self.build_folder)
            .current_dir(&self.folder)
            .env("RUSTFLAGS", COVERAGE);
        run_within(&mut build, BUILD_LIMIT).map(drop)
    }

    fn binary(&self, target: &str) -> Command {
        let path = self
            .build_folder
            .join(&self.host)
            .join("release")
            .join(target);
        let mut binary = Command::new(path);
        binary.current_dir(&self.folder);
        binary
    }

    /// Runs a target for some seconds; new inputs go to a folder of this run.
    fn run(&self, target: &str, seconds: u32, keep: bool) -> Result<String> {
        let corpus = self.folder.join("corpus").join(target);
        let artifacts = self.folder.join("artifacts").join(target);
        for folder in [&corpus, &artifacts] {
            std::fs::create_dir_all(folder)?;
        }
        let found = self.context.folder(&format!("fuzz-{target}"))?;
        let mut fuzzer = self.binary(target);
        fuzzer.args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={HANG_SECONDS}"),
            format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"),
            format!("-max_len={INPUT_LIMIT_BYTES}"),
            format!("-artifact_prefix={}/", artifacts.display()),
            "-print_final_stats=1".into(),
        ]);
        let finished = finish(
            fuzzer.arg(&found).arg(&corpus),
            Duration::from_secs(u64::from(seconds) * 2 + 120),
        )?;
        let text = finished.text();
        if finished.code != 0 {
            bail!(
                "exit code {}; the input is in {}; replay it with cargo xtask fuzz {target} --replay FILE\n{}",
                finished.code,
                artifacts.display(),
                tail(&text, 30)
            );
        }
        ensure!(
            text.contains("INITED"),
            "the target has no coverage instrumentation:\n{}",
            tail(&text, 20)
        );
        if keep {
            let mut merge = self.binary(target);
            run_within(
                merge
                    .args(["-merge=1", &format!("-max_len={INPUT_LIMIT_BYTES}")])
                    .arg(&corpus)
                    .arg(&found),
                Duration::from_secs(600),
            )?;
        }
        let number = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
        };
        let runs = number("stat::number_of_executed_units:");
        ensure!(runs > 0, "nothing was run:\n{}", tail(&text, 20));
        Ok(format!(
            "{runs} inputs, {} a second",
            number("stat::average_exec_per_sec:")
        ))
    }
}
