//! Files and block devices on both backends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use reactor::{Caching, FileDevice, OpenError, OpenOptions, conformance, spawn_local};
use support::{on_both, pattern, with_both};
use volume::block_device::{BlockDevice, aligned_buffer};

const DEVICE_BYTES: u64 = 8 << 20;
/// Random operations of the conformance suite, for each backend and kind of device.
const STEPS: u32 = 400;

const DIRECT: OpenOptions = OpenOptions {
    caching: Caching::Direct,
};

fn sparse_file(folder: &Path, size_bytes: u64) -> PathBuf {
    let path = folder.join("device");
    File::create(&path).unwrap().set_len(size_bytes).unwrap();
    path
}

/// Beside the build, which is on a real file system; the temporary folder may be a tmpfs without direct I/O.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn conforms(path: &Path, options: OpenOptions) {
    let path = path.to_owned();
    on_both(|| {
        let path = path.clone();
        async move {
            let device = FileDevice::open(&path, options).unwrap();
            conformance::check(&device, 0x5eed, STEPS).await;
        }
    });
}

#[test]
fn regular_file_conforms() {
    let folder = folder();
    // Not a multiple of anything.
    conforms(
        &sparse_file(folder.path(), DEVICE_BYTES + 777),
        OpenOptions::default(),
    );
}

#[test]
fn direct_file_conforms() {
    let folder = folder();
    conforms(&sparse_file(folder.path(), DEVICE_BYTES), DIRECT);
}

