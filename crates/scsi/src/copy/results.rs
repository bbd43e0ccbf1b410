//! RECEIVE COPY STATUS(LID1), RECEIVE COPY OPERATING PARAMETERS, and empty answers of the other two (SPC-4 6.17 on).

use crate::error::ParseError;
use crate::wire::{View, flag, length_u32};

/// COPY COMMAND STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CopyStatusCode {
    /// 00h.
    InProgress = 0x00,
    /// 01h: completed without errors.
    Completed = 0x01,
    /// 02h: completed with errors.
    Failed = 0x02,
}

/// RECEIVE COPY STATUS(LID1) data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// HDD: held data was discarded.
    pub held_data_discarded: bool,
    /// COPY COMMAND STATUS.
    pub status: CopyStatusCode,
    /// SEGMENTS PROCESSED.
    pub segments_processed: u16,
    /// TRANSFER COUNT UNITS: 0 bytes, 1 KiB, 2 MiB, F1h blocks, ...
    pub transfer_count_units: u8,
    /// TRANSFER COUNT.
    pub transfer_count: u32,
}

impl CopyStatus {
    /// Builds the 12 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = vec![
            0,
            0,
            0,
            8,
            flag(self.held_data_discarded, 7) | self.status as u8,
        ];
        data.extend(self.segments_processed.to_be_bytes());
        data.push(self.transfer_count_units);
        data.extend(self.transfer_count.to_be_bytes());
        data
    }

    /// Reads the data.
    ///
    /// # Errors
    /// The data is shorter than 12 bytes, or the status is reserved.
    pub fn parse(data: &[u8]) -> Result<CopyStatus, ParseError> {
        let view = View::new(data, "copy status data");
        let status = match view.u8(4)? & 0x7f {
            0x00 => CopyStatusCode::InProgress,
            0x01 => CopyStatusCode::Completed,
            0x02 => CopyStatusCode::Failed,
            _ => return Err(view.invalid(4)),
        };
        Ok(CopyStatus {
            held_data_discarded: view.u8(4)? & 0x80 != 0,
            status,
            segments_processed: view.u16(5)?,
            transfer_count_units: view.u8(7)?,
            transfer_count: view.u32(8)?,
        })
    }
}

/// RECEIVE COPY OPERATING PARAMETERS data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatingParameters {
    /// SNLID: commands without a list identifier are supported.
    pub supports_no_list_identifier: bool,
    /// MAXIMUM CSCD DESCRIPTOR COUNT.
    pub maximum_cscd_descriptors: u16,
    /// MAXIMUM SEGMENT DESCRIPTOR COUNT.
    pub maximum_segment_descriptors: u16,
    /// MAXIMUM DESCRIPTOR LIST LENGTH in bytes.
    pub maximum_descriptor_list_bytes: u32,
    /// MAXIMUM SEGMENT LENGTH in bytes.
    pub maximum_segment_bytes: u32,
    /// MAXIMUM INLINE DATA LENGTH in bytes.
    pub maximum_inline_data_bytes: u32,
    /// HELD DATA LIMIT in bytes.
    pub held_data_limit_bytes: u32,
    /// TOTAL CONCURRENT COPIES.
    pub total_concurrent_copies: u16,
    /// MAXIMUM CONCURRENT COPIES.
    pub maximum_concurrent_copies: u8,
    /// DATA SEGMENT GRANULARITY as a power of two of bytes.
    pub data_segment_granularity_log2: u8,
    /// The implemented CSCD and segment descriptor type codes, at most 255.
    pub descriptor_types: Vec<u8>,
}

