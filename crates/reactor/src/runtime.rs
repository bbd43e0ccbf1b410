//! Starting, addressing and stopping reactors.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::{Backend, Config};
use crate::driver::Driver;
use crate::executor::{self, Core, Shared};
use crate::join::JoinHandle;
use crate::pool::Pool;

/// Why a runtime could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel refused the backend that was asked for.
    #[error("cannot set up the I/O backend: {0}")]
    Backend(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a reactor thread: {0}")]
    Thread(#[source] io::Error),
    /// The environment variable that chooses the backend has an unknown value.
    #[error("{variable}={value}: expected io_uring or epoll", variable = crate::BACKEND_ENV)]
    UnknownBackend {
        /// What it was set to.
        value: String,
    },
}

/// The address of one reactor, for use from any thread.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The reactor this thread is, if it is one.
    pub fn current() -> Option<Self> {
        Core::current().map(|core| Self {
            shared: core.shared.clone(),
        })
    }

    /// Position of the reactor in its runtime, from 0.
    pub fn id(&self) -> usize {
        self.shared.id
    }

    /// The kernel interface it runs on.
    pub fn backend(&self) -> Backend {
        self.shared.backend
    }

    /// Number of TCP streams that live on it now.
    pub fn stream_count(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// True when called on this reactor's own thread.
    pub fn is_current(&self) -> bool {
        Core::current().is_some_and(|core| Arc::ptr_eq(&core.shared, &self.shared))
    }

    /// Starts a task there: `make` is sent over, and the future it makes stays there (it need not be `Send`).
    /// After the reactor has stopped, the handle gives [`JoinError::Cancelled`](crate::JoinError::Cancelled).
    pub fn spawn<M, F>(&self, make: M) -> JoinHandle<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let (seed, handle) = executor::seed(&self.shared, make);
        self.shared.spawn(seed);
        handle
    }
}

/// A set of reactor threads. Dropping it stops them and waits.
pub struct Runtime {
    handles: Vec<Handle>,
    threads: Vec<thread::JoinHandle<()>>,
    next: AtomicUsize,
}

impl Runtime {
    /// Starts the reactors.
    ///
    /// # Errors
    /// [`StartError`]; reactors that were started already are stopped again.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let backend = Driver::choose(config)?;
        let pool = Pool::new(&config.name, config.blocking_threads);
        let cpus = allowed_cpus();
        let mut runtime = Self {
            handles: Vec::new(),
            threads: Vec::new(),
            next: AtomicUsize::new(0),
        };
        for id in 0..config.reactors.max(1) {
            let (ready, started) = mpsc::sync_channel(1);
            let pool = pool.clone();
            let ring_entries = config.ring_entries;
            let cpu = config
                .pin
                .then(|| cpus.get(id % cpus.len().max(1)).copied())
                .flatten();
            let thread = thread::Builder::new()
                .name(format!("{}-{id}", config.name))
                .spawn(move || {
                    if let Some(cpu) = cpu {
                        pin_to(cpu);
                    }
                    // The ring belongs to the thread that makes it.
                    match Driver::new(backend, ring_entries) {
                        Ok(driver) => {
                            let core = Core::new(id, driver, pool);
                            let sent = ready.send(Ok(core.shared.clone()));
                            if sent.is_ok() {
                                core.run(|| false);
                            }
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                })
                .map_err(StartError::Thread)?;
            runtime.threads.push(thread);
            let shared = started
                .recv()
                .map_err(|_| StartError::Thread(io::Error::other("the thread ended at once")))?
                .map_err(StartError::Backend)?;
            runtime.handles.push(Handle { shared });
        }
        Ok(runtime)
    }

    /// The reactors, by [`Handle::id`].
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// The reactor that a new connection should go to: the one with the fewest streams, in turn when equal.
    pub fn pick(&self) -> &Handle {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.handles.len();
        let mut best = &self.handles[start % count]; // `start` always makes at least one reactor
        for step in 1..count {
            let candidate = &self.handles[(start % count + step) % count];
            if candidate.stream_count() < best.stream_count() {
                best = candidate;
            }
        }
        best
    }

    /// Stops all reactors: their tasks are dropped where they are, and the kernel's operations are awaited. Returns
    /// when the threads have ended. Must not be called on one of them.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        for handle in &self.handles {
            handle.shared.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reactor thread panicked");
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs `future` on a reactor of this thread (`config` gives backend, ring and pool) and gives its result; what
/// it spawned and did not await is dropped.
///
/// # Errors
/// [`StartError`] when the backend cannot be set up.
///
/// # Panics
/// When a reactor already runs on this thread, or when the future panics.
pub fn block_on<F>(config: &Config, future: F) -> Result<F::Output, StartError>
where
    F: Future + 'static,
{
    let backend = Driver::choose(config)?;
    let driver = Driver::new(backend, config.ring_entries).map_err(StartError::Backend)?;
    let core = Core::new(0, driver, Pool::new(&config.name, config.blocking_threads));
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    let mut first = Some(async move {
        let output = executor::spawn_local(future).await;
        *slot.borrow_mut() = Some(output);
    });
    let watched = result.clone();
    core.run(move || {
        if let Some(first) = first.take() {
            drop(executor::spawn_local(first));
        }
        watched.borrow().is_some()
    });
    let output = result.borrow_mut().take();
    match output {
        Some(Ok(output)) => Ok(output),
        Some(Err(error)) => panic!("{error}"),
        None => panic!("the reactor stopped before the future was done"),
    }
}

fn allowed_cpus() -> Vec<usize> {
    sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|&cpu| set.is_set(cpu))
                .collect()
        },
    )
}

fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!(%error, cpu, "cannot bind a reactor to its CPU");
    }
}
