//! The ringfence binary as a library, so that its parts can be tested: command line, control socket, event log,
//! daemon and demo.

pub mod agent;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod events;
pub mod failure;
pub mod iscsi;
pub mod methods;
pub mod names;
pub mod network;
pub mod size;
pub mod time;
