//! The executor of one reactor: its tasks, its ready queue, and the loop that drives them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use slab::Slab;

use crate::config::Backend;
use crate::driver::{Driver, WakeFd};
use crate::join::{self, JoinHandle};
use crate::pool::{self, Pool};
use crate::time::Timers;

/// Tasks polled between two looks at the kernel.
const POLLS_PER_TURN: usize = 128;

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Makes a task on the reactor that it is sent to.
pub(crate) type Seed = Box<dyn FnOnce() -> (LocalFuture, Arc<Task>) + Send>;

/// What other threads send to a reactor.
enum Message {
    Wake(Arc<Task>),
    Spawn(Seed),
}

/// The part of a reactor that other threads see.
pub(crate) struct Shared {
    pub(crate) id: usize,
    pub(crate) backend: Backend,
    inbox: Mutex<Vec<Message>>,
    /// Set while the inbox has something, so that looking is one load.
    has_mail: AtomicBool,
    /// The reactor sleeps in the kernel, or is about to: mail must be announced through the eventfd.
    sleeping: AtomicBool,
    stopping: AtomicBool,
    closed: AtomicBool,
    /// TCP streams that live here: what connections are spread by.
    pub(crate) streams: AtomicUsize,
    wake_fd: WakeFd,
}

impl Shared {
    fn send(&self, message: Message) {
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if self.closed.load(Ordering::SeqCst) {
                drop(inbox);
                // The message is dropped here, outside the lock; a seed tells its handle.
                drop(message);
                return;
            }
            inbox.push(message);
            self.has_mail.store(true, Ordering::SeqCst);
        }
        self.rouse();
    }

    fn rouse(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.wake_fd.signal();
        }
    }

    pub(crate) fn spawn(&self, seed: Seed) {
        self.send(Message::Spawn(seed));
    }

    /// Asks the reactor to drop its tasks and return.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.rouse();
    }
}

/// A task's identity; its waker.
pub(crate) struct Task {
    reactor: Arc<Shared>,
    key: AtomicUsize,
    queued: AtomicBool,
    aborted: AtomicBool,
}

impl Task {
    fn new(reactor: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            reactor,
            key: AtomicUsize::new(usize::MAX),
            queued: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
        })
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let local = CURRENT.try_with(|current| {
            let current = current.borrow();
            match &*current {
                Some(core) if Arc::ptr_eq(&core.shared, &self.reactor) => {
                    core.ready.borrow_mut().push_back(self.clone());
                    true
                }
                _ => false,
            }
        });
        if !local.unwrap_or(false) {
            let reactor = self.reactor.clone();
            reactor.send(Message::Wake(self));
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.load(Ordering::Acquire) {
            self.clone().wake();
        }
    }
}

struct Entry {
    task: Arc<Task>,
    /// Made once, so that polling costs no reference count.
    waker: Waker,
    /// `None` while it is being polled.
    future: Option<LocalFuture>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// A reactor, as its own thread sees it.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    tasks: RefCell<Slab<Entry>>,
    ready: RefCell<VecDeque<Arc<Task>>>,
    /// Empty: room for what is taken out of the inbox.
    mail: RefCell<Vec<Message>>,
    timers: Timers,
    driver: Driver,
    pool: Pool,
    closing: Cell<bool>,
    spin: Duration,
    /// How long the reactor last waited for work.
    last_wait: Cell<Duration>,
}

/// Takes the thread out of reactor mode, also on unwinding.
struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        let core = CURRENT.with(|current| current.borrow_mut().take());
        drop(core);
    }
}

impl Core {
    pub(crate) fn new(id: usize, driver: Driver, pool: Pool, spin: Duration) -> Rc<Self> {
        let shared = Arc::new(Shared {
            id,
            backend: driver.backend(),
            inbox: Mutex::new(Vec::new()),
            has_mail: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            wake_fd: driver.wake_fd(),
        });
        Rc::new(Self {
            shared,
            tasks: RefCell::new(Slab::new()),
            ready: RefCell::new(VecDeque::new()),
            mail: RefCell::default(),
            timers: Timers::default(),
            driver,
            pool,
            closing: Cell::new(false),
            spin,
            last_wait: Cell::new(Duration::MAX),
        })
    }

