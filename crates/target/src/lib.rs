//! Logical units: commands, the gate, unit attentions, task sets, nexus registry. Knows no transport.
//!
//! A [`Target`] has logical units by number and sessions by nexus. A transport attaches a nexus, submits commands, and
//! executes the [`Task`]s that come of them; see [`NexusSession`].
//!
//! **Threads.** Everything that is shared is `Send + Sync`. Futures are not: each is driven by the thread that made
//! it, and its device operations are submitted there.
//!
//! **Contract.** A future of [`Task::execute`], [`NexusSession::task_management`], [`NexusSession::detach`] or an
//! operation of [`Target`] is driven to its end, whatever becomes of the connection. A dropped future may leave a
//! write running in a device; the fence would then wait for it for ever, because the alternative is to answer before
//! it lands.
//!
//! **Fence domains.** What they want of a volume is its [`UnitPolicy`], kept here by the volume's identity, so that it
//! holds whenever and however the volume is served.
//!
//! **Errors.** A command fails with sense data or a status ([`Failure`]), turned into bytes at one place
//! ([`Response`]).
#![forbid(unsafe_code)]

pub mod attention;
mod commands;
mod fencing;
pub mod gate;
mod policy;
pub mod range_lock;
mod response;
mod runtime;
mod session;
mod target;
mod task;
pub mod task_set;
#[cfg(test)]
mod tests;
mod unit;

pub use fencing::{FenceDone, FenceError, FenceOrder, Ownership};
pub use gate::Grant;
pub use policy::UnitPolicy;
pub use response::{Failure, Outcome, Response};
pub use runtime::{Event, EventKind, EventSink, LocalFuture, NoEvents, Runtime};
pub use session::{DetachReason, NexusSession};
pub use target::{AddError, AttachError, EndLostError, Target, TargetConfig};
pub use task::{Request, Task};
pub use unit::LogicalUnit;
