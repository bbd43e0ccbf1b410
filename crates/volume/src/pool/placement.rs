//! Where new extents go: plexes, replacements of a part of one, and replicas of a private region.
//!
//! Rules: plexes of a volume never share a device (the caller names those of the others in `avoid`); columns of a stripe
//! are on different devices; nothing goes to a device that is missing, failed or has operations that were given up; a
//! witness gets replicas of private regions only.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::space::{Reserved, Taking, places};
use super::{DEFAULT_STRIPE_UNIT_BYTES, Inner, LayoutRequest, MAX_COLUMNS, PoolError};
use crate::allocator::DATA_UNIT_BYTES;
use crate::block_device::BlockDevice;
use crate::config::{Column, Config, DeviceRole, Extent, KeysReplica, Plex, PlexLayout, PlexState};
use crate::fresh_uuid::fresh_uuid;
use crate::private_region::MIN_REGION_BYTES;
use crate::translate::STRIPE_UNIT_BYTES;
use crate::volume::PLEX_LOG_BYTES;

/// The extents of each column, and the log's.
type ColumnsAndLog = (Vec<Vec<Extent>>, Extent);

/// A plex to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlexRequest<'a> {
    /// Size of the volume in bytes.
    pub(super) size_bytes: u64,
    /// Without a number of columns: as many as can be had.
    pub(super) layout: LayoutRequest,
    /// The devices it may be on, the preferred ones first.
    pub(super) on: &'a [Uuid],
    /// Devices that it may not be on: those of the other plexes.
    pub(super) avoid: &'a BTreeSet<Uuid>,
}

/// How many replicas of a private region there should be, where there are `available` devices for them: those that are
/// wanted, else the largest odd number, since a second of two only adds a way to lose the quorum.
pub(super) fn keys_goal(wanted: usize, available: usize) -> usize {
    if available >= wanted {
        wanted
    } else {
        available - usize::from(available > 0 && available.is_multiple_of(2))
    }
}

/// Checks what does not depend on devices.
///
/// # Errors
/// [`PoolError::InvalidLayout`].
pub(super) fn check_layout(layout: LayoutRequest) -> Result<(), PoolError> {
    let LayoutRequest::Striped {
        columns,
        stripe_unit_bytes,
    } = layout
    else {
        return Ok(());
    };
    let invalid = |problem: String| Err(PoolError::InvalidLayout { problem });
    if let Some(columns) = columns
        && !(2..=MAX_COLUMNS).contains(&columns)
    {
        return invalid(format!(
            "{columns} columns: a stripe has 2 to {MAX_COLUMNS}"
        ));
    }
    if let Some(unit) = stripe_unit_bytes
        && (!unit.is_power_of_two() || !STRIPE_UNIT_BYTES.contains(&unit))
    {
        return invalid(format!(
            "a stripe unit of {unit} bytes: it is a power of two from 4 KiB to 16 MiB"
        ));
    }
    Ok(())
}

/// Bytes of each column of a striped plex, whole data units; `None` when they cannot be counted.
pub(super) fn column_bytes(size_bytes: u64, columns: usize, unit_bytes: u64) -> Option<u64> {
    size_bytes
        .div_ceil(unit_bytes)
        .div_ceil(columns as u64)
        .checked_mul(unit_bytes)?
        .checked_next_multiple_of(DATA_UNIT_BYTES)
}

/// Extents being placed; what was placed is given back when this is dropped.
pub(super) struct Placing<'a> {
    config: &'a Config,
    /// Devices that can be used, for data or not.
    usable: BTreeSet<Uuid>,
    taking: Taking,
    space: &'a super::space::Space,
}

impl<D: BlockDevice> Inner<D> {
    /// Whether something new may be put on a device: it is there, in health, and nothing that was given up may still
    /// land on it.
    pub(super) fn is_usable(&self, device: Uuid) -> bool {
        self.check_usable(device).is_ok()
    }

