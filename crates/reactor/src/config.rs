//! What a runtime is started with.

use std::num::NonZeroUsize;
use std::time::Duration;

/// The environment variable that overrides [`BackendChoice::Auto`]: `io_uring` or `epoll`.
pub const BACKEND_ENV: &str = "RINGFENCE_REACTOR";

/// The kernel interface that a reactor runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One io_uring a reactor for sockets and files.
    IoUring,
    /// One epoll instance a reactor for sockets, a pool of threads for files.
    Epoll,
}

/// Which [`Backend`] to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// io_uring where the kernel allows it, else epoll; [`BACKEND_ENV`] overrides.
    #[default]
    Auto,
    /// io_uring, or refuse to start.
    IoUring,
    /// epoll.
    Epoll,
}

/// How to start a [`Runtime`](crate::Runtime).
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of reactor threads, at least 1. Default: the CPUs this process may run on.
    pub reactors: usize,
    /// Name of the threads; reactor `i` is called `NAME-i`.
    pub name: String,
    /// Which backend to use.
    pub backend: BackendChoice,
    /// Bind reactor `i` to the `i`-th CPU this process may run on.
    pub pin: bool,
    /// Submission entries of each io_uring; rounded up to a power of two by the kernel.
    pub ring_entries: u32,
    /// How long a reactor that runs out of work looks for more before it sleeps; zero: it sleeps at once. It only
    /// looks while its waits are about this short, so that an idle reactor always sleeps.
    pub spin: Duration,
    /// Most threads of the pool for blocking work (shared by the reactors; started when needed), at least 1.
    pub blocking_threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reactors: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            name: "reactor".to_owned(),
            backend: BackendChoice::Auto,
            pin: false,
            ring_entries: 256,
            spin: Duration::ZERO,
            blocking_threads: 8,
        }
    }
}
