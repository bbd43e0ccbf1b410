//! Vital product data pages (SPC-4 7.8, SBC-3 6.6).
//!
//! Each page type builds and parses its whole page. The header's peripheral qualifier and device type are those of a
//! connected direct access block device, 00h.

mod block;
mod identification;
mod third_party_copy;

pub use block::{
    BlockDeviceCharacteristics, BlockLimits, ExtendedInquiry, LogicalBlockProvisioning,
    ProvisioningType,
};
pub use identification::{
    Association, Designator, DesignatorBody, encode_identification, parse_identification,
};
pub use third_party_copy::{CopyCommand, encode_third_party_copy};

use crate::error::ParseError;
use crate::wire::{View, ascii_field, length_u16};

/// PAGE CODE values.
pub mod page_code {
    /// Supported VPD pages.
    pub const SUPPORTED_PAGES: u8 = 0x00;
    /// Unit serial number.
    pub const UNIT_SERIAL_NUMBER: u8 = 0x80;
    /// Device identification.
    pub const DEVICE_IDENTIFICATION: u8 = 0x83;
    /// Extended INQUIRY data.
    pub const EXTENDED_INQUIRY: u8 = 0x86;
    /// Third-party copy.
    pub const THIRD_PARTY_COPY: u8 = 0x8f;
    /// Block limits.
    pub const BLOCK_LIMITS: u8 = 0xb0;
    /// Block device characteristics.
    pub const BLOCK_DEVICE_CHARACTERISTICS: u8 = 0xb1;
    /// Logical block provisioning.
    pub const LOGICAL_BLOCK_PROVISIONING: u8 = 0xb2;
}

/// Puts the four-byte header before the contents of a page.
fn page(code: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = length_u16(body.len()).to_be_bytes();
    [&[0x00, code, high, low], body].concat()
}

/// The contents of a page, as far as PAGE LENGTH and the data both go. Offsets in errors count from the page start.
fn body<'a>(data: &'a [u8], code: u8, what: &'static str) -> Result<View<'a>, ParseError> {
    let view = View::new(data, what);
    let length = usize::from(view.u16(2)?);
    if view.u8(1)? != code {
        return Err(view.invalid(1));
    }
    let rest = &data[4..];
    Ok(View::new(&rest[..length.min(rest.len())], what))
}

/// Builds the supported VPD pages page; page codes are put in ascending order, as the standard wants them.
pub fn encode_supported_pages(codes: &[u8]) -> Vec<u8> {
    let mut codes = codes.to_vec();
    codes.sort_unstable();
    codes.dedup();
    page(page_code::SUPPORTED_PAGES, &codes)
}

/// Reads the supported VPD pages page.
///
/// # Errors
/// The header is cut short or names another page.
pub fn parse_supported_pages(data: &[u8]) -> Result<Vec<u8>, ParseError> {
    Ok(
        body(data, page_code::SUPPORTED_PAGES, "supported VPD pages page")?
            .bytes
            .to_vec(),
    )
}

/// Builds the unit serial number page; characters that are not printable ASCII become spaces, and at most 255
/// characters are used.
pub fn encode_unit_serial_number(serial: &str) -> Vec<u8> {
    let field = ascii_field::<255>(serial);
    page(
        page_code::UNIT_SERIAL_NUMBER,
        &field[..serial.len().min(field.len())],
    )
}

/// Reads the unit serial number page.
///
/// # Errors
/// The header is cut short or names another page.
pub fn parse_unit_serial_number(data: &[u8]) -> Result<String, ParseError> {
    let body = body(
        data,
        page_code::UNIT_SERIAL_NUMBER,
        "unit serial number page",
    )?;
    Ok(String::from_utf8_lossy(body.bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supported_pages_are_sorted() {
        let data = encode_supported_pages(&[0xb2, 0x00, 0x83, 0x80]);
        assert_eq!(data, [0, 0, 0, 4, 0x00, 0x80, 0x83, 0xb2]);
        assert_eq!(
            parse_supported_pages(&data),
            Ok(vec![0x00, 0x80, 0x83, 0xb2])
        );
        assert!(parse_supported_pages(&encode_unit_serial_number("x")).is_err());
    }

    #[test]
    fn serial_number_round_trips() {
        let data = encode_unit_serial_number("0a1b");
        assert_eq!(data, [0, 0x80, 0, 4, b'0', b'a', b'1', b'b']);
        assert_eq!(parse_unit_serial_number(&data).as_deref(), Ok("0a1b"));
        assert!(parse_unit_serial_number(&data[..3]).is_err());
    }
}
