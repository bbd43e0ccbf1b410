//! Reads and writes of the device ranges of one region: translation, splitting, and what direct I/O asks for.

use bytes::{Bytes, BytesMut};

use super::Layout;
use super::write_table::{Use, WriteTable};
use crate::block_device::{Allocation, BlockDevice, IO_ALIGNMENT_BYTES, aligned_buffer};
use crate::device::Device;
use crate::error::VolumeError;
use crate::join::{boxed, join_all};
use crate::translate::{DeviceRange, Region};

impl<D: BlockDevice> Layout<D> {
    /// Fills `buf` from the region; its parts on different ranges in parallel.
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
            return self.read_one(range, buf).await;
        }
        // Parts of one buffer, put together again when they are all back.
        let parts: Vec<_> = ranges
            .iter()
            .map(|range| {
                let part = buf.split_to(range.length_bytes as usize);
                boxed(self.read_one(range, part))
            })
            .collect();
        let mut result = Ok(());
        let mut whole: Option<BytesMut> = None;
        for (part_result, part) in join_all(parts).await {
            result = result.and(part_result);
            match &mut whole {
                Some(whole) => whole.unsplit(part),
                None => whole = Some(part),
            }
        }
        (result, whole.unwrap_or(buf))
    }

    async fn read_one(
        &self,
        range: &DeviceRange,
        buf: BytesMut,
    ) -> (Result<(), VolumeError>, BytesMut) {
        match self.device(range) {
            Ok(device) => read_range(device, range.device_offset_bytes, buf).await,
            Err(error) => (Err(error), buf),
        }
    }

    /// Writes to a region, the parts on different ranges in parallel; the caller excludes overlapping writes where a
    /// device needs a coarser alignment.
    pub(super) async fn write(
        &self,
        region: Region,
        offset_bytes: u64,
        mut data: Bytes,
    ) -> Result<(), VolumeError> {
        let ranges = self
            .map
            .translate(region, offset_bytes, data.len() as u64)?;
        if let [range] = ranges.as_slice() {
            return write_range(self.device(range)?, range.device_offset_bytes, data).await;
        }
        let parts: Vec<_> = ranges
            .iter()
            .map(|range| {
                let part = data.split_to(range.length_bytes as usize);
                boxed(async move {
                    write_range(self.device(range)?, range.device_offset_bytes, part).await
                })
            })
            .collect();
        join_all(parts).await.into_iter().collect()
    }

    /// Writes to the only plex of a volume without a tracker. With devices that need whole blocks larger than the
    /// volume's, the blocks are locked, so that two writers of one block do not undo each other.
    pub(super) async fn write_only(
        &self,
        table: &WriteTable,
        offset_bytes: u64,
        data: Bytes,
    ) -> Result<(), VolumeError> {
        if !self.read_modify_write {
            return self.write(self.only(), offset_bytes, data).await;
        }
        let blocks = whole_blocks(offset_bytes, data.len() as u64);
        let _locked = table.take(blocks, Use::Write).await;
        self.write(self.only(), offset_bytes, data).await
    }

    /// Flushes the devices that back a region.
    pub(super) async fn flush(&self, region: Region) -> Result<(), VolumeError> {
        let devices = match region {
            Region::Public { plex } | Region::Log { plex } => self.map.plex_devices(plex),
            Region::Keys { .. } => &[],
        };
        if let [index] = devices {
            return self.flush_device(*index).await;
        }
        let flushes = devices.iter().map(|index| boxed(self.flush_device(*index)));
        join_all(flushes).await.into_iter().collect()
    }

    /// Zeroes a part of the only plex of a volume without a tracker.
    pub(super) async fn zero_only(
        &self,
        table: &WriteTable,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> Result<(), VolumeError> {
        let ranges = self
            .map
            .translate(self.only(), offset_bytes, length_bytes)?;
        let _locked = if self.read_modify_write {
            let blocks = whole_blocks(offset_bytes, length_bytes);
            Some(table.take(blocks, Use::Write).await)
        } else {
            None
        };
        for range in &ranges {
            let device = self.device(range)?;
            zero_range(
                device,
                range.device_offset_bytes,
                range.length_bytes,
                deallocate,
            )
            .await?;
        }
        Ok(())
    }

    /// See [`super::Volume::allocation`].
    pub(super) async fn allocation(
        &self,
        region: Region,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> Result<Allocation, VolumeError> {
        let ranges = self.map.translate(region, offset_bytes, length_bytes)?;
        let Some(range) = ranges.first() else {
            return Err(VolumeError::OutOfBounds {
                offset_bytes,
                length_bytes,
                size_bytes: self.map.size_bytes(),
            });
        };
        let device = self.device(range)?;
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
}

/// The 4 KiB blocks of a volume that a range touches. Extents are multiples of them, so that they are blocks of the
/// device too.
pub(super) fn whole_blocks(offset_bytes: u64, length_bytes: u64) -> std::ops::Range<u64> {
    const BLOCK: u64 = IO_ALIGNMENT_BYTES as u64;
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

/// Fills `buf` from a run of a device.
pub(super) async fn read_range<D: BlockDevice>(
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

/// Writes `data` to a run of a device.
pub(super) async fn write_range<D: BlockDevice>(
    device: &Device<D>,
    offset_bytes: u64,
    data: Bytes,
) -> Result<(), VolumeError> {
    let alignment = device.alignment_bytes();
    if is_aligned(alignment, offset_bytes, &data) {
        return device.write(offset_bytes, data).await;
    }
    // Boxed: the rare case must not make the future of the common one larger.
    boxed(write_unaligned(device, offset_bytes, data)).await
}

async fn write_unaligned<D: BlockDevice>(
    device: &Device<D>,
    offset_bytes: u64,
    data: Bytes,
) -> Result<(), VolumeError> {
    let alignment = device.alignment_bytes() as u64;
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

/// Makes a run of a device read as zeroes; what is not whole blocks of the device is written.
pub(super) async fn zero_range<D: BlockDevice>(
    device: &Device<D>,
    start: u64,
    length_bytes: u64,
    deallocate: bool,
) -> Result<(), VolumeError> {
    let alignment = device.alignment_bytes() as u64;
    let end = start + length_bytes;
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
    Ok(())
}
