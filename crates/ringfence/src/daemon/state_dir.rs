//! The state directory and the lock that makes its daemon the only one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::Failure;

/// The name of the lock file in the state directory. It holds the daemon's process number, for people.
pub const LOCK_NAME: &str = "lock";

/// Makes the state directory (mode 0700) if it is not there.
pub fn prepare(state: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(|error| {
        let failure = Failure::failed(format!(
            "the state directory {} cannot be made: {error}",
            state.display()
        ));
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                failure.advise("run as root, or name a directory of your own with --state DIR")
            }
            _ => failure,
        }
    })
}

/// The lock on a state directory, held as long as it lives; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the lock, or says who has it.
    pub fn take(state: &Path) -> Result<Self, Failure> {
        let path = state.join(LOCK_NAME);
        let failed = |error: io::Error| {
            Failure::failed(format!(
                "the lock {} cannot be taken: {error}",
                path.display()
            ))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(taken(state, &mut file)),
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn taken(state: &Path, file: &mut File) -> Failure {
    let mut pid = String::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(32).read_to_string(&mut pid));
    let who = match (read, pid.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!(" (pid {pid})"),
        _ => String::new(),
    };
    Failure::busy(format!(
        "another daemon{who} is running on {}",
        state.display()
    ))
    .advise("see what it serves with 'ringfence status'; for a second daemon choose another --state DIR, other devices and other portals")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_second_daemon_is_told_who_has_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        prepare(&state).unwrap();
        prepare(&state).unwrap();
        assert_eq!(
            std::fs::metadata(&state).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let lock = StateLock::take(&state).unwrap();
        let failure = StateLock::take(&state).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Busy);
        assert!(
            failure
                .message
                .contains(&format!("pid {}", std::process::id())),
            "{failure}"
        );
        drop(lock);
        StateLock::take(&state).unwrap();
    }
}
