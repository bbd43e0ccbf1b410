//! iSCSI TransportIDs (SPC-4 7.6.4.6).

use crate::error::ParameterListError;
use crate::wire::length_u16;

/// PROTOCOL IDENTIFIER of iSCSI.
const PROTOCOL_ISCSI: u8 = 0x5;
/// Longest iSCSI name in bytes (RFC 7143 4.2.7.1).
const NAME_MAX_BYTES: usize = 223;
/// What stands between the name and the ISID of an initiator port.
const SEPARATOR: &[u8] = b",i,0x";
/// Header and the smallest ADDITIONAL LENGTH.
const MIN_BYTES: usize = 24;

/// The TransportID of an iSCSI initiator device or port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId {
    /// iSCSI name, 1 to 223 bytes; ASCII letters are lower case, since iSCSI names are compared without case.
    pub name: String,
    /// ISID: present in format 01b, which names an initiator port; absent in format 00b, which names an initiator
    /// device and so each of its ports.
    pub isid: Option<[u8; 6]>,
}

impl TransportId {
    /// Builds the TransportID: name, separator and ISID (twelve hexadecimal digits), NUL-terminated and NUL-padded to
    /// a multiple of four and at least 20 bytes. The length is that of the name, so at most 248 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let format = if self.isid.is_some() { 0x40 } else { 0x00 };
        let mut data = vec![format | PROTOCOL_ISCSI, 0, 0, 0];
        data.extend(self.name.bytes());
        if let Some(isid) = self.isid {
            data.extend(SEPARATOR);
            for byte in isid {
                data.extend(format!("{byte:02x}").bytes());
            }
        }
        data.push(0);
        data.resize(data.len().next_multiple_of(4).max(MIN_BYTES), 0);
        let additional = length_u16(data.len() - 4).to_be_bytes();
        data[2..4].copy_from_slice(&additional);
        data
    }

    /// Reads one TransportID from the start of `data` and returns it with its length in bytes. `offset` is where
    /// `data` starts in the parameter list, for the field pointer.
    ///
    /// # Errors
    /// [`ParameterListError::Length`] when the TransportID does not fit into `data`;
    /// [`ParameterListError::InvalidField`] when it is not an iSCSI one, or malformed: a reserved format or field, an
    /// ADDITIONAL LENGTH below 20 or not a multiple of four, no terminating NUL, something behind it, a name that is
    /// empty, longer than 223 bytes or not an iSCSI name, or an ISID that is not 1 to 12 hexadecimal digits.
    pub fn parse(data: &[u8], offset: usize) -> Result<(TransportId, usize), ParameterListError> {
        let at = |byte: usize, bit| ParameterListError::field(offset.saturating_add(byte), bit);
        let [first, reserved, high, low, rest @ ..] = data else {
            return Err(ParameterListError::Length);
        };
        let has_isid = match first >> 6 {
            0 => false,
            1 => true,
            _ => return Err(at(0, Some(7))),
        };
        if first & 0x30 != 0 {
            return Err(at(0, Some(5)));
        }
        if first & 0x0f != PROTOCOL_ISCSI {
            return Err(at(0, Some(3)));
        }
        if *reserved != 0 {
            return Err(at(1, None));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length < MIN_BYTES - 4 || !length.is_multiple_of(4) {
            return Err(at(2, None));
        }
        let field = rest.get(..length).ok_or(ParameterListError::Length)?;
        let end = field
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(at(4, None))?;
        if let Some(junk) = field[end..].iter().position(|&byte| byte != 0) {
            return Err(at(4 + end + junk, None));
        }
        let text = &field[..end];
        let (name, isid) = if has_isid {
            let split = text
                .windows(SEPARATOR.len())
                .rposition(|part| part == SEPARATOR)
                .ok_or(at(4, None))?;
            let digits = split + SEPARATOR.len();
            (
                &text[..split],
                Some(parse_isid(&text[digits..]).ok_or(at(4 + digits, None))?),
            )
        } else {
            (text, None)
        };
        let name = parse_name(name).ok_or(at(4, None))?;
        Ok((TransportId { name, isid }, 4 + length))
    }

    /// Reads a list of TransportIDs that fills `data` exactly.
    ///
    /// # Errors
    /// As [`TransportId::parse`].
    pub fn parse_list(data: &[u8], offset: usize) -> Result<Vec<TransportId>, ParameterListError> {
        let mut list = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let (id, length) = TransportId::parse(&data[at..], offset.saturating_add(at))?;
            list.push(id);
            at += length;
        }
        Ok(list)
    }
}

