//! The long campaign, run by `cargo xtask sim`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use campaign::{Failure, Plant, Summary, run};
use clap::Parser;
use parking_lot::Mutex;

#[derive(Parser)]
#[command(about = "Model-checked campaigns over the volume manager on simulated disks")]
struct Arguments {
    /// Go on until so many crashes were checked
    #[arg(long, default_value_t = 100_000)]
    crash_points: u64,
    /// Seed of the first history; the others follow it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run one history only, that of --seed
    #[arg(long)]
    replay: bool,
    /// Tell everything that is done (with --replay)
    #[arg(long)]
    trace: bool,
    /// End after so many minutes at the latest
    #[arg(long)]
    minutes: Option<f64>,
    /// Threads; by default one a processor
    #[arg(long)]
    threads: Option<usize>,
    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,
    /// Build a defect into the test: it must be found
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// How a history is replayed; printed after a failure
    #[arg(long, default_value = "cargo xtask sim", hide = true)]
    command: String,
}

/// A history that takes longer goes round in circles.
const HISTORY_LIMIT: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Progress {
    /// Histories that run, and since when.
    running: BTreeMap<u64, Instant>,
    summary: Summary,
    failures: Vec<Failure>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Failures are told by seed below; the place of a panic helps with a replay only.
    if !arguments.replay {
        std::panic::set_hook(Box::new(|_| {}));
    }
    campaign::TRACE.store(arguments.trace, Ordering::SeqCst);
    let start = Instant::now();
    let progress = Mutex::new(Progress::default());
    let (next, stop) = (AtomicU64::new(arguments.seed), AtomicBool::new(false));
    let threads = if arguments.replay {
        1
    } else {
        arguments
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    };
    let limit = arguments
        .minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    progress.lock().running.insert(seed, Instant::now());
                    let result = run(seed, arguments.plant);
                    let mut progress = progress.lock();
                    progress.running.remove(&seed);
                    match result {
                        Ok(summary) => progress.summary.add(&summary),
                        Err(failure) => {
                            println!("seed {}: {}", failure.seed, failure.problem);
                            println!(
                                "  replay: {} --replay --seed {}",
                                arguments.command, failure.seed
                            );
                            progress.failures.push(failure);
                        }
                    }
                    let done = progress.summary.crash_points >= arguments.crash_points
                        || limit.is_some_and(|limit| start.elapsed() >= limit)
                        || arguments.replay
                        || !progress.failures.is_empty() && !arguments.keep_going;
                    if done {
                        stop.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut told = Instant::now();
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(100));
                let stuck = |(_, since): &(&u64, &Instant)| since.elapsed() > HISTORY_LIMIT;
                if let Some((seed, _)) = progress.lock().running.iter().find(stuck) {
                    println!("seed {seed}: VIOLATION something goes round in circles");
                    println!("  replay: {} --replay --seed {seed}", arguments.command);
                    std::process::exit(1);
                }
                if told.elapsed() >= Duration::from_secs(10) {
                    told = Instant::now();
                    let progress = progress.lock();
                    println!(
                        "{:>6.0} s  {} crash points in {} histories, next seed {}, {} failures",
                        start.elapsed().as_secs_f64(),
                        progress.summary.crash_points,
                        progress.summary.episodes,
                        next.load(Ordering::SeqCst),
                        progress.failures.len()
                    );
                }
            }
        });
    });
    let progress = progress.into_inner();
    let seconds = start.elapsed().as_secs_f64();
    print!("{}", progress.summary);
    println!(
        "seeds {} to {}, {seconds:.1} s on {threads} threads: {:.0} crash points a second and thread",
        arguments.seed,
        next.load(Ordering::SeqCst) - 1,
        progress.summary.crash_points as f64 / seconds / threads as f64
    );
    let seeds: Vec<String> = progress
        .failures
        .iter()
        .map(|failure| failure.seed.to_string())
        .collect();
    if seeds.is_empty() {
        println!("no promise was broken");
        ExitCode::SUCCESS
    } else {
        println!(
            "{} histories failed: seeds {}",
            seeds.len(),
            seeds.join(", ")
        );
        ExitCode::FAILURE
    }
}
