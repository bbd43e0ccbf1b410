//! What operators see of jobs.

use std::fmt;

/// What a job does, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobName {
    /// One more plex.
    AddMirror,
    /// To other devices or another layout.
    Migrate,
    /// Away from a device that stays in the pool.
    Evacuate {
        /// The device.
        device: String,
    },
    /// From a device to another one that takes its place.
    Replace {
        /// The device that goes.
        old: String,
        /// The device that comes.
        new: String,
    },
    /// No job of an operator: plexes are being made the same again.
    Resync,
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobName::AddMirror => "add-mirror",
            JobName::Migrate => "migrate",
            JobName::Evacuate { .. } => "evacuate",
            JobName::Replace { .. } => "replace",
            JobName::Resync => "resync",
        })
    }
}

/// A run of a volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
}

/// Whether a job goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It does.
    Running,
    /// An operator paused it.
    Paused,
    /// It cannot; it goes on by itself when what it lacks is back.
    Stalled {
        /// Why.
        reason: String,
        /// What has no valid copy now; empty when something else is missing.
        ranges: Vec<ByteRange>,
    },
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// The volume.
    pub volume: String,
    /// What is done.
    pub kind: JobName,
    /// Whether it goes on.
    pub state: JobState,
    /// Bytes that need no copying any more. It only grows while the job lives and the volume keeps its size.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Limit that an operator set, in bytes per second.
    pub limit_bytes_per_second: Option<u64>,
    /// Names of the devices that the data comes from.
    pub from: Vec<String>,
    /// Names of the devices that it goes to.
    pub to: Vec<String>,
    /// Counts up with each job of this process: tells one job of a volume from the next.
    pub serial: u64,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has taken effect.
    Done,
    /// It was given up and the volume is as before.
    Cancelled,
    /// It could not be done and the volume is as before.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The last job of a volume that ended in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedJob {
    /// What it did.
    pub kind: JobName,
    /// How it ended.
    pub outcome: Outcome,
    /// As in [`JobInfo::serial`].
    pub serial: u64,
}

/// Whether a plex takes part, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlexInfo {
    /// Which copy, from 0.
    pub position: usize,
    /// Identity.
    pub uuid: uuid::Uuid,
    /// How its columns combine.
    pub layout: crate::config::PlexLayout,
    /// Columns.
    pub columns: usize,
    /// Whether it takes part.
    pub state: crate::config::PlexState,
    /// A job is filling it.
    pub fresh: bool,
    /// It goes when the job is done.
    pub retiring: bool,
    /// Names of its devices.
    pub devices: Vec<String>,
    /// Bytes of it that are not valid.
    pub stale_bytes: u64,
    /// Bytes in all.
    pub size_bytes: u64,
}
