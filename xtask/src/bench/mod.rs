//! `cargo xtask bench`: ringfence and Debian's tgt side by side, with the same client, the same kind of file and
//! alternating runs. It prints figures with the project's bars beside them and judges nothing: the machine is shared.

mod canned;
pub mod fence;
mod load;
mod memory;
mod process_cost;
mod reservations;
mod session;
mod subjects;
mod table;
mod volumes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::packages;
use crate::process::{command, finish};
use crate::targets::TargetKind;
use load::Sample;
use session::Pattern;
use subjects::Subjects;
use table::{Bar, Row};

const VOLUME_MIB: u32 = 1024;
const IDLE_SESSIONS: u32 = 200;
const IDLE_VOLUMES: u32 = 32;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Fewer and shorter runs: for a look while developing, not for figures to keep
    #[arg(long)]
    quick: bool,
    /// Only these parts (repeat the option for several)
    #[arg(long, value_enum, value_name = "PART")]
    part: Vec<Part>,
    /// Only the workloads whose name contains this: of the targets, without memory and reservations, and of the volume
    /// layer
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Length of a run in seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Runs of each workload
    #[arg(long, value_name = "COUNT")]
    rounds: Option<u32>,
    /// Measure this build of ringfence instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Compare with this build of ringfence instead of tgt
    #[arg(long, value_name = "PATH")]
    baseline: Option<PathBuf>,
    /// Run ringfence alone, for profiling
    #[arg(long)]
    alone: bool,
}

/// A part of the bench with a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The target beside tgt
    Targets,
    /// Volumes beside plain files, in one process
    Layer,
    /// Migration, new mirrors and resynchronization beside dd, and what a client feels of them
    Moves,
    /// Pools of very many volumes
    Many,
    /// Fencing a machine on many volumes beside loops of PREEMPT on tgt
    Fence,
}

struct Workload {
    name: &'static str,
    pattern: Pattern,
    sessions: u32,
    bar: Bar,
}

const KIB_4: Pattern = Pattern {
    write: false,
    length_bytes: 4096,
    random: true,
    depth: 1,
    span_bytes: (VOLUME_MIB as u64) << 20,
};
const KIB_256: Pattern = Pattern {
    length_bytes: 256 * 1024,
    random: false,
    depth: 8,
    ..KIB_4
};

const WORKLOADS: [Workload; 8] = [
    Workload {
        name: "random 4 KiB reads, depth 1",
        pattern: KIB_4,
        sessions: 1,
        bar: Bar::RatioAtLeast(2.5),
    },
    Workload {
        name: "random 4 KiB writes, depth 1",
        pattern: Pattern {
            write: true,
            ..KIB_4
        },
        sessions: 1,
        bar: Bar::RatioAtLeast(2.5),
    },
    Workload {
        name: "random 4 KiB reads, depth 32",
        pattern: Pattern { depth: 32, ..KIB_4 },
        sessions: 1,
        bar: Bar::RatioAtLeast(1.8),
    },
    Workload {
        name: "random 4 KiB writes, depth 32",
        pattern: Pattern {
            write: true,
            depth: 32,
            ..KIB_4
        },
        sessions: 1,
        bar: Bar::RatioAtLeast(1.8),
    },
    Workload {
        name: "random 4 KiB reads, 8 sessions of depth 4",
        pattern: Pattern { depth: 4, ..KIB_4 },
        sessions: 8,
        bar: Bar::None,
    },
    Workload {
        name: "random 4 KiB writes, 8 sessions of depth 4",
        pattern: Pattern {
            write: true,
            depth: 4,
            ..KIB_4
        },
        sessions: 8,
        bar: Bar::None,
    },
    Workload {
        name: "sequential 256 KiB reads, depth 8",
        pattern: KIB_256,
        sessions: 1,
        bar: Bar::None,
    },
    Workload {
        name: "sequential 256 KiB writes, depth 8",
        pattern: Pattern {
            write: true,
            ..KIB_256
        },
        sessions: 1,
        bar: Bar::None,
    },
];

