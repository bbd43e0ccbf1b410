//! Additional Header Segments (RFC 7143 11.2.2).

/// AHSType 1: Extended CDB (RFC 7143 11.2.2.3).
pub const EXTENDED_CDB: u8 = 1;

/// AHSType 2: Bidirectional Read Expected Data Transfer Length (RFC 7143 11.2.2.4).
pub const BIDIRECTIONAL_READ: u8 = 2;

/// One additional header segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdditionalHeader<'a> {
    /// Bits 5 to 0 of the type byte.
    pub kind: u8,
    /// The AHS-specific bytes: AHSLength of them, the first of which is reserved in the types defined.
    pub specific: &'a [u8],
}

/// Walks the additional header segments of a PDU. An item is `Err` when a segment runs past the end, after which
/// the walk stops.
#[derive(Clone, Debug)]
pub struct AdditionalHeaders<'a>(&'a [u8]);

/// A segment that does not fit into TotalAHSLength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("additional header segment runs past TotalAHSLength")]
pub struct Malformed;

impl<'a> AdditionalHeaders<'a> {
    /// Over the TotalAHSLength × 4 bytes after the basic header.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Appends a segment, padded, to `out`. `specific` is at most 65,535 bytes.
    pub fn append(out: &mut Vec<u8>, kind: u8, specific: &[u8]) {
        let length = u16::try_from(specific.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.push(kind);
        out.extend_from_slice(&specific[..usize::from(length)]);
        out.resize(out.len() + super::padding_bytes(out.len()), 0);
    }
}

impl<'a> Iterator for AdditionalHeaders<'a> {
    type Item = Result<AdditionalHeader<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let [high, low, kind, rest @ ..] = bytes else {
            return Some(Err(Malformed));
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(specific) = rest.get(..length) else {
            return Some(Err(Malformed));
        };
        let whole = 3 + length;
        self.0 = bytes
            .get(whole + super::padding_bytes(whole)..)
            .unwrap_or_default();
        Some(Ok(AdditionalHeader {
            kind: kind & 0x3f,
            specific,
        }))
    }
}
