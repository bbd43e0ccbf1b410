//! The keeper on simulated disks, with clients whose data is known.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use reservation::{InitiatorPort, Key, Nexus, Registrant, State as Keys};

use super::*;
use crate::block_device::aligned_buffer;
use crate::pool::{CreateVolume, DeviceSource};
use crate::sim::{SimDevice, SimWorld, spawn};
use crate::translate::Region;

mod crashes;
mod devices;
mod emptied;
mod failing;
mod first_log;
mod intents;
mod jobs;
mod keys;
mod without_quorum;

pub(super) const MIB: u64 = 1 << 20;
/// A sector: what no crash tears.
const BLOCK: u64 = crate::block_device::SECTOR_BYTES as u64;
const BOOT: Uuid = Uuid::from_u128(0xb007);

pub(super) type TestPool = Arc<Pool<SimDevice>>;

pub(super) fn source(world: &SimWorld, disk: usize) -> DeviceSource<SimDevice> {
    DeviceSource {
        path: format!("/disk{disk}"),
        device: world.device(disk),
    }
}

pub(super) async fn open(world: &SimWorld, disks: &[usize]) -> (TestPool, Arc<EventList>) {
    let sources = disks.iter().map(|disk| source(world, *disk)).collect();
    let pool = Arc::new(Pool::open(sources, BOOT).await.unwrap());
    (pool.clone(), watch(&pool))
}

pub(super) fn watch(pool: &TestPool) -> Arc<EventList> {
    let events = Arc::new(EventList::default());
    pool.set_events(events.clone());
    events
}

/// Starts the keeper beside the test.
pub(super) fn keep(pool: &TestPool) -> crate::sim::Task<()> {
    let pool = pool.clone();
    spawn(async move { pool.keep().await })
}

/// A pool of disks of `mib`, named d0, d1, ..., with its keeper.
pub(super) async fn pool(world: &SimWorld, mib: &[u64]) -> (TestPool, Arc<EventList>) {
    for size in mib {
        world.add(size * MIB, 512);
    }
    let pool = Arc::new(Pool::open(Vec::new(), BOOT).await.unwrap());
    let events = watch(&pool);
    for disk in 0..mib.len() {
        add(&pool, world, disk).await;
    }
    keep(&pool);
    (pool, events)
}

pub(super) async fn add(pool: &TestPool, world: &SimWorld, disk: usize) {
    pool.device_add(&format!("d{disk}"), source(world, disk))
        .await
        .unwrap();
}

pub(super) fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).into()).collect()
}

pub(super) fn request(name: &str, mib: u64, mirrors: usize, on: &[&str]) -> CreateVolume {
    CreateVolume {
        name: name.into(),
        size_bytes: mib * MIB,
        mirrors,
        on: names(on),
        ..CreateVolume::default()
    }
}

