//! Filling plexes, region by region, while clients go on.
//!
//! **Filling.** A region that is filled is *copying* in the plexes that are stale there, so that every write goes to them
//! too. It is copied in chunks; each has its range in the write table to itself, so that a client waits for one chunk at
//! most: a write that came before is in what is copied, one that comes later goes to the plex itself. When all chunks
//! are there, [`Volume::finish`] flushes the plexes and clears the bits. A client's write that fails on a plex that is
//! being filled takes the plex out of copying there, and the region stays stale.
//!
//! Filling does not wait for the keeper, who is the one that calls it; settling and repairing do, as every write to valid
//! regions, so the keeper runs them beside its other work.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use uuid::Uuid;

use super::{RegionTracker, Regions, Slot};
use crate::block_device::{BlockDevice, aligned_buffer};
use crate::error::VolumeError;
use crate::translate::Region;
use crate::volume::mirror_write::{Change, push_copies};
use crate::volume::reports::{Report, Trouble};
use crate::volume::together::{Failure, HANG_LIMIT, What};
use crate::volume::write_table::Use;
use crate::volume::{Layout, LayoutGuard, Volume};

/// What is copied at once, in bytes, at most.
pub(crate) const CHUNK_BYTES: u64 = 1 << 20;
/// The unit in which a bad place is looked for, in bytes.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// The unit in which zeroes are given back, in bytes.
const HOLE_BYTES: usize = 64 * 1024;

/// Tells a copier how fast it may go.
pub(crate) trait Pace {
    /// Held while a chunk is copied.
    type Permit;

    /// Waits until `bytes` may be copied; `None` to stop.
    fn permit(&self, bytes: u64) -> impl Future<Output = Option<Self::Permit>>;

    /// Bytes of a chunk, 4 KiB to 1 MiB.
    fn chunk_bytes(&self) -> u64 {
        CHUNK_BYTES
    }
}

/// What was done for a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    /// Bytes written as data.
    pub(crate) copied_bytes: u64,
    /// Bytes written as zeroes.
    pub(crate) zero_bytes: u64,
    /// The pace said stop, or the volume has grown meanwhile: the region is not done.
    pub(crate) stopped: bool,
    /// What no plex could read; the region is not done then.
    pub(crate) unreadable: Vec<Range<u64>>,
}

/// Why a region could not be filled, settled or compared.
#[derive(Debug, Error)]
pub(crate) enum SyncError {
    /// The volume is not served, or has no region log.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// No plex has valid data there.
    #[error("no plex has valid data in region {0}")]
    NoCopy(u32),
    /// Something that nobody waits for may still land on a plex that is to be filled.
    #[error("operations are still in flight on plex {0}")]
    Abandoned(Uuid),
    /// Plexes failed or hung; they are reported.
    #[error("plexes failed: {}", failures(.0))]
    Failed(Vec<Failure>),
}

fn failures(failed: &[Failure]) -> String {
    let texts: Vec<String> = failed
        .iter()
        .map(|(plex, why)| format!("{plex}: {why}"))
        .collect();
    texts.join("; ")
}

/// What could be read of a range.
pub(in crate::volume) struct Found {
    range: Range<u64>,
    pub(super) data: Bytes,
    /// The plex that the data is from, or the first of several; `None` when no byte could be read.
    pub(in crate::volume) source: Option<usize>,
    /// What some plex could not read and another one could.
    pub(in crate::volume) bad: Vec<(usize, Range<u64>)>,
    /// What no plex could read.
    pub(in crate::volume) unreadable: Vec<Range<u64>>,
}

impl Found {
    /// It as changes: data, and zeroes that are given back; nothing for what could not be read.
    pub(in crate::volume) fn changes(&self) -> Vec<(Range<u64>, Change)> {
        let mut changes: Vec<(Range<u64>, Change)> = Vec::new();
        let mut at = self.range.start;
        for hole in self
            .unreadable
            .iter()
            .cloned()
            .chain(std::iter::once(self.range.end..self.range.end))
        {
            self.push_changes(at..hole.start, &mut changes);
            at = hole.end;
        }
        changes
    }

