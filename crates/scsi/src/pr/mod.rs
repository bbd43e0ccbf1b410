//! Parameter data of PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16) and TransportIDs (7.6.4).

mod input;
mod output;
mod transport_id;

pub use input::{
    Capabilities, FullStatus, ReservationDescriptor, encode_full_status, encode_keys,
    encode_reservation, parse_full_status, parse_keys, parse_reservation,
};
pub use output::{BasicParameters, MoveParameters, OutParameters};
pub use transport_id::TransportId;

/// SCOPE of a persistent reservation: 0h, the logical unit, is the only one that is not obsolete (SPC-4 6.15.3.3).
pub const LU_SCOPE: u8 = 0x0;
