//! The simulated disk as a [`BlockDevice`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::SimWorld;
use super::disk::{Task, failure};
use super::image::Change;
use super::operation::Counts;
use crate::block_device::{Allocation, BlockDevice};

/// A handle of one disk of a world.
pub struct SimDevice {
    world: SimWorld,
    disk: usize,
    /// The disk's connection when this handle was made.
    connection: u64,
    counts: Arc<Counts>,
}

impl SimDevice {
    pub(super) fn new(world: SimWorld, disk: usize) -> SimDevice {
        let connection = world.inner.lock().disks[disk].connection;
        SimDevice {
            world,
            disk,
            connection,
            counts: Arc::default(),
        }
    }

    /// Number of the disk in its world.
    pub fn disk(&self) -> usize {
        self.disk
    }

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

    async fn run(&self, task: Task, buf: Option<BytesMut>) -> (io::Result<()>, Option<BytesMut>) {
        let at = (self.disk, self.connection);
        let number = self.world.inner.lock().begin(at, &self.counts, task, buf);
        Running {
            world: &self.world,
            number,
            looked: false,
        }
        .await
    }
}

/// An operation that was given to its disk. Dropped, it goes on.
struct Running<'a> {
    world: &'a SimWorld,
    number: u64,
    looked: bool,
}

impl Future for Running<'_> {
    type Output = (io::Result<()>, Option<BytesMut>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.world.inner.lock();
        if let Some(result) = inner.take_result(self.number) {
            return Poll::Ready(result);
        }
        let (now, scheduled) = (inner.now, inner.scheduled);
        let Some(operation) = inner.operations.get_mut(&self.number) else {
            // The world was left behind by a crash; its futures have no future.
            return Poll::Pending;
        };
        operation.waker = Some(context.waker().clone());
        // Without the scheduler it ends when it is looked at again, unless it hangs for ever.
        if !scheduled && operation.finish_at.is_some_and(|at| at <= now) && self.looked {
            inner.finish(self.number);
            return match inner.take_result(self.number) {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            };
        }
        if !scheduled && operation.finish_at.is_some() {
            context.waker().wake_by_ref();
        }
        drop(inner);
        self.looked = true;
        Poll::Pending
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.world.inner.lock().abandon(self.number);
    }
}

/// Wakes up at a moment of the world's clock.
struct Sleep<'a> {
    world: &'a SimWorld,
    until: Duration,
    number: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let world = self.world;
        let mut inner = world.inner.lock();
        if inner.now >= self.until {
            return Poll::Ready(());
        }
        let until = self.until;
        let number = *self.number.get_or_insert_with(|| inner.add_sleeper(until));
        if inner.scheduled {
            inner.sleepers.insert(number, Some(context.waker().clone()));
        } else {
            // Nobody knows whether anything else could run: time goes on a little at each look.
            inner.now += Duration::from_millis(1);
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.world.inner.lock().sleepers.remove(&number);
        }
    }
}

impl BlockDevice for SimDevice {
    fn size_bytes(&self) -> u64 {
        self.world.inner.lock().disks[self.disk].size_bytes
    }

    fn alignment_bytes(&self) -> usize {
        self.world.inner.lock().disks[self.disk].alignment_bytes
    }

    async fn read(&self, offset_bytes: u64, buf: BytesMut) -> (io::Result<()>, BytesMut) {
        let address = buf.as_ptr() as usize;
        if let Err(error) = self.check(offset_bytes, buf.len() as u64, address) {
            return (Err(error), buf);
        }
        let (result, buf) = self.run(Task::Read { offset_bytes }, Some(buf)).await;
        // A read is begun with its buffer, and gives it back.
        (result, buf.unwrap_or_default())
    }

    async fn write(&self, offset_bytes: u64, data: Bytes) -> io::Result<()> {
        self.check(offset_bytes, data.len() as u64, data.as_ptr() as usize)?;
        let change = Change::Write { offset_bytes, data };
        self.run(Task::Change(change), None).await.0
    }

    async fn flush(&self) -> io::Result<()> {
        self.run(Task::Flush, None).await.0
    }

    async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        _deallocate: bool,
    ) -> io::Result<()> {
        self.check(offset_bytes, length_bytes, 0)?;
        let change = Change::Zero {
            offset_bytes,
            length_bytes,
        };
        self.run(Task::Change(change), None).await.0
    }

    async fn allocation(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<Allocation> {
        self.check(offset_bytes, length_bytes, 0)?;
        let inner = self.world.inner.lock();
        let disk = &inner.disks[self.disk];
        if disk.dead || disk.fail_reads || disk.connection != self.connection {
            return Err(failure());
        }
        Ok(disk.image.allocation(offset_bytes, length_bytes))
    }

    fn in_flight(&self) -> u64 {
        self.counts.in_flight.load(Ordering::SeqCst)
    }

    fn abandoned(&self) -> u64 {
        self.counts.abandoned.load(Ordering::SeqCst)
    }

    fn now(&self) -> Duration {
        self.world.inner.lock().now
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        Sleep {
            world: &self.world,
            until,
            number: None,
        }
        .await;
    }
}
