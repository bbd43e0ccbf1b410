//! What every task and step is given: where the project is, where files may go, and the binary under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::process::{command, run, run_within};
use crate::targets::layout::Layout;
use crate::targets::ringfence::Ringfence;
use crate::targets::tgt::Tgt;
use crate::targets::{Target, TargetKind, loopback_portals};

/// The suite looks at a SANITIZE while it goes on; on its 128 MiB volume this makes one last seven seconds.
const SANITIZE_RATE: &str = "18M";

/// One run of a task.
#[derive(Debug)]
pub struct Context {
    /// The root of the checkout.
    pub repository: PathBuf,
    /// Seed of everything random in this run; printed, and taken with `--seed`.
    pub seed: u64,
    /// That of `--seed`, where it was given.
    pub chosen_seed: Option<u64>,
    /// The target that the end-to-end tests use.
    pub target_kind: TargetKind,
    scratch: TempDir,
    binary: OnceLock<PathBuf>,
}

impl Context {
    /// A run with a folder of its own, which goes away at its end.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn new(seed: Option<u64>, target_kind: TargetKind) -> Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask is a folder of the checkout")?
            .to_owned();
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        Ok(Self {
            repository,
            chosen_seed: seed,
            seed: seed.unwrap_or_else(|| clock.as_secs() ^ u64::from(clock.subsec_nanos())),
            target_kind,
            scratch: tempfile::Builder::new().prefix("ringfence-").tempdir()?,
            binary: OnceLock::new(),
        })
    }

    /// A fresh, empty folder for one part of the run. Its path is short, so that sockets fit in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.path().join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// A running target on the loopback interface that keeps its files in `folder`, with volumes of this layout.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_target(
        &self,
        folder: &Path,
        portals: usize,
        layout: Layout,
    ) -> Result<Box<dyn Target>> {
        self.start_target_on(folder, portals, layout, None)
    }

    /// The same, with an I/O engine for ringfence that is not its own choice.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_target_on(
        &self,
        folder: &Path,
        portals: usize,
        layout: Layout,
        io: Option<&'static str>,
    ) -> Result<Box<dyn Target>> {
        let portals = loopback_portals(portals)?;
        let mut target: Box<dyn Target> = match self.target_kind {
            TargetKind::Ringfence => Box::new(
                Ringfence::new(self.ringfence()?, folder, portals)?
                    .with_sanitize_rate(SANITIZE_RATE)
                    .with_layout(layout)
                    .with_io(io),
            ),
            TargetKind::Tgt => Box::new(Tgt::new(folder, portals)?),
        };
        target.start()?;
        Ok(target)
    }

    /// Keeps the run's files and says where, for looking into a failure.
    pub fn keep_files(self) -> PathBuf {
        self.scratch.keep()
    }

    /// `cargo` in the checkout.
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = command(
            &std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()),
            args,
        );
        cargo.current_dir(&self.repository);
        cargo
    }

    /// Uses this build of ringfence.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn use_binary(&self, path: &Path) -> Result<()> {
        let path = std::path::absolute(path)?;
        ensure!(path.exists(), "{} is not there", path.display());
        self.binary.get_or_init(|| path);
        Ok(())
    }

    /// The release build of ringfence, built at the first call.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn ringfence(&self) -> Result<&Path> {
        if let Some(path) = self.binary.get() {
            return Ok(path);
        }
        run_within(
            &mut self.cargo(&["build", "--release", "--locked", "-p", "ringfence"]),
            Duration::from_secs(1800),
        )?;
        let path = self.target_folder()?.join("release/ringfence");
        ensure!(path.exists(), "{} was not built", path.display());
        Ok(self.binary.get_or_init(|| path))
    }

    /// The release build of `ringfence-node` for guests, which needs nothing but a kernel.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn static_node(&self) -> Result<PathBuf> {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let arguments = ["build", "--release", "--locked", "-p", "node", "--target"];
        let mut build = self.cargo(&arguments);
        build.arg(&triple);
        build.env("RUSTFLAGS", "-C target-feature=+crt-static");
        run_within(&mut build, Duration::from_secs(1800))?;
        let release = self.target_folder()?.join(triple).join("release");
        Ok(release.join("ringfence-node"))
    }

    /// Where cargo builds the workspace.
    ///
    /// # Errors
    /// When cargo does not say.
    pub fn target_folder(&self) -> Result<PathBuf> {
        let metadata = run(&mut self.cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
        let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
        let folder = metadata["target_directory"].as_str();
        Ok(folder.context("cargo's target folder")?.into())
    }
}
