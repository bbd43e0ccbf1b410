//! GET LBA STATUS parameter data (SBC-3).

use crate::error::ParseError;
use crate::wire::{View, length_u32};

/// PROVISIONING STATUS of a run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ProvisioningStatus {
    /// 0h: mapped, or unknown.
    Mapped = 0,
    /// 1h: deallocated.
    Deallocated = 1,
    /// 2h: anchored.
    Anchored = 2,
}

/// LBA status descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaStatus {
    /// First block of the run.
    pub lba: u64,
    /// Length of the run.
    pub length_blocks: u32,
    /// Its status.
    pub status: ProvisioningStatus,
}

/// Builds the data; PARAMETER DATA LENGTH is that of all descriptors, whatever the allocation length.
pub fn encode(descriptors: &[LbaStatus]) -> Vec<u8> {
    let mut data = Vec::with_capacity(8 + 16 * descriptors.len());
    data.extend(length_u32(4 + 16 * descriptors.len()).to_be_bytes());
    data.extend([0; 4]);
    for descriptor in descriptors {
        data.extend(descriptor.lba.to_be_bytes());
        data.extend(descriptor.length_blocks.to_be_bytes());
        data.extend([descriptor.status as u8, 0, 0, 0]);
    }
    data
}

/// Reads the complete descriptors that are there.
///
/// # Errors
/// The header is cut short, or a status is not one of the three.
pub fn parse(data: &[u8]) -> Result<Vec<LbaStatus>, ParseError> {
    let view = View::new(data, "GET LBA STATUS data");
    let listed = usize::try_from(view.u32(0)?)
        .unwrap_or(usize::MAX)
        .saturating_add(4);
    view.slice(0, 8)?;
    let view = View::new(&data[..listed.clamp(8, data.len())], view.what);
    (8..view.bytes.len().saturating_sub(15))
        .step_by(16)
        .map(|at| {
            let status = match view.u8(at + 12)? & 0x0f {
                0 => ProvisioningStatus::Mapped,
                1 => ProvisioningStatus::Deallocated,
                2 => ProvisioningStatus::Anchored,
                _ => return Err(view.invalid(at + 12)),
            };
            Ok(LbaStatus {
                lba: view.u64(at)?,
                length_blocks: view.u32(at + 8)?,
                status,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_survives_truncation() {
        let runs = [
            LbaStatus {
                lba: 5,
                length_blocks: 8,
                status: ProvisioningStatus::Deallocated,
            },
            LbaStatus {
                lba: 13,
                length_blocks: 1,
                status: ProvisioningStatus::Mapped,
            },
            LbaStatus {
                lba: 14,
                length_blocks: u32::MAX,
                status: ProvisioningStatus::Anchored,
            },
        ];
        let data = encode(&runs);
        assert_eq!(data[..4], [0, 0, 0, 52]);
        assert_eq!(parse(&data).expect("valid"), runs);
        assert_eq!(parse(&data[..55]).expect("cut"), runs[..2]);
        assert_eq!(parse(&data[..8]).expect("cut"), []);
        assert!(parse(&data[..7]).is_err());
        let mut wrong = data;
        wrong[20] = 3;
        assert_eq!(
            parse(&wrong),
            Err(ParseError::Invalid {
                what: "GET LBA STATUS data",
                byte: 20
            })
        );
    }
}
