//! Migration and resynchronization beside a plain copy, and what a client feels of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::super::load::{self, Subject};
use super::super::process_cost::Source;
use super::super::session::{Pattern, Session};
use super::super::table::{Bar, Row};
use crate::process::{command, run_within, wait_for};
use crate::targets::ringfence::Ringfence;
use crate::targets::{Target, loopback_portals};

const SIZE_MIB: u64 = 1024;
const LIMIT: Duration = Duration::from_secs(600);
const BESIDE_DD: Bar = Bar::RatioAtLeast(0.7);
/// Half as many commands a second of one command outstanding: twice the latency.
const LATENCY: Bar = Bar::RatioAtLeast(0.5);

/// The daemon with two devices, used with direct I/O, and a volume on the first.
struct World {
    daemon: Ringfence,
    subject: Subject,
    plain: [PathBuf; 2],
    on: usize,
}

const DEVICES: [&str; 2] = ["a", "b"];

/// The rows: MiB a second of migration, of a new mirror and of a resynchronization beside `dd`, and the rate of one
/// command at a time while a migration runs beside the rate without.
///
/// # Errors
/// When the daemon or `dd` fails.
pub fn measure(folder: &Path, binary: &Path, rounds: u32, length: Duration) -> Result<Vec<Row>> {
    let mut world = World::start(folder, binary)?;
    let row = |measure: &str, bar| Row {
        measure: measure.into(),
        ours: Vec::new(),
        theirs: Vec::new(),
        limit: Vec::new(),
        bar,
    };
    let mut migration = row("migration, MiB/s (beside dd with direct I/O)", BESIDE_DD);
    let mut mirroring = row("a new mirror, MiB/s (beside dd)", BESIDE_DD);
    let mut resync = row(
        "resynchronization of all of a copy, MiB/s (beside dd)",
        BESIDE_DD,
    );
    for round in 0..rounds {
        eprintln!("moves: round {}", round + 1);
        migration.ours.push(rate(world.migrate(&[])?));
        migration.theirs.push(rate(world.copy()?));
        let (added, resynchronized) = world.mirror()?;
        mirroring.ours.push(rate(added));
        resync.ours.push(rate(resynchronized));
        let copied = rate(world.copy()?);
        mirroring.theirs.push(copied);
        resync.theirs.push(copied);
    }
    let mut rows = vec![migration, mirroring, resync];
    for (name, write) in [("reads", false), ("writes", true)] {
        eprintln!("moves: {name} during a migration");
        let mut latency = row(
            &format!(
                "random 4 KiB {name}, depth 1, during a migration: per second (beside without)"
            ),
            LATENCY,
        );
        for _ in 0..rounds {
            let (during, without) = world.load_during_migration(write, length)?;
            latency.ours.push(during);
            latency.theirs.push(without);
        }
        rows.push(latency);
    }
    world.daemon.terminate()?;
    Ok(rows)
}

/// MiB a second for the whole volume in this time.
fn rate(time: Duration) -> f64 {
    SIZE_MIB as f64 / time.as_secs_f64()
}

impl World {
    fn start(folder: &Path, binary: &Path) -> Result<Self> {
        let mut daemon = Ringfence::new(binary, folder, loopback_portals(1)?)?;
        daemon.start()?;
        for name in DEVICES {
            let path = folder.join(format!("{name}.img"));
            let path = path.to_str().context("a path in UTF-8")?;
            let size = format!("{}M", SIZE_MIB + 256);
            daemon.cli_ok(&["device", "add", name, path, "--size", &size, "--direct"])?;
        }
        let size = format!("{SIZE_MIB}M");
        let create = [
            "volume", "create", "moves", "--size", &size, "--on", DEVICES[0],
        ];
        let created = daemon.cli_json(&create)?;
        daemon.cli_ok(&["grant", "moves", "*", "rw"])?;
        let lun = created["lun"].as_u64().context("a LUN")?;
        let subject = Subject {
            portal: daemon.portals()[0],
            name: daemon.name().into(),
            lun: u16::try_from(lun)?,
            cost: Source::Process(daemon.pid().context("a running daemon")?),
        };
        let plain = ["plain-a", "plain-b"].map(|name| folder.join(name));
        let world = Self {
            daemon,
            subject,
            plain,
            on: 0,
        };
        world.fill()?;
        for path in &world.plain {
            // Both exist and have no holes, as the devices after the first migration.
            let mut dd = command(
                "dd",
                ["if=/dev/urandom", "bs=1M", "conv=fsync", "status=none"],
            );
            dd.arg(format!("of={}", path.display()));
            dd.arg(format!("count={SIZE_MIB}"));
            run_within(&mut dd, LIMIT)?;
        }
        Ok(world)
    }

