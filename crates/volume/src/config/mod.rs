//! The pool's configuration: records, and how they are kept in the pages of a page store.

pub mod envelope;
mod record;
mod store;

pub use record::{
    Access, BlockSize, Column, DeviceRecord, DeviceRole, DocumentRecord, Extent, Job, JobKind,
    KeysReplica, MAX_DOCUMENT_BYTES, MAX_PLEXES, Persist, Plex, PlexLayout, PlexState, PoolRecord,
    VolumeRecord,
};
pub use store::{Change, Config, ConfigError, ConfigStore};
