//! Programs of the fence-agents convention: options by standard input, one `key=value` a line; the exit status says it
//! all. `off`, `reboot`: 0 is done. `status`: 0 is on, 2 is off.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{MethodFailure, Options, Proof};

/// Where agents are looked for.
const DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin"];

/// How long an agent may take to say what it is.
const METADATA_LIMIT: Duration = Duration::from_secs(20);

/// How much of what an agent says is kept.
const OUTPUT_MAX_BYTES: u64 = 64 << 10;

/// How long the last words of an agent that has ended are waited for.
const OUTPUT_LIMIT: Duration = Duration::from_secs(1);

/// The exit status of `status` for a machine that is off.
const STATUS_OFF: i32 = 2;

/// How an agent ended, and the last line that it said.
struct Ended {
    status: ExitStatus,
    said: String,
}

/// The agent answers to `metadata`, and its options name no action that is not one.
pub(super) fn check(agent: &str, options: &Options) -> Result<(), MethodFailure> {
    action(options)?;
    let ended = run(agent, "metadata", &Options::new(), METADATA_LIMIT)?;
    if ended.status.success() {
        return Ok(());
    }
    Err(MethodFailure::Refused {
        what: format!("{agent} metadata"),
        reason: ended.reason(),
    })
}

/// Runs `off` and asks whether the machine is off, or `reboot`, which agents confirm themselves.
pub(super) fn fence(
    agent: &str,
    options: &Options,
    member: &str,
    limit: Duration,
) -> Result<Proof, MethodFailure> {
    let deadline = Instant::now() + limit;
    let left = || deadline.saturating_duration_since(Instant::now());
    let action = action(options)?;
    let mut options = options.clone();
    options.remove("action");
    // The name of the machine, where the operator named no other.
    if !options.contains_key("plug") && !options.contains_key("port") {
        options.insert("plug".into(), member.into());
    }
    let done = run(agent, action, &options, left())?;
    if !done.status.success() {
        return Err(MethodFailure::Refused {
            what: format!("{agent} {action}"),
            reason: done.reason(),
        });
    }
    if action == "reboot" {
        return Ok(Proof(format!("{agent} rebooted it")));
    }
    let state = run(agent, "status", &options, left())?;
    match state.status.code() {
        Some(STATUS_OFF) => Ok(Proof(format!("{agent} says that it is off"))),
        Some(0) => Err(MethodFailure::Refused {
            what: format!("{agent} off"),
            reason: "it says that it is done, and that the machine is on".into(),
        }),
        _ => Err(MethodFailure::Refused {
            what: format!("{agent} status"),
            reason: state.reason(),
        }),
    }
}

/// `off`, unless the options say `reboot`.
fn action(options: &Options) -> Result<&'static str, MethodFailure> {
    match options.get("action").map(String::as_str) {
        None | Some("off") => Ok("off"),
        Some("reboot") => Ok("reboot"),
        Some(other) => Err(MethodFailure::Option(format!(
            "action={other} fences nobody: it is off (the default) or reboot"
        ))),
    }
}

/// The file of an agent.
fn find(agent: &str) -> Result<PathBuf, MethodFailure> {
    if agent.starts_with('/') {
        return Ok(PathBuf::from(agent));
    }
    let mut places = DIRECTORIES
        .iter()
        .map(|directory| PathBuf::from(directory).join(agent));
    places
        .find(|path| path.is_file())
        .ok_or_else(|| MethodFailure::NotRunnable {
            agent: agent.into(),
            reason: format!(
                "there is no such program in {}; install it (Debian: fence-agents) or give its absolute path",
                DIRECTORIES.join(", ")
            ),
        })
}

fn run(
    agent: &str,
    action: &str,
    options: &Options,
    limit: Duration,
) -> Result<Ended, MethodFailure> {
    let path = find(agent)?;
    let not_runnable = |error: std::io::Error| MethodFailure::NotRunnable {
        agent: agent.into(),
        reason: error.to_string(),
    };
    // Passwords are among the options: they go by the standard input, and nothing is inherited.
    let mut child = Command::new(path)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        )
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(not_runnable)?;
    let mut input = format!("action={action}\n");
    for (key, value) in options {
        input.push_str(&format!("{key}={value}\n"));
    }
    let (said, hear) = mpsc::channel();
    if let Some(mut stdin) = child.stdin.take() {
        thread::spawn(move || {
            // An agent that ends without having read all has its reasons, which its exit status tells.
            let _ = stdin.write_all(input.as_bytes());
        });
    }
    if let Some(stdout) = child.stdout.take() {
        listen(stdout, said.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        listen(stderr, said);
    }
    let status = wait(&mut child, limit).map_err(not_runnable)?;
    // What the agent started and left behind must not act later.
    end_group(&child);
    let Some(status) = status else {
        // It was killed: this only collects it.
        child.wait().map_err(not_runnable)?;
        return Err(MethodFailure::TimedOut {
            what: format!("{agent} {action}"),
            seconds: limit.as_secs(),
        });
    };
    // Somebody who left the group may hold on to the output: what comes late is not waited for.
    let texts: Vec<String> = std::iter::from_fn(|| hear.recv_timeout(OUTPUT_LIMIT).ok()).collect();
    let last = texts
        .iter()
        .flat_map(|text| text.lines())
        .map(str::trim)
        .rfind(|line| !line.is_empty());
    Ok(Ended {
        status,
        said: last.unwrap_or_default().chars().take(300).collect(),
    })
}

