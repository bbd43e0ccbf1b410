//! `ringfence job ...`, and waiting for the jobs that other commands start.

use clap::{Args, Subcommand};
use serde_json::json;
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use super::output::{fields, names, table};
use super::progress::{Meter, duration, rounded};
use super::{Context, pick};
use crate::control::client::{Client, unexpected};
use crate::control::model::{Job, JobEnd};
use crate::control::protocol::{Answer, Frame, JobAction, JobName, Request};
use crate::failure::{Failure, FailureKind};
use crate::names::object_name;
use crate::size::{HumanSize, parse_size_not_zero};

/// The exit code of a process that Ctrl-C has ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// The commands on jobs.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A job is work on a volume that takes long: a migration, a new mirror, the evacuation or the
replacement of a device. It belongs to the daemon: it goes on when the command that began it is
ended, and after a restart. A volume has one job at a time. 'resync' is what the daemon does by
itself when a copy has missed something; it is listed here too."
)]
pub enum JobCommand {
    /// List what is under way
    List,
    /// Show the job of a volume
    Show(VolumeArgs),
    /// Wait for the job of a volume and show how far it is
    Wait(VolumeArgs),
    /// Stop the job of a volume for a while
    Pause(VolumeArgs),
    /// Let the job of a volume go on
    Resume(VolumeArgs),
    /// Give the job of a volume up: the volume is as it was before
    Cancel(VolumeArgs),
    /// Limit the speed of a job while it runs
    Rate(RateArgs),
}

/// A job by its volume.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub volume: String,
}

/// `job rate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence job rate shared 200M      at most 200 MiB a second
  ringfence job rate shared auto      as fast as it goes; it gives way to initiators by itself")]
pub struct RateArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub volume: String,
    /// Bytes per second (K, M, G count in 1024s), or 'auto'
    #[arg(value_parser = rate_or_auto)]
    pub rate: Rate,
}

/// The value of `job rate`: bytes per second, or none for `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

fn rate_or_auto(text: &str) -> Result<Rate, String> {
    match text {
        "auto" => Ok(Rate(None)),
        _ => rate(text).map(|rate| Rate(Some(rate))),
    }
}

/// Parses bytes per second; a trailing `/s` is fine.
fn rate(text: &str) -> Result<u64, String> {
    parse_size_not_zero(text.strip_suffix("/s").unwrap_or(text))
}

/// The options of every command that starts a job.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Copy at most this much a second, like 200M [default: as fast as it goes, giving way to initiators]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub rate: Option<u64>,
    /// Return at once and let it go on: 'ringfence job wait VOLUME' waits for it later
    #[arg(long)]
    pub detach: bool,
}

/// Carries a job command out.
pub fn run(context: &Context, command: JobCommand) -> Result<(), Failure> {
    match command {
        JobCommand::List => {
            let jobs = context.ask_for(Request::JobList, pick!(Answer::Jobs))?;
            context.output.show(&jobs, |jobs| list(jobs))
        }
        JobCommand::Show(VolumeArgs { volume }) => {
            let job = context.ask_for(Request::JobShow { volume }, pick!(Answer::Job))?;
            context.output.show(&job, describe)
        }
        JobCommand::Wait(VolumeArgs { volume }) => {
            let request = Request::JobShow {
                volume: volume.clone(),
            };
            let job = context.ask_for(request, pick!(Answer::Job))?;
            wait(context, &[job])
        }
        JobCommand::Pause(VolumeArgs { volume }) => {
            steer(context, volume, JobAction::Pause, "is paused")
        }
        JobCommand::Resume(VolumeArgs { volume }) => {
            steer(context, volume, JobAction::Resume, "goes on")
        }
        JobCommand::Cancel(VolumeArgs { volume }) => {
            steer(context, volume, JobAction::Cancel, "is cancelled")
        }
        JobCommand::Rate(RateArgs { volume, rate }) => {
            let limit = rate.0.map_or_else(
                || "has no limit".to_owned(),
                |rate| format!("is limited to {}/s", HumanSize(rate)),
            );
            steer(context, volume, JobAction::Rate(rate.0), &limit)
        }
    }
}

/// Does `action` with the job of `volume`, and says that it `done`.
pub fn steer(
    context: &Context,
    volume: String,
    action: JobAction,
    done: &str,
) -> Result<(), Failure> {
    let job = context.ask_for(Request::JobControl { volume, action }, pick!(Answer::Job))?;
    context
        .output
        .show(&job, |job| format!("{} of {} {done}", job.job, job.volume))
}

