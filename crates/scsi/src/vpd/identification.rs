//! Device identification page (SPC-4 7.8.6).

use super::{body, page, page_code};
use crate::error::ParseError;
use crate::wire::{View, ascii_field};

/// PROTOCOL IDENTIFIER of iSCSI.
const PROTOCOL_ISCSI: u8 = 0x5;
/// Longest designator that its length byte can say.
const DESIGNATOR_MAX_BYTES: usize = 255;

/// ASSOCIATION: what a designator identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Association {
    /// 00b.
    LogicalUnit = 0,
    /// 01b: the target port that the command came through.
    TargetPort = 1,
    /// 10b.
    TargetDevice = 2,
}

/// A designator by its DESIGNATOR TYPE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DesignatorBody {
    /// 1h: T10 vendor identification and an identifier unique for the vendor, together at most 255 characters.
    T10VendorId {
        /// Up to 8 ASCII characters.
        vendor: String,
        /// ASCII.
        identifier: String,
    },
    /// 3h with NAA 3h, locally assigned: the lower 60 bits of the value.
    NaaLocallyAssigned(u64),
    /// 3h with NAA 6h, IEEE registered extended: 24-bit company identifier, 36-bit and 64-bit vendor specific values.
    NaaRegisteredExtended {
        /// IEEE COMPANY_ID, 24 bits.
        company_id: u32,
        /// VENDOR SPECIFIC IDENTIFIER, 36 bits.
        vendor_specific: u64,
        /// VENDOR SPECIFIC IDENTIFIER EXTENSION.
        extension: u64,
    },
    /// 4h.
    RelativeTargetPort(u16),
    /// 5h.
    TargetPortGroup(u16),
    /// 8h: a SCSI name string, UTF-8, NUL-terminated and padded to a multiple of four on the wire; for an iSCSI target
    /// port `iqn...,t,0x0001`.
    ScsiName(String),
    /// Any other type, kept as it is.
    Other {
        /// CODE SET.
        code_set: u8,
        /// DESIGNATOR TYPE.
        kind: u8,
        /// The designator.
        bytes: Vec<u8>,
    },
}

/// A designation descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Designator {
    /// What it identifies. Target ports and target devices are given with PIV and the iSCSI protocol identifier.
    pub association: Association,
    /// The identification.
    pub body: DesignatorBody,
}

impl Designator {
    /// CODE SET, DESIGNATOR TYPE and the designator itself, at most 255 bytes: what EXTENDED COPY's identification
    /// descriptors repeat as well.
    pub fn parts(&self) -> (u8, u8, Vec<u8>) {
        let (code_set, kind, mut bytes) = match &self.body {
            DesignatorBody::T10VendorId { vendor, identifier } => {
                let mut bytes = ascii_field::<8>(vendor).to_vec();
                bytes.extend(identifier.bytes());
                (2, 0x1, bytes)
            }
            DesignatorBody::NaaLocallyAssigned(value) => (
                1,
                0x3,
                (0x3 << 60 | value & (u64::MAX >> 4)).to_be_bytes().to_vec(),
            ),
            DesignatorBody::NaaRegisteredExtended {
                company_id,
                vendor_specific,
                extension,
            } => {
                let company = u64::from(company_id & 0xff_ffff);
                let first = 0x6 << 60 | company << 36 | vendor_specific & 0xf_ffff_ffff;
                (
                    1,
                    0x3,
                    [first.to_be_bytes(), extension.to_be_bytes()].concat(),
                )
            }
            DesignatorBody::RelativeTargetPort(port) => {
                (1, 0x4, u32::from(*port).to_be_bytes().to_vec())
            }
            DesignatorBody::TargetPortGroup(group) => {
                (1, 0x5, u32::from(*group).to_be_bytes().to_vec())
            }
            DesignatorBody::ScsiName(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.push(0);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                (3, 0x8, bytes)
            }
            DesignatorBody::Other {
                code_set,
                kind,
                bytes,
            } => (*code_set, *kind, bytes.clone()),
        };
        bytes.truncate(DESIGNATOR_MAX_BYTES);
        (code_set, kind, bytes)
    }

    fn encode(&self) -> Vec<u8> {
        let (code_set, kind, bytes) = self.parts();
        let (protocol, piv) = match self.association {
            Association::LogicalUnit => (0, 0x00),
            Association::TargetPort | Association::TargetDevice => (PROTOCOL_ISCSI, 0x80),
        };
        let association = (self.association as u8) << 4;
        // `parts` keeps the length to a byte.
        let mut data = vec![
            protocol << 4 | code_set & 0x0f,
            piv | association | kind & 0x0f,
            0,
            bytes.len() as u8,
        ];
        data.extend(bytes);
        data
    }

