//! The TCP side: writes that never block, reads that block for a while.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

/// How long a read waits before the caller looks at its deadlines again.
const TICK: Duration = Duration::from_millis(100);

/// The most slices given to the kernel at once.
const MAX_SLICES: usize = 64;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// Chunks that are not yet written.
    pub pending: VecDeque<Bytes>,
}

impl Socket {
    pub fn connect(portal: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&portal, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        Ok(Self {
            stream,
            pending: VecDeque::new(),
        })
    }

    /// The addresses of this end and of the target.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.stream.local_addr()?, self.stream.peer_addr()?))
    }

    /// Writes what the kernel takes without waiting.
    pub fn write(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.pending) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let mut none = SendAncillaryBuffer::default();
            match sendmsg(&self.stream, &slices[..count], &mut none, flags) {
                Ok(written) => self.advance(written),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(chunk) = self.pending.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.pending.pop_front();
        }
    }

    /// Waits a while for bytes (or, while output is pending, for room to write). `None`: nothing came; `Some(0)`: the
    /// other end has closed.
    pub fn read(&mut self, buffer: &mut [u8], until: Instant) -> io::Result<Option<usize>> {
        if !self.pending.is_empty() {
            let wait = until.saturating_duration_since(Instant::now()).min(TICK);
            let timeout = Timespec {
                tv_sec: 0,
                // At most TICK, which is less than a second.
                tv_nsec: i64::from(wait.subsec_nanos()),
            };
            let mut fds = [PollFd::new(&self.stream, PollFlags::IN | PollFlags::OUT)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
            if !fds[0].revents().intersects(readable) {
                return Ok(None);
            }
        }
        match self.stream.read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }
}
