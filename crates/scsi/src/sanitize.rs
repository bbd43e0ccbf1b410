//! SANITIZE OVERWRITE parameter list (SBC-3).

use crate::error::ParameterListError;
use crate::wire::{flag, length_u16};

/// What OVERWRITE writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverwriteParameters {
    /// INVERT: each pass writes the complement of the pass before.
    pub invert: bool,
    /// OVERWRITE COUNT: number of passes, 1 to 31.
    pub passes: u8,
    /// INITIALIZATION PATTERN, repeated over each logical block; 1 byte to one logical block.
    pub pattern: Vec<u8>,
}

impl OverwriteParameters {
    /// Reads the parameter list, which is as long as the CDB says.
    ///
    /// # Errors
    /// PARAMETER LIST LENGTH below 5 or above one logical block plus 4 is an invalid field in the CDB. TEST other than
    /// zero, no passes, a pattern of no bytes or longer than a block are invalid fields of the list; a pattern that the
    /// list does not hold whole is a length error.
    pub fn parse(
        data: &[u8],
        block_length_bytes: u32,
    ) -> Result<OverwriteParameters, ParameterListError> {
        let block_length = usize::try_from(block_length_bytes).unwrap_or(usize::MAX);
        let [flags, reserved, high, low, rest @ ..] = data else {
            return Err(ParameterListError::InvalidFieldInCdb { byte: 7, bit: None });
        };
        if rest.is_empty() || rest.len() > block_length {
            return Err(ParameterListError::InvalidFieldInCdb { byte: 7, bit: None });
        }
        if flags & 0x60 != 0 {
            return Err(ParameterListError::field(0, Some(6)));
        }
        let passes = flags & 0x1f;
        if passes == 0 {
            return Err(ParameterListError::field(0, Some(4)));
        }
        if *reserved != 0 {
            return Err(ParameterListError::field(1, None));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 || length > block_length {
            return Err(ParameterListError::field(2, None));
        }
        let pattern = rest
            .get(..length)
            .ok_or(ParameterListError::Length)?
            .to_vec();
        Ok(OverwriteParameters {
            invert: flags & 0x80 != 0,
            passes,
            pattern,
        })
    }

    /// Builds the parameter list.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = vec![flag(self.invert, 7) | self.passes & 0x1f, 0];
        data.extend(length_u16(self.pattern.len()).to_be_bytes());
        data.extend(&self.pattern);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let parameters = OverwriteParameters {
            invert: true,
            passes: 3,
            pattern: vec![0xaa, 0x55],
        };
        assert_eq!(parameters.encode(), [0x83, 0, 0, 2, 0xaa, 0x55]);
        assert_eq!(
            OverwriteParameters::parse(&parameters.encode(), 512),
            Ok(parameters)
        );
    }

    #[test]
    fn each_fault_has_its_place() {
        let parse = |data: &[u8]| OverwriteParameters::parse(data, 4).expect_err("faulty");
        let cdb = ParameterListError::InvalidFieldInCdb { byte: 7, bit: None };
        for length in 0..5 {
            assert_eq!(parse(&[1, 0, 0, 1][..length.min(4)]), cdb);
        }
        assert_eq!(parse(&[1, 0, 0, 4, 1, 2, 3, 4, 5]), cdb);
        assert_eq!(
            parse(&[0, 0, 0, 1, 9]),
            ParameterListError::field(0, Some(4))
        );
        assert_eq!(
            parse(&[0x21, 0, 0, 1, 9]),
            ParameterListError::field(0, Some(6))
        );
        assert_eq!(parse(&[1, 1, 0, 1, 9]), ParameterListError::field(1, None));
        assert_eq!(parse(&[1, 0, 0, 0, 9]), ParameterListError::field(2, None));
        assert_eq!(
            parse(&[1, 0, 0, 5, 9, 9, 9, 9]),
            ParameterListError::field(2, None)
        );
        assert_eq!(parse(&[1, 0, 0, 2, 9]), ParameterListError::Length);
    }
}
