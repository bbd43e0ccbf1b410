//! A simulated set of disks: in memory, with failures, and with every crash that real disks allow.
//!
//! All operations of all disks of a [`SimWorld`] go into one log. [`SimWorld::crashes`] walks it and makes, after each
//! event, images of what a power cut then may leave: every write before the last completed flush of its disk, and of
//! the later ones any subset, in any order, each torn at 512 bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::block_device::{Allocation, BlockDevice, SECTOR_BYTES};

const CHUNK_BYTES: u64 = 4096;
type Chunk = [u8; CHUNK_BYTES as usize];

/// The content of a disk; what was never written is zero and costs nothing. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Image {
    chunks: BTreeMap<u64, Arc<Chunk>>,
}

impl Image {
    /// Copies out `buf.len()` bytes from `offset_bytes`.
    pub fn read(&self, offset_bytes: u64, buf: &mut [u8]) {
        for (at, within, part) in pieces(offset_bytes, buf.len()) {
            let out = &mut buf[part.clone()];
            match self.chunks.get(&at) {
                Some(chunk) => out.copy_from_slice(&chunk[within..within + part.len()]),
                None => out.fill(0),
            }
        }
    }

    /// Copies `data` in at `offset_bytes`.
    pub fn write(&mut self, offset_bytes: u64, data: &[u8]) {
        for (at, within, part) in pieces(offset_bytes, data.len()) {
            let chunk = self
                .chunks
                .entry(at)
                .or_insert_with(|| Arc::new([0; CHUNK_BYTES as usize]));
            Arc::make_mut(chunk)[within..within + part.len()].copy_from_slice(&data[part]);
        }
    }

    fn zero(&mut self, offset_bytes: u64, length_bytes: u64) {
        let end = offset_bytes + length_bytes;
        let first = offset_bytes.next_multiple_of(CHUNK_BYTES);
        let last = end / CHUNK_BYTES * CHUNK_BYTES;
        if first >= last {
            self.write(offset_bytes, &vec![0; length_bytes as usize]);
            return;
        }
        self.write(offset_bytes, &vec![0; (first - offset_bytes) as usize]);
        self.write(last, &vec![0; (end - last) as usize]);
        let whole: Vec<u64> = self
            .chunks
            .range(first / CHUNK_BYTES..last / CHUNK_BYTES)
            .map(|(at, _)| *at)
            .collect();
        for at in whole {
            self.chunks.remove(&at);
        }
    }
}

/// Splits a range at chunk borders: (chunk, offset in it, part of the range).
fn pieces(
    offset_bytes: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let at = offset_bytes + done as u64;
        let within = (at % CHUNK_BYTES) as usize;
        let count = (length - done).min(CHUNK_BYTES as usize - within);
        let part = done..done + count;
        done += count;
        Some((at / CHUNK_BYTES, within, part))
    })
}

/// What happened.
#[derive(Clone)]
enum Event {
    Write {
        disk: usize,
        offset_bytes: u64,
        data: Bytes,
    },
    Zero {
        disk: usize,
        offset_bytes: u64,
        length_bytes: u64,
    },
    Flush {
        disk: usize,
    },
    /// The test's own: something was acknowledged.
    Mark(u64),
}

struct Disk {
    size_bytes: u64,
    alignment_bytes: usize,
    image: Image,
    fail_reads: bool,
    fail_writes: bool,
    fail_flushes: bool,
    /// Writes that still succeed before they all fail.
    fuse: Option<u64>,
}

#[derive(Default)]
struct Inner {
    disks: Vec<Disk>,
    log: Vec<Event>,
    recording: bool,
    now: Duration,
    initial: Vec<Image>,
}

/// A set of disks with one history.
#[derive(Clone, Default)]
pub struct SimWorld {
    inner: Arc<Mutex<Inner>>,
}

/// One disk of a world.
pub struct SimDevice {
    world: SimWorld,
    disk: usize,
    in_flight: AtomicUsize,
}

/// A point of a crash and what the disks may hold after it.
pub struct Crash {
    /// The last mark before it.
    pub mark: Option<u64>,
    /// Content of each disk.
    pub images: Vec<Image>,
}

impl SimWorld {
    /// Adds a disk and returns it.
    pub fn add(&self, size_bytes: u64, alignment_bytes: usize) -> Arc<SimDevice> {
        let mut inner = self.inner.lock();
        inner.disks.push(Disk {
            size_bytes,
            alignment_bytes,
            image: Image::default(),
            fail_reads: false,
            fail_writes: false,
            fail_flushes: false,
            fuse: None,
        });
        let disk = inner.disks.len() - 1;
        drop(inner);
        self.device(disk)
    }

    /// A new handle of a disk, as after a restart.
    pub fn device(&self, disk: usize) -> Arc<SimDevice> {
        Arc::new(SimDevice {
            world: self.clone(),
            disk,
            in_flight: AtomicUsize::new(0),
        })
    }

