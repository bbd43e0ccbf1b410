//! Volumes of every layout on several devices, while devices break and daemons are killed.

pub mod client;
pub mod damaged;
pub mod elsewhere;
pub mod failing;
pub mod failing_files;
pub mod kill9;
pub mod lab;
pub mod ledger;
pub mod loops;
pub mod operations;
pub mod recovery;
pub mod registrars;
