//! What is wrong with bytes that came from the other end.

use crate::sense::Sense;

/// A parameter list (data-out) that the device server must refuse. Converts to the [`Sense`] to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterListError {
    /// PARAMETER LIST LENGTH ERROR (1Ah/00h): the list is cut short or its length does not fit its contents.
    #[error("parameter list length error")]
    Length,
    /// INVALID FIELD IN PARAMETER LIST (26h/00h), with the field pointer.
    #[error("invalid field in parameter list at byte {byte}{}", bit_suffix(*.bit))]
    InvalidField {
        /// Offset of the first byte of the field in the parameter list.
        byte: u16,
        /// Most significant bit of the field, 7 to 0, where the field is smaller than a byte.
        bit: Option<u8>,
    },
    /// INVALID FIELD IN CDB (24h/00h): the CDB promises something the list does not keep.
    #[error("invalid field in CDB at byte {byte}{}", bit_suffix(*.bit))]
    InvalidFieldInCdb {
        /// Offset of the first byte of the field in the CDB.
        byte: u16,
        /// Most significant bit of the field, where the field is smaller than a byte.
        bit: Option<u8>,
    },
}

fn bit_suffix(bit: Option<u8>) -> String {
    bit.map_or_else(String::new, |bit| format!(" bit {bit}"))
}

impl ParameterListError {
    /// An invalid field that starts at `byte`; offsets beyond 65535 are reported as 65535.
    pub fn field(byte: usize, bit: Option<u8>) -> ParameterListError {
        ParameterListError::InvalidField {
            byte: u16::try_from(byte).unwrap_or(u16::MAX),
            bit,
        }
    }
}

impl From<ParameterListError> for Sense {
    fn from(error: ParameterListError) -> Sense {
        match error {
            ParameterListError::Length => Sense::parameter_list_length_error(),
            ParameterListError::InvalidField { byte, bit } => {
                Sense::invalid_field_in_parameter_list(byte, bit)
            }
            ParameterListError::InvalidFieldInCdb { byte, bit } => {
                Sense::invalid_field_in_cdb(byte, bit)
            }
        }
    }
}

/// Bytes from a device server (data-in, sense) that an initiator cannot make sense of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The data ends before the field that starts or ends at this offset.
    #[error("{what}: data ends before byte {needed}")]
    Truncated {
        /// What was being parsed.
        what: &'static str,
        /// Number of bytes that would have been needed.
        needed: usize,
    },
    /// A field holds a value that its definition does not allow.
    #[error("{what}: invalid value at byte {byte}")]
    Invalid {
        /// What was being parsed.
        what: &'static str,
        /// Offset of the field.
        byte: usize,
    },
}
