//! The region log: what it is to say, and making that durable.
//!
//! Every change of the image gets the next sequence number. A plex's log is written by one caller at a time; the others
//! wait, and the next one writes everything that has changed meanwhile: many setters share a write and a flush. Each page
//! has two copies, and a write goes to the one that is not the newest.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use uuid::Uuid;

use super::log_page::{self, Geometry, Kind, LOG_OFFSET, PAGE_BYTES, PAGES};
use super::{RegionTracker, Regions, Slot};
use crate::block_device::BlockDevice;
use crate::device::Device;
use crate::error::VolumeError;
use crate::join::{boxed, join_all};

/// A set of regions as the log is to have it.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) set: Regions,
    /// Of its last change.
    pub(super) sequence: u64,
}

/// Between two looks whether a device has ended what it was given.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a plex is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It takes part, and its log is written.
    Attached,
    /// Its log is written already, but operations may still run without it: whatever is written is stale there.
    /// With the number of the layout that has it, once it is published.
    Joining(Option<u64>),
    /// It is to be detached: its log is not written any more, and whatever is written is stale there, but operations
    /// that failed on it wait until the layout without it is published.
    Leaving,
    /// It takes no part; whatever is written is stale there.
    Detached,
    /// As detached, and not in the record of the layout with this number any more.
    Gone(u64),
}

/// Where a plex's region log is.
pub(super) struct PlexLog<D> {
    /// Another one after each attachment.
    id: u64,
    pub(super) device: Arc<Device<D>>,
    /// In which its pages were written: a flush of another one says nothing about them.
    pub(super) incarnation: u64,
    /// First byte of the plex's log extent on the device.
    pub(super) offset_bytes: u64,
    /// Every change up to this one is durable here.
    pub(super) durable: u64,
    /// Somebody writes it.
    writing: bool,
    /// Whoever wrote it gave up: until the device has ended what it was given, a later write to the same copies could be
    /// overtaken by it, so there is none.
    given_up: bool,
    /// Which copy of each page is the newest.
    pub(super) newest: [u8; PAGES],
}

impl<D: BlockDevice> PlexLog<D> {
    pub(super) fn new(id: u64, device: Arc<Device<D>>, offset_bytes: u64) -> PlexLog<D> {
        PlexLog {
            id,
            incarnation: device.incarnation(),
            device,
            offset_bytes,
            durable: 0,
            writing: false,
            given_up: false,
            newest: [0; PAGES],
        }
    }
}

/// A plex.
pub(super) struct Member<D> {
    pub(super) slot: Arc<Slot>,
    /// Its page: 1 to `MAX_PLEXES`.
    pub(super) page: usize,
    pub(super) state: State,
    pub(super) stale: Page,
    /// `None` for one that takes no part.
    pub(super) log: Option<PlexLog<D>>,
    /// Why it must be detached before the volume is served.
    pub(super) trouble: Option<String>,
}

impl<D> Member<D> {
    /// Whether the log is written to it.
    pub(super) fn is_logged(&self) -> bool {
        matches!(self.state, State::Attached | State::Joining(_))
    }

    /// Whether a region that is written now is stale there.
    pub(super) fn misses_writes(&self) -> bool {
        self.state != State::Attached
    }
}

/// What the log is to say.
pub(super) struct Image<D> {
    /// Of the last change.
    pub(super) sequence: u64,
    pub(super) dirty: Page,
    pub(super) members: Vec<Member<D>>,
}

impl<D> Image<D> {
    pub(super) fn member(&mut self, plex: Uuid) -> Option<&mut Member<D>> {
        self.members
            .iter_mut()
            .find(|member| member.slot.uuid == plex)
    }

    /// The number of a change that is made now.
    pub(super) fn step(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Makes every page be written again.
    pub(super) fn touch_all(&mut self) -> u64 {
        let sequence = self.step();
        self.dirty.sequence = sequence;
        for member in &mut self.members {
            member.stale.sequence = sequence;
        }
        sequence
    }
}

/// What a caller who needs a change durable does next.
enum Turn<D> {
    Done,
    Wait,
    /// Until the device has ended what it was given.
    WaitFor(Arc<Device<D>>),
    Lead(Write<D>),
}

/// Pages to be written to one plex's log.
struct Write<D> {
    plex: Uuid,
    /// [`PlexLog::id`].
    id: u64,
    device: Arc<Device<D>>,
    incarnation: u64,
    offset_bytes: u64,
    pages: Vec<(usize, u8, Bytes)>,
    /// Up to which change that is everything.
    sequence: u64,
}

impl<D: BlockDevice> Write<D> {
    async fn run(&self) -> Result<(), VolumeError> {
        let writes = self.pages.iter().map(|(page, copy, bytes)| {
            let at = page_offset(self.offset_bytes, *page, *copy);
            boxed(self.device.write(at, bytes.clone()))
        });
        join_all(writes)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        self.device.flush_since(self.incarnation).await
    }
}

/// Where a copy of a page is on the device, with the log extent at `offset_bytes`.
pub(super) fn page_offset(offset_bytes: u64, page: usize, copy: u8) -> u64 {
    offset_bytes + LOG_OFFSET + ((2 * page + usize::from(copy)) * PAGE_BYTES) as u64
}

/// The caller that writes a log. Whatever ends it lets the next one go on.
struct Lead<'a, D: BlockDevice> {
    tracker: &'a RegionTracker<D>,
    write: Write<D>,
    /// `None` when it was given up.
    done: Option<bool>,
}