/// Goes on after a command has started `jobs`: waits for them, or with `detach` says what was begun.
pub fn started(context: &Context, jobs: &[Job], detach: bool) -> Result<(), Failure> {
    started_or(context, jobs, detach, "nothing to do")
}

/// The same, with what is said where there was nothing to do.
pub fn started_or(
    context: &Context,
    jobs: &[Job],
    detach: bool,
    nothing: &str,
) -> Result<(), Failure> {
    if jobs.is_empty() {
        return context
            .output
            .show(&json!({ "jobs": [] }), |_| nothing.to_owned());
    }
    if !detach {
        return wait(context, jobs);
    }
    context.output.show(&json!({ "jobs": jobs }), |_| {
        let lines: Vec<String> = jobs
            .iter()
            .map(|job| {
                format!(
                    "{} of {} goes on by itself; wait for it with: ringfence job wait {}",
                    job.job, job.volume, job.volume
                )
            })
            .collect();
        lines.join("\n")
    })
}

/// Waits for `jobs` and shows how far they are.
pub fn wait(context: &Context, jobs: &[Job]) -> Result<(), Failure> {
    if jobs.is_empty() {
        return context
            .output
            .show(&json!({ "jobs": [] }), |_| "nothing to do".to_owned());
    }
    let volumes: Vec<&str> = jobs.iter().map(|job| job.volume.as_str()).collect();
    let left = format!(
        "{} of {} goes on by itself; 'ringfence job list' shows how far it is, 'ringfence job cancel VOLUME' gives it up",
        jobs.first().map_or("it", |job| job.job.as_str()),
        volumes.join(", ")
    );
    leave_on_interrupt(left.clone())?;
    let request = Request::JobWait {
        jobs: jobs
            .iter()
            .map(|job| JobName {
                volume: job.volume.clone(),
                id: job.id.clone(),
            })
            .collect(),
    };
    let mut meter = Meter::new(context.output);
    let mut shown = Ok(());
    let answer = Client::connect(&context.state)?
        .request(request, |frame| {
            if let Frame::Progress(progress) = frame {
                shown = meter.show(progress);
            }
            shown.is_ok()
        })
        .map_err(|failure| match failure.kind {
            FailureKind::Unreachable => failure.advise(format!("once the daemon runs, {left}")),
            _ => failure,
        })?;
    shown?;
    meter.end();
    let ends = match answer {
        Answer::JobEnds(ends) => ends,
        other => return Err(unexpected(&other)),
    };
    if let Some(failure) = ends.iter().find_map(not_done) {
        return Err(failure);
    }
    context.output.line(&json!({ "jobs": ends }), || {
        let lines: Vec<String> = ends
            .iter()
            .map(|end| format!("{} of {} done", end.job, end.volume))
            .collect();
        lines.join("\n")
    })
}

fn not_done(end: &JobEnd) -> Option<Failure> {
    let JobEnd { volume, job, .. } = end;
    match end.outcome.as_str() {
        "done" => None,
        "stalled" => Some(
            Failure::failed(format!(
                "{job} of {volume} cannot go on: {}",
                end.reason.as_deref().unwrap_or("the reason is not known")
            ))
            .advise(format!(
                "it goes on by itself when that is put right ('ringfence device online NAME' brings a device back); 'ringfence job cancel {volume}' gives it up"
            )),
        ),
        "failed" => Some(
            Failure::failed(format!(
                "{job} of {volume} was not possible: {}",
                end.reason.as_deref().unwrap_or("the reason is not known")
            ))
            .advise("the volume is as it was before"),
        ),
        outcome => Some(Failure::failed(format!("{job} of {volume} was {outcome}"))),
    }
}

/// From now on Ctrl-C ends this process with a word on what goes on without it.
fn leave_on_interrupt(left: String) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT])
        .map_err(|error| Failure::failed(format!("signals cannot be handled: {error}")))?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            eprintln!("\n{left}");
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(())
}

fn list(jobs: &[Job]) -> String {
    if jobs.is_empty() {
        return "nothing is under way".to_owned();
    }
    let rows = jobs.iter().map(|job| {
        vec![
            job.volume.clone(),
            job.job.clone(),
            job.state.clone(),
            format!("{}%", job.percent),
            HumanSize(job.total_bytes).to_string(),
            rate_text(job),
            job.eta_s.map_or("-".to_owned(), duration),
            names(&job.to),
        ]
    });
    table(
        &["VOLUME", "JOB", "STATE", "DONE", "OF", "RATE", "LEFT", "TO"],
        &[3, 4, 5, 6],
        rows,
    )
}