/// Gives what comes out of `from` to `to` in one piece, at its end.
fn listen(from: impl Read + Send + 'static, to: mpsc::Sender<String>) {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut limited = from.take(OUTPUT_MAX_BYTES);
        // What was read until then is what there is.
        let _ = limited.read_to_end(&mut bytes);
        let _ = std::io::copy(&mut limited.into_inner(), &mut std::io::sink());
        let _ = to.send(String::from_utf8_lossy(&bytes).into_owned());
    });
}

/// Waits for the end of a child, at most `limit`; `None` when it was still running.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Ends whatever is left of the agent's process group.
fn end_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // None is left, most likely.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl Ended {
    fn reason(&self) -> String {
        match (&self.said, self.status.code()) {
            (said, Some(code)) if said.is_empty() => format!("exit status {code}"),
            (said, Some(code)) => format!("{said} (exit status {code})"),
            (_, None) => format!("it ended by a signal: {}", self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A fence agent whose machine is a file: it is on while the file is there.
    fn agent(directory: &std::path::Path, body: &str) -> String {
        let path = directory.join("fence_test");
        let state = directory.join("on");
        std::fs::write(&state, "").unwrap();
        let script = format!(
            "#!/bin/sh\nwhile IFS== read -r k v; do eval \"o_$k=\\$v\"; done\necho \"$o_action $o_plug $o_secret\" >>{dir}/log\n{body}\n\
             case $o_action in off) rm -f {on};; status) test -e {on} || exit 2;; reboot) ;; metadata) echo '<resource-agent/>';; *) exit 1;; esac\n",
            dir = directory.display(),
            on = state.display(),
        );
        // Written elsewhere and moved: a descriptor that is still open for writing somewhere would make it busy.
        let fresh = directory.join("fresh");
        std::fs::write(&fresh, script).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path.display().to_string()
    }

    fn log(directory: &std::path::Path) -> String {
        std::fs::read_to_string(directory.join("log")).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn off_counts_when_the_machine_is_off() {
        let directory = tempfile::tempdir().unwrap();
        let agent = agent(directory.path(), "");
        let options = Options::from([("secret".into(), "a=b c".into())]);
        check(&agent, &options).unwrap();
        let proof = fence(&agent, &options, "vm1", LONG).unwrap();
        assert!(proof.0.contains("off"), "{proof:?}");
        assert_eq!(
            log(directory.path()),
            "metadata  \noff vm1 a=b c\nstatus vm1 a=b c\n"
        );
    }

    #[test]
    fn off_does_not_count_while_the_machine_is_on() {
        let directory = tempfile::tempdir().unwrap();
        let agent = agent(directory.path(), "test $o_action = off && exit 0");
        let failure = fence(&agent, &Options::new(), "vm1", LONG).unwrap_err();
        assert!(
            failure.to_string().contains("the machine is on"),
            "{failure}"
        );
    }

    #[test]
    fn failures_say_what_the_agent_said() {
        let directory = tempfile::tempdir().unwrap();
        let agent = agent(
            directory.path(),
            "test $o_action = off && { echo no power here >&2; exit 1; }",
        );
        let failure = fence(&agent, &Options::new(), "vm1", LONG)
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains("no power here (exit status 1)"),
            "{failure}"
        );
    }

    #[test]
    fn reboot_and_plug_are_the_operators_to_choose() {
        let directory = tempfile::tempdir().unwrap();
        let agent = agent(directory.path(), "");
        let options = Options::from([
            ("action".into(), "reboot".into()),
            ("plug".into(), "rack7".into()),
        ]);
        fence(&agent, &options, "vm1", LONG).unwrap();
        assert_eq!(log(directory.path()), "reboot rack7 \n");
        let on = Options::from([("action".into(), "on".into())]);
        assert!(matches!(
            fence(&agent, &on, "vm1", LONG),
            Err(MethodFailure::Option(_))
        ));
    }

    #[test]
    fn an_agent_that_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("late");
        let body = format!("(sleep 1; touch {}) & sleep 600", mark.display());
        let agent = agent(directory.path(), &body);
        let failure =
            fence(&agent, &Options::new(), "vm1", Duration::from_millis(300)).unwrap_err();
        assert!(
            matches!(failure, MethodFailure::TimedOut { .. }),
            "{failure}"
        );
        // The group is gone when the call returns: nobody is left to touch the mark.
        thread::sleep(Duration::from_millis(1500));
        assert!(!mark.exists());
    }

    #[test]
    fn agents_that_are_not_there_are_said_so_at_once() {
        let failure = check("fence_of_nobody", &Options::new())
            .unwrap_err()
            .to_string();
        assert!(failure.contains("install it"), "{failure}");
        assert!(matches!(
            check("/nonexistent/agent", &Options::new()),
            Err(MethodFailure::NotRunnable { .. })
        ));
    }
}
