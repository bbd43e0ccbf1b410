//! Fixed and descriptor format sense data (SPC-4 4.5.2, 4.5.3).

use super::{AdditionalSense, FieldPointer, Sense, SenseKey, SenseKeySpecific};
use crate::error::ParseError;
use crate::wire::{View, flag};

/// Length of the fixed format sense data that this crate builds.
pub const SENSE_FIXED_BYTES: usize = 18;

/// Format of sense data: D_SENSE in the control mode page, DESC in REQUEST SENSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SenseFormat {
    /// Response codes 70h and 71h.
    #[default]
    Fixed,
    /// Response codes 72h and 73h.
    Descriptor,
}

impl SenseFormat {
    /// The format for a D_SENSE or DESC bit.
    pub const fn from_bit(descriptor: bool) -> SenseFormat {
        if descriptor {
            SenseFormat::Descriptor
        } else {
            SenseFormat::Fixed
        }
    }
}

impl SenseKeySpecific {
    /// The three bytes with SKSV=1.
    fn encode(self) -> [u8; 3] {
        fn pointer(high: u8, bit: Option<u8>, value: u16) -> [u8; 3] {
            let [msb, lsb] = value.to_be_bytes();
            let bit = bit.map_or(0, |bit| 0x08 | (bit & 0x07));
            [0x80 | high | bit, msb, lsb]
        }
        match self {
            SenseKeySpecific::Field(field) => pointer(flag(field.in_cdb, 6), field.bit, field.byte),
            SenseKeySpecific::Segment {
                in_segment_descriptor,
                bit,
                byte,
            } => pointer(flag(in_segment_descriptor, 5), bit, byte),
            SenseKeySpecific::Progress(value) | SenseKeySpecific::RetryCount(value) => {
                pointer(0, None, value)
            }
            SenseKeySpecific::UnitAttentionOverflow(overflow) => [0x80 | flag(overflow, 0), 0, 0],
        }
    }

    /// Reads the three bytes; `None` when SKSV is zero or the sense key defines nothing.
    fn decode(key: SenseKey, bytes: [u8; 3]) -> Option<SenseKeySpecific> {
        let [first, msb, lsb] = bytes;
        if first & 0x80 == 0 {
            return None;
        }
        let value = u16::from_be_bytes([msb, lsb]);
        let bit = (first & 0x08 != 0).then_some(first & 0x07);
        match key {
            SenseKey::IllegalRequest => Some(SenseKeySpecific::Field(FieldPointer {
                in_cdb: first & 0x40 != 0,
                bit,
                byte: value,
            })),
            SenseKey::NoSense | SenseKey::NotReady => Some(SenseKeySpecific::Progress(value)),
            SenseKey::CopyAborted => Some(SenseKeySpecific::Segment {
                in_segment_descriptor: first & 0x20 != 0,
                bit,
                byte: value,
            }),
            SenseKey::RecoveredError | SenseKey::MediumError | SenseKey::HardwareError => {
                Some(SenseKeySpecific::RetryCount(value))
            }
            SenseKey::UnitAttention => {
                Some(SenseKeySpecific::UnitAttentionOverflow(first & 0x01 != 0))
            }
            _ => None,
        }
    }
}

impl Sense {
    /// The sense data in a format.
    pub fn encode(&self, format: SenseFormat) -> Vec<u8> {
        match format {
            SenseFormat::Fixed => self.encode_fixed(),
            SenseFormat::Descriptor => self.encode_descriptor(),
        }
    }

