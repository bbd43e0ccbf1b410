//! Work on volumes that survives restarts: new mirrors, migration, evacuation and replacement of devices.

mod progress;

pub use progress::{ByteRange, FinishedJob, JobInfo, JobName, JobState, Outcome, PlexInfo};