/// Measures and prints.
///
/// # Errors
/// When a target does not start or does not do what it is asked.
pub fn run(arguments: &Arguments) -> Result<()> {
    if cfg!(debug_assertions) {
        return run_optimized();
    }
    packages::ensure_installed()?;
    let context = Context::new(Some(1), TargetKind::Ringfence)?;
    let binary = match &arguments.binary {
        Some(binary) => binary,
        None => context.ringfence()?,
    };
    let length = lengths(arguments)?;
    println!("{}", machine()?);

    // Not in the temporary folder, which may be memory: the files belong on a disk.
    let place = context.target_folder()?;
    std::fs::create_dir_all(&place)?;
    let place = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(place)?;
    // A choice of workloads, a baseline or profiling is about the target alone.
    let whole = arguments.only.is_none() && !arguments.alone && arguments.baseline.is_none();
    let wanted = |part| {
        if arguments.part.is_empty() {
            whole || part == Part::Targets
        } else {
            arguments.part.contains(&part)
        }
    };
    if wanted(Part::Targets) {
        measure_targets(arguments, place.path(), binary, length)?;
    }
    let Length { rounds, run } = length;
    let rounds_of_moves = rounds.min(3);
    if wanted(Part::Layer) {
        let rows = volumes::layer::measure(
            &place.path().join("layer"),
            arguments.only.as_deref().unwrap_or_default(),
            rounds,
            run,
        )?;
        println!("{}", table::render(&rows, "plain files"));
    }
    if wanted(Part::Moves) {
        let folder = place.path().join("moves");
        let rows = volumes::moves::measure(&folder, binary, rounds_of_moves, run)?;
        println!("{}", table::render(&rows, "beside"));
    }
    if wanted(Part::Many) {
        let (few, many) = if arguments.quick {
            (100, 1000)
        } else {
            (1000, 10_000)
        };
        let folder = place.path().join("many");
        let rows = volumes::many::measure(&folder, binary, few, many, rounds_of_moves)?;
        println!("{}", table::render(&rows, "-"));
    }
    if wanted(Part::Fence) {
        let numbers: &[u16] = if arguments.quick {
            &[1, 100]
        } else {
            &[1, 100, 1000]
        };
        let rounds = arguments.rounds.unwrap_or(3).min(5);
        let rows = fence::measure(&place.path().join("fence"), binary, numbers, rounds)?;
        println!("{}", table::render(&rows, "tgt, loop"));
    }
    println!("{}", machine()?);
    Ok(())
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Length {
    rounds: u32,
    run: Duration,
}

fn lengths(arguments: &Arguments) -> Result<Length> {
    let rounds = arguments
        .rounds
        .unwrap_or(if arguments.quick { 3 } else { 9 });
    let seconds = arguments
        .seconds
        .unwrap_or(if arguments.quick { 0.5 } else { 2.0 });
    ensure!(rounds > 0 && seconds > 0.0, "nothing to measure");
    Ok(Length {
        rounds,
        run: Duration::from_secs_f64(seconds),
    })
}

/// ringfence beside tgt or another build of itself.
fn measure_targets(
    arguments: &Arguments,
    place: &Path,
    binary: &Path,
    length: Length,
) -> Result<()> {
    let baseline = arguments.baseline.as_deref();
    let other = if baseline.is_some() {
        "baseline"
    } else {
        "tgt"
    };
    let mut rows = Vec::new();
    let full = arguments.only.is_none() && !arguments.alone;
    let mut memory_rows = Vec::new();
    if full {
        eprintln!("memory");
        memory_rows = measure_memory(&place.join("memory"), binary, baseline)?;
    }
    let folder = place.join("load");
    let mut subjects = Subjects::start(&folder, binary, baseline, !arguments.alone, VOLUME_MIB)?;
    fill(&subjects)?;
    for workload in &WORKLOADS {
        if arguments
            .only
            .as_ref()
            .is_none_or(|text| workload.name.contains(text.as_str()))
        {
            eprintln!("{}", workload.name);
            rows.extend(measure_load(
                workload,
                &subjects,
                length.rounds,
                length.run,
            )?);
        }
    }
    if full {
        eprintln!("iscsi-perf");
        for depth in ["1", "32"] {
            rows.push(measure_iscsi_perf(
                depth,
                &subjects,
                length.rounds.min(3),
                length.run,
            )?);
        }
        rows.append(&mut memory_rows);
        eprintln!("PERSISTENT RESERVE OUT");
        let rounds = if arguments.quick { 30 } else { 200 };
        rows.extend(measure_reservations(&subjects, &folder, rounds)?);
    }
    subjects.stop()?;
    println!("{}", table::render(&rows, other));
    Ok(())
}

/// A client that is not optimized would be what is measured.
fn run_optimized() -> Result<()> {
    let status = command(
        &std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()),
        [
            "run",
            "-q",
            "--release",
            "--locked",
            "--package",
            "xtask",
            "--",
        ],
    )
    .args(std::env::args_os().skip(1))
    .status()?;
    std::process::exit(status.code().unwrap_or(1));
}

