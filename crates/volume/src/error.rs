//! Errors of the data path.

use std::io;

use thiserror::Error;

/// Why an operation on a volume's data failed.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// The range is not inside the region. Nothing was touched.
    #[error("{length_bytes} bytes at {offset_bytes} are outside the region's {size_bytes} bytes")]
    OutOfBounds {
        /// First byte asked for.
        offset_bytes: u64,
        /// Length asked for.
        length_bytes: u64,
        /// Size of the region.
        size_bytes: u64,
    },
    /// A device answered with an error.
    #[error("device {device}: {operation} failed: {source}")]
    Device {
        /// Name of the device.
        device: String,
        /// What was being done.
        operation: &'static str,
        /// The device's answer.
        source: io::Error,
    },
    /// An atomic write longer than [`crate::volume::MAX_ATOMIC_BYTES`].
    #[error("atomic write of {length_bytes} bytes: at most {max_bytes}")]
    AtomicTooLong {
        /// Length asked for.
        length_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// No plex that takes part has valid data there.
    #[error("volume {volume}: no valid copy of {length_bytes} bytes at {offset_bytes} is there")]
    NoCopy {
        /// Name of the volume.
        volume: String,
        /// First byte.
        offset_bytes: u64,
        /// Length in bytes.
        length_bytes: u64,
    },
    /// The volume is not served, and why.
    #[error("volume {volume} is not served: {reason}")]
    NotServed {
        /// Name of the volume.
        volume: String,
        /// The reason.
        reason: String,
    },
    /// Writes are refused, for instance because an intent of an atomic write could not be removed: replaying it later would
    /// undo them. It passes by itself when the devices and the configuration are well.
    #[error("volume {volume}: writes are refused: {reason}")]
    WritesRefused {
        /// Name of the volume.
        volume: String,
        /// The reason.
        reason: String,
    },
    /// An atomic write that failed may still be carried out there: what is read now may change.
    #[error("volume {volume}: an atomic write that failed at {offset_bytes} has no end yet")]
    Undecided {
        /// Name of the volume.
        volume: String,
        /// First byte of that write.
        offset_bytes: u64,
    },
}

impl VolumeError {
    /// An operation that was given up because the device did not answer: it may still take place.
    pub fn is_hang(&self) -> bool {
        matches!(self, VolumeError::Device { source, .. } if source.kind() == io::ErrorKind::TimedOut)
    }
}
