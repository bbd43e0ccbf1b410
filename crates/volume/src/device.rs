//! A device of a pool: a [`BlockDevice`] with its identity, its health, and flushes that many callers share.
//!
//! **Failed devices.** After a flush that failed, or [`Device::fail`], every operation fails at once: the kernel reports
//! a lost write only once. [`Device::bring_online`] puts a newly opened block device in the place of the old one; the
//! [`Device::incarnation`] counts that. **A flush makes durable only what was written in the same incarnation.** Whoever
//! flushes later than it writes keeps the incarnation of the writes and uses [`Device::flush_since`].
//!
//! **Operations that were given up.** A future that is dropped before it ends leaves its operation running: what it was
//! to write may still land. [`Device::abandoned`] tells whether there is any, of earlier incarnations too.

use std::future::Future;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::{Bytes, BytesMut};
use event_listener::Event;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::block_device::{Allocation, BlockDevice};
use crate::error::VolumeError;

mod group_flush;
mod health;

use group_flush::GroupFlush;
use health::ErrorCounters;
pub use health::{DeviceErrors, DeviceHealth};

/// A device of a pool. Whoever has it keeps it through failure and return.
pub struct Device<D> {
    uuid: Uuid,
    name: String,
    path: ArcSwap<String>,
    /// What it was opened as first: all incarnations have the same clock.
    clock: Arc<D>,
    opened: ArcSwap<Opened<D>>,
    /// Earlier incarnations that may still have operations in flight.
    retired: Mutex<Vec<Arc<D>>>,
    errors: ErrorCounters,
    last_error: ArcSwapOption<(Duration, String)>,
    /// Notified when it fails.
    failing: Event,
}

/// One incarnation.
struct Opened<D> {
    incarnation: u64,
    inner: Arc<D>,
    flushes: GroupFlush,
    failed: OnceLock<String>,
}

impl<D> Opened<D> {
    fn new(incarnation: u64, inner: Arc<D>) -> Self {
        Opened {
            incarnation,
            inner,
            flushes: GroupFlush::default(),
            failed: OnceLock::new(),
        }
    }

    /// The first reason stays.
    fn fail(&self, reason: String) {
        self.failed.get_or_init(|| reason);
    }
}

impl<D: BlockDevice> Device<D> {
    /// Wraps `inner` under its identity in the pool.
    pub fn new(uuid: Uuid, name: String, path: String, inner: Arc<D>) -> Self {
        Device {
            uuid,
            name,
            path: ArcSwap::from_pointee(path),
            clock: inner.clone(),
            opened: ArcSwap::from_pointee(Opened::new(1, inner)),
            retired: Mutex::default(),
            errors: ErrorCounters::default(),
            last_error: ArcSwapOption::empty(),
            failing: Event::new(),
        }
    }

    /// Identity of the device.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was opened last.
    pub fn path(&self) -> String {
        String::clone(&self.path.load())
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.opened.load().inner.size_bytes()
    }

    /// Alignment in bytes of offsets, lengths and buffer addresses.
    pub fn alignment_bytes(&self) -> usize {
        self.opened.load().inner.alignment_bytes()
    }

    /// Whether it is used.
    pub fn health(&self) -> DeviceHealth {
        match self.opened.load().failed.get() {
            None => DeviceHealth::Online,
            Some(reason) => DeviceHealth::Failed {
                reason: reason.clone(),
            },
        }
    }

    /// Whether operations are tried at all.
    pub fn is_online(&self) -> bool {
        self.opened.load().failed.get().is_none()
    }

    /// What has gone wrong since the daemon started; it survives [`Device::bring_online`].
    pub fn errors(&self) -> DeviceErrors {
        self.errors.read()
    }

    /// The last thing that went wrong, in words, and how long ago.
    pub fn last_error(&self) -> Option<(String, Duration)> {
        let last = self.last_error.load_full()?;
        Some((last.1.clone(), self.now().saturating_sub(last.0)))
    }

    fn note(&self, counter: &AtomicU64, what: String) {
        ErrorCounters::count(counter);
        self.last_error.store(Some(Arc::new((self.now(), what))));
    }

    /// Takes the device out of use: operations that begin later fail at once, with `reason` when there was none
    /// before. Operations in flight go on.
    pub fn fail(&self, reason: impl Into<String>) {
        self.opened.load().fail(reason.into());
        self.failing.notify(usize::MAX);
    }