impl<D: BlockDevice> Drop for Lead<'_, D> {
    fn drop(&mut self) {
        let mut image = self.tracker.image.lock();
        let log = image
            .member(self.write.plex)
            .and_then(|member| member.log.as_mut());
        // One that was attached again meanwhile is not ours.
        if let Some(log) = log
            && log.id == self.write.id
        {
            log.writing = self.done.is_none();
            log.given_up = self.done.is_none();
            if self.done == Some(true) {
                log.durable = log.durable.max(self.write.sequence);
                for (page, copy, _) in &self.write.pages {
                    log.newest[*page] = *copy;
                }
            }
        }
        drop(image);
        self.tracker.notify();
    }
}

impl<D: BlockDevice> RegionTracker<D> {
    /// Makes every change up to `sequence` durable in the log of `plex`, or returns when the plex is not logged any more.
    ///
    /// # Errors
    /// The device's; the next caller tries again.
    pub(in crate::volume) async fn persist(
        &self,
        plex: Uuid,
        sequence: u64,
    ) -> Result<(), VolumeError> {
        loop {
            // Listen before looking, so that a change between the two is not missed.
            let mut listener = None;
            let turn = loop {
                match self.turn(plex, sequence) {
                    Turn::Wait | Turn::WaitFor(_) if listener.is_none() => {
                        listener = Some(self.changed.listen());
                    }
                    turn => break turn,
                }
            };
            match (turn, listener) {
                (Turn::Done, _) => return Ok(()),
                (Turn::Lead(write), _) => {
                    let mut lead = Lead {
                        tracker: self,
                        write,
                        done: None,
                    };
                    let result = lead.write.run().await;
                    lead.done = Some(result.is_ok());
                    result?;
                }
                (Turn::WaitFor(device), Some(listener)) => {
                    let again = device.sleep(LOOK_AGAIN);
                    futures_lite::future::or(listener, again).await;
                }
                (Turn::WaitFor(_), None) => {}
                (Turn::Wait, Some(listener)) => listener.await,
                (Turn::Wait, None) => {}
            }
        }
    }

    fn turn(&self, plex: Uuid, sequence: u64) -> Turn<D> {
        let mut image = self.image.lock();
        let image = &mut *image;
        let (up_to, geometry) = (image.sequence, self.geometry);
        let Some(member) = image
            .members
            .iter_mut()
            .find(|member| member.slot.uuid == plex)
        else {
            return Turn::Done;
        };
        if !member.is_logged() {
            return Turn::Done;
        }
        let Some(log) = &mut member.log else {
            return Turn::Done;
        };
        if log.durable >= sequence {
            return Turn::Done;
        }
        if log.writing && !log.given_up {
            return Turn::Wait;
        }
        if log.given_up && log.device.abandoned() > 0 {
            return Turn::WaitFor(log.device.clone());
        }
        log.given_up = false;
        log.writing = true;
        let (durable, newest) = (log.durable, log.newest);
        let write = Write {
            plex,
            id: log.id,
            device: log.device.clone(),
            incarnation: log.incarnation,
            offset_bytes: log.offset_bytes,
            pages: Vec::new(),
            sequence: up_to,
        };
        Turn::Lead(Write {
            pages: pages(self.volume, geometry, image, durable, newest),
            ..write
        })
    }

    /// Notes that these regions are written, for the log; returns the change that must be durable before they are.
    pub(in crate::volume) fn mark_dirty(&self, regions: Range<u32>) -> u64 {
        let mut image = self.image.lock();
        let image = &mut *image;
        let next = image.sequence + 1;
        let mut changed = false;
        let mut needed = image.dirty.sequence;
        for region in regions.clone() {
            if image.dirty.set.set(region) {
                image.dirty.sequence = next;
                changed = true;
            }
        }
        for member in &mut image.members {
            if !member.misses_writes() {
                continue;
            }
            for region in regions.clone() {
                if member.stale.set.set(region) {
                    member.stale.sequence = next;
                    changed = true;
                }
            }
            needed = needed.max(member.stale.sequence);
        }
        if changed {
            image.sequence = next;
            needed = next;
        }
        needed
    }

    /// After the change of [`Self::mark_dirty`] is durable: lets operations see it.
    pub(in crate::volume) fn show_dirty(&self, regions: Range<u32>) {
        let image = self.image.lock();
        for member in &image.members {
            // One that leaves takes part until the layout without it is published.
            if member.misses_writes() && member.state != State::Leaving {
                for region in regions.clone() {
                    member.slot.stale.set(region);
                }
            }
        }
        for region in regions {
            self.dirty.set(region);
        }
    }

    /// The plexes whose logs are written.
    pub(in crate::volume) fn logged(&self) -> SmallVec<[Uuid; 2]> {
        let image = self.image.lock();
        image
            .members
            .iter()
            .filter(|member| member.is_logged())
            .map(|member| member.slot.uuid)
            .collect()
    }

    /// The last change.
    pub(in crate::volume) fn sequence(&self) -> u64 {
        self.image.lock().sequence
    }

    /// The device of a plex's log.
    pub(in crate::volume) fn log_device(&self, plex: Uuid) -> Option<Uuid> {
        let mut image = self.image.lock();
        let log = image.member(plex)?.log.as_ref()?;
        Some(log.device.uuid())
    }
}

/// The pages that changed after `durable`, with the copies to write.
fn pages<D>(
    volume: Uuid,
    geometry: Geometry,
    image: &Image<D>,
    durable: u64,
    newest: [u8; PAGES],
) -> Vec<(usize, u8, Bytes)> {
    let sets = std::iter::once((0, Kind::Dirty, &image.dirty)).chain(
        image
            .members
            .iter()
            .map(|member| (member.page, Kind::Stale(member.slot.uuid), &member.stale)),
    );
    sets.filter(|(_, _, page)| page.sequence > durable)
        .map(|(number, kind, page)| {
            let bytes = log_page::encode(volume, kind, page.sequence, geometry, &page.set);
            (number, 1 - newest[number], bytes)
        })
        .collect()
}