    /// A world of the same disks with these contents, healthy and without history.
    pub fn with_images(&self, images: Vec<Image>) -> SimWorld {
        let world = SimWorld::default();
        for (disk, image) in self.inner.lock().disks.iter().zip(images) {
            world.add(disk.size_bytes, disk.alignment_bytes);
            if let Some(new) = world.inner.lock().disks.last_mut() {
                new.image = image;
            }
        }
        world
    }

    /// Starts the history: what the disks hold now counts as durable.
    pub fn record(&self) {
        let mut inner = self.inner.lock();
        inner.log.clear();
        inner.recording = true;
        inner.initial = inner.disks.iter().map(|disk| disk.image.clone()).collect();
    }

    /// Notes in the history that something was acknowledged.
    pub fn mark(&self, mark: u64) {
        let mut inner = self.inner.lock();
        inner.log.push(Event::Mark(mark));
    }

    /// Current content of a disk.
    pub fn image(&self, disk: usize) -> Image {
        self.inner.lock().disks[disk].image.clone()
    }

    /// Writes into a disk from outside, past its failures and history.
    pub fn overwrite(&self, disk: usize, offset_bytes: u64, data: &[u8]) {
        self.inner.lock().disks[disk]
            .image
            .write(offset_bytes, data);
    }

    /// Makes operations of a disk fail, or not.
    pub fn fail(&self, disk: usize, reads: bool, writes: bool, flushes: bool) {
        let disk = &mut self.inner.lock().disks[disk];
        disk.fail_reads = reads;
        disk.fail_writes = writes;
        disk.fail_flushes = flushes;
    }

    /// Lets a disk do `writes` more writes, then none.
    pub fn fuse(&self, disk: usize, writes: Option<u64>) {
        self.inner.lock().disks[disk].fuse = writes;
    }

    /// Number of events since [`SimWorld::record`], and how many of them are flushes.
    pub fn history(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let flushes = inner
            .log
            .iter()
            .filter(|event| matches!(event, Event::Flush { .. }))
            .count();
        (inner.log.len(), flushes)
    }

    /// Calls `check` with crash images after every event of the history: one with all unflushed writes lost, one with all
    /// of them there, and `samples` random ones, chosen by `seed`.
    pub fn crashes(&self, samples: u32, seed: u64, mut check: impl FnMut(Crash)) {
        let (log, initial) = {
            let inner = self.inner.lock();
            (inner.log.clone(), inner.initial.clone())
        };
        let mut random = Random(seed | 1);
        let mut durable = initial;
        let mut pending: Vec<Vec<Event>> = vec![Vec::new(); durable.len()];
        let mut mark = None;
        for event in log {
            match &event {
                Event::Write { disk, .. } | Event::Zero { disk, .. } => pending[*disk].push(event),
                Event::Flush { disk } => {
                    for event in pending[*disk].drain(..) {
                        apply(&mut durable[*disk], &event, |_| true);
                    }
                }
                Event::Mark(new) => mark = Some(*new),
            }
            for sample in 0..samples + 2 {
                let mut images = durable.clone();
                for (image, writes) in images.iter_mut().zip(&pending) {
                    match sample {
                        0 => {}
                        1 => {
                            for event in writes {
                                apply(image, event, |_| true);
                            }
                        }
                        _ => tear(image, writes, &mut random),
                    }
                }
                check(Crash { mark, images });
            }
        }
    }
}

/// Applies some of the sectors of `event` that `keep` chooses.
fn apply(image: &mut Image, event: &Event, mut keep: impl FnMut(usize) -> bool) {
    match event {
        Event::Write {
            offset_bytes, data, ..
        } => {
            // Sectors of the disk, not of the write.
            let lead = (SECTOR_BYTES - (*offset_bytes as usize % SECTOR_BYTES)) % SECTOR_BYTES;
            let mut at = 0;
            let mut sector = 0;
            while at < data.len() {
                let end = if at == 0 && lead > 0 {
                    lead.min(data.len())
                } else {
                    (at + SECTOR_BYTES).min(data.len())
                };
                if keep(sector) {
                    image.write(offset_bytes + at as u64, &data[at..end]);
                }
                at = end;
                sector += 1;
            }
        }
        Event::Zero {
            offset_bytes,
            length_bytes,
            ..
        } => {
            // In pieces of the file system's block.
            let mut at = *offset_bytes;
            let end = offset_bytes + length_bytes;
            if *length_bytes > 64 * CHUNK_BYTES {
                if keep(0) {
                    image.zero(at, *length_bytes);
                }
                return;
            }
            let mut piece = 0;
            while at < end {
                let next = (at + CHUNK_BYTES).min(end);
                if keep(piece) {
                    image.zero(at, next - at);
                }
                at = next;
                piece += 1;
            }
        }
        Event::Flush { .. } | Event::Mark(_) => {}
    }
}

