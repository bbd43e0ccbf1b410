//! `io-uring` by hand, as little code as it takes: the bound that a runtime of our own can reach. Reads go through
//! the ring or are done inline (`preadv2(RWF_NOWAIT)`); answers go through the ring or directly.
#![allow(unsafe_code)]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use io_uring::{IoUring, opcode, squeue::Entry, types::Fd};
use rustix::net::{SendFlags, send};

use crate::protocol::{
    ANSWER_BYTES, BLOCK_BYTES, HEADER_BYTES, RECV_BYTES, offset_bytes, read_inline,
};

/// What goes through the ring besides reception.
#[derive(Clone, Copy)]
pub struct Mode {
    pub ring_read: bool,
    pub ring_send: bool,
}

const ACCEPT: u64 = u64::MAX;
const RECV: u64 = 0;
const SEND: u64 = 1;
const READ: u64 = 2;

struct Connection {
    stream: TcpStream,
    buf: Vec<u8>,
    filled: usize,
    answers: Vec<u8>,
    sent: usize,
    reads_pending: usize,
}

struct Server {
    ring: IoUring,
    file: File,
    mode: Mode,
    connections: Vec<Option<Box<Connection>>>,
}

/// Serves until the process ends.
pub fn serve(listener: TcpListener, path: &Path, mode: Mode) -> Result<()> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(2048)
        .build(256)?;
    let mut server = Server {
        ring,
        file: File::open(path)?,
        mode,
        connections: Vec::new(),
    };
    let accept = opcode::Accept::new(
        Fd(listener.as_raw_fd()),
        std::ptr::null_mut(),
        std::ptr::null_mut(),
    );
    let accept = accept.build().user_data(ACCEPT);
    server.push(&accept)?;
    loop {
        server.ring.submit_and_wait(1)?;
        loop {
            let next = server.ring.completion().next();
            let Some(completion) = next else { break };
            let result = completion.result();
            if completion.user_data() == ACCEPT {
                server.accepted(result)?;
                server.push(&accept)?;
                continue;
            }
            server.completed(completion.user_data(), result)?;
        }
    }
}

impl Server {
    fn push(&mut self, entry: &Entry) -> Result<()> {
        // SAFETY: buffers belong to boxed connections, which are only dropped after their last completion (a
        // connection ends with a reception of 0 bytes, when nothing else of it is in flight).
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn accepted(&mut self, result: i32) -> Result<()> {
        if result < 0 {
            bail!("accept: {}", std::io::Error::from_raw_os_error(-result));
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let stream: TcpStream = unsafe { std::os::fd::FromRawFd::from_raw_fd(result) };
        stream.set_nodelay(true)?;
        self.connections.push(Some(Box::new(Connection {
            stream,
            buf: vec![0; RECV_BYTES],
            filled: 0,
            answers: Vec::with_capacity(RECV_BYTES / HEADER_BYTES * ANSWER_BYTES),
            sent: 0,
            reads_pending: 0,
        })));
        self.receive(self.connections.len() - 1)
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        let connection = self.connections[index].as_mut().context("no connection")?;
        let space = &mut connection.buf[connection.filled..];
        let fd = Fd(connection.stream.as_raw_fd());
        let entry = opcode::Recv::new(fd, space.as_mut_ptr(), space.len() as u32).build();
        self.push(&entry.user_data((index as u64) << 8 | RECV))
    }

    fn completed(&mut self, user_data: u64, result: i32) -> Result<()> {
        let index = (user_data >> 8) as usize;
        if result < 0 {
            bail!("operation: {}", std::io::Error::from_raw_os_error(-result));
        }
        let count = result as usize;
        match user_data & 0xff {
            RECV if count == 0 => {
                self.connections[index] = None;
                Ok(())
            }
            RECV => self.received(index, count),
            READ => {
                let connection = self.connections[index].as_mut().context("no connection")?;
                connection.reads_pending -= 1;
                if connection.reads_pending == 0 {
                    self.answer(index)?;
                }
                Ok(())
            }
            _ => {
                let connection = self.connections[index].as_mut().context("no connection")?;
                connection.sent += count;
                if connection.sent < connection.answers.len() {
                    return self.send_by_ring(index);
                }
                self.receive(index)
            }
        }
    }

    fn received(&mut self, index: usize, count: usize) -> Result<()> {
        let mode = self.mode;
        let connection = self.connections[index].as_mut().context("no connection")?;
        connection.filled += count;
        let complete = connection.filled / HEADER_BYTES;
        connection.answers.clear();
        connection.answers.resize(complete * ANSWER_BYTES, 0);
        connection.sent = 0;
        let mut reads = Vec::new();
        for at in 0..complete {
            let request = &connection.buf[at * HEADER_BYTES..][..HEADER_BYTES];
            let answer = &mut connection.answers[at * ANSWER_BYTES..][..ANSWER_BYTES];
            answer[..HEADER_BYTES].copy_from_slice(request);
            let block = &mut answer[HEADER_BYTES..];
            let offset = offset_bytes(request);
            if mode.ring_read {
                let read = opcode::Read::new(
                    Fd(self.file.as_raw_fd()),
                    block.as_mut_ptr(),
                    BLOCK_BYTES as u32,
                );
                let entry = read.offset(offset).build();
                reads.push(entry.user_data((index as u64) << 8 | READ));
            } else {
                read_inline(&self.file, offset, block)?;
            }
        }
        connection
            .buf
            .copy_within(complete * HEADER_BYTES..connection.filled, 0);
        connection.filled -= complete * HEADER_BYTES;
        connection.reads_pending = reads.len();
        for read in &reads {
            self.push(read)?;
        }
        if reads.is_empty() {
            self.answer(index)?;
        }
        Ok(())
    }

    fn answer(&mut self, index: usize) -> Result<()> {
        if self.mode.ring_send {
            return self.send_by_ring(index);
        }
        let connection = self.connections[index].as_mut().context("no connection")?;
        while connection.sent < connection.answers.len() {
            let rest = &connection.answers[connection.sent..];
            connection.sent += send(&connection.stream, rest, SendFlags::NOSIGNAL)?;
        }
        self.receive(index)
    }

    fn send_by_ring(&mut self, index: usize) -> Result<()> {
        let connection = self.connections[index].as_mut().context("no connection")?;
        let rest = &connection.answers[connection.sent..];
        let fd = Fd(connection.stream.as_raw_fd());
        let entry = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32).build();
        self.push(&entry.user_data((index as u64) << 8 | SEND))
    }
}