    /// Makes a designator of its fields; what does not have the form of its type becomes [`DesignatorBody::Other`].
    fn from_parts(association: Association, code_set: u8, kind: u8, bytes: &[u8]) -> Designator {
        let known = match (kind, bytes) {
            (0x1, [..]) if code_set == 2 && bytes.len() >= 8 && bytes.is_ascii() => {
                let (vendor, identifier) = bytes.split_at(8);
                Some(DesignatorBody::T10VendorId {
                    vendor: String::from_utf8_lossy(vendor).trim_end().to_owned(),
                    identifier: String::from_utf8_lossy(identifier).into_owned(),
                })
            }
            (0x3, &[a, b, c, d, e, f, g, h]) if a >> 4 == 0x3 => {
                Some(DesignatorBody::NaaLocallyAssigned(u64::from_be_bytes([
                    a & 0x0f,
                    b,
                    c,
                    d,
                    e,
                    f,
                    g,
                    h,
                ])))
            }
            (0x3, &[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]) if a >> 4 == 0x6 => {
                let first = u64::from_be_bytes([a & 0x0f, b, c, d, e, f, g, h]);
                Some(DesignatorBody::NaaRegisteredExtended {
                    company_id: (first >> 36) as u32,
                    vendor_specific: first & 0xf_ffff_ffff,
                    extension: u64::from_be_bytes([i, j, k, l, m, n, o, p]),
                })
            }
            (0x4, &[_, _, high, low]) => {
                Some(DesignatorBody::RelativeTargetPort(u16::from_be_bytes([
                    high, low,
                ])))
            }
            (0x5, &[_, _, high, low]) => {
                Some(DesignatorBody::TargetPortGroup(u16::from_be_bytes([
                    high, low,
                ])))
            }
            (0x8, [..]) => {
                let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
                std::str::from_utf8(text)
                    .ok()
                    .map(|name| DesignatorBody::ScsiName(name.to_owned()))
            }
            _ => None,
        };
        let body = known.unwrap_or_else(|| DesignatorBody::Other {
            code_set,
            kind,
            bytes: bytes.to_vec(),
        });
        Designator { association, body }
    }
}

/// Builds the device identification page.
pub fn encode_identification(designators: &[Designator]) -> Vec<u8> {
    let body: Vec<u8> = designators.iter().flat_map(Designator::encode).collect();
    page(page_code::DEVICE_IDENTIFICATION, &body)
}

/// Reads the complete designators of a device identification page.
///
/// # Errors
/// The header is cut short or names another page, or an association is reserved.
pub fn parse_identification(data: &[u8]) -> Result<Vec<Designator>, ParseError> {
    let view: View<'_> = body(
        data,
        page_code::DEVICE_IDENTIFICATION,
        "device identification page",
    )?;
    let mut designators = Vec::new();
    let mut at = 0;
    while let Ok(&[first, second, _, length]) = view.slice(at, 4) {
        let Ok(bytes) = view.slice(at + 4, length.into()) else {
            break;
        };
        let association = match second >> 4 & 0x3 {
            0 => Association::LogicalUnit,
            1 => Association::TargetPort,
            2 => Association::TargetDevice,
            _ => return Err(view.invalid(4 + at + 1)),
        };
        designators.push(Designator::from_parts(
            association,
            first & 0x0f,
            second & 0x0f,
            bytes,
        ));
        at += 4 + usize::from(length);
    }
    Ok(designators)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Designator> {
        let unit = |body| Designator {
            association: Association::LogicalUnit,
            body,
        };
        let port = |body| Designator {
            association: Association::TargetPort,
            body,
        };
        vec![
            unit(DesignatorBody::T10VendorId {
                vendor: "RINGFNC".into(),
                identifier: "vol".into(),
            }),
            unit(DesignatorBody::NaaLocallyAssigned(0x0123_4567_89ab_cdef)),
            unit(DesignatorBody::NaaRegisteredExtended {
                company_id: 0x123456,
                vendor_specific: 0x7_89ab_cdef,
                extension: 0x1122_3344_5566_7788,
            }),
            unit(DesignatorBody::ScsiName("iqn.x,L,0x00".into())),
            port(DesignatorBody::RelativeTargetPort(2)),
            port(DesignatorBody::TargetPortGroup(3)),
            port(DesignatorBody::ScsiName("iqn.x,t,0x0002".into())),
            Designator {
                association: Association::TargetDevice,
                body: DesignatorBody::ScsiName("iqn.x".into()),
            },
            unit(DesignatorBody::Other {
                code_set: 1,
                kind: 2,
                bytes: vec![9; 8],
            }),
        ]
    }

    #[test]
    fn round_trips() {
        let data = encode_identification(&sample());
        assert_eq!(parse_identification(&data), Ok(sample()));
        assert!(parse_identification(&data[..3]).is_err());
        assert_eq!(parse_identification(&data[..20]).expect("cut").len(), 1);
    }

    #[test]
    fn bytes_by_hand() {
        let all = sample();
        assert_eq!(
            all[0].encode(),
            [&[0x02, 0x01, 0, 11][..], b"RINGFNC vol"].concat()
        );
        assert_eq!(
            all[1].encode(),
            [
                0x01, 0x03, 0, 8, 0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef
            ]
        );
        assert_eq!(
            all[2].encode()[4..12],
            [0x61, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]
        );
        assert_eq!(all[4].encode(), [0x51, 0x94, 0, 4, 0, 0, 0, 2]);
        assert_eq!(
            all[6].encode(),
            [&[0x53, 0x98, 0, 16][..], b"iqn.x,t,0x0002\0\0"].concat()
        );
        assert_eq!(
            all[7].encode(),
            [&[0x53, 0xa8, 0, 8][..], b"iqn.x\0\0\0"].concat()
        );
    }
}
