//! The operator's commands.

use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;

use crate::log;

/// A command to be run.
#[derive(Debug, Clone)]
pub struct HookRun {
    /// `won`, `lost` or `fenced`.
    pub name: &'static str,
    /// For `sh -c`; `None` when there is none.
    pub command: Option<String>,
    /// Its environment.
    pub environment: Vec<(&'static str, String)>,
}

/// Runs hooks one after another, each to its end, until there are no more.
pub fn work(hooks: &Receiver<HookRun>) {
    for hook in hooks {
        let Some(text) = &hook.command else {
            continue;
        };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]).stdin(Stdio::null());
        command.envs(hook.environment.iter().map(|(name, value)| (*name, value)));
        match command.status() {
            Ok(status) if status.success() => {
                log::line(6, &format!("on-{} has ended", hook.name));
            }
            Ok(status) => log::line(3, &format!("on-{} has failed: {status}", hook.name)),
            Err(error) => log::line(3, &format!("on-{} cannot be run: {error}", hook.name)),
        }
    }
}