    fn encode_fixed(&self) -> Vec<u8> {
        let mut data = vec![0; SENSE_FIXED_BYTES];
        data[0] = 0x70 | flag(self.deferred, 0);
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            data[0] |= 0x80;
            data[3..7].copy_from_slice(&information.to_be_bytes());
        }
        data[2] = self.key as u8;
        data[7] = 10;
        if let Some(value) = self
            .command_specific
            .and_then(|value| u32::try_from(value).ok())
        {
            data[8..12].copy_from_slice(&value.to_be_bytes());
        }
        data[12] = self.additional.code;
        data[13] = self.additional.qualifier;
        if let Some(specific) = self.specific {
            data[15..18].copy_from_slice(&specific.encode());
        }
        data
    }

    fn encode_descriptor(&self) -> Vec<u8> {
        let mut data = vec![
            0x72 | flag(self.deferred, 0),
            self.key as u8,
            self.additional.code,
            self.additional.qualifier,
            0,
            0,
            0,
            0,
        ];
        if let Some(information) = self.information {
            data.extend([0x00, 0x0a, 0x80, 0]);
            data.extend(information.to_be_bytes());
        }
        if let Some(value) = self.command_specific {
            data.extend([0x01, 0x0a, 0, 0]);
            data.extend(value.to_be_bytes());
        }
        if let Some(specific) = self.specific {
            data.extend([0x02, 0x06, 0, 0]);
            data.extend(specific.encode());
            data.push(0);
        }
        // At most 8 + 12 + 12 + 8 bytes: the length fits a byte.
        data[7] = (data.len() - 8) as u8;
        data
    }

    /// Reads sense data of either format. Fixed format data may be cut after byte 7 (SPC-4 4.5.3), in which case the
    /// missing fields are absent; unknown descriptors are skipped.
    ///
    /// # Errors
    /// The response code is not 70h to 73h, or the data ends inside its header or a descriptor.
    pub fn parse(data: &[u8]) -> Result<Sense, ParseError> {
        let view = View::new(data, "sense data");
        let code = view.u8(0)? & 0x7f;
        match code {
            0x70 | 0x71 => Sense::parse_fixed(view),
            0x72 | 0x73 => Sense::parse_descriptor(view),
            _ => Err(view.invalid(0)),
        }
    }

    fn parse_fixed(view: View<'_>) -> Result<Sense, ParseError> {
        let key = SenseKey::from_low_bits(view.u8(2)?);
        let end = 8usize
            .saturating_add(usize::from(view.u8(7)?))
            .min(view.bytes.len());
        let view = View::new(&view.bytes[..end], view.what);
        let valid = view.u8(0)? & 0x80 != 0;
        let specific = view
            .slice(15, 3)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        Ok(Sense {
            deferred: view.u8(0)? & 0x01 != 0,
            key,
            additional: AdditionalSense {
                code: view.u8(12).unwrap_or(0),
                qualifier: view.u8(13).unwrap_or(0),
            },
            information: if valid {
                Some(u64::from(view.u32(3)?))
            } else {
                None
            },
            command_specific: view.u32(8).ok().filter(|&value| value != 0).map(u64::from),
            specific: specific.and_then(|bytes| SenseKeySpecific::decode(key, bytes)),
        })
    }

    fn parse_descriptor(view: View<'_>) -> Result<Sense, ParseError> {
        let key = SenseKey::from_low_bits(view.u8(1)?);
        let additional = AdditionalSense {
            code: view.u8(2)?,
            qualifier: view.u8(3)?,
        };
        let mut sense = Sense::new(key, additional);
        sense.deferred = view.u8(0)? & 0x01 != 0;
        let mut rest = view.slice(8, usize::from(view.u8(7)?))?;
        while let [kind, length, ..] = *rest {
            let descriptor = View::new(rest, "sense data descriptor");
            let body = View::new(
                descriptor.slice(2, usize::from(length))?,
                "sense data descriptor",
            );
            match kind {
                0x00 if body.u8(0)? & 0x80 != 0 => sense.information = Some(body.u64(2)?),
                0x01 => sense.command_specific = Some(body.u64(2)?),
                0x02 => {
                    let bytes: [u8; 3] =
                        body.slice(2, 3)?.try_into().map_err(|_| body.invalid(2))?;
                    sense.specific = SenseKeySpecific::decode(key, bytes);
                }
                _ => {}
            }
            rest = &rest[2 + body.bytes.len()..];
        }
        Ok(sense)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_by_hand() {
        let sense = Sense::invalid_field_in_cdb(2, Some(5));
        assert_eq!(
            sense.encode(SenseFormat::Fixed),
            [
                0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0x00, 0, 0xcd, 0x00, 0x02
            ]
        );
        let sense = Sense::invalid_field_in_parameter_list(0x0102, None);
        assert_eq!(
            sense.encode(SenseFormat::Fixed)[12..],
            [0x26, 0x00, 0, 0x80, 0x01, 0x02]
        );
        let sense = Sense::lba_out_of_range(0x0102_0304);
        assert_eq!(
            sense.encode(SenseFormat::Fixed)[..8],
            [0xf0, 0, 0x05, 1, 2, 3, 4, 10]
        );
        let beyond = Sense::lba_out_of_range(1 << 32);
        assert_eq!(
            beyond.encode(SenseFormat::Fixed)[..8],
            [0x70, 0, 0x05, 0, 0, 0, 0, 10],
            "VALID is zero"
        );
    }

    #[test]
    fn descriptor_format_by_hand() {
        let sense = Sense::lba_out_of_range(1 << 32);
        assert_eq!(
            sense.encode(SenseFormat::Descriptor),
            [
                0x72, 0x05, 0x21, 0, 0, 0, 0, 12, 0x00, 0x0a, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0
            ]
        );
        let sense = Sense::sanitize_in_progress(0x8000);
        assert_eq!(
            sense.encode(SenseFormat::Descriptor),
            [
                0x72, 0x02, 0x04, 0x1b, 0, 0, 0, 8, 0x02, 0x06, 0, 0, 0x80, 0x80, 0x00, 0
            ]
        );
    }

    #[test]
    fn unknown_descriptors_are_skipped_and_broken_ones_refused() {
        let data = [0x72, 0x05, 0x21, 0, 0, 0, 0, 6, 0x80, 0x04, 1, 2, 3, 4];
        assert_eq!(
            Sense::parse(&data),
            Ok(Sense::illegal_request(AdditionalSense::LBA_OUT_OF_RANGE))
        );
        let mut broken = data;
        broken[9] = 5;
        assert!(Sense::parse(&broken).is_err());
        assert!(Sense::parse(&data[..13]).is_err());
        assert!(Sense::parse(&[0x7f, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn short_fixed_format_has_no_additional_sense() {
        let data = Sense::write_protected().encode(SenseFormat::Fixed);
        let read = Sense::parse(&data[..8]).expect("eight bytes are enough");
        assert_eq!(
            (read.key, read.additional),
            (SenseKey::DataProtect, AdditionalSense::NONE)
        );
        assert!(Sense::parse(&data[..7]).is_err());
    }
}
