//! Checks of a decoded command that need the logical unit's size, and how much data it wants.

use scsi::Sense;
use scsi::cdb::{ByteCheck, Cdb, SanitizeAction, TransferSize};
use scsi::sense::AdditionalSense;
use volume::block_device::BlockDevice;

use crate::task::{Refused, Request};
use crate::unit::LogicalUnit;

/// MAXIMUM TRANSFER LENGTH in bytes.
pub(crate) const TRANSFER_MAX_BYTES: u64 = 32 << 20;
/// MAXIMUM WRITE SAME LENGTH in bytes.
pub(crate) const WRITE_SAME_MAX_BYTES: u64 = 128 << 20;
/// MAXIMUM COMPARE AND WRITE LENGTH in blocks.
pub(crate) const COMPARE_AND_WRITE_MAX_BLOCKS: u8 = 255;
/// MAXIMUM UNMAP LBA COUNT.
pub(crate) const UNMAP_MAX_BLOCKS: u32 = u32::MAX;
/// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
pub(crate) const UNMAP_MAX_DESCRIPTORS: u32 = 256;
/// Parameter lists longer than this are refused.
const PARAMETER_LIST_MAX_BYTES: u64 = 64 << 10;

/// What a command needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes wanted from the initiator.
    pub(crate) data_out_bytes: u64,
    /// Bytes that will come: less than `data_out_bytes` when the initiator announced less.
    pub(crate) data_out_available_bytes: u64,
}

impl Plan {
    /// Checks the command against the logical unit and against the data that the initiator announced.
    pub(crate) fn of<D: BlockDevice>(
        unit: &LogicalUnit<D>,
        cdb: &Cdb,
        request: &Request<'_>,
    ) -> Result<Self, Refused> {
        let check = Check { unit };
        let block = unit.block_bytes();
        let (wanted, tolerance) = match *cdb {
            Cdb::Read(t) => {
                check.transfer(t.size, t.lba, t.length_blocks)?;
                (0, Tolerance::Exact)
            }
            Cdb::Write(t) => {
                check.transfer(t.size, t.lba, t.length_blocks)?;
                (u64::from(t.length_blocks) * block, Tolerance::Anything)
            }
            Cdb::WriteAndVerify(v) => {
                check.transfer(v.size, v.lba, v.length_blocks)?;
                (u64::from(v.length_blocks) * block, Tolerance::WholeBlocks)
            }
            Cdb::OrWrite16(t) => {
                check.transfer(t.size, t.lba, t.length_blocks)?;
                (u64::from(t.length_blocks) * block, Tolerance::Longer)
            }
            Cdb::Verify(v) => match v.byte_check {
                ByteCheck::Medium => {
                    check.range(v.lba, v.length_blocks)?;
                    (0, Tolerance::Longer)
                }
                ByteCheck::Compare => {
                    check.transfer(v.size, v.lba, v.length_blocks)?;
                    (u64::from(v.length_blocks) * block, Tolerance::Longer)
                }
                ByteCheck::CompareOneBlock => {
                    check.range(v.lba, v.length_blocks)?;
                    let blocks = u64::from(v.length_blocks.min(1));
                    (blocks * block, Tolerance::Longer)
                }
            },
            Cdb::CompareAndWrite(c) => {
                check.range(c.lba, c.length_blocks.into())?;
                if c.length_blocks == 0 && request.data_out_bytes > 0 {
                    return Err(Sense::invalid_field_in_cdb(13, None).into());
                }
                (2 * u64::from(c.length_blocks) * block, Tolerance::Exact)
            }
            Cdb::WriteAtomic16(w) => {
                check.write_atomic(w.lba, w.length_blocks, w.boundary_blocks)?;
                (u64::from(w.length_blocks) * block, Tolerance::Longer)
            }
            Cdb::WriteSame(w) => {
                if w.anchor {
                    // ANC_SUP is zero.
                    return Err(Sense::invalid_field_in_cdb(1, Some(4)).into());
                }
                check.range(w.lba, w.length_blocks)?;
                let bytes = u64::from(w.length_blocks) << unit.block_shift;
                // WSNZ is one: no number of blocks is not everything to the end of the medium.
                if bytes == 0 || bytes > WRITE_SAME_MAX_BYTES {
                    return Err(Sense::invalid_field_in_cdb(length_field(w.size), None).into());
                }
                let blocks = u64::from(!w.no_data_out_buffer);
                (blocks * block, Tolerance::Exact)
            }
            Cdb::PreFetch(p) => {
                check.range(p.lba, p.length_blocks)?;
                (0, Tolerance::Longer)
            }
            Cdb::SynchronizeCache(s) => {
                check.range(s.lba, s.length_blocks)?;
                (0, Tolerance::Longer)
            }
            Cdb::GetLbaStatus(g) => {
                if g.lba >= unit.capacity_blocks() {
                    return Err(Sense::lba_out_of_range(g.lba).into());
                }
                (0, Tolerance::Longer)
            }
            Cdb::Unmap(u) => {
                if u.anchor {
                    return Err(Sense::invalid_field_in_cdb(1, Some(0)).into());
                }
                (u.parameter_list_length.into(), Tolerance::ParameterList)
            }
            Cdb::ModeSelect(m) => (m.parameter_list_length.into(), Tolerance::ParameterList),
            Cdb::PersistentReserveOut(p) => {
                (p.parameter_list_length.into(), Tolerance::ParameterList)
            }
            Cdb::ExtendedCopy(e) => (e.parameter_list_length.into(), Tolerance::ParameterList),
            Cdb::Sanitize(s) if s.action == SanitizeAction::Overwrite => {
                (s.parameter_list_length.into(), Tolerance::ParameterList)
            }
            _ => (0, Tolerance::Longer),
        };
        tolerance.apply(wanted, request.data_out_bytes, block)
    }
}

