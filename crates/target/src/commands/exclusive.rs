//! COMPARE AND WRITE, ORWRITE and WRITE ATOMIC: commands that no other I/O on their blocks may come between.

use bytes::{Bytes, BytesMut};
use scsi::Sense;
use scsi::cdb::{CompareAndWrite, Transfer, WriteAtomic16};
use volume::block_device::{BlockDevice, aligned_buffer};

use super::read_write::{flush, read_into, write_from};
use super::verify::first_difference;
use super::{Reply, medium_failure};
use crate::range_lock::RangeGuard;
use crate::response::Failure;
use crate::task::{Admitted, Task};

/// Enters the gate and gets the blocks for itself.
async fn exclude<D: BlockDevice>(
    task: &Task<D>,
    lba: u64,
    blocks: u64,
) -> Result<(Admitted<'_, D>, RangeGuard<'_>), Failure> {
    let unit = &task.attached().unit;
    loop {
        if !unit.ranges.is_armed() {
            // Not counted in flight here: the drain below would wait for this task.
            let _change = unit.change.lock().await;
            if !unit.ranges.is_armed() {
                unit.ranges.turn_on();
                unit.drain_all().await;
                unit.ranges.arm();
            }
        }
        let admitted = task.admit()?;
        if let Some(range) = unit.ranges.exclusive(lba, blocks).await {
            // It may have waited long.
            admitted.recheck()?;
            return Ok((admitted, range));
        }
    }
}

/// COMPARE AND WRITE (SBC-3 5.2).
pub(crate) async fn compare_and_write<D: BlockDevice>(
    task: &Task<D>,
    command: &CompareAndWrite,
    data: Bytes,
) -> Result<Reply, Failure> {
    let data = task.data(data)?;
    if data.is_empty() {
        task.admit()?;
        return Ok(Reply::good());
    }
    let blocks = u64::from(command.length_blocks);
    let (admitted, _range) = exclude(task, command.lba, blocks).await?;
    let (expected, new) = data.split_at(data.len() / 2);
    let medium = read_into(&admitted, command.lba, aligned_buffer(expected.len())).await?;
    if let Some(offset) = first_difference(&medium, expected) {
        return Err(Sense::miscompare(offset).into());
    }
    // A copy, so that the buffer is aligned although it is the second half of one.
    let mut buffer = medium;
    buffer.copy_from_slice(new);
    write_back(&admitted, command.lba, buffer, command.fua).await
}

/// Writes what was read and changed, if the nexus still may.
async fn write_back<D: BlockDevice>(
    admitted: &Admitted<'_, D>,
    lba: u64,
    medium: BytesMut,
    fua: bool,
) -> Result<Reply, Failure> {
    admitted.recheck()?;
    write_from(admitted, lba, medium.freeze()).await?;
    if fua {
        flush(admitted, lba).await?;
    }
    Ok(Reply::good())
}

/// ORWRITE(16) (SBC-3 5.8).
pub(crate) async fn or_write<D: BlockDevice>(
    task: &Task<D>,
    command: &Transfer,
    data: Bytes,
) -> Result<Reply, Failure> {
    let data = task.data(data)?;
    if data.is_empty() {
        task.admit()?;
        return Ok(Reply::good());
    }
    let (admitted, _range) = exclude(task, command.lba, command.length_blocks.into()).await?;
    let mut medium: BytesMut =
        read_into(&admitted, command.lba, aligned_buffer(data.len())).await?;
    for (old, new) in medium.iter_mut().zip(&data) {
        *old |= new;
    }
    write_back(&admitted, command.lba, medium, command.fua).await
}

/// A WRITE whose data ends within a block, because the initiator announced less than the CDB asks for: what came is
/// written, and the rest of its last block stays as it is.
pub(crate) async fn write_partial<D: BlockDevice>(
    task: &Task<D>,
    command: &Transfer,
    mut data: Bytes,
) -> Result<Reply, Failure> {
    let block = task.attached().unit.block_bytes();
    let length = data.len() as u64;
    let (admitted, _range) = exclude(task, command.lba, length.div_ceil(block)).await?;
    let whole_blocks = length / block;
    // Below the length, which is one of a slice.
    let whole = data.split_to((whole_blocks * block) as usize);
    write_from(&admitted, command.lba, whole).await?;
    let last = command.lba + whole_blocks;
    let mut medium = read_into(&admitted, last, aligned_buffer(block as usize)).await?;
    medium[..data.len()].copy_from_slice(&data);
    admitted.recheck()?;
    write_from(&admitted, last, medium.freeze()).await?;
    if command.fua {
        flush(&admitted, command.lba).await?;
    }
    Ok(Reply::good())
}

/// WRITE ATOMIC(16) (SBC-4 5.48): all or nothing, through a power cut too, and durable at the answer.
pub(crate) async fn write_atomic<D: BlockDevice>(
    task: &Task<D>,
    command: &WriteAtomic16,
    data: Bytes,
) -> Result<Reply, Failure> {
    let data = task.data(data)?;
    if data.is_empty() {
        task.admit()?;
        return Ok(Reply::good());
    }
    let (admitted, _range) = exclude(task, command.lba, command.length_blocks.into()).await?;
    let unit = admitted.unit();
    let write = unit
        .volume
        .write_atomic(command.lba << unit.block_shift, data);
    let result = admitted.io(write).await;
    result.map_err(|error| medium_failure(&error, command.lba, true))?;
    Ok(Reply::good())
}
