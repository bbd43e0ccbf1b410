//! The io_uring backend.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::WakeFd;
use crate::sys::{Completion, OpId, Request, Ring};

/// A ring, borrowed for moments only: wakers run and buffers are dropped outside of the borrow.
pub(crate) struct RingDriver {
    ring: RefCell<Ring>,
    wake_fd: WakeFd,
    scratch: RefCell<(Vec<Waker>, Vec<Request>)>,
}

impl RingDriver {
    pub(super) fn new(entries: u32, wake_fd: WakeFd) -> io::Result<Self> {
        Ok(Self {
            ring: RefCell::new(Ring::new(entries, wake_fd.0.clone())?),
            wake_fd,
            scratch: RefCell::default(),
        })
    }

    pub(super) fn wake_fd(&self) -> WakeFd {
        self.wake_fd.clone()
    }

    pub(crate) fn start(&self, request: Request) -> OpId {
        self.ring.borrow_mut().start(request)
    }

    pub(crate) fn poll(&self, id: OpId, context: &Context<'_>) -> Poll<Completion> {
        self.ring.borrow_mut().poll(id, context)
    }

    pub(crate) fn abandon(&self, id: OpId) {
        let request = self.ring.borrow_mut().abandon(id);
        drop(request);
    }

    pub(super) fn park(&self, timeout: Option<Duration>) -> io::Result<()> {
        // Taken out, so that a destructor may come back here; capacity is kept.
        let (mut woken, mut released) = self.scratch.take();
        let result = {
            let mut ring = self.ring.borrow_mut();
            let result = ring.enter(timeout);
            if ring.take_woken(&mut woken, &mut released) {
                self.wake_fd.clear();
            }
            result
        };
        for waker in woken.drain(..) {
            waker.wake();
        }
        released.clear();
        self.scratch.replace((woken, released));
        result
    }

    pub(super) fn has_events(&self) -> bool {
        self.ring.borrow_mut().has_events()
    }

    pub(super) fn drain(&self) {
        self.ring.borrow_mut().drain();
    }
}
