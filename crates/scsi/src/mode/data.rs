//! MODE SENSE data: header, block descriptor, pages (SPC-4 7.5.5, SBC-3 6.5.2, 6.5.3).

use super::pages::{ModePages, page_code};
use crate::cdb::{ModeSense, ModeSize, PageControl};
use crate::error::ParseError;
use crate::sense::Sense;
use crate::wire::{View, flag, length_u16};

/// Block descriptor: what the medium looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDescriptor {
    /// NUMBER OF LOGICAL BLOCKS; the short form says FFFFFFFFh for more than fit.
    pub blocks: u64,
    /// LOGICAL BLOCK LENGTH in bytes, 24 bits in the short form.
    pub block_length_bytes: u32,
}

impl BlockDescriptor {
    /// Short LBA mode parameter block descriptor.
    pub(super) const SHORT_BYTES: usize = 8;
    /// Long LBA mode parameter block descriptor.
    pub(super) const LONG_BYTES: usize = 16;

    pub(super) fn encode(&self, long: bool) -> Vec<u8> {
        let mut data = Vec::with_capacity(BlockDescriptor::LONG_BYTES);
        if long {
            data.extend(self.blocks.to_be_bytes());
            data.extend([0; 4]);
            data.extend(self.block_length_bytes.to_be_bytes());
        } else {
            data.extend(u32::try_from(self.blocks).unwrap_or(u32::MAX).to_be_bytes());
            data.extend((self.block_length_bytes & 0xff_ffff).to_be_bytes());
        }
        data
    }

    /// Reads a descriptor of either length.
    pub(super) fn decode(view: View<'_>, long: bool) -> Result<BlockDescriptor, ParseError> {
        Ok(if long {
            BlockDescriptor {
                blocks: view.u64(0)?,
                block_length_bytes: view.u32(12)?,
            }
        } else {
            BlockDescriptor {
                blocks: view.u32(0)?.into(),
                block_length_bytes: view.u32(4)? & 0xff_ffff,
            }
        })
    }
}

/// Everything that MODE SENSE can return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeData {
    /// WP: the logical unit cannot be written now, for whatever reason.
    pub write_protected: bool,
    /// DPOFUA: the DPO and FUA bits are supported.
    pub dpo_fua: bool,
    /// What the medium looks like.
    pub block: BlockDescriptor,
    /// Current values.
    pub current: ModePages,
    /// Changeable bits.
    pub changeable: ModePages,
    /// Default values.
    pub default: ModePages,
}

/// Builds the data for a MODE SENSE command, not yet cut to its allocation length. MODE DATA LENGTH counts everything.
///
/// # Errors
/// SAVING PARAMETERS NOT SUPPORTED for saved values; INVALID FIELD IN CDB for a page or subpage that does not exist.
pub fn mode_sense(command: &ModeSense, mode: &ModeData) -> Result<Vec<u8>, Sense> {
    let pages = match command.page_control {
        PageControl::Current => &mode.current,
        PageControl::Changeable => &mode.changeable,
        PageControl::Default => &mode.default,
        PageControl::Saved => return Err(Sense::saving_parameters_not_supported()),
    };
    let all_pages: Vec<u8> = if command.page_code == page_code::ALL {
        ModePages::CODES
            .iter()
            .filter_map(|&code| pages.encode_page(code))
            .flatten()
            .collect()
    } else {
        pages
            .encode_page(command.page_code)
            .ok_or(Sense::invalid_field_in_cdb(2, Some(5)))?
    };
    // FFh asks for every subpage; page 00h subpages are all there are.
    if command.subpage_code != 0x00 && command.subpage_code != 0xff {
        return Err(Sense::invalid_field_in_cdb(3, None));
    }
    let long = command.long_lba_accepted && command.size == ModeSize::Ten;
    let descriptor = if command.disable_block_descriptors {
        Vec::new()
    } else {
        mode.block.encode(long)
    };
    let parameter = flag(mode.write_protected, 7) | flag(mode.dpo_fua, 4);

    let mut data = match command.size {
        // Descriptor and pages are far below 250 bytes: the lengths fit a byte.
        ModeSize::Six => vec![
            (3 + descriptor.len() + all_pages.len()) as u8,
            0,
            parameter,
            descriptor.len() as u8,
        ],
        ModeSize::Ten => {
            let [length_high, length_low] =
                length_u16(6 + descriptor.len() + all_pages.len()).to_be_bytes();
            let long_flag = flag(long && !descriptor.is_empty(), 0);
            let [high, low] = length_u16(descriptor.len()).to_be_bytes();
            vec![
                length_high,
                length_low,
                0,
                parameter,
                long_flag,
                0,
                high,
                low,
            ]
        }
    };
    data.extend(descriptor);
    data.extend(all_pages);
    Ok(data)
}

/// MODE SENSE data as an initiator reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedModeData {
    /// WP.
    pub write_protected: bool,
    /// DPOFUA.
    pub dpo_fua: bool,
    /// The block descriptor, if one was returned.
    pub block: Option<BlockDescriptor>,
    /// Values of the known pages that were returned; the others are zero.
    pub pages: ModePages,
}

