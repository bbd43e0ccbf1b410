//! MODE SENSE and MODE SELECT (SPC-4 6.11 to 6.14).

use bytes::Bytes;
use scsi::cdb::{ModeSelect, ModeSense};
use scsi::mode::{
    BlockDescriptor, CachingPage, ControlPage, InformationalExceptionsPage, ModeData, ModePages,
    mode_select, mode_sense,
};
use scsi::truncated;
use scsi::unit_attention::UnitAttention;
use volume::block_device::BlockDevice;

use super::Reply;
use crate::gate::{GateWord, Grant};
use crate::response::Failure;
use crate::task::Task;
use crate::unit::LogicalUnit;
use crate::unit::mode::ModeParameters;

/// Default values of all pages.
const DEFAULT: ModePages = ModePages {
    caching: CachingPage {
        write_cache_enable: true,
        read_cache_disable: false,
    },
    control: ControlPage {
        task_set_type: 1,
        task_management_only: false,
        descriptor_sense: false,
        global_logging_target_save_disable: false,
        queue_algorithm_modifier: 1,
        queue_error: 0,
        unit_attention_interlock: 0,
        software_write_protect: false,
        task_aborted_status: ModeParameters::DEFAULT_TAS,
        busy_timeout_100ms: 0,
    },
    informational_exceptions: InformationalExceptionsPage {
        disable_exceptions: true,
        method: 0,
    },
};

fn current<D: BlockDevice>(unit: &LogicalUnit<D>) -> ModePages {
    ModePages {
        control: ControlPage {
            descriptor_sense: unit.mode.descriptor_sense(),
            software_write_protect: unit.mode.write_protected(),
            task_aborted_status: unit.mode.task_aborted_status(),
            ..DEFAULT.control
        },
        ..DEFAULT
    }
}

fn block_descriptor<D: BlockDevice>(unit: &LogicalUnit<D>) -> BlockDescriptor {
    BlockDescriptor {
        blocks: unit.capacity_blocks(),
        // 512 or 4096.
        block_length_bytes: unit.block_bytes() as u32,
    }
}

/// MODE SENSE(6), (10).
pub(crate) fn sense<D: BlockDevice>(task: &Task<D>, command: &ModeSense) -> Result<Reply, Failure> {
    task.allowed()?;
    let attached = task.attached();
    let unit = &attached.unit;
    let read_only = attached.nexus.gate.word().grant() != Grant::ReadWrite;
    let data = mode_sense(
        command,
        &ModeData {
            write_protected: read_only || unit.mode.write_protected(),
            dpo_fua: true,
            block: block_descriptor(unit),
            current: current(unit),
            changeable: ModePages::CHANGEABLE,
            default: DEFAULT,
        },
    )?;
    Ok(Reply::data(truncated(
        data,
        command.allocation_length.into(),
    )))
}

/// MODE SELECT(6), (10). Others are told; write protection is in force, and all writes have ended, at the answer.
pub(crate) async fn select<D: BlockDevice>(
    task: &Task<D>,
    command: &ModeSelect,
    list: Bytes,
) -> Result<Reply, Failure> {
    let list = task.data(list)?;
    task.allowed()?;
    let attached = task.attached();
    let unit = &attached.unit;
    let _change = unit.change.lock().await;
    task.allowed()?;
    let pages = mode_select(
        command,
        &list,
        &current(unit),
        &ModePages::CHANGEABLE,
        block_descriptor(unit),
    )?;
    let control = pages.control;
    let protect = control.software_write_protect;
    let protect_now = protect && !unit.mode.write_protected();
    let changed = unit.mode.set(
        control.descriptor_sense,
        protect,
        control.task_aborted_status,
    );
    if !changed {
        return Ok(Reply::good());
    }
    unit.set_gates(GateWord::WRITE_PROTECTED, protect);
    if protect_now {
        unit.drain_all().await;
    }
    unit.attention_all(
        UnitAttention::ModeParametersChanged,
        Some(&attached.nexus.nexus),
    );
    Ok(Reply::good())
}
