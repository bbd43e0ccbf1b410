//! Points in time and durations as people write them.

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

/// Why a time could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TimeError {
    /// Neither a timestamp nor a duration.
    #[error(
        "'{0}' is neither a time (RFC 3339, like 2026-11-23T14:30:00Z) nor how long ago (like 90s, 10m, 2h30m, 7d)"
    )]
    Malformed(String),
    /// Before the year -9999 or so.
    #[error("'{0}' is further back than a clock can count")]
    TooFar(String),
}

/// Parses `text` as RFC 3339, or as a time before `now`: numbers with the units `s`, `m`, `h`, `d` and `w`.
pub fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    let seconds = parse_ago_s(text).ok_or_else(|| TimeError::Malformed(text.to_owned()))?;
    let ago = i64::try_from(seconds)
        .map(SignedDuration::from_secs)
        .map_err(|_| TimeError::TooFar(text.to_owned()))?;
    now.checked_sub(ago)
        .map_err(|_| TimeError::TooFar(text.to_owned()))
}

fn parse_ago_s(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total_s = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let unit = tail.chars().next()?;
        let unit_s = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total_s = total_s.checked_add(number.checked_mul(unit_s)?)?;
        rest = &tail[unit.len_utf8()..];
    }
    Some(total_s)
}

/// Parses a duration: a number and a unit (`250ms`, `2s`, `5m`, `1h`). The result is in milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no duration: a number and ms, s, m or h, like 250ms or 2s");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_ms).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn absolute_and_relative_times() {
        let now = at("2026-11-23T14:30:00Z");
        let table = [
            ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
            ("2026-11-01T02:00:00+02:00", "2026-11-01T00:00:00Z"),
            ("0s", "2026-11-23T14:30:00Z"),
            ("90s", "2026-11-23T14:28:30Z"),
            ("10m", "2026-11-23T14:20:00Z"),
            ("2h30m", "2026-11-23T12:00:00Z"),
            ("1d", "2026-11-22T14:30:00Z"),
            ("1w", "2026-11-16T14:30:00Z"),
        ];
        for (text, want) in table {
            assert_eq!(parse_since(text, now), Ok(at(want)), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("250ms", 250),
            ("0s", 0),
            ("2s", 2000),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(want));
        }
        for text in [
            "",
            "2",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let now = at("2026-11-23T14:30:00Z");
        for text in [
            "",
            "10",
            "m",
            "10y",
            "yesterday",
            "-5m",
            "5m3",
            "5é",
            "2026-11-01",
        ] {
            assert!(
                matches!(parse_since(text, now), Err(TimeError::Malformed(_))),
                "{text}"
            );
        }
        assert!(matches!(
            parse_since("999999999w", now),
            Err(TimeError::TooFar(_))
        ));
        assert!(parse_since("99999999999999999999w", now).is_err());
    }
}
