//! Pools, devices, layouts, translation and private regions.
//!
//! **What is where.** A [`pool::Pool`] is a set of [`device::Device`]s that carry a [`label`], a copy of the pool's
//! configuration ([`config`]) and extents. A [`volume::Volume`] is a public region (what a VM sees) over extents of
//! one or more devices, and a [`private_region`] with its registrations, which no data command can address:
//! [`translate`] is the only way from an address of a volume to an address of a device.
//!
//! **I/O model.** All of it is async over [`block_device::BlockDevice`], knows no runtime and needs no `Send`
//! futures; handles may be shared by threads.
//!
//! **Error model.** Data path: [`error::VolumeError`]. Control operations: [`pool::PoolError`], whose text says what to
//! do. Stored state that cannot be proven current is an error, never an empty state.
#![forbid(unsafe_code)]

pub mod allocator;
pub mod block_device;
pub mod config;
pub mod device;
pub mod error;
#[cfg(test)]
mod format_doc;
mod fresh_uuid;
pub mod join;
pub mod label;
pub mod page_store;
pub mod pool;
pub mod private_region;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod translate;
pub mod volume;

pub use config::{Access, BlockSize, DeviceRecord, Persist, VolumeRecord};
pub use device::Device;
pub use error::VolumeError;
pub use pool::{
    Closed, CreateVolume, DeviceInfo, DeviceSource, LayoutRequest, Pool, PoolError, PoolErrorKind,
    PoolInfo,
};
pub use private_region::{PrivateRegion, PrivateRegionError, ReadBack};
pub use volume::Volume;