/// Reads MODE SENSE data; a page cut short by the allocation length and unknown pages are left out.
///
/// # Errors
/// The header or the block descriptor is cut short, or its length is none of 0, 8 and 16.
pub fn parse_mode_data(size: ModeSize, data: &[u8]) -> Result<ParsedModeData, ParseError> {
    let view = View::new(data, "MODE SENSE data");
    let (header, total, parameter, long, descriptor_length) = match size {
        ModeSize::Six => (
            4,
            1 + usize::from(view.u8(0)?),
            view.u8(2)?,
            false,
            usize::from(view.u8(3)?),
        ),
        ModeSize::Ten => (
            8,
            2 + usize::from(view.u16(0)?),
            view.u8(3)?,
            view.u8(4)? & 0x01 != 0,
            usize::from(view.u16(6)?),
        ),
    };
    let descriptor = View::new(view.slice(header, descriptor_length)?, view.what);
    let block = match (descriptor_length, long) {
        (0, _) => None,
        (BlockDescriptor::SHORT_BYTES, false) | (BlockDescriptor::LONG_BYTES, true) => {
            Some(BlockDescriptor::decode(descriptor, long)?)
        }
        _ => return Err(view.invalid(header - 1)),
    };
    let mut pages = ModePages::default();
    let mut rest =
        &data[header + descriptor_length..total.clamp(header + descriptor_length, data.len())];
    while let [code, length, body @ ..] = rest {
        let (head, length) = match (code & 0x40 != 0, body) {
            (false, _) => (2, usize::from(*length)),
            (true, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            (true, _) => break,
        };
        let Some(page) = rest.get(..head + length) else {
            break;
        };
        pages.decode_page(page)?;
        rest = &rest[head + length..];
    }
    Ok(ParsedModeData {
        write_protected: parameter & 0x80 != 0,
        dpo_fua: parameter & 0x10 != 0,
        block,
        pages,
    })
}

#[cfg(test)]
mod tests {
    use super::super::pages::{CachingPage, ControlPage};
    use super::*;
    use crate::sense::AdditionalSense;

    fn mode() -> ModeData {
        let current = ModePages {
            caching: CachingPage {
                write_cache_enable: true,
                read_cache_disable: false,
            },
            control: ControlPage {
                task_set_type: 1,
                software_write_protect: true,
                ..ControlPage::default()
            },
            ..ModePages::default()
        };
        ModeData {
            write_protected: true,
            dpo_fua: true,
            block: BlockDescriptor {
                blocks: 0x0001_0203,
                block_length_bytes: 512,
            },
            current,
            changeable: ModePages::CHANGEABLE,
            default: ModePages::default(),
        }
    }

    fn command(size: ModeSize, page_code: u8) -> ModeSense {
        ModeSense {
            size,
            disable_block_descriptors: false,
            long_lba_accepted: false,
            page_control: PageControl::Current,
            page_code,
            subpage_code: 0,
            allocation_length: 255,
        }
    }

    #[test]
    fn both_forms_round_trip() {
        for size in [ModeSize::Six, ModeSize::Ten] {
            for (long_lba_accepted, disable_block_descriptors) in
                [(false, false), (true, false), (true, true)]
            {
                let command = ModeSense {
                    long_lba_accepted,
                    disable_block_descriptors,
                    ..command(size, 0x3f)
                };
                let data = mode_sense(&command, &mode()).expect("valid");
                let length = match size {
                    ModeSize::Six => 1 + usize::from(data[0]),
                    ModeSize::Ten => 2 + usize::from(data[0]) * 256 + usize::from(data[1]),
                };
                assert_eq!(length, data.len());
                let read = parse_mode_data(size, &data).expect("valid");
                assert!(read.write_protected && read.dpo_fua);
                assert_eq!(
                    read.block,
                    (!disable_block_descriptors).then_some(mode().block)
                );
                assert_eq!(read.pages, mode().current);
            }
        }
    }

    #[test]
    fn control_page_bytes_by_hand() {
        let data = mode_sense(&command(ModeSize::Six, 0x0a), &mode()).expect("valid");
        assert_eq!(data[..12], [23, 0, 0x90, 8, 0, 1, 2, 3, 0, 0, 2, 0]);
        assert_eq!(data[12..], [0x0a, 0x0a, 0x20, 0, 0x08, 0, 0, 0, 0, 0, 0, 0]);
        let changeable = ModeSense {
            page_control: PageControl::Changeable,
            ..command(ModeSize::Six, 0x0a)
        };
        let data = mode_sense(&changeable, &mode()).expect("valid");
        assert_eq!(
            data[12..],
            [0x0a, 0x0a, 0x04, 0, 0x08, 0x40, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let saved = ModeSense {
            page_control: PageControl::Saved,
            ..command(ModeSize::Ten, 0x0a)
        };
        let error = mode_sense(&saved, &mode()).expect_err("saved");
        assert_eq!(
            error.additional,
            AdditionalSense::SAVING_PARAMETERS_NOT_SUPPORTED
        );
        let unknown = mode_sense(&command(ModeSize::Ten, 0x02), &mode());
        assert_eq!(unknown, Err(Sense::invalid_field_in_cdb(2, Some(5))));
        let subpage = ModeSense {
            subpage_code: 1,
            ..command(ModeSize::Ten, 0x0a)
        };
        assert_eq!(
            mode_sense(&subpage, &mode()),
            Err(Sense::invalid_field_in_cdb(3, None))
        );
        let every = ModeSense {
            subpage_code: 0xff,
            ..command(ModeSize::Ten, 0x3f)
        };
        assert_eq!(
            mode_sense(&every, &mode()),
            mode_sense(&command(ModeSize::Ten, 0x3f), &mode())
        );
    }
}
