//! Growing volumes of any layout, online.
//!
//! Every plex gets its new extents, they are zeroed without the pool's lock, and one commit makes all of them count. If
//! the plexes have changed meanwhile (a job began or ended), it is done again.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::open::map_of;
use super::placement::{Placing, column_bytes};
use super::space::Reserved;
use super::volumes::check_size;
use super::zeroing::zero;
use super::{Inner, Pool, PoolError};
use crate::allocator::DATA_UNIT_BYTES;
use crate::block_device::BlockDevice;
use crate::config::{Change, Extent, JobKind, Plex, PlexLayout, VolumeRecord};
use crate::device::Device;
use crate::translate::{Map, Region, capacity_bytes};
use crate::volume::regions::MAX_REGIONS;

/// New extents of every plex of a volume, not committed.
pub(super) struct Grown {
    pub(super) record: VolumeRecord,
    reserved: Reserved,
    /// What is zeroed of the extents it has: from its size to their end. Held too, so that nobody gets them meanwhile.
    tail: Reserved,
    /// Everything to be zeroed.
    zero: Vec<Extent>,
}

/// A volume that grows: no one else grows it as long as this lives.
struct Alone<'a> {
    growing: &'a Mutex<BTreeSet<Uuid>>,
    volume: Uuid,
}

impl<'a> Alone<'a> {
    /// `None` while there is another one of the volume.
    fn of(growing: &'a Mutex<BTreeSet<Uuid>>, volume: Uuid) -> Option<Alone<'a>> {
        let is_first = growing.lock().insert(volume);
        is_first.then(|| Alone { growing, volume })
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.growing.lock().remove(&self.volume);
    }
}

impl<D: BlockDevice> Pool<D> {
    /// Makes a volume larger, online; the new bytes read as zeroes. Plexes that are detached grow too, and their new part
    /// is stale.
    ///
    /// # Errors
    /// [`PoolError`]; the volume is as before then.
    pub async fn volume_grow(&self, name: &str, size_bytes: u64) -> Result<(), PoolError> {
        check_size(size_bytes)?;
        // Zeroes of one that is overtaken would land on what another has made room for.
        let uuid = self.volume(name)?.uuid();
        let _alone = Alone::of(&self.growing, uuid)
            .ok_or_else(|| PoolError::Growing { name: name.into() })?;
        self.grow_alone(name, size_bytes).await
    }

    async fn grow_alone(&self, name: &str, size_bytes: u64) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        loop {
            self.settle(&mut inner).await?;
            let volume = self.volume(name)?;
            if let Some(fault) = volume.fault() {
                return Err(crate::error::VolumeError::NotServed {
                    volume: name.into(),
                    reason: fault,
                }
                .into());
            }
            let before = volume.record();
            if size_bytes <= before.size_bytes {
                return Err(PoolError::NotLarger {
                    name: name.into(),
                    size_bytes: before.size_bytes,
                });
            }
            let grown = grow(&inner, &before, size_bytes)?;
            // A detached plex may grow on a device that is away: its new part is stale and not believed.
            for extent in &grown.zero {
                if is_attached_on(&grown.record, extent.device) {
                    inner.check_usable(extent.device)?;
                }
            }
            let zeroed: Vec<(Arc<Device<D>>, Extent)> = inner.on_devices(
                grown
                    .zero
                    .iter()
                    .copied()
                    .filter(|extent| inner.is_usable(extent.device)),
            );
            drop(inner);
            let done = zero(&zeroed).await;
            // From here on no plex is detached, attached or retired; zeroes took too long to keep them waiting.
            let plexes = self.keeper.plexes(before.uuid);
            let _plexes = plexes.lock().await;
            inner = self.inner.lock().await;
            if let Err(error) = done {
                grown.reserved.freed();
                return Err(error);
            }
            self.settle(&mut inner).await?;
            // It may have been deleted meanwhile, or be served through another object.
            let Some(now) = inner.config()?.volumes.get(&before.uuid).cloned() else {
                grown.reserved.freed();
                return Err(PoolError::NoSuchVolume { name: name.into() });
            };
            let volume = self.volume(&now.name)?;
            if !same_extents(&before, &now) {
                grown.reserved.freed();
                continue;
            }
            // What else may have changed meanwhile: grants, states of plexes, the name.
            let mut record = now;
            record.size_bytes = size_bytes;
            record.region_bytes = grown.record.region_bytes;
            for (plex, grown) in record.plexes.iter_mut().zip(grown.record.plexes) {
                plex.columns = grown.columns;
            }
            let unchanged = |problem: String| PoolError::Inconsistent { problem };
            let growing = volume.begin_grow(&record).await;
            let growing = growing.map_err(|error| unchanged(error.to_string()))?;
            let committed = async {
                let layout = volume.prepare_layout(&record, &inner.devices);
                let layout = layout.map_err(unchanged)?;
                let change = Change::Volume(Box::new(record.clone()));
                inner.commit(vec![change]).await?;
                Ok::<_, PoolError>(layout)
            }
            .await;
            let layout = match committed {
                Ok(layout) => layout,
                Err(error) => {
                    // Where the outcome is not known it is settled first: the logs must have the size that the record has.
                    let settled = self.settle(&mut inner).await;
                    let found = inner
                        .config()
                        .map(|config| config.volumes.get(&before.uuid));
                    if settled.is_ok() && matches!(found, Ok(Some(found)) if *found == record) {
                        drop(growing);
                        return Ok(());
                    }
                    if let Err(error) = volume.cancel_grow(growing).await {
                        tracing::warn!(volume = name, %error, "the region log has two sizes");
                    }
                    return Err(error);
                }
            };
            grown.reserved.committed();
            grown.tail.committed();
            volume.adopt(record, Some(layout));
            drop(growing);
            return Ok(());
        }
    }
}

