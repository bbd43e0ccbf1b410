//! A pool with very many volumes: how long it takes to take it up, and how much memory it needs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::super::process_cost::resident_kib;
use super::super::table::{Bar, Row};
use crate::targets::ringfence::Ringfence;
use crate::targets::{Target, loopback_portals};

const DEVICES: [&str; 3] = ["d1", "d2", "d3"];
const IMPORT_SECONDS: f64 = 2.0;
const MEMORY_MIB: f64 = 256.0;

/// The rows: the import of `few` volumes, the memory with `many` of them.
///
/// # Errors
/// When the daemon refuses a volume or does not come up.
pub fn measure(folder: &Path, binary: &Path, few: u32, many: u32, rounds: u32) -> Result<Vec<Row>> {
    let mut first = Pool::start(&folder.join("first"), binary)?;
    first.fill(0, few)?;
    let mut import = Row {
        measure: format!("import of a pool with {few} volumes, s"),
        ours: Vec::new(),
        theirs: Vec::new(),
        limit: Vec::new(),
        bar: Bar::AtMost(IMPORT_SECONDS),
    };
    let mut start = Row {
        measure: format!("start of a daemon with {few} volumes, s"),
        bar: Bar::None,
        ..import.clone()
    };
    for _ in 0..rounds {
        first.daemon.cli_ok(&["pool", "export"])?;
        import.ours.push(first.import()?);
        first.daemon.terminate()?;
        let begun = Instant::now();
        first.daemon.start()?;
        start.ours.push(begun.elapsed().as_secs_f64());
    }
    let with_few = first.resident_mib()?;
    first.fill(few, many)?;
    let grown = first.resident_mib()?;
    first.daemon.terminate()?;
    first.daemon.start()?;
    let restarted = first.resident_mib()?;
    first.daemon.terminate()?;
    let memory = |measure: String, value, bar| Row {
        measure,
        ours: vec![value],
        theirs: Vec::new(),
        limit: Vec::new(),
        bar,
    };
    Ok(vec![
        import,
        start,
        memory(
            format!("memory with {few} volumes, MiB"),
            with_few,
            Bar::None,
        ),
        memory(
            format!("memory with {many} volumes, after a restart, MiB"),
            restarted,
            Bar::AtMost(MEMORY_MIB),
        ),
        memory(
            format!("memory with {many} volumes, in the daemon that made them, MiB"),
            grown,
            Bar::AtMost(MEMORY_MIB),
        ),
    ])
}

struct Pool {
    daemon: Ringfence,
    paths: Vec<String>,
}

impl Pool {
    fn start(folder: &Path, binary: &Path) -> Result<Self> {
        let mut daemon = Ringfence::new(binary, folder, loopback_portals(1)?)?;
        daemon.start()?;
        let mut paths = Vec::new();
        for name in DEVICES {
            daemon.add_device(name, "128G")?;
            let device = daemon.cli_json(&["device", "show", name])?;
            paths.push(device["path"].as_str().context("a path")?.to_owned());
        }
        Ok(Self { daemon, paths })
    }

    fn resident_mib(&self) -> Result<f64> {
        let pid = self.daemon.pid().context("a running daemon")?;
        Ok(resident_kib(pid)? as f64 / 1024.0)
    }

    /// Seconds that `pool import` takes.
    fn import(&self) -> Result<f64> {
        let paths: Vec<&str> = self.paths.iter().map(String::as_str).collect();
        let begun = Instant::now();
        self.daemon
            .cli_ok(&[&["pool", "import"], paths.as_slice()].concat())?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Makes the volumes from `from` to `to`, over one connection to the control socket: ten thousand processes would
    /// take longer than the volumes.
    fn fill(&self, from: u32, to: u32) -> Result<()> {
        let mut socket = UnixStream::connect(self.daemon.state().join("control.sock"))?;
        let mut answers = BufReader::new(socket.try_clone()?);
        for number in from..to {
            if number % 1000 == 0 {
                eprintln!("volume {number} of {to}");
            }
            let request = json!({
                "version": 1,
                "request": {
                    "op": "volume-create",
                    "name": format!("v{number}"),
                    "size_bytes": 1 << 20,
                    "block_size_bytes": 512,
                },
            });
            writeln!(socket, "{request}")?;
            let mut line = String::new();
            answers.read_line(&mut line)?;
            let answer: Value = serde_json::from_str(&line)
                .with_context(|| format!("the control socket says {line:?}"))?;
            if answer.get("answer").is_none() {
                bail!("volume {number}: {answer}");
            }
        }
        Ok(())
    }
}
