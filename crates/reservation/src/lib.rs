//! The reservations of a logical unit: a state machine that is pure, without I/O and without a clock.
//!
//! - [`state`]: what is kept, as plain data.
//! - [`machine`]: `(state, nexus, command) -> (state, effects)`, for persistent reservations (SPC-4 5.13) and for
//!   RESERVE and RELEASE of SCSI-2.
//! - [`access`]: the one table of who may send which command.
//! - [`report`]: what PERSISTENT RESERVE IN reports, as plain data.
//!
//! Bytes are the `scsi` crate's, durability is the `volume` crate's, and carrying out the effects (publishing the
//! columns, draining, aborting, unit attentions) is the `target` crate's job.
#![forbid(unsafe_code)]

pub mod access;
pub mod command;
pub mod effects;
pub mod machine;
pub mod reject;
pub mod report;
pub mod state;

pub use access::{Column, Row};
pub use command::{Command, Event, PersistentReserveOut, RegisterAndMove, ServiceAction, Topology};
pub use effects::{Cause, Effects, Fact, Narrowed, UnitAttention};
pub use machine::{LuReservations, Step};
pub use reject::{CdbField, FieldPointer, ParameterField, Reject, Sense};
pub use state::{
    InitiatorPort, Key, Lost, LostUntil, Nexus, Registrant, Reservation, ReservationType, State,
    StateError,
};
