//! INQUIRY, REQUEST SENSE, TEST UNIT READY (SPC-4 6.6, 6.39, 6.47).

use scsi::cdb::{Inquiry, RequestSense};
use scsi::inquiry::{
    DIRECT_ACCESS_BLOCK_DEVICE, PeripheralQualifier, StandardInquiry, UNKNOWN_DEVICE_TYPE,
    version_descriptor,
};
use scsi::sense::SenseFormat;
use scsi::vpd::{
    Association, BlockDeviceCharacteristics, BlockLimits, CopyCommand, Designator, DesignatorBody,
    ExtendedInquiry, LogicalBlockProvisioning, ProvisioningType, encode_identification,
    encode_supported_pages, encode_third_party_copy, encode_unit_serial_number, page_code,
};
use scsi::{Sense, truncated};
use volume::block_device::BlockDevice;

use super::Reply;
use super::plan::{
    COMPARE_AND_WRITE_MAX_BLOCKS, TRANSFER_MAX_BYTES, UNMAP_MAX_BLOCKS, UNMAP_MAX_DESCRIPTORS,
    WRITE_SAME_MAX_BYTES,
};
use crate::response::Failure;
use crate::session::Attached;
use crate::target::Shared;
use crate::task::Task;

pub(crate) const VENDOR: &str = "RINGFNCE";
const PRODUCT: &str = "Shared volume";

/// The granularity in which space is given back and transfers are best aligned, in bytes.
const GRANULARITY_BYTES: u64 = 4096;

const PAGES: [u8; 8] = [
    page_code::SUPPORTED_PAGES,
    page_code::UNIT_SERIAL_NUMBER,
    page_code::DEVICE_IDENTIFICATION,
    page_code::EXTENDED_INQUIRY,
    page_code::THIRD_PARTY_COPY,
    page_code::BLOCK_LIMITS,
    page_code::BLOCK_DEVICE_CHARACTERISTICS,
    page_code::LOGICAL_BLOCK_PROVISIONING,
];

/// TEST UNIT READY.
pub(crate) fn test_unit_ready<D: BlockDevice>(task: &Task<D>) -> Result<Reply, Failure> {
    task.allowed()?;
    match task.attached().unit.condition.sense() {
        Some(sense) => Err(sense.into()),
        None => Ok(Reply::good()),
    }
}

/// REQUEST SENSE: a pending unit attention condition, which it clears, else the progress of what is running.
pub(crate) fn request_sense<D: BlockDevice>(
    task: &Task<D>,
    command: &RequestSense,
) -> Result<Reply, Failure> {
    let attached = task.attached();
    let sense = match attached.nexus.take_attention() {
        Some(attention) => attention.sense(),
        None => attached
            .unit
            .condition
            .sense()
            .unwrap_or_else(Sense::no_sense),
    };
    let data = sense.encode(SenseFormat::from_bit(command.descriptor));
    Ok(Reply::data(truncated(
        data,
        command.allocation_length.into(),
    )))
}

/// INQUIRY.
pub(crate) fn inquiry<D: BlockDevice>(task: &Task<D>, command: &Inquiry) -> Result<Reply, Failure> {
    let attached = task.attached();
    let data = match command.vpd_page {
        None => standard(&attached.unit.shared, PeripheralQualifier::Connected).encode(),
        Some(page) => vital_product_data(attached, page)
            .ok_or_else(|| Sense::invalid_field_in_cdb(2, None))?,
    };
    Ok(Reply::data(truncated(
        data,
        command.allocation_length.into(),
    )))
}

/// Standard INQUIRY data.
pub(crate) fn standard(shared: &Shared, qualifier: PeripheralQualifier) -> StandardInquiry {
    StandardInquiry {
        qualifier,
        device_type: match qualifier {
            PeripheralQualifier::NotSupported => UNKNOWN_DEVICE_TYPE,
            _ => DIRECT_ACCESS_BLOCK_DEVICE,
        },
        removable: false,
        // Implicit: all port groups are active/optimized, always.
        target_port_group_support: 1,
        third_party_copy: true,
        multi_port: shared.config.ports.len() > 1,
        vendor: VENDOR.into(),
        product: PRODUCT.into(),
        revision: revision(),
        version_descriptors: vec![
            version_descriptor::SAM_5,
            version_descriptor::ISCSI,
            version_descriptor::SPC_4,
            version_descriptor::SBC_3,
        ],
    }
}

/// Major and minor version in four characters.
fn revision() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut parts = version.split('.');
    let mut next = || parts.next().unwrap_or("0");
    format!("{}.{}", next(), next())
}