/// Whether a device holds anything of a plex that is believed.
fn is_attached_on(record: &VolumeRecord, device: Uuid) -> bool {
    let mut attached = record.plexes.iter().filter(|plex| plex.is_attached());
    attached.any(|plex| plex.is_on(device))
}

/// Whether two records have the same plexes in the same places, and the same size.
fn same_extents(a: &VolumeRecord, b: &VolumeRecord) -> bool {
    a.size_bytes == b.size_bytes
        && a.region_bytes == b.region_bytes
        && a.job.as_ref().map(|job| job.uuid) == b.job.as_ref().map(|job| job.uuid)
        && a.plexes.len() == b.plexes.len()
        && a.plexes.iter().zip(&b.plexes).all(|(a, b)| {
            (a.uuid, &a.columns, a.is_attached()) == (b.uuid, &b.columns, b.is_attached())
        })
}

pub(super) fn grow<D: BlockDevice>(
    inner: &Inner<D>,
    before: &VolumeRecord,
    size_bytes: u64,
) -> Result<Grown, PoolError> {
    let mut record = before.clone();
    record.size_bytes = size_bytes;
    // A region becomes larger when there would be too many.
    while size_bytes.div_ceil(record.region_bytes) > u64::from(MAX_REGIONS) {
        record.region_bytes *= 2;
    }
    let mut placing = inner.placing()?;
    for index in 0..record.plexes.len() {
        let plex = &record.plexes[index];
        // The same extents serve a plex and the one that will take its place.
        let twin = before.plexes.iter().position(|other| {
            other.replaces == Some(plex.uuid) || plex.replaces == Some(other.uuid)
        });
        if let Some(twin) = twin.filter(|twin| *twin < index) {
            let added = added(&before.plexes[twin], &record.plexes[twin]);
            for (column, added) in record.plexes[index].columns.iter_mut().zip(added) {
                column.extents.extend(added);
            }
            continue;
        }
        let avoid = avoided(before, index);
        let order = order(inner, before, index, twin)?;
        if !plex.is_attached() {
            placing.allow(plex.extents().map(|extent| extent.device));
        }
        let plex = &mut record.plexes[index];
        grow_plex(
            &mut placing,
            plex,
            size_bytes,
            twin.is_none(),
            &order,
            &avoid,
        )?;
    }
    let tail = tail(before, size_bytes)?;
    let mut zero: Vec<Extent> = tail.clone();
    let reserved = placing.finish();
    zero.extend(reserved.extents());
    let held = before.plexes.iter().flat_map(Plex::extents);
    let held = held
        .filter(|extent| {
            tail.iter().any(|tail| {
                tail.device == extent.device
                    && tail.offset_bytes < extent.offset_bytes + extent.length_bytes
                    && extent.offset_bytes < tail.offset_bytes + tail.length_bytes
            })
        })
        .copied()
        .collect();
    Ok(Grown {
        record,
        reserved,
        tail: inner.space.hold(held),
        zero,
    })
}

/// The extents that `now` has at the end of each column beyond those of `before`.
fn added(before: &Plex, now: &Plex) -> Vec<Vec<Extent>> {
    now.columns
        .iter()
        .zip(&before.columns)
        .map(|(now, before)| now.extents[before.extents.len()..].to_vec())
        .collect()
}

