//! EXTENDED COPY(LID1), block device to block device within the target, and RECEIVE COPY RESULTS (SPC-4 5.16, 6.4,
//! 6.17 on).
//!
//! A copy reads its source and writes its destination as the nexus that sent it: for each of them it enters the gate
//! of that nexus, as a READ and as a WRITE, and looks again between the parts. A fence on either logical unit waits
//! for the part in flight and stops the rest.

use std::sync::Arc;

use bytes::Bytes;
use scsi::cdb::{CommandId, ReceiveCopyAction, ReceiveCopyResults};
use scsi::copy::{
    BLOCK_TO_BLOCK, CopyLimits, CopyList, CopyStatus, CopyStatusCode, Cscd, IDENTIFICATION_CSCD,
    ListIdUsage, OperatingParameters, Segment, SegmentBody, encode_no_held_data,
};
use scsi::sense::AdditionalSense;
use scsi::{Sense, truncated};
use volume::block_device::{BlockDevice, aligned_buffer};

use super::Reply;
use super::inquiry::VENDOR;
use super::read_write::{CHUNK_BYTES, read_into, write_from};
use crate::response::Failure;
use crate::session::Attached;
use crate::task::{Admitted, Task};
use crate::unit::LogicalUnit;

const LIMITS: CopyLimits = CopyLimits {
    cscds: 16,
    segments: 64,
    descriptor_list_bytes: 4096,
    inline_data_bytes: 0,
};

/// THIRD PARTY DEVICE FAILURE (SPC-4 annex F).
const THIRD_PARTY_DEVICE_FAILURE: AdditionalSense = AdditionalSense {
    code: 0x0d,
    qualifier: 0x01,
};

/// What RECEIVE COPY RESULTS tells about an EXTENDED COPY that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyResult {
    list_identifier: u8,
    status: CopyStatus,
}

/// EXTENDED COPY.
pub(crate) async fn extended_copy<D: BlockDevice>(
    task: &Task<D>,
    list: Bytes,
) -> Result<Reply, Failure> {
    let list = task.data(list)?;
    // In flight here too, so that what aborts or forbids the command on this logical unit waits for the part that is
    // being written, wherever that is.
    let admitted = task.admit()?;
    if list.is_empty() {
        return Ok(Reply::good());
    }
    let list = CopyList::parse(&list, &LIMITS)?;
    if list
        .segments
        .iter()
        .any(|segment| !matches!(segment.body, SegmentBody::Blocks { .. }))
    {
        let additional = AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE;
        return Err(Sense::illegal_request(additional).into());
    }
    let mut progress = Progress::default();
    let result = copy_segments(task, &admitted, &list, &mut progress).await;
    if list.list_id_usage == ListIdUsage::Hold {
        let status = CopyStatus {
            held_data_discarded: false,
            status: match result {
                Ok(()) => CopyStatusCode::Completed,
                Err(_) => CopyStatusCode::Failed,
            },
            segments_processed: progress.segments,
            // Bytes when they fit, else MiB.
            transfer_count_units: if progress.bytes <= u32::MAX.into() {
                0
            } else {
                2
            },
            transfer_count: u32::try_from(progress.bytes)
                .unwrap_or((progress.bytes >> 20).min(u32::MAX.into()) as u32),
        };
        *task.attached().nexus.copy_result.lock() = Some(CopyResult {
            list_identifier: list.list_identifier,
            status,
        });
    }
    result.map(|()| Reply::good())
}

#[derive(Default)]
struct Progress {
    segments: u16,
    bytes: u64,
}

async fn copy_segments<D: BlockDevice>(
    task: &Task<D>,
    admitted: &Admitted<'_, D>,
    list: &CopyList,
    progress: &mut Progress,
) -> Result<(), Failure> {
    for segment in &list.segments {
        let source = find(task, list.cscds.get(usize::from(segment.source)))?;
        let destination = find(task, list.cscds.get(usize::from(segment.destination)))?;
        progress.bytes += copy_segment(task, admitted, segment, &source, &destination).await?;
        progress.segments += 1;
    }
    Ok(())
}

/// The logical unit that a CSCD descriptor names, if the nexus may see it.
fn find<D: BlockDevice>(task: &Task<D>, cscd: Option<&Cscd>) -> Result<Arc<Attached<D>>, Failure> {
    let unreachable = || {
        Failure::from(Sense::copy_aborted(
            AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE,
        ))
    };
    let cscd = cscd.ok_or_else(unreachable)?;
    let target = &task.attached().target;
    let unit = target
        .logical_units()
        .into_iter()
        .find(|unit| names(cscd, unit))
        .ok_or_else(unreachable)?;
    target
        .session(&task.attached().nexus.nexus)
        .and_then(|session| session.visible(unit.lun))
        .ok_or_else(unreachable)
}

/// Does the designator of the descriptor name the logical unit? (NAA or T10 vendor ID, as the Device Identification
/// page gives them; a T10 designator is cut to what the descriptor holds, and then has to be a prefix.)
fn names<D: BlockDevice>(cscd: &Cscd, unit: &LogicalUnit<D>) -> bool {
    const ASSOCIATION_LOGICAL_UNIT: u8 = 0;
    const T10_VENDOR_ID: u8 = 1;
    const NAA: u8 = 3;
    if cscd.association != ASSOCIATION_LOGICAL_UNIT {
        return false;
    }
    let record = unit.volume.record();
    match cscd.designator_type {
        NAA => record.naa_bytes().is_some_and(|naa| cscd.designator == naa),
        T10_VENDOR_ID => {
            let designator = format!("{VENDOR:8}{}", record.serial);
            cscd.designator.len() > VENDOR.len() + 4
                && (designator.as_bytes() == cscd.designator
                    || cscd.designator.len() == 20
                        && designator.as_bytes().starts_with(&cscd.designator))
        }
        _ => false,
    }
}

