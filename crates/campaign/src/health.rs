//! Is everything whole: every device, every plex, every copy of keys and configuration?

use volume::page_store::ReplicaHealth;
use volume::sim::{SimDevice, SimWorld};
use volume::{Pool, Volume};

use crate::owners::{Owners, locate};

/// The first thing that is not as it should be, or `None`.
pub async fn unhealthy(pool: &Pool<SimDevice>) -> Option<String> {
    if let Some(problem) = weak(pool).await {
        return Some(problem);
    }
    for volume in pool.volumes() {
        let record = volume.record();
        let stale = (0..record.plexes.len()).find(|plex| volume.stale_bytes(*plex) > 0);
        let problem = if let Some(plex) = stale {
            format!("plex {plex} is stale in part")
        } else if volume.unsettled_bytes() > 0 {
            "something is not settled".into()
        } else if let Some(job) = &record.job {
            format!("{job:?}")
        } else {
            continue;
        };
        return Some(format!("volume {}: {problem}", record.name));
    }
    None
}

/// The first thing without which the pool could lose one thing less than it should; jobs may be under way.
pub async fn weak(pool: &Pool<SimDevice>) -> Option<String> {
    for info in pool.devices().await {
        let whole = info.present && info.online && info.config_current;
        if !whole || info.failed.is_some() || info.abandoned > 0 {
            return Some(format!("{info:?}"));
        }
    }
    for volume in pool.volumes() {
        if let Some(problem) = ill(&volume).await {
            return Some(format!("volume {}: {problem}", volume.record().name));
        }
    }
    None
}

async fn ill(volume: &Volume<SimDevice>) -> Option<String> {
    if let Some(fault) = volume.fault() {
        return Some(fault);
    }
    if let Some(reason) = volume.writes_refused() {
        return Some(format!("writes are refused: {reason}"));
    }
    let record = volume.record();
    for (position, plex) in record.plexes.iter().enumerate() {
        if !plex.is_attached() {
            return Some(format!("plex {position} is detached"));
        }
    }
    let region = match volume.private_region() {
        Ok(region) => region,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = region.load().await {
        return Some(error.to_string());
    }
    let replicas = region.health().await;
    if let Some(replica) = replicas
        .iter()
        .find(|replica| replica.health != ReplicaHealth::Current)
    {
        return Some(format!("keys: {replica:?}"));
    }
    None
}

/// Compares all plexes of a volume on the medium, byte by byte; nothing may be in flight.
///
/// # Errors
/// Where they differ.
pub fn compare_plexes(
    world: &SimWorld,
    volume: &Volume<SimDevice>,
    owners: &Owners,
) -> Result<(), String> {
    const STEP: usize = 4096;
    let record = volume.record();
    let images: Vec<_> = (0..world.disks()).map(|disk| world.image(disk)).collect();
    let mut at = 0;
    while at < record.size_bytes {
        let mut first: Option<[u8; STEP]> = None;
        for (position, plex) in record.plexes.iter().enumerate() {
            let place = locate(plex, at)
                .and_then(|(device, offset)| Some((owners.disk_of(device)?, offset)));
            let Some((disk, offset)) = place else {
                return Err(format!(
                    "byte {at} of plex {position} of {} is nowhere",
                    record.name
                ));
            };
            let mut found = [0; STEP];
            images[disk].read(offset, &mut found);
            if *first.get_or_insert(found) != found {
                return Err(format!(
                    "plexes 0 and {position} of {} differ in the 4 KiB at {at}",
                    record.name
                ));
            }
        }
        at += STEP as u64;
    }
    Ok(())
}

/// The plexes of a volume and what is known of them, for messages.
pub fn describe(volume: &Volume<SimDevice>) -> String {
    let record = volume.record();
    let plexes: Vec<String> = record
        .plexes
        .iter()
        .enumerate()
        .map(|(position, plex)| {
            let replaces = plex.replaces.map(|uuid| format!(", replaces {uuid}"));
            format!(
                "{} on {} columns, {:?}, {} bytes stale{}",
                plex.uuid,
                plex.columns.len(),
                plex.state,
                volume.stale_bytes(position),
                replaces.unwrap_or_default()
            )
        })
        .collect();
    format!(
        "plexes [{}], {} bytes unsettled, job {:?}",
        plexes.join("; "),
        volume.unsettled_bytes(),
        record
            .job
            .as_ref()
            .map(|job| (&job.kind, &job.fresh, &job.retire, job.paused))
    )
}
