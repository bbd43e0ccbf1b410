//! ringfence itself: the daemon, and the command line that steers it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::process::{Background, Finished, command, finish, succeeds, wait_for};
use crate::targets::Target;
use crate::targets::layout::Layout;

const START_LIMIT: Duration = Duration::from_secs(20);
const CLI_LIMIT: Duration = Duration::from_secs(60);

/// A daemon with its own state folder.
#[derive(Debug)]
pub struct Ringfence {
    binary: PathBuf,
    folder: PathBuf,
    namespace: Option<String>,
    portals: Vec<SocketAddr>,
    name: String,
    chap_file: Option<PathBuf>,
    sanitize_rate: Option<&'static str>,
    io: Option<&'static str>,
    more: Vec<String>,
    layout: Layout,
    process: Option<Background>,
}

impl Ringfence {
    /// A daemon that keeps everything in `folder` and listens at `portals`; not started yet.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(binary: &Path, folder: &Path, portals: Vec<SocketAddr>) -> Result<Self> {
        std::fs::create_dir_all(folder.join("state"))?;
        Ok(Self {
            binary: binary.into(),
            folder: folder.into(),
            namespace: None,
            portals,
            name: "iqn.2026-11.dev.ringfence:test".into(),
            chap_file: None,
            sanitize_rate: None,
            io: None,
            more: Vec::new(),
            layout: Layout::Linear,
            process: None,
        })
    }

    /// Runs the daemon in a network namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Asks initiators for CHAP, with the secrets of this file.
    #[must_use]
    pub fn with_chap_file(mut self, file: &Path) -> Self {
        self.chap_file = Some(file.into());
        self
    }

    /// A command of the CLI against this daemon.
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut cli = command(&self.state_binary(), args);
        cli.env("RINGFENCE_STATE", self.state());
        cli
    }

    /// Runs a command of the CLI, whatever its exit code.
    ///
    /// # Errors
    /// When it does not end within a minute.
    pub fn cli_finish(&self, args: &[&str]) -> Result<Finished> {
        finish(&mut self.cli(args), CLI_LIMIT)
    }

    /// Runs a command of the CLI that must succeed; returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli_ok(&self, args: &[&str]) -> Result<String> {
        let finished = self.cli_finish(args)?;
        ensure!(
            finished.code == 0,
            "ringfence {} exited with {}:\n{}",
            args.join(" "),
            finished.code,
            finished.text()
        );
        Ok(finished.stdout)
    }

    /// Runs a command of the CLI with `--json`; returns what it printed.
    ///
    /// # Errors
    /// When it fails or prints something else than one JSON value.
    pub fn cli_json(&self, args: &[&str]) -> Result<Value> {
        let text = self.cli_ok(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("ringfence {} --json printed\n{text}", args.join(" ")))
    }

    /// Paces SANITIZE: so many bytes a second, with a unit.
    #[must_use]
    pub fn with_sanitize_rate(mut self, rate: &'static str) -> Self {
        self.sanitize_rate = Some(rate);
        self
    }

    /// Chooses the I/O engine of the reactors (`io_uring` or `epoll`).
    #[must_use]
    pub fn with_io(mut self, io: Option<&'static str>) -> Self {
        self.io = io;
        self
    }

    /// Lays out the volumes of [`Target::create_volume`] in this way.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Gives `serve` these arguments too.
    #[must_use]
    pub fn with_arguments(mut self, more: &[&str]) -> Self {
        self.more
            .extend(more.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Adds a device backed by a sparse file.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn add_device(&self, name: &str, size: &str) -> Result<()> {
        let path = self.folder.join(format!("{name}.img"));
        let path = path.to_str().context("a path in UTF-8")?;
        self.cli_ok(&["device", "add", name, path, "--size", size])
            .map(drop)
    }

    /// Where the daemon keeps socket, event log and configuration.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Ends the daemon with SIGTERM; returns its exit code.
    ///
    /// # Errors
    /// When it is not running or does not end.
    pub fn terminate(&mut self) -> Result<i32> {
        let mut process = self.process.take().context("the daemon is not running")?;
        process.terminate(Duration::from_secs(20))
    }

    fn state_binary(&self) -> String {
        self.binary.to_string_lossy().into_owned()
    }

    fn serve(&self) -> Command {
        let mut serve = match &self.namespace {
            Some(namespace) => command("ip", ["netns", "exec", namespace, &self.state_binary()]),
            None => Command::new(&self.binary),
        };
        serve.args(["serve", "--target-name", &self.name]);
        serve.arg("--state").arg(self.state());
        for portal in &self.portals {
            serve.arg("--portal").arg(portal.to_string());
        }
        if let Some(file) = &self.chap_file {
            serve.arg("--chap-file").arg(file);
        }
        if let Some(io) = self.io {
            serve.args(["--io", io]);
        }
        serve.args(&self.more);
        if let Some(rate) = self.sanitize_rate {
            // libiscsi's test of it sleeps for a minute and answers no ping meanwhile.
            serve.args(["--sanitize-rate", rate, "--nop-interval", "0"]);
        }
        serve
    }
}

impl Target for Ringfence {
    fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the daemon runs already");
        let mut process = Background::start(&self.serve(), &self.folder.join("daemon.log"))?;
        let up = wait_for("the daemon", START_LIMIT, || {
            if let Err(error) = process.check_running() {
                return Some(Err(error));
            }
            succeeds(&mut self.cli(&["device", "list"])).then_some(Ok(()))
        });
        up.with_context(|| process.log_tail())??;
        self.process = Some(process);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the daemon is not running")?
            .kill()
    }

    fn check_running(&mut self) -> Result<()> {
        self.process
            .as_mut()
            .context("the daemon was not started")?
            .check_running()
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default();
        crate::process::tail(&text, 40)
    }

    fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Background::pid)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn portals(&self) -> &[SocketAddr] {
        &self.portals
    }

    fn make_read_only(&mut self, name: &str) -> Result<()> {
        self.cli_ok(&["grant", name, "*", "ro"]).map(drop)
    }

    fn create_volume(&mut self, name: &str, size_mib: u32, block_size_bytes: u32) -> Result<u16> {
        let devices: Vec<String> = (0..self.layout.devices())
            .map(|index| format!("dev-{name}-{index}"))
            .collect();
        for device in &devices {
            // Room for label, configuration, logs and private region beside the volume.
            self.add_device(device, &format!("{}M", size_mib + 64))?;
        }
        let size = format!("{size_mib}M");
        let block_size = block_size_bytes.to_string();
        let on = devices.join(",");
        let create = [
            "volume",
            "create",
            name,
            "--size",
            &size,
            "--on",
            &on,
            "--block-size",
            &block_size,
        ];
        let created = self.cli_json(&[&create, self.layout.options()].concat())?;
        self.cli_ok(&["grant", name, "*", "rw"])?;
        created["lun"]
            .as_u64()
            .and_then(|lun| u16::try_from(lun).ok())
            .ok_or_else(|| anyhow!("volume create --json gives no LUN: {created}"))
    }
}
