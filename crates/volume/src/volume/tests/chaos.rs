//! Clients, failing disks, crashes: a mirrored volume against a model of what its sectors may hold.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::lab::*;
use super::model::{Model, content};
use super::*;
use crate::block_device::BlockDevice;
use crate::config::PlexState;
use crate::sim::{self, Effect, Fault, Operations, Random, Stop};

const VOLUME_BYTES: u64 = 3 * MIB;

struct Clients {
    model: RefCell<Model>,
    next_value: RefCell<u64>,
    random: RefCell<Random>,
    errors: RefCell<u32>,
    done: RefCell<u32>,
}

impl Clients {
    fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().within(0..bound)
    }

    fn value(&self) -> u64 {
        let mut next = self.next_value.borrow_mut();
        *next += 1;
        *next
    }

    /// A range of sectors, most of them in few places, so that they overlap.
    fn sectors(&self) -> std::ops::Range<u64> {
        let all = VOLUME_BYTES / SECTOR as u64;
        let start = match self.below(3) {
            0 => self.below(all - 300),
            1 => 2048 - 8 + self.below(16),
            _ => self.below(40),
        };
        start..start + 1 + self.below(24)
    }

    async fn work(self: Rc<Self>, volume: Arc<Volume<SimDevice>>, operations: u32) {
        for _ in 0..operations {
            let sectors = self.sectors();
            let (at, count) = (sectors.start * SECTOR as u64, sectors.end - sectors.start);
            let kind = self.below(12);
            match kind {
                0..=6 => {
                    let value = if kind == 6 { 0 } else { self.value() };
                    let number = self.model.borrow_mut().write_begins(sectors, value);
                    let result = match kind {
                        5 => {
                            let data = content(value, count);
                            volume.write_atomic(at, data.into()).await
                        }
                        6 => volume.write_zeroes(at, count * SECTOR as u64, true).await,
                        _ => volume.write(at, content(value, count).into()).await,
                    };
                    match result {
                        Ok(()) => self.model.borrow_mut().write_ends(number, kind == 5),
                        Err(_) => {
                            self.model.borrow_mut().write_fails(number);
                            *self.errors.borrow_mut() += 1;
                        }
                    }
                }
                7..=10 => self.read(&volume, sectors, "a client").await,
                _ => {
                    let begun = self.model.borrow_mut().begin(None);
                    if volume.flush().await.is_ok() {
                        self.model.borrow_mut().flush_ends(begun);
                    } else {
                        *self.errors.borrow_mut() += 1;
                    }
                }
            }
            *self.done.borrow_mut() += 1;
        }
    }

    async fn read(&self, volume: &Volume<SimDevice>, sectors: std::ops::Range<u64>, what: &str) {
        let at = sectors.start * SECTOR as u64;
        let length = (sectors.end - sectors.start) as usize * SECTOR;
        let begun = self.model.borrow_mut().begin(Some(sectors));
        let (result, data) = volume.read(at, BytesMut::zeroed(length)).await;
        match result {
            Ok(()) => self.model.borrow_mut().read_ends(begun, &data, what),
            Err(_) => *self.errors.borrow_mut() += 1,
        }
    }
}

/// Disk trouble, and what an operator and the keeper do about it later.
async fn trouble(lab: Lab, volume: Arc<Volume<SimDevice>>, devices: Devices, clients: Rc<Clients>) {
    let clock = lab.world.device(0);
    loop {
        clock
            .sleep(Duration::from_micros(500 + clients.below(8000)))
            .await;
        // Only while both copies are whole: two failures are a client's error, and that is right.
        let whole = volume.record().plexes.iter().all(Plex::is_attached)
            && volume.to_detach().is_empty()
            && devices.values().all(|device| device.is_online())
            && volume.unsettled().is_empty()
            && volume
                .record()
                .plexes
                .iter()
                .all(|plex| volume.stale_count(plex.uuid) == 0);
        if !whole {
            mend(&lab, &volume, &devices).await;
            continue;
        }
        let disk = clients.below(2) as usize;
        match clients.below(6) {
            0 => lab.world.die(disk),
            1 => lab.world.hang(disk),
            2 => lab.world.inject(
                disk,
                Fault::new(Effect::ErrorInPart).on(Operations::CHANGES),
            ),
            3 => lab.world.inject(
                disk,
                Fault::new(Effect::Error).on(Operations::FLUSHES).once(),
            ),
            4 => lab.world.inject(
                disk,
                Fault::new(Effect::Error).on(Operations::READS).times(3),
            ),
            _ => lab.world.slow(disk, 30),
        }
        let pause = if clients.below(2) == 0 {
            20_000
        } else {
            12_000_000
        };
        clock
            .sleep(Duration::from_micros(clients.below(pause)))
            .await;
        for disk in 0..2 {
            lab.world.revive(disk);
            lab.world.slow(disk, 1);
            lab.world.resume(disk);
        }
    }
}

