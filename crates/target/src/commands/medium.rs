//! Capacity, cache, defects, start and stop: short commands about the medium (SBC-3).

use std::sync::atomic::Ordering::SeqCst;

use scsi::capacity::Capacity;
use scsi::cdb::{
    PreventAllowMediumRemoval, ReadCapacity16, ReadDefectData, StartStopUnit, SynchronizeCache,
};
use scsi::{Sense, defects, truncated};
use volume::block_device::BlockDevice;

use super::Reply;
use super::read_write::flush;
use crate::gate::GateWord;
use crate::response::Failure;
use crate::task::Task;

/// READ CAPACITY(10).
pub(crate) fn read_capacity_10<D: BlockDevice>(task: &Task<D>) -> Result<Reply, Failure> {
    task.allowed()?;
    Ok(Reply::data(capacity(task).encode10()))
}

/// READ CAPACITY(16).
pub(crate) fn read_capacity_16<D: BlockDevice>(
    task: &Task<D>,
    command: &ReadCapacity16,
) -> Result<Reply, Failure> {
    task.allowed()?;
    let data = capacity(task).encode16();
    Ok(Reply::data(truncated(data, command.allocation_length)))
}

fn capacity<D: BlockDevice>(task: &Task<D>) -> Capacity {
    let unit = &task.attached().unit;
    Capacity {
        last_lba: unit.capacity_blocks().saturating_sub(1),
        // 512 or 4096.
        block_length_bytes: unit.block_bytes() as u32,
        // What lies below writes blocks of any size whole; that 4 KiB is the better unit is said by the optimal
        // granularities of the Block Limits page.
        physical_block_exponent: 0,
        lowest_aligned_lba: 0,
        provisioning_management: true,
        unmapped_reads_zeroes: true,
    }
}

/// SYNCHRONIZE CACHE(10), (16). The whole volume is flushed, whatever the range: there is no smaller unit below.
pub(crate) async fn synchronize_cache<D: BlockDevice>(
    task: &Task<D>,
    command: &SynchronizeCache,
) -> Result<Reply, Failure> {
    let admitted = task.admit()?;
    if command.immediate {
        let unit = task.attached().unit.clone();
        task.attached()
            .target
            .shared
            .runtime
            .spawn(Box::pin(async move {
                if let Err(error) = unit.volume.flush().await {
                    tracing::error!(lun = unit.lun, %error, "flush after IMMED");
                }
            }));
        return Ok(Reply::good());
    }
    flush(&admitted, command.lba).await?;
    Ok(Reply::good())
}

/// PRE-FETCH(10), (16). GOOD rather than CONDITION MET: there is no cache of which it could be said that all blocks
/// fit (SBC-3 5.10).
pub(crate) fn pre_fetch<D: BlockDevice>(task: &Task<D>) -> Result<Reply, Failure> {
    task.admit()?;
    Ok(Reply::good())
}

/// READ DEFECT DATA(10), (12): both lists exist and are empty, in whatever format was asked for.
pub(crate) fn read_defect_data<D: BlockDevice>(
    task: &Task<D>,
    command: &ReadDefectData,
) -> Result<Reply, Failure> {
    task.admit()?;
    let data = defects::encode_empty(command);
    Ok(Reply::data(truncated(data, command.allocation_length)))
}

/// START STOP UNIT (SBC-3 5.25). Stopping flushes, unless told not to; there are no power conditions but ACTIVE.
pub(crate) async fn start_stop<D: BlockDevice>(
    task: &Task<D>,
    command: &StartStopUnit,
) -> Result<Reply, Failure> {
    task.allowed()?;
    let unit = &task.attached().unit;
    if command.power_condition != 0 {
        return Err(Sense::invalid_field_in_cdb(4, Some(7)).into());
    }
    if command.load_eject {
        // The medium is not removable.
        return Err(Sense::invalid_field_in_cdb(4, Some(1)).into());
    }
    if command.start {
        unit.condition.set_stopped(false);
        unit.refresh_readiness();
        return Ok(Reply::good());
    }
    {
        let _change = unit.change.lock().await;
        task.allowed()?;
        unit.condition.set_stopped(true);
        unit.set_gates(GateWord::NOT_READY, true);
        unit.drain_all().await;
    }
    if !command.no_flush {
        let result = unit.volume.flush().await;
        result.map_err(|error| super::medium_failure(&error, 0, true))?;
    }
    Ok(Reply::good())
}

/// PREVENT ALLOW MEDIUM REMOVAL (SPC-4 6.13): remembered for each nexus; the medium is not removable anyway.
pub(crate) fn prevent_allow<D: BlockDevice>(
    task: &Task<D>,
    command: &PreventAllowMediumRemoval,
) -> Result<Reply, Failure> {
    task.allowed()?;
    let nexus = &task.attached().nexus;
    nexus.prevents_removal.store(command.prevent, SeqCst);
    Ok(Reply::good())
}
