//! Third-party copy page (SPC-4), with the one descriptor that every copy manager must have.

use super::{page, page_code};
use crate::wire::length_u16;

/// A command that the copy manager supports, with its service actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyCommand {
    /// OPERATION CODE.
    pub operation_code: u8,
    /// SERVICE ACTIONs.
    pub service_actions: Vec<u8>,
}

/// Builds the page with the supported commands descriptor (type 0001h). The list must stay below 250 bytes, which its
/// length byte holds; commands that would pass that are left out.
pub fn encode_third_party_copy(commands: &[CopyCommand]) -> Vec<u8> {
    let mut list = Vec::new();
    for command in commands {
        let Ok(count) = u8::try_from(command.service_actions.len()) else {
            continue;
        };
        if list.len() + 2 + command.service_actions.len() <= 250 {
            list.extend([command.operation_code, count]);
            list.extend(&command.service_actions);
        }
    }
    // The list is at most 250 bytes; the descriptor is padded to a multiple of four.
    let mut body = vec![list.len() as u8];
    body.extend(list);
    body.resize(body.len().next_multiple_of(4), 0);
    let [high, low] = length_u16(body.len()).to_be_bytes();
    page(
        page_code::THIRD_PARTY_COPY,
        &[&[0x00, 0x01, high, low][..], &body].concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_by_hand() {
        let data = encode_third_party_copy(&[
            CopyCommand {
                operation_code: 0x83,
                service_actions: vec![0x00],
            },
            CopyCommand {
                operation_code: 0x84,
                service_actions: vec![0x00, 0x01, 0x03, 0x04],
            },
        ]);
        assert_eq!(
            data,
            [
                0, 0x8f, 0, 16, 0x00, 0x01, 0, 12, 9, 0x83, 1, 0x00, 0x84, 4, 0x00, 0x01, 0x03,
                0x04, 0, 0
            ]
        );
    }
}
