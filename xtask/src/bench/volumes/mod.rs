//! Volumes: what the layer costs beside plain files, moves beside plain copies, and very many of them.

pub mod layer;
pub mod many;
pub mod moves;
