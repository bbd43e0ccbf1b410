//! Model-checked campaigns over the volume manager: the real code of the `volume` crate on simulated disks, with clients,
//! an operator, disks in trouble and crashes, checked against an independent model.
//!
//! A *history* follows from one seed. It consists of *lives* of the program: a pool is opened, everything in it is
//! checked, clients and an operator work on it, and at a random moment the power fails or the process is killed. In
//! between, *looks* take what a crash at that moment would leave, open it beside the history, check it, crash it once
//! more and check again. Every crash that is followed by an open and a check is a *crash point*.
#![forbid(unsafe_code)]

mod between;
mod clients;
pub mod content;
mod health;
mod history;
mod jobs;
pub mod kept;
mod nemesis;
mod operator;
pub mod owners;
pub mod plan;
pub mod register;
mod scenario;
mod state;
mod summary;
mod verify;
mod violation;
mod volume_model;

pub use history::{Failure, run};
pub use plan::{Plan, Plant};
pub use summary::Summary;
pub use violation::TRACE;
