//! A simulated set of disks: in memory, on a clock of its own, with every fault and every crash that real disks allow.
//!
//! **Time.** [`SimWorld::run`] drives futures on one thread. Operations take a random time and end in any order; when
//! nothing is ready, the clock jumps to the next moment at which something happens, so that hours cost nothing. The seed
//! of the world decides everything: latencies, which ready future goes first, new identities, and what a crash leaves.
//! Outside of `run`, under any other executor, operations end at the second poll, in the order in which they were given.
//!
//! **Faults.** [`Fault`]s meet operations by kind, place and count: errors, hangs, lost and misdirected writes, wrong
//! bits. [`SimWorld::die`], [`SimWorld::hang`] and [`SimWorld::rot`] concern a disk as a whole. An operation whose future
//! is dropped goes on, is counted by `in_flight`, and its write lands when its time has come.
//!
//! **Crashes.** A write that was not followed by a completed flush is lost, torn at 512 bytes or there, each on its own
//! and in any order. [`SimWorld::after`] gives the world after a power cut, or after the death of the process, at this
//! moment; [`SimWorld::crashes`] walks a recorded history and makes images for every moment of it.

mod device;
mod disk;
mod executor;
mod fault;
mod history;
mod image;
mod operation;
mod random;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use disk::Disk;
use history::Event;
use image::Change;
use operation::{Operation, Timer};

pub use device::SimDevice;
pub(crate) use executor::identity_bits;
pub use executor::{Task, spawn};
pub use fault::{Effect, Fault, Operations};
pub use history::Crash;
pub use image::Image;
pub use random::Random;

/// What ends a run of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The power fails: what was not flushed is lost, torn or there.
    PowerCut,
    /// The process dies (kill -9): what it wrote is in the page cache; what was under way is done, or not, or in part.
    Kill,
}

/// A write or zeroes at the moment when they reach a disk.
#[derive(Clone, Copy, Debug)]
pub struct Landing<'a> {
    /// Number of the disk.
    pub disk: usize,
    /// First byte.
    pub offset_bytes: u64,
    /// How many bytes.
    pub length_bytes: u64,
    /// The data; `None` for zeroes.
    pub data: Option<&'a [u8]>,
}

