//! Standard INQUIRY data (SPC-4 6.6.2).

use crate::error::ParseError;
use crate::wire::{View, ascii_field, flag};

/// Length of the data that this crate builds: through the version descriptors and the reserved bytes behind them.
pub const STANDARD_INQUIRY_BYTES: usize = 96;

/// PERIPHERAL DEVICE TYPE of a direct access block device.
pub const DIRECT_ACCESS_BLOCK_DEVICE: u8 = 0x00;
/// PERIPHERAL DEVICE TYPE where there is no device.
pub const UNKNOWN_DEVICE_TYPE: u8 = 0x1f;

/// PERIPHERAL QUALIFIER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PeripheralQualifier {
    /// 000b: a device is there.
    #[default]
    Connected = 0,
    /// 001b: the device server could have a device there, and has none.
    NotConnected = 1,
    /// 011b: no device can be there.
    NotSupported = 3,
}

/// Version descriptors (SPC-4 6.6.2): standards without a claimed revision.
pub mod version_descriptor {
    /// SAM-5.
    pub const SAM_5: u16 = 0x00a0;
    /// SPC-4.
    pub const SPC_4: u16 = 0x0460;
    /// SBC-3.
    pub const SBC_3: u16 = 0x04c0;
    /// iSCSI.
    pub const ISCSI: u16 = 0x0960;
}

/// What standard INQUIRY data says. ANSI version is 6 (SPC-4), response data format 2, CMDQUE and HISUP are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardInquiry {
    /// PERIPHERAL QUALIFIER.
    pub qualifier: PeripheralQualifier,
    /// PERIPHERAL DEVICE TYPE, 0 to 1Fh.
    pub device_type: u8,
    /// RMB: the medium is removable.
    pub removable: bool,
    /// TPGS: 0 none, 1 implicit, 2 explicit, 3 both.
    pub target_port_group_support: u8,
    /// 3PC: EXTENDED COPY is supported.
    pub third_party_copy: bool,
    /// MULTIP: the target has several ports.
    pub multi_port: bool,
    /// T10 VENDOR IDENTIFICATION, up to 8 ASCII characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, up to 16 ASCII characters.
    pub product: String,
    /// PRODUCT REVISION LEVEL, up to 4 ASCII characters.
    pub revision: String,
    /// VERSION DESCRIPTORS, at most eight; zeroes are left out when parsed.
    pub version_descriptors: Vec<u16>,
}

impl StandardInquiry {
    /// Builds the data.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = vec![0; STANDARD_INQUIRY_BYTES];
        data[0] = (self.qualifier as u8) << 5 | self.device_type & 0x1f;
        data[1] = flag(self.removable, 7);
        data[2] = 0x06;
        data[3] = 0x12;
        data[4] = (STANDARD_INQUIRY_BYTES - 5) as u8;
        data[5] = (self.target_port_group_support & 0x03) << 4 | flag(self.third_party_copy, 3);
        data[6] = flag(self.multi_port, 4);
        data[7] = 0x02;
        data[8..16].copy_from_slice(&ascii_field::<8>(&self.vendor));
        data[16..32].copy_from_slice(&ascii_field::<16>(&self.product));
        data[32..36].copy_from_slice(&ascii_field::<4>(&self.revision));
        for (place, descriptor) in data[58..74]
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip(&self.version_descriptors)
        {
            *place = descriptor.to_be_bytes();
        }
        data
    }

    /// Reads the data, of at least 36 bytes.
    ///
    /// # Errors
    /// The data is shorter than 36 bytes or has a reserved peripheral qualifier or another response data format than 2.
    pub fn parse(data: &[u8]) -> Result<StandardInquiry, ParseError> {
        let view = View::new(data, "standard INQUIRY data");
        view.slice(0, 36)?;
        let qualifier = match view.u8(0)? >> 5 {
            0 => PeripheralQualifier::Connected,
            1 => PeripheralQualifier::NotConnected,
            3 => PeripheralQualifier::NotSupported,
            _ => return Err(view.invalid(0)),
        };
        if view.u8(3)? & 0x0f != 2 {
            return Err(view.invalid(3));
        }
        let text = |at: usize, length: usize| -> Result<String, ParseError> {
            Ok(String::from_utf8_lossy(view.slice(at, length)?)
                .trim_end_matches([' ', '\0'])
                .to_owned())
        };
        let end = (5 + usize::from(view.u8(4)?)).min(data.len());
        let descriptors = (58..74)
            .step_by(2)
            .filter(|at| at + 2 <= end)
            .filter_map(|at| view.u16(at).ok());
        Ok(StandardInquiry {
            qualifier,
            device_type: view.u8(0)? & 0x1f,
            removable: view.u8(1)? & 0x80 != 0,
            target_port_group_support: view.u8(5)? >> 4 & 0x03,
            third_party_copy: view.u8(5)? & 0x08 != 0,
            multi_port: view.u8(6)? & 0x10 != 0,
            vendor: text(8, 8)?,
            product: text(16, 16)?,
            revision: text(32, 4)?,
            version_descriptors: descriptors.filter(|&descriptor| descriptor != 0).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StandardInquiry {
        StandardInquiry {
            qualifier: PeripheralQualifier::Connected,
            device_type: DIRECT_ACCESS_BLOCK_DEVICE,
            removable: false,
            target_port_group_support: 1,
            third_party_copy: true,
            multi_port: true,
            vendor: "RINGFNCE".into(),
            product: "volume".into(),
            revision: "0001".into(),
            version_descriptors: vec![
                version_descriptor::SAM_5,
                version_descriptor::SPC_4,
                version_descriptor::SBC_3,
                version_descriptor::ISCSI,
            ],
        }
    }

    #[test]
    fn bytes_by_hand() {
        let data = sample().encode();
        assert_eq!(data.len(), 96);
        assert_eq!(data[..8], [0x00, 0x00, 0x06, 0x12, 91, 0x18, 0x10, 0x02]);
        assert_eq!(&data[8..36], b"RINGFNCEvolume          0001");
        assert_eq!(
            data[58..68],
            [0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0, 0x09, 0x60, 0, 0]
        );
        assert_eq!(StandardInquiry::parse(&data), Ok(sample()));
    }

    #[test]
    fn a_short_answer_is_read_as_far_as_it_goes() {
        let data = sample().encode();
        let short = StandardInquiry::parse(&data[..36]).expect("36 bytes are enough");
        assert_eq!(
            short,
            StandardInquiry {
                version_descriptors: vec![],
                ..sample()
            }
        );
        for cut in 0..36 {
            assert!(StandardInquiry::parse(&data[..cut]).is_err());
        }
    }

    #[test]
    fn text_fields_are_cut_and_cleaned() {
        let odd = StandardInquiry {
            vendor: "way too long".into(),
            product: "tab\tbed".into(),
            ..sample()
        };
        assert_eq!(&odd.encode()[8..32], b"way too tab bed         ");
    }
}
