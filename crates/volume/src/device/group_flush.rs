//! Group commit: callers that ask for a flush while one runs share the next one.

use std::future::Future;
use std::io;

use event_listener::Event;
use parking_lot::Mutex;

/// Flushes of one device, numbered from 1 in the order in which they start.
#[derive(Default)]
pub(super) struct GroupFlush {
    state: Mutex<State>,
    changed: Event,
}

#[derive(Default)]
struct State {
    running: bool,
    /// Number of the flush that started last.
    started: u64,
    /// Number of the last flush that succeeded.
    finished: u64,
    /// The first failure; it stays.
    failed: Option<(io::ErrorKind, String)>,
}

/// What a caller does next.
enum Turn {
    Done(io::Result<()>),
    Lead(u64),
    Wait,
}

impl GroupFlush {
    /// Returns when a flush that started after this call has finished.
    pub(super) async fn flush<F>(&self, device_flush: impl Fn() -> F) -> io::Result<()>
    where
        F: Future<Output = io::Result<()>>,
    {
        let ticket = self.state.lock().started + 1;
        loop {
            // Listen before looking, so that a change between the two is not missed.
            let mut listener = None;
            let turn = loop {
                let turn = self.turn(ticket);
                match turn {
                    Turn::Wait if listener.is_none() => listener = Some(self.changed.listen()),
                    turn => break turn,
                }
            };
            match (turn, listener) {
                (Turn::Done(result), _) => return result,
                (Turn::Lead(number), _) => {
                    let mut lead = Lead {
                        group: self,
                        number,
                        result: None,
                    };
                    lead.result = Some(device_flush().await);
                }
                (Turn::Wait, Some(listener)) => listener.await,
                (Turn::Wait, None) => {}
            }
        }
    }

    fn turn(&self, ticket: u64) -> Turn {
        let mut state = self.state.lock();
        if let Some((kind, message)) = &state.failed {
            return Turn::Done(Err(io::Error::new(*kind, message.clone())));
        }
        if state.finished >= ticket {
            return Turn::Done(Ok(()));
        }
        if state.running {
            return Turn::Wait;
        }
        state.running = true;
        state.started += 1;
        Turn::Lead(state.started)
    }
}

/// The caller that runs a flush. Dropping it before the flush has finished (a cancelled future) hands the lead on.
struct Lead<'a> {
    group: &'a GroupFlush,
    number: u64,
    result: Option<io::Result<()>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut state = self.group.state.lock();
        state.running = false;
        match self.result.take() {
            Some(Ok(())) => state.finished = self.number,
            Some(Err(error)) => {
                state
                    .failed
                    .get_or_insert((error.kind(), error.to_string()));
            }
            None => {}
        }
        drop(state);
        self.group.changed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_lite::future::{block_on, poll_once, yield_now};

    use super::*;

    #[test]
    fn callers_share_one_flush_that_starts_after_their_calls() {
        block_on(async {
            let group = GroupFlush::default();
            let calls = Cell::new(0u32);
            let gate = Cell::new(false);
            let device = || async {
                calls.set(calls.get() + 1);
                while !gate.get() {
                    yield_now().await;
                }
                Ok(())
            };
            let mut first = Box::pin(group.flush(device));
            assert!(poll_once(&mut first).await.is_none());
            let mut second = Box::pin(group.flush(device));
            let mut third = Box::pin(group.flush(device));
            assert!(poll_once(&mut second).await.is_none());
            assert!(poll_once(&mut third).await.is_none());
            assert_eq!(calls.get(), 1);
            gate.set(true);
            first.await.unwrap();
            second.await.unwrap();
            third.await.unwrap();
            assert_eq!(calls.get(), 2, "the second and third shared one");
        });
    }

    #[test]
    fn a_cancelled_leader_hands_the_lead_on() {
        block_on(async {
            let group = GroupFlush::default();
            let mut leader = Box::pin(group.flush(std::future::pending));
            assert!(poll_once(&mut leader).await.is_none());
            let mut waiter = Box::pin(group.flush(|| async { Ok(()) }));
            assert!(poll_once(&mut waiter).await.is_none());
            drop(leader);
            waiter.await.unwrap();
        });
    }

    #[test]
    fn a_failed_flush_stays_failed() {
        block_on(async {
            let group = GroupFlush::default();
            let failing = || async { Err(io::Error::other("medium")) };
            assert!(group.flush(failing).await.is_err());
            assert!(group.flush(|| async { Ok(()) }).await.is_err());
        });
    }
}
