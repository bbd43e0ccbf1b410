//! A mirrored volume without a pool: disks with fixed places for everything, and a keeper that does the least.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::block_device::BlockDevice;
use crate::config::{Column, Extent, KeysReplica, Persist, Plex, PlexLayout, PlexState};
use crate::device::Device;
use crate::private_region::PrivateRegion;
use crate::sim::Stop;
use crate::translate::Region;
use crate::volume::regions::copy::Pace;
use crate::volume::regions::{DetachError, RegionTracker, Regions};
use crate::volume::reports::{Report, Reports};

pub(super) type Devices = BTreeMap<Uuid, Arc<Device<SimDevice>>>;

const DISK_BYTES: u64 = 64 * MIB;
pub(super) const LOG_AT: u64 = 40 * MIB;
const KEYS_AT: u64 = 44 * MIB;

/// As fast as it goes.
pub(super) struct Unpaced;

impl Pace for Unpaced {
    type Permit = ();

    async fn permit(&self, _bytes: u64) -> Option<()> {
        Some(())
    }
}

/// A volume of its own, without a pool: disks with fixed places for everything, and a keeper that does the least.
#[derive(Clone)]
pub(super) struct Lab {
    pub(super) world: SimWorld,
    /// What the configuration says.
    pub(super) record: Arc<parking_lot::Mutex<VolumeRecord>>,
    pub(super) reports: Arc<Reports>,
}

pub(super) fn disk_uuid(disk: usize) -> Uuid {
    Uuid::from_u128(0x1000 + disk as u128)
}

pub(super) fn plex_uuid(number: usize) -> Uuid {
    Uuid::from_u128(0x2000 + number as u128)
}

pub(super) fn extent(disk: usize, offset_bytes: u64, length_bytes: u64) -> Extent {
    Extent {
        device: disk_uuid(disk),
        offset_bytes,
        length_bytes,
    }
}

/// A plex on one disk in two extents, or striped over two.
pub(super) fn plex(number: usize, disks: &[usize], bytes: u64) -> Plex {
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

pub(super) fn record(plexes: Vec<Plex>, bytes: u64) -> VolumeRecord {
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
    pub(super) fn new(seed: u64, alignments: &[usize], plexes: &[&[usize]], bytes: u64) -> Lab {
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
    pub(super) fn after(&self, stop: Stop, seed: u64) -> Lab {
        self.with_world(self.world.after(stop, seed))
    }

    pub(super) fn with_world(&self, world: SimWorld) -> Lab {
        Lab {
            world,
            record: Arc::new(parking_lot::Mutex::new(self.record.lock().clone())),
            reports: Arc::default(),
        }
    }

    pub(super) fn devices(&self) -> Devices {
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

    /// A volume as it was opened, with what has to be detached still in it.
    pub(super) async fn opened(&self, create: bool) -> (Devices, Arc<Volume<SimDevice>>) {
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
        (devices, Arc::new(volume))
    }

    pub(super) async fn volume(&self, create: bool) -> (Devices, Arc<Volume<SimDevice>>) {
        let (devices, volume) = self.opened(create).await;
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

    /// Commits a record: a crash comes before, after, or while nobody knows yet.
    pub(super) async fn commit(&self, record: &VolumeRecord) {
        let clock = self.world.device(0);
        let pause = || Duration::from_micros(self.world.chance(0..1000));
        clock.sleep(pause()).await;
        *self.record.lock() = record.clone();
        clock.sleep(pause()).await;
    }

    pub(super) async fn detach(
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
        self.commit(&record).await;
        volume.publish(record, layout);
        Ok(())
    }

    /// What a keeper does at least: detaches what is reported, or says that there is no other copy.
    pub(super) async fn keep(self, volume: Arc<Volume<SimDevice>>, devices: Devices) {
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
                    // Nobody could be told: both have failed.
                    Err(DetachError::Logs(_)) => {
                        volume.last_copy(plex);
                        let clock = self.world.device(0);
                        clock.sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        }
    }

    /// Attaches a plex of `next` and fills it.
    pub(super) async fn attach(
        &self,
        volume: &Volume<SimDevice>,
        devices: &Devices,
        next: VolumeRecord,
        stale: &[(Uuid, Regions)],
    ) {
        volume.prepare_attach(&next, devices, stale).await.unwrap();
        let layout = volume.prepare_layout(&next, devices).unwrap();
        self.commit(&next).await;
        volume.publish(next, layout);
        volume.drained().await;
    }

    pub(super) async fn resync(&self, volume: &Volume<SimDevice>) {
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
    pub(super) fn content(&self, position: usize) -> Vec<u8> {
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

pub(super) async fn read(volume: &Volume<SimDevice>, at: u64, length: usize) -> Vec<u8> {
    let (result, buf) = volume.read(at, BytesMut::zeroed(length)).await;
    result.unwrap();
    buf.to_vec()
}

pub(super) async fn fill(volume: &Volume<SimDevice>, at: u64, length: usize, byte: u8) {
    volume.write(at, vec![byte; length].into()).await.unwrap();
}
