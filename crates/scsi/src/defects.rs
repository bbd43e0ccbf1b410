//! READ DEFECT DATA parameter data (SBC-3): a medium that reports no defects.

use crate::cdb::{ReadDefectData, TransferSize};

/// Builds the data with an empty list: the header repeats which lists were asked for and their format.
pub fn encode_empty(command: &ReadDefectData) -> Vec<u8> {
    let flags =
        u8::from(command.primary) << 4 | u8::from(command.grown) << 3 | command.format & 0x07;
    match command.size {
        TransferSize::Six | TransferSize::Ten => vec![0, flags, 0, 0],
        TransferSize::Twelve | TransferSize::Sixteen => vec![0, flags, 0, 0, 0, 0, 0, 0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_by_hand() {
        let command = ReadDefectData {
            size: TransferSize::Ten,
            primary: true,
            grown: true,
            format: 5,
            descriptor_index: 0,
            allocation_length: 8,
        };
        assert_eq!(encode_empty(&command), [0, 0x1d, 0, 0]);
        let command = ReadDefectData {
            size: TransferSize::Twelve,
            primary: false,
            ..command
        };
        assert_eq!(encode_empty(&command), [0, 0x0d, 0, 0, 0, 0, 0, 0]);
    }
}
