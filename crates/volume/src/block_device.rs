//! The one door to storage: everything ringfence reads or writes goes through [`BlockDevice`].
//!
//! **I/O model.** Methods return futures that are driven by the reactor (or simulator) of the thread that polls
//! them; they need not be `Send`. A device handle is shared by all threads (`Send + Sync`). Buffers are owned by
//! the operation and handed back, so that a completion-based kernel interface can use them without copying;
//! a future that is dropped before it completes leaves the operation running, and the buffer with it, unless the
//! operation has not begun.
//!
//! **Ordering.** Operations in flight together may reach the medium in any order. `flush` covers exactly the
//! writes that *completed* before it was called. A completed write that was not followed by a completed flush
//! may be lost, wholly or in part, in units of [`SECTOR_BYTES`], by a power cut.
//!
//! **Who validates what.** The caller (volume translation) guarantees offsets inside the device; an
//! implementation still checks, and answers `InvalidInput` instead of touching anything out of range.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// The unit in which a device may tear a write, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// The alignment of buffers, offsets and lengths that every device accepts, in bytes (direct I/O included).
pub const IO_ALIGNMENT_BYTES: usize = 4096;

/// A storage device: a file or block device in production, a simulated disk in tests.
pub trait BlockDevice: Send + Sync + 'static {
    /// Size in bytes.
    fn size_bytes(&self) -> u64;

    /// The alignment in bytes that offsets, lengths and buffer addresses must have (1 when the page cache is
    /// used; the logical block size of the device under direct I/O). Always a power of two of at most
    /// [`IO_ALIGNMENT_BYTES`].
    fn alignment_bytes(&self) -> usize;

    /// Fills `buf` (its whole length) from `offset_bytes`. A read past the end is an error, never short.
    fn read(
        &self,
        offset_bytes: u64,
        buf: BytesMut,
    ) -> impl Future<Output = (io::Result<()>, BytesMut)>;

    /// Writes all of `data` at `offset_bytes`.
    fn write(&self, offset_bytes: u64, data: Bytes) -> impl Future<Output = io::Result<()>>;

    /// Makes every write that has completed durable (fdatasync).
    fn flush(&self) -> impl Future<Output = io::Result<()>>;

    /// Makes the range read as zeroes; with `deallocate`, gives the space back to what is below (hole punch,
    /// discard) where it can, otherwise keeps it allocated.
    fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> impl Future<Output = io::Result<()>>;

    /// Says whether the range starting at `offset_bytes` is allocated, and for how many bytes (at least 1, at
    /// most `length_bytes`) the answer holds. A device that cannot tell answers `true` for everything.
    fn allocation(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> impl Future<Output = io::Result<Allocation>>;

    /// Operations that were given to the device and have not ended, those whose futures were dropped included: as long
    /// as there are any, what they were to write may still land. Never too small.
    fn in_flight(&self) -> u64;

    /// Operations in flight whose futures were dropped: nobody learns how they end. Never too small; a device that
    /// cannot tell them from the others counts all.
    fn abandoned(&self) -> u64 {
        self.in_flight()
    }

    /// From now on no operation may make the thread that polls it wait, whatever that costs: other devices are served by
    /// the same thread, and it is the one that notices when this one hangs.
    fn never_block(&self) {}

    /// Gives up the exclusive hold on what is below, as soon as the operations in flight have ended: those that begin
    /// later fail. For a device that others may open at the same time there is nothing to do.
    fn close(&self) {}

    /// Time since some fixed moment, on the clock of the runtime that drives the device; it never goes back.
    fn now(&self) -> Duration;

    /// Waits for `duration` on that clock.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Waits for a second or two on that clock. For those who will hardly ever wait to the end: beginning and giving up
    /// should cost as little as can be.
    fn pause(&self) -> impl Future<Output = ()> {
        self.sleep(Duration::from_secs(1))
    }
}

/// A run of a device that is wholly allocated or wholly deallocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// True when the run is backed by storage.
    pub allocated: bool,
    /// Length of the run in bytes.
    pub length_bytes: u64,
}

/// A zeroed buffer of `length_bytes` whose address is a multiple of [`IO_ALIGNMENT_BYTES`].
pub fn aligned_buffer(length_bytes: usize) -> BytesMut {
    let mut buf = BytesMut::zeroed(length_bytes + IO_ALIGNMENT_BYTES);
    let skip = buf.as_ptr().align_offset(IO_ALIGNMENT_BYTES);
    let mut aligned = buf.split_off(skip);
    aligned.truncate(length_bytes);
    aligned
}
