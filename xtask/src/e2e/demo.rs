//! `ringfence demo`: the first thing a newcomer runs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::context::Context;
use crate::process::{command, finish};

const LIMIT: Duration = Duration::from_secs(20);

/// It ends well in under 20 seconds, tells what happens, and leaves nothing behind.
///
/// # Errors
/// When it does not.
pub fn run(context: &Context) -> Result<String> {
    let temporary = context.folder("demo")?;
    let mut demo = command(&context.ringfence()?.to_string_lossy(), ["demo"]);
    demo.env("TMPDIR", &temporary);
    let start = Instant::now();
    let finished = finish(&mut demo, LIMIT)?;
    let seconds = start.elapsed().as_secs_f32();
    ensure!(
        finished.code == 0,
        "exit code {}:\n{}",
        finished.code,
        finished.text()
    );
    let told = finished.stdout.to_lowercase();
    for word in [
        "register",
        "preempt",
        "reservation conflict",
        "kill -9",
        "key",
    ] {
        ensure!(
            told.contains(word),
            "the demo says nothing of '{word}':\n{}",
            finished.stdout
        );
    }
    let left: BTreeSet<PathBuf> = std::fs::read_dir(&temporary)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    ensure!(left.is_empty(), "the demo left {left:?} behind");
    Ok(format!("{seconds:.1} s"))
}
