//! What the file system does, and what a reactor makes of it.

use std::time::Instant;

use reactor::{BackendChoice, Caching, Config, FileDevice, OpenOptions, Runtime, spawn_local};
use volume::block_device::{BlockDevice, aligned_buffer};

use super::*;

fn unable() -> bool {
    !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists()
}

/// Needs root and `/dev/fuse`, as the steps that use it do.
#[test]
fn files_fail_hang_and_recover_when_told() {
    if unable() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files = FailingFiles::mount(folder.path()).unwrap();
    let path = files.create("disk", 1).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"before", 4096).unwrap();
    let read = |offset| {
        let mut data = [0; 6];
        file.read_exact_at(&mut data, offset).map(|()| data)
    };
    assert_eq!(&read(4096).unwrap(), b"before");
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);

    files.set("disk", Fault::Reads);
    assert_eq!(read(0).unwrap_err().raw_os_error(), Some(5));
    file.write_all_at(b"second", 4096).unwrap();
    files.set("disk", Fault::Writes(Errno::ENOSPC));
    assert_eq!(&read(4096).unwrap(), b"second");
    assert_eq!(
        file.write_at(b"third!", 0).unwrap_err().raw_os_error(),
        Some(28)
    );
    files.set("disk", Fault::Gone);
    assert!(File::open(&path).is_err());
    assert!(file.sync_data().is_err());

    files.set("disk", Fault::Hangs);
    let writer = file.try_clone().unwrap();
    let late = std::thread::spawn(move || writer.write_all_at(b"late!!", 8192));
    while files.hanging("disk") == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    files.set("disk", Fault::None);
    assert_eq!(&read(8192).unwrap(), &[0; 6], "it has not landed");
    assert_eq!(files.release("disk", Release::Late), 1);
    late.join().unwrap().unwrap();
    assert_eq!(&read(8192).unwrap(), b"late!!");
}

/// Waits for what happens soon; when it does not, a test that hangs fails.
fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends what hangs, also when the test fails: a thread that waits for the kernel cannot be joined.
struct Ended<'a>(&'a FailingFiles);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.set("hung", Fault::Gone);
        self.0.release("hung", Release::Failed);
    }
}

async fn any_operation(device: &FileDevice, number: u64) {
    let offset = number % 1024 * 4096;
    match number % 4 {
        0 => drop(device.read(offset, aligned_buffer(4096)).await),
        1 => drop(device.write(offset, aligned_buffer(4096).freeze()).await),
        2 => drop(device.flush().await),
        _ => drop(device.write_zeroes(offset, 4096, true).await),
    }
}

/// A device that hangs, with hundreds of operations of every kind on it, holds up neither the reactor nor another device
/// that the same reactor serves. Operations that nobody waits for any more end at once if they have not begun, and the
/// reactor can be stopped while others hang.
#[test]
fn a_reactor_serves_others_while_a_device_hangs() {
    if unable() {
        return;
    }
    for backend in [BackendChoice::IoUring, BackendChoice::Epoll] {
        for caching in [Caching::Direct, Caching::PageCache] {
            hangs_alone(backend, caching);
        }
    }
}

fn hangs_alone(backend: BackendChoice, caching: Caching) {
    const OPERATIONS: u64 = 400;
    let folder = tempfile::tempdir().unwrap();
    let files = FailingFiles::mount(folder.path()).unwrap();
    let path = files.create("hung", 4).unwrap();
    let hung = Arc::new(FileDevice::open(&path, OpenOptions { caching }).unwrap());
    let path = folder.path().join("good");
    File::create(&path).unwrap().set_len(4 << 20).unwrap();
    let good = FileDevice::open(&path, OpenOptions::default()).unwrap();
    good.never_block();
    let config = Config {
        reactors: 1,
        backend,
        ..Config::default()
    };
    let runtime = Runtime::start(&config).unwrap();
    let ended = Ended(&files);

    files.set("hung", Fault::Hangs);
    let device = Arc::clone(&hung);
    let given_up = runtime.handles()[0].spawn(move || async move {
        let tasks: Vec<_> = (0..OPERATIONS)
            .map(|number| {
                let device = Arc::clone(&device);
                spawn_local(async move {
                    let operation = any_operation(&device, number);
                    let limit = Duration::from_millis(300);
                    reactor::timeout(limit, operation).await.is_err()
                })
            })
            .collect();
        let mut given_up = 0;
        for task in tasks {
            given_up += u64::from(task.await.unwrap());
        }
        given_up
    });
    soon("hanging", || files.hanging("hung") > 0);
    let others = runtime.handles()[0].spawn(move || async move {
        for number in 0..100 {
            any_operation(&good, number).await;
        }
        good
    });
    soon("the work of the other device", || others.is_finished());
    others.wait().unwrap();
    soon("giving up", || given_up.is_finished());
    assert_eq!(given_up.wait().unwrap(), OPERATIONS);
    let begun = hung.in_flight();
    assert!((1..=16).contains(&begun), "{begun} operations are left");
    assert_eq!(hung.abandoned(), begun);

    let stopping = std::thread::spawn(move || runtime.shutdown());
    soon("the end of the reactor", || stopping.is_finished());
    assert!(hung.in_flight() > 0, "nothing hung meanwhile");
    drop(ended);
    soon("the end of what hung", || hung.in_flight() == 0);
}
