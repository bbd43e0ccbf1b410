//! Group commit: callers that wait for a flush while one is under way share the next.

use std::future::Future;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::Event;

#[derive(Default)]
struct State {
    /// Flushes begun; the one under way, if any, has this number.
    started: u64,
    running: bool,
    /// The last flush that succeeded.
    succeeded: u64,
    /// The first failure; final.
    failed: Option<i32>,
}

/// The flushes of one device.
#[derive(Default)]
pub(super) struct GroupFlush {
    state: Mutex<State>,
    changed: Event,
}

/// Says that a flush is over, also when its future was dropped: then nobody is served by it.
struct Turn<'a> {
    group: &'a GroupFlush,
    number: u64,
    outcome: Option<Result<(), i32>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.group.lock();
            state.running = false;
            match self.outcome {
                Some(Ok(())) => state.succeeded = self.number,
                Some(Err(code)) => state.failed = Some(code),
                None => {}
            }
        }
        self.group.changed.notify(usize::MAX);
    }
}

impl GroupFlush {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain numbers, right at every point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a flush that began after this call has ended. `flush` is called by one of the callers that
    /// wait together.
    pub(super) async fn run<F>(&self, flush: impl FnOnce() -> F) -> io::Result<()>
    where
        F: Future<Output = io::Result<()>>,
    {
        let needed = self.lock().started + 1;
        let number = loop {
            let listener = self.changed.listen();
            {
                let mut state = self.lock();
                if let Some(code) = state.failed {
                    return Err(failure(code));
                }
                if state.succeeded >= needed {
                    return Ok(());
                }
                if !state.running {
                    state.running = true;
                    state.started += 1;
                    break state.started;
                }
            }
            listener.await;
        };
        let mut turn = Turn {
            group: self,
            number,
            outcome: None,
        };
        let result = flush().await;
        turn.outcome = match &result {
            Ok(()) => Some(Ok(())),
            // An error that is not the kernel's means that no flush was tried.
            Err(error) => error.raw_os_error().map(Err),
        };
        drop(turn);
        result
    }
}

fn failure(code: i32) -> io::Error {
    let cause = io::Error::from_raw_os_error(code);
    io::Error::other(format!(
        "an earlier flush failed ({cause}); written data may be lost"
    ))
}
