//! An io_uring and the operations in flight on it.
//!
//! Invariant: from the moment an entry is in the submission queue until its completion was taken from the
//! completion queue, the [`Request`] it points into stays in the slab `ops`, untouched. Nothing hands out a
//! reference to it meanwhile; a caller that loses interest only marks it. A ring that is dropped with operations
//! in flight leaks them rather than freeing memory the kernel may write.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use slab::Slab;

use crate::file::DeviceFd;

/// Completion of an entry nobody waits for (a cancellation).
const UNOWNED: u64 = u64::MAX;
/// Completion of the poll on the wake-up eventfd.
const WAKE: u64 = u64::MAX - 1;
/// Most bytes of one read, write or reception.
const MAX_TRANSFER_BYTES: usize = 1 << 30;
/// How long a ring that stops waits for the kernel to finish what is in flight: longer than a disk that works takes. What
/// hangs may do so for ever.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// An operation with everything the kernel needs for it.
#[derive(Debug)]
pub(crate) enum Request {
    /// Wait until one of `events` (`POLLIN`, …) holds.
    Poll { fd: Arc<OwnedFd>, events: u32 },
    /// Receive into the spare capacity of `buf`; its length grows by the result.
    Recv { fd: Arc<OwnedFd>, buf: BytesMut },
    /// Read into `buf[filled_bytes..]`.
    Read {
        fd: Arc<DeviceFd>,
        offset_bytes: u64,
        buf: BytesMut,
        filled_bytes: usize,
    },
    /// Write `data`.
    Write {
        fd: Arc<DeviceFd>,
        offset_bytes: u64,
        data: Bytes,
    },
    /// fdatasync.
    Datasync { fd: Arc<DeviceFd> },
    /// fallocate.
    Allocate {
        fd: Arc<DeviceFd>,
        mode: FallocateFlags,
        offset_bytes: u64,
        length_bytes: u64,
    },
}

/// What became of a request, which comes back with it.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) result: Result<usize, Errno>,
    pub(crate) request: Request,
}

/// Names one operation of one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpId {
    key: u32,
    generation: u32,
}

impl OpId {
    fn user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.key)
    }
}

enum State {
    InFlight(Option<Waker>),
    Abandoned,
    Done(Result<usize, Errno>),
}

struct Op {
    generation: u32,
    state: State,
    request: Request,
}

/// An io_uring with its operations. Used by one thread only.
pub(crate) struct Ring {
    uring: ManuallyDrop<IoUring>,
    ops: ManuallyDrop<Slab<Op>>,
    /// Operations in flight: entries of `ops` that the kernel may still touch.
    in_flight: usize,
    next_generation: u32,
    /// Entries that did not fit into the submission queue.
    backlog: VecDeque<squeue::Entry>,
    /// Wakers and requests to be woken and dropped once the ring is not borrowed.
    woken: Vec<Waker>,
    released: Vec<Request>,
    wake_fd: Arc<OwnedFd>,
    wake_armed: bool,
    wake_seen: bool,
    drained: bool,
}

