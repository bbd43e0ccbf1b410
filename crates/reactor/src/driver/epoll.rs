//! The fall-back for sockets: edge-triggered epoll. Files go to the pool.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

use super::{Interest, WakeFd};

/// Epoll data of the wake-up eventfd.
const WAKE: u64 = u64::MAX;
/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// One side of a socket. Optimistic: ready until the kernel says otherwise.
struct Side {
    ready: bool,
    waker: Option<Waker>,
}

impl Side {
    const READY: Self = Self {
        ready: true,
        waker: None,
    };

    fn fire(&mut self, woken: &mut Vec<Waker>) {
        self.ready = true;
        woken.extend(self.waker.take());
    }
}

struct Slot {
    read: Side,
    write: Side,
}

impl Slot {
    fn side(&mut self, interest: Interest) -> &mut Side {
        match interest {
            Interest::Read => &mut self.read,
            Interest::Write => &mut self.write,
        }
    }
}

/// An epoll instance and the sockets it watches.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    wake_fd: WakeFd,
    slots: RefCell<Slab<Slot>>,
    scratch: RefCell<Vec<Waker>>,
}

impl Epoll {
    pub(super) fn new(wake_fd: WakeFd) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &*wake_fd.0,
            EventData::new_u64(WAKE),
            EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            wake_fd,
            slots: RefCell::new(Slab::new()),
            scratch: RefCell::default(),
        })
    }

    pub(super) fn wake_fd(&self) -> WakeFd {
        self.wake_fd.clone()
    }

    pub(super) fn register(&self, fd: &OwnedFd) -> io::Result<usize> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.insert(Slot {
            read: Side::READY,
            write: Side::READY,
        });
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let added = epoll::add(&self.epoll, fd, EventData::new_u64(slot as u64), flags);
        if let Err(error) = added {
            slots.remove(slot);
            return Err(error.into());
        }
        Ok(slot)
    }

    pub(super) fn deregister(&self, slot: usize, fd: &OwnedFd) {
        // It is there, unless the kernel forgot it with its last descriptor.
        let _ = epoll::delete(&self.epoll, fd);
        let removed = self.slots.borrow_mut().try_remove(slot);
        drop(removed);
    }

    pub(super) fn poll_ready(
        &self,
        slot: usize,
        interest: Interest,
        context: &Context<'_>,
    ) -> Poll<()> {
        let mut slots = self.slots.borrow_mut();
        let side = slots[slot].side(interest); // a source's slot lives as long as the source
        if side.ready {
            return Poll::Ready(());
        }
        match &side.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => side.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    pub(super) fn clear_ready(&self, slot: usize, interest: Interest) {
        self.slots.borrow_mut()[slot].side(interest).ready = false;
    }

    pub(super) fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut space = [MaybeUninit::<Event>::uninit(); EVENTS];
        let events = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut woken = self.scratch.take();
        for event in events.iter() {
            let (data, flags) = (event.data, event.flags);
            if data.u64() == WAKE {
                self.wake_fd.clear();
                continue;
            }
            let mut slots = self.slots.borrow_mut();
            // A slot that was given away between two events gets a wake-up too many, which does no harm.
            let Some(slot) = usize::try_from(data.u64())
                .ok()
                .and_then(|key| slots.get_mut(key))
            else {
                continue;
            };
            let broken = EventFlags::HUP | EventFlags::ERR;
            if flags.intersects(EventFlags::IN | EventFlags::RDHUP | broken) {
                slot.read.fire(&mut woken);
            }
            if flags.intersects(EventFlags::OUT | broken) {
                slot.write.fire(&mut woken);
            }
        }
        for waker in woken.drain(..) {
            waker.wake();
        }
        self.scratch.replace(woken);
        Ok(())
    }
}
