//! Why a volume refuses writes, and the end of atomic writes that were given up.
//!
//! An atomic write whose intent could not be removed is *stuck*: what opens the volume next would write its data in place,
//! over whatever was written since. So nothing is written, and nobody is told that somebody is fenced, until it has an end.
//! Opening the volume is one; [`Volume::finish_intents`], for the keeper, is the other, and does the same: where writing in
//! place may have begun, the data is written in place again, everywhere; then the intent is erased, everywhere. From there on the
//! volume takes writes as before. Nobody sees the difference to a write that ended before its sender got the error: meanwhile
//! nothing is written, what it may change is not read, and no fence is answered.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Volume;
use super::atomic_write::{HEADER_BYTES, LANE_BYTES, Lane};
use super::mirror_write::Change;
use super::write_table::Use;
use crate::block_device::{BlockDevice, aligned_buffer};
use crate::error::VolumeError;

/// Why writes are refused while an intent is left.
const STUCK: &str = "the intent of an atomic write could not be removed yet";

/// Why a volume refuses writes.
#[derive(Default)]
pub(super) struct Refusals {
    /// It was deleted.
    deleted: bool,
    /// Atomic writes that were given up.
    stuck: Vec<Stuck>,
    /// What the keeper says, such as that the configuration has no quorum.
    keeper: Option<String>,
}

impl Refusals {
    fn reason(&self) -> Option<Arc<String>> {
        let reason = match self {
            Refusals { deleted: true, .. } => "the volume was deleted",
            Refusals { stuck, .. } if !stuck.is_empty() => STUCK,
            Refusals { keeper, .. } => keeper.as_deref()?,
        };
        Some(Arc::new(reason.to_owned()))
    }
}

/// An atomic write that was given up, with a lane that nobody else gets.
#[derive(Clone)]
struct Stuck {
    lane: u64,
    range: Range<u64>,
    /// `None` when its intent was not durable yet: then nothing was written in place.
    data: Option<Bytes>,
}

/// An atomic write under way. Dropped before its intent is gone it is stuck.
pub(super) struct PendingIntent<'a, D: BlockDevice> {
    volume: &'a Volume<D>,
    /// Free again when it is dropped.
    lane: Option<Lane<'a>>,
    offset_bytes: u64,
    data: Bytes,
    /// Its intent is durable.
    pub(super) durable: bool,
}

impl<'a, D: BlockDevice> PendingIntent<'a, D> {
    /// From the first byte of the intent until [`PendingIntent::done`].
    pub(super) fn new(
        volume: &'a Volume<D>,
        lane: Lane<'a>,
        offset_bytes: u64,
        data: Bytes,
    ) -> Self {
        PendingIntent {
            volume,
            lane: Some(lane),
            offset_bytes,
            data,
            durable: false,
        }
    }

    /// The intent is gone.
    pub(super) fn done(mut self) {
        self.lane = None;
    }
}

impl<D: BlockDevice> Drop for PendingIntent<'_, D> {
    fn drop(&mut self) {
        let Some(lane) = self.lane.take() else {
            return;
        };
        let data = std::mem::take(&mut self.data);
        // Within the volume: that was checked first.
        let end = self.offset_bytes.saturating_add(data.len() as u64);
        self.volume.change_refusals(|refusals| {
            refusals.stuck.push(Stuck {
                lane: lane.keep(),
                range: self.offset_bytes..end,
                data: self.durable.then_some(data),
            });
        });
        // Those who wait for a lane are refused.
        self.volume.lanes.notify();
    }
}

impl<D: BlockDevice> Volume<D> {
    fn change_refusals(&self, change: impl FnOnce(&mut Refusals)) {
        let mut refusals = self.refusals.lock();
        change(&mut refusals);
        self.refuse_writes.store(refusals.reason());
        let undecided = !refusals.stuck.is_empty();
        self.is_undecided.store(undecided, Ordering::Release);
    }

    /// Says no to a read of what an atomic write that is stuck may change still.
    ///
    /// # Errors
    /// [`VolumeError::Undecided`].
    pub(super) fn check_decided(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<(), VolumeError> {
        let end = offset_bytes.saturating_add(length_bytes);
        let refusals = self.refusals.lock();
        let mut stuck = refusals.stuck.iter().map(|stuck| &stuck.range);
        match stuck.find(|range| range.start < end && offset_bytes < range.end) {
            None => Ok(()),
            Some(range) => Err(VolumeError::Undecided {
                volume: self.record.load().name.clone(),
                offset_bytes: range.start,
            }),
        }
    }

    /// Refuses writes, for instance while no change of the configuration can be committed.
    pub(crate) fn refuse_writes(&self, reason: String) {
        self.change_refusals(|refusals| refusals.keeper = Some(reason));
    }

    /// Takes [`Volume::refuse_writes`] back. What a stuck intent refuses stays refused.
    pub(crate) fn allow_writes(&self) {
        self.change_refusals(|refusals| refusals.keeper = None);
    }

    /// Refuses all writes for good.
    pub(super) fn refuse_as_deleted(&self) {
        self.change_refusals(|refusals| refusals.deleted = true);
        self.lanes.notify();
    }

    /// Whether an atomic write is stuck.
    pub(crate) fn has_stuck_intents(&self) -> bool {
        self.is_undecided.load(Ordering::Acquire)
    }

    /// A lane of one's own.
    ///
    /// # Errors
    /// [`VolumeError::WritesRefused`]; those who wait when it comes to that get it too.
    pub(super) async fn lane(&self) -> Result<Lane<'_>, VolumeError> {
        loop {
            let released = self.lanes.listen();
            drop(self.writable()?);
            if let Some(lane) = self.lanes.take() {
                return Ok(lane);
            }
            released.await;
        }
    }

    /// Ends atomic writes that are stuck: see the [module](self). One at a time may run. It waits like a write of a client.
    ///
    /// # Errors
    /// [`VolumeError`]; what is stuck still refuses writes still.
    pub(crate) async fn finish_intents(&self) -> Result<(), VolumeError> {
        loop {
            let Some(stuck) = self.refusals.lock().stuck.first().cloned() else {
                return Ok(());
            };
            self.finish_intent(&stuck).await?;
            self.change_refusals(|refusals| refusals.stuck.retain(|one| one.lane != stuck.lane));
            self.lanes.release(stuck.lane);
        }
    }

    async fn finish_intent(&self, stuck: &Stuck) -> Result<(), VolumeError> {
        let lane_offset = stuck.lane * LANE_BYTES;
        let zeroes = aligned_buffer(HEADER_BYTES).freeze();
        loop {
            let layout = self.layout()?;
            let Some(tracker) = layout.tracker.clone() else {
                let log = layout.log_of_only();
                if let Some(data) = &stuck.data {
                    layout
                        .write_only(&self.table, stuck.range.start, data.clone())
                        .await?;
                    layout.flush(layout.only()).await?;
                }
                layout.write(log, lane_offset, zeroes).await?;
                return layout.flush(log).await;
            };
            let locked = layout.locked(&stuck.range);
            let _locked = self.table.take(locked, Use::Write).await;
            if tracker.is_retired() {
                continue;
            }
            let _load = tracker.load();
            if let Some(data) = &stuck.data {
                let change = Change::Data(data.clone());
                let range = stuck.range.clone();
                self.write_locked(&layout, &tracker, range, change).await?;
                self.flushes(&layout, &tracker, u8::MAX, 0..0)
                    .for_client()
                    .await?;
            }
            return self
                .put_in_lane(&layout, &tracker, lane_offset, zeroes)
                .await;
        }
    }
}
