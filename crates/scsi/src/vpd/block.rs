//! Pages with fixed layouts: extended INQUIRY (SPC-4 7.8.7), block limits, block device characteristics and logical
//! block provisioning (SBC-3 6.6, SBC-4 for the atomic fields).

use super::{body, page, page_code};
use crate::error::ParseError;
use crate::wire::flag;

/// PAGE LENGTH of the pages that are 64 bytes in all.
const LONG_BODY_BYTES: usize = 0x3c;

/// Extended INQUIRY data page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedInquiry {
    /// UASK_SUP: sense key specific data with UNIT ATTENTION.
    pub unit_attention_sense_key_specific: bool,
    /// HEADSUP: head of queue tasks.
    pub head_of_queue: bool,
    /// ORDSUP: ordered tasks.
    pub ordered: bool,
    /// SIMPSUP: simple tasks.
    pub simple: bool,
    /// V_SUP: there is a volatile cache.
    pub volatile_cache: bool,
    /// LUICLR: unit attentions for I_T nexus loss follow SPC-4.
    pub logical_unit_i_t_nexus_clear: bool,
    /// MAXIMUM SUPPORTED SENSE DATA LENGTH in bytes; 0 says nothing.
    pub maximum_sense_bytes: u8,
}

impl ExtendedInquiry {
    /// Builds the page.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = [0; LONG_BODY_BYTES];
        body[1] = flag(self.unit_attention_sense_key_specific, 5)
            | flag(self.head_of_queue, 2)
            | flag(self.ordered, 1)
            | flag(self.simple, 0);
        body[2] = flag(self.volatile_cache, 0);
        body[3] = flag(self.logical_unit_i_t_nexus_clear, 0);
        body[9] = self.maximum_sense_bytes;
        page(page_code::EXTENDED_INQUIRY, &body)
    }

    /// Reads the page.
    ///
    /// # Errors
    /// The page is cut short or another one.
    pub fn parse(data: &[u8]) -> Result<ExtendedInquiry, ParseError> {
        let body = body(data, page_code::EXTENDED_INQUIRY, "extended INQUIRY page")?;
        let tasks = body.u8(1)?;
        Ok(ExtendedInquiry {
            unit_attention_sense_key_specific: tasks & 0x20 != 0,
            head_of_queue: tasks & 0x04 != 0,
            ordered: tasks & 0x02 != 0,
            simple: tasks & 0x01 != 0,
            volatile_cache: body.u8(2)? & 0x01 != 0,
            logical_unit_i_t_nexus_clear: body.u8(3)? & 0x01 != 0,
            maximum_sense_bytes: body.u8(9)?,
        })
    }
}

/// Block limits page. Lengths are in logical blocks; 0 means that nothing is said, unless noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockLimits {
    /// WSNZ: WRITE SAME with a length of zero is refused.
    pub write_same_non_zero: bool,
    /// MAXIMUM COMPARE AND WRITE LENGTH; 0 means that COMPARE AND WRITE is not supported.
    pub maximum_compare_and_write_blocks: u8,
    /// OPTIMAL TRANSFER LENGTH GRANULARITY.
    pub optimal_transfer_granularity_blocks: u16,
    /// MAXIMUM TRANSFER LENGTH.
    pub maximum_transfer_blocks: u32,
    /// OPTIMAL TRANSFER LENGTH.
    pub optimal_transfer_blocks: u32,
    /// MAXIMUM PREFETCH LENGTH.
    pub maximum_prefetch_blocks: u32,
    /// MAXIMUM UNMAP LBA COUNT; 0 means that UNMAP is not supported, FFFFFFFFh that there is no limit.
    pub maximum_unmap_blocks: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT; as above.
    pub maximum_unmap_descriptors: u32,
    /// OPTIMAL UNMAP GRANULARITY.
    pub optimal_unmap_granularity_blocks: u32,
    /// UNMAP GRANULARITY ALIGNMENT with UGAVALID, 31 bits.
    pub unmap_granularity_alignment_lba: Option<u32>,
    /// MAXIMUM WRITE SAME LENGTH.
    pub maximum_write_same_blocks: u64,
    /// MAXIMUM ATOMIC TRANSFER LENGTH.
    pub maximum_atomic_transfer_blocks: u32,
    /// ATOMIC ALIGNMENT.
    pub atomic_alignment_blocks: u32,
    /// ATOMIC TRANSFER LENGTH GRANULARITY.
    pub atomic_granularity_blocks: u32,
    /// MAXIMUM ATOMIC TRANSFER LENGTH WITH ATOMIC BOUNDARY.
    pub maximum_atomic_transfer_with_boundary_blocks: u32,
    /// MAXIMUM ATOMIC BOUNDARY SIZE; 0 means that atomic boundaries are not supported.
    pub maximum_atomic_boundary_blocks: u32,
}