impl Ring {
    /// Sets up a ring for the calling thread, with the newest task-run mode that the kernel has.
    pub(crate) fn new(entries: u32, wake_fd: Arc<OwnedFd>) -> io::Result<Self> {
        let completions = entries.saturating_mul(8);
        let newest = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions)
            .build(entries);
        let uring = match newest {
            // Linux before 6.1 does not know these flags.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                IoUring::builder()
                    .setup_clamp()
                    .setup_cqsize(completions)
                    .build(entries)?
            }
            other => other?,
        };
        let params = uring.params();
        if !(params.is_feature_nodrop()
            && params.is_feature_ext_arg()
            && params.is_feature_fast_poll())
        {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel's io_uring is too old (Linux 5.11 is needed)",
            ));
        }
        Ok(Self {
            uring: ManuallyDrop::new(uring),
            ops: ManuallyDrop::new(Slab::new()),
            in_flight: 0,
            next_generation: 0,
            backlog: VecDeque::new(),
            woken: Vec::new(),
            released: Vec::new(),
            wake_fd,
            wake_armed: false,
            wake_seen: false,
            drained: false,
        })
    }

    /// Starts an operation; it reaches the kernel with the next [`Ring::enter`] at the latest.
    pub(crate) fn start(&mut self, request: Request) -> OpId {
        // Fewer than 2^31 generations in flight at once: `u64::MAX` and its neighbour stay free.
        self.next_generation = (self.next_generation + 1) & (u32::MAX >> 1);
        let generation = self.next_generation;
        let key = self.ops.insert(Op {
            generation,
            state: State::InFlight(None),
            request,
        });
        let id = OpId {
            key: u32::try_from(key).unwrap_or_else(|_| panic!("2^32 operations in flight")),
            generation,
        };
        let entry = entry_for(&mut self.ops[key].request).user_data(id.user_data());
        self.in_flight += 1;
        self.push(entry);
        id
    }

    /// Gives the completion of `id` once, when it is there; else `context` is woken when it comes.
    pub(crate) fn poll(&mut self, id: OpId, context: &Context<'_>) -> Poll<Completion> {
        let op = self
            .op(id)
            .unwrap_or_else(|| panic!("an operation is polled after its completion"));
        match &mut op.state {
            State::Done(result) => {
                let result = *result;
                let op = self.ops.remove(id.key as usize);
                Poll::Ready(Completion {
                    result,
                    request: op.request,
                })
            }
            State::InFlight(waker) => {
                match waker {
                    Some(waker) if waker.will_wake(context.waker()) => {}
                    other => *other = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Abandoned => panic!("an abandoned operation is polled"),
        }
    }

    /// Nobody will ask for `id` again: its request is dropped when the kernel is done with it; what waits for a
    /// peer is cancelled. Returns the request if it is done already, to be dropped by the caller.
    pub(crate) fn abandon(&mut self, id: OpId) -> Option<Request> {
        let op = self.op(id)?;
        if matches!(op.state, State::Done(_)) {
            return Some(self.ops.remove(id.key as usize).request);
        }
        op.state = State::Abandoned;
        if op.request.is_cancellable() {
            let entry = opcode::AsyncCancel::new(id.user_data())
                .build()
                .user_data(UNOWNED);
            self.push(entry);
        }
        None
    }

    fn op(&mut self, id: OpId) -> Option<&mut Op> {
        self.ops
            .get_mut(id.key as usize)
            .filter(|op| op.generation == id.generation)
    }

    fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            self.backlog.push_back(entry);
            self.flush_backlog();
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: entries are made by `entry_for` from a request in `ops`, where it stays until its completion
        // was taken (see the invariant above), or refer to no memory (cancellation, poll of the wake-up fd, which
        // lives as long as the ring).
        unsafe { self.uring.submission().push(entry).is_ok() }
    }

    /// Makes room by submitting; what the kernel cannot take now stays in the backlog for the next `enter`.
    fn flush_backlog(&mut self) {
        loop {
            let submitted = match self.uring.submit() {
                Ok(count) => count,
                Err(error) => {
                    if !retry_later(&error) {
                        tracing::error!(%error, "io_uring refuses submissions");
                    }
                    0
                }
            };
            self.reap();
            while let Some(entry) = self.backlog.pop_front() {
                if !self.try_push(&entry) {
                    self.backlog.push_front(entry);
                    break;
                }
            }
            if self.backlog.is_empty() || submitted == 0 {
                return;
            }
        }
    }

    /// Submits what is queued and waits for a completion, for `timeout` at most (`None`: forever; zero: not at
    /// all). Wakers are collected for [`Ring::take_woken`].
    pub(crate) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.wake_armed {
            let entry = opcode::PollAdd::new(Fd(self.wake_fd.as_raw_fd()), u32::from(POLLIN))
                .build()
                .user_data(WAKE);
            self.wake_armed = true;
            self.push(entry);
        }
        if !self.backlog.is_empty() {
            self.flush_backlog();
        }
        let nothing_done = self.uring.completion().is_empty();
        let result = match timeout {
            None if nothing_done && self.backlog.is_empty() => self.uring.submit_and_wait(1),
            Some(time) if nothing_done && self.backlog.is_empty() && !time.is_zero() => {
                let time = Timespec::from(time);
                let args = SubmitArgs::new().timespec(&time);
                self.uring.submitter().submit_with_args(1, &args)
            }
            _ => {
                let queue = self.uring.submission();
                let needed = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
                drop(queue);
                if needed { self.uring.submit() } else { Ok(0) }
            }
        };
        self.reap();
        match result {
            Ok(_) => Ok(()),
            Err(error) if retry_later(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Looks at shared memory only: completions, or work of the kernel's that waits for us to enter.
    pub(crate) fn has_events(&mut self) -> bool {
        !self.uring.completion().is_empty() || self.uring.submission().taskrun()
    }

    fn reap(&mut self) {
        let mut queue = self.uring.completion();
        for completion in &mut queue {
            match completion.user_data() {
                UNOWNED => continue,
                WAKE => {
                    self.wake_armed = false;
                    self.wake_seen = true;
                    continue;
                }
                _ => {}
            }
            let key = (completion.user_data() & u64::from(u32::MAX)) as usize;
            let Some(op) = self.ops.get_mut(key) else {
                tracing::error!(key, "io_uring completes an unknown operation");
                continue;
            };
            self.in_flight -= 1;
            let result = match usize::try_from(completion.result()) {
                Ok(count) => Ok(count),
                Err(_) => Err(Errno::from_raw_os_error(completion.result().wrapping_neg())),
            };
            if let (Ok(count), Request::Recv { buf, .. }) = (result, &mut op.request) {
                let length = buf.len() + count;
                // SAFETY: the kernel says that it has written `count` bytes at the start of the spare capacity.
                unsafe { buf.set_len(length) };
            }
            match std::mem::replace(&mut op.state, State::Done(result)) {
                State::InFlight(waker) => self.woken.extend(waker),
                State::Abandoned => self.released.push(self.ops.remove(key).request),
                State::Done(_) => tracing::error!(key, "io_uring completes an operation twice"),
            }
        }
    }

    /// What is to be woken and dropped by the caller, and whether another thread called.
    pub(crate) fn take_woken(
        &mut self,
        woken: &mut Vec<Waker>,
        released: &mut Vec<Request>,
    ) -> bool {
        woken.append(&mut self.woken);
        released.append(&mut self.released);
        std::mem::take(&mut self.wake_seen)
    }

    /// Cancels what can be cancelled and waits for a while until the kernel has given everything back, once. All
    /// operations count as abandoned.
    pub(crate) fn drain(&mut self) {
        if std::mem::replace(&mut self.drained, true) {
            return;
        }
        let deadline = std::time::Instant::now() + DRAIN_PATIENCE;
        let keys: Vec<OpId> = self
            .ops
            .iter()
            .map(|(key, op)| OpId {
                key: key as u32, // it came from a u32 in `start`
                generation: op.generation,
            })
            .collect();
        for id in keys {
            drop(self.abandon(id));
        }
        while self.in_flight > 0 {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.enter(Some(left)).is_err() {
                break;
            }
            self.released.clear();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.drain();
        if self.in_flight > 0 {
            tracing::error!(
                count = self.in_flight,
                "I/O does not end; its memory is given up"
            );
            return;
        }
        // SAFETY: both are dropped once, here, and not used afterwards; no operation is in flight.
        unsafe {
            ManuallyDrop::drop(&mut self.uring);
            ManuallyDrop::drop(&mut self.ops);
        }
    }
}

impl Request {
    /// True for what waits for a peer; a file operation ends by itself and is let run.
    pub(crate) fn is_cancellable(&self) -> bool {
        matches!(self, Self::Poll { .. } | Self::Recv { .. })
    }
}

/// `POLLIN` of poll(2).
const POLLIN: u16 = 1;

/// True when the kernel asks to come again: interrupted, out of time, or short of room for completions.
fn retry_later(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::INTR | Errno::TIME | Errno::BUSY | Errno::AGAIN)
    )
}

/// The submission entry of a request. Its pointers are into the heap memory of the request's buffer, which does
/// not move with the request.
fn entry_for(request: &mut Request) -> squeue::Entry {
    let length = |bytes: usize| bytes.min(MAX_TRANSFER_BYTES) as u32; // at most 2^30
    match request {
        Request::Poll { fd, events } => opcode::PollAdd::new(Fd(fd.as_raw_fd()), *events).build(),
        Request::Recv { fd, buf } => {
            let spare = buf.spare_capacity_mut();
            opcode::Recv::new(
                Fd(fd.as_raw_fd()),
                spare.as_mut_ptr().cast(),
                length(spare.len()),
            )
            .build()
        }
        Request::Read {
            fd,
            offset_bytes,
            buf,
            filled_bytes,
        } => {
            let rest = &mut buf[*filled_bytes..];
            opcode::Read::new(Fd(fd.as_raw_fd()), rest.as_mut_ptr(), length(rest.len()))
                .offset(*offset_bytes)
                .build()
        }
        Request::Write {
            fd,
            offset_bytes,
            data,
        } => opcode::Write::new(Fd(fd.as_raw_fd()), data.as_ptr(), length(data.len()))
            .offset(*offset_bytes)
            .build(),
        Request::Datasync { fd } => opcode::Fsync::new(Fd(fd.as_raw_fd()))
            .flags(FsyncFlags::DATASYNC)
            .build(),
        Request::Allocate {
            fd,
            mode,
            offset_bytes,
            length_bytes,
        } => opcode::Fallocate::new(Fd(fd.as_raw_fd()), *length_bytes)
            .offset(*offset_bytes)
            .mode(mode.bits() as i32) // a few low bits
            .build(),
    }
}
