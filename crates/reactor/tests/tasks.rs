//! Tasks, wakers and timers on both backends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use event_listener::Event;
use reactor::{
    Handle, JoinError, Runtime, sleep, sleep_until, spawn_local, timeout, unblock, yield_now,
};
use support::{configs, on_both, with_both};

#[test]
fn timers_fire_in_order_of_their_deadlines() {
    on_both(|| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let start = Instant::now();
        let tasks: Vec<_> = [7_u64, 1, 5, 3, 5, 2, 0]
            .into_iter()
            .map(|delay| {
                let order = order.clone();
                spawn_local(async move {
                    let deadline = start + Duration::from_millis(20 + delay * 4);
                    sleep_until(deadline).await;
                    assert!(Instant::now() >= deadline, "fired too early");
                    order.borrow_mut().push(delay);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [0, 1, 2, 3, 5, 5, 7]);
    });
}

#[test]
fn timeout_drops_what_is_late_and_keeps_what_is_ready() {
    on_both(|| async {
        struct SetOnDrop(Rc<Cell<bool>>);
        impl Drop for SetOnDrop {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = Rc::new(Cell::new(false));
        let guard = SetOnDrop(dropped.clone());
        let late = timeout(Duration::from_millis(1), async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        assert!(late.await.is_err());
        assert!(dropped.get());
        assert_eq!(timeout(Duration::ZERO, async { 5 }).await, Ok(5));
        assert_eq!(timeout(Duration::from_secs(3600), async { 6 }).await, Ok(6));
    });
}

/// Timers that are dropped leave nothing behind that would fire or hold a task.
#[test]
fn dropped_timers_are_forgotten() {
    on_both(|| async {
        for _ in 0..10_000 {
            let quick = timeout(Duration::from_secs(3600), yield_now());
            quick.await.unwrap();
        }
        sleep(Duration::from_millis(1)).await;
    });
}

/// Wakes cross reactors in both directions, from many tasks at once, and none is lost.
#[test]
fn wake_storm_between_reactors() {
    struct Turn {
        number: AtomicUsize,
        changed: Event,
    }
    with_both(3, |runtime| {
        let tasks: Vec<_> = (0..30)
            .flat_map(|pair| {
                let turn = Arc::new(Turn {
                    number: AtomicUsize::new(0),
                    changed: Event::new(),
                });
                [0, 1].map(|side| {
                    let turn = turn.clone();
                    runtime.handles()[(pair + side) % 3].spawn(move || async move {
                        for round in 0..500 {
                            loop {
                                let listener = turn.changed.listen();
                                if turn.number.load(Ordering::SeqCst) == 2 * round + side {
                                    break;
                                }
                                listener.await;
                            }
                            turn.number.fetch_add(1, Ordering::SeqCst);
                            turn.changed.notify(usize::MAX);
                        }
                    })
                })
            })
            .collect();
        for task in tasks {
            task.wait().unwrap();
        }
    });
}

/// Threads outside spawn onto reactors as fast as they can; every task runs, on the reactor it was meant for.
#[test]
fn spawn_storm_from_outside() {
    with_both(2, |runtime| {
        let ran = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (ran, handles) = (ran.clone(), runtime.handles());
                scope.spawn(move || {
                    let mut pending = Vec::new();
                    for number in 0..2000 {
                        let ran = ran.clone();
                        let id = number % handles.len();
                        pending.push(handles[id].spawn(move || async move {
                            assert_eq!(Handle::current().unwrap().id(), id);
                            yield_now().await;
                            ran.fetch_add(1, Ordering::Relaxed);
                            number
                        }));
                    }
                    for (number, task) in pending.into_iter().enumerate() {
                        assert_eq!(task.wait(), Ok(number));
                    }
                });
            }
        });
        assert_eq!(ran.load(Ordering::Relaxed), 8000);
    });
}

/// A wake from a thread that is no reactor ends the sleep of one that has nothing else to do.
#[test]
fn wake_from_a_plain_thread() {
    on_both(|| async {
        for _ in 0..200 {
            let flag = Arc::new(AtomicBool::new(false));
            let setter = flag.clone();
            let mut thread = None;
            poll_fn(|context| {
                if flag.load(Ordering::SeqCst) {
                    return Poll::Ready(());
                }
                let (setter, waker) = (setter.clone(), context.waker().clone());
                thread.get_or_insert_with(|| {
                    std::thread::spawn(move || {
                        setter.store(true, Ordering::SeqCst);
                        waker.wake();
                    })
                });
                Poll::Pending
            })
            .await;
            thread.unwrap().join().unwrap();
        }
    });
}

/// A task that keeps itself busy does not keep others, timers or mail from running.
#[test]
fn busy_task_starves_nobody() {
    with_both(1, |runtime| {
        let stop = Arc::new(AtomicBool::new(false));
        let busy_stop = stop.clone();
        let busy = runtime.handles()[0].spawn(move || async move {
            while !busy_stop.load(Ordering::Relaxed) {
                yield_now().await;
            }
        });
        let slept = runtime.handles()[0].spawn(|| sleep(Duration::from_millis(5)));
        slept.wait().unwrap();
        let work = runtime.handles()[0].spawn(|| async { unblock(|| 7).await });
        assert_eq!(work.wait(), Ok(Ok(7)));
        assert!(!busy.is_finished());
        stop.store(true, Ordering::Relaxed);
        busy.wait().unwrap();
    });
}

#[test]
fn panic_ends_its_task_only() {
    with_both(1, |runtime| {
        let handle = &runtime.handles()[0];
        let bad = handle.spawn(|| async {
            yield_now().await;
            panic!("on purpose");
        });
        let result: Result<(), _> = bad.wait();
        assert_eq!(result, Err(JoinError::Panicked("on purpose".to_owned())));
        assert_eq!(handle.spawn(|| async { 1 }).wait(), Ok(1));
        let bad = handle.spawn(|| async { unblock(|| panic!("there")).await });
        let result: Result<Result<(), _>, _> = bad.wait();
        assert_eq!(result, Ok(Err(JoinError::Panicked("there".to_owned()))));
    });
}

#[test]
fn abort_drops_the_future_on_its_reactor() {
    struct Here(Arc<AtomicUsize>);
    impl Drop for Here {
        fn drop(&mut self) {
            self.0
                .store(Handle::current().unwrap().id(), Ordering::SeqCst);
        }
    }
    with_both(2, |runtime| {
        let dropped_on = Arc::new(AtomicUsize::new(usize::MAX));
        let guard = Here(dropped_on.clone());
        let task = runtime.handles()[1].spawn(move || async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        task.abort();
        assert_eq!(task.wait(), Err(JoinError::Cancelled));
        assert_eq!(dropped_on.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn shutdown_cancels_what_is_left_and_what_comes_later() {
    for config in configs(2) {
        let runtime = Runtime::start(&config).unwrap();
        let handle = runtime.handles()[1].clone();
        let forever = handle.spawn(|| async {
            spawn_local(async { std::future::pending::<()>().await })
                .await
                .unwrap();
        });
        let asleep = handle.spawn(|| sleep(Duration::from_secs(3600)));
        runtime.shutdown();
        assert_eq!(forever.wait(), Err(JoinError::Cancelled));
        assert_eq!(asleep.wait(), Err(JoinError::Cancelled));
        assert_eq!(
            handle.spawn(|| async { 1 }).wait(),
            Err(JoinError::Cancelled)
        );
    }
}

/// A runtime that ends up in one of its own tasks can be dropped there.
#[test]
fn runtime_dropped_by_its_own_task() {
    for config in configs(2) {
        let runtime = Runtime::start(&config).unwrap();
        let handle = runtime.handles()[0].clone();
        let other = runtime.handles()[1].clone();
        handle.spawn(move || async move { drop(runtime) });
        // The other reactor has stopped when this is answered, one way or the other.
        while other.spawn(|| async {}).wait().is_ok() {
            std::thread::yield_now();
        }
    }
}

/// A waker that outlives its task, and even its reactor, does nothing.
#[test]
fn late_wakes_are_harmless() {
    let mut wakers: Vec<Waker> = Vec::new();
    for config in configs(1) {
        let runtime = Runtime::start(&config).unwrap();
        for _ in 0..100 {
            let waker = runtime.handles()[0]
                .spawn(|| poll_fn(|context| Poll::Ready(context.waker().clone())))
                .wait()
                .unwrap();
            waker.wake_by_ref();
            wakers.push(waker);
        }
        for waker in &wakers {
            waker.wake_by_ref();
        }
    }
    for waker in wakers {
        waker.wake();
    }
}

/// An idle reactor sleeps in the kernel: it uses next to no CPU, however long it is watched.
#[test]
fn idle_reactor_sleeps() {
    for mut config in configs(2) {
        config.name = "idle".to_owned();
        let runtime = Runtime::start(&config).unwrap();
        for handle in runtime.handles() {
            // So that a reactor that stays awake after work would be seen.
            handle.spawn(yield_now).wait().unwrap();
        }
        let watched = Duration::from_millis(300);
        let before = cpu_ns_of_threads("idle-");
        std::thread::sleep(watched);
        let used = cpu_ns_of_threads("idle-") - before;
        assert!(
            used < watched.as_nanos() as u64 / 10,
            "idle reactors used {used} ns of CPU"
        );
    }
}

/// CPU time of this process's threads whose name begins so, in nanoseconds.
fn cpu_ns_of_threads(name: &str) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let folder = entry.unwrap().path();
        // A thread may end between the listing and the look.
        let comm = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        if comm.starts_with(name) {
            let times = std::fs::read_to_string(folder.join("schedstat")).unwrap();
            let on_cpu = times.split_whitespace().next().unwrap();
            total += on_cpu.parse::<u64>().unwrap();
        }
    }
    total
}
