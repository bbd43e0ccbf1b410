//! The pool's configuration: records, and how they are kept in pages.

mod record;

pub use record::{
    Access, BlockSize, Column, DeviceRecord, Extent, Persist, Plex, PlexLayout, PoolRecord,
    VolumeRecord,
};
