//! The EXTENDED COPY(LID1) parameter list (SPC-4 6.5.2, 6.4.5, 6.4.6).

use super::{BLOCK_TO_BLOCK, BLOCK_TO_BLOCK_WITH_OFFSET, IDENTIFICATION_CSCD};
use crate::sense::{AdditionalSense, Sense, SenseKeySpecific};
use crate::wire::{flag, length_u16, length_u32};

/// Length of the list's header.
const HEADER_BYTES: usize = 16;
/// Length of an identification CSCD descriptor.
const CSCD_BYTES: usize = 32;
/// Longest designator in one.
const DESIGNATOR_MAX_BYTES: usize = 20;
/// Header of a segment descriptor, which its DESCRIPTOR LENGTH does not count.
const SEGMENT_HEADER_BYTES: usize = 4;
/// DESCRIPTOR LENGTH of the block to block segment descriptor.
const BLOCK_TO_BLOCK_LENGTH: u16 = 0x18;
/// DESCRIPTOR LENGTH of the block to block with offset segment descriptor.
const WITH_OFFSET_LENGTH: u16 = 0x1c;

/// What the copy manager takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyLimits {
    /// MAXIMUM CSCD DESCRIPTOR COUNT.
    pub cscds: u16,
    /// MAXIMUM SEGMENT DESCRIPTOR COUNT.
    pub segments: u16,
    /// MAXIMUM DESCRIPTOR LIST LENGTH in bytes, of both lists together.
    pub descriptor_list_bytes: u32,
    /// MAXIMUM INLINE DATA LENGTH in bytes.
    pub inline_data_bytes: u32,
}

/// LIST ID USAGE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ListIdUsage {
    /// 00b: the list identifier counts, and held data is kept.
    #[default]
    Hold = 0,
    /// 10b: the list identifier counts, and held data may be discarded.
    Discard = 2,
    /// 11b: there is no list identifier.
    Disabled = 3,
}

/// Copy source or copy destination, by identification descriptor (E4h). LU ID TYPE is ignored, as SPC-4 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cscd {
    /// RELATIVE INITIATOR PORT IDENTIFIER.
    pub relative_initiator_port: u16,
    /// CODE SET.
    pub code_set: u8,
    /// ASSOCIATION, 0 to 3.
    pub association: u8,
    /// DESIGNATOR TYPE.
    pub designator_type: u8,
    /// DESIGNATOR, at most 20 bytes; to be compared with the designators of the device identification page.
    pub designator: Vec<u8>,
    /// PAD.
    pub pad: bool,
    /// DISK BLOCK LENGTH in bytes, 24 bits.
    pub block_length_bytes: u32,
}

/// What a segment copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentBody {
    /// 02h: whole blocks.
    Blocks {
        /// DC: `length_blocks` counts blocks of the destination instead of the source.
        destination_count: bool,
        /// BLOCK DEVICE NUMBER OF BLOCKS; 0 copies nothing.
        length_blocks: u16,
    },
    /// 0Ah: bytes, from an offset in the first block of either side.
    Bytes {
        /// NUMBER OF BYTES.
        length_bytes: u32,
        /// SOURCE BLOCK DEVICE BYTE OFFSET.
        source_offset_bytes: u16,
        /// DESTINATION BLOCK DEVICE BYTE OFFSET.
        destination_offset_bytes: u16,
    },
}

/// A segment descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// CAT: residual source data goes on into the next segment.
    pub cat: bool,
    /// Index of the source in [`CopyList::cscds`]; in range when parsed.
    pub source: u16,
    /// Index of the destination.
    pub destination: u16,
    /// SOURCE BLOCK DEVICE LOGICAL BLOCK ADDRESS.
    pub source_lba: u64,
    /// DESTINATION BLOCK DEVICE LOGICAL BLOCK ADDRESS.
    pub destination_lba: u64,
    /// How much.
    pub body: SegmentBody,
}

/// A whole parameter list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyList {
    /// LIST IDENTIFIER.
    pub list_identifier: u8,
    /// LIST ID USAGE.
    pub list_id_usage: ListIdUsage,
    /// STR: segments in order, each device read and written sequentially.
    pub sequential: bool,
    /// PRIORITY, 0 to 7.
    pub priority: u8,
    /// The copy sources and destinations.
    pub cscds: Vec<Cscd>,
    /// What to copy, in order.
    pub segments: Vec<Segment>,
}

/// INVALID FIELD IN PARAMETER LIST or another code of its family at an offset.
fn at(additional: AdditionalSense, byte: usize, bit: Option<u8>) -> Sense {
    Sense::parameter_list(additional, u16::try_from(byte).unwrap_or(u16::MAX), bit)
}

fn invalid(byte: usize, bit: Option<u8>) -> Sense {
    at(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST, byte, bit)
}

fn be16(bytes: &[u8; CSCD_BYTES], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8; CSCD_BYTES], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

