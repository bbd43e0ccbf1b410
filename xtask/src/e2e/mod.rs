//! The end-to-end tests: real clients against a real daemon, one file a scenario.

pub mod cli;
pub mod cluster;
pub mod demo;
pub mod domains;
pub mod guests;
pub mod hostile;
pub mod kill9;
pub mod libiscsi;
pub mod qemu;
pub mod storage;
pub mod wire;