/// UGAVALID.
const ALIGNMENT_VALID: u32 = 1 << 31;

impl BlockLimits {
    /// Builds the page.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(LONG_BODY_BYTES);
        body.extend([
            flag(self.write_same_non_zero, 0),
            self.maximum_compare_and_write_blocks,
        ]);
        body.extend(self.optimal_transfer_granularity_blocks.to_be_bytes());
        body.extend(self.maximum_transfer_blocks.to_be_bytes());
        body.extend(self.optimal_transfer_blocks.to_be_bytes());
        body.extend(self.maximum_prefetch_blocks.to_be_bytes());
        body.extend(self.maximum_unmap_blocks.to_be_bytes());
        body.extend(self.maximum_unmap_descriptors.to_be_bytes());
        body.extend(self.optimal_unmap_granularity_blocks.to_be_bytes());
        let alignment = self
            .unmap_granularity_alignment_lba
            .map_or(0, |lba| ALIGNMENT_VALID | lba);
        body.extend(alignment.to_be_bytes());
        body.extend(self.maximum_write_same_blocks.to_be_bytes());
        body.extend(self.maximum_atomic_transfer_blocks.to_be_bytes());
        body.extend(self.atomic_alignment_blocks.to_be_bytes());
        body.extend(self.atomic_granularity_blocks.to_be_bytes());
        body.extend(
            self.maximum_atomic_transfer_with_boundary_blocks
                .to_be_bytes(),
        );
        body.extend(self.maximum_atomic_boundary_blocks.to_be_bytes());
        page(page_code::BLOCK_LIMITS, &body)
    }

    /// Reads the page.
    ///
    /// # Errors
    /// The page is another one or shorter than SBC-3 makes it.
    pub fn parse(data: &[u8]) -> Result<BlockLimits, ParseError> {
        let body = body(data, page_code::BLOCK_LIMITS, "block limits page")?;
        let alignment = body.u32(28)?;
        Ok(BlockLimits {
            write_same_non_zero: body.u8(0)? & 0x01 != 0,
            maximum_compare_and_write_blocks: body.u8(1)?,
            optimal_transfer_granularity_blocks: body.u16(2)?,
            maximum_transfer_blocks: body.u32(4)?,
            optimal_transfer_blocks: body.u32(8)?,
            maximum_prefetch_blocks: body.u32(12)?,
            maximum_unmap_blocks: body.u32(16)?,
            maximum_unmap_descriptors: body.u32(20)?,
            optimal_unmap_granularity_blocks: body.u32(24)?,
            unmap_granularity_alignment_lba: (alignment & ALIGNMENT_VALID != 0)
                .then_some(alignment & !ALIGNMENT_VALID),
            maximum_write_same_blocks: body.u64(32)?,
            maximum_atomic_transfer_blocks: body.u32(40)?,
            atomic_alignment_blocks: body.u32(44)?,
            atomic_granularity_blocks: body.u32(48)?,
            maximum_atomic_transfer_with_boundary_blocks: body.u32(52)?,
            maximum_atomic_boundary_blocks: body.u32(56)?,
        })
    }
}

