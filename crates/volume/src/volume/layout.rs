//! A layout: the addresses of a volume and the devices they lead to, replaced as a whole.
//!
//! **Replacing.** An operation holds the layout that it began with to its end. [`Volume::publish`](super::Volume::publish)
//! puts a new one in place at once; [`Generations::drained`] tells when nobody uses an older one any more. A write that
//! waits for a failed plex to be taken out holds the old layout meanwhile. That is no deadlock: what it waits for is the
//! *publication* of a layout without the plex, never the end of the old one; it then ends, and only then is the old
//! layout drained.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event_listener::Event;
use parking_lot::Mutex;
use smallvec::SmallVec;
use uuid::Uuid;

use super::regions::{RegionTracker, Slot};
use crate::block_device::BlockDevice;
use crate::config::VolumeRecord;
use crate::device::Device;
use crate::error::VolumeError;
use crate::translate::{DeviceRange, Map, Region};

/// The addresses of a volume and the devices they lead to.
pub(crate) struct Layout<D> {
    pub(crate) map: Arc<Map>,
    /// By [`DeviceRange::device_index`]; `None` for one that is not there.
    devices: Vec<Option<Member<D>>>,
    /// Some device needs a coarser alignment than the volume's logical blocks have.
    pub(super) read_modify_write: bool,
    /// The plexes that take part: those that are attached.
    pub(super) plexes: SmallVec<[PlexView; 1]>,
    /// Which regions are where, once a volume has had more than one plex. Without it the volume has one plex, and
    /// operations go straight to it.
    pub(super) tracker: Option<Arc<RegionTracker<D>>>,
    /// Some plex shares extents with another one.
    pub(super) shares: bool,
    /// Given when it is published.
    pub(super) generation: Option<Generation>,
}

/// A device of a layout.
struct Member<D> {
    device: Arc<Device<D>>,
    /// The incarnation in which this layout writes to it: a flush of a later one says nothing about these writes.
    incarnation: u64,
}

/// A plex that takes part.
pub(super) struct PlexView {
    pub(super) uuid: Uuid,
    /// Its position in the map.
    pub(super) position: usize,
    /// What the tracker knows of it; `None` without a tracker.
    pub(super) slot: Option<Arc<Slot>>,
}

