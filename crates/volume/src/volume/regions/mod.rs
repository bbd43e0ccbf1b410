//! Which regions of a volume are where: the region log and what is kept of it in memory.
//!
//! A [`RegionTracker`] exists for a volume with more than one plex. It has, by region:
//!
//! - *dirty*: a write may be in flight; after a crash the plexes may differ there;
//! - *stale*, for each plex: it has no valid data there;
//! - *copying*, for each plex: it is being filled there, so writes go to it although it is stale;
//! - *unsettled*: it was dirty at open, or a write failed on every plex: plexes may differ in writes nobody was told of.
//!
//! **Two views.** The *image* ([`log::Image`], under one short mutex) is what the log on disk is to say. The *visible*
//! sets (atomics) are what operations go by. A bit that forbids something (dirty, stale) is durable before it is
//! visible, one that allows something again is cleared in the image, made durable and only then in sight; so what
//! operations go by is never more than what a crash would leave.
//!
//! **Orders.** All atomics are sequentially consistent. Where the order of two of them matters:
//!
//! - A region becomes valid by clearing stale first, copying then; [`Slot::takes_writes`] loads copying first, stale then. A
//!   writer that finds neither would have loaded copying after it was cleared, hence stale after that too.
//! - A plex that leaves: `leaving` is set before anything is durable and cleared after the layout without the plex is
//!   published, which is after its stale set became visible; writers load leaving first.
//! - Clearing dirty (the sweep) happens under the mutex of the write table with no write of the region in the table, and
//!   writers look at dirty after they entered it: each sees the other.

mod bitmap;
pub(crate) mod compare;
pub(crate) mod copy;
mod log;
pub(crate) mod log_page;
mod members;
mod merge;
mod open;
mod settle;
mod sweep;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use event_listener::Event;
use parking_lot::Mutex;
use uuid::Uuid;

pub(crate) use bitmap::AtomicRegions;
pub use bitmap::Regions;
pub(crate) use log_page::Geometry;
pub use log_page::MAX_REGIONS;
pub(crate) use members::DetachError;

use log::Image;

/// What operations must know of one plex, without a lock.
pub(crate) struct Slot {
    pub(super) uuid: Uuid,
    /// No valid data.
    pub(super) stale: AtomicRegions,
    /// Being filled: writes go there all the same.
    pub(super) copying: AtomicRegions,
    /// It is being detached: it is written to as if it were valid everywhere, and who fails on it waits for the layout
    /// without it.
    pub(super) leaving: AtomicBool,
    /// How often the keeper said that there is no other copy of what it holds.
    refusals: AtomicU64,
    /// Reads in flight.
    pub(super) reads: AtomicU32,
    /// Where the last read ended.
    pub(super) next_read: AtomicU64,
}

impl Slot {
    fn new(uuid: Uuid, stale: &Regions) -> Slot {
        Slot {
            uuid,
            stale: AtomicRegions::new(stale),
            copying: AtomicRegions::new(&Regions::new(stale.count(), false)),
            leaving: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
            reads: AtomicU32::new(0),
            next_read: AtomicU64::new(0),
        }
    }

    /// Whether it is being detached.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Whether it has valid data in the region.
    pub(super) fn is_valid(&self, region: u32) -> bool {
        !self.stale.get(region)
    }

    /// Whether writes to the region must go to it. The order of the loads matters: see the text of the module.
    pub(super) fn takes_writes(&self, region: u32) -> bool {
        self.is_leaving() || self.copying.get(region) || !self.stale.get(region)
    }

    /// Says that there is no other copy of something that the plex holds.
    pub(super) fn refuse(&self) {
        self.refusals.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }
}

/// The parts of an unsettled region that are settled already.
#[derive(Default)]
pub(super) struct Settled {
    /// By region; absent where nothing is settled yet.
    chunks: BTreeMap<u32, Regions>,
}

/// Which regions of a volume are where. Shared by all layouts of the volume until its size changes.
pub(crate) struct RegionTracker<D> {
    volume: Uuid,
    geometry: Geometry,
    /// Writes may be in flight there; durable in the logs of all attached plexes.
    dirty: AtomicRegions,
    /// Written since the last sweep.
    touched: AtomicRegions,
    pub(super) unsettled: AtomicRegions,
    settled: Mutex<Settled>,
    image: Mutex<Image<D>>,
    /// Notified after every change that somebody may wait for.
    changed: Event,
    /// Another tracker has taken its place (the volume has grown): operations begin anew.
    retired: AtomicBool,
    /// Operations of clients begun, for the copier to back off.
    pub(super) operations: AtomicU64,
    pub(super) in_flight: AtomicU64,
}