fn be64(bytes: &[u8; CSCD_BYTES], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

impl CopyList {
    /// Reads a parameter list of one byte or more; it is as long as PARAMETER LIST LENGTH says (a length of zero copies
    /// nothing and is for the caller).
    ///
    /// # Errors
    /// In this order: PARAMETER LIST LENGTH ERROR (1Ah/00h) for lists that do not fit the parameter list, a descriptor
    /// cut short, or more than [`CopyLimits::descriptor_list_bytes`]; INLINE DATA LENGTH EXCEEDED (26h/0Bh); TOO MANY
    /// TARGET DESCRIPTORS (26h/06h); UNSUPPORTED TARGET DESCRIPTOR TYPE CODE (26h/07h); TOO MANY SEGMENT DESCRIPTORS
    /// (26h/08h); UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE (26h/09h); COPY ABORTED, UNREACHABLE COPY TARGET (08h/04h)
    /// for a segment that names a CSCD that is not in the list; INVALID FIELD IN PARAMETER LIST for anything else.
    pub fn parse(data: &[u8], limits: &CopyLimits) -> Result<CopyList, Sense> {
        let length_error = Sense::parameter_list_length_error();
        let (header, rest) = data
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(length_error)?;
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let size = |length: u32| usize::try_from(length).unwrap_or(usize::MAX);
        let cscd_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let (segment_bytes, inline_bytes) = (size(word(8)), size(word(12)));
        let descriptor_bytes = cscd_bytes.saturating_add(segment_bytes);
        if descriptor_bytes > size(limits.descriptor_list_bytes)
            || descriptor_bytes.saturating_add(inline_bytes) > rest.len()
            || !cscd_bytes.is_multiple_of(CSCD_BYTES)
        {
            return Err(length_error);
        }
        let list_id_usage = parse_flags(header)?;
        if inline_bytes > size(limits.inline_data_bytes) {
            return Err(at(AdditionalSense::INLINE_DATA_LENGTH_EXCEEDED, 12, None));
        }
        // In range: the sum was checked against the length of `rest`.
        let (cscd_list, segment_list) = rest[..descriptor_bytes].split_at(cscd_bytes);
        let cscds = parse_cscds(cscd_list, limits)?;
        let segments =
            parse_segments(segment_list, HEADER_BYTES + cscd_bytes, cscds.len(), limits)?;
        Ok(CopyList {
            list_identifier: header[0],
            list_id_usage,
            sequential: header[1] & 0x20 != 0,
            priority: header[1] & 0x07,
            cscds,
            segments,
        })
    }

    /// Builds the parameter list, without inline data.
    pub fn encode(&self) -> Vec<u8> {
        let cscds: Vec<u8> = self.cscds.iter().flat_map(Cscd::encode).collect();
        let segments: Vec<u8> = self.segments.iter().flat_map(Segment::encode).collect();
        let flags =
            flag(self.sequential, 5) | (self.list_id_usage as u8) << 3 | self.priority & 0x07;
        let mut data = vec![self.list_identifier, flags];
        data.extend(length_u16(cscds.len()).to_be_bytes());
        data.extend([0; 4]);
        data.extend(length_u32(segments.len()).to_be_bytes());
        data.extend([0; 4]);
        data.extend(cscds);
        data.extend(segments);
        data
    }
}

fn parse_flags(header: &[u8; HEADER_BYTES]) -> Result<ListIdUsage, Sense> {
    if header[1] & 0xc0 != 0 {
        return Err(invalid(1, Some(7)));
    }
    let usage = match header[1] >> 3 & 0x3 {
        0 => ListIdUsage::Hold,
        2 => ListIdUsage::Discard,
        3 if header[0] == 0 => ListIdUsage::Disabled,
        3 => return Err(invalid(0, None)),
        _ => return Err(invalid(1, Some(4))),
    };
    if let Some(reserved) = (4..8).find(|&at| header[at] != 0) {
        return Err(invalid(reserved, None));
    }
    Ok(usage)
}

fn parse_cscds(list: &[u8], limits: &CopyLimits) -> Result<Vec<Cscd>, Sense> {
    let (descriptors, _) = list.as_chunks::<CSCD_BYTES>();
    if descriptors.len() > usize::from(limits.cscds) {
        return Err(at(AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS, 2, None));
    }
    descriptors
        .iter()
        .enumerate()
        .map(|(index, cscd)| parse_cscd(cscd, HEADER_BYTES + index * CSCD_BYTES))
        .collect()
}

fn parse_cscd(cscd: &[u8; CSCD_BYTES], offset: usize) -> Result<Cscd, Sense> {
    if cscd[0] != IDENTIFICATION_CSCD {
        return Err(at(
            AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE,
            offset,
            None,
        ));
    }
    if cscd[1] & 0x1f != 0 {
        // The device-specific parameters of other device types than block devices are not known.
        return Err(invalid(offset + 1, Some(4)));
    }
    let length = usize::from(cscd[7]);
    if length > DESIGNATOR_MAX_BYTES {
        return Err(invalid(offset + 7, None));
    }
    Ok(Cscd {
        relative_initiator_port: be16(cscd, 2),
        code_set: cscd[4] & 0x0f,
        association: cscd[5] >> 4 & 0x03,
        designator_type: cscd[5] & 0x0f,
        designator: cscd[8..8 + length].to_vec(),
        pad: cscd[28] & 0x04 != 0,
        block_length_bytes: be32(cscd, 28) & 0xff_ffff,
    })
}

fn parse_segments(
    list: &[u8],
    offset: usize,
    cscds: usize,
    limits: &CopyLimits,
) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    let mut used = 0;
    while used < list.len() {
        let rest = &list[used..];
        if segments.len() >= usize::from(limits.segments) {
            return Err(at(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS, 8, None));
        }
        let &[kind, _, high, low, ..] = rest else {
            return Err(Sense::parameter_list_length_error());
        };
        let length = u16::from_be_bytes([high, low]);
        let expected = match kind {
            BLOCK_TO_BLOCK => BLOCK_TO_BLOCK_LENGTH,
            BLOCK_TO_BLOCK_WITH_OFFSET => WITH_OFFSET_LENGTH,
            _ => {
                return Err(at(
                    AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE,
                    offset + used,
                    None,
                ));
            }
        };
        if length != expected {
            return Err(invalid(offset + used + 2, None));
        }
        let total = SEGMENT_HEADER_BYTES + usize::from(length);
        let bytes = rest
            .get(..total)
            .ok_or(Sense::parameter_list_length_error())?;
        // The shorter kind leaves the last four bytes zero.
        let mut padded = [0; CSCD_BYTES];
        padded[..total].copy_from_slice(bytes);
        segments.push(parse_segment(&padded, segments.len(), cscds)?);
        used += total;
    }
    Ok(segments)
}

