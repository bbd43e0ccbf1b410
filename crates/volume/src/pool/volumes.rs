//! Creating, deleting and growing volumes, and grants.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::open::{keys_replicas, layout_of, map_of};
use super::space::{Placement, free_maps, place, places, take_data};
use super::{CreateVolume, Inner, Pool, PoolError, check_name};
use crate::block_device::BlockDevice;
use crate::config::{
    Access, Change, Column, Config, ConfigStore, Extent, KeysReplica, Plex, PlexLayout, PlexState,
    VolumeRecord,
};
use crate::fresh_uuid::fresh_uuid;
use crate::private_region::PrivateRegion;
use crate::volume::{Volume, region_bytes_for};

/// Volume sizes are multiples of this, in bytes.
pub const SIZE_UNIT_BYTES: u64 = 4096;
/// Largest volume in bytes (1 EiB), far below what arithmetic could not hold.
pub const MAX_SIZE_BYTES: u64 = 1 << 60;
/// Number of logical unit numbers (single level addressing, SAM-5 4.7.7.2).
const LUNS: u16 = 16_384;

fn check_size(size_bytes: u64) -> Result<(), PoolError> {
    let problem = if size_bytes == 0 {
        "a volume has at least 4096 bytes"
    } else if !size_bytes.is_multiple_of(SIZE_UNIT_BYTES) {
        "the size must be a multiple of 4096"
    } else if size_bytes > MAX_SIZE_BYTES {
        "a volume has at most 1 EiB"
    } else {
        return Ok(());
    };
    Err(PoolError::InvalidSize {
        size_bytes,
        problem,
    })
}

/// The next LUN that is free, from `next` on and round.
fn free_lun(config: &Config) -> Result<u16, PoolError> {
    let used: std::collections::BTreeSet<u16> =
        config.volumes.values().map(|volume| volume.lun).collect();
    (0..LUNS)
        .map(|step| (config.pool.next_lun % LUNS + step) % LUNS)
        .find(|lun| !used.contains(lun))
        .ok_or(PoolError::NoLun)
}

/// NAA=3h (locally assigned) and 60 bits of the volume's UUID.
fn naa(uuid: Uuid) -> String {
    format!("3{:015x}", uuid.as_u128() >> 68)
}

fn store<D>(inner: &Inner<D>) -> Result<&ConfigStore<D>, PoolError> {
    inner.config.as_ref().ok_or(PoolError::NoDevice)
}

impl<D: BlockDevice> Pool<D> {
    /// Creates a volume; it reads as zeroes and nobody has a grant.
    ///
    /// # Errors
    /// [`PoolError`]; there is no such volume then.
    pub async fn volume_create(&self, request: CreateVolume) -> Result<Arc<Volume<D>>, PoolError> {
        check_name("volume", &request.name)?;
        check_size(request.size_bytes)?;
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let config = store(&inner)?.config();
        if config
            .volumes
            .values()
            .any(|volume| volume.name == request.name)
        {
            return Err(PoolError::NameTaken {
                what: "volume",
                name: request.name,
            });
        }
        let lun = free_lun(config)?;
        let on = named_or_all(&inner, config, &request.on)?;
        let keys_on = keys_devices(&inner, config, &request.keys_on)?;
        let Placement { data, keys, log } = place(config, request.size_bytes, &on, &keys_on)?;
        let uuid = fresh_uuid();
        // At most 128: more replicas than that are refused when the region is made.
        let keys_wanted = u8::try_from(keys.len()).unwrap_or(u8::MAX);
        let record = VolumeRecord {
            uuid,
            name: request.name,
            lun,
            naa: naa(uuid),
            serial: uuid.simple().to_string(),
            size_bytes: request.size_bytes,
            block_size: request.block_size,
            persist: request.persist,
            region_bytes: region_bytes_for(request.size_bytes),
            plexes: vec![Plex {
                uuid: fresh_uuid(),
                layout: PlexLayout::Linear,
                columns: vec![Column { extents: data }],
                log,
                state: PlexState::Attached,
                replaces: None,
            }],
            keys: keys
                .into_iter()
                .map(|extent| KeysReplica {
                    uuid: fresh_uuid(),
                    extent,
                })
                .collect(),
            keys_wanted,
            placement: if request.on.is_empty() {
                Vec::new()
            } else {
                on
            },
            keys_placement: keys_on,
            job: None,
            grants: BTreeMap::new(),
        };
        let mut pool = config.pool.clone();
        pool.next_lun = (lun + 1) % LUNS;
        let layout = layout_of(&inner.devices, &record, map_of(&record)?)
            .map_err(|problem| PoolError::Inconsistent { problem })?;
        // Whatever was there before must be gone before the volume exists.
        zero(&inner, record.extents()).await?;
        let replicas = keys_replicas(&inner.devices, &record, &layout.map);
        let private_region =
            PrivateRegion::create(uuid, replicas, self.boot_id, record.persist).await?;
        let changes = vec![Change::Pool(pool), Change::Volume(Box::new(record.clone()))];
        commit(&mut inner, changes).await?;
        let volume = Arc::new(Volume::new(record, layout, private_region));
        self.update_volumes(|volumes| {
            volumes.insert(lun, volume.clone());
        });
        Ok(volume)
    }

