//! Big-endian access to byte slices that never panics on a short slice.

use crate::error::ParseError;

/// Cuts data-in to the allocation length of the CDB (SPC-4 4.2.5.6). Length fields inside the data keep the value
/// they have for the whole data.
pub fn truncated(mut data: Vec<u8>, allocation_length_bytes: u32) -> Vec<u8> {
    let limit = usize::try_from(allocation_length_bytes).unwrap_or(usize::MAX);
    data.truncate(limit);
    data
}

/// A view of bytes with checked big-endian reads; `what` names the form in errors.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) what: &'static str,
}

impl<'a> View<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> View<'a> {
        View { bytes, what }
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], ParseError> {
        self.slice(at, N)?
            .try_into()
            .map_err(|_| ParseError::Truncated {
                what: self.what,
                needed: at.saturating_add(N),
            })
    }

    /// `length` bytes from `at`.
    pub(crate) fn slice(&self, at: usize, length: usize) -> Result<&'a [u8], ParseError> {
        let end = at.saturating_add(length);
        self.bytes.get(at..end).ok_or(ParseError::Truncated {
            what: self.what,
            needed: end,
        })
    }

    pub(crate) fn u8(&self, at: usize) -> Result<u8, ParseError> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    pub(crate) fn u16(&self, at: usize) -> Result<u16, ParseError> {
        self.array(at).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&self, at: usize) -> Result<u32, ParseError> {
        self.array(at).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&self, at: usize) -> Result<u64, ParseError> {
        self.array(at).map(u64::from_be_bytes)
    }

    /// The error for a field at `at` whose value is not allowed.
    pub(crate) fn invalid(&self, at: usize) -> ParseError {
        ParseError::Invalid {
            what: self.what,
            byte: at,
        }
    }
}

/// A length that fits `u16`; data built by this crate is far smaller, larger data is reported as 65535.
pub(crate) fn length_u16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// A length that fits `u32`; see [`length_u16`].
pub(crate) fn length_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Places ASCII text left-aligned in a field padded with spaces (SPC-4 4.3.1); anything but 20h to 7Eh becomes a space.
pub(crate) fn ascii_field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = if (0x20..=0x7e).contains(&from) {
            from
        } else {
            b' '
        };
    }
    field
}

/// One bit as a byte with that bit set or clear.
pub(crate) const fn flag(value: bool, bit: u8) -> u8 {
    (value as u8) << bit
}