fn machine() -> Result<String> {
    let read = |path| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let load = read("/proc/loadavg")?;
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    Ok(format!(
        "{} processors, Linux {}, load {load}",
        std::thread::available_parallelism()?,
        read("/proc/sys/kernel/osrelease")?.trim(),
    ))
}

/// Writes every file once, so that none has holes and all are in the page cache. By pages: newer kernels keep what was
/// written in one large piece as one large folio, and ext4 then walks hundreds of buffer heads for each small write.
/// That would be a measurement of ext4, the same for every target.
fn fill(subjects: &Subjects) -> Result<()> {
    let pattern = Pattern {
        write: true,
        random: false,
        depth: 32,
        ..KIB_4
    };
    for subject in subjects.real() {
        let mut session =
            session::Session::login(subject.portal, &subject.name, subject.lun, 1, pattern)?;
        session.start()?;
        while session.completed() < pattern.span_bytes / u64::from(pattern.length_bytes) {
            session.turn()?;
        }
        session.finish()?;
    }
    rustix::fs::sync();
    Ok(())
}

fn measure_load(
    workload: &Workload,
    subjects: &Subjects,
    rounds: u32,
    length: Duration,
) -> Result<Vec<Row>> {
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for _ in 0..rounds {
        for (samples, subject) in samples.iter_mut().zip(subjects.all()) {
            // The canned responder has nowhere to put data.
            let Some(subject) =
                subject.filter(|s| !(workload.pattern.write && s.name.ends_with(":canned")))
            else {
                continue;
            };
            samples.push(
                load::run(subject, workload.pattern, workload.sessions, length)
                    .with_context(|| subject.name.clone())?,
            );
        }
    }
    let row = |measure: String, bar, value: fn(&Sample) -> f64| {
        let [ours, theirs, limit] = [0, 1, 2].map(|i| samples[i].iter().map(value).collect());
        Row {
            measure,
            ours,
            theirs,
            limit,
            bar,
        }
    };
    Ok(vec![
        row(
            format!("{}: per second", workload.name),
            workload.bar,
            |s| s.per_second,
        ),
        row(
            "… target's CPU, µs each".into(),
            Bar::RatioAtMost(0.5),
            |s| s.cpu_us,
        ),
        row("… client's CPU, µs each".into(), Bar::None, |s| {
            s.client_cpu_us
        }),
    ])
}

