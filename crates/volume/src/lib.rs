//! Pools, devices, layouts, translation and private regions.

pub mod block_device;
