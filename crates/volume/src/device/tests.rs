//! Health, counters and new incarnations.

use futures_lite::future::block_on;

use super::*;
use crate::block_device::aligned_buffer;
use crate::sim::{SimDevice, SimWorld};

fn device() -> (SimWorld, Device<SimDevice>) {
    let world = SimWorld::default();
    let inner = world.add(1 << 20, 4096);
    let device = Device::new(Uuid::from_u128(1), "d0".into(), "/a".into(), inner);
    (world, device)
}

fn page() -> Bytes {
    aligned_buffer(4096).freeze()
}

#[test]
fn errors_are_counted_and_a_failed_flush_fails_the_device() {
    let (world, device) = device();
    block_on(async {
        world.fail(0, true, true, false);
        assert!(device.read(0, aligned_buffer(4096)).await.0.is_err());
        assert!(device.write(0, page()).await.is_err());
        assert!(device.write_zeroes(0, 4096, true).await.is_err());
        assert_eq!(device.health(), DeviceHealth::Online);
        world.fail(0, false, false, true);
        assert!(device.flush().await.is_err());
        world.fail(0, false, false, false);
        let DeviceHealth::Failed { reason } = device.health() else {
            panic!("a device that failed a flush is used");
        };
        assert!(reason.contains("a flush failed"), "{reason}");
        assert!(device.write(0, page()).await.is_err());
        assert!(device.flush().await.is_err());
        let expected = DeviceErrors {
            reads: 1,
            writes: 2,
            flushes: 1,
            hangs: 0,
        };
        assert_eq!(device.errors(), expected, "what is refused is not counted");
        assert_eq!(device.errors().total(), 4);
        let (what, _) = device.last_error().unwrap();
        assert_eq!(what, "flush: simulated failure");
    });
}

#[test]
fn a_failed_device_is_not_touched_until_it_is_opened_anew() {
    let (world, device) = device();
    block_on(async {
        let written_in = device.incarnation();
        device.write(0, page()).await.unwrap();
        device.fail("the operator said so");
        device.fail("later");
        let health = DeviceHealth::Failed {
            reason: "the operator said so".into(),
        };
        assert_eq!(device.health(), health);
        let (result, buf) = device.read(0, aligned_buffer(4096)).await;
        assert!(result.unwrap_err().to_string().contains("operator"));
        assert_eq!(buf.len(), 4096);
        assert!(device.write(0, page()).await.is_err());
        assert!(device.write_zeroes(0, 4096, false).await.is_err());
        assert!(device.allocation(0, 4096).await.is_err());
        assert!(device.flush().await.is_err());
        device.bring_online(world.device(0), "/b".into());
        assert_eq!(device.health(), DeviceHealth::Online);
        assert_eq!(device.path(), "/b");
        assert!(
            device.flush_since(written_in).await.is_err(),
            "what was written before may be lost"
        );
        device.flush_since(device.incarnation()).await.unwrap();
        device.flush().await.unwrap();
    });
}

#[test]
fn what_was_given_up_is_told_through_every_incarnation() {
    let (world, device) = device();
    world.clone().run(async move {
        world.hang(0);
        let limit = Duration::from_secs(1);
        assert!(
            device
                .in_time(limit, "write", device.write(0, page()))
                .await
                .is_err()
        );
        assert_eq!(device.abandoned(), 1);
        device.bring_online(world.device(0), "/a".into());
        assert_eq!(device.abandoned(), 1, "it may still land");
        world.resume(0);
        device.sleep(limit).await;
        assert_eq!(device.abandoned(), 0);
    });
}

#[test]
fn a_failed_device_is_released_when_everything_has_ended() {
    let (world, device) = device();
    world.clone().run(async move {
        assert_eq!(device.release(), Err(1), "it is in use");
        world.hang(0);
        let limit = Duration::from_secs(1);
        assert!(
            device
                .within(limit, device.write(0, page()))
                .await
                .is_none()
        );
        device.fail("it hangs");
        assert_eq!(device.release(), Err(1), "a write may still land");
        world.resume(0);
        device.sleep(limit).await;
        assert_eq!(device.release(), Ok(()));
        device.bring_online(world.device(0), "/a".into());
        device.write(0, page()).await.unwrap();
        device.flush().await.unwrap();
    });
}

#[test]
fn an_operation_without_end_is_given_up() {
    let (_, device) = device();
    block_on(async {
        let limit = Duration::from_secs(1);
        let before = device.now();
        assert_eq!(
            device.within(limit, std::future::pending::<()>()).await,
            None
        );
        assert!(device.now() - before >= limit);
        assert_eq!(device.errors().hangs, 1);
        assert_eq!(
            device.within(limit, device.flush()).await.map(|_| ()),
            Some(())
        );
        assert_eq!(device.errors().hangs, 1);
    });
}

/// A disk that is cut short: reads end early.
struct Short(Arc<SimDevice>);

impl BlockDevice for Short {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn alignment_bytes(&self) -> usize {
        self.0.alignment_bytes()
    }

    async fn read(&self, _offset_bytes: u64, buf: BytesMut) -> (io::Result<()>, BytesMut) {
        (Err(io::ErrorKind::UnexpectedEof.into()), buf)
    }

    async fn write(&self, offset_bytes: u64, data: Bytes) -> io::Result<()> {
        self.0.write(offset_bytes, data).await
    }

    async fn flush(&self) -> io::Result<()> {
        self.0.flush().await
    }

    async fn write_zeroes(&self, offset: u64, length: u64, deallocate: bool) -> io::Result<()> {
        self.0.write_zeroes(offset, length, deallocate).await
    }

    async fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        self.0.allocation(offset, length).await
    }

    fn in_flight(&self) -> u64 {
        self.0.in_flight()
    }

    fn now(&self) -> Duration {
        self.0.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }
}

#[test]
fn a_device_that_was_cut_short_is_not_made_longer_again() {
    let inner = Arc::new(Short(SimWorld::default().add(1 << 20, 4096)));
    let device = Device::new(Uuid::from_u128(1), "d0".into(), "/a".into(), inner);
    block_on(async {
        device.write(0, page()).await.unwrap();
        assert!(device.read(0, aligned_buffer(4096)).await.0.is_err());
        let error = device.write(0, page()).await.unwrap_err();
        assert!(error.to_string().contains("shorter"), "{error}");
    });
}
