//! Small pools of threads for work that blocks: operations of a device that cannot be left to a ring, and calls that no
//! completion interface has.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::executor::Core;
use crate::join::{self, JoinError, JoinHandle};

/// An idle thread of the pool ends after this long.
const IDLE_SECONDS: u64 = 10;

type Job = Box<dyn FnOnce() + Send>;

struct State {
    /// What has not begun, by the number of its coming.
    jobs: BTreeMap<u64, Job>,
    next: u64,
    threads: usize,
    idle: usize,
}

struct Shared {
    name: String,
    max_threads: usize,
    state: Mutex<State>,
    work: Condvar,
}

/// The pool; clones share it. Threads are started on demand, and end when idle.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

/// The result of work that is not done when nobody wants it: dropped before the work has begun, it takes the work back.
pub(crate) struct Queued<T> {
    pool: Pool,
    number: u64,
    handle: JoinHandle<T>,
}

impl<T> Future for Queued<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(context)
    }
}

impl<T> Drop for Queued<T> {
    fn drop(&mut self) {
        if self.handle.is_finished() {
            return;
        }
        let job = self.pool.0.lock().jobs.remove(&self.number);
        drop(job); // outside the lock: what it holds may do anything
    }
}

impl Pool {
    pub(crate) fn new(name: &str, max_threads: usize) -> Self {
        Self(Arc::new(Shared {
            name: format!("{name}-io"),
            max_threads: max_threads.max(1),
            state: Mutex::new(State {
                jobs: BTreeMap::new(),
                next: 0,
                threads: 0,
                idle: 0,
            }),
            work: Condvar::new(),
        }))
    }

    /// Runs `work` on a thread of the pool, also when the handle is dropped.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.start(work).1
    }

    /// Runs `work` on a thread of the pool, unless the handle is dropped before it has begun.
    pub(crate) fn run_if_wanted<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Queued<T> {
        let (number, handle) = self.start(work);
        Queued {
            pool: self.clone(),
            number,
            handle,
        }
    }

    fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (u64, JoinHandle<T>) {
        let (completer, handle) = join::pair();
        let number = self.push(Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            completer.finish(result.map_err(|panic| panicked(&*panic)));
        }));
        (number, handle)
    }

    fn push(&self, job: Job) -> u64 {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1; // 2^64 jobs do not happen
        state.jobs.insert(number, job);
        if state.jobs.len() <= state.idle {
            drop(state);
            self.0.work.notify_one();
            return number;
        }
        if state.threads >= self.0.max_threads {
            return number;
        }
        let shared = self.0.clone();
        let started = std::thread::Builder::new()
            .name(self.0.name.clone())
            .spawn(move || shared.run());
        match started {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads > 0 => {
                tracing::warn!(%error, "cannot start another I/O thread");
            }
            Err(error) => {
                // No thread will come for it: the job is dropped, and its handle says so.
                tracing::error!(%error, "cannot start an I/O thread");
                let job = state.jobs.remove(&number);
                drop(state);
                drop(job);
            }
        }
        number
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so that a poisoned one is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some((_, job)) = state.jobs.pop_first() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (next, wait) = self
                .work
                .wait_timeout(state, Duration::from_secs(IDLE_SECONDS))
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if wait.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// What a panic said.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> JoinError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    JoinError::Panicked(text.unwrap_or_else(|| "(no message)".to_owned()))
}

/// Runs `work`, which may block, on a thread of the runtime's pool, and gives its result. Dropping the handle
/// does not stop it.
///
/// # Panics
/// When called outside a reactor.
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Core::expect().pool().run(work)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Work that nobody waits for any more is not begun, and what it holds is given back at once.
    #[test]
    fn work_is_taken_back_before_it_begins() {
        let pool = Pool::new("test", 1);
        let (release, released) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let hung = pool.run_if_wanted(move || {
            begun.send(()).unwrap();
            released.recv()
        });
        has_begun.recv().unwrap();
        let held = Arc::new(());
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let held = held.clone();
                pool.run_if_wanted(move || drop(held))
            })
            .collect();
        assert_eq!(Arc::strong_count(&held), 101);
        drop(waiting);
        assert_eq!(Arc::strong_count(&held), 1);
        drop(hung); // has begun: goes on
        let after = pool.run(|| 7);
        assert!(!after.is_finished());
        release.send(()).unwrap();
        assert_eq!(after.wait(), Ok(7));
    }
}
