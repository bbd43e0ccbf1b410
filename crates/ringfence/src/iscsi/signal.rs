//! A wake-up call between the parts of one connection: they live in one thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Remembers one call until somebody waits for it. One waiter at a time.
#[derive(Default)]
pub(super) struct Signal {
    called: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the waiter, or the next one.
    pub(super) fn call(&self) {
        self.called.set(true);
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Waits for a call since the last wait ended.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            if self.called.replace(false) {
                return Poll::Ready(());
            }
            self.waiter.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_call_before_the_wait_is_remembered_once() {
        block_on(async {
            let signal = Signal::default();
            signal.call();
            signal.call();
            signal.wait().await;
            assert!(poll_once(signal.wait()).await.is_none());
        });
    }
}
