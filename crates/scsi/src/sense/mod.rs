//! Sense data (SPC-4 4.5): what a CHECK CONDITION tells.

mod additional;
mod constructors;
mod format;

pub use additional::AdditionalSense;
pub use format::{SENSE_FIXED_BYTES, SenseFormat};

/// Sense key (SPC-4 4.5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SenseKey {
    /// 0h.
    NoSense = 0x0,
    /// 1h.
    RecoveredError = 0x1,
    /// 2h.
    NotReady = 0x2,
    /// 3h.
    MediumError = 0x3,
    /// 4h.
    HardwareError = 0x4,
    /// 5h.
    IllegalRequest = 0x5,
    /// 6h.
    UnitAttention = 0x6,
    /// 7h.
    DataProtect = 0x7,
    /// 8h.
    BlankCheck = 0x8,
    /// 9h.
    VendorSpecific = 0x9,
    /// Ah.
    CopyAborted = 0xa,
    /// Bh.
    AbortedCommand = 0xb,
    /// Ch: reserved in SPC-4, EQUAL in older standards.
    Reserved = 0xc,
    /// Dh.
    VolumeOverflow = 0xd,
    /// Eh.
    Miscompare = 0xe,
    /// Fh.
    Completed = 0xf,
}

impl SenseKey {
    /// The key in the low four bits of `code`.
    pub fn from_low_bits(code: u8) -> SenseKey {
        use SenseKey as K;
        match code & 0xf {
            0x0 => K::NoSense,
            0x1 => K::RecoveredError,
            0x2 => K::NotReady,
            0x3 => K::MediumError,
            0x4 => K::HardwareError,
            0x5 => K::IllegalRequest,
            0x6 => K::UnitAttention,
            0x7 => K::DataProtect,
            0x8 => K::BlankCheck,
            0x9 => K::VendorSpecific,
            0xa => K::CopyAborted,
            0xb => K::AbortedCommand,
            0xc => K::Reserved,
            0xd => K::VolumeOverflow,
            0xe => K::Miscompare,
            _ => K::Completed,
        }
    }
}

/// Which field of the CDB or of the parameter list is wrong (SPC-4 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldPointer {
    /// C/D: the field is in the CDB (true) or in the parameter list (false).
    pub in_cdb: bool,
    /// BIT POINTER with BPV=1: the most significant bit of the field, 7 to 0.
    pub bit: Option<u8>,
    /// FIELD POINTER: the first byte of the field.
    pub byte: u16,
}

/// Sense key specific information (SPC-4 4.5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SenseKeySpecific {
    /// With ILLEGAL REQUEST.
    Field(FieldPointer),
    /// With NOT READY or NO SENSE: how much of the work is done, in 1/65536.
    Progress(u16),
    /// With COPY ABORTED: SD, BPV/BIT POINTER and FIELD POINTER.
    Segment {
        /// SD: the pointer is relative to the segment descriptor (true) or to the parameter list (false).
        in_segment_descriptor: bool,
        /// Most significant bit of the field.
        bit: Option<u8>,
        /// First byte of the field.
        byte: u16,
    },
    /// With RECOVERED ERROR, MEDIUM ERROR or HARDWARE ERROR: ACTUAL RETRY COUNT.
    RetryCount(u16),
    /// With UNIT ATTENTION: the unit attention queue has overflowed.
    UnitAttentionOverflow(bool),
}

/// Sense data, independent of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sense {
    /// Response code 71h/73h instead of 70h/72h: the error is one of an earlier command.
    pub deferred: bool,
    /// SENSE KEY.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE and ADDITIONAL SENSE CODE QUALIFIER.
    pub additional: AdditionalSense,
    /// INFORMATION, present when VALID is one: the LBA or the offset that the error is about. Fixed format has room
    /// for 32 bits only; a larger value is left out there.
    pub information: Option<u64>,
    /// COMMAND-SPECIFIC INFORMATION, where not zero. Fixed format has room for 32 bits only.
    pub command_specific: Option<u64>,
    /// Sense key specific information.
    pub specific: Option<SenseKeySpecific>,
}
