//! VERIFY and WRITE AND VERIFY (SBC-3 5.28 on, 5.36 on).

use bytes::Bytes;
use scsi::Sense;
use scsi::cdb::{ByteCheck, Verify};
use volume::block_device::{BlockDevice, aligned_buffer};

use super::Reply;
use super::read_write::{CHUNK_BYTES, flush, read_into, write_from};
use crate::response::Failure;
use crate::task::{Admitted, Task};

/// VERIFY(10), (12), (16).
pub(crate) async fn verify<D: BlockDevice>(
    task: &Task<D>,
    command: &Verify,
    data: Bytes,
) -> Result<Reply, Failure> {
    let admitted = task.admit()?;
    let data = task.data(data)?;
    let _range = admitted
        .share(command.lba, command.length_blocks.into())
        .await;
    let expected = match command.byte_check {
        ByteCheck::Medium => Expected::Anything,
        ByteCheck::Compare => Expected::Bytes(&data),
        ByteCheck::CompareOneBlock => Expected::Repeated(&data),
    };
    compare(
        &admitted,
        command.lba,
        command.length_blocks.into(),
        expected,
    )
    .await?;
    Ok(Reply::good())
}

/// WRITE AND VERIFY(10), (12), (16): the data is on the medium, and read back from below, before the answer.
pub(crate) async fn write_and_verify<D: BlockDevice>(
    task: &Task<D>,
    command: &Verify,
    data: Bytes,
) -> Result<Reply, Failure> {
    let admitted = task.admit()?;
    let data = task.data(data)?;
    let blocks = data.len() as u64 >> admitted.unit().block_shift;
    let _range = admitted.share(command.lba, blocks).await;
    write_from(&admitted, command.lba, data.clone()).await?;
    flush(&admitted, command.lba).await?;
    let expected = match command.byte_check {
        ByteCheck::Medium => Expected::Anything,
        ByteCheck::Compare | ByteCheck::CompareOneBlock => Expected::Bytes(&data),
    };
    compare(&admitted, command.lba, blocks, expected).await?;
    Ok(Reply::good())
}

enum Expected<'a> {
    /// The blocks only have to be readable.
    Anything,
    /// The blocks hold these bytes.
    Bytes(&'a [u8]),
    /// Every block holds these bytes, one block.
    Repeated(&'a [u8]),
}

/// Reads `blocks` from `lba` in parts and compares; a difference is MISCOMPARE with its offset in the data-out.
async fn compare<D: BlockDevice>(
    admitted: &Admitted<'_, D>,
    lba: u64,
    blocks: u64,
    expected: Expected<'_>,
) -> Result<(), Failure> {
    let unit = admitted.unit();
    let total = blocks << unit.block_shift;
    let mut done = 0;
    while done < total {
        if done > 0 {
            admitted.recheck()?;
        }
        let length = (total - done).min(CHUNK_BYTES as u64) as usize;
        let at = lba + (done >> unit.block_shift);
        let medium = read_into(admitted, at, aligned_buffer(length)).await?;
        let different = match expected {
            Expected::Anything => None,
            Expected::Bytes(bytes) => {
                let start = done as usize;
                first_difference(&medium, &bytes[start..start + length]).map(|offset| done + offset)
            }
            Expected::Repeated(block) => medium
                .chunks_exact(block.len().max(1))
                .find_map(|part| first_difference(part, block)),
        };
        if let Some(offset) = different {
            return Err(Sense::miscompare(offset).into());
        }
        done += length as u64;
    }
    Ok(())
}

/// Offset of the first byte in which two slices of one length differ.
pub(crate) fn first_difference(a: &[u8], b: &[u8]) -> Option<u64> {
    if a == b {
        return None;
    }
    let offset = a.iter().zip(b).position(|(a, b)| a != b);
    Some(offset.unwrap_or(a.len().min(b.len())) as u64)
}
