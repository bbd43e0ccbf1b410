//! Tests of the whole crate: a target over a pool on a device in memory, driven as a transport drives it.

mod admission;
mod attentions;
mod blocks;
mod chaos;
mod copying;
mod device;
mod domain_crashes;
mod domain_stress;
mod domains;
mod exclusion;
mod fence;
mod identity;
mod lost;
mod mailbox;
mod queued;
mod random;
mod reserving;
mod sanitizing;
mod stress;
mod threads;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures_lite::future::{block_on, poll_once, yield_now};
use parking_lot::Mutex;
use reservation::{InitiatorPort, Nexus};
use scsi::cdb::Cdb;
use scsi::sam::TaskAttribute;
use scsi::sense::AdditionalSense;
use scsi::{Sense, Status};
use volume::pool::{CreateVolume, DeviceSource};
use volume::{Access, BlockSize, Pool};

use crate::*;
use device::TestDevice;

thread_local! {
    static SPAWNED: RefCell<Vec<LocalFuture>> = const { RefCell::new(Vec::new()) };
}

/// Runs what is spawned whenever [`run`] is polled on the same thread.
struct TestRuntime;

impl Runtime for TestRuntime {
    fn spawn(&self, future: LocalFuture) {
        SPAWNED.with_borrow_mut(|spawned| spawned.push(future));
    }

    fn sleep(&self, _duration: Duration) -> LocalFuture {
        Box::pin(yield_now())
    }
}

/// Drives `future` and everything spawned on this thread until `future` is ready.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    block_on(poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(value);
        }
        // What is spawned meanwhile lands in the emptied list.
        let mut spawned = SPAWNED.take();
        spawned.retain_mut(|task| task.as_mut().poll(context).is_pending());
        SPAWNED.with_borrow_mut(|list| list.splice(0..0, spawned).for_each(drop));
        Poll::Pending
    }))
}

/// Lets everything go on as far as it can, and says whether `future` is ready.
pub async fn stuck<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    for _ in 0..64 {
        if poll_once(future.as_mut()).await.is_some() {
            return false;
        }
        yield_now().await;
    }
    true
}