/// A loop device over a file; gone when dropped.
struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    fn new(file: &Path) -> Self {
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let path = String::from_utf8(made.stdout).unwrap().trim().into();
        Self { path }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn loop_device_conforms() {
    if !is_root() {
        eprintln!("SKIPPED: loop devices need root");
        return;
    }
    let folder = folder();
    let device = LoopDevice::new(&sparse_file(folder.path(), DEVICE_BYTES));
    conforms(&device.path, OpenOptions::default());
    conforms(&device.path, DIRECT);
}

#[test]
fn block_device_is_claimed_exclusively() {
    if !is_root() {
        eprintln!("SKIPPED: loop devices need root");
        return;
    }
    let folder = folder();
    let device = LoopDevice::new(&sparse_file(folder.path(), DEVICE_BYTES));
    let first = FileDevice::open(&device.path, OpenOptions::default()).unwrap();
    assert!(first.is_block_device());
    assert_eq!(first.size_bytes(), DEVICE_BYTES);
    let second = FileDevice::open(&device.path, OpenOptions::default());
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    drop(first);
    FileDevice::open(&device.path, DIRECT).unwrap();
}

#[test]
fn second_opener_is_refused_until_the_first_is_gone() {
    let folder = folder();
    let path = sparse_file(folder.path(), DEVICE_BYTES);
    let first = FileDevice::open(&path, OpenOptions::default()).unwrap();
    let second = FileDevice::open(&path, DIRECT);
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    drop(first);
    FileDevice::open(&path, OpenOptions::default()).unwrap();
}

#[test]
fn what_is_no_device_is_refused() {
    let folder = folder();
    for path in [folder.path(), Path::new("/dev/null")] {
        let opened = FileDevice::open(path, OpenOptions::default());
        assert!(
            matches!(opened, Err(OpenError::Unsuitable { .. })),
            "{opened:?}"
        );
    }
    let opened = FileDevice::open(&folder.path().join("none"), OpenOptions::default());
    let Err(OpenError::Io { source, .. }) = opened else {
        panic!("{opened:?}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn outside_a_reactor_it_says_so() {
    let folder = folder();
    let path = sparse_file(folder.path(), DEVICE_BYTES);
    let device = FileDevice::open(&path, OpenOptions::default()).unwrap();
    let error = futures_lite::future::block_on(device.flush()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    // That was no failed flush: the device is as good as before.
    on_both(move || {
        let path = path.clone();
        async move {
            let other = folder_device(&path);
            other.flush().await.unwrap();
        }
    });

    fn folder_device(path: &Path) -> FileDevice {
        let copy = path.with_extension("copy");
        File::create(&copy).unwrap().set_len(DEVICE_BYTES).unwrap();
        FileDevice::open(&copy, OpenOptions::default()).unwrap()
    }
}

/// Zeroing with deallocation gives the space back; without it, keeps it.
#[test]
fn deallocation_gives_space_back() {
    on_both(|| async {
        let folder = folder();
        let path = sparse_file(folder.path(), DEVICE_BYTES);
        let device = FileDevice::open(&path, OpenOptions::default()).unwrap();
        let told = device.allocation(0, DEVICE_BYTES).await.unwrap();
        assert_eq!((told.allocated, told.length_bytes), (false, DEVICE_BYTES));
        let data = Bytes::from(pattern(1, DEVICE_BYTES as usize));
        device.write(0, data).await.unwrap();
        device.flush().await.unwrap();
        let told = device.allocation(0, DEVICE_BYTES).await.unwrap();
        assert_eq!((told.allocated, told.length_bytes), (true, DEVICE_BYTES));
        device.write_zeroes(1 << 20, 1 << 20, true).await.unwrap();
        let told = device.allocation(1 << 20, 2 << 20).await.unwrap();
        assert_eq!((told.allocated, told.length_bytes), (false, 1 << 20));
        let told = device.allocation(0, DEVICE_BYTES).await.unwrap();
        assert_eq!((told.allocated, told.length_bytes), (true, 1 << 20));
    });
}

/// Pages that are not in the cache come from the disk all the same.
#[test]
fn cold_pages_are_read() {
    on_both(|| async {
        let folder = folder();
        let path = sparse_file(folder.path(), DEVICE_BYTES);
        let data = pattern(9, DEVICE_BYTES as usize);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.write_all_at(&data, 0).unwrap();
        file.sync_all().unwrap();
        let device = FileDevice::open(&path, OpenOptions::default()).unwrap();
        for offset in (0..DEVICE_BYTES).step_by(1 << 20) {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let length = 300_000;
            let (result, buf) = device.read(offset, aligned_buffer(length)).await;
            result.unwrap();
            assert!(buf[..] == data[offset as usize..][..length]);
        }
    });
}

/// A file that shrank behind our back is an error, not a short or endless read.
#[test]
fn truncated_file_is_an_error() {
    on_both(|| async {
        let folder = folder();
        let path = sparse_file(folder.path(), DEVICE_BYTES);
        let device = FileDevice::open(&path, OpenOptions::default()).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(5000)
            .unwrap();
        let (result, _) = device.read(4096, aligned_buffer(4096)).await;
        assert_eq!(
            result.unwrap_err().kind(),
            std::io::ErrorKind::UnexpectedEof
        );
    });
}

/// Operations that are dropped in flight finish by themselves, and their memory lives as long.
#[test]
fn dropped_operations_do_no_harm() {
    on_both(|| async {
        let folder = folder();
        let path = sparse_file(folder.path(), DEVICE_BYTES);
        let device = Rc::new(FileDevice::open(&path, DIRECT).unwrap());
        for round in 0..40_u64 {
            let offset = round % 8 * (1 << 20);
            let tasks: Vec<_> = (0..4)
                .map(|part| {
                    let device = device.clone();
                    spawn_local(async move {
                        let at = offset + part * 65_536;
                        let mut data = aligned_buffer(65_536);
                        data.fill(round as u8 + 1);
                        device.write(at, data.freeze()).await.unwrap();
                        device.read(at, aligned_buffer(65_536)).await.0.unwrap();
                    })
                })
                .collect();
            for _ in 0..round % 3 {
                reactor::yield_now().await;
            }
            for task in &tasks {
                task.abort();
            }
        }
        // Whatever happened, later operations are served; what was given up may land until it has ended.
        device.flush().await.unwrap();
        while device.abandoned() > 0 {
            reactor::sleep(std::time::Duration::from_millis(1)).await;
        }
        let mut data = aligned_buffer(65_536);
        data.fill(0xaa);
        device.write(0, data.freeze()).await.unwrap();
        let (result, buf) = device.read(0, aligned_buffer(65_536)).await;
        result.unwrap();
        assert!(buf.iter().all(|&byte| byte == 0xaa));
    });
}

/// A reactor that stops with I/O in flight waits for it.
#[test]
fn shutdown_waits_for_the_kernel() {
    with_both(1, |runtime| {
        let folder = folder();
        let path = sparse_file(folder.path(), DEVICE_BYTES);
        let device = Arc::new(FileDevice::open(&path, DIRECT).unwrap());
        let started = runtime.handles()[0].spawn(move || async move {
            for part in 0..64_u64 {
                let device = device.clone();
                spawn_local(async move {
                    let data = aligned_buffer(65_536).freeze();
                    device.write(part * 65_536, data).await
                });
            }
        });
        started.wait().unwrap();
        // `with_both` shuts down now.
    });
}

/// One device from several reactors; flushes are shared, and none is lost.
#[test]
fn one_device_on_several_reactors() {
    with_both(3, |runtime| {
        let folder = folder();
        let path = sparse_file(folder.path(), DEVICE_BYTES);
        let device = Arc::new(FileDevice::open(&path, OpenOptions::default()).unwrap());
        let tasks: Vec<_> = (0..24_u64)
            .map(|number| {
                let device = device.clone();
                runtime.handles()[number as usize % 3].spawn(move || async move {
                    for round in 0..20_u64 {
                        let offset = number * 65_536 + round * 1000;
                        let data = Bytes::from(pattern(number * 100 + round, 1000));
                        device.write(offset, data.clone()).await.unwrap();
                        device.flush().await.unwrap();
                        let (result, buf) = device.read(offset, BytesMut::zeroed(1000)).await;
                        result.unwrap();
                        assert!(buf == data);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.wait().unwrap();
        }
    });
}

#[test]
fn what_is_given_up_is_counted_until_it_has_ended() {
    let folder = folder();
    let path = sparse_file(folder.path(), DEVICE_BYTES);
    for config in support::configs(1) {
        let path = path.clone();
        // The threads of the other one may have ended it by the time we look.
        let exact = config.backend == reactor::BackendChoice::IoUring;
        let test = async move {
            let device = FileDevice::open(&path, DIRECT).unwrap();
            let page = |value: u8| Bytes::from(vec![value; 4096]);
            device.write(0, page(1)).await.unwrap();
            assert_eq!((device.in_flight(), device.abandoned()), (0, 0));
            let mut write = Box::pin(device.write(4096, page(2)));
            assert!(futures_lite::future::poll_once(&mut write).await.is_none());
            assert!(!exact || (device.in_flight(), device.abandoned()) == (1, 0));
            drop(write);
            assert!(!exact || (device.in_flight(), device.abandoned()) == (1, 1));
            // What begins later is not counted with it.
            let mut later = Box::pin(device.write(8192, page(3)));
            assert!(futures_lite::future::poll_once(&mut later).await.is_none());
            assert!(!exact || (device.in_flight(), device.abandoned()) == (2, 1));
            assert!(device.abandoned() <= 1);
            later.await.unwrap();
            while device.abandoned() > 0 {
                reactor::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(device.in_flight(), 0);
            let (result, read) = device.read(4096, aligned_buffer(8192)).await;
            result.unwrap();
            assert_eq!((read[0], read[4096]), (2, 3), "it ended all the same");
        };
        reactor::block_on(&config, test).unwrap();
    }
}

#[test]
fn a_closed_device_can_be_opened_again() {
    let folder = folder();
    let path = sparse_file(folder.path(), DEVICE_BYTES);
    on_both(|| {
        let path = path.clone();
        async move {
            let device = FileDevice::open(&path, OpenOptions::default()).unwrap();
            assert!(matches!(
                FileDevice::open(&path, OpenOptions::default()),
                Err(OpenError::InUse { .. })
            ));
            device.close();
            for _ in 0..2 {
                assert!(device.write(0, Bytes::from(vec![0; 4096])).await.is_err());
                assert!(device.read(0, aligned_buffer(4096)).await.0.is_err());
                assert!(device.flush().await.is_err());
                assert!(device.write_zeroes(0, 4096, true).await.is_err());
                assert!(device.allocation(0, 4096).await.is_err());
            }
            let again = FileDevice::open(&path, OpenOptions::default()).unwrap();
            again.write(0, Bytes::from(vec![0; 4096])).await.unwrap();
        }
    });
}
