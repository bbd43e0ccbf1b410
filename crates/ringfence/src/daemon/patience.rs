//! Waiting for what a daemon before us still holds.
//!
//! When a process with io_uring is killed, the kernel ends its operations, and lets go of the sockets and devices
//! they use, a moment after the process is gone. A restart right after a crash must not fail for that.

use std::time::{Duration, Instant};

use crate::failure::{Failure, FailureKind};

/// How long a start waits for devices and portals that are in use.
pub const PATIENCE: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_millis(10);

/// Tries `attempt` until it gives something other than [`FailureKind::Busy`], or `deadline` has passed.
pub fn until<T>(
    deadline: Instant,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut told = false;
    loop {
        match attempt() {
            Err(failure) if failure.kind == FailureKind::Busy && Instant::now() < deadline => {
                if !told {
                    tracing::info!(%failure, "waiting for it");
                    told = true;
                }
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_busy_is_waited_for() {
        let far = Instant::now() + Duration::from_secs(60);
        let mut left = 3;
        let result = until(far, || {
            left -= 1;
            if left > 0 {
                Err(Failure::busy("in use"))
            } else {
                Ok(left)
            }
        });
        assert_eq!(result, Ok(0));
        let result: Result<(), _> = until(far, || Err(Failure::failed("broken")));
        assert_eq!(result.map_err(|f| f.kind), Err(FailureKind::Failed));
        let now = Instant::now();
        let result: Result<(), _> = until(now, || Err(Failure::busy("in use")));
        assert_eq!(result.map_err(|f| f.kind), Err(FailureKind::Busy));
    }
}
