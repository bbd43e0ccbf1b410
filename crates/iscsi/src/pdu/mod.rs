//! The wire forms of RFC 7143 section 11: one type per PDU over the 48 bytes of its Basic Header Segment.
//!
//! A type is a view with named fields at fixed offsets, so that any 48 bytes decode, every value round-trips, and
//! nothing is validated here. Numbers are big-endian. Flags are constants beside the type.

mod additional;
mod field;
mod request;
mod response;

pub use additional::{AdditionalHeader, AdditionalHeaders, BIDIRECTIONAL_READ, EXTENDED_CDB};
pub use field::Field;
pub use request::{
    DataOut, LoginRequest, LogoutRequest, NopOut, ScsiCommand, Snack, TaskManagementRequest,
    TextRequest,
};
pub use response::{
    AsyncMessage, DataIn, LoginResponse, LogoutResponse, NopIn, ReadyToTransfer, Reject,
    RejectReason, ScsiResponse, TaskManagementResponse, TextResponse,
};

/// Length of the Basic Header Segment in bytes (RFC 7143 11.2.1).
pub const BHS_BYTES: usize = 48;

/// The longest data segment that 24 bits can announce, in bytes.
pub const MAX_DATA_SEGMENT_BYTES: u32 = 0x00ff_ffff;

/// The reserved value of Initiator and Target Task Tags (RFC 7143 11.2.1.8, 11.7.4).
pub const RESERVED_TAG: u32 = 0xffff_ffff;

/// F bit, bit 7 of byte 1 in every PDU that has it: the final PDU of a sequence.
pub const FINAL: u8 = 0x80;

/// C bit, bit 6 of byte 1 of Login and Text PDUs: the text continues in the next PDU (RFC 7143 11.10.2).
pub const CONTINUE: u8 = 0x40;

/// I bit, bit 6 of byte 0 of requests: immediate delivery (RFC 7143 11.2.1.1).
pub const IMMEDIATE: u8 = 0x40;

/// Operation codes (RFC 7143 11.2.1.2).
pub mod opcode {
    #![allow(missing_docs)] // the names are the standard's and say it all
    pub const NOP_OUT: u8 = 0x00;
    pub const SCSI_COMMAND: u8 = 0x01;
    pub const TASK_MANAGEMENT_REQUEST: u8 = 0x02;
    pub const LOGIN_REQUEST: u8 = 0x03;
    pub const TEXT_REQUEST: u8 = 0x04;
    pub const DATA_OUT: u8 = 0x05;
    pub const LOGOUT_REQUEST: u8 = 0x06;
    pub const SNACK: u8 = 0x10;
    pub const NOP_IN: u8 = 0x20;
    pub const SCSI_RESPONSE: u8 = 0x21;
    pub const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
    pub const LOGIN_RESPONSE: u8 = 0x23;
    pub const TEXT_RESPONSE: u8 = 0x24;
    pub const DATA_IN: u8 = 0x25;
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    pub const READY_TO_TRANSFER: u8 = 0x31;
    pub const ASYNC_MESSAGE: u8 = 0x32;
    pub const REJECT: u8 = 0x3f;
}

/// Defines a PDU type: its operation code and its fields, each with getter, setter, type and byte offset.
macro_rules! pdu {
    (
        $(#[$meta:meta])*
        $name:ident = $opcode:ident {
            $( $(#[$field_meta:meta])* $get:ident / $set:ident : $ty:ty = $offset:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub [u8; $crate::pdu::BHS_BYTES]);

        impl $name {
            /// The operation code.
            pub const OPCODE: u8 = $crate::pdu::opcode::$opcode;

            /// All zero but for the operation code.
            pub fn new() -> Self {
                let mut bytes = [0; $crate::pdu::BHS_BYTES];
                bytes[0] = Self::OPCODE;
                Self(bytes)
            }

            $crate::pdu::field_methods! {
                /// Bit 6 of byte 0 is the I bit of requests, bits 5 to 0 are the operation code.
                byte0 / set_byte0: u8 = 0,
                /// TotalAHSLength, in four-byte words (RFC 7143 11.2.1.5).
                total_ahs_length_words / set_total_ahs_length_words: u8 = 4,
                /// DataSegmentLength, in bytes without padding (RFC 7143 11.2.1.6).
                data_segment_length_bytes / set_data_segment_length_bytes: $crate::pdu::field::U24 = 5,
                /// Initiator Task Tag (RFC 7143 11.2.1.8).
                itt / set_itt: u32 = 16,
            }

            $crate::pdu::field_methods! {
                $( $(#[$field_meta])* $get / $set : $ty = $offset, )*
            }

            /// True when any of the bits of `mask` is set in byte 1.
            pub fn has_flag(&self, mask: u8) -> bool {
                self.0[1] & mask != 0
            }

            /// True when the I bit is set.
            pub fn is_immediate(&self) -> bool {
                self.0[0] & $crate::pdu::IMMEDIATE != 0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("byte0", &self.byte0())
                    .field("data_segment_length_bytes", &self.data_segment_length_bytes())
                    .field("itt", &self.itt())
                    $( .field(stringify!($get), &self.$get()) )*
                    .finish()
            }
        }
    };
}

/// Getter and setter of each field.
macro_rules! field_methods {
    ( $( $(#[$meta:meta])* $get:ident / $set:ident : $ty:ty = $offset:literal, )* ) => { $(
        $(#[$meta])*
        #[doc = concat!("Field at byte ", stringify!($offset), ".")]
        pub fn $get(&self) -> <$ty as $crate::pdu::Field>::Value {
            <$ty as $crate::pdu::Field>::get(&self.0, $offset)
        }

        #[doc = concat!("Sets the field at byte ", stringify!($offset), ".")]
        pub fn $set(mut self, value: <$ty as $crate::pdu::Field>::Value) -> Self {
            <$ty as $crate::pdu::Field>::set(&mut self.0, $offset, value);
            self
        }
    )* };
}

use {field_methods, pdu};

/// The bytes that pad a segment of `length_bytes` to a multiple of four (RFC 7143 11.2.3).
pub fn padding_bytes(length_bytes: usize) -> usize {
    length_bytes.wrapping_neg() & 3
}

#[cfg(test)]
mod tests;
