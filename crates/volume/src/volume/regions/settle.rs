//! Settling: making all plexes the same where a crash, or a write that failed on all of them, may have left them different.
//!
//! It goes by chunks, each under exclusion: the first plex that can be read is copied over the others and they are
//! flushed, then data of the chunk may be answered. So whatever is answered is on every plex that could answer for it
//! later. A region is settled when all of its chunks are; until then its dirty bit stays, and a crash begins anew. A write
//! needs no settled chunk: it makes the plexes the same where it goes.

use std::ops::Range;

use super::copy::CHUNK_BYTES;
use super::{RegionTracker, Regions};
use crate::block_device::BlockDevice;
use crate::error::VolumeError;
use crate::volume::mirror_write::push_copies;
use crate::volume::together::What;
use crate::volume::write_table::Use;
use crate::volume::{Layout, Volume};

impl<D> RegionTracker<D> {
    /// Takes regions for unsettled. The caller has the range of its failed write to itself.
    pub(in crate::volume) fn unsettle(&self, regions: Range<u32>) {
        let mut settled = self.settled.lock();
        for region in regions {
            settled.chunks.remove(&region);
            self.unsettled.set(region);
        }
    }

    /// Chunks of a region.
    fn chunks(&self) -> u32 {
        u32::try_from(self.region_bytes().div_ceil(CHUNK_BYTES)).unwrap_or(u32::MAX)
    }

    /// The region of a byte, and which chunk of it.
    fn chunk_of(&self, offset_bytes: u64) -> (u32, u32) {
        let region = (offset_bytes >> self.geometry.region_shift) as u32;
        let within = offset_bytes & (self.region_bytes() - 1);
        (region, (within / CHUNK_BYTES) as u32)
    }

    /// Whether every chunk of a range is settled.
    pub(in crate::volume) fn is_settled(&self, range: &Range<u64>) -> bool {
        let settled = self.settled.lock();
        let mut at = range.start / CHUNK_BYTES * CHUNK_BYTES;
        while at < range.end {
            let (region, chunk) = self.chunk_of(at);
            let done = !self.unsettled.get(region)
                || settled
                    .chunks
                    .get(&region)
                    .is_some_and(|chunks| chunks.get(chunk));
            if !done {
                return false;
            }
            at += CHUNK_BYTES;
        }
        true
    }

    /// Notes that a chunk is settled; the caller has it to itself.
    fn note_settled(&self, offset_bytes: u64, size_bytes: u64) {
        let (region, chunk) = self.chunk_of(offset_bytes);
        let bytes = self.bytes_of(region, size_bytes);
        let count = (bytes.end - bytes.start).div_ceil(CHUNK_BYTES) as u32;
        let mut settled = self.settled.lock();
        if !self.unsettled.get(region) {
            return;
        }
        let total = self.chunks();
        let chunks = settled
            .chunks
            .entry(region)
            .or_insert_with(|| Regions::new(total, false));
        chunks.set(chunk);
        if chunks.count_ones() >= count {
            settled.chunks.remove(&region);
            self.unsettled.clear(region);
        }
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Settles the chunks of a range, for a read.
    pub(in crate::volume) async fn settle(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        range: Range<u64>,
    ) -> Result<(), VolumeError> {
        let mut at = range.start / CHUNK_BYTES * CHUNK_BYTES;
        while at < range.end {
            let end = (at + CHUNK_BYTES).min(layout.map.size_bytes());
            self.settle_chunk(layout, tracker, at..end).await?;
            at = end;
        }
        Ok(())
    }

    /// Settles one chunk, unless it is. A plex that fails meanwhile is waited for as by any write: the keeper calls this
    /// beside its other work.
    pub(in crate::volume) async fn settle_chunk(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        chunk: Range<u64>,
    ) -> Result<(), VolumeError> {
        let _locked = self.table.take(chunk.clone(), Use::Write).await;
        if tracker.is_retired() || tracker.is_settled(&chunk) {
            return Ok(());
        }
        let size_bytes = layout.map.size_bytes();
        let (region, _) = tracker.chunk_of(chunk.start);
        let readable = layout.readable(region);
        if readable.count_ones() > 1 {
            let found = self.read_any(layout, readable, &chunk).await;
            let Some(source) = found.source else {
                // Nobody can read any of it: there is nothing that could differ.
                tracker.note_settled(chunk.start, size_bytes);
                return Ok(());
            };
            let regions = region..region + 1;
            let mut together = self.together(layout, tracker, What::Write, regions.clone());
            together.valid = readable;
            for (part, change) in found.changes() {
                // What the first plex could not read is written to it again.
                let from = found.bad.is_empty().then_some(source);
                push_copies(&mut together, layout, from, readable, &part, &change)?;
            }
            together.for_client().await?;
            self.flushes(layout, tracker, readable, regions)
                .for_client()
                .await?;
        }
        tracker.note_settled(chunk.start, size_bytes);
        Ok(())
    }
}
