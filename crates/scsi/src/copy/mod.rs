//! EXTENDED COPY(LID1) parameter lists and RECEIVE COPY RESULTS data (SPC-4 6.5, 6.17 on).

mod list;
mod results;

pub use list::{CopyLimits, CopyList, Cscd, ListIdUsage, Segment, SegmentBody};
pub use results::{CopyStatus, CopyStatusCode, OperatingParameters, encode_no_held_data};

/// Type code of the identification CSCD descriptor.
pub const IDENTIFICATION_CSCD: u8 = 0xe4;
/// Type code of the block device to block device segment descriptor.
pub const BLOCK_TO_BLOCK: u8 = 0x02;
/// Type code of the block device to block device with offset segment descriptor.
pub const BLOCK_TO_BLOCK_WITH_OFFSET: u8 = 0x0a;
