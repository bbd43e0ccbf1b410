//! Several futures of one thread, each with a key, polled only when they were woken.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Notes that its task is to be polled and wakes whoever polls the set.
struct Flag {
    woken: AtomicBool,
    set: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        let waker = self.set.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Running<'a> {
    flag: Arc<Flag>,
    future: Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// The set. Dropping it drops what runs in it.
pub(super) struct Tasks<'a, K> {
    running: BTreeMap<K, Running<'a>>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl<'a, K: Ord + Copy> Tasks<'a, K> {
    pub(super) fn new() -> Self {
        Tasks {
            running: BTreeMap::new(),
            waker: Arc::new(Mutex::new(None)),
        }
    }

    /// Whether a task of this key runs.
    pub(super) fn has(&self, key: &K) -> bool {
        self.running.contains_key(key)
    }

    /// How many tasks run whose key `is` says yes to.
    pub(super) fn count(&self, is: impl Fn(&K) -> bool) -> usize {
        self.running.keys().filter(|key| is(key)).count()
    }

    /// Starts a task unless one of this key runs.
    pub(super) fn start(&mut self, key: K, future: impl Future<Output = ()> + 'a) {
        self.running.entry(key).or_insert_with(|| Running {
            flag: Arc::new(Flag {
                woken: AtomicBool::new(true),
                set: self.waker.clone(),
            }),
            future: Box::pin(future),
        });
    }

    /// Polls what was woken; ready when a task has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        *self.waker.lock() = Some(context.waker().clone());
        let mut ended = false;
        self.running.retain(|_, task| {
            if !task.flag.woken.swap(false, Ordering::SeqCst) {
                return true;
            }
            let waker = Waker::from(task.flag.clone());
            let done = task
                .future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready();
            ended |= done;
            !done
        });
        if ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Runs the tasks until `until` is ready.
    pub(super) async fn drive<T>(&mut self, until: impl Future<Output = T>) -> T {
        let mut until = std::pin::pin!(until);
        poll_fn(|context| {
            let _ = self.poll(context);
            until.as_mut().poll(context)
        })
        .await
    }

    /// Runs the tasks until one of them has ended or `until` is ready.
    pub(super) async fn run(&mut self, until: impl Future<Output = ()>) {
        let mut until = std::pin::pin!(until);
        poll_fn(|context| {
            let ended = self.poll(context).is_ready();
            let stop = until.as_mut().poll(context).is_ready();
            if ended || stop {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use event_listener::Event;
    use futures_lite::future::{block_on, pending};

    use super::*;

    #[test]
    fn tasks_run_beside_one_another_and_only_when_they_are_woken() {
        block_on(async {
            let go = Event::new();
            let polls = Cell::new(0);
            let done = Cell::new(false);
            let mut sleeper = Box::pin(async {
                go.listen().await;
                done.set(true);
            });
            let mut tasks = Tasks::new();
            tasks.start(
                1,
                poll_fn(|context| {
                    polls.set(polls.get() + 1);
                    sleeper.as_mut().poll(context)
                }),
            );
            tasks.start(2, pending());
            // A second one of a key is not started.
            tasks.start(2, async { unreachable!("started twice") });
            for key in 3..10 {
                tasks.start(key, async {});
                tasks.run(pending()).await;
                assert!(!tasks.has(&key));
            }
            assert_eq!(polls.get(), 1, "what was not woken is not polled");
            tasks.run(async {}).await;
            assert_eq!(tasks.count(|_| true), 2);
            go.notify(1);
            tasks.run(pending()).await;
            assert!(done.get() && !tasks.has(&1) && tasks.has(&2));
        });
    }
}