type Observer = Box<dyn FnMut(Landing<'_>) + Send>;

struct Inner {
    disks: Vec<Disk>,
    random: Random,
    now: Duration,
    /// [`SimWorld::run`] is running: operations take their time.
    scheduled: bool,
    /// What happens when; numbered so that every moment has an order.
    timers: BTreeMap<(Duration, u64), Timer>,
    operations: BTreeMap<u64, Operation>,
    sleepers: BTreeMap<u64, Option<Waker>>,
    /// Writes and zeroings that have landed on any disk.
    landed: u64,
    /// Who waits for how many of them.
    watchers: Vec<(u64, Waker)>,
    next_number: u64,
    observer: Option<Observer>,
    log: Vec<Event>,
    recording: bool,
    initial: Vec<Disk>,
}

impl Inner {
    fn log(&mut self, event: Event) {
        if self.recording {
            self.log.push(event);
        }
    }
}

/// A set of disks with one clock and one history.
#[derive(Clone)]
pub struct SimWorld {
    inner: Arc<Mutex<Inner>>,
}

impl Default for SimWorld {
    fn default() -> Self {
        SimWorld::seeded(0)
    }
}

impl SimWorld {
    /// A world without disks in which chance follows from `seed`.
    pub fn seeded(seed: u64) -> SimWorld {
        SimWorld {
            inner: Arc::new(Mutex::new(Inner {
                disks: Vec::new(),
                random: Random::new(seed),
                now: Duration::from_secs(1),
                scheduled: false,
                timers: BTreeMap::new(),
                operations: BTreeMap::new(),
                sleepers: BTreeMap::new(),
                landed: 0,
                watchers: Vec::new(),
                next_number: 0,
                observer: None,
                log: Vec::new(),
                recording: false,
                initial: Vec::new(),
            })),
        }
    }

    /// Adds a disk and returns it.
    pub fn add(&self, size_bytes: u64, alignment_bytes: usize) -> Arc<SimDevice> {
        let mut inner = self.inner.lock();
        let disk = Disk::new(size_bytes, alignment_bytes, Image::default());
        inner.disks.push(disk);
        let disk = inner.disks.len() - 1;
        drop(inner);
        self.device(disk)
    }

    /// Number of disks.
    pub fn disks(&self) -> usize {
        self.inner.lock().disks.len()
    }

    /// A new handle of a disk, as after a restart.
    pub fn device(&self, disk: usize) -> Arc<SimDevice> {
        Arc::new(SimDevice::new(self.clone(), disk))
    }

    /// A world of the same disks with these contents, healthy and without history.
    pub fn with_images(&self, images: Vec<Image>) -> SimWorld {
        let world = SimWorld::default();
        let disks = self.inner.lock().disks.clone();
        world.inner.lock().disks = disks
            .iter()
            .zip(images)
            .map(|(disk, image)| Disk::new(disk.size_bytes, disk.alignment_bytes, image))
            .collect();
        world
    }

    /// The world after `stop` at this moment, with chance from `seed`; this world is left as it is. Disks keep their
    /// faults; nothing is in flight.
    pub fn after(&self, stop: Stop, seed: u64) -> SimWorld {
        let world = SimWorld::seeded(seed);
        {
            let inner = self.inner.lock();
            let mut new = world.inner.lock();
            new.now = inner.now + Duration::from_secs(1);
            let mut random = new.random.fork();
            let disks = inner.disks.iter().enumerate().map(|(number, disk)| {
                let under_way: Vec<Change> = inner.under_way(number).cloned().collect();
                match stop {
                    Stop::PowerCut => disk.restarted(disk.after_power_cut(&under_way, &mut random)),
                    Stop::Kill => {
                        let mut disk = disk.clone();
                        disk.forget();
                        for change in under_way {
                            if let Some(left) = change.left_by_kill(&mut random) {
                                disk.land(u64::MAX, left);
                            }
                        }
                        // In the page cache: the next flush covers it.
                        disk.tick += 1;
                        let tick = disk.tick;
                        for cached in &mut disk.cached {
                            cached.completed = Some(tick);
                        }
                        disk
                    }
                }
            });
            new.disks = disks.collect();
        }
        world
    }

    /// Current content of a disk, its cache included.
    pub fn image(&self, disk: usize) -> Image {
        self.inner.lock().disks[disk].image.clone()
    }

    /// Calls `look` with each block of a disk in this range that was ever written, its cache included: first byte and
    /// content. It must not call the world.
    pub fn each_written(&self, disk: usize, range: Range<u64>, look: impl FnMut(u64, &[u8])) {
        self.inner.lock().disks[disk]
            .image
            .each_written(range, look);
    }

    /// Writes into a disk from outside, past its failures and history; durable at once.
    pub fn overwrite(&self, disk: usize, offset_bytes: u64, data: &[u8]) {
        let disk = &mut self.inner.lock().disks[disk];
        disk.image.write(offset_bytes, data);
        disk.durable.write(offset_bytes, data);
    }

    /// Flips a bit on the medium.
    pub fn rot(&self, disk: usize, offset_bytes: u64, bit: u8) {
        let disk = &mut self.inner.lock().disks[disk];
        for image in [&mut disk.image, &mut disk.durable] {
            let mut byte = [0];
            image.read(offset_bytes, &mut byte);
            image.write(offset_bytes, &[byte[0] ^ 1 << (bit % 8)]);
        }
    }

    /// Replaces the content of a disk by nothing, as when another disk is put in its place.
    pub fn blank(&self, disk: usize) {
        let disk = &mut self.inner.lock().disks[disk];
        *disk = Disk::new(disk.size_bytes, disk.alignment_bytes, Image::default());
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

    /// Adds a fault to a disk, behind those that it has.
    pub fn inject(&self, disk: usize, fault: Fault) {
        self.inner.lock().disks[disk].faults.push(fault);
    }

    /// Takes all faults from a disk; what hangs goes on hanging.
    pub fn clear_faults(&self, disk: usize) {
        self.inner.lock().disks[disk].faults.clear();
    }

    /// Makes a disk so many times slower than usual.
    pub fn slow(&self, disk: usize, times: u32) {
        self.inner.lock().disks[disk].slowness = times;
    }

    /// From now on one write or zeroing in `one_in` takes as long as hundreds of others; none with 0.
    pub fn stragglers(&self, disk: usize, one_in: u64) {
        self.inner.lock().disks[disk].stragglers = one_in;
    }

    /// Kills a disk: what is in flight fails (writes may have landed in part), and everything later.
    pub fn die(&self, disk: usize) {
        let mut inner = self.inner.lock();
        inner.disks[disk].dead = true;
        inner.fail_all(disk);
    }

    /// Brings a dead disk back with what it held.
    pub fn revive(&self, disk: usize) {
        self.inner.lock().disks[disk].dead = false;
    }

    /// The disk alone loses power and gets it again: what was not flushed is lost, torn or there, what is in flight fails, and
    /// so does everything through handles that were made before. A dead disk is alive then.
    pub fn power_cycle(&self, disk: usize) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.fail_all(disk);
        inner.cut_off(disk);
        inner.disks[disk].power_cycle(&mut inner.random);
    }

    /// What a flush lost ([`Effect::ErrorAndLoss`]) is not to be seen any more, as when the cache is read anew.
    pub fn forget(&self, disk: usize) {
        self.inner.lock().disks[disk].forget();
    }

    /// Whether a disk is dead.
    pub fn is_dead(&self, disk: usize) -> bool {
        self.inner.lock().disks[disk].dead
    }

    /// Makes every operation that is given to a disk from now on hang until [`SimWorld::resume`].
    pub fn hang(&self, disk: usize) {
        self.inject(disk, Fault::new(Effect::Hang(None)));
    }

    /// Takes all faults from a disk and ends what hangs: those writes land now.
    pub fn resume(&self, disk: usize) {
        let mut inner = self.inner.lock();
        inner.disks[disk].faults.clear();
        inner.resume(disk);
    }

    /// Number of operations in flight on a disk that a fault has met.
    pub fn going_wrong(&self, disk: usize) -> usize {
        self.inner.lock().going_wrong(disk)
    }

    /// Calls `observer` with every write and zeroing that reaches a disk, where it really lands. It must not call the
    /// world.
    pub fn observe(&self, observer: impl FnMut(Landing<'_>) + Send + 'static) {
        self.inner.lock().observer = Some(Box::new(observer));
    }

    /// Waits until `more` writes or zeroings have landed on the disks from now on: a moment at which something has just
    /// happened, however seldom that is.
    pub fn landings(&self, more: u64) -> impl Future<Output = ()> {
        let until = self.inner.lock().landed + more;
        poll_fn(move |context| {
            let mut inner = self.inner.lock();
            if inner.landed >= until {
                return Poll::Ready(());
            }
            inner.watchers.push((until, context.waker().clone()));
            Poll::Pending
        })
    }

    /// The time now.
    pub fn time(&self) -> Duration {
        self.inner.lock().now
    }

    /// A number from the world's own chance.
    pub fn chance(&self, range: Range<u64>) -> u64 {
        self.inner.lock().random.within(range)
    }
}

#[cfg(test)]
mod tests;
