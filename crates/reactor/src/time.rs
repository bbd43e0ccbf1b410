//! Timers of a reactor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::executor::Core;

/// The timers of one reactor, by deadline, then in the order they were set.
#[derive(Default)]
pub(crate) struct Timers {
    next_id: Cell<u64>,
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
}

impl Timers {
    /// Time until the first deadline; zero when it has passed.
    pub(crate) fn until_next(&self) -> Option<Duration> {
        let waiting = self.waiting.borrow();
        let ((deadline, _), _) = waiting.first_key_value()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Wakes what is due.
    pub(crate) fn fire(&self) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        let now = Instant::now();
        loop {
            let waker = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(entry) if entry.key().0 <= now => entry.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }

    fn insert(&self, deadline: Instant, waker: Waker) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.waiting.borrow_mut().insert((deadline, id), waker);
        id
    }
}

/// A future that is ready at a point in time. Belongs to the reactor that polled it first.
#[must_use = "does nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    timer: Option<(Rc<Core>, u64)>,
}

impl Sleep {
    /// When it is ready.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    fn disarm(&mut self) {
        if let Some((core, id)) = self.timer.take() {
            let waker = core
                .timers()
                .waiting
                .borrow_mut()
                .remove(&(self.deadline, id));
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            self.disarm();
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        match &self.timer {
            None => {
                let core = Core::expect();
                let id = core.timers().insert(deadline, context.waker().clone());
                self.timer = Some((core, id));
            }
            Some((core, id)) => {
                let mut waiting = core.timers().waiting.borrow_mut();
                let old = waiting.insert((deadline, *id), context.waker().clone());
                drop(waiting);
                drop(old);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// Waits for `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// Waits until `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        timer: None,
    }
}

/// The time of a [`timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// Gives the result of `future`, or [`Elapsed`] (and drops it) when that takes longer than `duration`. A future
/// that is ready wins over a deadline that has passed.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep(duration));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(context).map(|()| Err(Elapsed))
    })
    .await
}