    /// Writes the whole volume.
    fn fill(&self) -> Result<()> {
        let pattern = Pattern {
            write: true,
            length_bytes: 256 << 10,
            random: false,
            depth: 8,
            span_bytes: SIZE_MIB << 20,
        };
        let Subject {
            portal, name, lun, ..
        } = &self.subject;
        let mut session = Session::login(*portal, name, *lun, 1, pattern)?;
        session.start()?;
        while session.completed() < pattern.span_bytes / u64::from(pattern.length_bytes) {
            session.turn()?;
        }
        session.finish()
    }

    /// The time of a plain copy of the same size between two files beside the devices.
    fn copy(&mut self) -> Result<Duration> {
        self.plain.swap(0, 1);
        let mut dd = command(
            "dd",
            [
                "bs=1M",
                "iflag=direct",
                "oflag=direct",
                "conv=notrunc,fsync",
                "status=none",
            ],
        );
        dd.arg(format!("if={}", self.plain[0].display()));
        dd.arg(format!("of={}", self.plain[1].display()));
        let begun = Instant::now();
        run_within(&mut dd, LIMIT)?;
        Ok(begun.elapsed())
    }

    /// The time of a migration to the other device.
    fn migrate(&mut self, options: &[&str]) -> Result<Duration> {
        let to = DEVICES[1 - self.on];
        let migrate = ["volume", "migrate", "moves", "--to", to];
        let begun = Instant::now();
        run_within(&mut self.daemon.cli(&[&migrate, options].concat()), LIMIT)?;
        self.on = 1 - self.on;
        Ok(begun.elapsed())
    }

    /// The times of a new mirror, and of its resynchronization after everything was written without it.
    fn mirror(&self) -> Result<(Duration, Duration)> {
        let on = DEVICES[1 - self.on];
        let begun = Instant::now();
        let add = ["volume", "add-mirror", "moves", "--on", on];
        run_within(&mut self.daemon.cli(&add), LIMIT)?;
        let added = begun.elapsed();
        self.daemon.cli_ok(&["device", "fail", on])?;
        self.fill()?;
        let begun = Instant::now();
        self.daemon.cli_ok(&["device", "online", on])?;
        wait_for("the end of the resynchronization", LIMIT, || {
            let volume = self.daemon.cli_json(&["volume", "show", "moves"]).ok()?;
            (volume["health"] == "good").then_some(())
        })?;
        let resynchronized = begun.elapsed();
        let remove = ["volume", "remove-mirror", "moves", "--on", on];
        self.daemon.cli_ok(&remove)?;
        Ok((added, resynchronized))
    }

    /// Commands a second of one command at a time during a migration, which lasts longer than that, and without.
    fn load_during_migration(&mut self, write: bool, length: Duration) -> Result<(f64, f64)> {
        let pattern = Pattern {
            write,
            length_bytes: 4096,
            random: true,
            depth: 1,
            span_bytes: SIZE_MIB << 20,
        };
        let without = load::run(&self.subject, pattern, 1, length)?.per_second;
        let to = DEVICES[1 - self.on];
        self.daemon
            .cli_ok(&["volume", "migrate", "moves", "--to", to, "--detach"])?;
        let during = load::run(&self.subject, pattern, 1, length)?.per_second;
        // Where it has ended meanwhile there is no job to wait for.
        let show = self.daemon.cli_json(&["volume", "show", "moves"])?;
        if show["job"].is_null() {
            eprintln!("the migration was over before the load: the figure is too good");
        }
        wait_for("the end of the migration", LIMIT, || {
            let volume = self.daemon.cli_json(&["volume", "show", "moves"]).ok()?;
            volume["job"].is_null().then_some(())
        })?;
        self.on = 1 - self.on;
        Ok((during, without))
    }
}
