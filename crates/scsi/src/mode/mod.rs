//! Mode parameters: MODE SENSE data and MODE SELECT parameter lists (SPC-4 7.5, SBC-3 6.5).
//!
//! [`ModePages`] holds the values of every page. The same type says which bits MODE SELECT may change
//! ([`ModePages::CHANGEABLE`]: ones are changeable), so that a page has one layout.

mod data;
mod pages;
mod select;

pub use data::{BlockDescriptor, ModeData, ParsedModeData, mode_sense, parse_mode_data};
pub use pages::{CachingPage, ControlPage, InformationalExceptionsPage, ModePages, page_code};
pub use select::{encode_mode_select, mode_select};