/// Brings back what was detached, and fills it.
async fn mend(lab: &Lab, volume: &Volume<SimDevice>, devices: &Devices) {
    for device in devices.values() {
        if !device.is_online() {
            let disk = (0..lab.world.disks())
                .find(|disk| disk_uuid(*disk) == device.uuid())
                .unwrap();
            device.bring_online(lab.world.device(disk), device.path());
        }
        while device.abandoned() > 0 {
            device.sleep(Duration::from_millis(1)).await;
        }
    }
    let mut next = VolumeRecord::clone(&volume.record());
    if !next.plexes.iter().all(Plex::is_attached) {
        for plex in &mut next.plexes {
            plex.state = PlexState::Attached;
        }
        if volume.prepare_attach(&next, devices, &[]).await.is_err() {
            return;
        }
        let layout = volume.prepare_layout(&next, devices).unwrap();
        lab.commit(&next).await;
        volume.publish(next, layout);
    }
    volume.drained().await;
    for region in 0..volume.regions() {
        if volume.sync_region(region, &Unpaced).await.is_err() {
            return;
        }
        if volume.finish(&[region]).await.is_err() {
            return;
        }
    }
}

fn campaign(seed: u64, rounds: u32) -> (u32, u32) {
    let mut random = Random::new(seed);
    let alignment = [512, 4096][random.within(0..2) as usize];
    let mut lab = Lab::new(seed, &[alignment, 512], &[&[0], &[1]], VOLUME_BYTES);
    let clients = Rc::new(Clients {
        model: RefCell::default(),
        next_value: RefCell::new(0),
        random: RefCell::new(random.fork()),
        errors: RefCell::default(),
        done: RefCell::default(),
    });
    for round in 0..rounds {
        let faults = random.within(0..3) > 0;
        lab.world.clone().run(async {
            let (devices, volume) = lab.volume(round == 0).await;
            let clock = lab.world.device(0);
            drop(sim::spawn(
                lab.clone().keep(volume.clone(), devices.clone()),
            ));
            let everything = 0..VOLUME_BYTES / SECTOR as u64;
            if random.within(0..2) == 0 {
                clients
                    .read(&volume, everything.clone(), "after the crash")
                    .await;
                if volume.record().plexes.iter().all(Plex::is_attached) && random.within(0..2) == 0
                {
                    // What was read is read again, whichever plex is there.
                    let settled = volume.stale_count(plex_uuid(0)) == 0
                        && volume.stale_count(plex_uuid(1)) == 0;
                    let disk = random.within(0..2) as usize;
                    if settled {
                        lab.world.die(disk);
                        clients.read(&volume, everything, "without a disk").await;
                        lab.world.revive(disk);
                    }
                }
            }
            if faults {
                let trouble = trouble(lab.clone(), volume.clone(), devices, clients.clone());
                drop(sim::spawn(trouble));
            }
            let sweeper = volume.clone();
            let sweeps = lab.world.device(0);
            drop(sim::spawn(async move {
                loop {
                    sweeps.sleep(Duration::from_millis(3)).await;
                    drop(sweeper.sweep().await);
                }
            }));
            let workers: Vec<_> = (0..3)
                .map(|_| sim::spawn(clients.clone().work(volume.clone(), 60)))
                .collect();
            let limit = Duration::from_micros(1000 + random.within(0..60_000));
            let ended = async {
                for worker in workers {
                    worker.await;
                }
            };
            if random.within(0..4) == 0 {
                ended.await;
            } else {
                futures_lite::future::or(ended, clock.sleep(limit)).await;
            }
        });
        let stop = if random.within(0..2) == 0 {
            Stop::Kill
        } else {
            Stop::PowerCut
        };
        clients.model.borrow_mut().crash(stop == Stop::PowerCut);
        lab = lab.after(stop, random.within(0..u64::MAX));
        for disk in 0..2 {
            lab.world.revive(disk);
            lab.world.resume(disk);
            lab.world.slow(disk, 1);
        }
    }
    // In the end everything is settled and filled, and the plexes are alike.
    lab.world.clone().run(async {
        let (devices, volume) = lab.volume(false).await;
        clients
            .read(&volume, 0..VOLUME_BYTES / SECTOR as u64, "at the end")
            .await;
        mend(&lab, &volume, &devices).await;
        assert!(volume.unsettled().is_empty());
        let compared = volume.compare_region(0, None, &Unpaced).await.unwrap();
        assert_eq!(compared, Default::default());
        clients
            .read(&volume, 0..VOLUME_BYTES / SECTOR as u64, "filled")
            .await;
        volume.flush().await.unwrap();
        assert!(volume.record().plexes.iter().all(Plex::is_attached));
        assert!(lab.content(0) == lab.content(1), "plexes differ");
    });
    (*clients.done.borrow(), *clients.errors.borrow())
}

#[test]
fn nothing_acknowledged_is_lost_and_reads_are_stable() {
    let (mut done, mut errors) = (0, 0);
    for seed in (0..40).chain([1266]) {
        let result = std::panic::catch_unwind(|| campaign(seed, 4));
        let (d, e) = result.unwrap_or_else(|_| panic!("seed {seed}"));
        done += d;
        errors += e;
    }
    assert!(done > 5000, "{done}");
    assert_eq!(errors, 0);
}
