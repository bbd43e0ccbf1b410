//! One run of a workload against one target.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::epoll;

use super::process_cost::{CpuTime, Source};
use super::session::{Pattern, Session};

const WARM_UP: Duration = Duration::from_millis(200);

/// Where a target is reached, and whose time it takes.
#[derive(Debug, Clone)]
pub struct Subject {
    pub portal: SocketAddr,
    pub name: String,
    pub lun: u16,
    pub cost: Source,
}

/// What a run has shown.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Commands a second.
    pub per_second: f64,
    /// The target's processor time for a command, in microseconds.
    pub cpu_us: f64,
    /// The client's processor time for a command, in microseconds.
    pub client_cpu_us: f64,
}

/// Runs `pattern` in `sessions` sessions for `duration`.
///
/// # Errors
/// When the target refuses a command or goes away.
pub fn run(
    subject: &Subject,
    pattern: Pattern,
    sessions: u32,
    duration: Duration,
) -> Result<Sample> {
    let mut sessions: Vec<Session> = (1..=sessions)
        .map(|index| Session::login(subject.portal, &subject.name, subject.lun, index, pattern))
        .collect::<Result<_>>()?;
    for session in &mut sessions {
        session.start()?;
    }
    drive(&mut sessions, WARM_UP)?;
    let cpu = CpuTime::read(&subject.cost)?;
    let own = own_cpu_ns();
    let done: u64 = sessions.iter().map(Session::completed).sum();
    let start = Instant::now();
    drive(&mut sessions, duration)?;
    let elapsed = start.elapsed();
    let own = own_cpu_ns() - own;
    let cpu = CpuTime::read(&subject.cost)?.since_ns(&cpu);
    let done = sessions.iter().map(Session::completed).sum::<u64>() - done;
    for session in &mut sessions {
        session.finish()?;
    }
    let done = done.max(1) as f64;
    Ok(Sample {
        per_second: done / elapsed.as_secs_f64(),
        cpu_us: cpu as f64 / 1000.0 / done,
        client_cpu_us: own as f64 / 1000.0 / done,
    })
}

fn drive(sessions: &mut [Session], duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    if let [session] = sessions {
        while Instant::now() < end {
            session.turn()?;
        }
        return Ok(());
    }
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, session) in sessions.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, &session.stream, data, epoll::EventFlags::IN)?;
    }
    let mut events = Vec::with_capacity(sessions.len());
    while Instant::now() < end {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            // Level-triggered: one read does not block.
            sessions[event.data.u64() as usize].turn()?;
        }
    }
    Ok(())
}

fn own_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
