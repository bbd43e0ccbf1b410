//! Making, reading and extending the region log.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::log::{Image, Member, Page, PlexLog, State};
use super::log_page::{Geometry, Kind, LOG_BYTES, LOG_OFFSET, PAGES};
use super::merge::{LogPages, Merged, merge, page_of, read_log};
use super::{RegionTracker, Regions, Slot};
use crate::block_device::{BlockDevice, aligned_buffer};
use crate::config::{MAX_PLEXES, Plex, VolumeRecord};
use crate::device::Device;
use crate::error::VolumeError;
use crate::join::{boxed, join_all};
use crate::translate::{Map, Region};
use crate::volume::atomic_write::{HEADER_BYTES, LANE_BYTES, LANES};

/// The devices of a pool that are there.
pub(crate) type Devices<D> = BTreeMap<Uuid, Arc<Device<D>>>;

/// Where a plex's log extent is, if its device is there.
fn log_of<D: BlockDevice>(
    map: &Map,
    position: usize,
    devices: &Devices<D>,
) -> Option<(Arc<Device<D>>, u64)> {
    let region = Region::Log { plex: position };
    let ranges = map.translate(region, 0, map.region_bytes(region)).ok()?;
    let range = ranges.first()?;
    let device = devices.get(&range.device)?;
    Some((device.clone(), range.device_offset_bytes))
}

/// Whether every device of a plex is there.
fn is_there<D>(map: &Map, position: usize, devices: &Devices<D>) -> bool {
    map.plex_devices(position)
        .iter()
        .all(|index| devices.contains_key(&map.devices()[*index]))
}

fn geometry_of(record: &VolumeRecord) -> Result<Geometry, VolumeError> {
    Geometry::new(record.size_bytes, record.region_bytes).ok_or_else(|| VolumeError::NotServed {
        volume: record.name.clone(),
        reason: format!(
            "{} bytes in regions of {} bytes: a volume has at most {} regions",
            record.size_bytes,
            record.region_bytes,
            super::MAX_REGIONS
        ),
    })
}

impl<D: BlockDevice> RegionTracker<D> {
    /// Formats the logs of a new volume's plexes, or of one that has had one plex so far: nothing is dirty or stale.
    ///
    /// # Errors
    /// [`VolumeError`]; the logs are not to be used then.
    pub(crate) async fn create(
        record: &VolumeRecord,
        map: &Map,
        devices: &Devices<D>,
    ) -> Result<Arc<RegionTracker<D>>, VolumeError> {
        let geometry = geometry_of(record)?;
        let mut image = Image {
            sequence: 1,
            dirty: Page {
                set: Regions::new(geometry.count, false),
                sequence: 1,
            },
            members: Vec::new(),
        };
        let mut formats = Vec::new();
        for (position, plex) in record.plexes.iter().enumerate() {
            let none = Regions::new(geometry.count, false);
            let mut member = new_member(plex.uuid, 1 + position, State::Attached, none, 1);
            if plex.is_attached()
                && let Some((device, offset_bytes)) = log_of(map, position, devices)
            {
                let id = image.step();
                member.log = Some(PlexLog::new(id, device.clone(), offset_bytes));
                // The intents stay: one of an atomic write in flight may be there.
                formats.push(boxed(format(device, offset_bytes, false)));
            } else {
                member.state = State::Detached;
            }
            image.members.push(member);
        }
        join_all(formats)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        let tracker = RegionTracker::new(record.uuid, geometry, image);
        tracker.persist_everywhere().await?;
        Ok(Arc::new(tracker))
    }