fn vital_product_data<D: BlockDevice>(attached: &Attached<D>, page: u8) -> Option<Vec<u8>> {
    let unit = &attached.unit;
    let record = unit.volume.record();
    Some(match page {
        page_code::SUPPORTED_PAGES => encode_supported_pages(&PAGES),
        page_code::UNIT_SERIAL_NUMBER => encode_unit_serial_number(&record.serial),
        page_code::DEVICE_IDENTIFICATION => encode_identification(&designators(attached)),
        page_code::EXTENDED_INQUIRY => ExtendedInquiry {
            unit_attention_sense_key_specific: false,
            head_of_queue: true,
            ordered: true,
            simple: true,
            volatile_cache: true,
            logical_unit_i_t_nexus_clear: true,
            maximum_sense_bytes: 0,
        }
        .encode(),
        page_code::THIRD_PARTY_COPY => encode_third_party_copy(&[
            CopyCommand {
                operation_code: 0x83,
                service_actions: vec![0x00],
            },
            CopyCommand {
                operation_code: 0x84,
                service_actions: vec![0x00, 0x01, 0x03, 0x04],
            },
        ]),
        page_code::BLOCK_LIMITS => block_limits(unit.block_bytes()).encode(),
        page_code::BLOCK_DEVICE_CHARACTERISTICS => {
            BlockDeviceCharacteristics {
                // Unmapping and erasing are what a solid state device does; nothing here turns.
                medium_rotation_rate: 1,
                nominal_form_factor: 0,
                force_unit_access_behavior: true,
                verify_byte_check_unmapped_lba_supported: true,
                // 01b: reads succeed after SANITIZE with BLOCK ERASE.
                write_after_block_erase_required: 1,
                write_after_cryptographic_erase_required: 0,
            }
            .encode()
        }
        page_code::LOGICAL_BLOCK_PROVISIONING => LogicalBlockProvisioning {
            threshold_exponent: 0,
            unmap: true,
            write_same_16: true,
            write_same_10: true,
            reads_zeroes: true,
            anchor: false,
            provisioning_type: ProvisioningType::ThinProvisioned,
        }
        .encode(),
        _ => return None,
    })
}

/// Block Limits in blocks of `block` bytes.
fn block_limits(block: u64) -> BlockLimits {
    // All are small constants divided by 512 or 4096.
    let blocks = |bytes: u64| (bytes / block) as u32;
    BlockLimits {
        write_same_non_zero: true,
        maximum_compare_and_write_blocks: COMPARE_AND_WRITE_MAX_BLOCKS,
        optimal_transfer_granularity_blocks: blocks(GRANULARITY_BYTES) as u16,
        maximum_transfer_blocks: blocks(TRANSFER_MAX_BYTES),
        optimal_transfer_blocks: blocks(1 << 20),
        maximum_prefetch_blocks: 0,
        maximum_unmap_blocks: UNMAP_MAX_BLOCKS,
        maximum_unmap_descriptors: UNMAP_MAX_DESCRIPTORS,
        optimal_unmap_granularity_blocks: blocks(GRANULARITY_BYTES),
        unmap_granularity_alignment_lba: Some(0),
        maximum_write_same_blocks: blocks(WRITE_SAME_MAX_BYTES).into(),
        maximum_atomic_transfer_blocks: blocks(volume::volume::MAX_ATOMIC_BYTES),
        atomic_alignment_blocks: 0,
        atomic_granularity_blocks: 0,
        maximum_atomic_transfer_with_boundary_blocks: 0,
        maximum_atomic_boundary_blocks: 0,
    }
}

fn designators<D: BlockDevice>(attached: &Attached<D>) -> Vec<Designator> {
    let unit = &attached.unit;
    let record = unit.volume.record();
    let name = &unit.shared.config.name;
    let port = attached.nexus.nexus.target_port;
    let of = |association, body| Designator { association, body };
    let mut list = Vec::new();
    if let Some(naa) = record.naa_bytes() {
        let value = u64::from_be_bytes(naa) & 0x0fff_ffff_ffff_ffff;
        list.push(of(
            Association::LogicalUnit,
            DesignatorBody::NaaLocallyAssigned(value),
        ));
    }
    list.extend([
        of(
            Association::LogicalUnit,
            DesignatorBody::T10VendorId {
                vendor: VENDOR.into(),
                identifier: record.serial.clone(),
            },
        ),
        of(
            Association::TargetPort,
            DesignatorBody::RelativeTargetPort(port),
        ),
        // Every portal is a target port and a group of its own.
        of(
            Association::TargetPort,
            DesignatorBody::TargetPortGroup(port),
        ),
        of(
            Association::TargetPort,
            DesignatorBody::ScsiName(format!("{name},t,0x{port:04x}")),
        ),
        of(
            Association::TargetDevice,
            DesignatorBody::ScsiName(name.clone()),
        ),
    ]);
    list
}
