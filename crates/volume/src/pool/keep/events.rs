//! What the keeper tells: names, never identities, so that an event can be read years later.

use std::sync::Arc;

use uuid::Uuid;

use super::super::jobs::JobName;

/// Something that happened to a pool by itself, or to work that goes on by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// A plex takes no part any more: what it holds is not believed.
    PlexDetached {
        /// The volume.
        volume: String,
        /// Which copy, as `volume map` counts them, from 0.
        plex: usize,
        /// Its devices.
        devices: Vec<String>,
        /// Why.
        reason: String,
    },
    /// A plex takes part again; what it missed is being copied to it.
    PlexAttached {
        /// The volume.
        volume: String,
        /// Which copy, from 0.
        plex: usize,
        /// Its devices.
        devices: Vec<String>,
    },
    /// A device is not used any more until it is brought back.
    DeviceFailed {
        /// Its name.
        device: String,
        /// Why.
        reason: String,
    },
    /// A device does not answer.
    DeviceHung {
        /// Its name.
        device: String,
        /// What it was asked, and for how long it has not answered.
        reason: String,
    },
    /// A device is used again.
    DeviceBack {
        /// Its name.
        device: String,
    },
    /// What plexes miss, or may differ in after a crash, is being copied.
    ResyncStarted {
        /// The volume.
        volume: String,
        /// How much there is to copy.
        size_bytes: u64,
    },
    /// All plexes are the same again.
    ResyncDone {
        /// The volume.
        volume: String,
    },
    /// A job began.
    JobStarted {
        /// The volume.
        volume: String,
        /// Identity of the job.
        id: Uuid,
        /// What it does.
        job: JobName,
        /// Devices that the data goes to.
        to: Vec<String>,
    },
    /// A job is done and has taken effect.
    JobDone {
        /// The volume.
        volume: String,
        /// Identity of the job.
        id: Uuid,
        /// What it did.
        job: JobName,
    },
    /// A job cannot go on by itself.
    JobStalled {
        /// The volume.
        volume: String,
        /// Identity of the job.
        id: Uuid,
        /// What it does.
        job: JobName,
        /// Why, and what has no valid copy.
        reason: String,
    },
    /// An operator stopped a job for a while.
    JobPaused {
        /// The volume.
        volume: String,
        /// Identity of the job.
        id: Uuid,
        /// What it does.
        job: JobName,
    },
    /// A job goes on: an operator said so, or what stalled it has gone.
    JobResumed {
        /// The volume.
        volume: String,
        /// Identity of the job.
        id: Uuid,
        /// What it does.
        job: JobName,
    },
    /// A job was given up; the volume is as before.
    JobCancelled {
        /// The volume.
        volume: String,
        /// Identity of the job.
        id: Uuid,
        /// What it did.
        job: JobName,
    },
    /// A replica of the keys is not current any more.
    KeysReplicaLost {
        /// The volume.
        volume: String,
        /// The device it is on.
        device: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a new replica of the keys.
    KeysReplicaRebuilt {
        /// The volume.
        volume: String,
        /// The device it is on.
        device: String,
    },
    /// A replica of the keys that was behind is current again.
    KeysReplicaRepaired {
        /// The volume.
        volume: String,
        /// The device it is on.
        device: String,
    },
    /// A copy of the configuration that was behind is current again.
    ConfigReplicaRepaired {
        /// The device it is on.
        device: String,
    },
    /// The configuration cannot be changed: too few of its copies can be written. Volumes that need a change refuse
    /// writes until it can.
    ConfigQuorumLost {
        /// Why.
        reason: String,
    },
    /// The configuration can be changed again.
    ConfigQuorumBack,
    /// The only copy of a part of a volume gives errors.
    LastCopyFails {
        /// The volume.
        volume: String,
        /// Which copy, from 0.
        plex: usize,
        /// What failed.
        reason: String,
    },
    /// A volume that was not served can be: what it lacked is back. Whoever serves it takes it from the pool anew.
    VolumeServedAgain {
        /// The volume.
        volume: String,
    },
    /// A device left the pool because another one has taken its place.
    DeviceReplaced {
        /// Its name.
        device: String,
        /// The one that took its place.
        by: String,
    },
}

/// Where events go. The call must not block and must not call the pool.
pub trait PoolEvents: Send + Sync {
    /// Takes an event.
    fn record(&self, event: PoolEvent);
}

/// Keeps them all, for tests and small tools.
#[derive(Debug, Default)]
pub struct EventList(parking_lot::Mutex<Vec<PoolEvent>>);

impl EventList {
    /// What came so far.
    pub fn all(&self) -> Vec<PoolEvent> {
        self.0.lock().clone()
    }

    /// Whether an event that `is` says yes to has come.
    pub fn any(&self, is: impl FnMut(&PoolEvent) -> bool) -> bool {
        self.0.lock().iter().any(is)
    }
}

impl PoolEvents for EventList {
    fn record(&self, event: PoolEvent) {
        self.0.lock().push(event);
    }
}

impl PoolEvents for Arc<EventList> {
    fn record(&self, event: PoolEvent) {
        self.0.lock().push(event);
    }
}
