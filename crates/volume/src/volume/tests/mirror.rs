//! Volumes with several plexes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::config::{Column, Extent, KeysReplica, Persist, Plex, PlexLayout, PlexState};
use crate::device::Device;
use crate::private_region::PrivateRegion;
use crate::sim::{self, Effect, Fault, Operations, Stop};
use crate::volume::regions::copy::{SyncError, Unpaced};
use crate::volume::regions::{DetachError, RegionTracker, Regions};
use crate::volume::reports::{Report, Reports, Trouble};

type Devices = BTreeMap<Uuid, Arc<Device<SimDevice>>>;

const DISK_BYTES: u64 = 64 * MIB;
const LOG_AT: u64 = 40 * MIB;
const KEYS_AT: u64 = 44 * MIB;

/// A volume of its own, without a pool: disks with fixed places for everything, and a keeper that does the least.
#[derive(Clone)]
struct Lab {
    world: SimWorld,
    /// What the configuration says.
    record: Arc<parking_lot::Mutex<VolumeRecord>>,
    reports: Arc<Reports>,
}

fn disk_uuid(disk: usize) -> Uuid {
    Uuid::from_u128(0x1000 + disk as u128)
}

fn plex_uuid(number: usize) -> Uuid {
    Uuid::from_u128(0x2000 + number as u128)
}

fn extent(disk: usize, offset_bytes: u64, length_bytes: u64) -> Extent {
    Extent {
        device: disk_uuid(disk),
        offset_bytes,
        length_bytes,
    }
}

/// A plex on one disk in two extents, or striped over two.
fn plex(number: usize, disks: &[usize], bytes: u64) -> Plex {
    let (layout, columns) = match disks {
        [disk] => (
            PlexLayout::Linear,
            vec![Column {
                extents: vec![
                    extent(*disk, 20 * MIB, MIB),
                    extent(*disk, MIB, bytes - MIB),
                ],
            }],
        ),
        disks => (
            PlexLayout::Striped {
                stripe_unit_bytes: 64 * 1024,
            },
            disks
                .iter()
                .map(|disk| Column {
                    extents: vec![extent(*disk, MIB, bytes)],
                })
                .collect(),
        ),
    };
    Plex {
        uuid: plex_uuid(number),
        layout,
        columns,
        log: extent(disks[0], LOG_AT, PLEX_LOG_BYTES),
        state: PlexState::Attached,
        replaces: None,
    }
}

fn record(plexes: Vec<Plex>, bytes: u64) -> VolumeRecord {
    VolumeRecord {
        uuid: Uuid::from_u128(7),
        name: "v".into(),
        lun: 0,
        naa: "3000000000000007".into(),
        serial: "7".into(),
        size_bytes: bytes,
        block_size: BlockSize::B512,
        persist: Persist::Aptpl,
        region_bytes: MIB,
        keys: vec![KeysReplica {
            uuid: Uuid::from_u128(8),
            extent: extent(plexes.len().min(1) - 1, KEYS_AT, 1088 * 1024),
        }],
        plexes,
        keys_wanted: 1,
        placement: Vec::new(),
        keys_placement: Vec::new(),
        job: None,
        grants: BTreeMap::new(),
    }
}

impl Lab {
    /// Disks with these alignments, plexes on these disks.
    fn new(seed: u64, alignments: &[usize], plexes: &[&[usize]], bytes: u64) -> Lab {
        let world = SimWorld::seeded(seed);
        for alignment in alignments {
            world.add(DISK_BYTES, *alignment);
        }
        let plexes = plexes
            .iter()
            .enumerate()
            .map(|(number, disks)| plex(number, disks, bytes))
            .collect();
        Lab {
            world,
            record: Arc::new(parking_lot::Mutex::new(record(plexes, bytes))),
            reports: Arc::default(),
        }
    }

    /// The same configuration after a crash.
    fn after(&self, stop: Stop, seed: u64) -> Lab {
        self.with_world(self.world.after(stop, seed))
    }

    fn with_world(&self, world: SimWorld) -> Lab {
        Lab {
            world,
            record: Arc::new(parking_lot::Mutex::new(self.record.lock().clone())),
            reports: Arc::default(),
        }
    }

    fn devices(&self) -> Devices {
        (0..self.world.disks())
            .filter(|disk| !self.world.is_dead(*disk))
            .map(|disk| {
                let name = format!("d{disk}");
                let device = self.world.device(disk);
                let device = Device::new(disk_uuid(disk), name.clone(), name, device);
                (disk_uuid(disk), Arc::new(device))
            })
            .collect()
    }