    /// Closes the block device below a failed device, so that it can be opened anew ([`Device::bring_online`]).
    ///
    /// # Errors
    /// The number of operations that have not ended, abandoned ones included; at least 1 when the device has not failed.
    pub fn release(&self) -> Result<(), u64> {
        let retired = self.retired.lock();
        let opened = self.opened.load();
        let unfinished = Self::unfinished(&retired) + opened.inner.in_flight();
        if opened.failed.get().is_none() || unfinished > 0 {
            return Err(unfinished.max(1));
        }
        opened.inner.close();
        Ok(())
    }

    /// Puts a newly opened block device in the place of the one that failed. The caller has made sure that it is the
    /// same medium (its label). What was written before and not flushed must be taken for lost.
    pub fn bring_online(&self, inner: Arc<D>, path: String) {
        let mut retired = self.retired.lock();
        let old = self.opened.load_full();
        retired.retain(|inner| inner.in_flight() > 0);
        retired.push(old.inner.clone());
        self.opened
            .store(Arc::new(Opened::new(old.incarnation + 1, inner)));
        self.path.store(Arc::new(path));
    }

    fn unfinished(retired: &[Arc<D>]) -> u64 {
        retired.iter().map(|inner| inner.in_flight()).sum()
    }

    /// See [`BlockDevice::never_block`]; for the present opening.
    pub fn never_block(&self) {
        self.opened.load().inner.never_block();
    }

    /// Number of the opening, from 1. See the module's text.
    pub fn incarnation(&self) -> u64 {
        self.opened.load().incarnation
    }

    /// Operations whose futures were dropped, and all that are still in flight through an earlier incarnation: as long
    /// as there are any, something may land that nobody waits for. Never too small.
    pub fn abandoned(&self) -> u64 {
        let mut retired = self.retired.lock();
        retired.retain(|inner| inner.in_flight() > 0);
        Self::unfinished(&retired) + self.opened.load().inner.abandoned()
    }

    /// Time on the device's clock.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Waits on the device's clock, also when the device is failed.
    pub async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    /// Waits for a second or two on the device's clock: see [`BlockDevice::pause`].
    pub fn pause(&self) -> impl Future<Output = ()> {
        self.clock.pause()
    }

    /// Runs `operation` for at most `limit` on the device's clock; `None` when it was given up, which is counted as a
    /// hang. The operation is then abandoned: see [`Device::abandoned`].
    pub async fn within<T>(
        &self,
        limit: Duration,
        operation: impl Future<Output = T>,
    ) -> Option<T> {
        let result = self.at_most(limit, operation).await;
        if result.is_none() {
            self.count_hang();
        }
        result
    }

    /// Waits for anything for at most `limit` on the device's clock; `None` when it was given up, which says nothing of the
    /// device.
    pub async fn at_most<T>(&self, limit: Duration, waiting: impl Future<Output = T>) -> Option<T> {
        let done = async { Some(waiting.await) };
        let given_up = async {
            self.sleep(limit).await;
            None
        };
        futures_lite::future::or(done, given_up).await
    }

    /// As [`Device::within`], with an error that tells what was given up.
    ///
    /// # Errors
    /// [`VolumeError::Device`] of the kind `TimedOut`: see [`VolumeError::is_hang`].
    pub async fn in_time<T>(
        &self,
        limit: Duration,
        name: &'static str,
        operation: impl Future<Output = T>,
    ) -> Result<T, VolumeError> {
        self.within(limit, operation).await.ok_or_else(|| {
            let problem = format!("no answer within {} s", limit.as_secs());
            self.error(name, io::Error::new(io::ErrorKind::TimedOut, problem))
        })
    }

    /// Runs `operation` until the device is failed ([`Device::fail`]), which ends the waiting for one that hangs.
    ///
    /// # Errors
    /// [`VolumeError::Device`] as for [`Device::in_time`]: the operation is abandoned.
    pub async fn while_online<T>(
        &self,
        name: &'static str,
        operation: impl Future<Output = T>,
    ) -> Result<T, VolumeError> {
        let done = async { Ok(operation.await) };
        let failed = async {
            let incarnation = self.incarnation();
            loop {
                let listener = self.failing.listen();
                if !self.is_online() || self.incarnation() != incarnation {
                    self.count_hang();
                    let problem = "the device was failed before it answered";
                    return Err(self.error(name, io::Error::new(io::ErrorKind::TimedOut, problem)));
                }
                listener.await;
            }
        };
        futures_lite::future::or(done, failed).await
    }