/// What a command makes of an initiator that announced another amount of data than the CDB asks for.
enum Tolerance {
    /// Nothing else will do.
    Exact,
    /// More is left alone, less is an error.
    Longer,
    /// More is left alone; less is taken, and the rest of the blocks stays as it is.
    Anything,
    /// More is left alone; of less, whole blocks are taken.
    WholeBlocks,
    /// A parameter list: more is left alone, less is PARAMETER LIST LENGTH ERROR.
    ParameterList,
}

impl Tolerance {
    fn apply(self, wanted: u64, announced: u64, block: u64) -> Result<Plan, Refused> {
        let plan = |available| {
            Ok(Plan {
                data_out_bytes: wanted,
                data_out_available_bytes: available,
            })
        };
        let refuse = |sense: Sense| {
            Err(Refused {
                failure: sense.into(),
                transfer_length_bytes: Some(wanted),
            })
        };
        let information_unit =
            Sense::illegal_request(AdditionalSense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
        match self {
            Tolerance::ParameterList if wanted > PARAMETER_LIST_MAX_BYTES || announced < wanted => {
                refuse(Sense::parameter_list_length_error())
            }
            _ if announced == wanted => plan(wanted),
            Tolerance::Exact if wanted > 0 => refuse(information_unit),
            _ if announced > wanted => plan(wanted),
            Tolerance::Anything => plan(announced),
            Tolerance::WholeBlocks if announced.is_multiple_of(block) => plan(announced),
            _ => refuse(information_unit),
        }
    }
}

/// Offset of the TRANSFER LENGTH field.
fn length_field(size: TransferSize) -> u16 {
    match size {
        TransferSize::Six => 4,
        TransferSize::Ten => 7,
        TransferSize::Twelve => 6,
        TransferSize::Sixteen => 10,
    }
}

struct Check<'a, D> {
    unit: &'a LogicalUnit<D>,
}

impl<D: BlockDevice> Check<'_, D> {
    /// The blocks are on the medium. A range of no blocks may start right behind the last.
    fn range(&self, lba: u64, length_blocks: u32) -> Result<(), Sense> {
        let capacity = self.unit.capacity_blocks();
        match lba.checked_add(length_blocks.into()) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(Sense::lba_out_of_range(lba.max(capacity))),
        }
    }

    /// The same, and no longer than MAXIMUM TRANSFER LENGTH.
    fn transfer(&self, size: TransferSize, lba: u64, length_blocks: u32) -> Result<(), Sense> {
        self.range(lba, length_blocks)?;
        if u64::from(length_blocks) << self.unit.block_shift > TRANSFER_MAX_BYTES {
            return Err(Sense::invalid_field_in_cdb(length_field(size), None));
        }
        Ok(())
    }

    fn write_atomic(&self, lba: u64, length: u16, boundary: u16) -> Result<(), Sense> {
        self.range(lba, length.into())?;
        // MAXIMUM ATOMIC BOUNDARY SIZE is zero: no smaller units are supported (SBC-4 5.48).
        if boundary != 0 {
            return Err(Sense::invalid_field_in_cdb(10, None));
        }
        if u64::from(length) << self.unit.block_shift > volume::volume::MAX_ATOMIC_BYTES {
            return Err(Sense::invalid_field_in_cdb(12, None));
        }
        Ok(())
    }
}
