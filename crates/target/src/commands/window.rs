//! Mailboxes: a nexus may write its own window of the volume and nothing else, and may not get in the way of others.

use std::ops::Range;

use reservation::access::Row;
use scsi::Sense;
use scsi::cdb::{Cdb, CommandId};
use volume::block_device::BlockDevice;

use super::needs_write_grant;
use crate::response::Failure;
use crate::session::Attached;

/// May a nexus send this command to a mailbox, wherever it would write?
pub(crate) fn permits(id: CommandId, row: &Row) -> Result<(), Failure> {
    // PERSISTENT RESERVE IN tells that nobody is registered.
    if row.manages_reservations() && row.opcode() != 0x5e {
        return Err(Failure::Conflict);
    }
    // MODE SELECT, START STOP UNIT and the like are in force for everyone.
    if needs_write_grant(id) {
        return Err(Sense::write_protected().into());
    }
    Ok(())
}

/// May it write where this command writes? `None` is a command that does not say so in its CDB, or that is not sent to
/// the mailbox itself.
pub(crate) fn contains<D: BlockDevice>(
    attached: &Attached<D>,
    cdb: Option<&Cdb>,
) -> Result<(), Failure> {
    let unit = &attached.unit;
    let name = &attached.nexus.nexus.initiator.name;
    let blocks = cdb.and_then(written);
    let inside = blocks.is_some_and(|blocks| {
        let first = blocks.start.checked_mul(unit.block_bytes());
        let end = blocks.end.checked_mul(unit.block_bytes());
        let (Some(first), Some(end)) = (first, end) else {
            return false;
        };
        unit.access.lock().may_write(name, first..end)
    });
    match inside {
        true => Ok(()),
        false => Err(Sense::write_protected().into()),
    }
}

/// The blocks that a command writes, where its CDB says it. UNMAP, SANITIZE and FORMAT UNIT are not among them, and have
/// no business in a mailbox.
fn written(cdb: &Cdb) -> Option<Range<u64>> {
    let (lba, blocks) = match cdb {
        Cdb::Write(write) => (write.lba, write.length_blocks),
        Cdb::WriteAndVerify(write) => (write.lba, write.length_blocks),
        Cdb::OrWrite16(write) => (write.lba, write.length_blocks),
        Cdb::CompareAndWrite(write) => (write.lba, write.length_blocks.into()),
        Cdb::WriteAtomic16(write) => (write.lba, write.length_blocks.into()),
        Cdb::WriteSame(write) => (write.lba, write.length_blocks),
        _ => return None,
    };
    Some(lba..lba.checked_add(blocks.into())?)
}