    async fn volume(&self, create: bool) -> (Devices, Arc<Volume<SimDevice>>) {
        let devices = self.devices();
        for device in devices.values() {
            device.flush().await.unwrap();
        }
        let record = self.record.lock().clone();
        let map = Map::new(&record).unwrap();
        let tracker = if create {
            RegionTracker::create_if_needed(&record, &map, &devices).await
        } else {
            RegionTracker::open_if_needed(&record, &map, &devices).await
        };
        let layout = Layout::new(&record, map, &devices, tracker.unwrap()).unwrap();
        let region = PrivateRegion::create(
            record.uuid,
            vec![crate::page_store::Replica {
                uuid: Uuid::from_u128(8),
                device: Arc::new(Device::new(
                    Uuid::nil(),
                    "keys".into(),
                    "keys".into(),
                    SimWorld::default().add(2 * MIB, 512),
                )),
                offset_bytes: 0,
                length_bytes: 1088 * 1024,
            }],
            Uuid::nil(),
            record.persist,
        )
        .await
        .unwrap();
        let volume = Volume::new(record, layout, region).with_reports(self.reports.clone());
        if !create {
            volume.replay_intents().await.unwrap();
        }
        let volume = Arc::new(volume);
        let troubled: Vec<Uuid> = volume
            .to_detach()
            .into_iter()
            .map(|(uuid, _)| uuid)
            .collect();
        if !troubled.is_empty() {
            self.detach(&volume, &devices, &troubled).await.unwrap();
        }
        (devices, volume)
    }

    fn commit(&self, record: &VolumeRecord) {
        *self.record.lock() = record.clone();
    }

    async fn detach(
        &self,
        volume: &Volume<SimDevice>,
        devices: &Devices,
        plexes: &[Uuid],
    ) -> Result<(), DetachError> {
        volume.begin_detach(plexes).await?;
        let mut record = VolumeRecord::clone(&volume.record());
        for plex in &mut record.plexes {
            if plexes.contains(&plex.uuid) {
                plex.state = PlexState::Detached {
                    reason: "test".into(),
                };
            }
        }
        let layout = volume.prepare_layout(&record, devices).unwrap();
        self.commit(&record);
        volume.publish(record, layout);
        Ok(())
    }

    /// What a keeper does at least: detaches what is reported, or says that there is no other copy.
    async fn keep(self, volume: Arc<Volume<SimDevice>>, devices: Devices) {
        loop {
            let listener = self.reports.listen();
            let reports = self.reports.take();
            if reports.is_empty() {
                listener.await;
                continue;
            }
            for Report { plex, .. } in reports {
                match self.detach(&volume, &devices, &[plex]).await {
                    Ok(()) => {}
                    Err(DetachError::LastCopy { .. }) => volume.last_copy(plex),
                    // The others are reported: they come next.
                    Err(DetachError::Logs(_)) => volume.cancel_detach(&[plex]),
                }
            }
        }
    }

    /// Attaches a plex of `next` and fills it.
    async fn attach(
        &self,
        volume: &Volume<SimDevice>,
        devices: &Devices,
        next: VolumeRecord,
        stale: &[(Uuid, Regions)],
    ) {
        volume.prepare_attach(&next, devices, stale).await.unwrap();
        let layout = volume.prepare_layout(&next, devices).unwrap();
        self.commit(&next);
        volume.publish(next, layout);
        volume.drained().await;
    }

    async fn resync(&self, volume: &Volume<SimDevice>) {
        let plexes: Vec<Uuid> = volume
            .record()
            .plexes
            .iter()
            .map(|plex| plex.uuid)
            .collect();
        loop {
            let mut todo: Vec<u32> = plexes
                .iter()
                .filter_map(|plex| volume.stale_of(*plex))
                .flat_map(|stale| stale.to_vec())
                .collect();
            todo.sort_unstable();
            todo.dedup();
            if todo.is_empty() {
                return;
            }
            for region in &todo {
                let synced = volume.sync_region(*region, &Unpaced).await.unwrap();
                assert!(!synced.stopped);
            }
            volume.finish(&todo).await.unwrap();
        }
    }

    /// The content of a plex as it is on the disks.
    fn content(&self, position: usize) -> Vec<u8> {
        let record = self.record.lock().clone();
        let map = Map::new(&record).unwrap();
        let mut content = vec![0; record.size_bytes as usize];
        let region = Region::Public { plex: position };
        for range in map.translate(region, 0, record.size_bytes).unwrap() {
            let disk = (0..self.world.disks())
                .find(|disk| disk_uuid(*disk) == range.device)
                .unwrap();
            let from = range.region_offset_bytes as usize;
            let part = &mut content[from..from + range.length_bytes as usize];
            self.world.image(disk).read(range.device_offset_bytes, part);
        }
        content
    }
}

