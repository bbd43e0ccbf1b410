//! `cargo xtask bench`: ringfence and tgt side by side, and a responder that touches no disk as the limit.
//!
//! Every number is the median of alternating runs: tgt, ringfence, limit, tgt, … so that a machine that grows slower
//! or faster meanwhile does so for all. Both targets have a file of the same size on the same file system and use the
//! page cache. The client is the same; it, the kernel's loopback and the target share the processors.

mod fencing;
mod footprint;
mod load;
mod process_usage;
mod responder;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::load::{Place, Workload};
use crate::context::Context;
use crate::packages;
use crate::process::{command, finish};
use crate::targets::ringfence::Ringfence;
use crate::targets::tgt::Tgt;
use crate::targets::{Target, loopback_portals};

const VOLUME_MIB: u32 = 512;
const VOLUME: &str = "bench";

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Fewer and shorter runs: a minute instead of ten
    #[arg(long)]
    quick: bool,
    /// Only workloads whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only tgt and the limit, without ringfence
    #[arg(long, hide = true)]
    without_ringfence: bool,
}

const fn workload(name: &'static str, write: bool, depth: u32, sessions: usize) -> Workload {
    Workload {
        name,
        write,
        sequential: false,
        transfer_bytes: 4096,
        depth,
        sessions,
    }
}

const fn sequential(name: &'static str, write: bool) -> Workload {
    Workload {
        name,
        write,
        sequential: true,
        transfer_bytes: 256 * 1024,
        depth: 4,
        sessions: 1,
    }
}

const WORKLOADS: &[Workload] = &[
    workload("random read 4 KiB, depth 1", false, 1, 1),
    workload("random read 4 KiB, depth 32", false, 32, 1),
    workload("random read 4 KiB, 8 sessions at depth 8", false, 8, 8),
    workload("random write 4 KiB, depth 1", true, 1, 1),
    workload("random write 4 KiB, depth 32", true, 32, 1),
    workload("random write 4 KiB, 8 sessions at depth 8", true, 8, 8),
    sequential("sequential read 256 KiB, depth 4", false),
    sequential("sequential write 256 KiB, depth 4", true),
];

/// Measures everything and prints the tables in Markdown.
///
/// # Errors
/// When a target does not start or a command fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure_installed()?;
    let context = Context::new(None)?;
    // Not in the temporary folder, which may be memory: the files belong on a disk.
    let folder = context.target_folder()?.join("bench");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let result = measure(&context, &folder, arguments);
    std::fs::remove_dir_all(&folder)?;
    println!("{}", result?);
    Ok(())
}

fn measure(context: &Context, folder: &Path, arguments: &Arguments) -> Result<String> {
    let (rounds, time) = if arguments.quick {
        (3, Duration::from_millis(700))
    } else {
        (7, Duration::from_secs(3))
    };
    let mut tgt = Tgt::new(&folder.join("tgt"), loopback_portals(1)?)?;
    tgt.start()?;
    let mut targets: Vec<(&str, Box<dyn Target>)> = vec![("tgt", Box::new(tgt))];
    if !arguments.without_ringfence {
        let mut ringfence = Ringfence::new(
            context.ringfence()?,
            &folder.join("ringfence"),
            loopback_portals(1)?,
        )?;
        ringfence.start()?;
        targets.push(("ringfence", Box::new(ringfence)));
    }
    let mut places = Vec::new();
    for (_, target) in &mut targets {
        let lun = target.create_volume(VOLUME, VOLUME_MIB, 512)?;
        places.push(Place {
            portal: target.portals()[0],
            target: target.name().into(),
            lun,
            span_bytes: u64::from(VOLUME_MIB) << 20,
        });
    }
    let canned = Place {
        portal: responder::start()?,
        target: responder::NAME.into(),
        lun: 0,
        span_bytes: u64::from(VOLUME_MIB) << 20,
    };
    for place in &places {
        fill(place).context("filling the volumes")?;
    }

    let mut report = machine()?;
    throughput(
        &mut report,
        arguments,
        rounds,
        time,
        &targets,
        &places,
        &canned,
    )?;
    perf(&mut report, arguments, rounds, &targets, &places)?;
    fencing::report(&mut report, folder, &targets, &places, arguments.quick)?;
    footprint::report(&mut report, &mut targets, &places, arguments.quick)?;
    Ok(report)
}

/// Every block is written once, so that reads find data and not holes.
fn fill(place: &Place) -> Result<()> {
    let megabytes = place.span_bytes >> 20;
    let writes = Workload {
        depth: 4,
        ..sequential("fill", true)
    };
    let mut written = 0.0;
    while written < megabytes as f64 * 4.0 {
        let second = Duration::from_secs(1);
        written += load::run(place, writes, second)?;
    }
    Ok(())
}

