//! Whether a device may be taken into the pool: what is on it, and whose it is.

use std::time::Duration;

use super::PoolError;
use super::signature::{Ends, PROBE_BYTES, recognise};
use crate::block_device::{BlockDevice, IO_ALIGNMENT_BYTES, aligned_buffer};
use crate::config::Config;
use crate::device::Device;
use crate::error::VolumeError;
use crate::label::{self, LABEL_AREA_BYTES, Label, LabelError};

/// How long a device may take to show what is on it, or to have it erased.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What was found on a device.
#[derive(Debug)]
pub(super) struct Found {
    /// The verdict on the label area.
    pub(super) label: Result<Label, LabelError>,
    /// What somebody else left, by name.
    pub(super) signature: Option<String>,
}

/// What taking a device needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing is on it that anybody could miss.
    Free,
    /// What is on it is to be erased first.
    Erase,
}

/// Decides: what is on a device, the pool it is to join, and whether the operator insists.
///
/// # Errors
/// [`PoolError`] says what is on it. A member of the pool is never taken.
pub(super) fn claim(
    path: &str,
    found: Found,
    config: Option<&Config>,
    force: bool,
) -> Result<Claim, PoolError> {
    let path = path.to_owned();
    let forced = |error| if force { Ok(Claim::Erase) } else { Err(error) };
    let label = match found.label {
        Ok(label) => label,
        Err(LabelError::Empty | LabelError::Foreign) => {
            return match found.signature {
                None => Ok(Claim::Free),
                Some(what) => forced(PoolError::Foreign { path, what }),
            };
        }
        // It could not be looked at.
        Err(source @ LabelError::Device(_)) => return Err(PoolError::Label { path, source }),
        Err(source) => return forced(PoolError::Label { path, source }),
    };
    match config {
        Some(config) if config.pool.uuid == label.pool => {
            match config.devices.get(&label.device) {
                Some(record) => Err(PoolError::AlreadyMember {
                    path,
                    name: record.name.clone(),
                }),
                // An addition that was interrupted, or a device that was removed while it was away.
                None => Ok(Claim::Free),
            }
        }
        _ => forced(PoolError::OtherPool {
            path,
            pool: label.pool,
            name: label.name,
        }),
    }
}

/// Reads both ends of a device.
///
/// # Errors
/// [`VolumeError::Device`]; a device that does not answer in time is one.
pub(super) async fn look<D: BlockDevice>(device: &Device<D>) -> Result<Found, VolumeError> {
    let size_bytes = device.size_bytes();
    let (tail_at, tail_bytes) = tail(device, size_bytes);
    let head = read(device, 0, PROBE_BYTES.min(size_bytes)).await?;
    let tail = read(device, tail_at, tail_bytes).await?;
    let mut padded = tail;
    // What is behind the last whole block of the device cannot be read; it takes its place as zeroes.
    padded.resize((size_bytes - tail_at) as usize, 0);
    let ends = Ends {
        size_bytes,
        head: &head,
        tail: &padded,
    };
    Ok(Found {
        label: label::verdict(head.get(..LABEL_AREA_BYTES as usize).unwrap_or_default()),
        signature: recognise(ends),
    })
}

/// Zeroes both ends of a device, durably.
///
/// # Errors
/// [`VolumeError::Device`].
pub(super) async fn erase<D: BlockDevice>(device: &Device<D>) -> Result<(), VolumeError> {
    let size_bytes = device.size_bytes();
    let (tail_at, tail_bytes) = tail(device, size_bytes);
    for (at, length) in [(tail_at, tail_bytes), (0, PROBE_BYTES.min(size_bytes))] {
        let zeroes = aligned_buffer(length as usize).freeze();
        in_time(device, "write", device.write(at, zeroes)).await?;
    }
    in_time(device, "flush", device.flush()).await
}

/// Offset and length of the end of a device that is looked at: whole blocks.
fn tail<D: BlockDevice>(device: &Device<D>, size_bytes: u64) -> (u64, u64) {
    let alignment = device.alignment_bytes().max(1) as u64;
    let block = IO_ALIGNMENT_BYTES as u64;
    let start = size_bytes.saturating_sub(PROBE_BYTES) / block * block;
    (start, (size_bytes - start) / alignment * alignment)
}

async fn read<D: BlockDevice>(
    device: &Device<D>,
    offset_bytes: u64,
    length_bytes: u64,
) -> Result<Vec<u8>, VolumeError> {
    let buf = aligned_buffer(length_bytes as usize);
    let reading = async {
        let (result, buf) = device.read(offset_bytes, buf).await;
        result.map(|()| buf)
    };
    Ok(in_time(device, "read", reading).await?.to_vec())
}

/// The outcome of `work`, or an error when it takes too long.
pub(super) async fn in_time<D: BlockDevice, T>(
    device: &Device<D>,
    operation: &'static str,
    work: impl Future<Output = Result<T, VolumeError>>,
) -> Result<T, VolumeError> {
    device.in_time(PATIENCE, operation, work).await?
}

#[cfg(test)]
mod tests;
