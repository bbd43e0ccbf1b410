//! Running other programs: one-shot commands with their output captured, and background processes that end with us.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Starts a command line from a program and its arguments.
pub fn command<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// What a finished command left behind.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; a process ended by a signal counts as 128 plus the signal's number.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Finished {
    /// Both streams, for messages.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end, whatever its exit code.
///
/// # Errors
/// When the program cannot be started or runs longer than `limit`.
pub fn finish(command: &mut Command, limit: Duration) -> Result<Finished> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let ended = wait(&mut child, limit)?;
    let Some(status) = ended else {
        child.kill()?;
        child.wait()?;
        bail!("{shown} did not finish within {} s", limit.as_secs());
    };
    let join = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    Ok(Finished {
        code: exit_code(status),
        stdout: join(stdout),
        stderr: join(stderr),
    })
}

/// Runs a command that must succeed and returns its standard output.
///
/// # Errors
/// When it cannot be started, takes longer than five minutes or exits with another code than 0; the message has its output.
pub fn run(command: &mut Command) -> Result<String> {
    run_within(command, Duration::from_secs(300))
}

/// [`run`] with a limit of the caller's.
///
/// # Errors
/// As for [`run`].
pub fn run_within(command: &mut Command, limit: Duration) -> Result<String> {
    let shown = show(command);
    let finished = finish(command, limit)?;
    ensure!(
        finished.code == 0,
        "{shown} exited with {}:\n{}",
        finished.code,
        tail(&finished.text(), 60)
    );
    Ok(finished.stdout)
}

/// Whether the command runs and exits with 0; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    let output: std::io::Result<Output> = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// A process in the background with its output in a log file. It is killed when this value is dropped, and by the
/// kernel when xtask itself is killed.
#[derive(Debug)]
pub struct Background {
    child: Child,
    log: PathBuf,
    shown: String,
}

impl Background {
    /// Starts `command`, appending its output to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be started.
    pub fn start(command: &Command, log: &Path) -> Result<Self> {
        let shown = show(command);
        let file = File::options().create(true).append(true).open(log)?;
        // setpriv asks the kernel to end the process with its parent, which takes unsafe code to do from here.
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        let child = wrapped
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {shown}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
            shown,
        })
    }

    /// The process id; `ip netns exec` and `setpriv` replace themselves, so it is that of the program itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it has ended, with the end of its log.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.shown, self.log_tail());
        }
        Ok(())
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end; returns the exit code.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<i32> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // An error means that it has ended already, which the wait below reports.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        match wait(&mut self.child, limit)? {
            Some(status) => Ok(exit_code(status)),
            None => bail!(
                "{} did not end within {} s of SIGTERM:\n{}",
                self.shown,
                limit.as_secs(),
                self.log_tail()
            ),
        }
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 40)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls `probe` every 20 ms until it returns a value.
///
/// # Errors
/// When it has returned none within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        ensure!(
            start.elapsed() < limit,
            "waited {} s in vain for {what}",
            limit.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn drain(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn show(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}
