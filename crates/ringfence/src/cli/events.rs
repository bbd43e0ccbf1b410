//! `ringfence events`.

use clap::Args;
use jiff::Timestamp;

use super::Context;
use super::output::Output;
use crate::control::client::Client;
use crate::control::protocol::{Frame, Request};
use crate::events::reader::Reader;
use crate::events::writer::Limits;
use crate::events::{Event, LOG_NAME};
use crate::failure::{Failure, FailureKind};
use crate::time::parse_since;

/// `events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence events --since 10m
  ringfence events --since 2026-11-23T14:30:00Z --json | jq 'select(.event == \"fenced\")'
  ringfence events --follow

With --json every event is one line. The log is STATE/events.jsonl and outlives the daemon; without
--follow it is shown also when no daemon runs.")]
pub struct EventsArgs {
    /// Go on with what happens, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// Only from this time on: RFC 3339, or how long ago (90s, 10m, 2h30m, 7d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
}

fn since(text: &str) -> Result<Timestamp, String> {
    parse_since(text, Timestamp::now()).map_err(|error| error.to_string())
}

/// Carries `events` out.
pub fn run(context: &Context, args: &EventsArgs) -> Result<(), Failure> {
    let output = context.output;
    let mut client = match Client::connect(&context.state) {
        Ok(client) => client,
        Err(failure) if args.follow || failure.kind != FailureKind::Unreachable => {
            return Err(failure);
        }
        Err(failure) => return offline(context, args, failure),
    };
    let mut shown = Ok(());
    let request = Request::Events {
        since: args.since,
        follow: args.follow,
    };
    client.request(request, |frame| {
        if let Frame::Event(event) = frame {
            shown = show(output, &event);
        }
        shown.is_ok()
    })?;
    shown
}

fn offline(context: &Context, args: &EventsArgs, no_daemon: Failure) -> Result<(), Failure> {
    if !context.state.join(LOG_NAME).exists() {
        return Err(no_daemon);
    }
    let output = context.output;
    Reader::new(&context.state, Limits::default().rotated_files, args.since)
        .poll(|event| show(output, &event).map_err(OfflineError::Shown))
        .map_err(|error| match error {
            OfflineError::Shown(failure) => failure,
            OfflineError::Io(error) => Failure::failed(format!(
                "the event log in {} cannot be read: {error}",
                context.state.display()
            )),
        })
}

enum OfflineError {
    Shown(Failure),
    Io(std::io::Error),
}

impl From<std::io::Error> for OfflineError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn show(output: Output, event: &Event) -> Result<(), Failure> {
    output.line(event, || event.to_string())
}
