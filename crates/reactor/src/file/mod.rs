//! Regular files and block devices as [`BlockDevice`]s.

mod descriptor;
mod flush;
mod held;
mod inline;
mod io;
mod lane;
mod open;
mod submission;
mod zero;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use volume::block_device::{Allocation, BlockDevice};

pub(crate) use descriptor::DeviceFd;
use flush::GroupFlush;
use held::HeldFile;
use inline::InlineWrites;
use lane::Lane;

use crate::executor::Core;
use crate::pool::Pool;

/// Most threads of a device, for operations that cannot be left to a ring. When all of them hang, later operations wait
/// in memory, and end without having begun when nobody waits for them any more.
const DEVICE_THREADS: usize = 16;

/// How a device's data travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// Through the kernel's page cache; durable after a flush.
    #[default]
    PageCache,
    /// `O_DIRECT`: past the page cache. Offsets and lengths must be aligned.
    Direct,
}

/// How to open a [`FileDevice`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Page cache or direct.
    pub caching: Caching,
}

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another handle in this one) holds it.
    #[error("{path} is in use by another process")]
    InUse {
        /// The path as given.
        path: PathBuf,
    },
    /// It is neither a regular file nor a block device.
    #[error("{path} is neither a regular file nor a block device")]
    Unsuitable {
        /// The path as given.
        path: PathBuf,
    },
    /// The file system has no direct I/O.
    #[error("{path}: direct I/O is not supported there")]
    NoDirectIo {
        /// The path as given.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{path}: {source}")]
    Io {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What a path turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regular,
    Block,
}

/// What an operation asks of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// A read or write, for which a ring needs no thread as a rule.
    Transfer,
    /// What always waits in a thread, the ring's own or another: a flush, changes of what is allocated.
    Waiting,
}

/// A regular file or block device, held exclusively from open to the end of its last operation.
///
/// Its operations must be polled on a reactor; elsewhere they answer `Unsupported`.
///
/// After a failed flush every later flush fails too, until the device is opened anew: the kernel reports a lost
/// write once and then forgets it, so that a later success would promise data that is gone.
pub struct FileDevice {
    file: HeldFile,
    path: PathBuf,
    kind: Kind,
    caching: Caching,
    size_bytes: u64,
    alignment_bytes: usize,
    memory_alignment_bytes: usize,
    /// The file system can say "not in the cache" instead of waiting.
    nowait_read: AtomicBool,
    nowait_write: AtomicBool,
    inline_writes: InlineWrites,
    /// Handing an operation to the kernel may itself wait for the device: see `submission`.
    blocks: bool,
    /// No write inline that might wait.
    never_block: AtomicBool,
    /// Its own, so that a device that hangs keeps no thread from others.
    threads: Pool,
    /// For writes into the page cache that could wait, when no reactor may.
    lane: Lane,
    /// Ways of zeroing that the file system refused; not tried again.
    no_punch: AtomicBool,
    no_zero_range: AtomicBool,
    flush: GroupFlush,
}

impl FileDevice {
    /// Opens `path` for reading and writing and takes exclusive hold of it: an advisory lock (flock(2)), and for
    /// a block device also the kernel's exclusive claim, which mounts and other storage stacks respect. Blocks
    /// briefly; may be called on any thread.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OpenError> {
        open::open(path, options)
    }

    /// Whether an operation is done by a thread of the device. A ring has few threads, which all files share: what may
    /// hang in one of them is kept out of it.
    fn takes_thread(&self, core: &Core, work: Work) -> bool {
        core.driver().ring().is_none()
            || self.blocks
            || (work == Work::Waiting && self.never_block.load(Ordering::Relaxed))
    }

    /// Whether a write into the page cache goes to the device's own thread for them: no reactor may wait for it, and the
    /// file system cannot say in advance whether it would.
    fn takes_lane(&self) -> bool {
        self.caching == Caching::PageCache
            && self.never_block.load(Ordering::Relaxed)
            && !self.blocks
            && !self.nowait_write.load(Ordering::Relaxed)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Page cache or direct.
    pub fn caching(&self) -> Caching {
        self.caching
    }

    /// True for a block device, false for a regular file.
    pub fn is_block_device(&self) -> bool {
        self.kind == Kind::Block
    }
}

impl fmt::Debug for FileDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FileDevice")
            .field("path", &self.path)
            .field("caching", &self.caching)
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

impl BlockDevice for FileDevice {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn alignment_bytes(&self) -> usize {
        self.alignment_bytes
    }

    fn read(
        &self,
        offset_bytes: u64,
        buf: BytesMut,
    ) -> impl Future<Output = (std::io::Result<()>, BytesMut)> {
        self.file.watch(io::read(self, offset_bytes, buf))
    }

    fn write(&self, offset_bytes: u64, data: Bytes) -> impl Future<Output = std::io::Result<()>> {
        self.file.watch(io::write(self, offset_bytes, data))
    }

    async fn flush(&self) -> std::io::Result<()> {
        let flushing = self.flush.run(|| io::datasync(self));
        self.file.watch(flushing).await
    }

    async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> std::io::Result<()> {
        let zeroing = zero::write_zeroes(self, offset_bytes, length_bytes, deallocate);
        self.file.watch(zeroing).await
    }

    async fn allocation(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> std::io::Result<Allocation> {
        let asking = zero::allocation(self, offset_bytes, length_bytes);
        self.file.watch(asking).await
    }

    fn in_flight(&self) -> u64 {
        self.file.in_flight()
    }

    fn abandoned(&self) -> u64 {
        self.file.abandoned()
    }

    fn never_block(&self) {
        self.never_block.store(true, Ordering::Relaxed);
    }

    fn close(&self) {
        self.file.close();
    }

    fn now(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        crate::time::sleep(duration).await;
    }

    fn pause(&self) -> impl Future<Output = ()> {
        crate::time::Pause::default()
    }
}
