//! An in-memory device that logs what lands, can hold operations back, and can fail.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use event_listener::{Event, listener};
use parking_lot::Mutex;
use volume::block_device::{Allocation, BlockDevice};

const CHUNK: u64 = 4096;

/// A write that has landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    pub offset: u64,
    pub length: usize,
    /// First byte of the data.
    pub tag: u8,
}

#[derive(Default)]
struct Content {
    chunks: BTreeMap<u64, Box<[u8; CHUNK as usize]>>,
    /// The first [`LOG_MAX`] writes.
    log: Vec<Landed>,
    /// Writes and zeroes that have landed.
    landed: u64,
    /// Writes of one block of 512 bytes by their first byte.
    blocks: BTreeMap<u8, usize>,
    watched: Range<u64>,
    /// Writes that began in `watched`.
    landings: u64,
}

const LOG_MAX: usize = 10_000;

/// Operations wait while it is closed.
#[derive(Default)]
pub struct Valve {
    closed: AtomicBool,
    waiting: AtomicUsize,
    /// Counts openings: who came before the next one waits for it even when the valve lets others pass.
    openings: AtomicUsize,
    opened: Event,
}

impl Valve {
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    pub fn open(&self) {
        self.closed.store(false, SeqCst);
        self.openings.fetch_add(1, SeqCst);
        self.opened.notify(usize::MAX);
    }

    /// Lets new operations pass; those that wait go on waiting for [`Valve::open`].
    pub fn hold_those_waiting(&self) {
        self.closed.store(false, SeqCst);
    }

    /// Operations that wait at the valve.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    async fn pass(&self) {
        if !self.closed.load(SeqCst) {
            return;
        }
        let opening = self.openings.load(SeqCst);
        self.waiting.fetch_add(1, SeqCst);
        loop {
            listener!(self.opened => opened);
            if self.openings.load(SeqCst) != opening {
                break;
            }
            opened.await;
        }
        self.waiting.fetch_sub(1, SeqCst);
    }
}

/// The device.
pub struct TestDevice {
    size: u64,
    content: Mutex<Content>,
    /// Writes wait here before they land.
    pub writes: Valve,
    /// Flushes wait here.
    pub flushes: Valve,
    /// Writes give other threads time between their start and their landing.
    pub dawdle: AtomicBool,
    pub fail_writes: AtomicBool,
    pub fail_reads: AtomicBool,
    flush_count: AtomicU64,
    /// Goes on while somebody sleeps.
    clock_ms: AtomicU64,
}

impl TestDevice {
    pub fn new(size: u64) -> Self {
        Self {
            size,
            content: Mutex::default(),
            writes: Valve::default(),
            flushes: Valve::default(),
            dawdle: AtomicBool::new(false),
            fail_writes: AtomicBool::new(false),
            fail_reads: AtomicBool::new(false),
            flush_count: AtomicU64::new(0),
            clock_ms: AtomicU64::new(0),
        }
    }

    /// How many blocks of 512 bytes with this first byte have landed.
    pub fn blocks(&self, tag: u8) -> usize {
        self.content.lock().blocks.get(&tag).copied().unwrap_or(0)
    }

    /// What has landed so far.
    pub fn log(&self) -> Vec<Landed> {
        self.content.lock().log.clone()
    }

    /// Counts what lands in `range` from now on.
    pub fn watch(&self, range: Range<u64>) {
        self.content.lock().watched = range;
    }

    /// How many writes have landed.
    pub fn landed(&self) -> u64 {
        self.content.lock().landed
    }

    /// How many flushes have begun.
    pub fn flush_count(&self) -> u64 {
        self.flush_count.load(SeqCst)
    }

    /// How many writes have landed in the range that is watched.
    pub fn landings(&self) -> u64 {
        self.content.lock().landings
    }

    /// Between the start of a write and its landing.
    async fn take_time(&self) {
        if self.dawdle.load(SeqCst) {
            futures_lite::future::yield_now().await;
            for _ in 0..4 {
                std::thread::yield_now();
            }
        }
    }

    fn check(&self, offset: u64, length: u64, fail: &AtomicBool) -> io::Result<()> {
        if fail.load(SeqCst) {
            return Err(io::Error::other("failed on purpose"));
        }
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Content {
    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % CHUNK) as usize;
            let length = (CHUNK as usize - within).min(data.len() - done);
            let chunk = self
                .chunks
                .entry(at / CHUNK)
                .or_insert_with(|| Box::new([0; CHUNK as usize]));
            chunk[within..within + length].copy_from_slice(&data[done..done + length]);
            done += length;
        }
    }
}

impl BlockDevice for TestDevice {
    fn size_bytes(&self) -> u64 {
        self.size
    }

    fn alignment_bytes(&self) -> usize {
        1
    }

    async fn read(&self, offset: u64, mut buf: BytesMut) -> (io::Result<()>, BytesMut) {
        if let Err(error) = self.check(offset, buf.len() as u64, &self.fail_reads) {
            return (Err(error), buf);
        }
        let content = self.content.lock();
        for (index, byte) in buf.iter_mut().enumerate() {
            let at = offset + index as u64;
            let chunk = content.chunks.get(&(at / CHUNK));
            *byte = chunk.map_or(0, |chunk| chunk[(at % CHUNK) as usize]);
        }
        (Ok(()), buf)
    }

    async fn write(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.writes.pass().await;
        self.take_time().await;
        self.check(offset, data.len() as u64, &self.fail_writes)?;
        let mut content = self.content.lock();
        content.landings += u64::from(content.watched.contains(&offset));
        content.landed += 1;
        content.write(offset, &data);
        let landed = Landed {
            offset,
            length: data.len(),
            tag: data.first().copied().unwrap_or(0),
        };
        if landed.length == 512 {
            *content.blocks.entry(landed.tag).or_default() += 1;
        }
        if content.log.len() < LOG_MAX {
            content.log.push(landed);
        }
        Ok(())
    }

    async fn flush(&self) -> io::Result<()> {
        self.flush_count.fetch_add(1, SeqCst);
        self.flushes.pass().await;
        self.check(0, 0, &self.fail_writes)
    }

    async fn write_zeroes(&self, offset: u64, length: u64, deallocate: bool) -> io::Result<()> {
        self.writes.pass().await;
        self.take_time().await;
        self.check(offset, length, &self.fail_writes)?;
        let mut content = self.content.lock();
        content.landings += u64::from(content.watched.contains(&offset));
        content.landed += 1;
        let mut at = offset;
        while at < offset + length {
            let end = (at / CHUNK + 1) * CHUNK;
            let part = end.min(offset + length) - at;
            if part == CHUNK && deallocate {
                content.chunks.remove(&(at / CHUNK));
            } else {
                content.write(at, &vec![0; part as usize]);
            }
            at += part;
        }
        Ok(())
    }

    async fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        self.check(offset, length, &self.fail_reads)?;
        let content = self.content.lock();
        let allocated = |at: u64| content.chunks.contains_key(&(at / CHUNK));
        let first = allocated(offset);
        let mut end = offset;
        while end < offset + length && allocated(end) == first {
            end = (end / CHUNK + 1) * CHUNK;
        }
        Ok(Allocation {
            allocated: first,
            length_bytes: end.min(offset + length) - offset,
        })
    }

    fn in_flight(&self) -> u64 {
        0
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.clock_ms.load(SeqCst))
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        while self.now() < until {
            self.clock_ms.fetch_add(1, SeqCst);
            futures_lite::future::yield_now().await;
        }
    }
}
