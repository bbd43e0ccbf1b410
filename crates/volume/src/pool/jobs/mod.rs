//! Work on volumes that survives restarts: new mirrors, migration, evacuation and replacement of devices.
//!
//! A job is a part of the volume's record: plexes that are being filled (*fresh*), plexes that go (*retire*), and the same
//! for replicas of the keys. It begins with one commit that adds the fresh plexes, attached and stale, and ends with one
//! that takes the retired ones away. In between the keeper copies; the region log is the progress. So a crash at any
//! moment leaves the volume before the job, in it, or after it, and never anything else:
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | 1. extents placed and held, logs written: everything stale in the fresh plexes | the volume as before; the extents are free |
//! | 2. commit: fresh plexes, job | the job, from its beginning |
//! | 3. copying, region by region; bits cleared after a flush | the job, at the last bits that were cleared |
//! | 4. keys: one member comes, one goes, and so on | the job; members are as their headers say; step 4 goes on |
//! | 5. commit: retired plexes and replicas are gone, no job | the volume after the job; retired extents are free |
//! | 6. retired extents are given back to the devices | the same |
//!
//! Cancelling is the commit of step 5 with the fresh ones gone instead of the retired ones, after the members of the
//! keys are as before.

mod cancel;
mod devices;
mod error;
mod fail;
mod finish;
mod moved;
mod online;
mod plexes;
mod progress;
mod start;
mod verify;

pub use error::JobError;
pub use fail::Loss;
pub(in crate::pool) use progress::text_of;
pub use progress::{ByteRange, JobInfo, JobName, JobState, PlexInfo};
pub use verify::{Mismatch, Verified};

use crate::pool::LayoutRequest;

/// What to migrate, and how.
#[derive(Clone, Debug, Default)]
pub struct Migrate {
    /// Names of the devices for the data; at least one.
    pub to: Vec<String>,
    /// Names of the devices for the private region; empty: those of the data, then others that the data does not leave.
    pub keys_to: Vec<String>,
    /// Layout of the new plexes; `None`: as that of the first one now.
    pub layout: Option<LayoutRequest>,
    /// Number of new plexes; `None`: as many as now.
    pub mirrors: Option<usize>,
    /// Bytes per second at most.
    pub rate: Option<u64>,
}

/// Which plex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WhichPlex {
    /// Any: a detached one first, else the last.
    #[default]
    Any,
    /// The one at this position, from 0.
    Position(usize),
    /// The one on this device.
    On(String),
}

/// What to do with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobControl {
    /// Copy nothing more until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Give it up; the volume is as before.
    Cancel,
    /// Copy at most so many bytes per second; `None`: as clients allow.
    Rate(Option<u64>),
}