    /// Begins to place extents.
    ///
    /// # Errors
    /// [`PoolError::NoDevice`].
    pub(super) fn placing(&self) -> Result<Placing<'_>, PoolError> {
        let config = self.config.as_ref().ok_or(PoolError::NoDevice)?.config();
        Ok(Placing {
            config,
            usable: config
                .devices
                .keys()
                .copied()
                .filter(|uuid| self.is_usable(*uuid))
                .collect(),
            taking: self.space.take(),
            space: &self.space,
        })
    }

    /// Devices that new data may go to: `placement` in its order, or all, the emptiest first; none that is closed.
    ///
    /// # Errors
    /// [`PoolError::NoDevice`], [`PoolError::Inconsistent`].
    pub(super) fn data_devices(&self, placement: &[Uuid]) -> Result<Vec<Uuid>, PoolError> {
        let config = self.config.as_ref().ok_or(PoolError::NoDevice)?.config();
        let can = |uuid: &Uuid| {
            let record = config.devices.get(uuid);
            record.is_some_and(|record| record.role == DeviceRole::Data && !record.closed)
                && self.is_usable(*uuid)
        };
        if !placement.is_empty() {
            return Ok(placement.iter().copied().filter(can).collect());
        }
        let free = self.space.free_bytes(config)?;
        let mut all: Vec<_> = config
            .devices
            .values()
            .filter(|record| can(&record.uuid))
            .map(|record| {
                let free = free.get(&record.uuid).copied().unwrap_or_default();
                (std::cmp::Reverse(free.for_data), &record.name, record.uuid)
            })
            .collect();
        all.sort();
        Ok(all.into_iter().map(|(_, _, uuid)| uuid).collect())
    }

    /// Devices that replicas of a private region may go to: `placement` in its order; or `first`, then the other data
    /// devices, then witnesses; none that is closed.
    ///
    /// # Errors
    /// [`PoolError::NoDevice`], [`PoolError::Inconsistent`].
    pub(super) fn keys_devices(
        &self,
        placement: &[Uuid],
        first: &[Uuid],
    ) -> Result<Vec<Uuid>, PoolError> {
        self.keys_devices_and(placement, first, &[])
    }

    /// As [`Inner::keys_devices`], but that those that an operator has just named may be closed.
    ///
    /// # Errors
    /// As of [`Inner::keys_devices`].
    pub(super) fn keys_devices_and(
        &self,
        placement: &[Uuid],
        first: &[Uuid],
        named: &[Uuid],
    ) -> Result<Vec<Uuid>, PoolError> {
        let config = self.config.as_ref().ok_or(PoolError::NoDevice)?.config();
        let witnesses = config
            .devices
            .values()
            .filter(|record| record.role == DeviceRole::Witness)
            .map(|record| record.uuid);
        let mut order: Vec<Uuid> = if placement.is_empty() {
            let others = self.data_devices(&[])?;
            first
                .iter()
                .copied()
                .chain(others)
                .chain(witnesses)
                .collect()
        } else {
            placement.to_vec()
        };
        let mut seen = BTreeSet::new();
        let is_open = |uuid: &Uuid| {
            config
                .devices
                .get(uuid)
                .is_some_and(|record| !record.closed)
        };
        order.retain(|uuid| {
            (is_open(uuid) || named.contains(uuid)) && self.is_usable(*uuid) && seen.insert(*uuid)
        });
        Ok(order)
    }
}

