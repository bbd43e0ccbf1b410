//! Reads and writes of a layout: translation, splitting, and what direct I/O asks for.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::Layout;
use super::atomic_write::{self, HEADER_BYTES, Intent, LANE_BYTES, LANES};
use crate::block_device::{Allocation, BlockDevice, aligned_buffer};
use crate::device::Device;
use crate::error::VolumeError;
use crate::range_lock::RangeLock;
use crate::translate::{DeviceRange, Region};

impl<D: BlockDevice> Layout<D> {
    fn device(&self, range: &DeviceRange) -> &Device<D> {
        &self.devices[range.device_index]
    }

    /// Fills `buf` from the region.
    pub(super) async fn read(
        &self,
        region: Region,
        offset_bytes: u64,
        mut buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut) {
        let ranges = match self.map.translate(region, offset_bytes, buf.len() as u64) {
            Ok(ranges) => ranges,
            Err(error) => return (Err(error), buf),
        };
        if let [range] = ranges.as_slice() {
            return read_range(self.device(range), range.device_offset_bytes, buf).await;
        }
        // Parts of one buffer, put together again as they come back.
        let mut whole = buf.split_to(0);
        for range in &ranges {
            let part = buf.split_to(range.length_bytes as usize);
            let (result, part) =
                read_range(self.device(range), range.device_offset_bytes, part).await;
            whole.unsplit(part);
            if result.is_err() {
                whole.unsplit(buf);
                return (result, whole);
            }
        }
        (Ok(()), whole)
    }

    /// Writes to a region; the caller excludes overlapping writes where a device needs a coarser alignment.
    pub(super) async fn write(
        &self,
        region: Region,
        offset_bytes: u64,
        mut data: Bytes,
    ) -> Result<(), VolumeError> {
        let ranges = self
            .map
            .translate(region, offset_bytes, data.len() as u64)?;
        for range in &ranges {
            let part = data.split_to(range.length_bytes as usize);
            write_range(self.device(range), range.device_offset_bytes, part).await?;
        }
        Ok(())
    }

    /// Writes to the public region. With devices that need whole blocks larger than the volume's, the blocks are locked,
    /// so that two writers of one block do not undo each other.
    pub(super) async fn write_public(
        &self,
        blocks: &RangeLock,
        offset_bytes: u64,
        data: Bytes,
    ) -> Result<(), VolumeError> {
        if !self.read_modify_write {
            return self
                .write(Region::Public { plex: 0 }, offset_bytes, data)
                .await;
        }
        let _locked = blocks
            .lock(whole_blocks(offset_bytes, data.len() as u64))
            .await;
        self.write(Region::Public { plex: 0 }, offset_bytes, data)
            .await
    }

    /// Flushes the devices that back a region.
    pub(super) async fn flush(&self, region: Region) -> Result<(), VolumeError> {
        let ranges = self
            .map
            .translate(region, 0, self.map.region_bytes(region))?;
        for (index, range) in ranges.iter().enumerate() {
            let seen = ranges[..index]
                .iter()
                .any(|other| other.device_index == range.device_index);
            if !seen {
                self.device(range).flush().await?;
            }
        }
        Ok(())
    }

