//! READ and WRITE.

use bytes::{Bytes, BytesMut};
use scsi::cdb::Transfer;
use volume::block_device::{BlockDevice, aligned_buffer};

use super::exclusive::write_partial;
use super::{Reply, medium_failure};
use crate::response::Failure;
use crate::task::{Admitted, Task};

/// Long transfers are carried out in parts of this many bytes, with a look at the gate between them.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// READ(6), (10), (12), (16).
pub(crate) async fn read<D: BlockDevice>(
    task: &Task<D>,
    transfer: &Transfer,
) -> Result<Reply, Failure> {
    let admitted = task.admit()?;
    let unit = &task.attached().unit;
    let asked = u64::from(transfer.length_blocks) << unit.block_shift;
    let blocks = asked.min(task.data_in_bytes).div_ceil(unit.block_bytes());
    let _range = admitted.share(transfer.lba, blocks).await;
    // At most MAXIMUM TRANSFER LENGTH.
    let buffer = aligned_buffer((blocks << unit.block_shift) as usize);
    let mut data = read_into(&admitted, transfer.lba, buffer).await?;
    data.truncate(asked.min(task.data_in_bytes) as usize);
    Ok(Reply {
        transfer_length_bytes: Some(asked),
        ..Reply::data(data)
    })
}

/// Fills `buffer`, whole blocks, from `lba`.
pub(crate) async fn read_into<D: BlockDevice>(
    admitted: &Admitted<'_, D>,
    lba: u64,
    mut buffer: BytesMut,
) -> Result<BytesMut, Failure> {
    let unit = admitted.unit();
    let offset = lba << unit.block_shift;
    if buffer.len() <= CHUNK_BYTES {
        if buffer.is_empty() {
            return Ok(buffer);
        }
        let (result, buffer) = admitted.io(unit.volume.read(offset, buffer)).await;
        return match result {
            Ok(()) => Ok(buffer),
            Err(error) => Err(medium_failure(&error, lba, false)),
        };
    }
    let mut rest = buffer.split_off(0);
    let mut done = BytesMut::new();
    while !rest.is_empty() {
        if !done.is_empty() {
            admitted.recheck()?;
        }
        let part = rest.split_to(rest.len().min(CHUNK_BYTES));
        let at = offset + done.len() as u64;
        let (result, part) = admitted.io(unit.volume.read(at, part)).await;
        result.map_err(|error| medium_failure(&error, at >> unit.block_shift, false))?;
        // The parts come from one buffer and join again without copying.
        if done.is_empty() {
            done = part;
        } else {
            done.unsplit(part);
        }
    }
    Ok(done)
}

/// WRITE(6), (10), (12), (16).
pub(crate) async fn write<D: BlockDevice>(
    task: &Task<D>,
    transfer: &Transfer,
    data: Bytes,
) -> Result<Reply, Failure> {
    let data = task.data(data)?;
    if !(data.len() as u64).is_multiple_of(task.attached().unit.block_bytes()) {
        return Box::pin(write_partial(task, transfer, data)).await;
    }
    let admitted = task.admit()?;
    let blocks = data.len() as u64 >> admitted.unit().block_shift;
    let _range = admitted.share(transfer.lba, blocks).await;
    write_from(&admitted, transfer.lba, data).await?;
    if transfer.fua {
        flush(&admitted, transfer.lba).await?;
    }
    Ok(Reply::good())
}

/// Writes `data`, whole blocks, at `lba`.
pub(crate) async fn write_from<D: BlockDevice>(
    admitted: &Admitted<'_, D>,
    lba: u64,
    mut data: Bytes,
) -> Result<(), Failure> {
    let unit = admitted.unit();
    let mut offset = lba << unit.block_shift;
    while !data.is_empty() {
        let part = data.split_to(data.len().min(CHUNK_BYTES));
        let length = part.len() as u64;
        let result = admitted.io(unit.volume.write(offset, part)).await;
        result.map_err(|error| medium_failure(&error, offset >> unit.block_shift, true))?;
        offset += length;
        if !data.is_empty() {
            admitted.recheck()?;
        }
    }
    Ok(())
}

/// Makes everything written durable.
pub(crate) async fn flush<D: BlockDevice>(
    admitted: &Admitted<'_, D>,
    lba: u64,
) -> Result<(), Failure> {
    let result = admitted.io(admitted.unit().volume.flush()).await;
    result.map_err(|error| medium_failure(&error, lba, true))
}
