//! One disk rots, or a write went astray on it: under its copy of the configuration, its replicas of the keys, its region
//! logs, and one copy of its label.
//!
//! Invariants:
//! - What has a majority of whole copies elsewhere is as it was: the configuration of a pool of three disks or more, the keys
//!   of a volume with three replicas or more, the region log of a volume with another plex that takes part, the label.
//!   Nothing that the damaged copies say is believed.
//! - After a look at everything with repair, any one disk may go.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use volume::block_device::BlockDevice as _;
use volume::config::Extent;
use volume::label::{Areas, COPY_OFFSETS_BYTES};
use volume::sim::{Image, Random, SimWorld};

use super::{Branch, Keeping};
use crate::violation::{trace, violation};

const BLOCK: u64 = 4096;
/// Where the region log is in a plex's log extent, behind the intents of atomic writes (`docs/on-disk-format.md`).
const REGION_LOG: Range<u64> = 528 << 10..600 << 10;

pub(super) fn scenario(branch: &mut Branch<'_>) {
    let Some(disk) = branch.a_disk() else { return };
    let before = branch.world.clone();
    let places = before.run(places(branch, disk));
    before.observe(|_| {});
    let Some(places) = places else { return };
    branch.stop();
    damage(&branch.world, disk, &places, branch.random);
    let world = branch.world.clone();
    let next = world.run(repaired(branch, disk));
    world.observe(|_| {});
    if let Some((away, tolerant)) = next {
        branch.stop();
        branch.model.without = Some(tolerant);
        let world = branch.world.clone();
        world.run(async {
            if let Some(opened) = branch.open(&away).await {
                branch.check(&opened).await;
            }
        });
        world.observe(|_| {});
    }
    branch.everything_is_back();
}

/// What may be damaged on a disk, because there is enough of it elsewhere.
async fn places(branch: &mut Branch<'_>, disk: usize) -> Option<Vec<Range<u64>>> {
    let opened = branch.open(&BTreeSet::new()).await?;
    branch.check(&opened).await;
    let keeping = Keeping::new(&opened.pool);
    branch.sleep(Duration::from_secs(20)).await;
    branch.stir(&opened).await;
    drop(keeping);
    if !branch.model.leaving.is_empty() {
        return None;
    }
    let copy = branch.random.pick(&COPY_OFFSETS_BYTES).copied()?;
    let label = copy..copy + BLOCK;
    let mut places = vec![label];
    let devices = opened.pool.devices().await;
    let others = devices.iter().filter(|info| {
        info.config_current && opened.owners.lock().disk_of(info.uuid) != Some(disk)
    });
    if others.count() > devices.len() / 2 {
        let areas = Areas::of(branch.world.device(disk).size_bytes())?;
        let start = areas.config_offset_bytes;
        places.push(start..start + areas.config_length_bytes);
    }
    let device = devices
        .iter()
        .find(|info| opened.owners.lock().disk_of(info.uuid) == Some(disk))?
        .uuid;
    for volume in opened.pool.volumes() {
        let record = volume.record();
        let attached = record.plexes.iter().filter(|plex| plex.is_attached());
        let (on_it, elsewhere): (Vec<&Extent>, Vec<&Extent>) = attached
            .map(|plex| &plex.log)
            .partition(|log| log.device == device);
        if !elsewhere.is_empty() {
            places.extend(
                on_it.iter().map(|log| {
                    log.offset_bytes + REGION_LOG.start..log.offset_bytes + REGION_LOG.end
                }),
            );
        }
        if !super::current_keys(&volume, |other| other != device).await {
            continue;
        }
        let Ok(region) = volume.private_region() else {
            continue;
        };
        let Ok(health) = region.health_now().await else {
            continue;
        };
        // One that does not count is not repaired, and if it becomes an older one that did, nothing but those that count
        // can say so: they must not go next.
        let on_it = record.keys.iter().filter(|keys| {
            let counts = health.iter().any(|info| info.uuid == keys.uuid);
            keys.extent.device == device && counts
        });
        places.extend(on_it.map(|keys| {
            let start = keys.extent.offset_bytes;
            start..start + keys.extent.length_bytes
        }));
    }
    Some(places)
}

/// Damages some blocks: bits, zeroes, garbage, or what belongs elsewhere.
fn damage(world: &SimWorld, disk: usize, places: &[Range<u64>], random: &mut Random) {
    let image: Image = world.image(disk);
    for _ in 0..random.within(1..30) {
        let Some(place) = random.pick(places).cloned() else {
            return;
        };
        let blocks = (place.end - place.start) / BLOCK;
        // Headers and the first pages are where something is.
        let mut block = || match random.below(3) {
            0 => place.start,
            1 => place.start + random.below(blocks.min(24)) * BLOCK,
            _ => place.start + random.below(blocks) * BLOCK,
        };
        let (at, from) = (block(), block());
        let mut bytes = vec![0; BLOCK as usize];
        let kind = random.below(4);
        match kind {
            0 => {
                world.rot(disk, at + random.below(BLOCK), random.below(8) as u8);
                continue;
            }
            1 => {}
            2 => bytes
                .chunks_exact_mut(8)
                .for_each(|word| word.copy_from_slice(&random.bits().to_le_bytes())),
            _ => image.read(from, &mut bytes),
        }
        trace!("  damage {kind} of disk {disk} at {at}");
        world.overwrite(disk, at, &bytes);
    }
}

/// Everything is as it was; after a repair, what may go next, and who can do without it.
async fn repaired(
    branch: &mut Branch<'_>,
    damaged: usize,
) -> Option<(BTreeSet<usize>, BTreeSet<u32>)> {
    let opened = branch.open(&BTreeSet::new()).await?;
    branch.check(&opened).await;
    let keeping = Keeping::new(&opened.pool);
    branch.sleep(Duration::from_secs(20)).await;
    branch.stir(&opened).await;
    for volume in opened.pool.volumes() {
        let Ok(region) = volume.private_region() else {
            continue;
        };
        if let Err(error) = region.verify(true).await {
            violation(&format!("the keys cannot be looked at: {error}"));
        }
        let left = region.verify(false).await.unwrap_or_default();
        if !left.is_empty() {
            violation(&format!("the keys stay damaged: {left:?}"));
        }
    }
    drop(keeping);
    let away = branch.a_disk().filter(|disk| *disk != damaged);
    if !branch.model.leaving.is_empty() {
        return None;
    }
    let away: BTreeSet<usize> = away.into_iter().collect();
    let tolerant = branch.tolerant(&opened, &away).await;
    Some((away, tolerant))
}