fn rate_text(job: &Job) -> String {
    job.rate_bytes_per_second.map_or("-".to_owned(), |rate| {
        format!("{}/s", HumanSize(rounded(rate)))
    })
}

/// A job in one line, for `volume show`.
pub fn in_words(job: &Job) -> String {
    let mut text = format!("{}, {}, {}%", job.job, job.state, job.percent);
    if job.state == "running" && job.rate_bytes_per_second.is_some() {
        text.push_str(&format!(", {}", rate_text(job)));
    }
    if let Some(eta_s) = job.eta_s {
        text.push_str(&format!(", {} left", duration(eta_s)));
    }
    if let Some(reason) = &job.reason {
        text.push_str(&format!(": {reason}"));
    }
    text
}

fn describe(job: &Job) -> String {
    let limit = job.limit_bytes_per_second.map_or_else(
        || "none (gives way to initiators)".to_owned(),
        |limit| format!("{}/s", HumanSize(limit)),
    );
    let mut rows = vec![
        ("Volume", job.volume.clone()),
        ("Job", job.job.clone()),
        ("State", job.state.clone()),
    ];
    rows.extend(job.reason.iter().map(|reason| ("Why", reason.clone())));
    rows.extend(job.without_copy.iter().map(|range| {
        let text = format!("{} bytes at {}", range.length_bytes, range.offset_bytes);
        ("Without copy", text)
    }));
    rows.extend(job.device.iter().map(|device| ("Device", device.clone())));
    rows.extend([
        ("To", names(&job.to)),
        (
            "Done",
            format!(
                "{} of {} ({}%)",
                HumanSize(job.done_bytes),
                HumanSize(job.total_bytes),
                job.percent
            ),
        ),
        ("Rate", rate_text(job)),
        ("Limit", limit),
        ("Left", job.eta_s.map_or("-".to_owned(), duration)),
    ]);
    fields(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            volume: "shared".to_owned(),
            id: "4f".to_owned(),
            job: "replace".to_owned(),
            device: Some("d1".to_owned()),
            to: vec!["d3".to_owned()],
            state: "running".to_owned(),
            reason: None,
            without_copy: Vec::new(),
            done_bytes: 5 << 30,
            total_bytes: 20 << 30,
            percent: 25,
            rate_bytes_per_second: Some(512 << 20),
            limit_bytes_per_second: None,
            eta_s: Some(30),
        }
    }

    #[test]
    fn jobs_in_words() {
        let stalled = Job {
            state: "stalled".to_owned(),
            reason: Some("device d1 is missing".to_owned()),
            rate_bytes_per_second: None,
            eta_s: None,
            ..job()
        };
        let text = [
            list(&[job(), stalled.clone()]),
            in_words(&job()),
            in_words(&stalled),
            describe(&job()),
        ];
        insta::assert_snapshot!(text.join("\n\n"), @r"
        VOLUME  JOB      STATE    DONE      OF       RATE  LEFT  TO
        shared  replace  running   25%  20 GiB  512 MiB/s  0:30  d3
        shared  replace  stalled   25%  20 GiB          -     -  d3

        replace, running, 25%, 512 MiB/s, 0:30 left

        replace, stalled, 25%: device d1 is missing

        Volume  shared
        Job     replace
        State   running
        Device  d1
        To      d3
        Done    5 GiB of 20 GiB (25%)
        Rate    512 MiB/s
        Limit   none (gives way to initiators)
        Left    0:30
        ");
    }

    #[test]
    fn a_job_that_did_not_end_well_is_a_failure() {
        let end = |outcome: &str| JobEnd {
            volume: "v".to_owned(),
            job: "migrate".to_owned(),
            outcome: outcome.to_owned(),
            reason: Some("x".to_owned()),
        };
        assert_eq!(not_done(&end("done")), None);
        for outcome in ["cancelled", "failed", "stalled"] {
            let failure = not_done(&end(outcome)).unwrap();
            assert_eq!(failure.kind, FailureKind::Failed);
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate_or_auto("auto"), Ok(Rate(None)));
        assert_eq!(rate_or_auto("2M"), Ok(Rate(Some(2 << 20))));
        assert_eq!(rate_or_auto("2M/s"), Ok(Rate(Some(2 << 20))));
        assert!(rate_or_auto("0").is_err());
        assert!(rate_or_auto("fast").is_err());
    }
}
