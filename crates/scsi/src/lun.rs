//! Logical unit numbers: the eight-byte form (SAM-5 4.7) of numbers up to 16383.

/// A single-level logical unit number, 0 to 16383.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lun(u16);

impl Lun {
    /// The largest number that flat space addressing can carry.
    pub const MAX: Lun = Lun(0x3fff);

    /// A logical unit number, or `None` above 16383.
    pub const fn new(number: u16) -> Option<Lun> {
        if number <= Lun::MAX.0 {
            Some(Lun(number))
        } else {
            None
        }
    }

    /// The number, 0 to 16383.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The eight bytes: peripheral device addressing up to 255 (SAM-5 4.7.7.2), flat space addressing above (4.7.7.3).
    pub const fn encode(self) -> [u8; 8] {
        let [high, low] = self.0.to_be_bytes();
        let method = if self.0 < 256 { 0x00 } else { 0x40 };
        [method | high, low, 0, 0, 0, 0, 0, 0]
    }

    /// Reads eight bytes in peripheral device (bus 0) or flat space addressing, both of which name the same logical
    /// units. `None` for anything else: another bus, a second level, well-known or extended logical units.
    pub fn decode(bytes: [u8; 8]) -> Option<Lun> {
        let [high, low, rest @ ..] = bytes;
        if rest != [0; 6] {
            return None;
        }
        match high >> 6 {
            0 if high == 0 => Some(Lun(low.into())),
            1 => Some(Lun(u16::from_be_bytes([high & 0x3f, low]))),
            _ => None,
        }
    }
}

impl std::fmt::Display for Lun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Lun;

    #[test]
    fn every_number_round_trips() {
        for number in 0..=0x3fff {
            let lun = Lun::new(number).expect("in range");
            assert_eq!(Lun::decode(lun.encode()), Some(lun));
        }
        assert_eq!(Lun::new(0x4000), None);
    }

    #[test]
    fn forms_by_hand() {
        assert_eq!(Lun(255).encode(), [0x00, 0xff, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Lun(256).encode(), [0x41, 0x00, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Lun::decode([0x40, 0x05, 0, 0, 0, 0, 0, 0]), Some(Lun(5)));
        assert_eq!(Lun::decode([0x01, 0x05, 0, 0, 0, 0, 0, 0]), None, "bus 1");
        assert_eq!(
            Lun::decode([0x00, 0x05, 0, 1, 0, 0, 0, 0]),
            None,
            "second level"
        );
        assert_eq!(
            Lun::decode([0xc1, 0x01, 0, 0, 0, 0, 0, 0]),
            None,
            "REPORT LUNS well-known logical unit"
        );
    }
}
