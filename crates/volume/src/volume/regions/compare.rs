//! Comparing plexes, region by region, while clients go on.

use std::ops::Range;

use uuid::Uuid;

use super::RegionTracker;
use super::copy::{BLOCK_BYTES, CHUNK_BYTES, Found, Pace, SyncError};
use crate::block_device::BlockDevice;
use crate::volume::mirror_write::{Change, push_copies};
use crate::volume::together::What;
use crate::volume::write_table::Use;
use crate::volume::{Layout, Volume};

/// A place where plexes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The bytes.
    pub(crate) range: Range<u64>,
    /// The plexes that differ from the one that is believed.
    pub(crate) plexes: Vec<Uuid>,
    /// They were made the same.
    pub(crate) repaired: bool,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Where plexes differ.
    pub(crate) mismatches: Vec<Mismatch>,
    /// What a plex could not read, and whether it was written again from another one.
    pub(crate) unreadable: Vec<(Uuid, Range<u64>, bool)>,
    /// The pace said stop.
    pub(crate) stopped: bool,
}

impl<D: BlockDevice> Volume<D> {
    /// Compares all plexes that have valid data in a region; with `repair`, makes them like the plex that is named, or like
    /// the first where that one has no valid data there.
    ///
    /// # Errors
    /// [`SyncError`].
    pub(crate) async fn compare_region<P: Pace>(
        &self,
        region: u32,
        repair: Option<Uuid>,
        pace: &P,
    ) -> Result<Compared, SyncError> {
        self.settle_region(region, pace).await?;
        let mut compared = Compared::default();
        let mut at = None;
        loop {
            let Some(_permit) = pace.permit(CHUNK_BYTES).await else {
                compared.stopped = true;
                return Ok(compared);
            };
            let tracked = self.tracked()?;
            let (layout, tracker) = (tracked.layout(), tracked.tracker());
            let bytes = tracker.bytes_of(region, layout.map.size_bytes());
            let start = at.unwrap_or(bytes.start);
            if start >= bytes.end {
                return Ok(compared);
            }
            let chunk = start..(start + CHUNK_BYTES).min(bytes.end);
            let _locked = self.table.take(chunk.clone(), Use::Write).await;
            if tracker.is_retired() {
                compared.stopped = true;
                return Ok(compared);
            }
            self.compare_chunk(layout, tracker, region, &chunk, repair, &mut compared)
                .await?;
            at = Some(chunk.end);
        }
    }

    async fn compare_chunk(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        region: u32,
        chunk: &Range<u64>,
        repair: Option<Uuid>,
        compared: &mut Compared,
    ) -> Result<(), SyncError> {
        let readable = layout.readable(region);
        let mut order: Vec<usize> = (0..layout.plexes.len())
            .filter(|index| readable >> index & 1 == 1)
            .collect();
        order.sort_by_key(|index| Some(layout.plexes[*index].uuid) != repair);
        let mut contents: Vec<(usize, Found)> = Vec::new();
        for index in order {
            let found = self.read_any(layout, 1 << index, chunk).await;
            contents.push((index, found));
        }
        let is_bad = |found: &Found, block: &Range<u64>| {
            found
                .unreadable
                .iter()
                .any(|range| range.start < block.end && block.start < range.end)
        };
        let mut at = chunk.start;
        // By block, then joined: (range, plexes that differ by bit, plexes that cannot read it by bit, the believed one).
        let mut places: Vec<(Range<u64>, u8, u8, usize)> = Vec::new();
        while at < chunk.end {
            let block = at..(at + BLOCK_BYTES).min(chunk.end);
            let within = (block.start - chunk.start) as usize..(block.end - chunk.start) as usize;
            let believed = contents.iter().find(|(_, found)| !is_bad(found, &block));
            let (mut differ, mut bad) = (0u8, 0u8);
            for (index, found) in &contents {
                if is_bad(found, &block) {
                    bad |= 1 << index;
                } else if let Some((_, right)) = believed
                    && found.data[within.clone()] != right.data[within.clone()]
                {
                    differ |= 1 << index;
                }
            }
            if differ | bad != 0 {
                let source = believed.map_or(usize::MAX, |(index, _)| *index);
                match places.last_mut() {
                    Some((range, d, b, s))
                        if range.end == block.start && (*d, *b, *s) == (differ, bad, source) =>
                    {
                        range.end = block.end;
                    }
                    _ => places.push((block.clone(), differ, bad, source)),
                }
            }
            at = block.end;
        }
        for (range, differ, bad, source) in places {
            let mut repaired = false;
            if repair.is_some()
                && let Some((_, right)) = contents.iter().find(|(index, _)| *index == source)
            {
                let data = right.data.slice(
                    (range.start - chunk.start) as usize..(range.end - chunk.start) as usize,
                );
                let regions = region..region + 1;
                let mut together = self.together(layout, tracker, What::Write, regions);
                let change = Change::Data(data);
                push_copies(
                    &mut together,
                    layout,
                    Some(source),
                    differ | bad,
                    &range,
                    &change,
                )?;
                together.valid = differ | bad | 1 << source;
                together.for_client().await?;
                repaired = true;
            }
            let names = |mask: u8| -> Vec<Uuid> {
                layout
                    .plexes
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| mask >> index & 1 == 1)
                    .map(|(_, plex)| plex.uuid)
                    .collect()
            };
            for plex in names(bad) {
                compared.unreadable.push((plex, range.clone(), repaired));
            }
            if differ != 0 {
                compared.mismatches.push(Mismatch {
                    range,
                    plexes: names(differ),
                    repaired,
                });
            }
        }
        Ok(())
    }
}