    /// Deletes a volume. The caller has stopped serving it: later operations fail, those in flight are waited for, and
    /// the space is given back to the devices.
    ///
    /// # Errors
    /// [`PoolError`]. A failure to give space back is not one: it is zeroed before it is used again.
    pub async fn volume_delete(&self, name: &str) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(name)?;
        let record = volume.record();
        commit(&mut inner, vec![Change::Remove(record.uuid)]).await?;
        self.update_volumes(|volumes| {
            volumes.remove(&record.lun);
        });
        volume.close().await;
        if let Err(error) = zero(&inner, record.extents()).await {
            tracing::warn!(volume = name, %error, "the space of a deleted volume could not be given back yet");
        }
        Ok(())
    }

    /// Makes a volume larger, online; the new bytes read as zeroes.
    ///
    /// # Errors
    /// [`PoolError`]; the volume is as before then.
    pub async fn volume_grow(&self, name: &str, size_bytes: u64) -> Result<(), PoolError> {
        check_size(size_bytes)?;
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(name)?;
        if let Some(fault) = volume.fault() {
            return Err(crate::error::VolumeError::NotServed {
                volume: name.into(),
                reason: fault,
            }
            .into());
        }
        let mut record = VolumeRecord::clone(&volume.record());
        if size_bytes <= record.size_bytes {
            return Err(PoolError::NotLarger {
                name: name.into(),
                size_bytes: record.size_bytes,
            });
        }
        let added = extend(&inner, store(&inner)?.config(), &mut record, size_bytes)?;
        let layout = layout_of(&inner.devices, &record, map_of(&record)?)
            .map_err(|problem| PoolError::Inconsistent { problem })?;
        zero(&inner, &added).await?;
        commit(&mut inner, vec![Change::Volume(Box::new(record.clone()))]).await?;
        volume.adopt(record, Some(layout));
        Ok(())
    }

    /// Sets what `initiator` (a name, or `*`) may do; `None` for a named initiator is stored too (it overrides `*`).
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn grant(
        &self,
        volume: &str,
        initiator: &str,
        access: Access,
    ) -> Result<(), PoolError> {
        let valid = (1..=223).contains(&initiator.len())
            && initiator
                .chars()
                .all(|c| !c.is_whitespace() && !c.is_control())
            && (initiator == "*" || !initiator.contains('*'));
        if !valid {
            return Err(PoolError::InvalidInitiator {
                name: initiator.into(),
            });
        }
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let volume = self.volume(volume)?;
        let mut record = VolumeRecord::clone(&volume.record());
        if initiator == "*" && access == Access::None {
            record.grants.remove("*");
        } else {
            // Names compare without case (RFC 7143 4.2.7.1).
            record.grants.insert(initiator.to_lowercase(), access);
        }
        commit(&mut inner, vec![Change::Volume(Box::new(record.clone()))]).await?;
        volume.adopt(record, None);
        Ok(())
    }
}