    pub(super) async fn write_zeroes(
        &self,
        blocks: &RangeLock,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> Result<(), VolumeError> {
        let ranges = self
            .map
            .translate(Region::Public { plex: 0 }, offset_bytes, length_bytes)?;
        let _locked = if self.read_modify_write {
            Some(blocks.lock(whole_blocks(offset_bytes, length_bytes)).await)
        } else {
            None
        };
        for range in &ranges {
            let device = self.device(range);
            let alignment = device.alignment_bytes() as u64;
            let start = range.device_offset_bytes;
            let end = start + range.length_bytes;
            let first = start.next_multiple_of(alignment).min(end);
            let last = (end / alignment * alignment).max(first);
            for (from, to) in [(start, first), (last, end)] {
                if from < to {
                    let zeroes = Bytes::from(vec![0; (to - from) as usize]);
                    write_range(device, from, zeroes).await?;
                }
            }
            if first < last {
                device.write_zeroes(first, last - first, deallocate).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn allocation(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Allocation, VolumeError> {
        let ranges = self
            .map
            .translate(Region::Public { plex: 0 }, offset_bytes, length_bytes)?;
        let Some(range) = ranges.first() else {
            return Err(VolumeError::OutOfBounds {
                offset_bytes,
                length_bytes,
                size_bytes: self.map.size_bytes(),
            });
        };
        let device = self.device(range);
        let alignment = device.alignment_bytes() as u64;
        let start = range.device_offset_bytes / alignment * alignment;
        let end = (range.device_offset_bytes + range.length_bytes).next_multiple_of(alignment);
        let answer = device.allocation(start, end - start).await?;
        let known = answer
            .length_bytes
            .saturating_sub(range.device_offset_bytes - start);
        Ok(Allocation {
            allocated: answer.allocated,
            length_bytes: known.clamp(1, range.length_bytes),
        })
    }

    /// Makes sure that no intent is in the lane at `lane_offset`, durably.
    pub(super) async fn erase_intent(&self, lane_offset: u64) -> Result<(), VolumeError> {
        let zeroes = aligned_buffer(HEADER_BYTES).freeze();
        self.write(Region::Log { plex: 0 }, lane_offset, zeroes)
            .await?;
        self.flush(Region::Log { plex: 0 }).await
    }

    /// Writes whole intents in place and erases them.
    pub(super) async fn replay_intents(
        &self,
        volume: Uuid,
        blocks: &RangeLock,
    ) -> Result<u32, VolumeError> {
        let mut replayed = 0;
        for lane in 0..LANES {
            let lane_offset = lane * LANE_BYTES;
            let header = aligned_buffer(HEADER_BYTES);
            let (result, header) = self
                .read(Region::Log { plex: 0 }, lane_offset, header)
                .await;
            result?;
            if atomic_write::Intent::decode_header(&header, volume).is_none() {
                continue;
            }
            let whole = aligned_buffer(LANE_BYTES as usize);
            let (result, whole) = self.read(Region::Log { plex: 0 }, lane_offset, whole).await;
            result?;
            if let Some(intent) = Intent::decode(&whole, volume) {
                // A range outside the volume is not one that was acknowledged to anybody; translation refuses it.
                self.write_public(blocks, intent.offset_bytes, intent.data)
                    .await?;
                self.flush(Region::Public { plex: 0 }).await?;
                replayed += 1;
            }
            self.erase_intent(lane_offset).await?;
        }
        Ok(replayed)
    }
}

/// The 4 KiB blocks of a volume that a range touches. Extents are multiples of them, so that they are blocks of the
/// device too.
fn whole_blocks(offset_bytes: u64, length_bytes: u64) -> std::ops::Range<u64> {
    const BLOCK: u64 = crate::block_device::IO_ALIGNMENT_BYTES as u64;
    let start = offset_bytes / BLOCK * BLOCK;
    let end = offset_bytes
        .saturating_add(length_bytes)
        .checked_next_multiple_of(BLOCK)
        .unwrap_or(u64::MAX);
    start..end
}

/// Whether the device takes this without help.
fn is_aligned(alignment: usize, offset_bytes: u64, data: &[u8]) -> bool {
    let mask = alignment - 1;
    (offset_bytes as usize | data.len() | data.as_ptr() as usize) & mask == 0
}

async fn read_range<D: BlockDevice>(
    device: &Device<D>,
    offset_bytes: u64,
    mut buf: BytesMut,
) -> (Result<(), VolumeError>, BytesMut) {
    let alignment = device.alignment_bytes();
    if is_aligned(alignment, offset_bytes, &buf) {
        return device.read(offset_bytes, buf).await;
    }
    let alignment = alignment as u64;
    let start = offset_bytes / alignment * alignment;
    // The end of an extent is aligned, so rounding up stays inside it.
    let end = (offset_bytes + buf.len() as u64).next_multiple_of(alignment);
    let (result, whole) = device
        .read(start, aligned_buffer((end - start) as usize))
        .await;
    if result.is_ok() {
        let at = (offset_bytes - start) as usize;
        let length = buf.len();
        buf.copy_from_slice(&whole[at..at + length]);
    }
    (result, buf)
}

async fn write_range<D: BlockDevice>(
    device: &Device<D>,
    offset_bytes: u64,
    data: Bytes,
) -> Result<(), VolumeError> {
    let alignment = device.alignment_bytes();
    if is_aligned(alignment, offset_bytes, &data) {
        return device.write(offset_bytes, data).await;
    }
    let alignment = alignment as u64;
    let start = offset_bytes / alignment * alignment;
    let end = (offset_bytes + data.len() as u64).next_multiple_of(alignment);
    let mut whole = aligned_buffer((end - start) as usize);
    let at = (offset_bytes - start) as usize;
    // Only blocks that are written in part must be read.
    let reads = match (
        start < offset_bytes,
        offset_bytes + (data.len() as u64) < end,
    ) {
        (false, false) => [None, None],
        (true, false) => [Some(start), None],
        (false, true) => [None, Some(end - alignment)],
        (true, true) if end - start == alignment => [Some(start), None],
        (true, true) => [Some(start), Some(end - alignment)],
    };
    for block in reads.into_iter().flatten() {
        let (result, old) = device.read(block, aligned_buffer(alignment as usize)).await;
        result?;
        let within = (block - start) as usize;
        whole[within..within + old.len()].copy_from_slice(&old);
    }
    whole[at..at + data.len()].copy_from_slice(&data);
    device.write(start, whole.freeze()).await
}
