//! Races between the members of a fence domain, checked in two ways.
//!
//! - [`run`]: simulated clusters. A *history* follows from one seed: members (simple ones, or with the real node), one or two heads with the real
//!   [`fencing::Coordinator`] and simulated volumes, a quorum server with the real register; partitions of every shape, pauses, clock
//!   jumps, restarts, lost, late and repeated messages, crashes at every step, lost devices. After every event the promises are checked;
//!   at the end everything is in order but for one partition, and whoever has more than half must win within a bound.
//! - [`model`]: small clusters exhaustively, with every order of events, by a model checker.
#![forbid(unsafe_code)]

mod cluster;
mod head;
mod history;
mod member;
pub mod model;
mod node;
mod oracle;
pub mod plan;
pub mod random;
mod trouble;
mod world;

pub use history::{Failure, Summary, run};
pub use plan::Plant;
