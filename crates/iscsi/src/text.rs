//! Text of login and text negotiation: `key=value` pairs and the forms of values (RFC 7143 6.1).

/// The longest key, in bytes (RFC 7143 6.1: key-name).
const MAX_KEY_BYTES: usize = 63;

/// The most pairs taken in one exchange: a long answer to SendTargets.
pub const MAX_PAIRS: usize = 4096;

/// The most bytes of text one exchange may gather over several PDUs.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The longest binary value accepted, in bytes (RFC 7143 6.1: large-binary-value is at most 1,024 here, which holds
/// every CHAP value).
const MAX_BINARY_BYTES: usize = 1024;

/// Text that does not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A pair has no `=`.
    #[error("text without '='")]
    NoEquals,
    /// A key is empty, too long or has a character that keys cannot have.
    #[error("malformed key")]
    BadKey,
    /// Not UTF-8 (RFC 7143 6.1).
    #[error("text is not UTF-8")]
    NotUtf8,
    /// More than [`MAX_PAIRS`].
    #[error("too many keys")]
    TooMany,
}

/// Splits a data segment into its pairs.
///
/// # Errors
/// The text is malformed; nothing of it should be used.
pub fn parse(bytes: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TextError::NotUtf8)?;
    let mut pairs = Vec::new();
    for pair in text.split('\0').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or(TextError::NoEquals)?;
        if !is_key(key) {
            return Err(TextError::BadKey);
        }
        if pairs.len() == MAX_PAIRS {
            return Err(TextError::TooMany);
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY_BYTES).contains(&key.len())
        && key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b".-+@_/".contains(&c))
}

/// Appends a pair with its terminating NUL.
pub fn put(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}

/// A numerical value, decimal or `0x` hexadecimal (RFC 7143 6.1: numerical-value).
pub fn number(value: &str) -> Option<u64> {
    let (digits, radix) = match value.strip_prefix("0x").or(value.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    // from_str_radix would take a sign.
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// A boolean value (RFC 7143 6.1: boolean-value).
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// A boolean as text.
pub fn yes_no(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// A binary value: `0x` hexadecimal (an odd first digit stands alone) or `0b` base64 (RFC 7143 6.1: binary-value).
pub fn binary(value: &str) -> Option<Vec<u8>> {
    let bytes = value.as_bytes();
    if bytes.len() > 2 + 2 * MAX_BINARY_BYTES {
        return None;
    }
    match bytes {
        [b'0', b'x' | b'X', digits @ ..] if !digits.is_empty() => hex(digits),
        [b'0', b'b' | b'B', digits @ ..] if !digits.is_empty() => base64(digits),
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: &u8| char::from(*c).to_digit(16).map(|d| d as u8);
    let (odd, even) = digits.split_at(digits.len() % 2);
    let mut out = Vec::with_capacity(digits.len().div_ceil(2));
    for c in odd {
        out.push(digit(c)?);
    }
    for pair in even.chunks_exact(2) {
        out.push(digit(&pair[0])? << 4 | digit(&pair[1])?);
    }
    Some(out)
}

fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let padding = digits.iter().rev().take_while(|c| **c == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3);
    let mut group = 0u32;
    for (i, c) in digits[..digits.len() - padding].iter().enumerate() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        group = group << 6 | u32::from(six);
        // Every digit but the first of four completes a byte.
        if i % 4 != 0 {
            let bits_left = 6 - 2 * (i % 4);
            out.push((group >> bits_left) as u8);
        }
    }
    Some(out)
}

/// Bytes as a `0x` hexadecimal binary value.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(
            parse(b"a=1\0b=\0\0\0c=x=y\0"),
            Ok(vec![("a", "1"), ("b", ""), ("c", "x=y")])
        );
        assert_eq!(
            parse(b"last=unterminated"),
            Ok(vec![("last", "unterminated")])
        );
        assert_eq!(parse(b"novalue\0"), Err(TextError::NoEquals));
        assert_eq!(parse(b"=1\0"), Err(TextError::BadKey));
        assert_eq!(parse(b"a b=1\0"), Err(TextError::BadKey));
        assert_eq!(parse(b"a=\xff\0"), Err(TextError::NotUtf8));
        assert_eq!(
            parse(&b"a=1\0".repeat(MAX_PAIRS + 1)),
            Err(TextError::TooMany)
        );
    }

    #[test]
    fn values() {
        assert_eq!(number("65536"), Some(65536));
        assert_eq!(number("0x10000"), Some(65536));
        for bad in ["", "-1", "+1", "0x", "1k", "a", "99999999999999999999"] {
            assert_eq!(number(bad), None, "{bad}");
        }
        assert_eq!(boolean("Yes"), Some(true));
        assert_eq!(boolean("yes"), None);
        assert_eq!(binary("0x0aff"), Some(vec![0x0a, 0xff]));
        assert_eq!(binary("0xaff"), Some(vec![0x0a, 0xff]));
        assert_eq!(binary("0bAQID"), Some(vec![1, 2, 3]));
        assert_eq!(binary("0bAQI="), Some(vec![1, 2]));
        assert_eq!(binary("0bAQ=="), Some(vec![1]));
        for bad in ["", "0x", "0xg0", "0bAQI", "0bA===", "0bA=ID", "1234"] {
            assert_eq!(binary(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn hex_round_trips(bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
            prop_assert_eq!(binary(&to_hex(&bytes)), Some(bytes));
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let text = String::from_utf8_lossy(&bytes);
            let _ = (number(&text), binary(&text), binary(&format!("0b{text}")));
        }
    }
}
