//! `ringfence demo`, to its end and interrupted.
#![allow(clippy::unwrap_used)] // a test fails by panicking, in its helpers too

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn demo(directory: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    command.arg("demo").env("TMPDIR", directory.path());
    command
}

fn is_empty(directory: &tempfile::TempDir) -> bool {
    std::fs::read_dir(directory.path())
        .unwrap()
        .next()
        .is_none()
}

#[test]
fn it_ends_well_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let output = demo(&directory).arg("--fast").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}\n{stderr}");
    for word in [
        "REGISTER",
        "PREEMPT AND ABORT",
        "RESERVATION CONFLICT",
        "kill -9",
        "The same keys",
    ] {
        assert!(told.contains(word), "nothing of {word}:\n{told}");
    }
    assert!(is_empty(&directory));
}

#[test]
fn interrupted_it_cleans_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = demo(&directory).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    // Mid-way: the daemon runs and the VMs are logged in.
    assert!(told.any(|line| line.unwrap().contains("REGISTER")));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest = told.map(Result::unwrap).collect::<Vec<_>>().join("\n");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(!rest.contains("Done in"), "it went on to the end: {rest}");
    assert!(is_empty(&directory));
    assert!(!daemon_of(&directory), "the daemon is left behind");
}

/// Whether a process with a file in `directory` on its command line is there.
fn daemon_of(directory: &tempfile::TempDir) -> bool {
    let path = directory.path().to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(path))
}
