//! `ringfence demo`: the main job, end to end, in a terminal.
//!
//! A real daemon (this binary as a child process) serves a volume on two file-backed devices; three initiators log
//! in over real iSCSI, register, write, are split, and one is fenced; the daemon is killed and the keys are found
//! again. Nothing is faked: a step that does not come out as told fails the demo.

mod daemon;
mod narrator;
mod stage;
mod story;
mod vm;

use std::time::Instant;

use crate::cli::output::Output;
use crate::failure::Failure;
use narrator::Narrator;
use stage::Stage;

/// Runs the demo, pausing between its chapters when `paced`.
pub fn run(output: Output, paced: bool) -> Result<(), Failure> {
    if output.json {
        return Err(Failure::usage("the demo is told in words, it has no JSON"));
    }
    let begun = Instant::now();
    let narrator = Narrator::new(paced);
    let stage = Stage::new()?;
    story::tell(&narrator, &stage)?;
    drop(stage);
    narrator.say(&format!(
        "\nDone in {:.1} s; the daemon has ended and its files are removed.\nYour turn: ringfence --help, and docs/operators/README.md.",
        begun.elapsed().as_secs_f32()
    ));
    Ok(())
}
