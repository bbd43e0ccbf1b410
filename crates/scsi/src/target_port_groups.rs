//! REPORT TARGET PORT GROUPS parameter data (SPC-4 6.37.2).

use crate::error::ParseError;
use crate::wire::{View, flag, length_u32};

/// ASYMMETRIC ACCESS STATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccessState {
    /// 0h.
    ActiveOptimized = 0x0,
    /// 1h.
    ActiveNonOptimized = 0x1,
    /// 2h.
    Standby = 0x2,
    /// 3h.
    Unavailable = 0x3,
    /// Eh.
    Offline = 0xe,
    /// Fh.
    Transitioning = 0xf,
}

impl AccessState {
    fn from_low_bits(code: u8) -> Option<AccessState> {
        Some(match code & 0x0f {
            0x0 => AccessState::ActiveOptimized,
            0x1 => AccessState::ActiveNonOptimized,
            0x2 => AccessState::Standby,
            0x3 => AccessState::Unavailable,
            0xe => AccessState::Offline,
            0xf => AccessState::Transitioning,
            _ => return None,
        })
    }

    /// The bit that says that a group supports this state, in the second byte of its descriptor.
    const fn support_bit(self) -> u8 {
        match self {
            AccessState::ActiveOptimized => 0x01,
            AccessState::ActiveNonOptimized => 0x02,
            AccessState::Standby => 0x04,
            AccessState::Unavailable => 0x08,
            AccessState::Offline => 0x40,
            AccessState::Transitioning => 0x80,
        }
    }
}

/// A target port group descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPortGroup {
    /// PREF: the preferred group.
    pub preferred: bool,
    /// ASYMMETRIC ACCESS STATE.
    pub state: AccessState,
    /// The states that the group can have.
    pub supported: Vec<AccessState>,
    /// TARGET PORT GROUP.
    pub group: u16,
    /// STATUS CODE: 0 nothing to tell, 1 altered by SET TARGET PORT GROUPS, 2 altered implicitly.
    pub status_code: u8,
    /// RELATIVE TARGET PORT IDENTIFIERs, at most 255.
    pub ports: Vec<u16>,
}

/// Builds the data; with `implicit_transition_seconds` in the extended format. RETURN DATA LENGTH counts every group.
pub fn encode(groups: &[TargetPortGroup], implicit_transition_seconds: Option<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(seconds) = implicit_transition_seconds {
        body.extend([0x10, seconds, 0, 0]);
    }
    for group in groups {
        let ports = &group.ports[..group.ports.len().min(255)];
        let supported = group
            .supported
            .iter()
            .fold(0, |bits, state| bits | state.support_bit());
        body.extend([flag(group.preferred, 7) | group.state as u8, supported]);
        body.extend(group.group.to_be_bytes());
        // At most 255 ports: the count fits a byte.
        body.extend([0, group.status_code, 0, ports.len() as u8]);
        for port in ports {
            body.extend([0, 0]);
            body.extend(port.to_be_bytes());
        }
    }
    [&length_u32(body.len()).to_be_bytes()[..], &body].concat()
}

/// Reads the complete groups of data in either format.
///
/// # Errors
/// The header is cut short, or an access state is reserved.
pub fn parse(data: &[u8], extended: bool) -> Result<Vec<TargetPortGroup>, ParseError> {
    let view = View::new(data, "target port groups data");
    let end = usize::try_from(view.u32(0)?)
        .unwrap_or(usize::MAX)
        .saturating_add(4)
        .min(data.len());
    let view = View::new(&data[..end], view.what);
    let mut groups = Vec::new();
    let mut at = if extended { 8 } else { 4 };
    while let Ok(&[first, supported, _, _, _, status_code, _, count]) = view.slice(at, 8) {
        let group = view.u16(at + 2)?;
        let Ok(ports) = view.slice(at + 8, 4 * usize::from(count)) else {
            break;
        };
        let all = [
            AccessState::ActiveOptimized,
            AccessState::ActiveNonOptimized,
            AccessState::Standby,
            AccessState::Unavailable,
            AccessState::Offline,
            AccessState::Transitioning,
        ];
        groups.push(TargetPortGroup {
            preferred: first & 0x80 != 0,
            state: AccessState::from_low_bits(first).ok_or(view.invalid(at))?,
            supported: all
                .into_iter()
                .filter(|state| supported & state.support_bit() != 0)
                .collect(),
            group,
            status_code,
            ports: ports
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&[_, _, high, low]| u16::from_be_bytes([high, low]))
                .collect(),
        });
        at += 8 + 4 * usize::from(count);
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_by_hand() {
        let group = |number: u16, state| TargetPortGroup {
            preferred: false,
            state,
            supported: vec![AccessState::ActiveOptimized, AccessState::Unavailable],
            group: number,
            status_code: 0,
            ports: vec![number, 0x0102],
        };
        let groups = [
            group(1, AccessState::ActiveOptimized),
            group(2, AccessState::Unavailable),
        ];
        let data = encode(&groups, None);
        assert_eq!(
            data[..20],
            [
                0, 0, 0, 32, 0x00, 0x09, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 1, 2
            ]
        );
        assert_eq!(parse(&data, false).as_deref(), Ok(&groups[..]));
        assert_eq!(parse(&data[..35], false).as_deref(), Ok(&groups[..1]));
        let extended = encode(&groups, Some(7));
        assert_eq!(extended[..8], [0, 0, 0, 36, 0x10, 7, 0, 0]);
        assert_eq!(parse(&extended, true).as_deref(), Ok(&groups[..]));
        assert!(parse(&data[..3], false).is_err());
    }
}
