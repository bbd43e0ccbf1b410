//! A TCP connection.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sockopt};

use crate::driver::{Interest, Operation, Request, Source};
use crate::executor::Core;
use crate::sys;

/// Buffers given to one sendmsg(2).
const SLICES_PER_SEND: usize = 64;

/// A TCP connection of one reactor. One task may receive while another sends.
pub struct TcpStream {
    source: Source,
    local_addr: SocketAddr,
    peer_addr: SocketAddr,
    receiving: Cell<bool>,
    sending: Cell<bool>,
    /// A reception whose future was dropped: the next one takes over what it brings.
    orphan: RefCell<Option<Operation>>,
    /// Bytes that such a reception brought and that nobody has fetched yet.
    leftover: RefCell<BytesMut>,
}

impl TcpStream {
    pub(super) fn new(core: Rc<Core>, fd: OwnedFd, peer_addr: SocketAddr) -> io::Result<Self> {
        Self::new_unconnected(core, fd, peer_addr)?.connected()
    }

    pub(super) fn new_unconnected(
        core: Rc<Core>,
        fd: OwnedFd,
        peer_addr: SocketAddr,
    ) -> io::Result<Self> {
        let source = Source::new(core, fd)?;
        source.core().shared.streams.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            source,
            local_addr: peer_addr,
            peer_addr,
            receiving: Cell::new(false),
            sending: Cell::new(false),
            orphan: RefCell::new(None),
            leftover: RefCell::new(BytesMut::new()),
        })
    }

    pub(super) async fn wait_connected(&self) -> io::Result<()> {
        self.source.not_ready(Interest::Write);
        self.source.ready(Interest::Write).await?;
        sockopt::socket_error(self.source.fd())??;
        Ok(())
    }

    pub(super) fn connected(mut self) -> io::Result<Self> {
        self.local_addr = SocketAddr::try_from(rustix::net::getsockname(self.source.fd())?)?;
        Ok(self)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        self.source.fd()
    }

    /// Connects to `addr`.
    ///
    /// # Errors
    /// Those of connect(2).
    ///
    /// # Panics
    /// When called outside a reactor.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        super::listener::connect(addr).await
    }

    /// The address of this end.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// Sets `TCP_NODELAY`: small sends leave at once.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(self.source.fd(), nodelay)?)
    }

    /// Receives at least one byte into the spare capacity of `buf` (after its contents; the capacity does not
    /// grow) and gives the number of bytes; 0 is the end of the stream. Waits without limit.
    ///
    /// Safe to drop: bytes that arrive later are given to the next call.
    ///
    /// # Errors
    /// Those of recv(2); `InvalidInput` when `buf` has no spare capacity; `ResourceBusy` when another call waits.
    pub async fn recv(&self, mut buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        if buf.spare_capacity_mut().is_empty() {
            return (Err(io::ErrorKind::InvalidInput.into()), buf);
        }
        let Some(_only) = Only::enter(&self.receiving) else {
            return (Err(io::ErrorKind::ResourceBusy.into()), buf);
        };
        if self.source.core().driver().ring().is_some() {
            self.recv_in_ring(buf).await
        } else {
            self.recv_when_ready(buf).await
        }
    }

    async fn recv_in_ring(&self, mut buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        let orphan = self.orphan.take();
        if let Some(orphan) = orphan {
            let completion = self.keep_if_dropped(orphan).await;
            let count = match completion.result {
                Ok(count) => count,
                Err(error) => return (Err(error.into()), buf),
            };
            if let Request::Recv { buf: mut late, .. } = completion.request {
                let late = late.split_off(late.len().saturating_sub(count));
                self.leftover.replace(late);
            }
            if count == 0 {
                return (Ok(0), buf);
            }
        }
        let leftover = self.leftover.take();
        if !leftover.is_empty() {
            let count = leftover.len().min(buf.spare_capacity_mut().len());
            buf.extend_from_slice(&leftover[..count]);
            let mut rest = leftover;
            rest.advance(count);
            self.leftover.replace(rest);
            return (Ok(count), buf);
        }
        let request = Request::Recv {
            fd: self.source.fd().clone(),
            buf,
        };
        let operation = Operation::start(self.source.core(), request);
        let completion = self.keep_if_dropped(operation).await;
        match completion.request {
            Request::Recv { buf, .. } => (completion.result.map_err(io::Error::from), buf),
            _ => (Err(io::ErrorKind::InvalidData.into()), BytesMut::new()), // cannot be: requests come back as they went
        }
    }

    /// Waits for a reception; when dropped before, leaves it to the next call.
    fn keep_if_dropped(&self, operation: Operation) -> Keep<'_> {
        Keep {
            stream: self,
            operation: Some(operation),
        }
    }

    async fn recv_when_ready(&self, mut buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        loop {
            if let Err(error) = self.source.ready(Interest::Read).await {
                return (Err(error), buf);
            }
            match sys::recv_now(self.source.fd().as_fd(), &mut buf) {
                Ok(count) => return (Ok(count), buf),
                Err(Errno::AGAIN) => self.source.not_ready(Interest::Read),
                Err(Errno::INTR) => {}
                Err(error) => return (Err(error.into()), buf),
            }
        }
    }

    /// Sends all of `bufs`, in order, and gives the emptied list back. Tries at once, and waits only when the
    /// socket's buffer is full.
    ///
    /// After an error, or when dropped before it is ready, an unknown part was sent: the connection is of no more
    /// use.
    ///
    /// # Errors
    /// Those of sendmsg(2); `ResourceBusy` when another call is under way.
    pub async fn send_vectored(&self, mut bufs: Vec<Bytes>) -> (io::Result<()>, Vec<Bytes>) {
        let Some(_only) = Only::enter(&self.sending) else {
            return (Err(io::ErrorKind::ResourceBusy.into()), bufs);
        };
        let result = self.send_all(&mut bufs).await;
        bufs.clear();
        (result, bufs)
    }

    async fn send_all(&self, bufs: &mut [Bytes]) -> io::Result<()> {
        let mut first = 0;
        loop {
            while bufs.get(first).is_some_and(Bytes::is_empty) {
                first += 1;
            }
            if first == bufs.len() {
                return Ok(());
            }
            match send_now(self.source.fd(), &bufs[first..]) {
                Ok(mut sent) => {
                    while sent > 0 {
                        let step = sent.min(bufs[first].len()); // the kernel sends no more than it was given
                        bufs[first].advance(step);
                        sent -= step;
                        if bufs[first].is_empty() {
                            first += 1;
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.source.not_ready(Interest::Write);
                    self.source.ready(Interest::Write).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Shuts down one side or both: a waiting `recv` gives 0, sends fail. The socket closes when the stream is
    /// dropped.
    ///
    /// # Errors
    /// Those of shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(self.source.fd(), how)?)
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.source.fd().as_raw_fd()
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.source
            .core()
            .shared
            .streams
            .fetch_sub(1, Ordering::Relaxed);
    }
}

fn send_now(fd: &OwnedFd, bufs: &[Bytes]) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if let [buf] = bufs {
        return rustix::net::send(fd, buf, flags);
    }
    let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
    let count = bufs.len().min(SLICES_PER_SEND);
    for (slice, buf) in slices.iter_mut().zip(bufs) {
        *slice = IoSlice::new(buf);
    }
    rustix::net::sendmsg(
        fd,
        &slices[..count],
        &mut SendAncillaryBuffer::default(),
        flags,
    )
}

/// Holds a flag while one call is under way.
struct Only<'a>(&'a Cell<bool>);

impl<'a> Only<'a> {
    fn enter(flag: &'a Cell<bool>) -> Option<Self> {
        (!flag.replace(true)).then_some(Self(flag))
    }
}

impl Drop for Only<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// See [`TcpStream::keep_if_dropped`].
struct Keep<'a> {
    stream: &'a TcpStream,
    operation: Option<Operation>,
}

impl Future for Keep<'_> {
    type Output = <Operation as Future>::Output;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let Some(operation) = &mut self.operation else {
            panic!("polled after completion");
        };
        let polled = Pin::new(operation).poll(context);
        if polled.is_ready() {
            self.operation = None;
        }
        polled
    }
}

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            self.stream.orphan.replace(Some(operation));
        }
    }
}
