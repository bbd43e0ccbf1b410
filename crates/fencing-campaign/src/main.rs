//! The campaign, run by `cargo xtask sim --domains`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use fencing_campaign::{Failure, Plant, Summary, run};

#[derive(Parser)]
#[command(about = "Simulated races between the members of fence domains")]
struct Arguments {
    /// How many histories
    #[arg(long, default_value_t = 100_000)]
    histories: u64,
    /// Seed of the first history; the others follow it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run the history of --seed alone
    #[arg(long)]
    replay: bool,
    /// Tell everything that happens (with --replay)
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
    /// Members with the real node, which take more time, instead of simple ones
    #[arg(long)]
    nodes: bool,
    /// How a history is replayed; printed after a failure
    #[arg(long, default_value = "cargo xtask sim --domains", hide = true)]
    command: String,
}

#[derive(Default)]
struct Progress {
    summary: Summary,
    failures: Vec<Failure>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.replay {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let histories = if arguments.replay {
        1
    } else {
        arguments.histories
    };
    let threads = arguments
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let threads = if arguments.replay { 1 } else { threads };
    let limit = arguments
        .minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let start = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let progress = Mutex::new(Progress::default());
    let work = || {
        while !stop.load(Ordering::SeqCst) {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= histories {
                break;
            }
            let seed = arguments.seed.wrapping_add(number);
            let result = run(
                seed,
                arguments.nodes,
                arguments.plant,
                arguments.trace && arguments.replay,
            );
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(summary) => progress.summary.add(&summary),
                Err(failure) => {
                    println!("seed {seed}: {}", failure.problem);
                    let nodes = if arguments.nodes { " --nodes" } else { "" };
                    println!(
                        "  replay: {}{nodes} --replay --seed {seed}",
                        arguments.command
                    );
                    progress.failures.push(failure);
                }
            }
            let failed = !progress.failures.is_empty() && !arguments.keep_going;
            if failed || limit.is_some_and(|limit| start.elapsed() >= limit) {
                stop.store(true, Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let progress = progress
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let (summary, seconds) = (progress.summary, start.elapsed().as_secs_f64());
    println!(
        "{} histories from seed {}: {} steps, {} epochs, {} races won, {} writes; decided after {:.1} s of order on average, {:.1} s at most",
        summary.histories,
        arguments.seed,
        summary.steps,
        summary.epochs,
        summary.races_won,
        summary.writes,
        summary.settled_ms as f64 / 1000.0 / summary.histories.max(1) as f64,
        summary.slowest_ms as f64 / 1000.0,
    );
    println!(
        "{seconds:.1} s on {threads} threads: {:.2} µs a step and thread",
        seconds * 1e6 * threads as f64 / summary.steps.max(1) as f64
    );
    if progress.failures.is_empty() {
        println!("no promise was broken");
        ExitCode::SUCCESS
    } else {
        println!("{} histories failed", progress.failures.len());
        ExitCode::FAILURE
    }
}
