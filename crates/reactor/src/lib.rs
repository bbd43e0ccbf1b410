//! One reactor per core: completion-based network and disk I/O.
//!
//! A [`Runtime`] is a set of threads, each with a single-threaded executor and one kernel interface for sockets
//! and files: an io_uring of its own, or, where the kernel refuses `io_uring_setup` (containers, hardened hosts),
//! epoll with a small pool of threads for file operations. Tasks are not `Send`; they stay on the reactor they
//! were spawned on. Wakers may be used from any thread.
//!
//! **Buffers** are owned by the operation and handed back. A future that is dropped before it completes leaves
//! its buffer with the kernel until the kernel is done with it.
//!
//! **Choice of backend.** [`BackendChoice::Auto`] takes io_uring when it works and the fall-back otherwise; the
//! environment variable [`BACKEND_ENV`] (`io_uring` or `epoll`) overrides it. [`Handle::backend`] says which one
//! runs.
//!
//! **Unsafe code** is only in the module `sys`, which owns every operation that the kernel can still write to.

mod config;
mod driver;
mod executor;
mod file;
mod join;
mod net;
mod pool;
mod runtime;
#[allow(unsafe_code)]
mod sys;
mod time;

pub mod conformance;

pub use config::{BACKEND_ENV, Backend, BackendChoice, Config};
pub use executor::{spawn_local, yield_now};
pub use file::{Caching, FileDevice, OpenError, OpenOptions};
pub use join::{JoinError, JoinHandle};
pub use net::{Accepted, TcpListener, TcpStream};
pub use pool::unblock;
pub use runtime::{Handle, Reactors, Runtime, StartError, block_on};
pub use time::{Elapsed, Sleep, sleep, sleep_until, timeout};
