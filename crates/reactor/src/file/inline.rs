//! Plain writes on the reactor's own thread, where the file system cannot say in advance whether a write would wait.
//!
//! A small write into the page cache takes two microseconds; handing it to another thread takes twice that on a busy
//! machine and twenty times that on an idle one (`docs/decisions/0002-data-plane.md`). What can make it wait: a page
//! that must be read first (excluded: whole pages only), and the kernel slowing down writers when too much is dirty.
//! The latter is noticed, and then writes go elsewhere for a while.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The longest write that is done inline, in bytes: some 50 microseconds of copying.
const MAX_INLINE_BYTES: usize = 256 * 1024;
/// What need not be read before it is written: a page. (Where pages are larger, a write that had to wait for a read
/// is noticed like any other.)
const PAGE_BYTES: u64 = 4096;
/// A write that takes longer has waited, or the thread was preempted meanwhile, which cannot be told apart cheaply.
const SLOW: Duration = Duration::from_millis(2);
/// How long no write is done inline after a slow one, in times of what that took: waiting takes at most a ninth of the
/// reactor's time, and on a busy machine a preemption does not drive the writes away for long.
const PAUSE_TIMES: u32 = 8;

/// The beginning of the clock below.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Whether inline writes are a good idea on a device now.
#[derive(Default)]
pub(super) struct InlineWrites {
    /// Not before this time, in milliseconds since `EPOCH`.
    not_before_ms: AtomicU64,
}

impl InlineWrites {
    /// Runs `write` when a write of this place and length may be done inline and none has waited lately.
    pub(super) fn run<T>(
        &self,
        offset_bytes: u64,
        length_bytes: usize,
        write: impl FnOnce() -> T,
    ) -> Option<T> {
        let whole_pages = (offset_bytes | length_bytes as u64).is_multiple_of(PAGE_BYTES);
        if !whole_pages || length_bytes > MAX_INLINE_BYTES {
            return None;
        }
        let start = Instant::now();
        let now_ms = milliseconds(start.saturating_duration_since(*EPOCH));
        if now_ms < self.not_before_ms.load(Ordering::Relaxed) {
            return None;
        }
        let outcome = write();
        self.note(now_ms, start.elapsed());
        Some(outcome)
    }

    fn note(&self, now_ms: u64, taken: Duration) {
        if taken > SLOW {
            let until = now_ms + milliseconds(taken.saturating_mul(1 + PAUSE_TIMES));
            self.not_before_ms.store(until, Ordering::Relaxed);
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_writes_of_whole_pages() {
        let inline = InlineWrites::default();
        assert_eq!(inline.run(8192, 4096, || 1), Some(1));
        assert_eq!(inline.run(0, MAX_INLINE_BYTES, || 2), Some(2));
        assert_eq!(inline.run(0, MAX_INLINE_BYTES + 4096, || 3), None);
        assert_eq!(inline.run(512, 4096, || 4), None);
        assert_eq!(inline.run(4096, 512, || 5), None);
    }

    #[test]
    fn the_pause_is_in_proportion_to_the_wait() {
        let inline = InlineWrites::default();
        inline.note(1000, Duration::from_millis(4));
        assert_eq!(inline.not_before_ms.load(Ordering::Relaxed), 1036);
    }

    #[test]
    fn a_write_that_waited_stops_them_for_a_while() {
        let inline = InlineWrites::default();
        inline.note(0, SLOW);
        assert!(inline.run(0, 4096, || ()).is_some());
        let now_ms = milliseconds(EPOCH.elapsed());
        inline.note(now_ms, Duration::from_secs(3600));
        assert!(inline.run(0, 4096, || ()).is_none());
    }
}
