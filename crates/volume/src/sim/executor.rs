//! The scheduler: futures of one thread, in an order that follows from the seed, on a clock that jumps.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use super::SimWorld;

/// Rounds of ready futures after which time goes on although some are always ready (one that yields in a loop).
const ROUNDS_WITHOUT_TIME: u32 = 8;

type Boxed = Pin<Box<dyn Future<Output = ()>>>;
type Ready = Arc<Mutex<Vec<u64>>>;

/// Number of the future that [`SimWorld::run`] was called with.
const MAIN: u64 = 0;

struct TaskWaker {
    number: u64,
    /// In the list already.
    queued: AtomicBool,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.ready.lock().push(self.number);
        }
    }
}

struct Spawned {
    /// Away while it is polled.
    future: Option<Boxed>,
    waker: Arc<TaskWaker>,
}

struct Scheduler {
    world: SimWorld,
    ready: Ready,
    tasks: RefCell<BTreeMap<u64, Spawned>>,
    next: RefCell<u64>,
}

thread_local! {
    /// The runs of this thread, the innermost last.
    static RUNS: RefCell<Vec<Rc<Scheduler>>> = const { RefCell::new(Vec::new()) };
}

fn current() -> Option<Rc<Scheduler>> {
    RUNS.with_borrow(|runs| runs.last().cloned())
}

/// Random bits for an identity, from the chance of the world that runs; `None` outside of a run.
pub(crate) fn identity_bits() -> Option<[u8; 16]> {
    let scheduler = current()?;
    let mut inner = scheduler.world.inner.lock();
    let bits = u128::from(inner.random.bits()) << 64 | u128::from(inner.random.bits());
    Some(bits.to_le_bytes())
}

/// A future that was given to [`spawn`]; awaited, it gives its result. Dropped, the future goes on.
pub struct Task<T> {
    number: u64,
    shared: Rc<RefCell<Shared<T>>>,
    scheduler: Rc<Scheduler>,
}

struct Shared<T> {
    result: Option<T>,
    waker: Option<Waker>,
}

impl<T> Task<T> {
    /// Drops the future where it stands.
    pub fn cancel(self) {
        let spawned = self.scheduler.tasks.borrow_mut().remove(&self.number);
        drop(spawned);
    }

    /// Whether its result is there.
    pub fn is_done(&self) -> bool {
        self.shared.borrow().result.is_some()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut shared = self.shared.borrow_mut();
        match shared.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                shared.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Runs `future` beside the others of the [`SimWorld::run`] that this is called in. It ends with the run at the latest.
///
/// # Panics
/// Outside of a run.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let Some(scheduler) = current() else {
        panic!("sim::spawn is called in SimWorld::run only");
    };
    let shared = Rc::new(RefCell::new(Shared {
        result: None,
        waker: None,
    }));
    let theirs = shared.clone();
    let future = Box::pin(async move {
        let result = future.await;
        let waker = {
            let mut shared = theirs.borrow_mut();
            shared.result = Some(result);
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    });
    let number = {
        let mut next = scheduler.next.borrow_mut();
        *next += 1;
        *next
    };
    let waker = scheduler.waker(number);
    waker.wake_by_ref();
    let spawned = Spawned {
        future: Some(future),
        waker,
    };
    scheduler.tasks.borrow_mut().insert(number, spawned);
    Task {
        number,
        shared,
        scheduler,
    }
}

impl Scheduler {
    fn waker(&self, number: u64) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            number,
            queued: AtomicBool::new(false),
            ready: self.ready.clone(),
        })
    }

    /// Polls a spawned future, unless it is gone.
    fn poll(&self, number: u64) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(spawned) = tasks.get_mut(&number) else {
            return;
        };
        let Some(mut future) = spawned.future.take() else {
            return;
        };
        let waker = spawned.waker.clone();
        drop(tasks);
        waker.queued.store(false, Ordering::SeqCst);
        let waker = Waker::from(waker);
        let done = future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        let mut tasks = self.tasks.borrow_mut();
        if done {
            tasks.remove(&number);
        } else if let Some(spawned) = tasks.get_mut(&number) {
            spawned.future = Some(future);
            return;
        }
        drop(tasks);
        // Cancelled by itself, or done: dropped without a borrow, for its drop may call the scheduler.
        drop(future);
    }
}

/// Ends a run whatever ends it.
struct Run {
    scheduler: Rc<Scheduler>,
    was_scheduled: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        // While they are dropped, futures may look for the scheduler.
        loop {
            let spawned = self.scheduler.tasks.borrow_mut().pop_first();
            match spawned {
                Some(spawned) => drop(spawned),
                None => break,
            }
        }
        self.scheduler.world.inner.lock().scheduled = self.was_scheduled;
        RUNS.with_borrow_mut(|runs| runs.pop());
    }
}

impl SimWorld {
    /// Runs `main`, and beside it what it [`spawn`]s, until `main` ends; whatever else runs is dropped then, as by the
    /// death of the process. Runs of different worlds may be nested.
    ///
    /// # Panics
    /// When nothing can go on: everything waits, nothing is in flight that ends and nobody sleeps.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let scheduler = Rc::new(Scheduler {
            world: self.clone(),
            ready: Ready::default(),
            tasks: RefCell::default(),
            next: RefCell::new(MAIN),
        });
        let run = Run {
            scheduler: scheduler.clone(),
            was_scheduled: std::mem::replace(&mut self.inner.lock().scheduled, true),
        };
        RUNS.with_borrow_mut(|runs| runs.push(scheduler.clone()));
        // After `run`, so that it is dropped before it.
        let mut main = pin!(main);
        let main_waker = scheduler.waker(MAIN);
        main_waker.wake_by_ref();
        let mut rounds = 0;
        loop {
            let mut ready = std::mem::take(&mut *scheduler.ready.lock());
            if ready.is_empty() || rounds >= ROUNDS_WITHOUT_TIME {
                scheduler.ready.lock().append(&mut ready);
                let (went_on, waker) = self.inner.lock().advance();
                let idle = scheduler.ready.lock().is_empty();
                assert!(
                    went_on || !idle,
                    "nothing can go on: {}",
                    self.inner.lock().stuck()
                );
                if let Some(waker) = waker {
                    waker.wake();
                }
                rounds = 0;
                continue;
            }
            rounds += 1;
            self.inner.lock().random.shuffle(&mut ready);
            for number in ready {
                if number != MAIN {
                    scheduler.poll(number);
                    continue;
                }
                main_waker.queued.store(false, Ordering::SeqCst);
                let waker = Waker::from(main_waker.clone());
                if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    drop(run);
                    return result;
                }
            }
        }
    }
}
