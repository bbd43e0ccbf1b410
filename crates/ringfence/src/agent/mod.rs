//! `fence_ringfence`: an agent of the fence-agents convention over the requests of one or several heads.
//!
//! Options come as arguments, or without any as `key=value` lines on the standard input. Exit status: 0 done, 1 not done;
//! `status`: 0 on, 2 off (fenced, and proven).
//!
//! `reboot` fences and leaves it at that. To a head, fencing is the end of access, and the way back is `on` (unfencing), which only a node
//! that has started anew may ask for: given back in the same breath, what an old node had still to write would land.

mod actions;
mod metadata;
mod options;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::process::ExitCode;

use actions::{Head, Local, Remote};
use options::Options;

/// The most that is read of the standard input.
const INPUT_MAX_BYTES: u64 = 1 << 20;

/// Runs the agent on the arguments and the standard input of the process.
pub fn main() -> ExitCode {
    match run() {
        Ok(outcome) => {
            for line in &outcome.lines {
                println!("{line}");
            }
            ExitCode::from(outcome.status)
        }
        Err(message) => {
            eprintln!("fence_ringfence: {message}");
            ExitCode::from(1)
        }
    }
}

fn run() -> Result<actions::Outcome, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = if arguments.is_empty() {
        let mut input = String::new();
        std::io::stdin()
            .take(INPUT_MAX_BYTES)
            .read_to_string(&mut input)
            .map_err(|error| format!("the options cannot be read: {error}"))?;
        Options::from_lines(&input)?
    } else {
        Options::from_arguments(&arguments)?
    };
    if options.action == options::Action::Metadata {
        return Ok(actions::Outcome::said(metadata::xml()));
    }
    let mut heads: Vec<Box<dyn Head>> = Vec::new();
    if options.heads.is_empty() {
        heads.push(Box::new(Local::new(&options.state)));
    } else {
        let identity = options.identity()?;
        for address in &options.heads {
            heads.push(Box::new(Remote::new(address, &identity)?));
        }
    }
    actions::carry_out(&options, &mut heads)
}
