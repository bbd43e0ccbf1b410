//! Which runtime carries the data plane? Runs the same work on several, in alternating order, and prints medians.
//!
//! `cargo run --release -p dataplane-bench -- [ROUNDS [SECONDS]]`, and `-- writes` for the way of writes; results go to `docs/decisions/0002-data-plane.md`.

mod client;
mod protocol;
mod server_compio;
mod server_raw;
mod server_reactor;
mod server_tokio;
mod writes;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reactor::BackendChoice;
use rustix::time::{ClockId, clock_gettime};
use server_raw::Mode;

/// The competitors.
const SERVERS: [&str; 11] = [
    "tokio, reads in its pool",
    "tokio, inline reads",
    "compio, ring reads",
    "compio, inline reads",
    "io-uring by hand, all in the ring",
    "io-uring by hand, inline reads, ring sends",
    "io-uring by hand, inline reads, direct sends",
    "reactor, io_uring",
    "reactor, io_uring, looks for 50 us before it sleeps",
    "reactor, epoll",
    "reactor, epoll, looks for 50 us before it sleeps",
];

/// How long a reactor looks for work where it does.
const SPIN: Duration = Duration::from_micros(50);

/// Connections and depth of each.
const LOADS: [(usize, usize); 4] = [(1, 1), (1, 32), (8, 1), (8, 32)];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", name, path] => serve(name, Path::new(path)),
        ["writes"] => {
            let folder = tempfile::tempdir_in(".")?; // a real file system, not a tmpfs
            let path = folder.path().join("blocks");
            protocol::write_file(&path)?;
            writes::compare(&path, 5)
        }
        [] => compare(5, Duration::from_millis(600)),
        [rounds] => compare(rounds.parse()?, Duration::from_millis(600)),
        [rounds, seconds] => compare(rounds.parse()?, Duration::from_secs_f64(seconds.parse()?)),
        _ => bail!("usage: dataplane-bench [ROUNDS [SECONDS]] | writes"),
    }
}

/// The child: serves until its standard input closes, then says how much CPU it used.
fn serve(name: &str, path: &Path) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        println!("{}", cpu.tv_sec * 1_000_000_000 + cpu.tv_nsec);
        let _ = std::io::stdout().flush();
        std::process::exit(0);
    });
    let raw = |ring_read, ring_send| Mode {
        ring_read,
        ring_send,
    };
    match SERVERS.iter().position(|&server| server == name) {
        Some(0) => server_tokio::serve(listener, path, false),
        Some(1) => server_tokio::serve(listener, path, true),
        Some(2) => server_compio::serve(listener, path, false),
        Some(3) => server_compio::serve(listener, path, true),
        Some(4) => server_raw::serve(listener, path, raw(true, true)),
        Some(5) => server_raw::serve(listener, path, raw(false, true)),
        Some(6) => server_raw::serve(listener, path, raw(false, false)),
        Some(7) => server_reactor::serve(listener, path, BackendChoice::IoUring, Duration::ZERO),
        Some(8) => server_reactor::serve(listener, path, BackendChoice::IoUring, SPIN),
        Some(9) => server_reactor::serve(listener, path, BackendChoice::Epoll, Duration::ZERO),
        Some(10) => server_reactor::serve(listener, path, BackendChoice::Epoll, SPIN),
        _ => bail!("no server is called {name}"),
    }
}

/// One run: answers a second, and microseconds of the server's CPU for each.
fn run(name: &str, path: &Path, load: (usize, usize), duration: Duration) -> Result<(f64, f64)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg(name)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let addr: SocketAddr = lines.next().context("no address")??.parse()?;
    let (rate, answers) = client::run(addr, load.0, load.1, duration)?;
    drop(child.stdin.take());
    let cpu_ns: f64 = lines.next().context("no CPU time")??.parse()?;
    ensure!(child.wait()?.success(), "{name} failed");
    Ok((rate, cpu_ns / 1000.0 / answers as f64))
}

fn compare(rounds: usize, duration: Duration) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("blocks");
    protocol::write_file(&path)?;
    let mut results = vec![vec![Vec::new(); LOADS.len()]; SERVERS.len()];
    for round in 0..rounds.max(1) {
        for (column, &load) in LOADS.iter().enumerate() {
            for step in 0..SERVERS.len() {
                let row = (step + round) % SERVERS.len(); // nobody always follows the same one
                results[row][column].push(run(SERVERS[row], &path, load, duration)?);
            }
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    println!(
        "Thousand answers a second / server CPU in microseconds an answer; medians of {rounds} runs.\n"
    );
    print!("| server |");
    for (connections, depth) in LOADS {
        print!(" {connections} connection(s), depth {depth} |");
    }
    println!("\n|---|{}", "---|".repeat(LOADS.len()));
    for (name, row) in SERVERS.iter().zip(&results) {
        print!("| {name} |");
        for cell in row {
            let rate = median(cell.iter().map(|run| run.0).collect());
            let cpu = median(cell.iter().map(|run| run.1).collect());
            print!(" {:.1} / {cpu:.1} |", rate / 1000.0);
        }
        println!();
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