/// Keeps events for the tests.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl EventSink for Recorder {
    fn record(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// A target with one volume, LUN 0 unless more are created.
pub struct World {
    pub device: Arc<TestDevice>,
    pub pool: Pool<TestDevice>,
    pub target: Arc<Target<TestDevice>>,
    pub events: Arc<Recorder>,
}

pub const CAPACITY_BYTES: u64 = 8 << 20;

impl World {
    /// 8 MiB with 512-byte blocks, everyone may write.
    pub async fn new() -> Self {
        Self::with(BlockSize::B512).await
    }

    pub async fn with(block_size: BlockSize) -> Self {
        Self::on_with(TestDevice::new(256 << 20), block_size).await
    }

    /// The same on another device.
    pub async fn on(device: TestDevice) -> Self {
        Self::on_with(device, BlockSize::B512).await
    }

    async fn on_with(device: TestDevice, block_size: BlockSize) -> Self {
        let device = Arc::new(device);
        let pool = Pool::open(Vec::new(), uuid::Uuid::from_u128(1))
            .await
            .unwrap();
        let source = DeviceSource {
            path: "memory".into(),
            device: device.clone(),
        };
        pool.device_add("d0", source).await.unwrap();
        let events = Arc::new(Recorder::default());
        let config = TargetConfig {
            name: "iqn.2026-11.dev.ringfence:test".into(),
            ports: vec![1, 2],
            sanitize_bytes_per_second: None,
        };
        let target = Target::new(config, Arc::new(TestRuntime), events.clone());
        let world = Self {
            device,
            pool,
            target,
            events,
        };
        world.add_volume("v0", block_size).await;
        world
    }

    /// Creates and serves a volume that everyone may write; returns its LUN.
    pub async fn add_volume(&self, name: &str, block_size: BlockSize) -> u16 {
        let request = CreateVolume {
            name: name.into(),
            size_bytes: CAPACITY_BYTES,
            block_size,
            ..CreateVolume::default()
        };
        let volume = self.pool.volume_create(request).await.unwrap();
        self.pool.grant(name, "*", Access::Rw).await.unwrap();
        let lun = volume.lun();
        self.target.add_logical_unit(volume).await.unwrap();
        lun
    }

    pub async fn grant(&self, volume: &str, initiator: &str, access: Access) {
        self.pool.grant(volume, initiator, access).await.unwrap();
        let lun = self.pool.volume(volume).unwrap().lun();
        self.target.grants_changed(lun).await;
    }

    /// A nexus that has seen its power on unit attention on LUN 0.
    pub async fn initiator(&self, name: &str) -> Initiator {
        let initiator = self.fresh(name);
        initiator.settle().await;
        initiator
    }

    /// A nexus that has just come up.
    pub fn fresh(&self, name: &str) -> Initiator {
        let nexus = nexus(name);
        let session = self.target.attach(nexus, "192.0.2.1:40000").unwrap();
        Initiator {
            session,
            next_tag: Cell::new(1),
        }
    }

    pub fn events(&self) -> Vec<EventKind> {
        let events = self.events.0.lock();
        events.iter().map(|event| event.kind.clone()).collect()
    }
}

pub fn nexus(name: &str) -> Nexus {
    Nexus {
        initiator: InitiatorPort {
            name: format!("iqn.2026-11.test:{name}").into(),
            isid: [0, 2, 3, 0, 0, 1],
        },
        target_port: 1,
    }
}

/// An initiator with one session.
pub struct Initiator {
    pub session: Arc<NexusSession<TestDevice>>,
    next_tag: Cell<u32>,
}

impl Initiator {
    /// Sends raw bytes; the data-in buffer is large.
    pub async fn raw(&self, lun: u16, cdb: &[u8], data: &[u8]) -> Outcome {
        self.raw_with(lun, cdb, data, TaskAttribute::Simple).await
    }

    pub async fn raw_with(
        &self,
        lun: u16,
        cdb: &[u8],
        data: &[u8],
        attribute: TaskAttribute,
    ) -> Outcome {
        match self.submit(lun, cdb, data.len() as u64, attribute) {
            Ok(task) => {
                let wanted = (task.data_out_bytes() as usize).min(data.len());
                task.execute(BytesMut::from(&data[..wanted])).await
            }
            Err(response) => Outcome::Response(response),
        }
    }

    pub fn submit(
        &self,
        lun: u16,
        cdb: &[u8],
        data_out_bytes: u64,
        attribute: TaskAttribute,
    ) -> Result<Task<TestDevice>, Response> {
        let tag = self.next_tag.get();
        self.next_tag.set(tag + 1);
        self.session.submit(Request {
            tag,
            lun: lun_field(lun),
            cdb,
            attribute,
            data_out_bytes,
            data_in_bytes: 1 << 20,
        })
    }

    /// The tag of the next command.
    pub fn next_tag(&self) -> u32 {
        self.next_tag.get()
    }

    /// Sends a command that must get a response.
    pub async fn send_to(&self, lun: u16, cdb: Cdb, data: &[u8]) -> Response {
        match self.raw(lun, &cdb.encode(), data).await {
            Outcome::Response(response) => response,
            Outcome::Aborted => panic!("{cdb:?} was aborted"),
        }
    }

    pub async fn send(&self, cdb: Cdb, data: &[u8]) -> Response {
        self.send_to(0, cdb, data).await
    }

    /// Sends a command that must end with GOOD; returns its data.
    pub async fn good(&self, cdb: Cdb, data: &[u8]) -> Vec<u8> {
        let response = self.send(cdb, data).await;
        assert_eq!(
            response.status,
            Status::Good,
            "{cdb:?}: {:?}",
            sense(&response)
        );
        response.data_in.to_vec()
    }

    /// Sends a command that must end with CHECK CONDITION; returns its additional sense code.
    pub async fn fails(&self, cdb: Cdb, data: &[u8]) -> AdditionalSense {
        let response = self.send(cdb, data).await;
        assert_eq!(response.status, Status::CheckCondition, "{cdb:?}");
        sense(&response).unwrap().additional
    }

    /// Sends a command that must end with RESERVATION CONFLICT.
    pub async fn conflicts(&self, cdb: Cdb, data: &[u8]) {
        let response = self.send(cdb, data).await;
        assert_eq!(response.status, Status::ReservationConflict, "{cdb:?}");
    }

    /// Sends TEST UNIT READY until GOOD; returns the unit attentions reported.
    pub async fn settle(&self) -> Vec<AdditionalSense> {
        let mut reported = Vec::new();
        loop {
            let response = self.send(Cdb::TestUnitReady, &[]).await;
            match sense(&response) {
                None => return reported,
                Some(sense) => reported.push(sense.additional),
            }
            assert!(reported.len() < 20);
        }
    }
}

pub fn lun_field(lun: u16) -> [u8; 8] {
    scsi::lun::Lun::new(lun).unwrap().encode()
}

/// The sense data of a response.
pub fn sense(response: &Response) -> Option<Sense> {
    (!response.sense.is_empty()).then(|| Sense::parse(&response.sense).unwrap())
}

/// READ(16).
pub fn read(lba: u64, blocks: u32) -> Cdb {
    Cdb::Read(transfer(lba, blocks))
}

/// WRITE(16).
pub fn write(lba: u64, blocks: u32) -> Cdb {
    Cdb::Write(transfer(lba, blocks))
}

pub fn transfer(lba: u64, length_blocks: u32) -> scsi::cdb::Transfer {
    scsi::cdb::Transfer {
        size: scsi::cdb::TransferSize::Sixteen,
        lba,
        length_blocks,
        dpo: false,
        fua: false,
    }
}
