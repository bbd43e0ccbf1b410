//! SPC-4, SBC-3 and SAM-5 wire forms: CDBs, sense, parameter data, mode and VPD pages, TransportIDs.
//!
//! The crate does no I/O and holds no state. Everything here turns bytes into values or values into bytes, in both
//! directions, so that the target and the initiator share one description of each form.
//!
//! * Bytes from the other end are never trusted: a parser returns an error that converts to the exact [`sense::Sense`]
//!   (target side) or a [`ParseError`] (initiator side). It never panics, whatever the bytes.
//! * Building is total: a value that can be built has a wire form. Lists that would overflow their length field are
//!   bounded by the types or documented at the function.
//! * Names, units and clause numbers are those of SPC-4 (r37), SBC-3 (r36) and SAM-5.

#![forbid(unsafe_code)]

pub mod capacity;
pub mod cdb;
pub mod copy;
pub mod defects;
mod error;
pub mod inquiry;
pub mod lba_status;
pub mod log;
pub mod lun;
pub mod mode;
pub mod operation_codes;
pub mod pr;
pub mod report_luns;
pub mod sam;
pub mod sanitize;
pub mod sense;
pub mod status;
pub mod target_port_groups;
pub mod unit_attention;
pub mod unmap;
pub mod vpd;
mod wire;

pub use cdb::Cdb;
pub use error::{ParameterListError, ParseError};
pub use lun::Lun;
pub use sense::Sense;
pub use status::Status;
pub use wire::truncated;