/// Copies one segment; returns the bytes written.
async fn copy_segment<D: BlockDevice>(
    task: &Task<D>,
    admitted: &Admitted<'_, D>,
    segment: &Segment,
    source: &Arc<Attached<D>>,
    destination: &Arc<Attached<D>>,
) -> Result<u64, Failure> {
    let SegmentBody::Blocks {
        destination_count,
        length_blocks,
    } = segment.body
    else {
        return Err(
            Sense::illegal_request(AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE).into(),
        );
    };
    let counted = if destination_count {
        destination
    } else {
        source
    };
    let bytes = u64::from(length_blocks) << counted.unit.block_shift;
    let (from, to) = (
        Side::new(&source.unit, segment.source_lba, bytes)?,
        Side::new(&destination.unit, segment.destination_lba, bytes)?,
    );
    let reader = Admitted::enter(task, source, CommandId::Read16).map_err(third_party)?;
    let writer = Admitted::enter(task, destination, CommandId::Write16).map_err(third_party)?;
    // Where the destination overlaps the end of the source, the copy goes backwards.
    let backwards = Arc::ptr_eq(&source.unit, &destination.unit) && to.lba > from.lba;
    let mut done = 0;
    while done < bytes {
        admitted.recheck()?;
        if done > 0 {
            reader.recheck().map_err(third_party)?;
            writer.recheck().map_err(third_party)?;
        }
        let length = (bytes - done).min(CHUNK_BYTES as u64);
        let at = if backwards {
            bytes - done - length
        } else {
            done
        };
        let buffer = aligned_buffer(length as usize);
        let source_lba = from.lba + (at >> source.unit.block_shift);
        // One range at a time: to hold one while waiting for another would let two such commands, or this one and an
        // exclusive one, wait for each other.
        let data = {
            let blocks = length >> source.unit.block_shift;
            let _range = reader.share(source_lba, blocks).await;
            read_into(&reader, source_lba, buffer).await
        };
        let data = data.map_err(third_party)?;
        let destination_lba = to.lba + (at >> destination.unit.block_shift);
        let _range = writer
            .share(destination_lba, length >> destination.unit.block_shift)
            .await;
        write_from(&writer, destination_lba, data.freeze())
            .await
            .map_err(third_party)?;
        done += length;
    }
    Ok(bytes)
}

/// One end of a segment.
struct Side {
    lba: u64,
}

impl Side {
    fn new<D: BlockDevice>(unit: &LogicalUnit<D>, lba: u64, bytes: u64) -> Result<Self, Failure> {
        if !bytes.is_multiple_of(unit.block_bytes()) {
            // Neither CAT nor PAD is acted upon: only whole blocks are copied.
            return Err(Sense::copy_aborted(AdditionalSense::UNEXPECTED_INEXACT_SEGMENT).into());
        }
        let blocks = bytes >> unit.block_shift;
        match lba.checked_add(blocks) {
            Some(end) if end <= unit.capacity_blocks() => Ok(Self { lba }),
            _ => Err(Sense::copy_aborted(AdditionalSense::NONE).into()),
        }
    }
}

/// What went wrong at one end, as the end of the copy.
fn third_party(failure: Failure) -> Failure {
    match failure {
        Failure::Aborted => Failure::Aborted,
        Failure::Check(_) | Failure::Conflict | Failure::Status(_) => {
            Sense::copy_aborted(THIRD_PARTY_DEVICE_FAILURE).into()
        }
    }
}

/// RECEIVE COPY STATUS, DATA, OPERATING PARAMETERS and FAILURE DETAILS.
pub(crate) fn receive_results<D: BlockDevice>(
    task: &Task<D>,
    command: &ReceiveCopyResults,
) -> Result<Reply, Failure> {
    task.allowed()?;
    let data = match command.action {
        ReceiveCopyAction::OperatingParameters => OperatingParameters {
            supports_no_list_identifier: true,
            maximum_cscd_descriptors: LIMITS.cscds,
            maximum_segment_descriptors: LIMITS.segments,
            maximum_descriptor_list_bytes: LIMITS.descriptor_list_bytes,
            // 65535 blocks of 4096 bytes.
            maximum_segment_bytes: 0xffff << 12,
            maximum_inline_data_bytes: LIMITS.inline_data_bytes,
            held_data_limit_bytes: 0,
            total_concurrent_copies: 255,
            maximum_concurrent_copies: 255,
            data_segment_granularity_log2: 9,
            descriptor_types: vec![BLOCK_TO_BLOCK, IDENTIFICATION_CSCD],
        }
        .encode(),
        action => {
            let held = *task.attached().nexus.copy_result.lock();
            let result = held
                .filter(|held| held.list_identifier == command.list_identifier)
                .ok_or_else(|| Sense::invalid_field_in_cdb(2, None))?;
            match action {
                ReceiveCopyAction::CopyStatus => result.status.encode(),
                _ => encode_no_held_data(),
            }
        }
    };
    Ok(Reply::data(truncated(data, command.allocation_length)))
}
