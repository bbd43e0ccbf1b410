//! The operator's commands.

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::log;

/// How often a command that runs is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a command that was killed is waited for: one that hangs in the kernel does not end.
const GRACE: Duration = Duration::from_secs(1);

/// A command to be run.
#[derive(Debug, Clone)]
pub struct HookRun {
    /// `won`, `lost` or `fenced`.
    pub name: &'static str,
    /// For `sh -c`; `None` when there is none.
    pub command: Option<String>,
    /// Its environment.
    pub environment: Vec<(&'static str, String)>,
    /// The member has lost or is fenced.
    pub is_loss: bool,
    /// Where `b` is written when the command did not succeed, for a reboot at once.
    pub reboot: Option<PathBuf>,
}

/// How a command ended.
enum End {
    Exit(ExitStatus),
    /// Its time was up.
    TooLong,
    /// The member has lost meanwhile.
    Overtaken,
}

/// Runs hooks one after another, each for `limit` at most, until there are no more. That of a loss does not wait for what
/// was to be done before it: the hook that runs is killed, and those that wait are left out.
pub fn work(hooks: &Receiver<HookRun>, limit: Duration) {
    let mut worker = Worker {
        hooks,
        limit,
        waiting: VecDeque::new(),
    };
    while let Some(hook) = worker.next() {
        let Some(text) = &hook.command else {
            continue;
        };
        let fault = match worker.run(text, &hook) {
            Ok(End::Exit(status)) if status.success() => {
                log::line(6, &format!("on-{} has ended", hook.name));
                continue;
            }
            Ok(End::Exit(status)) => format!("has failed: {status}"),
            Ok(End::TooLong) => format!("was killed: it took longer than {limit:?}"),
            Ok(End::Overtaken) => "was killed: this member has lost".to_owned(),
            Err(error) => format!("cannot be run: {error}"),
        };
        log::line(3, &format!("on-{} {fault}", hook.name));
        if let Some(trigger) = &hook.reboot {
            reboot(trigger);
        }
    }
}

/// Has the kernel reboot at once. If that does not reset the machine, the watchdog does.
pub fn reboot(trigger: &std::path::Path) {
    if let Err(error) = std::fs::write(trigger, "b") {
        log::line(3, &format!("no reboot by {}: {error}", trigger.display()));
    }
}

struct Worker<'a> {
    hooks: &'a Receiver<HookRun>,
    limit: Duration,
    waiting: VecDeque<HookRun>,
}

impl Worker<'_> {
    fn next(&mut self) -> Option<HookRun> {
        while let Ok(hook) = self.hooks.try_recv() {
            self.queue(hook);
        }
        let waiting = self.waiting.pop_front();
        waiting.or_else(|| self.hooks.recv().ok())
    }

    fn queue(&mut self, hook: HookRun) {
        if hook.is_loss {
            self.waiting.retain(|earlier| earlier.is_loss);
        }
        self.waiting.push_back(hook);
    }

    fn run(&mut self, text: &str, hook: &HookRun) -> io::Result<End> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]).stdin(Stdio::null());
        command.envs(hook.environment.iter().map(|(name, value)| (*name, value)));
        // A group of its own, so that all of it can be killed.
        let mut child = command.process_group(0).spawn()?;
        let end = self.wait(&mut child, hook.is_loss)?;
        if !matches!(end, End::Exit(_)) {
            kill(child);
        }
        Ok(end)
    }

    fn wait(&mut self, child: &mut Child, is_loss: bool) -> io::Result<End> {
        let until = Instant::now() + self.limit;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(End::Exit(status));
            }
            match self.hooks.recv_timeout(LOOK) {
                Ok(later) => {
                    let overtakes = later.is_loss && !is_loss;
                    self.queue(later);
                    if overtakes {
                        return Ok(End::Overtaken);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK),
            }
            if Instant::now() >= until {
                return Ok(End::TooLong);
            }
        }
    }
}

/// Kills a command and all that it has started.
fn kill(mut child: Child) {
    if let Err(error) = kill_process_group(Pid::from_child(&child), Signal::KILL) {
        log::line(4, &format!("a hook cannot be killed: {error}"));
    }
    let until = Instant::now() + GRACE;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(LOOK);
    }
    // It hangs in the kernel. Nobody waits for it but this thread.
    thread::spawn(move || child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(1000);

    fn hook(name: &'static str, command: String, reboot: Option<&Path>) -> HookRun {
        HookRun {
            name,
            command: Some(command),
            environment: vec![("RINGFENCE_HOOK", name.to_owned())],
            is_loss: name != "won",
            reboot: reboot.map(Path::to_owned),
        }
    }

    /// Runs hooks to their end.
    fn run(hooks: Vec<HookRun>, limit: Duration) {
        let (sender, queue) = mpsc::channel();
        hooks
            .into_iter()
            .for_each(|hook| sender.send(hook).unwrap());
        drop(sender);
        work(&queue, limit);
    }

    #[test]
    fn they_run_in_order_and_one_that_hangs_is_killed_with_all_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let (said, trigger) = (folder.path().join("said"), folder.path().join("trigger"));
        let path = said.display();
        let say = format!("echo $RINGFENCE_HOOK >> {path}");
        let hang = format!("(sleep 1000; echo late >> {path}) & echo pid $! >> {path}; wait");
        run(
            vec![
                hook("won", say.clone(), None),
                hook("won", hang, None),
                hook("won", say, None),
            ],
            Duration::from_millis(500),
        );
        let said = std::fs::read_to_string(&said).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert!(matches!(lines.as_slice(), ["won", _, "won"]), "{lines:?}");
        let pid: i32 = lines[1].trim_start_matches("pid ").parse().unwrap();
        // A killed process is gone, or waits to be reaped.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim()
            .chars()
            .next();
        assert!(matches!(state, None | Some('Z' | 'X')), "{stat}");
        assert!(!trigger.exists());
    }

    #[test]
    fn who_has_lost_is_rebooted_unless_its_hook_has_succeeded() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            ("exit 0", false),
            ("exit 1", true),
            ("sleep 1000", true),
            ("kill -9 $$", true),
        ];
        for (number, (command, reboots)) in cases.into_iter().enumerate() {
            let trigger = folder.path().join(number.to_string());
            let hook = hook("lost", command.into(), Some(&trigger));
            run(vec![hook], Duration::from_millis(300));
            assert_eq!(trigger.exists(), reboots, "{command}");
        }
    }

    #[test]
    fn a_loss_waits_for_nothing_that_came_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let say = format!("echo $RINGFENCE_HOOK >> {}", said.display());
        let (sender, queue) = mpsc::channel();
        let worker = thread::spawn(move || work(&queue, LONG));
        sender
            .send(hook("won", format!("{say}; sleep 1000"), None))
            .unwrap();
        while !said.exists() {
            thread::sleep(LOOK);
        }
        for name in ["won", "lost", "fenced", "won"] {
            sender.send(hook(name, say.clone(), None)).unwrap();
        }
        drop(sender);
        worker.join().unwrap();
        let said = std::fs::read_to_string(&said).unwrap();
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            ["won", "lost", "fenced", "won"]
        );
    }
}
