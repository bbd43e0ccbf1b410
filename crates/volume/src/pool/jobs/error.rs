//! Why a job or a change of plexes is refused, in words that say what to do.

use thiserror::Error;

use super::fail::{Loss, text_of_losses};
use crate::pool::PoolErrorKind;

/// Why a job or a change of plexes is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JobError {
    /// One job a volume.
    #[error(
        "volume {volume} has a job already ({job}); wait for it or cancel it with `ringfence job cancel {volume}`"
    )]
    Busy {
        /// The volume.
        volume: String,
        /// The job it has.
        job: String,
    },
    /// There is no job.
    #[error("volume {volume} has no job")]
    NoJob {
        /// The volume.
        volume: String,
    },
    /// A resync is no job of an operator.
    #[error("volume {volume} is being resynchronized; that can be paused but not cancelled")]
    Resync {
        /// The volume.
        volume: String,
    },
    /// The only valid copy of something would go.
    #[error("volume {volume}: {what} holds the only valid copy of {ranges}; {advice}")]
    LastCopy {
        /// The volume.
        volume: String,
        /// The plex or device.
        what: String,
        /// The ranges, for people.
        ranges: String,
        /// What to do.
        advice: &'static str,
    },
    /// No plex of that description.
    #[error("volume {volume} has no plex {which}; `ringfence volume show {volume}` lists them")]
    NoSuchPlex {
        /// The volume.
        volume: String,
        /// What was asked for.
        which: String,
    },
    /// Too many plexes.
    #[error("volume {volume} would have {plexes} plexes meanwhile; at most {max} are possible")]
    TooManyPlexes {
        /// The volume.
        volume: String,
        /// How many.
        plexes: usize,
        /// The limit.
        max: usize,
    },
    /// The volume changed while the job was being prepared.
    #[error("volume {volume} changed meanwhile; try again")]
    Changed {
        /// The volume.
        volume: String,
    },
    /// Old and new device are the same.
    #[error("device {name} cannot take its own place; name another device")]
    SameDevice {
        /// The device.
        name: String,
    },
    /// Nothing to do.
    #[error("{what}; nothing to do")]
    Nothing {
        /// What was found.
        what: String,
    },
    /// The device is in use.
    #[error("device {name} is in service; `ringfence device fail {name}` takes it out")]
    InService {
        /// The device.
        name: String,
    },
    /// The copies that there are cannot be told of new ones.
    #[error("volume {volume}: {problem}; try again when its devices are well")]
    Copies {
        /// The volume.
        volume: String,
        /// What failed.
        problem: String,
    },
    /// The device has operations in flight.
    #[error("device {name} still has operations in flight; try again when they have ended")]
    StillBusy {
        /// The device.
        name: String,
    },
    /// Jobs move everything away from the device.
    #[error(
        "device {device} is being emptied, of {}; `ringfence job cancel` ends that", volumes.join(", ")
    )]
    BeingEmptied {
        /// The device.
        device: String,
        /// The volumes whose jobs do it.
        volumes: Vec<String>,
    },
    /// A volume that has to be opened anew does not come to rest.
    #[error(
        "volume {volume} has its only valid copy of something on device {device} and has to be opened anew with it, but it has operations in flight that do not end; try again when its other devices answer"
    )]
    NotAtRest {
        /// The volume.
        volume: String,
        /// The device.
        device: String,
    },
    /// A plex on the device takes part, and the configuration has no quorum to say that it does not any more.
    #[error(
        "the configuration has no quorum to take the copy of volume {volume} on device {device} out first: bring another device online before, or stop the daemon in order and start it again; nothing was changed"
    )]
    NoQuorum {
        /// The volume.
        volume: String,
        /// The device.
        device: String,
    },
    /// Something needs the device.
    #[error("without device {device} {}; nothing was changed", text_of_losses(.losses))]
    WouldLose {
        /// The device.
        device: String,
        /// What would be lost; not empty.
        losses: Vec<Loss>,
    },
    /// A device that hangs or was lost is out of use, and that could not be committed.
    #[error(
        "device {device} is not used any more, but that could not be recorded ({problem}); the next start would use it again: bring another device online, then repeat the command"
    )]
    NotRecorded {
        /// The device.
        device: String,
        /// Why.
        problem: String,
    },
    /// A device is out of use, and its plexes still count.
    #[error(
        "device {device} is not used any more, but it could not yet be recorded that the copy of volume {volume} on it takes no part: that goes on by itself, and writes to the volume may be refused until it is done; see `ringfence device list` for devices that are to be brought online"
    )]
    NotDetached {
        /// The volume.
        volume: String,
        /// The device.
        device: String,
    },
    /// Something else is being changed in the volume, and does not end.
    #[error(
        "the job of volume {volume} cannot be cancelled now: a copy or the keys of the volume are being changed, and that does not end; the job is as it was; bring devices that are away online (see `ringfence device list`), then repeat the command"
    )]
    NotNow {
        /// The volume.
        volume: String,
    },
    /// Whether a job is cancelled shows later.
    #[error(
        "it is not known whether the job of volume {volume} is cancelled ({problem}): it shows when the configuration has a quorum again; bring devices that are away online (see `ringfence device list`), then repeat the command"
    )]
    NotKnown {
        /// The volume.
        volume: String,
        /// What failed.
        problem: String,
    },
    /// Another medium than the one that is expected.
    #[error("{path} is not device {name} of this pool: {problem}")]
    WrongDevice {
        /// The device's name.
        name: String,
        /// What was offered.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl JobError {
    /// What kind of error it is.
    pub fn kind(&self) -> PoolErrorKind {
        match self {
            JobError::NoJob { .. } | JobError::NoSuchPlex { .. } => PoolErrorKind::NotFound,
            JobError::SameDevice { .. } | JobError::Nothing { .. } => PoolErrorKind::Usage,
            JobError::Busy { .. }
            | JobError::Resync { .. }
            | JobError::LastCopy { .. }
            | JobError::TooManyPlexes { .. }
            | JobError::Changed { .. }
            | JobError::InService { .. }
            | JobError::StillBusy { .. }
            | JobError::BeingEmptied { .. }
            | JobError::NotAtRest { .. }
            | JobError::NoQuorum { .. }
            | JobError::NotNow { .. }
            | JobError::WouldLose { .. }
            | JobError::WrongDevice { .. } => PoolErrorKind::Refused,
            JobError::Copies { .. }
            | JobError::NotRecorded { .. }
            | JobError::NotKnown { .. }
            | JobError::NotDetached { .. } => PoolErrorKind::Failed,
        }
    }
}