    fn push_changes(&self, range: Range<u64>, changes: &mut Vec<(Range<u64>, Change)>) {
        let data = self.data.slice(
            (range.start - self.range.start) as usize..(range.end - self.range.start) as usize,
        );
        let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let end = (at + HOLE_BYTES).min(data.len());
            let zero = data[at..end].iter().all(|byte| *byte == 0);
            match runs.last_mut() {
                Some((run, same)) if *same == zero => run.end = end,
                _ => runs.push((at..end, zero)),
            }
            at = end;
        }
        for (run, zero) in runs {
            let bytes = range.start + run.start as u64..range.start + run.end as u64;
            let change = if zero {
                Change::Zeroes {
                    length_bytes: run.len() as u64,
                    deallocate: true,
                }
            } else {
                Change::Data(data.slice(run))
            };
            changes.push((bytes, change));
        }
    }
}

impl<D: BlockDevice> Volume<D> {
    /// The present layout and its tracker.
    pub(in crate::volume) fn tracked(&self) -> Result<Tracked<D>, SyncError> {
        let layout = self.layout()?;
        if layout.tracker.is_none() {
            return Err(SyncError::Volume(VolumeError::NotServed {
                volume: self.record().name.clone(),
                reason: "it has no region log".into(),
            }));
        }
        Ok(Tracked(layout))
    }

