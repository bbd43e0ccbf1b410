//! What a target's process has used, from /proc.

use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time of all threads that live. Nanoseconds, where `/proc/PID/stat` counts hundredths of seconds.
///
/// # Errors
/// When the process is gone.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total_ns = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text
            .split_whitespace()
            .next()
            .context("an empty schedstat")?;
        total_ns += first.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total_ns))
}

/// Anonymous memory in use: what sessions and volumes cost, without the program's own pages.
///
/// # Errors
/// When the process is gone.
pub fn anonymous_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .context("no RssAnon")?;
    Ok(line
        .split_whitespace()
        .next()
        .context("no number")?
        .parse()?)
}
