//! READ CAPACITY parameter data (SBC-3).

use crate::error::ParseError;
use crate::wire::{View, flag};

/// What READ CAPACITY tells of the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// RETURNED LOGICAL BLOCK ADDRESS: the last logical block.
    pub last_lba: u64,
    /// LOGICAL BLOCK LENGTH IN BYTES.
    pub block_length_bytes: u32,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT, 0 to 15.
    pub physical_block_exponent: u8,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS, 0 to 3FFFh.
    pub lowest_aligned_lba: u16,
    /// LBPME: unmapping is supported.
    pub provisioning_management: bool,
    /// LBPRZ: unmapped blocks read as zeroes.
    pub unmapped_reads_zeroes: bool,
}

impl Capacity {
    /// The 8 bytes of READ CAPACITY(10); a last block beyond 32 bits is FFFFFFFFh, which sends the initiator to
    /// READ CAPACITY(16).
    pub fn encode10(&self) -> Vec<u8> {
        let last = u32::try_from(self.last_lba).unwrap_or(u32::MAX);
        [last.to_be_bytes(), self.block_length_bytes.to_be_bytes()].concat()
    }

    /// The 32 bytes of READ CAPACITY(16); protection information is not supported.
    pub fn encode16(&self) -> Vec<u8> {
        let mut data = vec![0; 32];
        data[..8].copy_from_slice(&self.last_lba.to_be_bytes());
        data[8..12].copy_from_slice(&self.block_length_bytes.to_be_bytes());
        data[13] = self.physical_block_exponent & 0x0f;
        let aligned = (self.lowest_aligned_lba & 0x3fff).to_be_bytes();
        data[14] = flag(self.provisioning_management, 7)
            | flag(self.unmapped_reads_zeroes, 6)
            | aligned[0];
        data[15] = aligned[1];
        data
    }

    /// Reads READ CAPACITY(10) data: last block (FFFFFFFFh: ask READ CAPACITY(16)) and block length.
    ///
    /// # Errors
    /// The data is shorter than 8 bytes.
    pub fn parse10(data: &[u8]) -> Result<(u32, u32), ParseError> {
        let view = View::new(data, "READ CAPACITY(10) data");
        Ok((view.u32(0)?, view.u32(4)?))
    }

    /// Reads READ CAPACITY(16) data of at least 16 bytes.
    ///
    /// # Errors
    /// The data is shorter.
    pub fn parse16(data: &[u8]) -> Result<Capacity, ParseError> {
        let view = View::new(data, "READ CAPACITY(16) data");
        let flags = view.u16(14)?;
        Ok(Capacity {
            last_lba: view.u64(0)?,
            block_length_bytes: view.u32(8)?,
            physical_block_exponent: view.u8(13)? & 0x0f,
            lowest_aligned_lba: flags & 0x3fff,
            provisioning_management: flags & 0x8000 != 0,
            unmapped_reads_zeroes: flags & 0x4000 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Capacity;

    #[test]
    fn bytes_by_hand() {
        let capacity = Capacity {
            last_lba: 0x1_0000_0000,
            block_length_bytes: 512,
            physical_block_exponent: 3,
            lowest_aligned_lba: 0x0102,
            provisioning_management: true,
            unmapped_reads_zeroes: true,
        };
        assert_eq!(capacity.encode10(), [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
        let data = capacity.encode16();
        assert_eq!(data.len(), 32);
        assert_eq!(
            data[..16],
            [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 3, 0xc1, 0x02]
        );
        assert_eq!(Capacity::parse16(&data), Ok(capacity));
        assert_eq!(Capacity::parse10(&capacity.encode10()), Ok((u32::MAX, 512)));
        assert!(Capacity::parse16(&data[..15]).is_err());
        assert!(Capacity::parse10(&data[..7]).is_err());
    }
}
