//! MODE SELECT parameter lists (SPC-4 6.11, 7.5.5).

use super::data::BlockDescriptor;
use super::pages::ModePages;
use crate::cdb::{ModeSelect, ModeSize};
use crate::error::ParameterListError;
use crate::wire::{View, length_u16};

/// Works out the pages after a MODE SELECT command, without any effect: the caller takes the result over and
/// establishes MODE PARAMETERS CHANGED where it differs. `data` is as long as PARAMETER LIST LENGTH says; the medium is
/// `block`, which cannot be changed.
///
/// MODE DATA LENGTH and the device-specific parameter are reserved in MODE SELECT and not looked at.
///
/// # Errors
/// INVALID FIELD IN CDB for SP (parameters cannot be saved) and for PF=0 with a list. PARAMETER LIST LENGTH ERROR for a
/// list that ends inside its header, a block descriptor or a page. INVALID FIELD IN PARAMETER LIST, pointing at the
/// field, for another medium type, another medium in the block descriptor, an unknown page, a wrong page length, or a
/// change of a bit that is not `changeable`.
pub fn mode_select(
    command: &ModeSelect,
    data: &[u8],
    current: &ModePages,
    changeable: &ModePages,
    block: BlockDescriptor,
) -> Result<ModePages, ParameterListError> {
    if command.save_pages {
        return Err(ParameterListError::InvalidFieldInCdb {
            byte: 1,
            bit: Some(0),
        });
    }
    if data.is_empty() {
        return Ok(*current);
    }
    if !command.page_format {
        return Err(ParameterListError::InvalidFieldInCdb {
            byte: 1,
            bit: Some(4),
        });
    }
    let view = View::new(data, "MODE SELECT parameter list");
    let header = read_header(command.size, view)?;
    if header.medium_type != 0 {
        return Err(ParameterListError::field(header.medium_type_at, None));
    }
    let pages_at = header.bytes + header.descriptor_length;
    let descriptor = view
        .slice(header.bytes, header.descriptor_length)
        .map_err(|_| ParameterListError::Length)?;
    check_descriptor(&header, descriptor, block)?;

    let mut pages = *current;
    let mut at = pages_at;
    while at < data.len() {
        at += select_page(&data[at..], at, &mut pages, changeable)?;
    }
    Ok(pages)
}

struct Header {
    bytes: usize,
    medium_type: u8,
    medium_type_at: usize,
    long: bool,
    descriptor_length: usize,
    descriptor_length_at: usize,
}

fn read_header(size: ModeSize, view: View<'_>) -> Result<Header, ParameterListError> {
    let read = || match size {
        ModeSize::Six => Ok(Header {
            bytes: 4,
            medium_type: view.u8(1)?,
            medium_type_at: 1,
            long: false,
            descriptor_length: view.u8(3)?.into(),
            descriptor_length_at: 3,
        }),
        ModeSize::Ten => Ok(Header {
            bytes: 8,
            medium_type: view.u8(2)?,
            medium_type_at: 2,
            long: view.u8(4)? & 0x01 != 0,
            descriptor_length: view.u16(6)?.into(),
            descriptor_length_at: 6,
        }),
    };
    read().map_err(|_: crate::error::ParseError| ParameterListError::Length)
}

/// A block descriptor may repeat the medium as it is. A number of blocks of zero, or of all ones, leaves it as it is.
fn check_descriptor(
    header: &Header,
    descriptor: &[u8],
    block: BlockDescriptor,
) -> Result<(), ParameterListError> {
    let expected = if header.long {
        BlockDescriptor::LONG_BYTES
    } else {
        BlockDescriptor::SHORT_BYTES
    };
    if descriptor.is_empty() {
        return Ok(());
    }
    if descriptor.len() != expected {
        return Err(ParameterListError::field(header.descriptor_length_at, None));
    }
    let view = View::new(descriptor, "mode parameter block descriptor");
    let given =
        BlockDescriptor::decode(view, header.long).map_err(|_| ParameterListError::Length)?;
    let all_ones = if header.long {
        u64::MAX
    } else {
        u32::MAX.into()
    };
    if given.blocks != 0 && given.blocks != all_ones && given.blocks != block.blocks {
        return Err(ParameterListError::field(header.bytes, None));
    }
    if given.block_length_bytes != block.block_length_bytes {
        let at = if header.long { 12 } else { 5 };
        return Err(ParameterListError::field(header.bytes + at, None));
    }
    Ok(())
}

/// Takes over the page at the start of `data`, which is at `at` in the list; returns its length.
fn select_page(
    data: &[u8],
    at: usize,
    pages: &mut ModePages,
    changeable: &ModePages,
) -> Result<usize, ParameterListError> {
    let [code, length, ..] = *data else {
        return Err(ParameterListError::Length);
    };
    if code & 0x80 != 0 {
        return Err(ParameterListError::field(at, Some(7)));
    }
    if code & 0x40 != 0 {
        return Err(ParameterListError::field(at, Some(6)));
    }
    let unknown = ParameterListError::field(at, Some(5));
    let current = pages.encode_page(code).ok_or(unknown)?;
    let mask = changeable.encode_page(code).ok_or(unknown)?;
    if usize::from(length) + 2 != current.len() {
        return Err(ParameterListError::field(at + 1, None));
    }
    let given = data
        .get(..current.len())
        .ok_or(ParameterListError::Length)?;
    for (index, ((given, current), mask)) in
        given.iter().zip(&current).zip(&mask).enumerate().skip(2)
    {
        let wrong = (given ^ current) & !mask;
        if wrong != 0 {
            return Err(ParameterListError::field(
                at + index,
                Some(7 - wrong.leading_zeros() as u8),
            ));
        }
    }
    pages
        .decode_page(given)
        .map_err(|_| ParameterListError::Length)?;
    Ok(current.len())
}

