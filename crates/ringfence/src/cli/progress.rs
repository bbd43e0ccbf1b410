//! How far long operations are, on stderr for people and on stdout as lines of JSON for programs.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use serde_json::json;

use super::output::Output;
use crate::control::model::{Job, Progress};
use crate::failure::Failure;
use crate::size::HumanSize;

/// Shows progress as it comes. The operations of several volumes are shown as one.
pub struct Meter {
    output: Output,
    terminal: bool,
    /// The newest of each volume.
    newest: BTreeMap<String, Progress>,
    /// What was last told where there is no terminal: percent and state.
    told: Option<(u8, String)>,
    drawn: bool,
}

impl Meter {
    /// Shows nothing yet.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            terminal: io::stderr().is_terminal(),
            newest: BTreeMap::new(),
            told: None,
            drawn: false,
        }
    }

    /// Shows `progress`.
    pub fn show(&mut self, progress: Progress) -> Result<(), Failure> {
        if self.output.json {
            return self
                .output
                .line(&json!({ "progress": progress }), String::new);
        }
        self.newest.insert(progress.volume.clone(), progress);
        let newest = self.newest.values();
        let Some((state, percent)) = summary(newest.clone()) else {
            return Ok(());
        };
        let text = line(newest);
        let mut stderr = io::stderr().lock();
        // Without a stderr there is nobody to watch, and the operation goes on.
        let _ = if self.terminal {
            self.drawn = true;
            write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush())
        } else {
            // A log is told of every tenth, and of every change.
            let step = (percent / 10, state);
            if self.told.as_ref() == Some(&step) {
                return Ok(());
            }
            self.told = Some(step);
            writeln!(stderr, "{text}")
        };
        Ok(())
    }

    /// Takes the line away, so that what follows stands by itself.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K").and_then(|()| stderr.flush());
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
    }
}

/// The state of the one that needs most attention, and the percent of all together.
fn summary<'a>(all: impl Iterator<Item = &'a Progress> + Clone) -> Option<(String, u8)> {
    let state = ["stalled", "paused", "running"]
        .into_iter()
        .find(|state| all.clone().any(|progress| progress.state == *state))?;
    let (done, total) = bytes(all);
    Some((state.to_owned(), Job::percent(done, total)))
}

fn bytes<'a>(all: impl Iterator<Item = &'a Progress>) -> (u64, u64) {
    all.fold((0, 0), |(done, total): (u64, u64), progress| {
        (
            done.saturating_add(progress.done_bytes),
            total.saturating_add(progress.total_bytes),
        )
    })
}

/// `migrate of shared: 43% of 20 GiB, 512 MiB/s, 0:23 left`.
fn line<'a>(all: impl Iterator<Item = &'a Progress> + Clone) -> String {
    let Some((state, percent)) = summary(all.clone()) else {
        return String::new();
    };
    let (_, total) = bytes(all.clone());
    let names: Vec<&str> = all.clone().map(|p| p.volume.as_str()).collect();
    let job = all.clone().next().map_or("", |p| p.job.as_str());
    let of = match names.as_slice() {
        [one] => (*one).to_owned(),
        many => format!("{} volumes", many.len()),
    };
    let mut text = format!("{job} of {of}: {percent}% of {}", HumanSize(total));
    let rates = all.clone().filter_map(|p| p.rate_bytes_per_second);
    let rate: u64 = rates.fold(0, u64::saturating_add);
    if state != "running" {
        text.push_str(&format!(", {state}"));
    } else if rate > 0 {
        text.push_str(&format!(", {}/s", HumanSize(rounded(rate))));
        // They run beside each other: the longest counts.
        if let Some(eta_s) = all.filter_map(|p| p.eta_s).max() {
            text.push_str(&format!(", {} left", duration(eta_s)));
        }
    }
    text
}

/// A rate without digits that change faster than one can read.
pub fn rounded(rate_bytes_per_second: u64) -> u64 {
    let shift = match rate_bytes_per_second {
        0..0x10_0000 => 10,
        0x10_0000.. => 20,
    };
    match (rate_bytes_per_second >> shift) << shift {
        0 => rate_bytes_per_second,
        whole => whole,
    }
}

/// A time in seconds as `M:SS` or `H:MM:SS`.
pub fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(volume: &str, state: &str, done: u64, rate: Option<u64>) -> Progress {
        Progress {
            volume: volume.to_owned(),
            job: "evacuate".to_owned(),
            state: state.to_owned(),
            done_bytes: done << 20,
            total_bytes: 1 << 30,
            rate_bytes_per_second: rate,
            eta_s: rate.map(|rate| ((1024 - done) << 20) / rate),
        }
    }

    #[test]
    fn one_line_for_one_and_for_many() {
        let one = progress("a", "running", 512, Some((10 << 20) + 77));
        let new = progress("b", "running", 0, None);
        let paused = progress("b", "paused", 256, None);
        let lines = [
            line([&one].into_iter()),
            line([&new].into_iter()),
            line([&one, &new].into_iter()),
            line([&one, &paused].into_iter()),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        evacuate of a: 50% of 1 GiB, 10 MiB/s, 0:51 left
        evacuate of b: 0% of 1 GiB
        evacuate of 2 volumes: 25% of 2 GiB, 10 MiB/s, 0:51 left
        evacuate of 2 volumes: 37% of 2 GiB, paused
        ");
    }

    #[test]
    fn times_and_rates() {
        assert_eq!(duration(0), "0:00");
        assert_eq!(duration(59), "0:59");
        assert_eq!(duration(3599), "59:59");
        assert_eq!(duration(36_610), "10:10:10");
        assert_eq!(rounded(3), 3);
        assert_eq!(rounded(2047), 1024);
        assert_eq!(rounded((5 << 20) + 1), 5 << 20);
    }
}