/// A random subset of `writes` in a random order, some of them torn.
fn tear(image: &mut Image, writes: &[Event], random: &mut Random) {
    let mut order: Vec<usize> = (0..writes.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    for index in order {
        match random.below(4) {
            0 => {}
            1 => apply(image, &writes[index], |_| true),
            2 => {
                // A prefix.
                let until = random.below(9) as usize;
                apply(image, &writes[index], |sector| sector < until);
            }
            _ => apply(image, &writes[index], |_| random.below(2) == 0),
        }
    }
}

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

impl SimDevice {
    fn check(&self, offset_bytes: u64, length_bytes: u64, address: usize) -> io::Result<()> {
        let inner = self.world.inner.lock();
        let disk = &inner.disks[self.disk];
        let inside = offset_bytes
            .checked_add(length_bytes)
            .is_some_and(|end| end <= disk.size_bytes);
        let mask = disk.alignment_bytes as u64 - 1;
        let aligned =
            offset_bytes & mask == 0 && length_bytes & mask == 0 && address as u64 & mask == 0;
        if inside && aligned {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{length_bytes} bytes at {offset_bytes} are outside or not aligned"),
            ))
        }
    }

    /// Writes, zeroes or flushes, unless the disk is to fail.
    fn change(&self, event: Event) -> io::Result<()> {
        let mut inner = self.world.inner.lock();
        let recording = inner.recording;
        let disk = &mut inner.disks[self.disk];
        let fails = match event {
            Event::Flush { .. } => disk.fail_flushes,
            _ => disk.fail_writes,
        };
        let is_flush = matches!(event, Event::Flush { .. });
        if fails || disk.fuse == Some(0) && !is_flush {
            return Err(io::Error::other("simulated failure"));
        }
        if let Some(fuse) = &mut disk.fuse
            && !is_flush
        {
            *fuse -= 1;
        }
        apply(&mut disk.image, &event, |_| true);
        if recording {
            inner.log.push(event);
        }
        Ok(())
    }
}

impl BlockDevice for SimDevice {
    fn size_bytes(&self) -> u64 {
        self.world.inner.lock().disks[self.disk].size_bytes
    }

    fn alignment_bytes(&self) -> usize {
        self.world.inner.lock().disks[self.disk].alignment_bytes
    }

    async fn read(&self, offset_bytes: u64, mut buf: BytesMut) -> (io::Result<()>, BytesMut) {
        if let Err(error) = self.check(offset_bytes, buf.len() as u64, buf.as_ptr() as usize) {
            return (Err(error), buf);
        }
        futures_lite::future::yield_now().await;
        let inner = self.world.inner.lock();
        let disk = &inner.disks[self.disk];
        if disk.fail_reads {
            return (Err(io::Error::other("simulated failure")), buf);
        }
        disk.image.read(offset_bytes, &mut buf);
        drop(inner);
        (Ok(()), buf)
    }

    async fn write(&self, offset_bytes: u64, data: Bytes) -> io::Result<()> {
        self.check(offset_bytes, data.len() as u64, data.as_ptr() as usize)?;
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        futures_lite::future::yield_now().await;
        let result = self.change(Event::Write {
            disk: self.disk,
            offset_bytes,
            data,
        });
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        result
    }

    async fn flush(&self) -> io::Result<()> {
        // Covers what had completed when it was called: nothing is completed between here and the log.
        self.change(Event::Flush { disk: self.disk })
    }

    async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        _deallocate: bool,
    ) -> io::Result<()> {
        self.check(offset_bytes, length_bytes, 0)?;
        futures_lite::future::yield_now().await;
        self.change(Event::Zero {
            disk: self.disk,
            offset_bytes,
            length_bytes,
        })
    }

    async fn allocation(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<Allocation> {
        self.check(offset_bytes, length_bytes, 0)?;
        let inner = self.world.inner.lock();
        let chunks = &inner.disks[self.disk].image.chunks;
        let at = offset_bytes / CHUNK_BYTES;
        let end = (offset_bytes + length_bytes).div_ceil(CHUNK_BYTES);
        let allocated = chunks.contains_key(&at);
        let mut next = at + 1;
        while next < end && chunks.contains_key(&next) == allocated {
            next += 1;
        }
        Ok(Allocation {
            allocated,
            length_bytes: (next * CHUNK_BYTES - offset_bytes).min(length_bytes),
        })
    }

    fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst) as u64
    }

    fn now(&self) -> Duration {
        self.world.inner.lock().now
    }

    /// Time goes on by a millisecond whenever somebody who sleeps is looked at.
    async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        while self.now() < until {
            self.world.inner.lock().now += Duration::from_millis(1);
            futures_lite::future::yield_now().await;
        }
    }
}