/// Block device characteristics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockDeviceCharacteristics {
    /// MEDIUM ROTATION RATE: 0 not reported, 1 non-rotating, else rotations per minute.
    pub medium_rotation_rate: u16,
    /// WABEREQ, 0 to 3: what reads return after SANITIZE, BLOCK ERASE until written: 0 says nothing, 1 they succeed, 2
    /// and 3 they fail.
    pub write_after_block_erase_required: u8,
    /// WACEREQ, 0 to 3: the same after SANITIZE, CRYPTOGRAPHIC ERASE.
    pub write_after_cryptographic_erase_required: u8,
    /// NOMINAL FORM FACTOR, 0 to 15; 0 is not reported.
    pub nominal_form_factor: u8,
    /// FUAB: SYNCHRONIZE CACHE and FUA behave as SBC-3 says.
    pub force_unit_access_behavior: bool,
    /// VBULS: VERIFY on unmapped blocks works.
    pub verify_byte_check_unmapped_lba_supported: bool,
}

impl BlockDeviceCharacteristics {
    /// Builds the page.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = [0; LONG_BODY_BYTES];
        body[..2].copy_from_slice(&self.medium_rotation_rate.to_be_bytes());
        body[3] = (self.write_after_block_erase_required & 0x3) << 6
            | (self.write_after_cryptographic_erase_required & 0x3) << 4
            | self.nominal_form_factor & 0x0f;
        body[4] = flag(self.force_unit_access_behavior, 1)
            | flag(self.verify_byte_check_unmapped_lba_supported, 0);
        page(page_code::BLOCK_DEVICE_CHARACTERISTICS, &body)
    }

    /// Reads the page.
    ///
    /// # Errors
    /// The page is cut short or another one.
    pub fn parse(data: &[u8]) -> Result<BlockDeviceCharacteristics, ParseError> {
        let body = body(
            data,
            page_code::BLOCK_DEVICE_CHARACTERISTICS,
            "block device characteristics page",
        )?;
        Ok(BlockDeviceCharacteristics {
            medium_rotation_rate: body.u16(0)?,
            write_after_block_erase_required: body.u8(3)? >> 6,
            write_after_cryptographic_erase_required: body.u8(3)? >> 4 & 0x3,
            nominal_form_factor: body.u8(3)? & 0x0f,
            force_unit_access_behavior: body.u8(4)? & 0x02 != 0,
            verify_byte_check_unmapped_lba_supported: body.u8(4)? & 0x01 != 0,
        })
    }
}

/// PROVISIONING TYPE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ProvisioningType {
    /// 0: fully provisioned, or not reported.
    #[default]
    NotReported = 0,
    /// 1: every block has resources set aside.
    ResourceProvisioned = 1,
    /// 2: blocks get resources when they are written.
    ThinProvisioned = 2,
}

/// Logical block provisioning page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogicalBlockProvisioning {
    /// THRESHOLD EXPONENT; 0 means that thresholds are not supported.
    pub threshold_exponent: u8,
    /// LBPU: UNMAP.
    pub unmap: bool,
    /// LBPWS: WRITE SAME(16) with UNMAP.
    pub write_same_16: bool,
    /// LBPWS10: WRITE SAME(10) with UNMAP.
    pub write_same_10: bool,
    /// LBPRZ is xx1b: unmapped blocks read as zeroes.
    pub reads_zeroes: bool,
    /// ANC_SUP: anchored blocks.
    pub anchor: bool,
    /// PROVISIONING TYPE.
    pub provisioning_type: ProvisioningType,
}

impl LogicalBlockProvisioning {
    /// Builds the page, without a provisioning group descriptor.
    pub fn encode(&self) -> Vec<u8> {
        let flags = flag(self.unmap, 7)
            | flag(self.write_same_16, 6)
            | flag(self.write_same_10, 5)
            | flag(self.reads_zeroes, 2)
            | flag(self.anchor, 1);
        page(
            page_code::LOGICAL_BLOCK_PROVISIONING,
            &[
                self.threshold_exponent,
                flags,
                self.provisioning_type as u8,
                0,
            ],
        )
    }

