//! The steps of an atomic write, and their replay at open.
//!
//! With several plexes the intent goes to the log of every attached plex, the data to every plex that takes part, and the
//! answer comes when the intent is gone from all logs. A plex that fails one of these steps is waited for as with every
//! write; the intents that it keeps are erased before it is attached again. The range is held from before the intent
//! until after it is gone, so no later write can be undone by a replay.

use bytes::Bytes;
use uuid::Uuid;

use super::atomic_write::{HEADER_BYTES, Intent, LANE_BYTES, LANES};
use super::mirror_write::{Change, push_writes};
use super::refusal::PendingIntent;
use super::regions::RegionTracker;
use super::together::What;
use super::write_table::Use;
use super::{Layout, LayoutGuard, Volume};
use crate::block_device::{BlockDevice, aligned_buffer};
use crate::error::VolumeError;
use crate::translate::Region;

impl<D: BlockDevice> Volume<D> {
    /// On a volume with one plex.
    pub(super) async fn atomic_write_only(
        &self,
        layout: LayoutGuard<D>,
        offset_bytes: u64,
        data: Bytes,
    ) -> Result<(), VolumeError> {
        self.bounds(&layout, offset_bytes, data.len() as u64)?;
        let log = layout.log_of_only();
        let lane = self.lane().await?;
        let intent = Intent {
            offset_bytes,
            data: data.clone(),
        };
        let lane_offset = lane.offset_bytes();
        // From the first byte of the intent until it is gone, giving up (a dropped future too) leaves it behind.
        let mut pending = PendingIntent::new(self, lane, offset_bytes, data.clone());
        let record = intent.encode(self.uuid);
        let written = async {
            layout.write(log, lane_offset, record).await?;
            layout.flush(log).await?;
            pending.durable = true;
            layout.write_only(&self.table, offset_bytes, data).await?;
            layout.flush(layout.only()).await
        }
        .await;
        let zeroes = aligned_buffer(HEADER_BYTES).freeze();
        layout.write(log, lane_offset, zeroes).await?;
        layout.flush(log).await?;
        pending.done();
        written
    }

    /// On a volume with a region log.
    pub(super) async fn mirror_write_atomic(
        &self,
        mut layout: LayoutGuard<D>,
        offset_bytes: u64,
        data: Bytes,
    ) -> Result<(), VolumeError> {
        loop {
            let range = self.bounds(&layout, offset_bytes, data.len() as u64)?;
            let Some(tracker) = layout.tracker.clone() else {
                return self.atomic_write_only(layout, offset_bytes, data).await;
            };
            let lane = self.lane().await?;
            let locked = self.table.take(layout.locked(&range), Use::Write).await;
            // The write that it waited for may be stuck.
            let now = self.writable()?;
            if tracker.is_retired() {
                drop((locked, lane));
                layout = now;
                continue;
            }
            drop(now);
            let _load = tracker.load();
            let intent = Intent {
                offset_bytes,
                data: data.clone(),
            };
            let lane_offset = lane.offset_bytes();
            let mut pending = PendingIntent::new(self, lane, offset_bytes, data.clone());
            let zeroes = aligned_buffer(HEADER_BYTES).freeze();
            let written = async {
                let record = intent.encode(self.uuid);
                self.put_in_lane(&layout, &tracker, lane_offset, record)
                    .await?;
                pending.durable = true;
                let change = Change::Data(data);
                self.write_locked(&layout, &tracker, range, change).await?;
                self.flushes(&layout, &tracker, u8::MAX, 0..0)
                    .for_client()
                    .await
            }
            .await;
            self.put_in_lane(&layout, &tracker, lane_offset, zeroes)
                .await?;
            pending.done();
            return written;
        }
    }

    /// Writes into a lane of every plex of the layout, durably.
    pub(super) async fn put_in_lane(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        lane_offset: u64,
        bytes: Bytes,
    ) -> Result<(), VolumeError> {
        let mut together = self.together(layout, tracker, What::Intent, 0..0);
        for (index, plex) in layout.plexes.iter().enumerate() {
            let region = Region::Log {
                plex: plex.position,
            };
            together.valid |= 1 << index;
            let device = layout.log_device(plex.position);
            let bytes = bytes.clone();
            together.push(index, device, async move {
                layout.write(region, lane_offset, bytes).await?;
                layout.flush_log(plex.position).await
            });
        }
        together.for_client().await
    }

