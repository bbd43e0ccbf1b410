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

/// The reactors of a runtime, for whoever spreads connections over them. Clones share the turn; they do not keep
/// the runtime alive.
#[derive(Clone)]
pub struct Reactors {
    handles: Arc<[Handle]>,
    next: Arc<AtomicUsize>,
}

impl Reactors {
    /// The reactors, by [`Handle::id`].
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// The reactor that a new connection should go to: the one with the fewest streams, in turn when equal.
    pub fn pick(&self) -> &Handle {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.handles.len();
        let mut best = &self.handles[start % count]; // a runtime has at least one reactor
        for step in 1..count {
            let candidate = &self.handles[(start % count + step) % count];
            if candidate.stream_count() < best.stream_count() {
                best = candidate;
            }
        }
        best
    }
}

/// A set of reactor threads. Dropping it stops them and waits (except for the thread that drops it).
pub struct Runtime {
    reactors: Reactors,
    threads: Threads,
}

/// Threads that are stopped and awaited when this is dropped.
struct Threads(Vec<(Handle, thread::JoinHandle<()>)>);

impl Drop for Threads {
    fn drop(&mut self) {
        for (handle, _) in &self.0 {
            handle.shared.stop();
        }
        for (_, thread) in self.0.drain(..) {
            // The runtime was dropped by a task of its own: that thread ends by itself.
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            if thread.join().is_err() {
                tracing::error!("a reactor thread panicked");
            }
        }
    }
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
        let mut threads = Threads(Vec::new());
        let mut handles = Vec::new();
        for id in 0..config.reactors.max(1) {
            let (ready, started) = mpsc::sync_channel(1);
            let pool = pool.clone();
            let (ring_entries, spin) = (config.ring_entries, config.spin);
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
                            let core = Core::new(id, driver, pool, spin);
                            let sent = ready.send(Ok(core.shared.clone()));
                            if sent.is_ok() {
                                core.run(|| false);
                            }
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                })
                .map_err(StartError::Thread)?;
            let shared = started
                .recv()
                .map_err(|_| StartError::Thread(io::Error::other("the thread ended at once")))?
                .map_err(StartError::Backend)?;
            let handle = Handle { shared };
            handles.push(handle.clone());
            threads.0.push((handle, thread));
        }
        Ok(Self {
            reactors: Reactors {
                handles: handles.into(),
                next: Arc::new(AtomicUsize::new(0)),
            },
            threads,
        })
    }

    /// The reactors, by [`Handle::id`].
    pub fn handles(&self) -> &[Handle] {
        self.reactors.handles()
    }

    /// The reactors, to be kept by whoever spreads connections over them.
    pub fn reactors(&self) -> Reactors {
        self.reactors.clone()
    }

    /// See [`Reactors::pick`].
    pub fn pick(&self) -> &Handle {
        self.reactors.pick()
    }

    /// Stops all reactors: their tasks are dropped where they are, and the kernel's operations are awaited. Returns
    /// when the threads have ended. Dropping the runtime does the same.
    pub fn shutdown(self) {
        drop(self.threads);
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
    let core = Core::new(
        0,
        driver,
        Pool::new(&config.name, config.blocking_threads),
        config.spin,
    );
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

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use volume::block_device::BlockDevice;

    use super::*;
    use crate::sys::refuse_io_uring;
    use crate::{BackendChoice, FileDevice, OpenOptions};

    /// Where the kernel refuses io_uring, the fall-back starts by itself and does the work; who insists on io_uring
    /// is told.
    #[test]
    fn refused_io_uring_means_epoll() {
        for errno in [libc::ENOSYS, libc::EPERM] {
            let confined = move || {
                refuse_io_uring(errno).unwrap();
                let config = Config {
                    reactors: 1,
                    backend: BackendChoice::IoUring,
                    ..Config::default()
                };
                let insisted = Runtime::start(&config).err();
                assert!(
                    matches!(insisted, Some(StartError::Backend(_))),
                    "{insisted:?}"
                );
                let config = Config {
                    backend: BackendChoice::Auto,
                    ..config
                };
                let runtime = Runtime::start(&config).unwrap();
                assert_eq!(runtime.handles()[0].backend(), Backend::Epoll);
                let file = tempfile::NamedTempFile::new().unwrap();
                file.as_file().set_len(8192).unwrap();
                let device = FileDevice::open(file.path(), OpenOptions::default()).unwrap();
                let work = runtime.handles()[0].spawn(move || async move {
                    let data = Bytes::from_static(b"written without a ring");
                    device.write(4096, data.clone()).await.unwrap();
                    device.flush().await.unwrap();
                    let (result, buf) = device.read(4096, BytesMut::zeroed(data.len())).await;
                    result.unwrap();
                    assert_eq!(buf, data);
                });
                work.wait().unwrap();
            };
            std::thread::spawn(confined).join().unwrap();
        }
    }

    /// The variable overrides the automatic choice, and nonsense in it is refused. In a process of its own, as
    /// the environment is shared by all tests.
    #[test]
    fn environment_chooses_the_backend() {
        const CHILD: &str = "REACTOR_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            match Runtime::start(&Config::default()) {
                Ok(runtime) => println!("<{:?}>", runtime.handles()[0].backend()),
                Err(error) => println!("<{error}>"),
            }
            return;
        }
        for (value, expected) in [
            ("epoll", "<Epoll>"),
            ("io_uring", "<IoUring>"),
            (
                "kqueue",
                "<RINGFENCE_REACTOR=kqueue: expected io_uring or epoll>",
            ),
        ] {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "runtime::tests::environment_chooses_the_backend",
                    "--nocapture",
                ])
                .env(CHILD, "1")
                .env(crate::BACKEND_ENV, value)
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(expected), "{value} gave: {text}");
        }
    }
}