    /// [`Self::create`] for a volume that has a region log.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(crate) async fn create_if_needed(
        record: &VolumeRecord,
        map: &Map,
        devices: &Devices<D>,
    ) -> Result<Option<Arc<RegionTracker<D>>>, VolumeError> {
        if record.plexes.len() < 2 {
            return Ok(None);
        }
        Self::create(record, map, devices).await.map(Some)
    }

    /// [`Self::open`] for a volume that has a region log.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_if_needed(
        record: &VolumeRecord,
        map: &Map,
        devices: &Devices<D>,
    ) -> Result<Option<Arc<RegionTracker<D>>>, VolumeError> {
        if record.plexes.len() < 2 {
            return Ok(None);
        }
        Self::open(record, map, devices).await.map(Some)
    }

    /// Makes the image durable on all logs that are written; nothing is served yet.
    async fn persist_everywhere(&self) -> Result<(), VolumeError> {
        let sequence = self.sequence();
        let logged = self.logged();
        let writes = logged
            .iter()
            .map(|plex| boxed(self.persist(*plex, sequence)));
        join_all(writes).await.into_iter().collect()
    }

    /// Reads the logs of the attached plexes of a volume with more than one. It always gives an answer: an attached plex
    /// whose devices are not there, or whose log cannot be read, is one that is to be detached
    /// ([`super::super::Volume::to_detach`]), and what cannot be proven counts as dirty, or stale.
    ///
    /// # Errors
    /// [`VolumeError::NotServed`] when there are more regions than can be.
    pub(crate) async fn open(
        record: &VolumeRecord,
        map: &Map,
        devices: &Devices<D>,
    ) -> Result<Arc<RegionTracker<D>>, VolumeError> {
        let geometry = geometry_of(record)?;
        let attached: Vec<(usize, &Plex)> = record
            .plexes
            .iter()
            .enumerate()
            .filter(|(_, plex)| plex.is_attached())
            .collect();
        let reads = attached.iter().map(|(position, plex)| {
            boxed(async move {
                let (device, offset_bytes) = match log_of(map, *position, devices) {
                    Some(found) if is_there(map, *position, devices) => found,
                    _ => return (plex.uuid, Err("a device of it is missing".to_owned())),
                };
                let pages = read_log(&device, offset_bytes, record.uuid).await;
                let log = match pages {
                    Ok(pages) => Ok((device, offset_bytes, pages)),
                    Err(error) => Err(format!("its region log: {error}")),
                };
                (plex.uuid, log)
            })
        });
        let mut logs = Vec::new();
        let mut troubles = BTreeMap::new();
        for (plex, log) in join_all(reads).await {
            match log {
                Ok(log) => logs.push((plex, log)),
                Err(trouble) => {
                    troubles.insert(plex, trouble);
                }
            }
        }
        let pages: Vec<&LogPages> = logs.iter().map(|(_, (_, _, pages))| pages).collect();
        let Merged {
            mut sets,
            unproven,
            highest,
            uniform,
        } = merge(&pages, record, geometry);
        let dirty = sets
            .remove(&Kind::Dirty)
            .unwrap_or_else(|| Regions::new(geometry.count, true));
        let mut image = Image {
            sequence: highest,
            dirty: Page {
                set: dirty,
                sequence: highest,
            },
            members: Vec::new(),
        };
        for plex in &record.plexes {
            let stale = sets
                .remove(&Kind::Stale(plex.uuid))
                .unwrap_or_else(|| Regions::new(geometry.count, true));
            let page = page_of(&pages, plex.uuid)
                .filter(|page| image.members.iter().all(|member| member.page != *page))
                .or_else(|| free_page(&image))
                // A record has at most MAX_PLEXES plexes, so that a page is free.
                .unwrap_or(PAGES - 1);
            let mut member = new_member(plex.uuid, page, State::Detached, stale, highest);
            if let Some((_, (device, offset_bytes, pages))) =
                logs.iter().find(|(uuid, _)| *uuid == plex.uuid)
            {
                let id = image.step();
                let mut log = PlexLog::new(id, device.clone(), *offset_bytes);
                log.newest = pages.newest;
                // Where all logs say the same, nothing needs to be written before the next change.
                log.durable = if uniform { highest } else { 0 };
                member.log = Some(log);
                member.state = State::Attached;
            } else if let Some(trouble) = troubles.remove(&plex.uuid) {
                member.state = State::Leaving;
                member
                    .slot
                    .leaving
                    .store(true, std::sync::atomic::Ordering::SeqCst);
                member.trouble = Some(trouble);
            }
            image.members.push(member);
        }
        believe_the_last(&mut image, &unproven);
        if !uniform {
            image.touch_all();
        }
        let several = image
            .members
            .iter()
            .filter(|member| member.state == State::Attached)
            .count()
            > 1;
        let unsettled = image.dirty.set.clone();
        let tracker = RegionTracker::new(record.uuid, geometry, image);
        if several {
            tracker.unsettled.store(&unsettled);
        }
        if !uniform {
            tracker.write_or_leave().await;
        }
        Ok(Arc::new(tracker))
    }

    /// Before the volume is served: makes the image durable on all logs; a plex whose log cannot be written is to be
    /// detached.
    async fn write_or_leave(&self) {
        let sequence = self.sequence();
        for plex in self.logged() {
            if let Err(error) = self.persist(plex, sequence).await {
                self.fail_at_open(plex, format!("its region log: {error}"));
            }
        }
    }

    /// Prepares plexes that the next record has attached and this tracker does not: their logs are formatted and written
    /// from now on, and what is written from now on is stale there. `stale` says where they have no valid data; for one
    /// that was here before, that is added to what is known. Returns the change that must be durable on every log before
    /// the record is committed.
    ///
    /// # Errors
    /// [`VolumeError`], and nothing is changed.
    pub(in crate::volume) async fn join(
        &self,
        next: &VolumeRecord,
        map: &Map,
        devices: &Devices<D>,
        stale: &[(Uuid, Regions)],
    ) -> Result<u64, VolumeError> {
        let count = self.geometry.count;
        let mut coming = Vec::new();
        for (position, plex) in next.plexes.iter().enumerate() {
            if !plex.is_attached() || self.is_member(plex.uuid) {
                continue;
            }
            let found = log_of(map, position, devices).filter(|_| is_there(map, position, devices));
            let Some((device, offset_bytes)) = found else {
                return Err(VolumeError::NotServed {
                    volume: next.name.clone(),
                    reason: format!("a device of plex {position} is missing"),
                });
            };
            let mut set = match stale.iter().find(|(uuid, _)| *uuid == plex.uuid) {
                Some((_, set)) => set.clone(),
                None => Regions::new(count, false),
            };
            if self.slot(plex.uuid).is_some() {
                // Where it had writes in flight when it left, it may have what the others do not.
                let own = read_log(&device, offset_bytes, next.uuid).await?;
                let mut own = merge(&[&own], next, self.geometry).sets;
                let dirty = own.remove(&Kind::Dirty);
                set.union(&dirty.unwrap_or_else(|| Regions::new(count, true)));
                // An attachment that a crash cut short may have told this log only.
                if let Some(stale) = own.remove(&Kind::Stale(plex.uuid)) {
                    set.union(&stale);
                }
            }
            format(device.clone(), offset_bytes, true).await?;
            coming.push((plex.uuid, set, device, offset_bytes));
        }
        let mut image = self.image.lock();
        for (uuid, set, device, offset_bytes) in coming {
            let id = image.step();
            let sequence = image.step();
            let page = match image.members.iter().find(|m| m.slot.uuid == uuid) {
                Some(member) => member.page,
                None => free_page(&image).ok_or_else(|| VolumeError::NotServed {
                    volume: next.name.clone(),
                    reason: format!("a volume has at most {MAX_PLEXES} plexes"),
                })?,
            };
            let known = image
                .members
                .iter()
                .position(|member| member.slot.uuid == uuid)
                .map(|at| image.members.remove(at));
            let mut all = set;
            if let Some(known) = &known {
                all.union(&known.stale.set);
            }
            // What is dirty is stale in every plex that does not take part: writers rely on it.
            all.union(&image.dirty.set);
            let mut member = new_member(uuid, page, State::Joining(None), all, sequence);
            if let Some(known) = known {
                // Operations may still have the old slot in sight.
                known.slot.stale.union(&member.stale.set);
                member.slot = known.slot;
                member.slot.copying.store(&Regions::new(count, false));
            }
            member.log = Some(PlexLog::new(id, device, offset_bytes));
            image.members.push(member);
        }
        Ok(image.touch_all())
    }

    /// The commit that was to attach them failed for sure.
    pub(in crate::volume) fn abort_join(&self, plexes: &[Uuid], recorded: &[Uuid]) {
        let mut image = self.image.lock();
        for member in &mut image.members {
            if plexes.contains(&member.slot.uuid) && member.state == State::Joining(None) {
                member.state = State::Detached;
                member.log = None;
            }
        }
        image.members.retain(|member| {
            !plexes.contains(&member.slot.uuid) || recorded.contains(&member.slot.uuid)
        });
        drop(image);
        self.notify();
    }

    /// Whether it is for a volume of this size and division.
    pub(in crate::volume) fn fits(&self, record: &VolumeRecord) -> bool {
        Geometry::new(record.size_bytes, record.region_bytes) == Some(self.geometry)
    }

    /// Makes every page be written again; returns the change.
    pub(in crate::volume) fn touch_all(&self) -> u64 {
        self.image.lock().touch_all()
    }

    /// After a tracker of another size wrote the logs: the next write of this one is newer than all of its.
    pub(in crate::volume) fn continue_from(&self, other: &RegionTracker<D>) {
        let mut image = self.image.lock();
        let theirs = other.image.lock();
        image.sequence = image.sequence.max(theirs.sequence);
        for member in &mut image.members {
            let other = theirs
                .members
                .iter()
                .find(|other| other.slot.uuid == member.slot.uuid)
                .and_then(|other| other.log.as_ref());
            if let (Some(log), Some(other)) = (&mut member.log, other) {
                log.newest = other.newest;
                log.durable = 0;
            }
        }
    }

    /// The same for a volume of the size in `record`; the caller has stopped all operations. What plexes that take no part
    /// have in the new bytes is not known, so it is stale.
    ///
    /// The logs are to be written twice, so that no copy in the old geometry is left: a crash before the first round is
    /// complete finds the old one complete, a later one the new one, and both say the same.
    ///
    /// # Errors
    /// [`VolumeError::NotServed`]: more regions than can be.
    pub(in crate::volume) fn resized(
        &self,
        record: &VolumeRecord,
    ) -> Result<Arc<RegionTracker<D>>, VolumeError> {
        Ok(Arc::new(self.with_geometry(geometry_of(record)?)))
    }

    fn with_geometry(&self, geometry: Geometry) -> RegionTracker<D> {
        let image = self.image.lock();
        let (old, new) = (self.geometry.region_bytes(), geometry.region_bytes());
        let old_bytes = u64::from(self.geometry.count) * old;
        let convert = |set: &Regions| set.resized(old, new, geometry.count);
        let members = image
            .members
            .iter()
            .map(|member| {
                let mut stale = convert(&member.stale.set);
                if member.misses_writes() {
                    stale.set_range((old_bytes / new) as u32..geometry.count);
                }
                let mut copy = new_member(member.slot.uuid, member.page, member.state, stale, 0);
                copy.slot.leaving.store(
                    member.slot.is_leaving(),
                    std::sync::atomic::Ordering::SeqCst,
                );
                copy.trouble.clone_from(&member.trouble);
                copy.log = member.log.as_ref().map(|log| {
                    let mut new =
                        PlexLog::new(image.sequence + 1, log.device.clone(), log.offset_bytes);
                    new.incarnation = log.incarnation;
                    new.newest = log.newest;
                    new
                });
                copy
            })
            .collect();
        let new_image = Image {
            sequence: image.sequence + 1,
            dirty: Page {
                set: convert(&image.dirty.set),
                sequence: image.sequence + 1,
            },
            members,
        };
        let unsettled = convert(&self.unsettled.load(self.geometry.count));
        drop(image);
        let tracker = RegionTracker::new(self.volume, geometry, new_image);
        tracker.unsettled.store(&unsettled);
        tracker
    }
}

