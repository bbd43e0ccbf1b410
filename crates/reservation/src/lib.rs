//! The persistent-reservation state machine: pure, no I/O, no clock.
#![forbid(unsafe_code)]

pub mod state;

pub use state::{InitiatorPort, Key, Nexus, Registrant, Reservation, ReservationType, State};