/// Reads 1 to 12 hexadecimal digits; leading zeroes may have been left out.
fn parse_isid(digits: &[u8]) -> Option<[u8; 6]> {
    if digits.is_empty() || digits.len() > 12 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let value = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    let [_, _, isid @ ..] = value.to_be_bytes();
    Some(isid)
}

/// Checks an iSCSI name: `iqn.`, `eui.` or `naa.`, no white space, control or comma (RFC 7143 4.2.7, RFC 3722).
fn parse_name(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let form = ["iqn.", "eui.", "naa."]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let clean = !name
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == ',');
    (form && clean && name.len() <= NAME_MAX_BYTES && name.len() > 4).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str) -> TransportId {
        TransportId {
            name: name.into(),
            isid: Some([0x80, 0, 0, 0x12, 0xab, 0]),
        }
    }

    #[test]
    fn bytes_by_hand() {
        let data = port("iqn.a:b").encode();
        // 7 + 5 + 12 characters and the NUL make 25, padded to 28.
        assert_eq!(data[..4], [0x45, 0, 0, 28]);
        assert_eq!(&data[4..], b"iqn.a:b,i,0x80000012ab00\0\0\0\0");
        let device = TransportId {
            name: "iqn.a:b".into(),
            isid: None,
        }
        .encode();
        assert_eq!(device[..4], [0x05, 0, 0, 20]);
        assert_eq!(&device[4..], b"iqn.a:b\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn padding_is_always_a_multiple_of_four_with_a_nul() {
        for length in 1..=219 {
            for isid in [None, Some([1, 2, 3, 4, 5, 6])] {
                let id = TransportId {
                    name: format!("iqn.{}", "x".repeat(length)),
                    isid,
                };
                let data = id.encode();
                assert!(
                    data.len().is_multiple_of(4) && data.len() >= 24 && data.last() == Some(&0)
                );
                assert_eq!(TransportId::parse(&data, 0), Ok((id, data.len())));
            }
        }
    }

    #[test]
    fn malformed_ones_are_refused_where_they_are_wrong() {
        let good = port("iqn.a:b").encode();
        let changed = |at: usize, value: u8| {
            let mut data = good.clone();
            data[at] = value;
            TransportId::parse(&data, 100).expect_err("malformed")
        };
        assert_eq!(changed(0, 0x85), ParameterListError::field(100, Some(7)));
        assert_eq!(changed(0, 0x46), ParameterListError::field(100, Some(3)));
        assert_eq!(changed(0, 0x65), ParameterListError::field(100, Some(5)));
        assert_eq!(changed(1, 1), ParameterListError::field(101, None));
        assert_eq!(changed(3, 16), ParameterListError::field(102, None));
        assert_eq!(changed(3, 27), ParameterListError::field(102, None));
        assert_eq!(changed(3, 32), ParameterListError::Length);
        assert_eq!(changed(4, b'x'), ParameterListError::field(104, None));
        assert_eq!(changed(6, b' '), ParameterListError::field(104, None));
        assert_eq!(
            changed(11, b'.'),
            ParameterListError::field(104, None),
            "no separator"
        );
        assert_eq!(
            changed(16, b'g'),
            ParameterListError::field(116, None),
            "not a digit"
        );
        assert_eq!(
            changed(31, 1),
            ParameterListError::field(131, None),
            "behind the NUL"
        );
        for cut in 0..good.len() {
            assert_eq!(
                TransportId::parse(&good[..cut], 0),
                Err(ParameterListError::Length)
            );
        }
        let unterminated = [&[0x05, 0, 0, 20][..], b"iqn.aaaaaaaaaaaaaaaa"].concat();
        assert_eq!(
            TransportId::parse(&unterminated, 0),
            Err(ParameterListError::field(4, None))
        );
    }

    #[test]
    fn case_and_leading_zeroes_do_not_matter() {
        let mut data = vec![0x45, 0, 0, 20];
        data.extend(b"IQN.A:b,i,0x23D\0\0\0\0\0");
        let (id, length) = TransportId::parse(&data, 0).expect("valid");
        assert_eq!(
            (id.name.as_str(), id.isid, length),
            ("iqn.a:b", Some([0, 0, 0, 0, 2, 0x3d]), 24)
        );
    }
}
