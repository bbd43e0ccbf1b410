//! A real daemon on a temporary state, for tests.
#![allow(clippy::unwrap_used)] // a test fails by panicking, in its helpers too

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_ringfence");

/// A daemon and its files; both go when it is dropped.
pub struct Daemon {
    directory: tempfile::TempDir,
    child: Option<Child>,
    /// Where it listens, by position.
    pub portals: Vec<String>,
}

impl Daemon {
    /// Starts a daemon on an empty state with one portal.
    pub fn start() -> Self {
        let mut daemon = Self::without_process();
        daemon.restart(&["--portal", "127.0.0.1:0"]);
        daemon
    }

    /// Only the files.
    pub fn without_process() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            child: None,
            portals: Vec::new(),
        }
    }

    /// Starts (again) with `options` of `serve`, and waits until it is ready.
    pub fn restart(&mut self, options: &[&str]) {
        assert!(self.child.is_none(), "it runs");
        let mut child = self
            .serve(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        self.child = Some(child);
        self.portals.clear();
        for line in BufReader::new(stdout).lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if line["ready"] == true {
                return;
            }
            self.portals
                .push(line["portal"].as_str().unwrap().to_owned());
        }
        panic!("the daemon ended before it was ready");
    }

    /// `ringfence serve` on this state.
    pub fn serve(&self, options: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["serve", "--json", "--exit-with-parent"])
            .args(["--target-name", "iqn.2026-11.dev.ringfence:test"])
            .args(options)
            .env("RINGFENCE_STATE", self.state())
            .env("RUST_LOG", "warn")
            .env_remove("NOTIFY_SOCKET");
        if !options.contains(&"--reactors") {
            command.args(["--reactors", "1"]);
        }
        command
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A file beside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a command.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .args(arguments)
            .env("RINGFENCE_STATE", self.state())
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that must fail with `code`, and gives the message of its failure.
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(&[arguments, &["--json"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(
            output.stdout.is_empty(),
            "{arguments:?} fails and prints a result"
        );
        failure["error"]["message"].as_str().unwrap().to_owned()
    }

    /// Adds a device that is a new sparse file.
    pub fn add_device(&self, name: &str, size: &str) -> Value {
        let path = self.path(&format!("{name}.img"));
        self.json(&["device", "add", name, text(&path), "--size", size])
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
