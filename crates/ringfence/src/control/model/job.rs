//! Jobs: long work on volumes, and how far it is.

use serde::{Deserialize, Serialize};

/// Work on a volume that goes on by itself, over restarts too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The volume; it has at most one job.
    pub volume: String,
    /// Identity of the job; of the volume for a resync.
    pub id: String,
    /// `add-mirror`, `migrate`, `evacuate`, `replace`, or `resync`: what plexes missed is copied to them.
    pub job: String,
    /// The device that is evacuated or replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The devices that it copies to, by name.
    pub to: Vec<String>,
    /// `running`, `paused` or `stalled`.
    pub state: String,
    /// Why it has stalled.
    pub reason: Option<String>,
    /// What has no valid copy now, where that is why it has stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_copy: Vec<ByteRange>,
    /// How much is done.
    pub done_bytes: u64,
    /// How much there is to do.
    pub total_bytes: u64,
    /// How much of it, in whole percent; 100 only when all of it is.
    pub percent: u8,
    /// Bytes per second of late; null while that is not known.
    pub rate_bytes_per_second: Option<u64>,
    /// The limit that was set; null where the job itself gives way to initiators.
    pub limit_bytes_per_second: Option<u64>,
    /// How long it will take at this rate, in seconds; null while that is not known.
    pub eta_s: Option<u64>,
}

impl Job {
    /// The whole percent of `done_bytes` in `total_bytes`, rounded down.
    pub fn percent(done_bytes: u64, total_bytes: u64) -> u8 {
        if total_bytes == 0 {
            return 100;
        }
        let percent = u128::from(done_bytes.min(total_bytes)) * 100 / u128::from(total_bytes);
        // At most 100.
        percent as u8
    }
}

/// A run of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub offset_bytes: u64,
    /// Length of the run.
    pub length_bytes: u64,
}

impl From<volume::pool::jobs::ByteRange> for ByteRange {
    fn from(range: volume::pool::jobs::ByteRange) -> Self {
        Self {
            offset_bytes: range.offset_bytes,
            length_bytes: range.length_bytes,
        }
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnd {
    /// The volume.
    pub volume: String,
    /// As in [`Job`].
    pub job: String,
    /// `done`, `cancelled`, `failed` (the volume is as before), or `stalled`: it waits for something that is missing.
    pub outcome: String,
    /// Why it failed or has stalled.
    pub reason: Option<String>,
}

/// How far a long operation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The volume.
    pub volume: String,
    /// What is being done: the name of a job, or `verify`.
    pub job: String,
    /// `running`, `paused` or `stalled`.
    pub state: String,
    /// How much is done.
    pub done_bytes: u64,
    /// How much there is to do.
    pub total_bytes: u64,
    /// Bytes per second of late; null while that is not known.
    pub rate_bytes_per_second: Option<u64>,
    /// How long it will take at this rate, in seconds; null while that is not known.
    pub eta_s: Option<u64>,
}

impl From<&Job> for Progress {
    fn from(job: &Job) -> Self {
        Self {
            volume: job.volume.clone(),
            job: job.job.clone(),
            state: job.state.clone(),
            done_bytes: job.done_bytes,
            total_bytes: job.total_bytes,
            rate_bytes_per_second: job.rate_bytes_per_second,
            eta_s: job.eta_s,
        }
    }
}
