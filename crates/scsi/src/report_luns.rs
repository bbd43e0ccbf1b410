//! REPORT LUNS parameter data (SPC-4 6.33.2).

use crate::error::ParseError;
use crate::lun::Lun;
use crate::wire::{View, length_u32};

/// SELECT REPORT values of the REPORT LUNS command (SPC-4 6.33.1).
pub mod select_report {
    /// Logical units addressed by peripheral device, flat space or other non-well-known methods.
    pub const LOGICAL_UNITS: u8 = 0x00;
    /// Only well-known logical units.
    pub const WELL_KNOWN: u8 = 0x01;
    /// All logical units.
    pub const ALL: u8 = 0x02;
}

/// Builds the list; LUN LIST LENGTH is that of the whole list, whatever the allocation length.
pub fn encode(luns: &[Lun]) -> Vec<u8> {
    let mut data = Vec::with_capacity(8 + 8 * luns.len());
    data.extend(length_u32(8 * luns.len()).to_be_bytes());
    data.extend([0; 4]);
    for lun in luns {
        data.extend(lun.encode());
    }
    data
}

/// Reads the eight-byte forms of the list, as many as are there; a list cut short by the allocation length is no error.
///
/// # Errors
/// The header is cut short.
pub fn parse(data: &[u8]) -> Result<Vec<[u8; 8]>, ParseError> {
    let view = View::new(data, "REPORT LUNS data");
    let listed = usize::try_from(view.u32(0)?).unwrap_or(usize::MAX);
    let list = data.get(8..).ok_or(ParseError::Truncated {
        what: view.what,
        needed: 8,
    })?;
    Ok(list[..listed.min(list.len())].as_chunks::<8>().0.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_survives_truncation() {
        let luns: Vec<Lun> = [0, 1, 300].into_iter().filter_map(Lun::new).collect();
        let data = encode(&luns);
        assert_eq!(data[..4], [0, 0, 0, 24]);
        let read: Vec<_> = parse(&data)
            .expect("valid")
            .into_iter()
            .map(Lun::decode)
            .collect();
        assert_eq!(read, luns.iter().copied().map(Some).collect::<Vec<_>>());
        assert_eq!(parse(&data[..20]).expect("cut").len(), 1);
        assert!(parse(&data[..7]).is_err());
    }
}
