//! What a process costs: processor time of all its threads, and memory.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Whose processor time is read.
#[derive(Debug, Clone)]
pub enum Source {
    /// All threads of a process, those of io_uring in the kernel too.
    Process(u32),
    /// The threads of this process that are named so.
    OwnThreads(&'static str),
}

/// Processor time of each thread, in nanoseconds.
#[derive(Debug)]
pub struct CpuTime(BTreeMap<u32, u64>);

impl CpuTime {
    /// Reads the threads' times now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn read(source: &Source) -> Result<Self> {
        let (pid, name) = match source {
            Source::Process(pid) => (*pid, None),
            Source::OwnThreads(name) => (std::process::id(), Some(*name)),
        };
        let mut times = BTreeMap::new();
        let tasks = format!("/proc/{pid}/task");
        for entry in std::fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
            let path = entry?.path();
            // A thread may end between the listing and the look at it.
            let Ok(text) = std::fs::read_to_string(path.join("schedstat")) else {
                continue;
            };
            if let Some(name) = name
                && std::fs::read_to_string(path.join("comm"))
                    .unwrap_or_default()
                    .trim()
                    != name
            {
                continue;
            }
            let thread = path.file_name().and_then(|n| n.to_str()?.parse().ok());
            let time = text.split_whitespace().next().and_then(|t| t.parse().ok());
            if let (Some(thread), Some(time)) = (thread, time) {
                times.insert(thread, time);
            }
        }
        Ok(Self(times))
    }

    /// Nanoseconds used since `earlier`. The time of threads that have ended meanwhile is lost; the targets keep theirs.
    pub fn since_ns(&self, earlier: &Self) -> u64 {
        self.0
            .iter()
            .map(|(thread, time)| time.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0)))
            .sum()
    }
}

/// Resident memory of a process, in KiB.
///
/// # Errors
/// When the process is gone.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    std::fs::read_to_string(&path)?
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no VmRSS in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_threads_count_from_zero_and_old_ones_from_before() {
        let earlier = CpuTime(BTreeMap::from([(1, 100), (2, 50)]));
        let later = CpuTime(BTreeMap::from([(1, 130), (3, 7)]));
        assert_eq!(later.since_ns(&earlier), 37);
    }

    #[test]
    fn this_process_costs_something() {
        let cpu = CpuTime::read(&Source::Process(std::process::id())).unwrap();
        assert!(cpu.since_ns(&CpuTime(BTreeMap::new())) > 0);
        assert!(resident_kib(std::process::id()).unwrap() > 0);
    }
}