    /// The reactor of this thread.
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.try_with(|current| current.borrow().clone()).ok()?
    }

    pub(crate) fn expect() -> Rc<Self> {
        match Self::current() {
            Some(core) => core,
            None => panic!("called outside a reactor: use Handle::spawn or block_on"),
        }
    }

    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    pub(crate) fn driver(&self) -> &Driver {
        &self.driver
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    fn insert(&self, future: LocalFuture, task: Arc<Task>) {
        if self.closing.get() {
            return;
        }
        let waker = Waker::from(task.clone());
        let key = self.tasks.borrow_mut().insert(Entry {
            task: task.clone(),
            waker,
            future: Some(future),
        });
        task.key.store(key, Ordering::Relaxed);
        task.wake();
    }

    /// Runs until `done` says so or the reactor is told to stop; then drops all tasks and waits for the kernel to
    /// give back every buffer.
    pub(crate) fn run(self: &Rc<Self>, mut done: impl FnMut() -> bool) {
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            assert!(current.is_none(), "a reactor already runs on this thread");
            *current = Some(self.clone());
        });
        let _entered = Entered;
        while !done() && !self.shared.stopping.load(Ordering::SeqCst) {
            self.run_ready();
            self.sleep_unless(&mut done);
        }
        self.close();
    }

    /// Mail, ready tasks, timers.
    fn run_ready(&self) {
        self.read_mail();
        for _ in 0..POLLS_PER_TURN {
            let next = self.ready.borrow_mut().pop_front();
            match next {
                Some(task) => self.poll_task(&task),
                None => break,
            }
        }
        self.timers.fire();
    }

    /// Gives the kernel its work, and waits for it to have some for us.
    fn sleep_unless(&self, done: &mut impl FnMut() -> bool) {
        let parked = if done() || self.has_work() {
            self.driver.park(Some(Duration::ZERO))
        } else if self.spin.is_zero() {
            self.sleep()
        } else {
            self.look_then_sleep()
        };
        if let Err(error) = parked {
            // Every error that has a remedy is handled in the driver.
            tracing::error!(%error, reactor = self.shared.id, "the kernel refuses to wait");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Looks for work for a moment before it sleeps, when the last wait was about as short as that moment. (About:
    /// a wait that ended a sleep includes the time that waking up takes.) Other threads need not rouse it meanwhile.
    fn look_then_sleep(&self) -> io::Result<()> {
        let start = Instant::now();
        let mut parked;
        if self.last_wait.get() < 2 * self.spin {
            let wait = self.timers.until_next();
            let limit = wait.map_or(self.spin, |wait| wait.min(self.spin));
            parked = self.driver.park(Some(Duration::ZERO));
            while parked.is_ok() && !self.has_work() {
                if start.elapsed() >= limit {
                    parked = self.sleep();
                    break;
                }
                if self.driver.has_events() {
                    parked = self.driver.park(Some(Duration::ZERO));
                } else {
                    // Who wants this CPU may have it: often the client, whose next request is what is waited for.
                    std::thread::yield_now();
                }
            }
        } else {
            parked = self.sleep();
        }
        self.last_wait.set(start.elapsed());
        parked
    }

    /// Sleeps in the kernel, unless there is mail; announces it to other threads before it looks.
    fn sleep(&self) -> io::Result<()> {
        self.shared.sleeping.store(true, Ordering::SeqCst);
        let called = self.shared.has_mail.load(Ordering::SeqCst)
            || self.shared.stopping.load(Ordering::SeqCst);
        let wait = if called {
            Some(Duration::ZERO)
        } else {
            self.timers.until_next()
        };
        let parked = self.driver.park(wait);
        self.shared.sleeping.store(false, Ordering::SeqCst);
        parked
    }

    fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty()
            || self.shared.has_mail.load(Ordering::SeqCst)
            || self.shared.stopping.load(Ordering::SeqCst)
    }

    fn read_mail(&self) {
        if !self.shared.has_mail.load(Ordering::SeqCst) {
            return;
        }
        // Taken out, so that a task may come back here; both lists keep their room.
        let mut mail = self.mail.take();
        {
            let mut inbox = self
                .shared
                .inbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.shared.has_mail.store(false, Ordering::SeqCst);
            std::mem::swap(&mut *inbox, &mut mail);
        }
        for message in mail.drain(..) {
            match message {
                Message::Wake(task) => self.ready.borrow_mut().push_back(task),
                Message::Spawn(seed) => {
                    let (future, task) = seed();
                    self.insert(future, task);
                }
            }
        }
        self.mail.replace(mail);
    }

    fn poll_task(&self, task: &Arc<Task>) {
        task.queued.store(false, Ordering::Release);
        let key = task.key.load(Ordering::Relaxed);
        let (mut future, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(entry) = tasks
                .get_mut(key)
                .filter(|entry| Arc::ptr_eq(&entry.task, task))
            else {
                return; // finished before this wake came
            };
            let Some(future) = entry.future.take() else {
                return; // cannot be: a task does not poll itself
            };
            (future, entry.waker.clone())
        };
        let aborted = task.aborted.load(Ordering::Acquire);
        if !aborted
            && future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        {
            let mut tasks = self.tasks.borrow_mut();
            if let Some(entry) = tasks
                .get_mut(key)
                .filter(|entry| Arc::ptr_eq(&entry.task, task))
            {
                entry.future = Some(future);
            }
            return;
        }
        let entry = self.tasks.borrow_mut().try_remove(key);
        drop(entry);
        drop(future);
    }

    fn close(&self) {
        self.closing.set(true);
        {
            let inbox = self
                .shared
                .inbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.shared.closed.store(true, Ordering::SeqCst);
            drop(inbox);
        }
        let mail = std::mem::take(
            &mut *self
                .shared
                .inbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        drop(mail);
        loop {
            // One at a time and outside the borrow: a destructor may wake or spawn.
            let entry = {
                let mut tasks = self.tasks.borrow_mut();
                let Some(key) = tasks.iter().next().map(|(key, _)| key) else {
                    break;
                };
                tasks.remove(key)
            };
            drop(entry);
        }
        self.ready.borrow_mut().clear();
        self.driver.drain();
    }
}

/// The future that reports to a join handle, and the handle.
fn joined<F>(future: F, task: &Arc<Task>) -> (LocalFuture, JoinHandle<F::Output>)
where
    F: Future + 'static,
{
    let (completer, handle) = join::pair();
    let handle = handle.with_abort(aborter(task));
    (report(future, completer), handle)
}

fn report<F: Future + 'static>(future: F, completer: join::Completer<F::Output>) -> LocalFuture {
    Box::pin(async move {
        let result = AssertUnwindSafe(future).catch_unwind().await;
        if let Err(panic) = &result {
            tracing::error!(error = %pool::panicked(&**panic), "a task failed");
        }
        completer.finish(result.map_err(|panic| pool::panicked(&*panic)));
    })
}

fn aborter(task: &Arc<Task>) -> join::Abort {
    let task = task.clone();
    Arc::new(move || {
        task.aborted.store(true, Ordering::Release);
        task.wake_by_ref();
    })
}

/// A seed that makes a task of `make()` on `reactor`, and its handle.
pub(crate) fn seed<M, F>(reactor: &Arc<Shared>, make: M) -> (Seed, JoinHandle<F::Output>)
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    let task = Task::new(reactor.clone());
    let (completer, handle) = join::pair();
    let handle = handle.with_abort(aborter(&task));
    let seed: Seed = Box::new(move || (report(async move { make().await }, completer), task));
    (seed, handle)
}

/// Starts a task on the reactor of this thread.
///
/// # Panics
/// When called outside a reactor.
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let core = Core::expect();
    let task = Task::new(core.shared.clone());
    let (future, handle) = joined(future, &task);
    core.insert(future, task);
    handle
}

/// Lets the other ready tasks of this reactor run first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