async fn commit<D: BlockDevice>(
    inner: &mut Inner<D>,
    changes: Vec<Change>,
) -> Result<(), PoolError> {
    let store = inner.config.as_mut().ok_or(PoolError::NoDevice)?;
    Ok(store.commit(changes).await?)
}

/// The devices named, or all that are there by name.
fn named_or_all<D: BlockDevice>(
    inner: &Inner<D>,
    config: &Config,
    names: &[String],
) -> Result<Vec<Uuid>, PoolError> {
    if names.is_empty() {
        let mut all: Vec<_> = config
            .devices
            .values()
            .filter(|record| inner.devices.contains_key(&record.uuid))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        return Ok(all.into_iter().map(|record| record.uuid).collect());
    }
    let mut uuids = Vec::new();
    for name in names {
        let uuid = device_uuid(inner, config, name)?;
        if !uuids.contains(&uuid) {
            uuids.push(uuid);
        }
    }
    Ok(uuids)
}

fn keys_devices<D: BlockDevice>(
    inner: &Inner<D>,
    config: &Config,
    names: &[String],
) -> Result<Vec<Uuid>, PoolError> {
    let mut uuids = Vec::new();
    for name in names {
        let uuid = device_uuid(inner, config, name)?;
        if uuids.contains(&uuid) {
            return Err(PoolError::KeysTwice { name: name.clone() });
        }
        uuids.push(uuid);
    }
    Ok(uuids)
}

fn device_uuid<D: BlockDevice>(
    inner: &Inner<D>,
    config: &Config,
    name: &str,
) -> Result<Uuid, PoolError> {
    Ok(inner.device_by_name(config, name)?.uuid())
}

/// Zeroes extents and makes that durable.
async fn zero<'a, D: BlockDevice>(
    inner: &Inner<D>,
    extents: impl IntoIterator<Item = &'a Extent>,
) -> Result<(), PoolError> {
    let mut touched = BTreeMap::new();
    for extent in extents {
        if let Some(device) = inner.devices.get(&extent.device) {
            device
                .write_zeroes(extent.offset_bytes, extent.length_bytes, true)
                .await?;
            touched.insert(extent.device, device.clone());
        }
    }
    for device in touched.values() {
        device.flush().await?;
    }
    Ok(())
}

/// Gives `record` extents for `size_bytes`: the rest of the last one, then what is free right behind it, then new ones,
/// on devices that it is on already first. Returns what was added.
fn extend<D: BlockDevice>(
    inner: &Inner<D>,
    config: &Config,
    record: &mut VolumeRecord,
    size_bytes: u64,
) -> Result<Vec<Extent>, PoolError> {
    let mut maps = free_maps(config)?;
    let mut order: Vec<Uuid> = Vec::new();
    let all = named_or_all(inner, config, &[])?;
    let column = record
        .plexes
        .first_mut()
        .and_then(|plex| plex.columns.first_mut())
        .ok_or_else(|| PoolError::Inconsistent {
            problem: format!("volume {} has no column", record.name),
        })?;
    for device in column.extents.iter().map(|extent| extent.device).chain(all) {
        if !order.contains(&device) {
            order.push(device);
        }
    }
    let backed: u64 = column
        .extents
        .iter()
        .map(|extent| extent.length_bytes)
        .sum();
    let mut need = size_bytes.saturating_sub(backed);
    let mut added = Vec::new();
    if need > 0
        && let Some(last) = column.extents.last_mut()
        && let Some(run) = maps
            .get_mut(&last.device)
            .and_then(|map| map.take_data_at(last.offset_bytes + last.length_bytes, need))
    {
        last.length_bytes += run.length_bytes;
        need = need.saturating_sub(run.length_bytes);
        added.push(Extent {
            device: last.device,
            offset_bytes: run.offset_bytes,
            length_bytes: run.length_bytes,
        });
    }
    let new = take_data(&mut maps, need, &order).ok_or_else(|| PoolError::NoSpace {
        what: "the new part of the volume",
        needed_bytes: size_bytes - record.size_bytes,
        places: free_maps(config)
            .map(|maps| places(config, &maps, &order))
            .unwrap_or_default(),
    })?;
    column.extents.extend(&new);
    added.extend(new);
    record.size_bytes = size_bytes;
    Ok(added)
}
