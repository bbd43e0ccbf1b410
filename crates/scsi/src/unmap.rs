//! UNMAP parameter list (SBC-3).

use crate::error::ParameterListError;
use crate::wire::length_u16;

/// One UNMAP block descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmapBlockDescriptor {
    /// UNMAP LOGICAL BLOCK ADDRESS.
    pub lba: u64,
    /// NUMBER OF LOGICAL BLOCKS; 0 unmaps nothing and is no error.
    pub length_blocks: u32,
}

/// Length of the header before the descriptors.
const HEADER_BYTES: usize = 8;
/// Length of one descriptor.
const DESCRIPTOR_BYTES: usize = 16;

/// Reads the parameter list, which is as long as the CDB says. An empty list unmaps nothing; an incomplete descriptor
/// at the end of the descriptor list is ignored, as the standard says.
///
/// # Errors
/// [`ParameterListError::Length`] when the list is shorter than its header or than UNMAP BLOCK DESCRIPTOR DATA LENGTH
/// says; [`ParameterListError::InvalidField`] when UNMAP DATA LENGTH is too small for the descriptors.
pub fn parse(data: &[u8]) -> Result<Vec<UnmapBlockDescriptor>, ParameterListError> {
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let (header, list) = data
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(ParameterListError::Length)?;
    let data_length = usize::from(u16::from_be_bytes([header[0], header[1]]));
    let list_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let list = list.get(..list_length).ok_or(ParameterListError::Length)?;
    // UNMAP DATA LENGTH counts the bytes that follow it: six of the header and the descriptors.
    if data_length < HEADER_BYTES - 2 + list_length {
        return Err(ParameterListError::field(0, None));
    }
    let (descriptors, _incomplete) = list.as_chunks::<DESCRIPTOR_BYTES>();
    Ok(descriptors
        .iter()
        .map(
            |&[a, b, c, d, e, f, g, h, i, j, k, l, ..]| UnmapBlockDescriptor {
                lba: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                length_blocks: u32::from_be_bytes([i, j, k, l]),
            },
        )
        .collect())
}

/// Builds a parameter list of at most 4094 descriptors, which is what its length fields can say.
pub fn encode(descriptors: &[UnmapBlockDescriptor]) -> Vec<u8> {
    let list_length = DESCRIPTOR_BYTES * descriptors.len();
    let mut data = Vec::with_capacity(HEADER_BYTES + list_length);
    data.extend(length_u16(HEADER_BYTES - 2 + list_length).to_be_bytes());
    data.extend(length_u16(list_length).to_be_bytes());
    data.extend([0; 4]);
    for descriptor in descriptors {
        data.extend(descriptor.lba.to_be_bytes());
        data.extend(descriptor.length_blocks.to_be_bytes());
        data.extend([0; 4]);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<UnmapBlockDescriptor> {
        vec![
            UnmapBlockDescriptor {
                lba: 0x0102_0304_0506_0708,
                length_blocks: 0x090a_0b0c,
            },
            UnmapBlockDescriptor {
                lba: 7,
                length_blocks: 0,
            },
        ]
    }

    #[test]
    fn round_trips() {
        let data = encode(&two());
        assert_eq!(data[..8], [0, 38, 0, 32, 0, 0, 0, 0]);
        assert_eq!(parse(&data), Ok(two()));
        assert_eq!(parse(&[]), Ok(vec![]));
    }

    #[test]
    fn lengths_are_checked() {
        let data = encode(&two());
        for cut in 1..data.len() {
            assert_eq!(
                parse(&data[..cut]),
                Err(ParameterListError::Length),
                "{cut}"
            );
        }
        let mut short = data.clone();
        short[1] = 37;
        assert_eq!(parse(&short), Err(ParameterListError::field(0, None)));
    }

    #[test]
    fn an_incomplete_last_descriptor_is_ignored() {
        let mut data = encode(&two());
        data[3] = 31;
        assert_eq!(parse(&data), Ok(two()[..1].to_vec()));
    }
}