    /// Reads a range from the first of some plexes that can, block by block where none can read all of it.
    pub(in crate::volume) async fn read_any(
        &self,
        layout: &Layout<D>,
        plexes: u8,
        range: &Range<u64>,
    ) -> Found {
        let mut order: Vec<usize> = (0..layout.plexes.len())
            .filter(|index| plexes >> index & 1 == 1)
            .collect();
        let mut found = Found {
            range: range.clone(),
            data: Bytes::new(),
            source: None,
            bad: Vec::new(),
            unreadable: Vec::new(),
        };
        let Some(first) = order.first().copied() else {
            found.unreadable.push(range.clone());
            found.data = vec![0; (range.end - range.start) as usize].into();
            return found;
        };
        if let Read::Done(data) = self.read_within(layout, first, range).await {
            found.data = data.freeze();
            found.source = Some(first);
            return found;
        }
        let mut whole = aligned_buffer((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let block = at..(at + BLOCK_BYTES).min(range.end);
            let mut bad = Vec::new();
            let mut done = false;
            let mut hung = None;
            for index in &order {
                match self.read_within(layout, *index, &block).await {
                    Read::Done(data) => {
                        let at = (block.start - range.start) as usize;
                        whole[at..at + data.len()].copy_from_slice(&data);
                        found.source.get_or_insert(*index);
                        done = true;
                        break;
                    }
                    Read::Failed => bad.push((*index, block.clone())),
                    Read::Hung => {
                        hung = Some(*index);
                        bad.push((*index, block.clone()));
                    }
                }
            }
            // One that hangs is not asked again and again.
            order.retain(|index| Some(*index) != hung);
            if done {
                found.bad.extend(bad);
            } else {
                match found.unreadable.last_mut() {
                    Some(last) if last.end == block.start => last.end = block.end,
                    _ => found.unreadable.push(block.clone()),
                }
            }
            at = block.end;
        }
        found.data = whole.freeze();
        found
    }

    async fn read_within(&self, layout: &Layout<D>, index: usize, range: &Range<u64>) -> Read {
        let plex = &layout.plexes[index];
        let region = Region::Public {
            plex: plex.position,
        };
        let buf = aligned_buffer((range.end - range.start) as usize);
        let read = layout.read(region, range.start, buf);
        let Some(clock) = layout.clock() else {
            return Read::Failed;
        };
        match clock.within(HANG_LIMIT, read).await {
            Some((Ok(()), buf)) => Read::Done(buf),
            Some((Err(_), _)) => Read::Failed,
            None => {
                self.report(Report {
                    volume: self.uuid(),
                    plex: plex.uuid,
                    device: None,
                    regions: 0..0,
                    what: Trouble::Hung {
                        seconds: HANG_LIMIT.as_secs(),
                    },
                });
                Read::Hung
            }
        }
    }

    /// Fills a region in all attached plexes that are stale there. It stays stale until [`Volume::finish`].
    ///
    /// # Errors
    /// [`SyncError`]; the region is as stale as before.
    pub(crate) async fn sync_region<P: Pace>(
        &self,
        region: u32,
        pace: &P,
    ) -> Result<Synced, SyncError> {
        self.settle_region(region, pace).await?;
        let mut synced = Synced::default();
        let (tracker, targets) = self.begin_copying(region)?;
        if targets.is_empty() {
            return Ok(synced);
        }
        let result = self
            .fill(&tracker, region, &targets, pace, &mut synced)
            .await;
        if result.is_err() || synced.stopped || !synced.unreadable.is_empty() {
            for slot in &targets {
                slot.copying.clear(region);
            }
        }
        result.map(|()| synced)
    }

    /// Lets writes to a region go to the plexes that are to be filled there.
    fn begin_copying(&self, region: u32) -> Result<Copying<D>, SyncError> {
        let tracked = self.tracked()?;
        let (layout, tracker) = (tracked.layout(), tracked.tracker());
        let mut targets = Vec::new();
        for plex in &layout.plexes {
            let Some(slot) = &plex.slot else { continue };
            if slot.is_valid(region) || slot.is_leaving() || tracker.is_joining(plex.uuid) {
                continue;
            }
            if layout.abandoned(plex.position) > 0 {
                return Err(SyncError::Abandoned(plex.uuid));
            }
            targets.push(slot.clone());
        }
        for slot in &targets {
            // Before the first chunk is taken: a write that is not in the table yet will see it.
            slot.copying.set(region);
        }
        Ok((tracker.clone(), targets))
    }

    async fn fill<P: Pace>(
        &self,
        tracker: &Arc<RegionTracker<D>>,
        region: u32,
        targets: &[Arc<Slot>],
        pace: &P,
        synced: &mut Synced,
    ) -> Result<(), SyncError> {
        let chunk_bytes = pace.chunk_bytes().clamp(BLOCK_BYTES, CHUNK_BYTES);
        let mut at = tracker.bytes_of(region, self.size_bytes()).start;
        loop {
            // No layout is held while the pace makes it wait: somebody may wait for its end.
            let Some(_permit) = pace.permit(chunk_bytes).await else {
                synced.stopped = true;
                return Ok(());
            };
            let tracked = self.tracked()?;
            let layout = tracked.layout();
            let end = tracker.bytes_of(region, layout.map.size_bytes()).end;
            if at >= end {
                return Ok(());
            }
            let chunk = at..(at + chunk_bytes).min(end);
            let _locked = self.table.take(chunk.clone(), Use::Write).await;
            let mut mask = 0u8;
            for (index, plex) in layout.plexes.iter().enumerate() {
                // Whoever failed on a target has taken it out of copying.
                let copying = plex.slot.as_ref().is_some_and(|slot| {
                    targets.iter().any(|target| Arc::ptr_eq(target, slot))
                        && slot.copying.get(region)
                });
                mask |= u8::from(copying) << index;
            }
            if mask == 0 || tracker.is_retired() || !Arc::ptr_eq(tracked.tracker(), tracker) {
                synced.stopped = true;
                return Ok(());
            }
            for (index, plex) in layout.plexes.iter().enumerate() {
                // Looked at again with the range held: a write that was given up had it until now.
                if mask >> index & 1 == 1 && layout.abandoned(plex.position) > 0 {
                    return Err(SyncError::Abandoned(plex.uuid));
                }
            }
            self.fill_chunk(layout, tracker, region, mask, &chunk, synced)
                .await?;
            at = chunk.end;
            if at >= end {
                return Ok(());
            }
        }
    }

    /// Copies a chunk that the caller has to itself.
    async fn fill_chunk(
        &self,
        layout: &Layout<D>,
        tracker: &RegionTracker<D>,
        region: u32,
        targets: u8,
        chunk: &Range<u64>,
        synced: &mut Synced,
    ) -> Result<(), SyncError> {
        let sources = layout.readable(region) & !targets;
        if sources == 0 {
            return Err(SyncError::NoCopy(region));
        }
        let found = match self.hole(layout, sources, chunk).await {
            Some(hole) => hole,
            None => self.read_any(layout, sources, chunk).await,
        };
        synced.unreadable.extend(found.unreadable.iter().cloned());
        let regions = region..region + 1;
        let mut together = self.together(layout, tracker, What::Write, regions);
        for (part, change) in found.changes() {
            let length_bytes = part.end - part.start;
            match change {
                Change::Data(_) => synced.copied_bytes += length_bytes,
                Change::Zeroes { .. } => synced.zero_bytes += length_bytes,
            }
            push_copies(&mut together, layout, found.source, targets, &part, &change)?;
        }
        together.for_keeper().await.map_err(SyncError::Failed)
    }

    /// A range that the first source has no storage for: zeroes that need not be read.
    async fn hole(&self, layout: &Layout<D>, sources: u8, range: &Range<u64>) -> Option<Found> {
        let index = sources.trailing_zeros() as usize;
        let region = Region::Public {
            plex: layout.plexes.get(index)?.position,
        };
        let length_bytes = range.end - range.start;
        let asked = layout.allocation(region, range.start, length_bytes);
        let answer = layout.clock()?.within(HANG_LIMIT, asked).await?.ok()?;
        (!answer.allocated && answer.length_bytes >= length_bytes).then(|| Found {
            range: range.clone(),
            data: vec![0; length_bytes as usize].into(),
            source: Some(index),
            bad: Vec::new(),
            unreadable: Vec::new(),
        })
    }

    /// Makes regions that were filled valid: flushes the plexes, clears the bits, durably. Returns those of `regions` that
    /// are valid on every attached plex now.
    ///
    /// # Errors
    /// [`SyncError`]; nothing became valid.
    pub(crate) async fn finish(&self, regions: &[u32]) -> Result<Vec<u32>, SyncError> {
        let tracked = self.tracked()?;
        let (layout, tracker) = (tracked.layout(), tracked.tracker());
        let mut targets = 0u8;
        for (index, plex) in layout.plexes.iter().enumerate() {
            let copied = plex
                .slot
                .as_ref()
                .is_some_and(|slot| regions.iter().any(|region| slot.copying.get(*region)));
            targets |= u8::from(copied) << index;
        }
        if targets != 0 {
            // Those that were read from too: what a client wrote before there was a log is in no log, and where a crash takes
            // it from the source, it must not be in what was copied.
            self.flushes(layout, tracker, u8::MAX, 0..0)
                .for_keeper()
                .await
                .map_err(SyncError::Failed)?;
            // Not while a grow writes the logs for another size.
            let _changing = self.changing.lock().await;
            if !self.is_present(tracker) {
                return Ok(Vec::new());
            }
            let (cleared, sequence) = tracker.clear_stale(regions);
            if !cleared.is_empty() {
                let logged = self
                    .logs(layout, tracker, 0..0, sequence)
                    .for_keeper()
                    .await;
                if let Err(failed) = logged {
                    tracker.restore_stale(&cleared);
                    return Err(SyncError::Failed(failed));
                }
                tracker.show_valid(&cleared);
            }
        }
        let valid = |region: &u32| {
            layout
                .plexes
                .iter()
                .all(|plex| plex.slot.as_ref().is_none_or(|slot| slot.is_valid(*region)))
        };
        Ok(regions.iter().copied().filter(valid).collect())
    }

    /// Settles a region, unless it is.
    ///
    /// # Errors
    /// [`SyncError`].
    pub(crate) async fn settle_region<P: Pace>(
        &self,
        region: u32,
        pace: &P,
    ) -> Result<Synced, SyncError> {
        let mut synced = Synced::default();
        let mut at = None;
        loop {
            if !self.tracked()?.tracker().unsettled.get(region) {
                return Ok(synced);
            }
            let Some(_permit) = pace.permit(CHUNK_BYTES).await else {
                synced.stopped = true;
                return Ok(synced);
            };
            let tracked = self.tracked()?;
            let (layout, tracker) = (tracked.layout(), tracked.tracker());
            let bytes = tracker.bytes_of(region, layout.map.size_bytes());
            let start = at.unwrap_or(bytes.start);
            if start >= bytes.end {
                return Ok(synced);
            }
            let chunk = start..(start + CHUNK_BYTES).min(bytes.end);
            self.settle_chunk(layout, tracker, chunk.clone()).await?;
            synced.copied_bytes += chunk.end - chunk.start;
            at = Some(chunk.end);
        }
    }
}

/// A tracker, and the plexes that are being filled.
type Copying<D> = (Arc<RegionTracker<D>>, Vec<Arc<Slot>>);

enum Read {
    Done(BytesMut),
    Failed,
    Hung,
}

/// A layout that has a tracker.
pub(in crate::volume) struct Tracked<D>(LayoutGuard<D>);

impl<D> Tracked<D> {
    pub(in crate::volume) fn layout(&self) -> &Layout<D> {
        &self.0
    }

    pub(in crate::volume) fn tracker(&self) -> &Arc<RegionTracker<D>> {
        match &self.0.tracker {
            Some(tracker) => tracker,
            // `Volume::tracked`, the only constructor, checked it.
            None => unreachable!("a layout without a tracker"),
        }
    }
}

impl Regions {
    /// The regions as a list.
    pub fn to_vec(&self) -> Vec<u32> {
        self.iter().collect()
    }
}
