//! Timers of a reactor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::executor::Core;

/// The timers of one reactor, by deadline, then in the order they were set.
#[derive(Default)]
pub(crate) struct Timers {
    next_id: Cell<u64>,
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    pauses: RefCell<Pauses>,
}

/// Those that wait for a second or two: when a second is over, the old ones are woken and the young ones are old.
#[derive(Default)]
struct Pauses {
    young: Slab<Waker>,
    old: Slab<Waker>,
    /// Seconds that are over.
    turn: u64,
    /// The end of this one; `None` while nobody waits.
    end: Option<Instant>,
}

impl Pauses {
    /// Those of a turn; `None` when they have been woken.
    fn of(&mut self, turn: u64) -> Option<&mut Slab<Waker>> {
        match self.turn - turn {
            0 => Some(&mut self.young),
            1 => Some(&mut self.old),
            _ => None,
        }
    }

    /// Ends the second when it is over; those to be woken.
    fn end(&mut self, now: Instant) -> Slab<Waker> {
        if self.end.is_none_or(|end| now < end) {
            return Slab::new();
        }
        let woken = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.turn += 1;
        self.end = (!self.old.is_empty()).then(|| now + SECOND);
        woken
    }
}

const SECOND: Duration = Duration::from_secs(1);

impl Timers {
    /// Time until the first deadline; zero when it has passed.
    pub(crate) fn until_next(&self) -> Option<Duration> {
        let waiting = self.waiting.borrow();
        let first = waiting
            .first_key_value()
            .map(|((deadline, _), _)| *deadline);
        let deadline = first.into_iter().chain(self.pauses.borrow().end).min()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Wakes what is due.
    pub(crate) fn fire(&self) {
        if self.waiting.borrow().is_empty() && self.pauses.borrow().end.is_none() {
            return;
        }
        let now = Instant::now();
        let paused = self.pauses.borrow_mut().end(now);
        for (_, waker) in paused {
            waker.wake();
        }
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

/// A future that is ready after one to two seconds. Costs less than [`Sleep`], for those who will hardly ever wait to the
/// end. Belongs to the reactor that polled it first.
#[must_use = "does nothing unless awaited"]
#[derive(Default)]
pub(crate) struct Pause {
    /// With the turn it began in, and its place among those of that turn.
    timer: Option<(Rc<Core>, u64, usize)>,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker();
        match &self.timer {
            None => {
                let core = Core::expect();
                let mut pauses = core.timers().pauses.borrow_mut();
                pauses.end.get_or_insert_with(|| Instant::now() + SECOND);
                let (turn, place) = (pauses.turn, pauses.young.insert(waker.clone()));
                drop(pauses);
                self.timer = Some((core, turn, place));
            }
            Some((core, turn, place)) => match core.timers().pauses.borrow_mut().of(*turn) {
                None => return Poll::Ready(()),
                Some(waiting) => waiting[*place].clone_from(waker),
            },
        }
        Poll::Pending
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some((core, turn, place)) = self.timer.take() {
            let mut pauses = core.timers().pauses.borrow_mut();
            let waker = pauses.of(turn).map(|waiting| waiting.remove(place));
            drop(pauses);
            drop(waker);
        }
    }
}

/// A future that is ready at a point in time. Belongs to the reactor that polled it first.
#[must_use = "does nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    timer: Option<(Rc<Core>, u64)>,
    /// Made a moment ago with time to go: the clock need not be read again.
    is_new: bool,
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
        if !std::mem::take(&mut self.is_new) && Instant::now() >= self.deadline {
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
    let mut sleep = sleep_until(Instant::now() + duration);
    sleep.is_new = !duration.is_zero();
    sleep
}

/// Waits until `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        timer: None,
        is_new: false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, block_on};

    #[test]
    fn a_pause_takes_one_to_two_seconds() {
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut pauses = Pauses {
            end: Some(after(1.0)),
            ..Pauses::default()
        };
        let first = pauses.young.insert(Waker::noop().clone());
        assert!(pauses.end(after(0.9)).is_empty());
        assert!(
            pauses.end(after(1.0)).is_empty(),
            "it may have begun just now"
        );
        assert!(pauses.of(0).unwrap().contains(first));
        let second = pauses.young.insert(Waker::noop().clone());
        assert!(pauses.end(after(1.9)).is_empty());
        assert_eq!(pauses.end(after(2.0)).len(), 1);
        assert!(pauses.of(0).is_none());
        assert!(pauses.of(1).unwrap().contains(second));
        pauses.of(1).unwrap().remove(second);
        assert!(pauses.end(after(3.0)).is_empty());
        assert_eq!(pauses.end, None, "nobody waits");
    }

    #[test]
    fn a_pause_wakes_and_one_that_is_given_up_leaves_nothing() {
        let config = Config {
            reactors: 1,
            ..Config::default()
        };
        let waited = block_on(&config, async {
            let given_up = futures_lite::future::poll_once(Pause::default()).await;
            assert_eq!(given_up, None);
            assert!(Core::expect().timers().pauses.borrow().young.is_empty());
            let start = Instant::now();
            Pause::default().await;
            start.elapsed()
        });
        assert!(waited.unwrap() >= SECOND);
    }
}