/// Devices that a plex must not grow on: those of the plexes that it is to be independent of, and one that is being
/// emptied.
fn avoided(record: &VolumeRecord, index: usize) -> BTreeSet<Uuid> {
    let plex = &record.plexes[index];
    let mut avoid = BTreeSet::new();
    let job = record.job.as_ref();
    // What a job fills and what it retires are never there together when it is done.
    let apart = |a: &Plex, b: &Plex| {
        job.is_some_and(|job| job.fresh.contains(&a.uuid) && job.retire.contains(&b.uuid))
    };
    for (other, theirs) in record.plexes.iter().enumerate() {
        if other != index && !apart(plex, theirs) && !apart(theirs, plex) {
            avoid.extend(theirs.extents().map(|extent| extent.device));
        }
    }
    if let Some(JobKind::Evacuate { device } | JobKind::Replace { old: device, .. }) =
        job.map(|job| &job.kind)
    {
        avoid.insert(*device);
    }
    avoid
}

/// Where a plex grows first: its own devices, then the others that the volume may be on.
fn order<D: BlockDevice>(
    inner: &Inner<D>,
    record: &VolumeRecord,
    index: usize,
    twin: Option<usize>,
) -> Result<Vec<Uuid>, PoolError> {
    let plex = &record.plexes[index];
    let job = record.job.as_ref();
    let fresh = job.is_some_and(|job| job.fresh.contains(&plex.uuid));
    let placement = match job {
        Some(job) if fresh || twin.is_some() => &job.placement,
        _ => &record.placement,
    };
    let mut order: Vec<Uuid> = plex
        .columns
        .iter()
        .flat_map(|column| column.extents.iter().rev())
        .map(|extent| extent.device)
        .filter(|device| placement.is_empty() || placement.contains(device))
        .collect();
    order.extend(inner.data_devices(placement)?);
    Ok(order)
}

fn grow_plex(
    placing: &mut Placing<'_>,
    plex: &mut Plex,
    size_bytes: u64,
    in_place: bool,
    order: &[Uuid],
    avoid: &BTreeSet<Uuid>,
) -> Result<(), PoolError> {
    let count = plex.columns.len();
    let target = match plex.layout {
        PlexLayout::Linear => size_bytes.next_multiple_of(DATA_UNIT_BYTES),
        PlexLayout::Striped { stripe_unit_bytes } => {
            column_bytes(size_bytes, count, stripe_unit_bytes).ok_or(PoolError::InvalidSize {
                size_bytes,
                problem: "the columns would have more bytes than can be counted",
            })?
        }
    };
    for index in 0..count {
        let column = &plex.columns[index];
        let length: u64 = column
            .extents
            .iter()
            .map(|extent| extent.length_bytes)
            .sum();
        let need = target.saturating_sub(length);
        if need == 0 {
            continue;
        }
        let last = column.extents.last().copied();
        // A column keeps to its device, then takes one that no other column is on, then any.
        let others: BTreeSet<Uuid> = plex
            .columns
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .flat_map(|(_, column)| &column.extents)
            .map(|extent| extent.device)
            .collect();
        let own = last.map(|extent| extent.device);
        let (shared, alone): (Vec<Uuid>, Vec<Uuid>) = own
            .into_iter()
            .chain(order.iter().copied())
            .partition(|device| others.contains(device));
        let (own, rest): (Vec<Uuid>, Vec<Uuid>) =
            alone.into_iter().partition(|device| Some(*device) == own);
        let order: Vec<Uuid> = own.into_iter().chain(rest).chain(shared).collect();
        let (longer, new) = placing.more(last, in_place, &order, avoid, need)?;
        let column = &mut plex.columns[index];
        if let (Some(longer), Some(last)) = (longer, column.extents.last_mut()) {
            last.length_bytes += longer.length_bytes;
        }
        column.extents.extend(new);
    }
    Ok(())
}

/// What the plexes have past the end of the volume: no job filled it and no write reached it, so it may hold anything.
fn tail(record: &VolumeRecord, size_bytes: u64) -> Result<Vec<Extent>, PoolError> {
    let mut tail = Vec::new();
    for (index, plex) in record.plexes.iter().enumerate() {
        let lengths = plex.columns.iter().map(|column| {
            column
                .extents
                .iter()
                .map(|extent| extent.length_bytes)
                .sum()
        });
        let backed = capacity_bytes(plex.layout, lengths)
            .unwrap_or(0)
            .min(size_bytes);
        if backed <= record.size_bytes {
            continue;
        }
        let mut alone = record.clone();
        alone.size_bytes = backed;
        alone.plexes = vec![Plex {
            replaces: None,
            ..record.plexes[index].clone()
        }];
        let map: Map = map_of(&alone)?;
        let ranges = map.translate(
            Region::Public { plex: 0 },
            record.size_bytes,
            backed - record.size_bytes,
        )?;
        tail.extend(ranges.iter().map(|range| Extent {
            device: range.device,
            offset_bytes: range.device_offset_bytes,
            length_bytes: range.length_bytes,
        }));
    }
    Ok(tail)
}