/// Random 4 KiB reads with libiscsi's own client, so that the figures do not hang on ours.
fn measure_iscsi_perf(
    depth: &str,
    subjects: &Subjects,
    rounds: u32,
    length: Duration,
) -> Result<Row> {
    let seconds = length.as_secs().max(1);
    let mut values = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (values, subject) in values.iter_mut().zip(subjects.real()) {
            let url = format!(
                "iscsi://{}/{}/{}",
                subject.portal, subject.name, subject.lun
            );
            let mut perf = command("iscsi-perf", ["-r", "-b", "8", "-m", depth, "-t"]);
            perf.args([&seconds.to_string(), &url]);
            let text = finish(&mut perf, length + Duration::from_secs(60))?.text();
            values
                .push(last_average(&text).with_context(|| format!("iscsi-perf printed\n{text}"))?);
        }
    }
    let [ours, theirs] = values;
    Ok(Row {
        measure: format!("iscsi-perf, random 4 KiB reads, depth {depth}: per second"),
        ours,
        theirs,
        limit: Vec::new(),
        bar: Bar::RatioAtLeast(if depth == "1" { 2.5 } else { 1.8 }),
    })
}

/// The number after the last `iops average` that iscsi-perf printed.
fn last_average(text: &str) -> Option<f64> {
    let (_, rest) = text.rsplit_once("iops average ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn measure_memory(folder: &Path, binary: &Path, baseline: Option<&Path>) -> Result<Vec<Row>> {
    let mut sessions = [Vec::new(), Vec::new()];
    let mut volumes = [Vec::new(), Vec::new()];
    let mut subjects = Subjects::start(folder, binary, baseline, true, 64)?;
    for index in 0..2 {
        let (subject, pid) = subjects.process(index)?;
        sessions[index].push(memory::per_session_kib(&subject, pid, IDLE_SESSIONS)?);
        // Freed memory that is used again would hide what volumes take.
        subjects.restart(index)?;
        let (_, pid) = subjects.process(index)?;
        volumes[index].push(memory::per_volume_kib(pid, IDLE_VOLUMES, |volume| {
            subjects.create_small_volume(index, volume)
        })?);
    }
    subjects.stop()?;
    let row = |measure: &str, [ours, theirs]: [Vec<f64>; 2], bar| Row {
        measure: measure.into(),
        ours,
        theirs,
        limit: Vec::new(),
        bar,
    };
    Ok(vec![
        row("memory per idle session, KiB", sessions, Bar::AtMost(256.0)),
        row("memory per volume, KiB", volumes, Bar::None),
    ])
}

fn measure_reservations(subjects: &Subjects, folder: &Path, rounds: u32) -> Result<Vec<Row>> {
    let mut pairs = Vec::new();
    let mut times: [[Vec<f64>; 4]; 2] = Default::default();
    let mut plain = reservations::PlainPair::new(folder)?;
    let mut duels = subjects
        .real()
        .map(reservations::Duel::start)
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..rounds {
        pairs.push(micros(plain.time()?));
        for (times, duel) in times.iter_mut().zip(&mut duels) {
            for (times, time) in times.iter_mut().zip(duel.round()?) {
                times.push(micros(time));
            }
        }
    }
    for duel in duels {
        duel.end()?;
    }
    let [ours, theirs] = times;
    let mut rows = Vec::new();
    for (index, (name, _)) in reservations::ACTIONS.into_iter().enumerate() {
        // A new registration is two writes and flushes, slot page then header; everything else is the header alone.
        let needed = if name == "REGISTER" { 2.0 } else { 1.0 };
        rows.push(Row {
            measure: format!("{name}, µs (limit: {needed} × write + fdatasync)"),
            ours: ours[index].clone(),
            theirs: theirs[index].clone(),
            limit: pairs.iter().map(|pair| needed * pair).collect(),
            bar: if name == "PREEMPT" {
                Bar::TimesLimit(3.0)
            } else {
                Bar::None
            },
        });
    }
    Ok(rows)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iscsi_perfs_last_average_counts() {
        let text = "\riops average 10 (0 MB/s)   \riops average 45123 (176 MB/s)  \n";
        assert_eq!(last_average(text), Some(45123.0));
        assert_eq!(last_average("nothing"), None);
    }
}
