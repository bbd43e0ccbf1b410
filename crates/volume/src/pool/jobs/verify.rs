//! Comparing the copies of a volume, and of its keys.

use crate::block_device::BlockDevice;
use crate::page_store::Finding;
use crate::pool::keep::pace::{ClientLoad, Pacer};
use crate::pool::{Pool, PoolError};

/// Mismatches that are listed at most; more are counted.
const LISTED: usize = 1000;

/// A run in which copies of a volume differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// First byte.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
    /// Positions of the plexes that differ from the one that was believed.
    pub plexes: Vec<usize>,
    /// They are the same now.
    pub repaired: bool,
    /// What was found, for people.
    pub what: String,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Bytes of the volume that were compared.
    pub checked_bytes: u64,
    /// Bytes that are not complete in all copies yet, and were left out.
    pub skipped_bytes: u64,
    /// The first thousand mismatches.
    pub mismatches: Vec<Mismatch>,
    /// Bytes that differed.
    pub mismatched_bytes: u64,
    /// Bytes that are the same now.
    pub repaired_bytes: u64,
    /// What was wrong with replicas of the keys.
    pub keys: Vec<Finding>,
    /// It was stopped before the end.
    pub stopped: bool,
}