    /// Counts an operation that its caller gives up.
    pub fn count_hang(&self) {
        self.note(&self.errors.hangs, "no answer in time".into());
    }

    /// The incarnation to be used, unless it has failed. Counted: a thread has only a few guards that are not, and an
    /// operation that waits would keep one of them.
    fn opened(&self, operation: &'static str) -> Result<Arc<Opened<D>>, VolumeError> {
        let opened = self.opened.load_full();
        match opened.failed.get() {
            None => {}
            Some(reason) => {
                let source = io::Error::other(format!("the device has failed: {reason}"));
                return Err(self.error(operation, source));
            }
        }
        Ok(opened)
    }

    /// Reads `buf`'s length from `offset_bytes`.
    ///
    /// # Errors
    /// [`VolumeError::Device`].
    pub async fn read(
        &self,
        offset_bytes: u64,
        buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut) {
        let opened = match self.opened("read") {
            Ok(opened) => opened,
            Err(error) => return (Err(error), buf),
        };
        let (result, buf) = opened.inner.read(offset_bytes, buf).await;
        let result = result.map_err(|source| {
            self.note(&self.errors.reads, format!("read: {source}"));
            if source.kind() == io::ErrorKind::UnexpectedEof {
                // What is gone would read as zeroes as soon as a write made the file longer again.
                self.fail("it has become shorter than it was");
            }
            self.error("read", source)
        });
        (result, buf)
    }

    /// Writes `data` at `offset_bytes`.
    ///
    /// # Errors
    /// [`VolumeError::Device`].
    pub async fn write(&self, offset_bytes: u64, data: Bytes) -> Result<(), VolumeError> {
        let opened = self.opened("write")?;
        let result = opened.inner.write(offset_bytes, data).await;
        result.map_err(|source| {
            self.note(&self.errors.writes, format!("write: {source}"));
            self.error("write", source)
        })
    }

    /// Makes every write that completed before this call, in this incarnation, durable. Concurrent callers share one
    /// flush of the device, which starts after all of their calls.
    ///
    /// # Errors
    /// [`VolumeError::Device`]. A device that failed one flush is failed: the kernel reports a lost write once, and what
    /// was lost stays lost.
    pub async fn flush(&self) -> Result<(), VolumeError> {
        let opened = self.opened("flush")?;
        self.flush_opened(&opened).await
    }

    /// As [`Device::flush`], for writes that were made in `incarnation`.
    ///
    /// # Errors
    /// [`VolumeError::Device`], also when the device was opened anew since.
    pub async fn flush_since(&self, incarnation: u64) -> Result<(), VolumeError> {
        let opened = self.opened("flush")?;
        if opened.incarnation != incarnation {
            let problem = "the device failed and was opened anew since the writes";
            return Err(self.error("flush", io::Error::other(problem)));
        }
        self.flush_opened(&opened).await
    }

    async fn flush_opened(&self, opened: &Opened<D>) -> Result<(), VolumeError> {
        let result = opened.flushes.flush(|| opened.inner.flush()).await;
        result.map_err(|source| {
            self.note(&self.errors.flushes, format!("flush: {source}"));
            opened.fail(format!("a flush failed: {source}"));
            self.failing.notify(usize::MAX);
            self.error("flush", source)
        })
    }

    /// Makes the range read as zeroes (see [`BlockDevice::write_zeroes`]).
    ///
    /// # Errors
    /// [`VolumeError::Device`].
    pub async fn write_zeroes(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> Result<(), VolumeError> {
        let opened = self.opened("write zeroes")?;
        let result = opened
            .inner
            .write_zeroes(offset_bytes, length_bytes, deallocate)
            .await;
        result.map_err(|source| {
            self.note(&self.errors.writes, format!("write zeroes: {source}"));
            self.error("write zeroes", source)
        })
    }

    /// See [`BlockDevice::allocation`].
    ///
    /// # Errors
    /// [`VolumeError::Device`].
    pub async fn allocation(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Allocation, VolumeError> {
        let opened = self.opened("allocation")?;
        opened
            .inner
            .allocation(offset_bytes, length_bytes)
            .await
            .map_err(|source| self.error("allocation", source))
    }

    fn error(&self, operation: &'static str, source: io::Error) -> VolumeError {
        VolumeError::Device {
            device: self.name.clone(),
            operation,
            source,
        }
    }
}

#[cfg(test)]
mod tests;