impl<D> RegionTracker<D> {
    fn new(volume: Uuid, geometry: Geometry, image: Image<D>) -> RegionTracker<D> {
        let none = Regions::new(geometry.count, false);
        RegionTracker {
            volume,
            geometry,
            dirty: AtomicRegions::new(&image.dirty.set),
            touched: AtomicRegions::new(&none),
            unsettled: AtomicRegions::new(&none),
            settled: Mutex::default(),
            image: Mutex::new(image),
            changed: Event::new(),
            retired: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
        }
    }

    /// Notified after every change that somebody may wait for.
    pub(super) fn changed(&self) -> &Event {
        &self.changed
    }

    pub(super) fn notify(&self) {
        self.changed.notify(usize::MAX);
    }

    /// Number of regions.
    pub(super) fn count(&self) -> u32 {
        self.geometry.count
    }

    /// Bytes of a region.
    pub(super) fn region_bytes(&self) -> u64 {
        self.geometry.region_bytes()
    }

    /// The regions that a range of bytes touches; the range lies inside the volume.
    pub(super) fn regions_of(&self, range: &Range<u64>) -> Range<u32> {
        let shift = self.geometry.region_shift;
        // At most `count`, which is a u32.
        let first = (range.start >> shift) as u32;
        let last = (range.end.div_ceil(self.region_bytes())) as u32;
        first..last.max(first)
    }

    /// The bytes of a region of a volume of `size_bytes`.
    pub(super) fn bytes_of(&self, region: u32, size_bytes: u64) -> Range<u64> {
        let start = u64::from(region) << self.geometry.region_shift;
        let end = (start + self.region_bytes()).min(size_bytes);
        start.min(end)..end
    }

    /// What is known of a plex; `None` for one that was never told of.
    pub(crate) fn slot(&self, plex: Uuid) -> Option<Arc<Slot>> {
        let image = self.image.lock();
        image
            .members
            .iter()
            .find(|member| member.slot.uuid == plex)
            .map(|member| member.slot.clone())
    }

    /// Whether operations must begin anew with another tracker.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }

    /// Notes that regions are written, so that the sweep leaves them alone: now, and again when the result is dropped. The
    /// caller is in the write table until after that.
    pub(super) fn touching(&self, regions: Range<u32>) -> Touching<'_> {
        let touching = Touching {
            touched: &self.touched,
            regions,
        };
        touching.touch();
        touching
    }

    /// Whether writes to all of these regions are in the log.
    pub(super) fn is_dirty(&self, mut regions: Range<u32>) -> bool {
        regions.all(|region| self.dirty.get(region))
    }

    /// The regions that the log says writes may be in flight in.
    pub(super) fn dirty(&self) -> Regions {
        self.image.lock().dirty.set.clone()
    }

    /// The regions in which the log says that a plex has no valid data; `None` for a plex that was never told of.
    pub(super) fn stale(&self, plex: Uuid) -> Option<Regions> {
        let image = self.image.lock();
        image
            .members
            .iter()
            .find(|member| member.slot.uuid == plex)
            .map(|member| member.stale.set.clone())
    }

    /// Whether log entries still go to the plex.
    pub(super) fn is_logged(&self, plex: Uuid) -> bool {
        let image = self.image.lock();
        image
            .members
            .iter()
            .any(|member| member.slot.uuid == plex && member.is_logged())
    }

    /// Whether the plex is stale in all of these regions, durably, and not about to leave or to become valid: then what
    /// it missed is not believed. Regions that were being filled are no longer.
    ///
    /// Under the image's mutex: clearing stale begins there ([`Self::clear_stale`]), so a plex that has failed either is
    /// taken out of copying before the copier looks, or counts as valid from the copier's look on.
    pub(super) fn give_up_if_stale(&self, plex: Uuid, regions: Range<u32>) -> bool {
        let image = self.image.lock();
        let Some(member) = image.members.iter().find(|member| member.slot.uuid == plex) else {
            return true;
        };
        let slot = &member.slot;
        if slot.is_leaving() || regions.is_empty() {
            return false;
        }
        let stale = regions
            .clone()
            .all(|region| member.stale.set.get(region) && slot.stale.get(region));
        if stale {
            for region in regions {
                slot.copying.clear(region);
            }
        }
        stale
    }
}

/// A write under way.
pub(super) struct Touching<'a> {
    touched: &'a AtomicRegions,
    regions: Range<u32>,
}

impl Touching<'_> {
    fn touch(&self) {
        for region in self.regions.clone() {
            self.touched.set(region);
        }
    }
}

impl Drop for Touching<'_> {
    fn drop(&mut self) {
        self.touch();
    }
}
