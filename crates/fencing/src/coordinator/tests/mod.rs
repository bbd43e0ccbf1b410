//! Scenes of one coordinator.

mod fences;
mod races;
mod scene;
