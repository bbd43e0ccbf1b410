//! A small pool of threads for work that blocks: file operations of the fall-back, and calls that no completion
//! interface has.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::executor::Core;
use crate::join::{self, JoinError, JoinHandle};

/// An idle thread of the pool ends after this long.
const IDLE_SECONDS: u64 = 10;

type Job = Box<dyn FnOnce() + Send>;

struct State {
    jobs: VecDeque<Job>,
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

impl Pool {
    pub(crate) fn new(name: &str, max_threads: usize) -> Self {
        Self(Arc::new(Shared {
            name: format!("{name}-io"),
            max_threads: max_threads.max(1),
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                threads: 0,
                idle: 0,
            }),
            work: Condvar::new(),
        }))
    }

    /// Runs `work` on a thread of the pool.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let (completer, handle) = join::pair();
        self.push(Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            completer.finish(result.map_err(|panic| panicked(&*panic)));
        }));
        handle
    }

    fn push(&self, job: Job) {
        let mut state = self.0.lock();
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle {
            drop(state);
            self.0.work.notify_one();
            return;
        }
        if state.threads >= self.0.max_threads {
            return;
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
                state.jobs.pop_back();
            }
        }
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
            if let Some(job) = state.jobs.pop_front() {
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
