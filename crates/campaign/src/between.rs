//! Every byte of a volume that nobody wrote is zero, and what somebody wrote is in its place: on the medium, between the
//! spots of the clients too. Something else got there from outside: a write that came too late, to an extent that had been
//! given to another volume, or what an earlier owner left.

use volume::Pool;
use volume::config::{Plex, PlexLayout};
use volume::sim::{SimDevice, SimWorld};

use crate::content::{self, Sector};
use crate::owners::{Owners, number_of};
use crate::volume_model::SECTOR;

/// Looks at every plex that takes part and is complete, as the records say; nothing may be in flight.
///
/// # Errors
/// What is where it does not belong.
pub fn check(world: &SimWorld, pool: &Pool<SimDevice>, owners: &Owners) -> Result<(), String> {
    for volume in pool.volumes() {
        let record = volume.record();
        let Some(number) = number_of(&record.name) else {
            continue;
        };
        if volume.fault().is_some() {
            continue;
        }
        for (position, plex) in record.plexes.iter().enumerate() {
            if !plex.is_attached() || volume.stale_bytes(position) > 0 {
                continue;
            }
            let problem = look(world, plex, record.size_bytes, number, owners);
            if let Some(problem) = problem {
                let name = &record.name;
                return Err(format!("in plex {position} of volume {name}: {problem}"));
            }
        }
    }
    Ok(())
}

fn look(
    world: &SimWorld,
    plex: &Plex,
    size_bytes: u64,
    number: u32,
    owners: &Owners,
) -> Option<String> {
    let mut problem = None;
    for (column, extents) in plex.columns.iter().enumerate() {
        let mut before = 0;
        for extent in &extents.extents {
            let disk = owners.disk_of(extent.device)?;
            let range = extent.offset_bytes..extent.offset_bytes + extent.length_bytes;
            world.each_written(disk, range, |at, bytes| {
                let sectors = (at..).step_by(SECTOR as usize);
                for (at, bytes) in sectors.zip(bytes.chunks_exact(SECTOR as usize)) {
                    let byte = byte_of(plex, column, before + at - extent.offset_bytes);
                    let found = content::decode(bytes);
                    let right = match found {
                        Sector::Zero => true,
                        Sector::Written { volume, sector, .. } => {
                            volume == number && sector * SECTOR == byte
                        }
                        Sector::Strange => false,
                    };
                    // What is behind the end is zeroed when the volume grows.
                    if !right && byte < size_bytes && problem.is_none() {
                        let place = format!("byte {byte}, at {at} of disk {disk}");
                        problem = Some(format!("{found:?} is at {place}"));
                    }
                }
            });
            before += extent.length_bytes;
        }
    }
    problem
}

/// Which byte of the public region is `within` a column, by definition: the inverse of [`crate::owners::locate`].
fn byte_of(plex: &Plex, column: usize, within: u64) -> u64 {
    match plex.layout {
        PlexLayout::Linear => within,
        PlexLayout::Striped { stripe_unit_bytes } => {
            let columns = plex.columns.len() as u64;
            let row = within / stripe_unit_bytes;
            (row * columns + column as u64) * stripe_unit_bytes + within % stripe_unit_bytes
        }
    }
}