impl OperatingParameters {
    /// Builds the data; type codes are put in ascending order, as the standard wants them.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = vec![0; 44];
        data[4] = flag(self.supports_no_list_identifier, 0);
        data[8..10].copy_from_slice(&self.maximum_cscd_descriptors.to_be_bytes());
        data[10..12].copy_from_slice(&self.maximum_segment_descriptors.to_be_bytes());
        data[12..16].copy_from_slice(&self.maximum_descriptor_list_bytes.to_be_bytes());
        data[16..20].copy_from_slice(&self.maximum_segment_bytes.to_be_bytes());
        data[20..24].copy_from_slice(&self.maximum_inline_data_bytes.to_be_bytes());
        data[24..28].copy_from_slice(&self.held_data_limit_bytes.to_be_bytes());
        data[34..36].copy_from_slice(&self.total_concurrent_copies.to_be_bytes());
        data[36] = self.maximum_concurrent_copies;
        data[37] = self.data_segment_granularity_log2;
        let mut types = self.descriptor_types.clone();
        types.sort_unstable();
        types.dedup();
        types.truncate(255);
        data[43] = types.len() as u8;
        data.extend(types);
        let available = length_u32(data.len() - 4).to_be_bytes();
        data[..4].copy_from_slice(&available);
        data
    }

    /// Reads the data.
    ///
    /// # Errors
    /// The data is shorter than its fixed part or than the list of type codes.
    pub fn parse(data: &[u8]) -> Result<OperatingParameters, ParseError> {
        let view = View::new(data, "copy operating parameters");
        Ok(OperatingParameters {
            supports_no_list_identifier: view.u8(4)? & 0x01 != 0,
            maximum_cscd_descriptors: view.u16(8)?,
            maximum_segment_descriptors: view.u16(10)?,
            maximum_descriptor_list_bytes: view.u32(12)?,
            maximum_segment_bytes: view.u32(16)?,
            maximum_inline_data_bytes: view.u32(20)?,
            held_data_limit_bytes: view.u32(24)?,
            total_concurrent_copies: view.u16(34)?,
            maximum_concurrent_copies: view.u8(36)?,
            data_segment_granularity_log2: view.u8(37)?,
            descriptor_types: view.slice(44, view.u8(43)?.into())?.to_vec(),
        })
    }
}

/// RECEIVE COPY DATA(LID1) and RECEIVE COPY FAILURE DETAILS(LID1) data of a copy that left nothing behind: AVAILABLE
/// DATA is zero.
pub fn encode_no_held_data() -> Vec<u8> {
    vec![0; 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_bytes_by_hand() {
        let value = CopyStatus {
            held_data_discarded: true,
            status: CopyStatusCode::Completed,
            segments_processed: 0x0102,
            transfer_count_units: 0xf1,
            transfer_count: 2048,
        };
        assert_eq!(value.encode(), [0, 0, 0, 8, 0x81, 1, 2, 0xf1, 0, 0, 8, 0]);
        assert_eq!(CopyStatus::parse(&value.encode()), Ok(value));
        assert!(CopyStatus::parse(&value.encode()[..11]).is_err());
        assert!(CopyStatus::parse(&[0, 0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn operating_parameters_bytes_by_hand() {
        let value = OperatingParameters {
            supports_no_list_identifier: true,
            maximum_cscd_descriptors: 2,
            maximum_segment_descriptors: 3,
            maximum_descriptor_list_bytes: 0x400,
            maximum_segment_bytes: 0x1000_0000,
            maximum_inline_data_bytes: 0,
            held_data_limit_bytes: 0,
            total_concurrent_copies: 1,
            maximum_concurrent_copies: 1,
            data_segment_granularity_log2: 9,
            descriptor_types: vec![0x02, 0xe4],
        };
        let data = value.encode();
        assert_eq!(data.len(), 46);
        assert_eq!(
            data[..20],
            [
                0, 0, 0, 42, 1, 0, 0, 0, 0, 2, 0, 3, 0, 0, 4, 0, 0x10, 0, 0, 0
            ]
        );
        assert_eq!(data[34..], [0, 1, 1, 9, 0, 0, 0, 0, 0, 2, 0x02, 0xe4]);
        assert_eq!(OperatingParameters::parse(&data), Ok(value));
        assert!(OperatingParameters::parse(&data[..45]).is_err());
    }
}
