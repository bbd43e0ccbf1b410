//! Jobs: what is under way, steering it, and waiting for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::volume::pool::jobs::{self, JobControl, JobInfo, JobState};

use super::{Operations, explain, lock};
use crate::control::model::{ByteRange, Job, JobEnd, Progress};
use crate::control::protocol::{Frame, JobAction, JobName};
use crate::control::server::Sink;
use crate::daemon::endings::Ending;
use crate::daemon::rates::eta_s;
use crate::events::Operator;
use crate::failure::Failure;

/// How often a job that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often the one who waits is told how far it is.
const TELL: Duration = Duration::from_millis(500);

impl Operations {
    /// All jobs and resyncs by LUN.
    pub(super) fn job_list(&self) -> Result<Vec<Job>, Failure> {
        let infos = self.job_infos()?;
        let rates = lock(&self.rates);
        let jobs = infos.into_iter().map(|info| {
            let rate = rates.bytes_per_second(info.id);
            describe(info, rate)
        });
        Ok(jobs.collect())
    }

    pub(super) fn job_infos(&self) -> Result<Vec<JobInfo>, Failure> {
        let pool = Arc::clone(&self.pool);
        self.run(move || async move { pool.jobs().await })
    }

    pub(super) fn job_show(&self, volume: &str) -> Result<Job, Failure> {
        // The volume's name is checked first, for a message that fits.
        let record = self.volume(volume)?.record();
        self.job_list()?
            .into_iter()
            .find(|job| job.volume == record.name)
            .ok_or_else(|| no_job(volume))
    }

    pub(super) fn job_control(
        &self,
        volume: &str,
        action: JobAction,
        operator: &Operator,
    ) -> Result<Job, Failure> {
        self.job_show(volume)?;
        let _acting = self.audit.acting(volume, operator);
        let control = match action {
            JobAction::Pause => JobControl::Pause,
            JobAction::Resume => JobControl::Resume,
            JobAction::Cancel => JobControl::Cancel,
            JobAction::Rate(rate) => JobControl::Rate(rate),
        };
        let (pool, name) = (Arc::clone(&self.pool), volume.to_owned());
        self.run(move || async move { pool.job_control(&name, control).await })?
            .map(|info| describe(info, None))
            .map_err(|error| explain(&error))
    }

    /// Waits for `names`. Who waits may go at any time; the jobs go on.
    pub(super) fn job_wait(
        &self,
        names: &[JobName],
        sink: &mut dyn Sink,
    ) -> Result<Vec<JobEnd>, Failure> {
        let mut last: Vec<Option<Job>> = vec![None; names.len()];
        let mut ends: Vec<Option<JobEnd>> = vec![None; names.len()];
        let mut tell = Instant::now();
        loop {
            let jobs = self.job_list()?;
            for ((name, last), end) in names.iter().zip(&mut last).zip(&mut ends) {
                if end.is_some() {
                    continue;
                }
                match jobs.iter().find(|job| is(job, name)) {
                    Some(job) if job.state == "stalled" => {
                        *end = Some(ended(job, "stalled", job.reason.clone()));
                    }
                    Some(job) => *last = Some(job.clone()),
                    None => *end = Some(self.gone(name, last.as_ref())),
                }
            }
            if let Some(ends) = ends.iter().cloned().collect() {
                return Ok(ends);
            }
            if Instant::now() >= tell {
                tell = Instant::now() + TELL;
                for job in last.iter().flatten() {
                    let told = sink.send(&Frame::Progress(Progress::from(job)));
                    told.map_err(|error| Failure::failed(format!("nobody waits: {error}")))?;
                }
            }
            if sink.is_gone() {
                return Err(Failure::failed("nobody waits any more"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// How a job that is not there any more ended.
    fn gone(&self, name: &JobName, last: Option<&Job>) -> JobEnd {
        let id = name.id.parse().ok();
        let outcome = match id.and_then(|id| self.endings.of(id)) {
            Some(Ending::Cancelled) => "cancelled",
            // A resync has no ending but that there is nothing left to do.
            Some(Ending::Done) | None => "done",
        };
        JobEnd {
            volume: last.map_or(&name.volume, |last| &last.volume).clone(),
            job: last.map_or("job", |last| last.job.as_str()).to_owned(),
            outcome: outcome.to_owned(),
            reason: None,
        }
    }
}

/// A job is known by its identity, over a change of the volume's name too.
fn is(job: &Job, name: &JobName) -> bool {
    job.id == name.id
}

fn ended(job: &Job, outcome: &str, reason: Option<String>) -> JobEnd {
    JobEnd {
        volume: job.volume.clone(),
        job: job.job.clone(),
        outcome: outcome.to_owned(),
        reason,
    }
}

fn no_job(volume: &str) -> Failure {
    Failure::not_found(format!("nothing is under way on volume {volume}"))
        .advise("'ringfence job list' shows what is")
}

/// A job as the command line shows it, at `rate` bytes per second.
pub(super) fn describe(info: JobInfo, rate: Option<u64>) -> Job {
    let device = match &info.kind {
        jobs::JobName::Evacuate { device } | jobs::JobName::Replace { old: device, .. } => {
            Some(device.clone())
        }
        jobs::JobName::AddMirror | jobs::JobName::Migrate | jobs::JobName::Resync => None,
    };
    let (state, reason, ranges) = match info.state {
        JobState::Running => ("running", None, Vec::new()),
        JobState::Paused => ("paused", None, Vec::new()),
        JobState::Stalled { reason, ranges } => ("stalled", Some(reason), ranges),
    };
    let rate = rate.filter(|_| state == "running");
    let left_bytes = info.total_bytes.saturating_sub(info.done_bytes);
    Job {
        id: info.id.to_string(),
        job: info.kind.to_string(),
        device,
        to: info.to,
        state: state.to_owned(),
        reason,
        without_copy: ranges.into_iter().map(ByteRange::from).collect(),
        done_bytes: info.done_bytes,
        total_bytes: info.total_bytes,
        percent: Job::percent(info.done_bytes, info.total_bytes),
        rate_bytes_per_second: rate,
        limit_bytes_per_second: info.limit_bytes_per_second,
        eta_s: eta_s(left_bytes, rate),
        volume: info.volume,
    }
}
