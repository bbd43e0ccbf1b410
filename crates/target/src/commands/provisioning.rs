//! WRITE SAME, UNMAP and GET LBA STATUS (SBC-3 4.7).

use bytes::Bytes;
use scsi::cdb::{GetLbaStatus, WriteSame};
use scsi::lba_status::{self, LbaStatus, ProvisioningStatus};
use scsi::{Sense, truncated, unmap};
use volume::block_device::{BlockDevice, aligned_buffer};

use super::plan::UNMAP_MAX_DESCRIPTORS;
use super::read_write::{CHUNK_BYTES, write_from};
use super::{Reply, medium_failure};
use crate::response::Failure;
use crate::task::{Admitted, Task};

/// Ranges are zeroed in parts of this many bytes, with a look at the gate between them.
const ZERO_CHUNK_BYTES: u64 = 1 << 30;

/// WRITE SAME(10), (16).
pub(crate) async fn write_same<D: BlockDevice>(
    task: &Task<D>,
    command: &WriteSame,
    data: Bytes,
) -> Result<Reply, Failure> {
    let admitted = task.admit()?;
    let block = task.data(data)?;
    let blocks = u64::from(command.length_blocks);
    let _range = admitted.share(command.lba, blocks).await;
    // An unmapped block reads as zeroes (LBPRZ), so only zeroes may be unmapped (SBC-3 5.43); others are written.
    if block.iter().all(|byte| *byte == 0) {
        zero(&admitted, command.lba, blocks, command.unmap).await?;
    } else {
        fill(&admitted, command.lba, blocks, &block).await?;
    }
    Ok(Reply::good())
}

/// Makes blocks read as zeroes, in parts.
pub(crate) async fn zero<D: BlockDevice>(
    admitted: &Admitted<'_, D>,
    lba: u64,
    blocks: u64,
    deallocate: bool,
) -> Result<(), Failure> {
    let unit = admitted.unit();
    let mut offset = lba << unit.block_shift;
    let end = offset + (blocks << unit.block_shift);
    while offset < end {
        let length = (end - offset).min(ZERO_CHUNK_BYTES);
        let zero = unit.volume.write_zeroes(offset, length, deallocate);
        let result = admitted.io(zero).await;
        result.map_err(|error| medium_failure(&error, offset >> unit.block_shift, true))?;
        offset += length;
        if offset < end {
            admitted.recheck()?;
        }
    }
    Ok(())
}

/// Writes `block` to every block of a range.
async fn fill<D: BlockDevice>(
    admitted: &Admitted<'_, D>,
    lba: u64,
    blocks: u64,
    block: &[u8],
) -> Result<(), Failure> {
    let shift = admitted.unit().block_shift;
    let pattern = repeated(block, (blocks << shift).min(CHUNK_BYTES as u64) as usize);
    let mut done = 0;
    while done < blocks {
        if done > 0 {
            admitted.recheck()?;
        }
        let part = (blocks - done).min(pattern.len() as u64 >> shift);
        let data = pattern.slice(..(part << shift) as usize);
        write_from(admitted, lba + done, data).await?;
        done += part;
    }
    Ok(())
}

/// An aligned buffer of `length_bytes`, a multiple of the block, filled with copies of `block`.
pub(crate) fn repeated(block: &[u8], length_bytes: usize) -> Bytes {
    let mut buffer = aligned_buffer(length_bytes);
    for part in buffer.chunks_mut(block.len().max(1)) {
        part.copy_from_slice(&block[..part.len()]);
    }
    buffer.freeze()
}

/// UNMAP. Every descriptor is checked before the first is carried out.
pub(crate) async fn unmap<D: BlockDevice>(task: &Task<D>, list: Bytes) -> Result<Reply, Failure> {
    let admitted = task.admit()?;
    let list = task.data(list)?;
    let descriptors = unmap::parse(&list)?;
    if descriptors.len() > UNMAP_MAX_DESCRIPTORS as usize {
        return Err(Sense::invalid_field_in_parameter_list(2, None).into());
    }
    let capacity = admitted.unit().capacity_blocks();
    for descriptor in &descriptors {
        match descriptor.lba.checked_add(descriptor.length_blocks.into()) {
            Some(end) if end <= capacity => {}
            _ => return Err(Sense::lba_out_of_range(descriptor.lba.max(capacity)).into()),
        }
    }
    for descriptor in descriptors {
        let blocks = u64::from(descriptor.length_blocks);
        if blocks == 0 {
            continue;
        }
        admitted.recheck()?;
        let _range = admitted.share(descriptor.lba, blocks).await;
        zero(&admitted, descriptor.lba, blocks, true).await?;
    }
    Ok(Reply::good())
}

/// GET LBA STATUS: what the devices say, neighbouring runs of one kind joined.
pub(crate) async fn get_lba_status<D: BlockDevice>(
    task: &Task<D>,
    command: &GetLbaStatus,
) -> Result<Reply, Failure> {
    let admitted = task.admit()?;
    let unit = admitted.unit();
    let capacity = unit.capacity_blocks();
    // SBC-3 5.4.1: at least one descriptor, however small the allocation length; the answer is then cut.
    let wanted = (command.allocation_length.saturating_sub(8) / 16).clamp(1, 1024) as usize;
    let mut runs: Vec<LbaStatus> = Vec::new();
    let mut lba = command.lba;
    while lba < capacity {
        let run = block_run(&admitted, lba, capacity).await?;
        let full = runs.len() == wanted;
        match runs.last_mut() {
            Some(last) if let Some(sum) = joined(last, &run) => last.length_blocks = sum,
            _ if full => break,
            _ => runs.push(run),
        }
        lba += u64::from(run.length_blocks);
    }
    let data = lba_status::encode(&runs);
    Ok(Reply::data(truncated(data, command.allocation_length)))
}

/// The length of two runs as one, if they can be one.
fn joined(last: &LbaStatus, next: &LbaStatus) -> Option<u32> {
    if last.status != next.status {
        return None;
    }
    last.length_blocks.checked_add(next.length_blocks)
}

/// A run of blocks from `lba`. A block that is allocated in part is mapped.
async fn block_run<D: BlockDevice>(
    admitted: &Admitted<'_, D>,
    lba: u64,
    capacity: u64,
) -> Result<LbaStatus, Failure> {
    let unit = admitted.unit();
    let block = unit.block_bytes();
    let start = lba << unit.block_shift;
    let limit = (capacity << unit.block_shift) - start;
    let ask = |offset, length| async move {
        let answer = admitted.io(unit.volume.allocation(offset, length)).await;
        answer.map_err(|error| medium_failure(&error, offset >> unit.block_shift, false))
    };
    let first = ask(start, limit).await?;
    let (allocated, bytes) = if first.allocated {
        (true, first.length_bytes.next_multiple_of(block).min(limit))
    } else if first.length_bytes >= block {
        (false, first.length_bytes - first.length_bytes % block)
    } else {
        // A hole that ends within its block: mapped if anything in the block is.
        let mut bytes = first.length_bytes;
        let mut allocated = false;
        while bytes < block && !allocated {
            let next = ask(start + bytes, block - bytes).await?;
            allocated = next.allocated;
            bytes += next.length_bytes.max(1);
        }
        (allocated, block)
    };
    let blocks = (bytes >> unit.block_shift).clamp(1, u64::from(u32::MAX));
    Ok(LbaStatus {
        lba,
        length_blocks: blocks as u32,
        status: if allocated {
            ProvisioningStatus::Mapped
        } else {
            ProvisioningStatus::Deallocated
        },
    })
}
