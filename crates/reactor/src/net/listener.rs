//! Listening and accepting.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::TcpStream;
use crate::driver::{Interest, Source};
use crate::executor::Core;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A listening TCP socket (IPv4 or IPv6), on the reactor that bound it.
pub struct TcpListener {
    source: Source,
    local_addr: SocketAddr,
}

/// A connection that was accepted, before it has a reactor: `Send`, so that it can be handed to another one.
#[derive(Debug)]
pub struct Accepted {
    fd: OwnedFd,
    peer_addr: SocketAddr,
}

impl TcpListener {
    /// Listens on `addr` (port 0: any free one), with `SO_REUSEADDR`. An IPv6 socket takes IPv6 only, so that
    /// `0.0.0.0` and `[::]` can share a port.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    ///
    /// # Panics
    /// When called outside a reactor.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let core = Core::expect();
        let family = family(addr);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        if addr.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, true)?;
        }
        rustix::net::bind(&fd, &addr)?;
        rustix::net::listen(&fd, BACKLOG)?;
        let local_addr = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
        Ok(Self {
            source: Source::new(core, fd)?,
            local_addr,
        })
    }

    /// Takes over a socket that listens already (inherited, or bound by other means).
    ///
    /// # Errors
    /// Those of ioctl(2) and getsockname(2).
    ///
    /// # Panics
    /// When called outside a reactor.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        let core = Core::expect();
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        Ok(Self {
            source: Source::new(core, listener.into())?,
            local_addr,
        })
    }

    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits for a connection. One waiter at a time. Dropping the future loses no connection.
    ///
    /// # Errors
    /// Those of accept(2) that do not concern a single connection, for instance too many open files: the caller
    /// should pause before it tries again.
    pub async fn accept(&self) -> io::Result<Accepted> {
        loop {
            match rustix::net::acceptfrom_with(self.source.fd(), SocketFlags::CLOEXEC) {
                Ok((fd, Some(peer))) => {
                    let peer_addr = SocketAddr::try_from(peer)?;
                    return Ok(Accepted { fd, peer_addr });
                }
                Ok((_, None)) => {}
                Err(Errno::AGAIN) => {
                    self.source.not_ready(Interest::Read);
                    self.source.ready(Interest::Read).await?;
                }
                // accept(2): errors of the connection that was pending, to be treated like EAGAIN.
                Err(
                    Errno::INTR
                    | Errno::CONNABORTED
                    | Errno::PROTO
                    | Errno::NETDOWN
                    | Errno::NOPROTOOPT
                    | Errno::HOSTDOWN
                    | Errno::NONET
                    | Errno::HOSTUNREACH
                    | Errno::NETUNREACH,
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Accepted {
    /// The address of the other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// Makes it a stream of the reactor of this thread.
    ///
    /// # Errors
    /// Those of epoll_ctl(2) and getsockname(2).
    ///
    /// # Panics
    /// When called outside a reactor.
    pub fn into_stream(self) -> io::Result<TcpStream> {
        TcpStream::new(Core::expect(), self.fd, self.peer_addr)
    }
}

pub(super) fn family(addr: SocketAddr) -> AddressFamily {
    match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

/// A connected socket to `addr`, in blocking mode.
pub(super) async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let core = Core::expect();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family(addr), SocketType::STREAM, flags, Some(ipproto::TCP))?;
    let connected = rustix::net::connect(&fd, &addr);
    let stream = TcpStream::new_unconnected(core, fd, addr)?;
    match connected {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => stream.wait_connected().await?,
        Err(error) => return Err(error.into()),
    }
    ioctl_fionbio(stream.fd(), false)?;
    stream.connected()
}
