//! SANITIZE (SBC-3 4.11, 5.24).
//!
//! The operation belongs to the logical unit, not to the task that asked for it: once begun it goes on through task
//! management, resets and the loss of the nexus. While it runs every command but a few ends with NOT READY, SANITIZE IN
//! PROGRESS, PERSISTENT RESERVE OUT among them, so none is answered meanwhile.
//!
//! A fence stops it: the writes of a fenced initiator end before the fence is answered. The medium is neither old nor
//! clean then, and the logical unit says so until it is sanitized anew.
//!
//! **Restart.** That an operation is running is not stored. When the program ends before it does, the medium is partly
//! sanitized and served as it is afterwards; the initiator that waits has no answer and has to ask again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use event_listener::listener;
use futures_lite::future::or;
use scsi::Sense;
use scsi::cdb::{Sanitize, SanitizeAction};
use scsi::sanitize::OverwriteParameters;
use volume::VolumeError;
use volume::block_device::BlockDevice;

use super::Reply;
use super::provisioning::repeated;
use super::read_write::CHUNK_BYTES;
use crate::gate::GateWord;
use crate::response::Failure;
use crate::runtime::EventKind;
use crate::task::Task;
use crate::unit::LogicalUnit;

/// BLOCK ERASE goes in parts of this many bytes, so that there is progress to report.
const ERASE_CHUNK_BYTES: u64 = 1 << 30;

/// What is done to every block.
enum Method {
    /// The pattern, one chunk long, and whether every other pass inverts it.
    Overwrite {
        pattern: Bytes,
        passes: u8,
        invert: bool,
    },
    BlockErase,
}

/// SANITIZE.
pub(crate) async fn sanitize<D: BlockDevice>(
    task: &Task<D>,
    command: &Sanitize,
    list: Bytes,
) -> Result<Reply, Failure> {
    let list = task.data(list)?;
    task.allowed()?;
    let attached = task.attached();
    let unit = &attached.unit;
    let method = match command.action {
        SanitizeAction::Overwrite => overwrite(unit, &list)?,
        SanitizeAction::BlockErase => Method::BlockErase,
        SanitizeAction::CryptographicErase => {
            return Err(Sense::invalid_field_in_cdb(1, Some(4)).into());
        }
        SanitizeAction::ExitFailureMode => {
            if !unit.condition.exit_sanitize_failure() {
                return Err(Sense::invalid_field_in_cdb(1, Some(4)).into());
            }
            unit.refresh_readiness();
            return Ok(Reply::good());
        }
    };
    {
        let _change = unit.change.lock().await;
        // Reservations may have changed while this waited.
        task.allowed()?;
        if !unit.condition.begin_sanitize(
            &attached.nexus.nexus.initiator.name,
            command.allow_unrestricted_exit,
        ) {
            return Err(unit
                .condition
                .sense()
                .unwrap_or_else(|| Sense::sanitize_in_progress(0))
                .into());
        }
        unit.set_gates(GateWord::NOT_READY, true);
        unit.drain_all().await;
    }
    unit.record(Some(&attached.nexus), EventKind::SanitizeStarted);
    let running = unit.clone();
    unit.shared.runtime.spawn(Box::pin(async move {
        run(&running, &method).await;
    }));
    if command.immediate {
        return Ok(Reply::good());
    }
    let ended = async {
        loop {
            listener!(unit.condition.sanitize_ended => ended);
            if unit.condition.sanitize_progress().is_none() {
                return true;
            }
            ended.await;
        }
    };
    let aborted = async {
        task.until_aborted().await;
        false
    };
    if !or(ended, aborted).await {
        return Err(Failure::Aborted);
    }
    if unit.condition.has_sanitize_failed() {
        return Err(Sense::sanitize_failed().into());
    }
    Ok(Reply::good())
}

fn overwrite<D: BlockDevice>(unit: &LogicalUnit<D>, list: &[u8]) -> Result<Method, Failure> {
    // 512 or 4096.
    let block_bytes = unit.block_bytes() as u32;
    let parameters = OverwriteParameters::parse(list, block_bytes)?;
    let block: Vec<u8> = parameters
        .pattern
        .iter()
        .copied()
        .cycle()
        .take(block_bytes as usize)
        .collect();
    Ok(Method::Overwrite {
        pattern: repeated(&block, CHUNK_BYTES),
        passes: parameters.passes,
        invert: parameters.invert,
    })
}

async fn run<D: BlockDevice>(unit: &Arc<LogicalUnit<D>>, method: &Method) {
    let complete = match erase(unit, method).await {
        Ok(complete) => complete,
        Err(error) => {
            tracing::error!(lun = unit.lun, %error, "SANITIZE failed");
            false
        }
    };
    unit.condition.end_sanitize(complete);
    unit.refresh_readiness();
    unit.record(None, EventKind::SanitizeEnded { complete });
}

/// False when the logical unit was removed meanwhile, or who began it was fenced.
async fn erase<D: BlockDevice>(
    unit: &Arc<LogicalUnit<D>>,
    method: &Method,
) -> Result<bool, VolumeError> {
    let size = unit.capacity_blocks() << unit.block_shift;
    let (passes, chunk) = match method {
        Method::Overwrite { passes, .. } => (u64::from(*passes), CHUNK_BYTES as u64),
        Method::BlockErase => (1, ERASE_CHUNK_BYTES),
    };
    for pass in 0..passes {
        let pattern = match method {
            Method::Overwrite {
                pattern, invert, ..
            } if *invert && pass % 2 == 1 => inverted(pattern),
            Method::Overwrite { pattern, .. } => pattern.clone(),
            Method::BlockErase => Bytes::new(),
        };
        let mut offset = 0;
        while offset < size {
            if unit.is_removed() || unit.condition.is_sanitize_stopped() {
                return Ok(false);
            }
            let length = chunk.min(size - offset);
            match method {
                Method::Overwrite { .. } => {
                    let data = pattern.slice(..length as usize);
                    unit.volume.write(offset, data).await?;
                    pace(unit, length).await;
                }
                Method::BlockErase => unit.volume.write_zeroes(offset, length, true).await?,
            }
            offset += length;
            unit.condition
                .set_sanitize_progress(pass * size + offset, passes * size);
        }
        unit.volume.flush().await?;
    }
    Ok(true)
}

fn inverted(pattern: &Bytes) -> Bytes {
    let mut buffer = volume::block_device::aligned_buffer(pattern.len());
    for (to, from) in buffer.iter_mut().zip(pattern) {
        *to = !from;
    }
    buffer.freeze()
}

/// Keeps the rate below the configured limit.
async fn pace<D: BlockDevice>(unit: &LogicalUnit<D>, bytes: u64) {
    if let Some(rate) = unit.shared.config.sanitize_bytes_per_second {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
        let pause = Duration::from_nanos(nanoseconds);
        unit.shared.runtime.sleep(pause).await;
    }
}
