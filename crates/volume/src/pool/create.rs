//! Creating volumes.
//!
//! Under the pool's lock the extents are taken and held, and the name and LUN are set aside. Without it they are zeroed
//! and the private region is made. With it again, one commit makes the volume.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::open::{keys_replicas, map_of};
use super::placement::{PlexRequest, check_layout, keys_goal};
use super::space::Reserved;
use super::volumes::{LUNS, check_size};
use super::zeroing::zero;
use super::{
    CreateVolume, DEFAULT_KEYS_REPLICAS, Inner, LayoutRequest, Pool, PoolError, check_name,
};
use crate::block_device::BlockDevice;
use crate::config::{Change, DeviceRole, KeysReplica, MAX_PLEXES, Plex, VolumeRecord};
use crate::fresh_uuid::fresh_uuid;
use crate::page_store::MAX_MEMBERS;
use crate::private_region::PrivateRegion;
use crate::volume::regions::RegionTracker;
use crate::volume::{Layout, Volume, region_bytes_for};

/// NAA=3h (locally assigned) and 60 bits of the volume's UUID.
fn naa(uuid: Uuid) -> String {
    format!("3{:015x}", uuid.as_u128() >> 68)
}

/// Most plexes that a volume is created with, so that there is room for those of a job.
const MAX_MIRRORS: usize = MAX_PLEXES / 2;

fn check_request(request: &CreateVolume) -> Result<(), PoolError> {
    check_name("volume", &request.name)?;
    check_size(request.size_bytes)?;
    check_layout(request.layout)?;
    let problem = if request.mirrors > MAX_MIRRORS {
        format!(
            "{} copies: a volume has 1 to {MAX_MIRRORS}",
            request.mirrors
        )
    } else if request.keys_on.len() > MAX_MEMBERS {
        format!(
            "{} replicas of the private region: it has 1 to {MAX_MEMBERS}",
            request.keys_on.len()
        )
    } else {
        return Ok(());
    };
    Err(PoolError::InvalidLayout { problem })
}

/// A volume that is being made.
struct Draft {
    record: VolumeRecord,
    reserved: Reserved,
}

impl<D: BlockDevice> Pool<D> {
    /// Creates a volume; it reads as zeroes and nobody has a grant.
    ///
    /// # Errors
    /// [`PoolError`]; there is no such volume then.
    pub async fn volume_create(&self, request: CreateVolume) -> Result<Arc<Volume<D>>, PoolError> {
        check_request(&request)?;
        let name = request.name.clone();
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        self.check_volume_name(&mut inner, &name)?;
        let lun = self.free_lun(&inner)?;
        let Draft { record, reserved } = draft(&inner, request, lun)?;
        let map = map_of(&record)?;
        let replicas = keys_replicas(&inner.devices, &record, &map);
        let devices = inner.devices.clone();
        let extents = inner.on_devices(reserved.extents().iter().copied());
        inner.making.insert(name.clone(), lun);
        drop(inner);
        // Whatever was there before must be gone before the volume exists.
        let made = async {
            zero(&extents).await?;
            let region =
                PrivateRegion::create(record.uuid, replicas, self.boot_id, record.persist).await?;
            let tracker = RegionTracker::create_if_needed(&record, &map, &devices).await?;
            let layout = Layout::new(&record, map, &devices, tracker)
                .map_err(|problem| PoolError::Inconsistent { problem })?;
            Ok::<_, PoolError>((region, layout))
        }
        .await;
        let mut inner = self.inner.lock().await;
        inner.making.remove(&name);
        let (private_region, layout) = match made {
            Ok(made) => made,
            Err(error) => {
                reserved.freed();
                return Err(error);
            }
        };
        self.settle(&mut inner).await?;
        check_usable(&inner, &record)?;
        let mut pool = inner.config()?.pool.clone();
        pool.next_lun = (lun + 1) % LUNS;
        let changes = vec![Change::Pool(pool), Change::Volume(Box::new(record.clone()))];
        inner.commit(changes).await?;
        reserved.committed();
        let volume = Arc::new(
            Volume::new(record, layout, private_region).with_reports(self.keeper.reports.clone()),
        );
        self.update_volumes(|volumes| volumes.insert(lun, volume.clone()));
        Ok(volume)
    }

    /// Refuses a name that a volume has or is about to get.
    pub(super) fn check_volume_name(
        &self,
        inner: &mut Inner<D>,
        name: &str,
    ) -> Result<(), PoolError> {
        if inner.making.contains_key(name) || inner.is_volume_name(name)? {
            return Err(PoolError::NameTaken {
                what: "volume",
                name: name.into(),
            });
        }
        Ok(())
    }

    /// The next LUN that is free, from `next_lun` on and round.
    fn free_lun(&self, inner: &Inner<D>) -> Result<u16, PoolError> {
        let next = inner.config()?.pool.next_lun;
        let volumes = self.volumes.load();
        (0..LUNS)
            .map(|step| (next % LUNS + step) % LUNS)
            .find(|lun| {
                volumes.get(*lun).is_none() && inner.making.values().all(|other| other != lun)
            })
            .ok_or(PoolError::NoLun)
    }
}

