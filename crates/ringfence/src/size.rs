//! Sizes as people write them.

use std::fmt;

use thiserror::Error;

/// Why a size could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SizeError {
    /// No digits, or something other than digits, one point and a unit.
    #[error("'{0}' is not a size; write for example 512M, 10G, 1.5T or 4096 (bytes)")]
    Malformed(String),
    /// The unit is not known.
    #[error(
        "unknown unit '{0}'; K, M, G, T and P (or KiB, MiB, ...) count in 1024s, KB, MB, GB, TB and PB in 1000s"
    )]
    Unit(String),
    /// More than 2^64 - 1 bytes.
    #[error("'{0}' is more than 16 EiB")]
    TooLarge(String),
    /// A fraction that is no whole number of bytes.
    #[error("'{0}' is not a whole number of bytes")]
    Fraction(String),
}

/// Parses a size in bytes: digits, perhaps with a fraction, and a unit. As in coreutils, `K` and `KiB` are 1024,
/// `KB` is 1000, and no unit (or `B`) is bytes. Zero is accepted; who needs more says so.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let malformed = || SizeError::Malformed(text.to_owned());
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let multiplier = unit_bytes(unit.trim())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(malformed());
    }
    let too_large = || SizeError::TooLarge(text.to_owned());
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let mut bytes = u128::from(whole) * u128::from(multiplier);
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        if fraction.len() > 18 {
            return Err(SizeError::Fraction(text.to_owned()));
        }
        let numerator: u128 = fraction.parse().map_err(|_| malformed())?;
        let denominator = 10_u128.pow(fraction.len() as u32);
        let scaled = numerator * u128::from(multiplier);
        if !scaled.is_multiple_of(denominator) {
            return Err(SizeError::Fraction(text.to_owned()));
        }
        bytes += scaled / denominator;
    }
    u64::try_from(bytes).map_err(|_| too_large())
}

fn unit_bytes(unit: &str) -> Result<u64, SizeError> {
    let lower = unit.to_ascii_lowercase();
    let (prefix, base) = match lower.as_str() {
        "" | "b" => return Ok(1),
        other => match other.strip_suffix("ib").or_else(|| {
            // `K` alone counts in 1024s, `KB` in 1000s.
            (other.len() == 1).then_some(other)
        }) {
            Some(prefix) => (prefix, 1024_u64),
            None => (other.strip_suffix('b').unwrap_or(other), 1000_u64),
        },
    };
    let power = match prefix {
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(SizeError::Unit(unit.to_owned())),
    };
    Ok(base.pow(power))
}

/// A size of a device that may be made: not zero.
pub fn parse_size_not_zero(text: &str) -> Result<u64, String> {
    match parse_size(text) {
        Ok(0) => Err("a size must be more than zero".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// An offset into a volume; zero is fine.
pub fn parse_offset(text: &str) -> Result<u64, String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16)
            .map_err(|_| format!("'{text}' is not a hexadecimal offset"));
    }
    parse_size(text).map_err(|error| error.to_string())
}

/// Prints a size for people, exactly where a unit fits and else with one or two decimals (`10 GiB`, `1.50 GiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanSize(pub u64);

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 6] = [
            ("EiB", 60),
            ("PiB", 50),
            ("TiB", 40),
            ("GiB", 30),
            ("MiB", 20),
            ("KiB", 10),
        ];
        for (unit, shift) in UNITS {
            let one = 1_u64 << shift;
            if self.0 >= one {
                let text = if self.0.is_multiple_of(one) {
                    format!("{} {unit}", self.0 >> shift)
                } else {
                    // Rounded down, so that nobody believes there is more than there is.
                    let hundredths =
                        (u128::from(self.0 & (one - 1)) * 100 / u128::from(one)) as u64;
                    format!("{}.{hundredths:02} {unit}", self.0 >> shift)
                };
                return f.pad(&text);
            }
        }
        f.pad(&format!("{} B", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        let table: &[(&str, u64)] = &[
            ("0", 0),
            ("4096", 4096),
            ("512b", 512),
            ("1K", 1024),
            ("1k", 1024),
            ("1KiB", 1024),
            ("1KB", 1000),
            ("64M", 64 << 20),
            ("10G", 10 << 30),
            ("10 GiB", 10 << 30),
            ("2TB", 2_000_000_000_000),
            ("1.5G", 3 << 29),
            ("0.5KB", 500),
            ("1P", 1 << 50),
            ("1.50M", 3 << 19),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(*bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "G", "-1", "1..5G", "1.G", ".5G", "ten", "+5"] {
            assert!(
                matches!(
                    parse_size(text),
                    Err(SizeError::Malformed(_) | SizeError::Unit(_))
                ),
                "{text}: {:?}",
                parse_size(text)
            );
        }
        assert!(matches!(parse_size("5X"), Err(SizeError::Unit(_))));
        assert!(matches!(parse_size("5KBB"), Err(SizeError::Unit(_))));
        assert!(matches!(parse_size("0.3"), Err(SizeError::Fraction(_))));
        assert!(matches!(
            parse_size("99999999P"),
            Err(SizeError::TooLarge(_))
        ));
        assert!(matches!(
            parse_size("18446744073709551616"),
            Err(SizeError::TooLarge(_))
        ));
        assert!(parse_size_not_zero("0").is_err());
        assert_eq!(parse_offset("0x1000"), Ok(4096));
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(HumanSize(0).to_string(), "0 B");
        assert_eq!(HumanSize(1023).to_string(), "1023 B");
        assert_eq!(HumanSize(10 << 30).to_string(), "10 GiB");
        assert_eq!(HumanSize(3 << 29).to_string(), "1.50 GiB");
        assert_eq!(HumanSize((1 << 40) - 1).to_string(), "1023.99 GiB");
        assert_eq!(HumanSize(u64::MAX).to_string(), "15.99 EiB");
    }
}