    /// Writes in place again what a crash left in the intent areas. Called before the volume is served; a plex that fails
    /// is one that is to be detached.
    pub(crate) async fn replay_intents(&self) -> Result<u32, VolumeError> {
        let layout = self.layout()?;
        let Some(tracker) = &layout.tracker else {
            return self.replay_only(&layout).await;
        };
        let mut replayed = 0;
        for lane in 0..LANES {
            let lane_offset = lane * LANE_BYTES;
            let mut intents: Vec<Intent> = Vec::new();
            for plex in &layout.plexes {
                if !tracker.is_logged(plex.uuid) {
                    continue;
                }
                let log = Region::Log {
                    plex: plex.position,
                };
                match read_intent(&layout, log, lane_offset, self.uuid).await {
                    Ok(Some(intent)) if !intents.contains(&intent) => intents.push(intent),
                    Ok(_) => {}
                    Err(error) => tracker.fail_at_open(plex.uuid, error.to_string()),
                }
            }
            for intent in intents {
                self.replay_everywhere(&layout, tracker, intent).await?;
                replayed += 1;
            }
            // Also what is not a whole intent.
            for plex in &layout.plexes {
                let log = Region::Log {
                    plex: plex.position,
                };
                if tracker.is_logged(plex.uuid)
                    && let Err(error) = erase(&layout, log, lane_offset).await
                {
                    tracker.fail_at_open(plex.uuid, error.to_string());
                }
            }
        }
        if self.nobody_left(&layout, tracker) {
            return Err(self.no_copy());
        }
        Ok(replayed)
    }

    fn nobody_left(&self, layout: &Layout<D>, tracker: &RegionTracker<D>) -> bool {
        layout
            .plexes
            .iter()
            .all(|plex| !tracker.is_logged(plex.uuid))
    }

    async fn replay_everywhere(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        intent: Intent,
    ) -> Result<(), VolumeError> {
        // A range outside the volume is not one that was acknowledged to anybody.
        let range = self.bounds(layout, intent.offset_bytes, intent.data.len() as u64)?;
        let change = Change::Data(intent.data);
        // If nothing of it went to its place before the crash, its regions need not be dirty yet; and a plex that takes no
        // part will miss it.
        let regions = tracker.regions_of(&range);
        let sequence = tracker.mark_dirty(regions.clone());
        for plex in &layout.plexes {
            if tracker.is_logged(plex.uuid)
                && let Err(error) = tracker.persist(plex.uuid, sequence).await
            {
                tracker.fail_at_open(plex.uuid, format!("its region log: {error}"));
            }
        }
        tracker.show_dirty(regions);
        for (index, plex) in layout.plexes.iter().enumerate() {
            if !tracker.is_logged(plex.uuid) {
                continue;
            }
            let mut together =
                self.together(layout, tracker, What::Write, tracker.regions_of(&range));
            together.valid = 1 << index;
            // Into stale regions too: what is there is not believed.
            push_writes(&mut together, layout, 1 << index, &range, &change)?;
            let written = match together.for_keeper().await {
                Ok(()) => {
                    self.flushes(layout, tracker, 1 << index, 0..0)
                        .for_keeper()
                        .await
                }
                Err(failed) => Err(failed),
            };
            if let Err(failed) = written {
                let why: Vec<String> = failed.into_iter().map(|(_, why)| why).collect();
                tracker.fail_at_open(plex.uuid, why.join("; "));
            }
        }
        Ok(())
    }

    async fn replay_only(&self, layout: &Layout<D>) -> Result<u32, VolumeError> {
        let log = layout.log_of_only();
        let mut replayed = 0;
        for lane in 0..LANES {
            let lane_offset = lane * LANE_BYTES;
            let header = aligned_buffer(HEADER_BYTES);
            let (result, header) = layout.read(log, lane_offset, header).await;
            result?;
            if Intent::decode_header(&header, self.uuid).is_none() {
                continue;
            }
            if let Some(intent) = read_intent(layout, log, lane_offset, self.uuid).await? {
                // A range outside the volume is not one that was acknowledged to anybody; translation refuses it.
                layout
                    .write_only(&self.table, intent.offset_bytes, intent.data)
                    .await?;
                layout.flush(layout.only()).await?;
                replayed += 1;
            }
            erase(layout, log, lane_offset).await?;
        }
        Ok(replayed)
    }
}

/// The whole intent in a lane.
async fn read_intent<D: BlockDevice>(
    layout: &Layout<D>,
    log: Region,
    lane_offset: u64,
    volume: Uuid,
) -> Result<Option<Intent>, VolumeError> {
    let header = aligned_buffer(HEADER_BYTES);
    let (result, header) = layout.read(log, lane_offset, header).await;
    result?;
    if Intent::decode_header(&header, volume).is_none() {
        return Ok(None);
    }
    let whole = aligned_buffer(LANE_BYTES as usize);
    let (result, whole) = layout.read(log, lane_offset, whole).await;
    result?;
    Ok(Intent::decode(&whole, volume))
}

/// Makes sure that no intent is in a lane, durably; costs a read where there is none.
async fn erase<D: BlockDevice>(
    layout: &Layout<D>,
    log: Region,
    lane_offset: u64,
) -> Result<(), VolumeError> {
    let header = aligned_buffer(HEADER_BYTES);
    let (result, header) = layout.read(log, lane_offset, header).await;
    result?;
    if header.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let zeroes = aligned_buffer(HEADER_BYTES).freeze();
    layout.write(log, lane_offset, zeroes).await?;
    layout.flush(log).await
}