fn machine() -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "Machine: {cores} processors ({model}), Linux {}.\n\n",
        kernel.trim()
    ))
}

#[allow(clippy::too_many_arguments, reason = "the parts of one measurement")]
fn throughput(
    report: &mut String,
    arguments: &Arguments,
    rounds: u32,
    time: Duration,
    targets: &[(&str, Box<dyn Target>)],
    places: &[Place],
    canned: &Place,
) -> Result<()> {
    writeln!(
        report,
        "| workload | tgt, 1/s | ringfence, 1/s | ratio | limit, 1/s | tgt, CPU µs each | ringfence, CPU µs each | ratio |"
    )?;
    writeln!(
        report,
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )?;
    for workload in WORKLOADS {
        if arguments
            .only
            .as_ref()
            .is_some_and(|text| !workload.name.contains(text.as_str()))
        {
            continue;
        }
        let mut rates = vec![Vec::new(); targets.len()];
        let mut costs = vec![Vec::new(); targets.len()];
        let mut limits = Vec::new();
        for _ in 0..rounds {
            for (index, (_, target)) in targets.iter().enumerate() {
                let pid = target.pid().context("the target runs")?;
                let before = process_usage::cpu_time(pid)?;
                let rate = load::run(&places[index], *workload, time)?;
                let used = process_usage::cpu_time(pid)?.saturating_sub(before);
                rates[index].push(rate);
                costs[index].push(used.as_secs_f64() * 1e6 / (rate * time.as_secs_f64()));
            }
            if !workload.write {
                limits.push(load::run(canned, *workload, time)?);
            }
        }
        let rates: Vec<Option<f64>> = (0..2)
            .map(|index| rates.get(index).map(|all| median(all)))
            .collect();
        let costs: Vec<Option<f64>> = (0..2)
            .map(|index| costs.get(index).map(|all| median(all)))
            .collect();
        let limit = (!limits.is_empty()).then(|| median(&limits));
        writeln!(
            report,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            workload.name,
            number(rates[0], 0),
            number(rates[1], 0),
            number(ratio(rates[1], rates[0]), 2),
            number(limit, 0),
            number(costs[0], 1),
            number(costs[1], 1),
            number(ratio(costs[1], costs[0]), 2),
        )?;
    }
    writeln!(report)?;
    Ok(())
}

/// The same reads with libiscsi's own client, so that the numbers do not hang on ours.
fn perf(
    report: &mut String,
    arguments: &Arguments,
    rounds: u32,
    targets: &[(&str, Box<dyn Target>)],
    places: &[Place],
) -> Result<()> {
    if arguments
        .only
        .as_ref()
        .is_some_and(|text| !"iscsi-perf".contains(text.as_str()))
    {
        return Ok(());
    }
    let seconds = if arguments.quick { "1" } else { "3" };
    writeln!(
        report,
        "| iscsi-perf, random 4 KiB reads | tgt, 1/s | ringfence, 1/s | ratio |"
    )?;
    writeln!(report, "| --- | ---: | ---: | ---: |")?;
    for depth in ["1", "32"] {
        let mut rates = vec![Vec::new(); targets.len()];
        for _ in 0..rounds.min(3) {
            for (index, (_, target)) in targets.iter().enumerate() {
                let url = target.url(0, places[index].lun);
                let mut perf = command(
                    "iscsi-perf",
                    ["-r", "-b", "8", "-m", depth, "-t", seconds, &url],
                );
                let text = finish(&mut perf, Duration::from_secs(60))?.text();
                rates[index].push(
                    last_average(&text).with_context(|| format!("iscsi-perf printed\n{text}"))?,
                );
            }
        }
        let rates: Vec<Option<f64>> = (0..2)
            .map(|index| rates.get(index).map(|all| median(all)))
            .collect();
        writeln!(
            report,
            "| depth {depth} | {} | {} | {} |",
            number(rates[0], 0),
            number(rates[1], 0),
            number(ratio(rates[1], rates[0]), 2)
        )?;
    }
    writeln!(report)?;
    Ok(())
}

/// The number after the last `iops average` that iscsi-perf printed.
fn last_average(text: &str) -> Option<f64> {
    let (_, rest) = text.rsplit_once("iops average ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

fn ratio(of: Option<f64>, to: Option<f64>) -> Option<f64> {
    Some(of? / to?)
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn iscsi_perfs_last_average_counts() {
        let text = "\riops average 10 (0 MB/s)   \riops average 45123 (176 MB/s)  \n";
        assert_eq!(last_average(text), Some(45123.0));
        assert_eq!(last_average("nothing"), None);
    }
}
