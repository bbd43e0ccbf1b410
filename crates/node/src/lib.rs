//! `ringfence node`: what runs in a member of a fence domain. It drives the core in [`fencing::node`] with time, UDP
//! datagrams and the mailbox disk, and carries out what the core asks for.
//!
//! **Threads.** One loop owns the core; nothing in it waits for anything but its queue. Whatever may hang has a thread of
//! its own that answers into the queue: reads of the mailbox, writes of the slot, registrations, hooks. So a disk that
//! hangs does not stop heartbeats, and a hook that hangs stops nothing until it is killed.
//!
//! **When it dies**, its peers race for it and its watchdog is no longer petted: that is what is wanted.

pub mod args;
mod disk;
mod error;
mod hooks;
mod identity;
mod log;
mod network;
mod persistent_reservation;
mod place;
mod registrar;
mod run;
mod status;
mod watchdog;

pub use args::{NodeArgs, NodeCommand};
pub use error::NodeError;
pub use run::run;
pub use status::{StatusReport, print_status};

/// Runs what the arguments say: the node, until it is told to stop, or a question to one that runs.
///
/// # Errors
/// [`NodeError`].
pub fn run_arguments(arguments: &NodeArgs, json: bool) -> Result<(), NodeError> {
    match &arguments.command {
        Some(NodeCommand::Status) => print_status(&arguments.socket, json),
        None => run(arguments),
    }
}
