//! The demo's daemon: this very binary as a child process, and its command line.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use serde_json::Value;

use super::stage::Stage;
use crate::failure::Failure;

/// The name of the demo's target.
pub const TARGET_NAME: &str = "iqn.2026-11.dev.ringfence:demo";

/// A daemon on the stage.
pub struct Daemon<'a> {
    stage: &'a Stage,
    binary: PathBuf,
    portal: SocketAddr,
}

impl<'a> Daemon<'a> {
    /// Starts a daemon that listens on `portal`, with port 0 on any free one, and waits until it is ready.
    pub fn start(stage: &'a Stage, portal: SocketAddr) -> Result<Self, Failure> {
        // While the binary is rebuilt the path may be gone, its content is not.
        let binary = std::env::current_exe()
            .ok()
            .filter(|path| path.exists())
            .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(stage.path("daemon.log"))
            .map_err(|error| Failure::failed(format!("no log for the daemon: {error}")))?;
        let mut command = Command::new(&binary);
        command
            .args(["serve", "--json", "--exit-with-parent", "--reactors", "2"])
            // The VMs of the demo do not answer pings while the story is told.
            .args(["--nop-interval", "0"])
            .args(["--target-name", TARGET_NAME])
            .args(["--portal", &portal.to_string()])
            .arg("--state")
            .arg(stage.path("state"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for the demo, which then ends the daemon.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| Failure::failed(format!("the daemon cannot be started: {error}")))?;
        let stdout = stage.adopt(child);
        let portal = ready(stdout, stage)?;
        Ok(Self {
            stage,
            binary,
            portal,
        })
    }

    /// Where it listens.
    pub fn portal(&self) -> SocketAddr {
        self.portal
    }

    /// Runs a command of the command line and gives what it printed.
    pub fn command(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .env("RINGFENCE_STATE", self.stage.path("state"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failure::failed(format!("the command cannot be run: {error}")))?;
        if !output.status.success() {
            return Err(Failure::failed(format!(
                "ringfence {} failed ({}): {}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let printed = self.command(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&printed)
            .map_err(|error| Failure::failed(format!("{} --json: {error}", arguments.join(" "))))
    }

    /// `kill -9`.
    pub fn kill(self) -> Result<(), Failure> {
        self.stage.kill_daemon()
    }

    /// SIGTERM; the daemon must end well.
    pub fn stop(self) -> Result<(), Failure> {
        self.stage.stop_daemon()
    }
}

/// Reads the lines of a starting daemon until it is ready; gives its portal.
fn ready(stdout: Option<ChildStdout>, stage: &Stage) -> Result<SocketAddr, Failure> {
    let died = || {
        Failure::failed(format!(
            "the daemon did not start:\n{}",
            tail(&stage.path("daemon.log"))
        ))
    };
    let stdout = stdout.ok_or_else(died)?;
    let mut portal = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|_| died())?;
        let value: Value = serde_json::from_str(&line).map_err(|_| died())?;
        if let Some(address) = value["portal"].as_str() {
            portal = address.parse().ok();
        }
        if value["ready"] == true {
            return portal.ok_or_else(died);
        }
    }
    Err(died())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
