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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::{BackendChoice, Config, sleep, spawn_local, timeout};

    fn run(test: impl Future<Output = ()> + 'static) {
        let config = Config {
            backend: BackendChoice::Epoll,
            ..Config::default()
        };
        crate::block_on(&config, test).unwrap();
    }

    /// Callers that come while a flush is under way wait for one more, and share it.
    #[test]
    fn waiting_callers_share_the_next_flush() {
        run(async {
            let group = Rc::new(GroupFlush::default());
            let (begun, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let tasks: Vec<_> = (0..10)
                .map(|number| {
                    let (group, begun, ended) = (group.clone(), begun.clone(), ended.clone());
                    spawn_local(async move {
                        // All but the first come in the middle of the first flush.
                        sleep(Duration::from_millis(if number == 0 { 0 } else { 5 })).await;
                        let begun_before = begun.get();
                        let flush = || async {
                            begun.set(begun.get() + 1);
                            sleep(Duration::from_millis(20)).await;
                            ended.set(ended.get() + 1);
                            Ok(())
                        };
                        group.run(flush).await.unwrap();
                        assert!(
                            ended.get() > begun_before,
                            "served by a flush that began before the call"
                        );
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(begun.get(), 2);
        });
    }

    /// After a failure there is no success, whoever asks.
    #[test]
    fn failure_is_final() {
        run(async {
            let group = GroupFlush::default();
            group.run(|| async { Ok(()) }).await.unwrap();
            let error = io::Error::from_raw_os_error(5);
            let failed = group.run(|| async { Err(error) }).await;
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(5));
            let later = group.run(|| async { panic!("must not be tried") }).await;
            assert!(
                later
                    .unwrap_err()
                    .to_string()
                    .contains("an earlier flush failed")
            );
        });
    }

    /// A caller that leaves in the middle of its flush lets the others go on with one of their own.
    #[test]
    fn dropped_flush_serves_nobody_and_blocks_nobody() {
        run(async {
            let group = Rc::new(GroupFlush::default());
            let forever = group.run(std::future::pending);
            let waiting = {
                let group = group.clone();
                spawn_local(async move {
                    sleep(Duration::from_millis(1)).await;
                    group.run(|| async { Ok(()) }).await
                })
            };
            let given_up = timeout(Duration::from_millis(10), forever).await;
            assert!(given_up.is_err());
            waiting.await.unwrap().unwrap();
        });
    }

    /// An error of our own (no reactor) says nothing about the device.
    #[test]
    fn error_without_a_kernel_code_is_not_final() {
        run(async {
            let group = GroupFlush::default();
            let refused = group
                .run(|| async { Err(io::ErrorKind::Unsupported.into()) })
                .await;
            assert!(refused.is_err());
            group.run(|| async { Ok(()) }).await.unwrap();
        });
    }
}
