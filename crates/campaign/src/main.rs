//! The long campaign, run by `cargo xtask sim`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use campaign::kept::{KEPT, Kept};
use campaign::{Failure, Plant, Summary, run};
use clap::Parser;
use parking_lot::Mutex;

#[derive(Parser)]
#[command(about = "Model-checked campaigns over the volume manager on simulated disks")]
struct Arguments {
    /// Go on until so many crashes were checked; by default 100,000, or all of --histories
    #[arg(long)]
    crash_points: Option<u64>,
    /// Seed of the first history; the others follow it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End after so many histories that follow --seed; the same ones on every machine
    #[arg(long, conflicts_with = "replay")]
    histories: Option<u64>,
    /// Run the histories that once broke something first
    #[arg(long, conflicts_with = "replay")]
    kept: bool,
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

/// A history that takes longer goes round in circles. It takes a second or two on a processor of its own; others may have
/// work for it too.
const HISTORY_LIMIT: Duration = Duration::from_secs(600);

/// Without another wish.
const CRASH_POINTS: u64 = 100_000;

/// The seeds of a campaign, each given out once.
struct Seeds {
    kept: &'static [Kept],
    first: u64,
    histories: Option<u64>,
    taken: AtomicU64,
}

impl Seeds {
    fn new(arguments: &Arguments) -> Seeds {
        Seeds {
            kept: if arguments.kept { KEPT } else { &[] },
            first: arguments.seed,
            histories: arguments.histories,
            taken: AtomicU64::new(0),
        }
    }

    /// How many of those that follow the first were given out, when `taken` were in all.
    fn following(&self, taken: u64) -> u64 {
        let following = taken.saturating_sub(self.kept.len() as u64);
        following.min(self.histories.unwrap_or(u64::MAX))
    }

    fn take(&self) -> Option<u64> {
        let taken = self.taken.fetch_add(1, Ordering::SeqCst);
        if let Some(kept) = self.kept.get(taken as usize) {
            return Some(kept.seed);
        }
        let following = taken - self.kept.len() as u64;
        let more = self.histories.is_none_or(|all| following < all);
        more.then(|| self.first.wrapping_add(following))
    }

    /// The next one that follows the first.
    fn next(&self) -> u64 {
        let following = self.following(self.taken.load(Ordering::SeqCst));
        self.first.wrapping_add(following)
    }
}

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
    let seeds = Seeds::new(&arguments);
    let stop = AtomicBool::new(false);
    let threads = if arguments.replay {
        1
    } else {
        arguments
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    };
    let working = AtomicUsize::new(threads);
    let limit = arguments
        .minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let Some(seed) = seeds.take() else { break };
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
                    let points = arguments.crash_points.unwrap_or(match arguments.histories {
                        Some(_) => u64::MAX,
                        None => CRASH_POINTS,
                    });
                    let done = progress.summary.crash_points >= points
                        || limit.is_some_and(|limit| start.elapsed() >= limit)
                        || arguments.replay
                        || !progress.failures.is_empty() && !arguments.keep_going;
                    if done {
                        stop.store(true, Ordering::SeqCst);
                    }
                }
                working.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            let mut told = Instant::now();
            while working.load(Ordering::SeqCst) > 0 {
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
                        seeds.next(),
                        progress.failures.len()
                    );
                }
            }
        });
    });
    let progress = progress.into_inner();
    let seconds = start.elapsed().as_secs_f64();
    print!("{}", progress.summary);
    if arguments.kept {
        println!("{} histories that once broke something", KEPT.len());
    }
    println!(
        "seeds {} to {}, {seconds:.1} s on {threads} threads: {:.0} crash points a second and thread",
        arguments.seed,
        seeds.next().wrapping_sub(1),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_seeds_come_first_and_each_seed_once() {
        let all = |words: &[&str]| {
            let words = ["campaign", "--seed=7"].iter().chain(words);
            let seeds = Seeds::new(&Arguments::parse_from(words));
            let taken: Vec<u64> = std::iter::from_fn(|| seeds.take()).take(50).collect();
            (taken, seeds.next())
        };
        assert_eq!(all(&["--histories=3"]), (vec![7, 8, 9], 10));
        let (taken, next) = all(&["--histories=2", "--kept"]);
        let kept: Vec<u64> = KEPT.iter().map(|kept| kept.seed).collect();
        assert_eq!((&taken[..kept.len()], next), (&kept[..], 9));
        assert_eq!(taken[kept.len()..], [7, 8]);
        assert_eq!(all(&[]), ((7..57).collect(), 57));
    }
}
