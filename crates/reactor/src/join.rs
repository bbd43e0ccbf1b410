//! The result of a task, awaited from wherever.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Why a task has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The task was aborted, or its reactor shut down before it finished.
    #[error("the task was cancelled")]
    Cancelled,
    /// The task panicked; the text is the panic's message.
    #[error("the task panicked: {0}")]
    Panicked(String),
}

struct Slot<T> {
    result: Option<Result<T, JoinError>>,
    finished: bool,
    waker: Option<Waker>,
}

/// What the task and its [`JoinHandle`] share.
struct Shared<T> {
    slot: Mutex<Slot<T>>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        // Nothing panics while the lock is held, and the slot is valid at every point.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<T, JoinError>) {
        let waker = {
            let mut slot = self.lock();
            if slot.finished {
                return;
            }
            slot.finished = true;
            slot.result = Some(result);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The task's end: gives the result, or [`JoinError::Cancelled`] when dropped without one.
pub(crate) struct Completer<T>(Arc<Shared<T>>);

impl<T> Completer<T> {
    pub(crate) fn finish(self, result: Result<T, JoinError>) {
        self.0.finish(result);
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        self.0.finish(Err(JoinError::Cancelled));
    }
}

/// Stops the task it belongs to; the executor's business.
pub(crate) type Abort = Arc<dyn Fn() + Send + Sync>;

/// The owner's end of a task: a future of its result. Dropping it lets the task run on.
pub struct JoinHandle<T> {
    shared: Arc<Shared<T>>,
    abort: Option<Abort>,
}

/// A completer and the handle that it completes.
pub(crate) fn pair<T>() -> (Completer<T>, JoinHandle<T>) {
    let shared = Arc::new(Shared {
        slot: Mutex::new(Slot {
            result: None,
            finished: false,
            waker: None,
        }),
    });
    (
        Completer(shared.clone()),
        JoinHandle {
            shared,
            abort: None,
        },
    )
}

impl<T> JoinHandle<T> {
    pub(crate) fn with_abort(mut self, abort: Abort) -> Self {
        self.abort = Some(abort);
        self
    }

    /// True when the task has finished, was aborted, or panicked.
    pub fn is_finished(&self) -> bool {
        self.shared.lock().finished
    }

    /// Drops the task's future at the next opportunity, on its own reactor. The handle then gives
    /// [`JoinError::Cancelled`], unless the task finished first. Work of [`unblock`](crate::unblock) is not
    /// interrupted.
    pub fn abort(&self) {
        if let Some(abort) = &self.abort {
            abort();
        }
    }

    /// Blocks the calling thread until the task is done. Not for use on a reactor thread: it would stop every
    /// task there.
    pub fn wait(mut self) -> Result<T, JoinError> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.shared.lock();
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        if slot.finished {
            // Polled again after it gave its result: there is nothing more to come.
            return Poll::Ready(Err(JoinError::Cancelled));
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