/// Sleeps until `is` holds, for at most `seconds` of virtual time.
pub(super) async fn until(world: &SimWorld, seconds: u64, what: &str, is: impl Fn() -> bool) {
    let clock = world.device(0);
    for _ in 0..seconds * 20 {
        if is() {
            return;
        }
        clock.sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within {seconds} seconds");
}

/// Until an event comes that `is` says yes to.
pub(super) async fn event(
    world: &SimWorld,
    events: &EventList,
    what: &str,
    is: impl Fn(&PoolEvent) -> bool,
) {
    let clock = world.device(0);
    for _ in 0..4000 {
        if events.any(&is) {
            return;
        }
        clock.sleep(Duration::from_millis(50)).await;
    }
    panic!("no {what}: {:#?}", events.all());
}

/// What a block may hold.
#[derive(Clone)]
struct Sector {
    /// The last acknowledged number.
    acknowledged: u64,
    /// Numbers of writes that were not answered, or with an error.
    maybe: Vec<u64>,
    /// What may be there after a power cut: (when, number) of what was durable last, and of what was acknowledged since.
    since: Vec<(u64, u64)>,
}

impl Default for Sector {
    fn default() -> Self {
        Sector {
            acknowledged: 0,
            maybe: Vec::new(),
            since: vec![(0, 0)],
        }
    }
}

impl Sector {
    fn is_now(&mut self, order: u64, number: u64) {
        self.acknowledged = number;
        self.maybe.clear();
        self.since.push((order, number));
    }
}

/// What the blocks of a volume may hold.
#[derive(Clone, Default)]
pub(super) struct Model {
    cells: Vec<Sector>,
    next: u64,
}

impl Model {
    fn order(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// It was read: it must be what it may be, and is read again.
    fn saw(&mut self, block: usize, number: u64) {
        let order = self.order();
        let cell = &mut self.cells[block];
        assert!(
            cell.acknowledged == number || cell.maybe.contains(&number),
            "block {block} holds {number}, not {} or one of {:?}",
            cell.acknowledged,
            cell.maybe
        );
        if cell.acknowledged != number || !cell.maybe.is_empty() {
            cell.is_now(order, number);
        }
    }

    /// The block was zeroed, by nobody who writes to it otherwise.
    pub(super) fn zeroed(&mut self, block: usize) {
        let order = self.order();
        self.cells[block].is_now(order, 0);
    }

    /// A flush that began at `order` has completed.
    fn flushed(&mut self, order: u64) {
        for cell in &mut self.cells {
            let durable = cell.since.iter().rposition(|(when, _)| *when < order);
            cell.since.drain(..durable.unwrap_or(0));
        }
    }

    /// The power failed: what was not flushed may be there or not.
    pub(super) fn power_failed(&mut self) {
        for cell in &mut self.cells {
            let since = cell.since.iter().map(|(_, number)| *number);
            cell.maybe.extend(since);
        }
    }

    /// The volume has this many blocks now.
    pub(super) fn resize(&mut self, blocks: usize) {
        self.cells.resize_with(blocks, Sector::default);
    }
}

/// A client of one volume.
#[derive(Clone)]
pub(super) struct Client {
    volume: Arc<Volume<SimDevice>>,
    pub(super) model: Rc<RefCell<Model>>,
    stop: Rc<Cell<bool>>,
    /// The load stays below this block.
    pub(super) limit: Rc<Cell<usize>>,
    pub(super) errors: Rc<Cell<u64>>,
    pub(super) writes: Rc<Cell<u64>>,
}

fn filled(number: u64) -> bytes::Bytes {
    let mut data = aligned_buffer(BLOCK as usize);
    for chunk in data.chunks_exact_mut(8) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    data.freeze()
}

fn number_of(data: &[u8]) -> u64 {
    let first = u64::from_le_bytes(data[..8].try_into().unwrap());
    assert!(
        data.chunks_exact(8).all(|chunk| chunk == &data[..8]),
        "a block is torn"
    );
    first
}

impl Client {
    pub(super) fn new(volume: &Arc<Volume<SimDevice>>) -> Client {
        let blocks = (volume.size_bytes() / BLOCK) as usize;
        Client {
            volume: volume.clone(),
            model: Rc::new(RefCell::new(Model {
                cells: vec![Sector::default(); blocks],
                next: 1,
            })),
            stop: Rc::default(),
            limit: Rc::new(Cell::new(blocks)),
            errors: Rc::default(),
            writes: Rc::default(),
        }
    }

    /// The same data seen through another opening of the volume.
    pub(super) fn again(&self, volume: &Arc<Volume<SimDevice>>) -> Client {
        let client = Client::new(volume);
        let mut model = self.model.borrow().clone();
        model.resize((volume.size_bytes() / BLOCK) as usize);
        *client.model.borrow_mut() = model;
        client
    }

    pub(super) async fn write(&self, block: usize) -> bool {
        let number = {
            let mut model = self.model.borrow_mut();
            let number = model.order();
            model.cells[block].maybe.push(number);
            number
        };
        let at = block as u64 * BLOCK;
        let result = if number % 13 == 0 {
            self.volume.write_atomic(at, filled(number)).await
        } else {
            self.volume.write(at, filled(number)).await
        };
        self.writes.set(self.writes.get() + 1);
        let mut model = self.model.borrow_mut();
        let order = model.order();
        match result {
            // One writer a block: what came before it is gone.
            Ok(()) => model.cells[block].is_now(order, number),
            Err(_) => self.errors.set(self.errors.get() + 1),
        }
        result.is_ok()
    }

    async fn zero(&self, block: usize) {
        self.model.borrow_mut().cells[block].maybe.push(0);
        let at = block as u64 * BLOCK;
        if self.volume.write_zeroes(at, BLOCK, true).await.is_ok() {
            self.model.borrow_mut().zeroed(block);
        } else {
            self.errors.set(self.errors.get() + 1);
        }
    }

    pub(super) async fn flush(&self) {
        let order = self.model.borrow_mut().order();
        if self.volume.flush().await.is_ok() {
            self.model.borrow_mut().flushed(order);
        } else {
            self.errors.set(self.errors.get() + 1);
        }
    }

    pub(super) async fn check(&self, block: usize) {
        let buf = aligned_buffer(BLOCK as usize);
        let (result, buf) = self.volume.read(block as u64 * BLOCK, buf).await;
        if result.is_ok() {
            self.model.borrow_mut().saw(block, number_of(&buf));
        } else {
            self.errors.set(self.errors.get() + 1);
        }
    }

    /// Writes, zeroes and reads until it is stopped: `writers` tasks, each with blocks of its own, a pause after each
    /// operation.
    pub(super) fn load(&self, world: &SimWorld, writers: usize, pause: Duration) {
        for writer in 0..writers {
            let client = self.clone();
            let world = world.clone();
            let clock = world.device(0);
            spawn(async move {
                while !client.stop.get() {
                    let blocks = client.limit.get() / writers;
                    let block = writer + writers * world.chance(0..blocks as u64) as usize;
                    match world.chance(0..9) {
                        0 => client.zero(block).await,
                        8 => client.flush().await,
                        1 | 2 => client.check(block).await,
                        _ => drop(client.write(block).await),
                    }
                    clock.sleep(pause).await;
                }
            });
        }
    }

    pub(super) fn stop(&self) {
        self.stop.set(true);
    }

    /// Fills every block once, each with a number of its own.
    pub(super) async fn fill(&self) {
        let blocks = self.model.borrow().cells.len();
        for first in (0..blocks).step_by(512) {
            let count = 512.min(blocks - first);
            let mut data = aligned_buffer(count * BLOCK as usize);
            let numbers: Vec<u64> = data
                .chunks_exact_mut(BLOCK as usize)
                .map(|block| {
                    let number = self.model.borrow_mut().order();
                    block.copy_from_slice(&filled(number));
                    number
                })
                .collect();
            let at = first as u64 * BLOCK;
            self.volume.write(at, data.freeze()).await.unwrap();
            let mut model = self.model.borrow_mut();
            for (index, number) in numbers.into_iter().enumerate() {
                model.cells[first + index].is_now(number, number);
            }
        }
        self.flush().await;
    }

    /// Reads everything. Whatever is found must be allowed, and is from now on the only thing that is.
    pub(super) async fn check_all(&self) {
        let size = self.volume.size_bytes();
        let mut at = 0;
        while at < size {
            let length = (256 * 1024).min(size - at);
            let (result, buf) = self.volume.read(at, aligned_buffer(length as usize)).await;
            result.unwrap();
            for (index, data) in buf.chunks_exact(BLOCK as usize).enumerate() {
                let block = (at / BLOCK) as usize + index;
                let number = number_of(data);
                self.model.borrow_mut().saw(block, number);
            }
            at += length;
        }
    }
}

/// Every attached plex holds the same bytes, by what is on the disks.
pub(super) async fn plexes_are_the_same(
    world: &SimWorld,
    pool: &TestPool,
    volume: &Volume<SimDevice>,
) {
    let record = volume.record();
    let map = volume.map();
    let disks: BTreeMap<Uuid, usize> = {
        let inner = pool.inner.lock().await;
        inner
            .devices
            .iter()
            .map(|(uuid, device)| {
                let disk = device.path().trim_start_matches("/disk").parse().unwrap();
                (*uuid, disk)
            })
            .collect()
    };
    let images: BTreeMap<Uuid, _> = disks
        .iter()
        .map(|(uuid, disk)| (*uuid, world.image(*disk)))
        .collect();
    let attached: Vec<usize> = (0..record.plexes.len())
        .filter(|plex| record.plexes[*plex].is_attached())
        .collect();
    let step = 64 * 1024;
    let mut at = 0;
    while at < record.size_bytes {
        let length = step.min(record.size_bytes - at);
        let content = |plex: usize| {
            let mut bytes = Vec::new();
            for range in map.translate(Region::Public { plex }, at, length).unwrap() {
                let mut part = vec![0; range.length_bytes as usize];
                images[&range.device].read(range.device_offset_bytes, &mut part);
                bytes.extend(part);
            }
            bytes
        };
        let first = content(attached[0]);
        for plex in &attached[1..] {
            assert!(content(*plex) == first, "plex {plex} differs near {at}");
        }
        at += length;
    }
}

/// No job, nothing stale, nothing unsettled.
pub(super) fn is_whole(volume: &Volume<SimDevice>) -> bool {
    let record = volume.record();
    record.job.is_none()
        && record.plexes.iter().all(|plex| plex.is_attached())
        && (record.plexes.len() == 1
            || record
                .plexes
                .iter()
                .all(|plex| volume.stale_count(plex.uuid) == 0)
                && volume.unsettled().is_empty())
}

/// A state of the keys that is known by its generation.
pub(super) fn keys(generation: u32) -> Keys {
    let nexus = Nexus {
        initiator: InitiatorPort {
            name: "iqn.2026-11.test:a".into(),
            isid: [1; 6],
        },
        target_port: 1,
    };
    let registrant = Registrant {
        key: Key(u64::from(generation) + 1),
        all_target_ports: false,
    };
    Keys {
        generation,
        registrants: [(nexus, registrant)].into(),
        ..Keys::default()
    }
}
