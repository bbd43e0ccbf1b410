//! A thread of a device's own, for calls that wait when the device does.
//!
//! Some calls have no form that returns instead of waiting (a write into the page cache of ext4), and io_uring has a kernel
//! worker make them, which takes longer to wake than the call takes. Here the thread looks for more for a moment before it
//! sleeps, as a reactor does. A device that hangs holds up its own thread and nobody else's.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::join::JoinError;
use crate::pool::panicked;

/// How long the thread looks for more before it sleeps, when it did not wait for much longer the last time.
const SPIN: Duration = Duration::from_micros(50);
/// The thread ends when there was nothing to do for this long.
const IDLE: Duration = Duration::from_secs(10);

/// The thread, which runs only while it is needed. Dropping it lets what was given to it end.
#[derive(Default)]
pub(super) struct Lane(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
    /// Set while there are jobs, so that looking is one load.
    has_jobs: AtomicBool,
}

#[derive(Default)]
struct State {
    /// In the order in which they came.
    jobs: Vec<Arc<dyn Run>>,
    /// There is a thread.
    running: bool,
    /// It must be woken.
    asleep: bool,
    /// Nobody will give it more.
    closed: bool,
}

trait Run: Send + Sync {
    fn run(self: Arc<Self>);
}

/// One call. `work` is there until it begins.
struct Job<W, T> {
    state: Mutex<Call<W, T>>,
}

struct Call<W, T> {
    work: Option<W>,
    result: Option<Result<T, JoinError>>,
    waker: Option<Waker>,
}

impl<W, T> Job<W, T> {
    fn lock(&self) -> MutexGuard<'_, Call<W, T>> {
        // Nothing panics while the lock is held, and it is right at every point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: FnOnce() -> T + Send, T: Send> Run for Job<W, T> {
    fn run(self: Arc<Self>) {
        let Some(work) = self.lock().work.take() else {
            return; // taken back
        };
        let result = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panicked(&*panic));
        let waker = {
            let mut call = self.lock();
            call.result = Some(result);
            call.waker.take()
        };
        drop(self); // memory goes back where it came from: to the thread that is woken
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The result of a call. Dropped before the call has begun, it takes it back.
pub(super) struct Waiting<W, T>(Arc<Job<W, T>>);

impl<W, T> Future for Waiting<W, T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut call = self.0.lock();
        if let Some(result) = call.result.take() {
            return Poll::Ready(result);
        }
        match &mut call.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            other => *other = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl<W, T> Drop for Waiting<W, T> {
    fn drop(&mut self) {
        let work = self.0.lock().work.take();
        drop(work); // outside the lock: what it holds may do anything
    }
}

impl Lane {
    /// Runs `work`, after what was given before.
    ///
    /// # Errors
    /// When a thread is needed and cannot be started; `work` is dropped.
    pub(super) fn run<W, T>(&self, work: W) -> io::Result<Waiting<W, T>>
    where
        W: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let job = Arc::new(Job {
            state: Mutex::new(Call {
                work: Some(work),
                result: None,
                waker: None,
            }),
        });
        let mut state = self.0.lock();
        if !state.running {
            let shared = self.0.clone();
            std::thread::Builder::new()
                .name("device-lane".into())
                .spawn(move || shared.run())?;
            state.running = true;
        }
        state.jobs.push(job.clone());
        self.0.has_jobs.store(true, Ordering::Release);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.0.news.notify_one();
        }
        Ok(Waiting(job))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.news.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so that a poisoned one is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut jobs = Vec::new();
        let mut last_wait = Duration::MAX;
        loop {
            {
                let mut state = self.lock();
                self.has_jobs.store(false, Ordering::Relaxed);
                std::mem::swap(&mut state.jobs, &mut jobs);
            }
            for job in jobs.drain(..) {
                job.run();
            }
            let start = Instant::now();
            if !(self.look(start, last_wait) || self.sleep()) {
                return;
            }
            last_wait = start.elapsed();
        }
    }

    /// Looks for work for a moment; whether there is any.
    fn look(&self, start: Instant, last_wait: Duration) -> bool {
        if last_wait >= 2 * SPIN {
            return self.has_jobs.load(Ordering::Acquire);
        }
        while !self.has_jobs.load(Ordering::Acquire) {
            if start.elapsed() >= SPIN {
                return false;
            }
            // Often the reactor that the next job comes from.
            std::thread::yield_now();
        }
        true
    }

    /// Sleeps until there is work; false when the thread is to end.
    fn sleep(&self) -> bool {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closed {
                state.running = false;
                return false;
            }
            state.asleep = true;
            let (next, wait) = self
                .news
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.asleep = false;
            if wait.timed_out() && state.jobs.is_empty() {
                state.running = false;
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_lite::future::block_on;

    use super::*;

    /// What is given to it is done in order; a call that waits holds up those behind it and no other device.
    #[test]
    fn one_after_the_other() {
        let (lane, other) = (Lane::default(), Lane::default());
        let (go, gate) = mpsc::channel::<()>();
        let (say, said) = mpsc::channel();
        let say_first = say.clone();
        let waiting = lane.run(move || {
            gate.recv().unwrap();
            say_first.send(1).unwrap();
        });
        let behind = lane.run(move || say.send(2).unwrap());
        block_on(other.run(|| ()).unwrap()).unwrap();
        assert!(said.try_recv().is_err());
        go.send(()).unwrap();
        block_on(waiting.unwrap()).unwrap();
        block_on(behind.unwrap()).unwrap();
        assert_eq!(said.iter().collect::<Vec<_>>(), [1, 2]);
    }

    /// A thread that sleeps is woken, and a lane that was dropped does what it was given.
    #[test]
    fn nothing_is_forgotten() {
        let lane = Lane::default();
        for round in 0..50_u64 {
            let work = lane.run(move || round).unwrap();
            assert_eq!(block_on(work), Ok(round));
            std::thread::sleep(Duration::from_micros(round * 10));
        }
        let last: Vec<_> = (0..100).map(|n| lane.run(move || n).unwrap()).collect();
        drop(lane);
        for (number, work) in last.into_iter().enumerate() {
            assert_eq!(block_on(work), Ok(number));
        }
    }

    /// What nobody waits for any more is not begun, and gives back at once what it holds.
    #[test]
    fn work_is_taken_back_before_it_begins() {
        let lane = Lane::default();
        let (go, gate) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let hung = lane.run(move || {
            begun.send(()).unwrap();
            gate.recv().unwrap();
        });
        has_begun.recv().unwrap();
        let held = Arc::new(());
        let behind = {
            let held = held.clone();
            lane.run(move || drop(held)).unwrap()
        };
        assert_eq!(Arc::strong_count(&held), 2);
        drop(behind);
        assert_eq!(Arc::strong_count(&held), 1);
        drop(hung); // has begun: goes on
        go.send(()).unwrap();
        assert_eq!(block_on(lane.run(|| 7).unwrap()), Ok(7));
    }

    #[test]
    fn a_panic_is_told_and_the_thread_goes_on() {
        let lane = Lane::default();
        let broken = lane.run(|| panic!("as planned")).unwrap();
        let told: Result<(), _> = block_on(broken);
        assert_eq!(told, Err(JoinError::Panicked("as planned".into())));
        block_on(lane.run(|| ()).unwrap()).unwrap();
    }
}