fn parse_segment(bytes: &[u8; CSCD_BYTES], index: usize, cscds: usize) -> Result<Segment, Sense> {
    let reach = |byte: u16| {
        let cscd = be16(bytes, usize::from(byte));
        if usize::from(cscd) < cscds {
            return Ok(cscd);
        }
        // COMMAND-SPECIFIC INFORMATION holds the number of the segment in its first two bytes (SPC-4 6.4.3).
        let segment = u64::from(length_u16(index)) << 16;
        Err(
            Sense::copy_aborted(AdditionalSense::UNREACHABLE_COPY_TARGET)
                .with_command_specific(segment)
                .with_specific(SenseKeySpecific::Segment {
                    in_segment_descriptor: true,
                    bit: None,
                    byte,
                }),
        )
    };
    let (source, destination) = (reach(4)?, reach(6)?);
    let body = if bytes[0] == BLOCK_TO_BLOCK {
        SegmentBody::Blocks {
            destination_count: bytes[1] & 0x02 != 0,
            length_blocks: be16(bytes, 10),
        }
    } else {
        SegmentBody::Bytes {
            length_bytes: be32(bytes, 8),
            source_offset_bytes: be16(bytes, 28),
            destination_offset_bytes: be16(bytes, 30),
        }
    };
    Ok(Segment {
        cat: bytes[1] & 0x01 != 0,
        source,
        destination,
        source_lba: be64(bytes, 12),
        destination_lba: be64(bytes, 20),
        body,
    })
}

impl Cscd {
    fn encode(&self) -> [u8; CSCD_BYTES] {
        let mut data = [0; CSCD_BYTES];
        let length = self.designator.len().min(DESIGNATOR_MAX_BYTES);
        data[0] = IDENTIFICATION_CSCD;
        data[2..4].copy_from_slice(&self.relative_initiator_port.to_be_bytes());
        data[4] = self.code_set & 0x0f;
        data[5] = (self.association & 0x03) << 4 | self.designator_type & 0x0f;
        data[7] = length as u8;
        data[8..8 + length].copy_from_slice(&self.designator[..length]);
        data[28..].copy_from_slice(&(self.block_length_bytes & 0xff_ffff).to_be_bytes());
        data[28] = flag(self.pad, 2);
        data
    }
}

impl Segment {
    fn encode(&self) -> Vec<u8> {
        let (kind, length, count, extent) = match self.body {
            SegmentBody::Blocks {
                destination_count,
                length_blocks,
            } => (
                BLOCK_TO_BLOCK,
                BLOCK_TO_BLOCK_LENGTH,
                destination_count,
                u32::from(length_blocks),
            ),
            SegmentBody::Bytes { length_bytes, .. } => (
                BLOCK_TO_BLOCK_WITH_OFFSET,
                WITH_OFFSET_LENGTH,
                false,
                length_bytes,
            ),
        };
        let mut data = vec![kind, flag(count, 1) | flag(self.cat, 0)];
        data.extend(length.to_be_bytes());
        data.extend(self.source.to_be_bytes());
        data.extend(self.destination.to_be_bytes());
        data.extend(extent.to_be_bytes());
        data.extend(self.source_lba.to_be_bytes());
        data.extend(self.destination_lba.to_be_bytes());
        if let SegmentBody::Bytes {
            source_offset_bytes,
            destination_offset_bytes,
            ..
        } = self.body
        {
            data.extend(source_offset_bytes.to_be_bytes());
            data.extend(destination_offset_bytes.to_be_bytes());
        }
        data
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