    /// Reads the page.
    ///
    /// # Errors
    /// The page is cut short or another one, or its provisioning type is reserved.
    pub fn parse(data: &[u8]) -> Result<LogicalBlockProvisioning, ParseError> {
        let body = body(
            data,
            page_code::LOGICAL_BLOCK_PROVISIONING,
            "logical block provisioning page",
        )?;
        let flags = body.u8(1)?;
        let provisioning_type = match body.u8(2)? & 0x07 {
            0 => ProvisioningType::NotReported,
            1 => ProvisioningType::ResourceProvisioned,
            2 => ProvisioningType::ThinProvisioned,
            _ => return Err(body.invalid(6)),
        };
        Ok(LogicalBlockProvisioning {
            threshold_exponent: body.u8(0)?,
            unmap: flags & 0x80 != 0,
            write_same_16: flags & 0x40 != 0,
            write_same_10: flags & 0x20 != 0,
            reads_zeroes: flags & 0x04 != 0,
            anchor: flags & 0x02 != 0,
            provisioning_type,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_inquiry() {
        let value = ExtendedInquiry {
            head_of_queue: true,
            ordered: true,
            simple: true,
            volatile_cache: true,
            logical_unit_i_t_nexus_clear: true,
            maximum_sense_bytes: 40,
            ..ExtendedInquiry::default()
        };
        let data = value.encode();
        assert_eq!(
            (data.len(), &data[..8]),
            (64, &[0, 0x86, 0, 0x3c, 0, 7, 1, 1][..])
        );
        assert_eq!(data[13], 40);
        assert_eq!(ExtendedInquiry::parse(&data), Ok(value));
        assert!(ExtendedInquiry::parse(&data[..13]).is_err());
    }

    #[test]
    fn block_limits() {
        let value = BlockLimits {
            write_same_non_zero: true,
            maximum_compare_and_write_blocks: 2,
            optimal_transfer_granularity_blocks: 3,
            maximum_transfer_blocks: 4,
            optimal_transfer_blocks: 5,
            maximum_prefetch_blocks: 6,
            maximum_unmap_blocks: 7,
            maximum_unmap_descriptors: 8,
            optimal_unmap_granularity_blocks: 9,
            unmap_granularity_alignment_lba: Some(10),
            maximum_write_same_blocks: 11,
            maximum_atomic_transfer_blocks: 12,
            atomic_alignment_blocks: 13,
            atomic_granularity_blocks: 14,
            maximum_atomic_transfer_with_boundary_blocks: 15,
            maximum_atomic_boundary_blocks: 16,
        };
        let data = value.encode();
        assert_eq!(data.len(), 64);
        // Offsets of SBC-3 and, for the atomic fields, SBC-4.
        assert_eq!(data[..8], [0, 0xb0, 0, 0x3c, 1, 2, 0, 3]);
        for (at, expected) in [
            (8, 4),
            (12, 5),
            (16, 6),
            (20, 7),
            (24, 8),
            (28, 9),
            (44, 12),
            (48, 13),
            (52, 14),
        ] {
            assert_eq!(data[at..at + 4], [0, 0, 0, expected], "{at}");
        }
        assert_eq!(data[32..36], [0x80, 0, 0, 10]);
        assert_eq!(data[36..44], [0, 0, 0, 0, 0, 0, 0, 11]);
        assert_eq!(data[56..], [0, 0, 0, 15, 0, 0, 0, 16]);
        assert_eq!(BlockLimits::parse(&data), Ok(value));
        assert!(BlockLimits::parse(&data[..63]).is_err());
    }

    #[test]
    fn characteristics_and_provisioning() {
        let value = BlockDeviceCharacteristics {
            medium_rotation_rate: 1,
            write_after_block_erase_required: 1,
            write_after_cryptographic_erase_required: 2,
            nominal_form_factor: 5,
            force_unit_access_behavior: true,
            verify_byte_check_unmapped_lba_supported: true,
        };
        let data = value.encode();
        assert_eq!(
            (data.len(), &data[..9]),
            (64, &[0, 0xb1, 0, 0x3c, 0, 1, 0, 0x65, 3][..])
        );
        assert_eq!(BlockDeviceCharacteristics::parse(&data), Ok(value));

        let value = LogicalBlockProvisioning {
            threshold_exponent: 0,
            unmap: true,
            write_same_16: true,
            write_same_10: true,
            reads_zeroes: true,
            anchor: false,
            provisioning_type: ProvisioningType::ThinProvisioned,
        };
        assert_eq!(value.encode(), [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);
        assert_eq!(LogicalBlockProvisioning::parse(&value.encode()), Ok(value));
        assert!(LogicalBlockProvisioning::parse(&value.encode()[..6]).is_err());
    }
}
