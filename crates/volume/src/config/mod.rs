//! The pool's configuration: records, and how they are kept in the pages of a page store.

pub mod envelope;
mod record;
mod store;

pub use record::{
    Access, BlockSize, Column, DeviceRecord, Extent, KeysReplica, Persist, Plex, PlexLayout,
    PoolRecord, VolumeRecord,
};
pub use store::{Change, Config, ConfigError, ConfigStore};