fn new_member<D>(
    uuid: Uuid,
    page: usize,
    state: State,
    stale: Regions,
    sequence: u64,
) -> Member<D> {
    Member {
        slot: Arc::new(Slot::new(uuid, &stale)),
        page,
        state,
        stale: Page {
            set: stale,
            sequence,
        },
        log: None,
        trouble: None,
    }
}

/// Where no attached plex would be valid only because a sector of the log was damaged, those whose sector it was are
/// valid: without them there is nothing, and a single log cannot know more. They are unsettled there.
fn believe_the_last<D>(image: &mut Image<D>, unproven: &BTreeMap<Kind, Regions>) {
    let count = image.dirty.set.count();
    let mut nowhere = Regions::new(count, true);
    let attached = |member: &&mut Member<D>| member.state == State::Attached;
    for member in image.members.iter_mut().filter(attached) {
        let mut valid = nowhere.clone();
        valid.subtract(&member.stale.set);
        nowhere.subtract(&valid);
    }
    for member in image.members.iter_mut().filter(attached) {
        let Some(unproven) = unproven.get(&Kind::Stale(member.slot.uuid)) else {
            continue;
        };
        for region in nowhere.iter().filter(|region| unproven.get(*region)) {
            member.stale.set.clear(region);
            member.slot.stale.clear(region);
            image.dirty.set.set(region);
        }
    }
}

fn free_page<D>(image: &Image<D>) -> Option<usize> {
    (1..PAGES).find(|page| image.members.iter().all(|member| member.page != *page))
}

/// Takes all pages out of a log extent, and all intents if asked to, durably.
async fn format<D: BlockDevice>(
    device: Arc<Device<D>>,
    offset_bytes: u64,
    intents: bool,
) -> Result<(), VolumeError> {
    let lanes = (0..if intents { LANES } else { 0 }).map(|lane| {
        let zeroes = aligned_buffer(HEADER_BYTES).freeze();
        boxed(device.write(offset_bytes + lane * LANE_BYTES, zeroes))
    });
    let zeroes: Bytes = aligned_buffer(LOG_BYTES).freeze();
    let log = boxed(device.write(offset_bytes + LOG_OFFSET, zeroes));
    join_all(lanes.chain(std::iter::once(log)))
        .await
        .into_iter()
        .collect::<Result<(), _>>()?;
    device.flush().await
}
