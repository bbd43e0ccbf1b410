//! Cache commands: PRE-FETCH, SYNCHRONIZE CACHE (SBC-3).

use super::block::{TEN_AND_SIXTEEN, TransferSize};
use super::raw::Raw;
use super::{CdbBytes, CommandId};

/// PRE-FETCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreFetch {
    /// Form of the CDB: Ten or Sixteen.
    pub size: TransferSize,
    /// IMMED.
    pub immediate: bool,
    /// First logical block.
    pub lba: u64,
    /// PREFETCH LENGTH in logical blocks; 0 means to the end of the medium.
    pub length_blocks: u32,
}

impl PreFetch {
    pub(super) fn decode(size: TransferSize, raw: &Raw) -> PreFetch {
        let (lba, length_blocks) = size.range(raw);
        PreFetch {
            size,
            immediate: raw.bit(1, 1),
            lba,
            length_blocks,
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let size = self
            .size
            .holding(TEN_AND_SIXTEEN, self.lba, self.length_blocks);
        let id = if size == TransferSize::Ten {
            CommandId::PreFetch10
        } else {
            CommandId::PreFetch16
        };
        size.put_range(CdbBytes::new(id), self.lba, self.length_blocks)
            .flag(1, 1, self.immediate)
    }
}

/// SYNCHRONIZE CACHE. SBC-2's SYNC_NV is allowed and means nothing here: the medium is always meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynchronizeCache {
    /// Form of the CDB: Ten or Sixteen.
    pub size: TransferSize,
    /// IMMED.
    pub immediate: bool,
    /// First logical block.
    pub lba: u64,
    /// NUMBER OF LOGICAL BLOCKS; 0 means to the end of the medium.
    pub length_blocks: u32,
}

impl SynchronizeCache {
    pub(super) fn decode(size: TransferSize, raw: &Raw) -> SynchronizeCache {
        let (lba, length_blocks) = size.range(raw);
        SynchronizeCache {
            size,
            immediate: raw.bit(1, 1),
            lba,
            length_blocks,
        }
    }

    pub(super) fn encode(&self) -> CdbBytes {
        let size = self
            .size
            .holding(TEN_AND_SIXTEEN, self.lba, self.length_blocks);
        let id = if size == TransferSize::Ten {
            CommandId::SynchronizeCache10
        } else {
            CommandId::SynchronizeCache16
        };
        size.put_range(CdbBytes::new(id), self.lba, self.length_blocks)
            .flag(1, 1, self.immediate)
    }
}
