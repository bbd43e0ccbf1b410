//! The private region: where a volume's registrations and reservation are kept.

use reservation::State;
use thiserror::Error;

/// Registrants that a private region holds.
pub const REGISTRANT_CAPACITY: usize = 1024;

/// The private region of a volume, open. One writer at a time (commits are serialized inside).
pub struct PrivateRegion<D> {
    _device: std::marker::PhantomData<fn() -> D>,
}

/// A replica as it was read back from its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Name of the device.
    pub device: String,
    /// `current`, `stale`, `torn`, `foreign`, `empty` or `unreadable`, with the reason for the last.
    pub state: String,
    /// Sequence of its newest valid header, if it has one.
    pub sequence: Option<u64>,
}

/// What is on the devices now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    /// The state that a restart would adopt.
    pub state: State,
    /// Each replica.
    pub replicas: Vec<ReplicaStatus>,
}

/// Why a private region could not be opened, read or committed.
#[derive(Debug, Error)]
pub enum PrivateRegionError {
    /// More registrants than slots; nothing was changed.
    #[error("{registrants} registrants: the private region holds {capacity}")]
    Full {
        /// Number asked for.
        registrants: usize,
        /// Number of slots.
        capacity: usize,
    },
}

impl<D> PrivateRegion<D> {
    /// The state as last committed or, after opening, as loaded.
    pub async fn load(&self) -> Result<State, PrivateRegionError> {
        unimplemented!()
    }

    /// Makes `state` durable on a write quorum of replicas. When it returns an error other than
    /// [`PrivateRegionError::Full`], whether the state will be found after a restart is not known: the next commit
    /// fails too until [`PrivateRegion::recover`] has settled it.
    pub async fn commit(&self, _state: &State) -> Result<(), PrivateRegionError> {
        unimplemented!()
    }

    /// After a failed commit: opens the replicas again and returns the state that is durable now.
    pub async fn recover(&self) -> Result<State, PrivateRegionError> {
        unimplemented!()
    }

    /// Reads the replicas again, for `ringfence keys`.
    pub async fn read_back(&self) -> Result<ReadBack, PrivateRegionError> {
        unimplemented!()
    }
}