impl<D: BlockDevice> Layout<D> {
    /// The layout of `record` over the devices that are there. Without a tracker the volume must have one plex, attached,
    /// with all of its devices.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn new(
        record: &VolumeRecord,
        map: Map,
        devices: &BTreeMap<Uuid, Arc<Device<D>>>,
        tracker: Option<Arc<RegionTracker<D>>>,
    ) -> Result<Layout<D>, String> {
        let members: Vec<Option<Member<D>>> = map
            .data_devices()
            .iter()
            .map(|uuid| {
                devices.get(uuid).map(|device| Member {
                    device: device.clone(),
                    incarnation: device.incarnation(),
                })
            })
            .collect();
        if tracker.is_some() {
            // The thread that would wait for one of them is the one that notices that it hangs.
            for member in members.iter().flatten() {
                member.device.never_block();
            }
        }
        let mut plexes = SmallVec::new();
        for (position, plex) in record.plexes.iter().enumerate() {
            if !plex.is_attached() {
                continue;
            }
            let slot = match &tracker {
                Some(tracker) => Some(
                    tracker
                        .slot(plex.uuid)
                        .ok_or_else(|| format!("the region log does not know plex {position}"))?,
                ),
                None => None,
            };
            plexes.push(PlexView {
                uuid: plex.uuid,
                position,
                slot,
            });
        }
        if tracker.is_none() {
            if record.plexes.len() != 1 || plexes.len() != 1 {
                return Err(format!(
                    "{} plexes without a region log",
                    record.plexes.len()
                ));
            }
            if let Some(missing) = members.iter().position(Option::is_none) {
                return Err(format!("device {} is missing", map.data_devices()[missing]));
            }
        }
        if tracker
            .as_ref()
            .is_some_and(|tracker| !tracker.fits(record))
        {
            return Err("the region log is for another size".into());
        }
        if plexes.is_empty() {
            return Err("no plex is attached".into());
        }
        let block_bytes = record.block_size.bytes() as usize;
        Ok(Layout {
            read_modify_write: members
                .iter()
                .flatten()
                .any(|member| member.device.alignment_bytes() > block_bytes),
            shares: record.plexes.iter().any(|plex| plex.replaces.is_some()),
            map: Arc::new(map),
            devices: members,
            plexes,
            tracker,
            generation: None,
        })
    }

    /// The device of a range.
    ///
    /// # Errors
    /// [`VolumeError::Device`] when it is not there.
    pub(super) fn device(&self, range: &DeviceRange) -> Result<&Arc<Device<D>>, VolumeError> {
        self.member(range.device_index, range.device)
            .map(|member| &member.device)
    }

    fn member(&self, index: usize, uuid: Uuid) -> Result<&Member<D>, VolumeError> {
        match self.devices.get(index) {
            Some(Some(member)) => Ok(member),
            _ => Err(VolumeError::Device {
                device: uuid.to_string(),
                operation: "access",
                source: std::io::Error::new(std::io::ErrorKind::NotFound, "it is missing"),
            }),
        }
    }

    /// Flushes a device for what was written through this layout.
    pub(super) async fn flush_device(&self, index: usize) -> Result<(), VolumeError> {
        let uuid = self.map.devices().get(index).copied().unwrap_or_default();
        let member = self.member(index, uuid)?;
        if self.tracker.is_none() {
            return member.device.flush().await;
        }
        member.device.flush_since(member.incarnation).await
    }

    /// Operations on the devices of a plex that nobody waits for and that may still land.
    pub(super) fn abandoned(&self, position: usize) -> u64 {
        self.map
            .plex_devices(position)
            .iter()
            .filter_map(|index| self.devices.get(*index)?.as_ref())
            .map(|member| member.device.abandoned())
            .sum()
    }

    /// Any device that is there: all have the same clock.
    pub(super) fn clock(&self) -> Option<&Arc<Device<D>>> {
        self.devices.iter().flatten().map(|m| &m.device).next()
    }

    /// The public region of the only plex of a volume without a tracker.
    pub(super) fn only(&self) -> Region {
        // `new` lets no layout without an attached plex pass.
        Region::Public {
            plex: self.plexes.first().map_or(0, |plex| plex.position),
        }
    }

    /// The log of the only plex of a volume without a tracker.
    pub(super) fn log_of_only(&self) -> Region {
        Region::Log {
            plex: self.plexes.first().map_or(0, |plex| plex.position),
        }
    }

    /// The device that a plex's log is on.
    pub(super) fn log_device(&self, position: usize) -> Uuid {
        self.log_range(position)
            .map_or(Uuid::nil(), |range| range.device)
    }

    fn log_range(&self, position: usize) -> Option<DeviceRange> {
        let region = Region::Log { plex: position };
        let ranges = self.map.translate(region, 0, self.map.region_bytes(region));
        ranges.ok()?.first().copied()
    }

    /// Flushes the device that a plex's log is on.
    pub(super) async fn flush_log(&self, position: usize) -> Result<(), VolumeError> {
        match self.log_range(position) {
            Some(range) => self.flush_device(range.device_index).await,
            None => Ok(()),
        }
    }

    /// The plex with this identity, if it takes part.
    pub(super) fn plex(&self, uuid: Uuid) -> Option<&PlexView> {
        self.plexes.iter().find(|plex| plex.uuid == uuid)
    }
}

/// The layouts of a volume that are in use, by number in the order of their publication.
#[derive(Default)]
pub(super) struct Generations {
    live: Mutex<Live>,
    ended: Event,
}

#[derive(Default)]
struct Live {
    last: u64,
    numbers: BTreeSet<u64>,
}

/// The number of a published layout; the layout is in use as long as it lives.
pub(super) struct Generation {
    number: u64,
    all: Arc<Generations>,
}

impl Generations {
    /// The next number.
    pub(super) fn begin(self: &Arc<Self>) -> Generation {
        let mut live = self.live.lock();
        live.last += 1;
        let number = live.last;
        live.numbers.insert(number);
        Generation {
            number,
            all: self.clone(),
        }
    }

    /// Waits until no layout that was published before the newest one is in use; returns the number of the newest.
    pub(super) async fn drained(&self) -> u64 {
        let newest = self.live.lock().last;
        self.ended_before(newest).await;
        newest
    }

    /// Waits until no layout is in use.
    pub(super) async fn all_ended(&self) {
        self.ended_before(u64::MAX).await;
    }

    async fn ended_before(&self, number: u64) {
        loop {
            // Listen before looking, so that an end between the two is not missed.
            let listener = self.ended.listen();
            if self.live.lock().numbers.range(..number).next().is_none() {
                return;
            }
            listener.await;
        }
    }
}

impl Generation {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.all.live.lock().numbers.remove(&self.number);
        self.all.ended.notify(usize::MAX);
    }
}
