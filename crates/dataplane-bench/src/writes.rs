//! Random 4 KiB writes into the page cache, without a network: what handing a write to another thread costs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use reactor::{BackendChoice, Config, FileDevice, OpenOptions, spawn_local};
use rustix::time::{ClockId, clock_gettime};
use volume::block_device::{BlockDevice, aligned_buffer};

use crate::protocol::{BLOCK_BYTES, BLOCKS};

/// Writes of one run.
const WRITES: u64 = 20_000;

/// Prints microseconds and CPU microseconds of a write at depth 1 and 32.
pub fn compare(path: &Path, rounds: usize) -> Result<()> {
    println!("Microseconds a write / CPU microseconds a write; medians of {rounds} runs.\n");
    println!("| way | depth 1 | depth 32 |\n|---|---|---|");
    let mut plain = Vec::new();
    let mut devices = vec![Vec::new(); 4];
    for _ in 0..rounds {
        plain.push(timed(|| calling_thread(path))?);
        for (at, (backend, depth)) in [
            (BackendChoice::IoUring, 1),
            (BackendChoice::IoUring, 32),
            (BackendChoice::Epoll, 1),
            (BackendChoice::Epoll, 32),
        ]
        .into_iter()
        .enumerate()
        {
            devices[at].push(timed(|| device(path, backend, depth))?);
        }
    }
    let cell = |runs: &[(f64, f64)]| {
        let wall = crate::median(runs.iter().map(|run| run.0).collect());
        let cpu = crate::median(runs.iter().map(|run| run.1).collect());
        format!("{wall:.1} / {cpu:.1}")
    };
    println!("| pwrite on the calling thread | {} | |", cell(&plain));
    for (name, runs) in ["io_uring", "epoll"].iter().zip(devices.chunks(2)) {
        println!(
            "| reactor, {name} | {} | {} |",
            cell(&runs[0]),
            cell(&runs[1])
        );
    }
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let (start, cpu_start) = (Instant::now(), cpu());
    work()?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / WRITES as f64;
    Ok((each(start.elapsed()), each(cpu() - cpu_start)))
}

fn offset(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BLOCKS * BLOCK_BYTES as u64
}

fn calling_thread(path: &Path) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    for number in 0..WRITES {
        file.write_all_at(&[7; BLOCK_BYTES], offset(number))?;
    }
    Ok(())
}

fn device(path: &Path, backend: BackendChoice, depth: u64) -> Result<()> {
    let config = Config {
        backend,
        ..Config::default()
    };
    let device = Arc::new(FileDevice::open(path, OpenOptions::default())?);
    reactor::block_on(&config, async move {
        let tasks: Vec<_> = (0..depth)
            .map(|lane| {
                let device = device.clone();
                spawn_local(async move {
                    for number in (lane..WRITES).step_by(depth as usize) {
                        let data = aligned_buffer(BLOCK_BYTES).freeze();
                        device.write(offset(number), data).await?;
                    }
                    std::io::Result::Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })?
}
