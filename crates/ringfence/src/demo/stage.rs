//! What the demo must not leave behind: a temporary directory and a daemon. Both go when the demo ends, fails, or
//! is interrupted.

use std::path::PathBuf;
use std::process::{Child, ChildStdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

use crate::failure::Failure;

struct Props {
    directory: Option<TempDir>,
    daemon: Option<Child>,
}

impl Props {
    fn clear(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if let Some(directory) = self.directory.take() {
            let path = directory.path().to_owned();
            if let Err(error) = directory.close() {
                eprintln!("ringfence: {} was left behind: {error}", path.display());
            }
        }
    }
}

/// The directory and the daemon of a demo.
pub struct Stage {
    path: PathBuf,
    props: Arc<Mutex<Props>>,
}

fn lock(props: &Mutex<Props>) -> MutexGuard<'_, Props> {
    // Each change of the props is one assignment.
    props.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// Makes the directory, and sees to it that signals clear the stage before they end the process.
    pub fn new() -> Result<Self, Failure> {
        let cannot =
            |error: std::io::Error| Failure::failed(format!("the demo cannot begin: {error}"));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(cannot)?;
        let directory = tempfile::Builder::new()
            .prefix("ringfence-demo-")
            .tempdir()
            .map_err(cannot)?;
        let path = directory.path().to_owned();
        let props = Arc::new(Mutex::new(Props {
            directory: Some(directory),
            daemon: None,
        }));
        let watched = Arc::clone(&props);
        std::thread::Builder::new()
            .name("demo-signals".to_owned())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    let mut props = lock(&watched);
                    props.clear();
                    // The lock is kept, so that no new daemon comes.
                    std::process::exit(128 + signal);
                }
            })
            .map_err(cannot)?;
        Ok(Self { path, props })
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes charge of a daemon that was just spawned; gives its output.
    pub fn adopt(&self, mut daemon: Child) -> Option<ChildStdout> {
        let stdout = daemon.stdout.take();
        lock(&self.props).daemon = Some(daemon);
        stdout
    }

    /// `kill -9` for the daemon.
    pub fn kill_daemon(&self) -> Result<(), Failure> {
        let mut daemon = self.release()?;
        daemon
            .kill()
            .and_then(|()| daemon.wait())
            .map(|_| ())
            .map_err(|error| Failure::failed(format!("the daemon cannot be killed: {error}")))
    }

    /// SIGTERM for the daemon, which must then exit with 0.
    pub fn stop_daemon(&self) -> Result<(), Failure> {
        let mut daemon = self.release()?;
        let failed = |why: String| Failure::failed(format!("the daemon did not stop well: {why}"));
        kill_process(Pid::from_child(&daemon), Signal::TERM)
            .map_err(|error| failed(error.to_string()))?;
        let status = daemon.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(status.to_string()))
        }
    }

    /// Gives the daemon up. Should a signal end the demo now, the kernel ends the daemon (`--exit-with-parent`).
    fn release(&self) -> Result<Child, Failure> {
        lock(&self.props)
            .daemon
            .take()
            .ok_or_else(|| Failure::failed("there is no daemon"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        lock(&self.props).clear();
    }
}
