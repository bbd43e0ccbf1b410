//! The kernel interface of a reactor: io_uring or epoll, behind one door.

mod epoll;
mod ring;

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::config::{BACKEND_ENV, Backend, BackendChoice, Config};
use crate::executor::Core;
use crate::runtime::StartError;
pub(crate) use crate::sys::{Completion, OpId, Request};
use epoll::Epoll;
use ring::RingDriver;

/// Which side of a socket is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
}

/// Wakes a reactor that sleeps in the kernel.
#[derive(Clone)]
pub(crate) struct WakeFd(Arc<OwnedFd>);

impl WakeFd {
    fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Makes the reactor's wait return.
    pub(crate) fn signal(&self) {
        // The only other failure is a full counter, and then the signal is there already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        // Empty is fine too.
        let _ = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }
}

/// The kernel interface of one reactor.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a reactor, and it does not move"
)]
pub(crate) enum Driver {
    Ring(RingDriver),
    Epoll(Epoll),
}

impl Driver {
    /// The backend that `config` and the environment ask for and the kernel allows.
    pub(crate) fn choose(config: &Config) -> Result<Backend, StartError> {
        match config.backend {
            BackendChoice::IoUring => return Ok(Backend::IoUring),
            BackendChoice::Epoll => return Ok(Backend::Epoll),
            BackendChoice::Auto => {}
        }
        match std::env::var_os(BACKEND_ENV) {
            Some(value) if value == "io_uring" => return Ok(Backend::IoUring),
            Some(value) if value == "epoll" => return Ok(Backend::Epoll),
            Some(value) if !value.is_empty() => {
                let value = value.to_string_lossy().into_owned();
                return Err(StartError::UnknownBackend { value });
            }
            _ => {}
        }
        match Self::new(Backend::IoUring, 8) {
            Ok(_) => Ok(Backend::IoUring),
            Err(error) => {
                tracing::info!(%error, "no io_uring here; using epoll and threads");
                Ok(Backend::Epoll)
            }
        }
    }

    /// Sets it up for the calling thread.
    pub(crate) fn new(backend: Backend, ring_entries: u32) -> io::Result<Self> {
        let wake_fd = WakeFd::new()?;
        Ok(match backend {
            Backend::IoUring => Self::Ring(RingDriver::new(ring_entries, wake_fd)?),
            Backend::Epoll => Self::Epoll(Epoll::new(wake_fd)?),
        })
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Self::Ring(_) => Backend::IoUring,
            Self::Epoll(_) => Backend::Epoll,
        }
    }

    pub(crate) fn wake_fd(&self) -> WakeFd {
        match self {
            Self::Ring(ring) => ring.wake_fd(),
            Self::Epoll(epoll) => epoll.wake_fd(),
        }
    }

    /// Gives the kernel what is queued, waits for events for `timeout` at most, and wakes their tasks.
    pub(crate) fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.park(timeout),
            Self::Epoll(epoll) => epoll.park(timeout),
        }
    }

    /// True when [`Driver::park`] with no time would find something, as far as can be told cheaply.
    pub(crate) fn has_events(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.has_events(),
            Self::Epoll(_) => true, // only the system call can tell
        }
    }

    /// Ends what is in flight.
    pub(crate) fn drain(&self) {
        if let Self::Ring(ring) = self {
            ring.drain();
        }
    }

    /// The ring, when there is one.
    pub(crate) fn ring(&self) -> Option<&RingDriver> {
        match self {
            Self::Ring(ring) => Some(ring),
            Self::Epoll(_) => None,
        }
    }
}

/// An operation on the ring of the reactor that made it. Dropped early, it leaves the kernel its buffers; what
/// waits for a peer is cancelled.
pub(crate) struct Operation {
    core: Rc<Core>,
    id: Option<OpId>,
}

impl Operation {
    /// Starts `request` on the ring of `core`.
    ///
    /// # Panics
    /// When `core` has no ring: the caller has looked.
    pub(crate) fn start(core: &Rc<Core>, request: Request) -> Self {
        let Some(ring) = core.driver().ring() else {
            panic!("an operation for a ring was started without one");
        };
        let id = ring.start(request);
        Self {
            core: core.clone(),
            id: Some(id),
        }
    }
}

impl Future for Operation {
    type Output = Completion;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Completion> {
        let (Some(ring), Some(id)) = (self.core.driver().ring(), self.id) else {
            panic!("an operation is polled after its completion");
        };
        let polled = ring.poll(id, context);
        if polled.is_ready() {
            self.id = None;
        }
        polled
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let (Some(ring), Some(id)) = (self.core.driver().ring(), self.id.take()) {
            ring.abandon(id);
        }
    }
}

/// A socket known to the reactor it lives on.
pub(crate) struct Source {
    core: Rc<Core>,
    fd: Arc<OwnedFd>,
    /// Its place in the epoll table.
    slot: Option<usize>,
}

impl Source {
    pub(crate) fn new(core: Rc<Core>, fd: OwnedFd) -> io::Result<Self> {
        let slot = match core.driver() {
            Driver::Ring(_) => None,
            Driver::Epoll(epoll) => Some(epoll.register(&fd)?),
        };
        Ok(Self {
            core,
            fd: Arc::new(fd),
            slot,
        })
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Waits until the socket may be ready. One waiter a side.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<()> {
        match (self.core.driver(), self.slot) {
            (Driver::Epoll(epoll), Some(slot)) => {
                std::future::poll_fn(|context| epoll.poll_ready(slot, interest, context)).await;
                Ok(())
            }
            _ => {
                let events = match interest {
                    Interest::Read => 0x1,  // POLLIN
                    Interest::Write => 0x4, // POLLOUT
                };
                let request = Request::Poll {
                    fd: self.fd.clone(),
                    events,
                };
                let completion = Operation::start(&self.core, request).await;
                completion.result?;
                Ok(())
            }
        }
    }

    /// Notes that the kernel had nothing (`EAGAIN`).
    pub(crate) fn not_ready(&self, interest: Interest) {
        if let (Driver::Epoll(epoll), Some(slot)) = (self.core.driver(), self.slot) {
            epoll.clear_ready(slot, interest);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let (Driver::Epoll(epoll), Some(slot)) = (self.core.driver(), self.slot) {
            epoll.deregister(slot, &self.fd);
        }
    }
}