/// Devices may have gone while the lock was not held.
fn check_usable<D: BlockDevice>(inner: &Inner<D>, record: &VolumeRecord) -> Result<(), PoolError> {
    let devices: BTreeSet<Uuid> = record.extents().map(|extent| extent.device).collect();
    for device in devices {
        inner.check_usable(device)?;
    }
    Ok(())
}

fn draft<D: BlockDevice>(
    inner: &Inner<D>,
    request: CreateVolume,
    lun: u16,
) -> Result<Draft, PoolError> {
    let placement = inner.named(&request.on, Some(DeviceRole::Data))?;
    let keys_placement = inner.named(&request.keys_on, None)?;
    if keys_placement.len() < request.keys_on.len() {
        return Err(PoolError::KeysTwice {
            name: twice(&request.keys_on),
        });
    }
    let on = match placement.as_slice() {
        [] => inner.data_devices(&[])?,
        named => named.to_vec(),
    };
    let mut placing = inner.placing()?;
    let plexes = placing.together(|placing| {
        place_plexes(
            placing,
            request.size_bytes,
            request.layout,
            request.mirrors,
            &on,
        )
    })?;
    let first: Vec<Uuid> = plexes
        .iter()
        .flat_map(Plex::extents)
        .map(|extent| extent.device)
        .collect();
    let named = [&placement[..], &keys_placement].concat();
    let keys_on = inner.keys_devices_and(&keys_placement, &first, &named)?;
    let wanted = match keys_placement.len() {
        0 => DEFAULT_KEYS_REPLICAS,
        named => named,
    };
    let goal = keys_goal(wanted, keys_on.len()).max(1);
    let mut keys: Vec<KeysReplica> = Vec::with_capacity(goal);
    let mut taken = BTreeSet::new();
    while keys.len() < goal {
        match placing.keys(&keys_on, &taken) {
            Ok(replica) => {
                taken.insert(replica.extent.device);
                keys.push(replica);
            }
            // Named devices must all have one; of any devices, as many as have room.
            Err(error) if keys.is_empty() || !keys_placement.is_empty() => return Err(error),
            Err(_) => {
                keys.truncate(keys_goal(wanted, keys.len()));
                break;
            }
        }
    }
    let uuid = fresh_uuid();
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
        plexes,
        keys,
        // At most `MAX_MEMBERS`, 128.
        keys_wanted: u8::try_from(wanted).unwrap_or(u8::MAX),
        placement,
        keys_placement,
        job: None,
        grants: BTreeMap::new(),
    };
    Ok(Draft {
        record,
        reserved: placing.finish(),
    })
}

/// The first name that comes twice.
pub(super) fn twice(names: &[String]) -> String {
    let mut seen = BTreeSet::new();
    names
        .iter()
        .find(|name| !seen.insert(*name))
        .cloned()
        .unwrap_or_default()
}

/// `mirrors` plexes, none on a device of another. Stripes without a number of columns get as many as all plexes can have.
pub(super) fn place_plexes(
    placing: &mut super::placement::Placing<'_>,
    size_bytes: u64,
    layout: LayoutRequest,
    mirrors: usize,
    on: &[Uuid],
) -> Result<Vec<Plex>, PoolError> {
    let mirrors = mirrors.max(1);
    let LayoutRequest::Striped {
        columns: None,
        stripe_unit_bytes,
    } = layout
    else {
        return place_all(placing, size_bytes, layout, mirrors, on);
    };
    let mut most = (on.len() / mirrors).clamp(2, super::MAX_COLUMNS);
    loop {
        let layout = LayoutRequest::Striped {
            columns: Some(most),
            stripe_unit_bytes,
        };
        let placed =
            placing.together(|placing| place_all(placing, size_bytes, layout, mirrors, on));
        match placed {
            Err(PoolError::NoSpace { .. }) if most > 2 => most -= 1,
            placed => return placed,
        }
    }
}

fn place_all(
    placing: &mut super::placement::Placing<'_>,
    size_bytes: u64,
    layout: LayoutRequest,
    mirrors: usize,
    on: &[Uuid],
) -> Result<Vec<Plex>, PoolError> {
    let each = match layout {
        LayoutRequest::Striped {
            columns: Some(columns),
            ..
        } => columns,
        _ => 1,
    };
    let needed = each.saturating_mul(mirrors);
    if mirrors > 1 && on.len() < needed {
        return Err(PoolError::TooFewDevices {
            what: match each {
                1 => format!("{mirrors} copies, each on devices of its own,"),
                _ => format!("{mirrors} copies of {each} columns, all on devices of their own,"),
            },
            needed,
            available: on.len(),
        });
    }
    let mut plexes: Vec<Plex> = Vec::with_capacity(mirrors);
    let mut avoid = BTreeSet::new();
    for _ in 0..mirrors {
        let plex = placing.plex(&PlexRequest {
            size_bytes,
            layout,
            on,
            avoid: &avoid,
        })?;
        avoid.extend(plex.extents().map(|extent| extent.device));
        plexes.push(plex);
    }
    Ok(plexes)
}