impl Placing<'_> {
    /// Keeps what was placed.
    pub(super) fn finish(self) -> Reserved {
        self.taking.finish()
    }

    /// Lets extents go to devices that cannot be used now: for plexes of which nothing is believed.
    pub(super) fn allow(&mut self, devices: impl IntoIterator<Item = Uuid>) {
        self.usable.extend(devices);
    }

    /// Gives back what `place` took when it fails.
    fn attempt<T>(
        &mut self,
        place: impl FnOnce(&mut Self) -> Result<Option<T>, PoolError>,
    ) -> Result<Option<T>, PoolError> {
        let mark = self.taking.mark();
        let placed = place(self);
        if !matches!(placed, Ok(Some(_))) {
            self.taking.back_to(mark);
        }
        placed
    }

    /// All of several placements or nothing.
    ///
    /// # Errors
    /// That of `place`.
    pub(super) fn together<T>(
        &mut self,
        place: impl FnOnce(&mut Self) -> Result<T, PoolError>,
    ) -> Result<T, PoolError> {
        let mark = self.taking.mark();
        let placed = place(self);
        if placed.is_err() {
            self.taking.back_to(mark);
        }
        placed
    }

    /// Those of `devices` that data may go to, without `avoid`.
    fn candidates(&self, devices: &[Uuid], avoid: &BTreeSet<Uuid>) -> Vec<Uuid> {
        let mut seen = BTreeSet::new();
        devices
            .iter()
            .copied()
            .filter(|uuid| {
                let record = self.config.devices.get(uuid);
                record.is_some_and(|record| record.role == DeviceRole::Data)
                    && self.usable.contains(uuid)
                    && !avoid.contains(uuid)
                    && seen.insert(*uuid)
            })
            .collect()
    }

    fn no_space(&self, what: &'static str, needed_bytes: u64, devices: &[Uuid]) -> PoolError {
        match self.space.free_bytes(self.config) {
            Ok(free) => PoolError::NoSpace {
                what,
                needed_bytes,
                places: places(self.config, &free, devices),
            },
            Err(error) => error,
        }
    }

    /// Exactly `length_bytes` (rounded up) of one device, in one or more extents.
    fn column(
        &mut self,
        device: Uuid,
        length_bytes: u64,
    ) -> Result<Option<Vec<Extent>>, PoolError> {
        self.spread(&[device], length_bytes)
    }

    /// Exactly `length_bytes` (rounded up) of `devices`, in that order.
    fn spread(
        &mut self,
        devices: &[Uuid],
        length_bytes: u64,
    ) -> Result<Option<Vec<Extent>>, PoolError> {
        self.attempt(|this| {
            let mut need = length_bytes;
            let mut extents = Vec::new();
            for device in devices {
                if need == 0 {
                    break;
                }
                for extent in this.taking.data(this.config, *device, need)? {
                    need = need.saturating_sub(extent.length_bytes);
                    extents.push(extent);
                }
            }
            Ok((need == 0).then_some(extents))
        })
    }

    fn private(&mut self, device: Uuid, length_bytes: u64) -> Result<Option<Extent>, PoolError> {
        self.taking.private(self.config, device, length_bytes)
    }

    /// A new plex.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`], [`PoolError::TooFewDevices`].
    pub(super) fn plex(&mut self, request: &PlexRequest<'_>) -> Result<Plex, PoolError> {
        check_layout(request.layout)?;
        let candidates = self.candidates(request.on, request.avoid);
        let (layout, placed) = match request.layout {
            LayoutRequest::Linear if candidates.is_empty() => {
                return Err(PoolError::TooFewDevices {
                    what: "a copy of the volume".into(),
                    needed: 1,
                    available: 0,
                });
            }
            LayoutRequest::Linear => {
                let placed = self.linear(request.size_bytes, &candidates)?;
                (PlexLayout::Linear, placed)
            }
            LayoutRequest::Striped {
                columns,
                stripe_unit_bytes,
            } => {
                let needed = columns.unwrap_or(2);
                if candidates.len() < needed {
                    return Err(PoolError::TooFewDevices {
                        what: format!("a stripe of {needed} columns"),
                        needed,
                        available: candidates.len(),
                    });
                }
                let unit = stripe_unit_bytes.unwrap_or(DEFAULT_STRIPE_UNIT_BYTES);
                let most = columns.unwrap_or(candidates.len().min(MAX_COLUMNS));
                let mut placed = None;
                for count in (needed..=most).rev() {
                    placed = self.attempt(|this| {
                        this.striped(request.size_bytes, count, unit, &candidates)
                    })?;
                    if placed.is_some() {
                        break;
                    }
                }
                let layout = PlexLayout::Striped {
                    stripe_unit_bytes: unit,
                };
                (layout, placed)
            }
        };
        let Some((columns, log)) = placed else {
            let needed = request.size_bytes.saturating_add(PLEX_LOG_BYTES);
            return Err(self.no_space("a copy of the volume with its log", needed, &candidates));
        };
        Ok(Plex {
            uuid: fresh_uuid(),
            layout,
            columns: columns
                .into_iter()
                .map(|extents| Column { extents })
                .collect(),
            log,
            state: PlexState::Attached,
            replaces: None,
        })
    }

    /// On one device if one has room for all of it, else over several in the order given.
    fn linear(
        &mut self,
        size_bytes: u64,
        candidates: &[Uuid],
    ) -> Result<Option<ColumnsAndLog>, PoolError> {
        for alone in [true, false] {
            for home in candidates {
                let others = candidates.iter().filter(|device| !alone && *device != home);
                let order: Vec<Uuid> = std::iter::once(home).chain(others).copied().collect();
                let placed = self.attempt(|this| {
                    let Some(log) = this.private(*home, PLEX_LOG_BYTES)? else {
                        return Ok(None);
                    };
                    let data = this.spread(&order, size_bytes)?;
                    Ok(data.map(|data| (vec![data], log)))
                })?;
                if placed.is_some() {
                    return Ok(placed);
                }
            }
        }
        Ok(None)
    }

    /// On the first `count` devices that have room for a column.
    fn striped(
        &mut self,
        size_bytes: u64,
        count: usize,
        unit_bytes: u64,
        candidates: &[Uuid],
    ) -> Result<Option<ColumnsAndLog>, PoolError> {
        let Some(length) = column_bytes(size_bytes, count, unit_bytes) else {
            return Ok(None);
        };
        let mut log = None;
        let mut columns = Vec::new();
        for device in candidates {
            if columns.len() == count {
                break;
            }
            if log.is_none() {
                let both = self.attempt(|this| {
                    let Some(log) = this.private(*device, PLEX_LOG_BYTES)? else {
                        return Ok(None);
                    };
                    Ok(this.column(*device, length)?.map(|column| (column, log)))
                })?;
                if let Some((column, taken)) = both {
                    log = Some(taken);
                    columns.push(column);
                    continue;
                }
            }
            columns.extend(self.column(*device, length)?);
        }
        Ok(log
            .filter(|_| columns.len() == count)
            .map(|log| (columns, log)))
    }

    /// A plex that takes the place of `old` without its extents on `from`: those are new, the others shared. Its log is
    /// its own. A column goes to a device without another one where there is one.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`].
    pub(super) fn replacement(
        &mut self,
        old: &Plex,
        from: Uuid,
        to: &[Uuid],
        avoid: &BTreeSet<Uuid>,
    ) -> Result<Plex, PoolError> {
        let mut avoid = avoid.clone();
        avoid.insert(from);
        let candidates = self.candidates(to, &avoid);
        let stays = |device: Uuid| device != from && old.is_on(device);
        let (rest, first): (Vec<Uuid>, Vec<Uuid>) =
            candidates.iter().partition(|device| stays(**device));
        let mut unused = first;
        let mut columns = Vec::with_capacity(old.columns.len());
        let mut moved = Vec::new();
        for column in &old.columns {
            let length: u64 = column
                .extents
                .iter()
                .filter(|extent| extent.device == from)
                .map(|extent| extent.length_bytes)
                .sum();
            // All that moves of a column goes to one device if one has the room.
            let mut homes: Vec<Vec<Uuid>> = Vec::new();
            homes.extend(unused.iter().map(|device| vec![*device]));
            if old.columns.len() == 1 {
                homes.extend(rest.iter().map(|device| vec![*device]));
            }
            homes.push(unused.clone());
            homes.push(candidates.clone());
            let mut placed = None;
            for home in homes {
                placed = self.attempt(|this| this.moved_column(column, from, &home))?;
                if placed.is_some() {
                    break;
                }
            }
            let Some(extents) = placed else {
                return Err(self.no_space("what is to be moved", length, &candidates));
            };
            if old.columns.len() > 1 {
                let used: BTreeSet<Uuid> = extents.iter().map(|extent| extent.device).collect();
                unused.retain(|device| !used.contains(device));
            }
            moved.extend(
                extents
                    .iter()
                    .filter(|extent| candidates.contains(&extent.device))
                    .map(|extent| extent.device),
            );
            columns.push(Column { extents });
        }
        let own = columns
            .iter()
            .flat_map(|column| &column.extents)
            .map(|extent| extent.device);
        let homes: Vec<Uuid> = moved.iter().copied().chain(own).collect();
        let homes = self.candidates(&homes, &avoid);
        let mut log = None;
        for device in &homes {
            log = self.private(*device, PLEX_LOG_BYTES)?;
            if log.is_some() {
                break;
            }
        }
        let log = log.ok_or_else(|| self.no_space("the log of a copy", PLEX_LOG_BYTES, &homes))?;
        Ok(Plex {
            uuid: fresh_uuid(),
            layout: old.layout,
            columns,
            log,
            state: PlexState::Attached,
            replaces: Some(old.uuid),
        })
    }

    /// The extents of a column with those on `from` put on `home`, each as long as before.
    fn moved_column(
        &mut self,
        column: &Column,
        from: Uuid,
        home: &[Uuid],
    ) -> Result<Option<Vec<Extent>>, PoolError> {
        let mut extents = Vec::with_capacity(column.extents.len());
        for extent in &column.extents {
            if extent.device == from {
                let Some(new) = self.spread(home, extent.length_bytes)? else {
                    return Ok(None);
                };
                extents.extend(new);
            } else {
                extents.push(*extent);
            }
        }
        Ok(Some(extents))
    }

    /// A new replica of a private region, on the first of `on` that is not in `avoid` and has room.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`].
    pub(super) fn keys(
        &mut self,
        on: &[Uuid],
        avoid: &BTreeSet<Uuid>,
    ) -> Result<KeysReplica, PoolError> {
        let candidates: Vec<Uuid> = on
            .iter()
            .copied()
            .filter(|uuid| self.usable.contains(uuid) && !avoid.contains(uuid))
            .collect();
        for device in &candidates {
            if let Some(extent) = self.private(*device, MIN_REGION_BYTES)? {
                return Ok(KeysReplica {
                    uuid: fresh_uuid(),
                    extent,
                });
            }
        }
        Err(self.no_space("a private region", MIN_REGION_BYTES, &candidates))
    }

    /// More for the end of a column whose last extent is `last`: right behind it where `in_place` allows and there is
    /// room, then on `devices` in their order. The first is the part that makes `last` longer.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`].
    pub(super) fn more(
        &mut self,
        last: Option<Extent>,
        in_place: bool,
        devices: &[Uuid],
        avoid: &BTreeSet<Uuid>,
        length_bytes: u64,
    ) -> Result<(Option<Extent>, Vec<Extent>), PoolError> {
        let candidates = self.candidates(devices, avoid);
        let placed = self.attempt(|this| {
            let mut need = length_bytes;
            let mut longer = None;
            if let Some(last) = last
                && in_place
                && candidates.contains(&last.device)
                && let Some(end) = last.offset_bytes.checked_add(last.length_bytes)
            {
                longer = this.taking.data_at(this.config, last.device, end, need)?;
                need = need.saturating_sub(longer.map_or(0, |extent| extent.length_bytes));
            }
            let new = this.spread(&candidates, need)?;
            Ok(new.map(|new| (longer, new)))
        })?;
        placed.ok_or_else(|| self.no_space("the new part of the volume", length_bytes, &candidates))
    }
}