async fn read(volume: &Volume<SimDevice>, at: u64, length: usize) -> Vec<u8> {
    let (result, buf) = volume.read(at, BytesMut::zeroed(length)).await;
    result.unwrap();
    buf.to_vec()
}

async fn fill(volume: &Volume<SimDevice>, at: u64, length: usize, byte: u8) {
    volume.write(at, vec![byte; length].into()).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_mirror_is_an_array_of_bytes_and_its_plexes_are_alike(
        alignments in prop::collection::vec(prop::sample::select(vec![1usize, 512, 4096]), 4..5),
        striped: bool,
        seed: u64,
        ops in prop::collection::vec(op(), 1..30),
    ) {
        let plexes: &[&[usize]] = if striped { &[&[0, 1], &[2, 3]] } else { &[&[0], &[1], &[2, 3]] };
        let lab = Lab::new(seed, &alignments, plexes, 9 * MIB);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(true).await;
            let mut model = vec![0u8; 9 << 20];
            for op in ops {
                match op {
                    Op::Write { at, blocks, byte, skew } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        let mut data = buffer(length, skew);
                        data.fill(byte);
                        volume.write(at * 512, data.freeze()).await.unwrap();
                        model[from..from + length].fill(byte);
                    }
                    Op::Atomic { at, blocks, byte } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        volume.write_atomic(at * 512, vec![byte; length].into()).await.unwrap();
                        model[from..from + length].fill(byte);
                    }
                    Op::Zero { at, blocks, deallocate } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        volume.write_zeroes(at * 512, blocks * 512, deallocate).await.unwrap();
                        model[from..from + length].fill(0);
                    }
                    Op::Read { at, blocks, skew } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        let (result, buf) = volume.read(at * 512, buffer(length, skew)).await;
                        result.unwrap();
                        assert_eq!(&buf[..], &model[from..from + length]);
                        let allocation = volume.allocation(at * 512, blocks * 512).await.unwrap();
                        assert!(allocation.length_bytes >= 1 && allocation.length_bytes <= blocks * 512);
                        if !allocation.allocated {
                            let known = allocation.length_bytes as usize;
                            assert!(model[from..from + known].iter().all(|byte| *byte == 0));
                        }
                    }
                }
            }
            volume.flush().await.unwrap();
            for position in 0..plexes.len() {
                assert!(lab.content(position) == model, "plex {position}");
            }
            volume.close_clean().await.unwrap();
            assert!(volume.dirty().is_empty());
            let (_, reopened) = lab.volume(false).await;
            assert!(reopened.dirty().is_empty());
            assert!(read(&reopened, 0, 9 << 20).await == model);
        });
    }
}

#[test]
fn a_write_is_on_all_plexes_and_a_dead_one_costs_a_pause() {
    let lab = Lab::new(1, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        drop(sim::spawn(lab.clone().keep(volume.clone(), devices)));
        fill(&volume, 0, 4096, 1).await;
        lab.world.die(1);
        fill(&volume, 4096, 4096, 2).await;
        assert!(!lab.record.lock().plexes[1].is_attached());
        assert_eq!(volume.stale_of(plex_uuid(1)).unwrap().to_vec(), [0]);
        fill(&volume, 2 * MIB, 4096, 3).await;
        assert_eq!(volume.stale_of(plex_uuid(1)).unwrap().to_vec(), [0, 2]);
        assert_eq!(read(&volume, 4096, 4096).await, [2; 4096]);
        volume.flush().await.unwrap();
    });
}

#[test]
fn a_plex_that_hangs_is_left_behind_after_the_limit() {
    let lab = Lab::new(2, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        drop(sim::spawn(lab.clone().keep(volume.clone(), devices)));
        fill(&volume, 0, 4096, 1).await;
        lab.world.hang(1);
        let before = lab.world.time();
        fill(&volume, 0, 4096, 2).await;
        let waited = lab.world.time() - before;
        assert!(
            waited >= HANG_LIMIT && waited < 2 * HANG_LIMIT,
            "{waited:?}"
        );
        let before = lab.world.time();
        fill(&volume, 4096, 4096, 3).await;
        assert_eq!(read(&volume, 0, 8192).await[..4096], [2; 4096]);
        assert!(lab.world.time() - before < Duration::from_secs(1));
        // The write that hung lands now: in a plex that nobody believes.
        lab.world.resume(1);
        assert_eq!(read(&volume, 0, 4096).await, [2; 4096]);
        assert!(volume.stale_of(plex_uuid(1)).unwrap().get(0));
    });
}