/// Builds a parameter list with the pages of `codes` and no block descriptor; unknown codes are left out.
pub fn encode_mode_select(size: ModeSize, pages: &ModePages, codes: &[u8]) -> Vec<u8> {
    let mut data = match size {
        ModeSize::Six => vec![0; 4],
        ModeSize::Ten => [&[0; 6][..], &length_u16(0).to_be_bytes()].concat(),
    };
    data.extend(
        codes
            .iter()
            .filter_map(|&code| pages.encode_page(code))
            .flatten(),
    );
    data
}

#[cfg(test)]
mod tests {
    use super::super::pages::{ControlPage, page_code};
    use super::*;

    const BLOCK: BlockDescriptor = BlockDescriptor {
        blocks: 1000,
        block_length_bytes: 512,
    };

    fn current() -> ModePages {
        ModePages {
            control: ControlPage {
                task_set_type: 1,
                ..ControlPage::default()
            },
            ..ModePages::default()
        }
    }

    fn select(size: ModeSize, data: &[u8]) -> Result<ModePages, ParameterListError> {
        let length = u16::try_from(data.len()).expect("short");
        let command = ModeSelect {
            size,
            page_format: true,
            save_pages: false,
            parameter_list_length: length,
        };
        mode_select(&command, data, &current(), &ModePages::CHANGEABLE, BLOCK)
    }

    #[test]
    fn changeable_bits_are_taken_over() {
        let mut wanted = current();
        wanted.control.software_write_protect = true;
        wanted.control.descriptor_sense = true;
        wanted.control.task_aborted_status = true;
        for size in [ModeSize::Six, ModeSize::Ten] {
            let data = encode_mode_select(size, &wanted, &ModePages::CODES);
            assert_eq!(select(size, &data), Ok(wanted));
        }
    }

    #[test]
    fn other_bits_are_refused_where_they_are() {
        let mut data = encode_mode_select(ModeSize::Ten, &current(), &[page_code::CONTROL]);
        data[8 + 3] = 0x06;
        assert_eq!(
            select(ModeSize::Ten, &data),
            Err(ParameterListError::field(11, Some(2)))
        );
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(select(ModeSize::Six, &[]), Ok(current()));
        let data = encode_mode_select(ModeSize::Six, &current(), &[page_code::CONTROL]);
        for cut in (1..4).chain(5..data.len()) {
            assert_eq!(
                select(ModeSize::Six, &data[..cut]),
                Err(ParameterListError::Length),
                "{cut}"
            );
        }
        let mut wrong = data.clone();
        wrong[5] = 9;
        assert_eq!(
            select(ModeSize::Six, &wrong),
            Err(ParameterListError::field(5, None))
        );
        let mut unknown = data;
        unknown[4] = 0x02;
        assert_eq!(
            select(ModeSize::Six, &unknown),
            Err(ParameterListError::field(4, Some(5)))
        );
    }

    #[test]
    fn the_medium_cannot_be_changed() {
        let with = |blocks: u64, block_length_bytes: u32| {
            let mut data = vec![0, 0, 0, 8];
            data.extend(
                BlockDescriptor {
                    blocks,
                    block_length_bytes,
                }
                .encode(false),
            );
            select(ModeSize::Six, &data)
        };
        assert_eq!(with(1000, 512), Ok(current()));
        assert_eq!(with(0, 512), Ok(current()));
        assert_eq!(with(0xffff_ffff, 512), Ok(current()));
        assert_eq!(with(999, 512), Err(ParameterListError::field(4, None)));
        assert_eq!(with(1000, 4096), Err(ParameterListError::field(9, None)));
        assert_eq!(
            select(ModeSize::Six, &[0, 0, 0, 4, 0, 0, 0, 0]),
            Err(ParameterListError::field(3, None))
        );
        assert_eq!(
            select(ModeSize::Six, &[0, 1, 0, 0]),
            Err(ParameterListError::field(1, None))
        );
    }

    #[test]
    fn saving_and_vendor_pages_are_refused() {
        let command = ModeSelect {
            size: ModeSize::Six,
            page_format: false,
            save_pages: true,
            parameter_list_length: 0,
        };
        let run = |command: &ModeSelect, data: &[u8]| {
            mode_select(command, data, &current(), &ModePages::CHANGEABLE, BLOCK)
                .expect_err("refused")
        };
        assert_eq!(
            run(&command, &[]),
            ParameterListError::InvalidFieldInCdb {
                byte: 1,
                bit: Some(0)
            }
        );
        let command = ModeSelect {
            save_pages: false,
            ..command
        };
        assert_eq!(
            run(&command, &[0; 4]),
            ParameterListError::InvalidFieldInCdb {
                byte: 1,
                bit: Some(4)
            }
        );
    }
}
