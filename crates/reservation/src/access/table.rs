//! The rows of the access table, to be read beside the standards.

use super::{Column, Row};

/// What table 65 of SPC-4 says, as five letters, `A`llowed or `C`onflict, in the order of its columns: Write
/// Exclusive and Exclusive Access held by another nexus; a registered nexus under a registrants-only or
/// all-registrants reservation; a nexus that is not registered under Write Exclusive and under Exclusive Access for
/// registrants.
type Five = &'static [u8; 5];

const ALWAYS: Five = b"AAAAA";
const READ: Five = b"ACAAC";
const WRITE: Five = b"CCACC";

const fn bit(column: Column) -> u16 {
    1 << column as u8
}

/// A command of table 65: never refused without a reservation or to the holder of one; and, unless [`Row::scsi2`]
/// says otherwise, refused under another nexus's RESERVE, and while reservations are lost or cannot be read.
const fn command(opcode: u8, five: Five, name: &'static str) -> Row {
    let mut permitted = bit(Column::Open)
        | bit(Column::OpenRegistered)
        | bit(Column::Holder)
        | bit(Column::Scsi2Holder);
    let columns: [&[Column]; 5] = [
        &[Column::WriteExclusiveRegistered, Column::WriteExclusive],
        &[
            Column::ExclusiveAccessRegistered,
            Column::ExclusiveAccess,
            Column::Fenced,
        ],
        &[Column::RegistrantsOnly],
        &[Column::WriteExclusiveRegistrants],
        &[Column::ExclusiveAccessRegistrants],
    ];
    let mut letter = 0;
    while letter < five.len() {
        assert!(five[letter] == b'A' || five[letter] == b'C');
        let mut at = 0;
        while at < columns[letter].len() && five[letter] == b'A' {
            permitted |= bit(columns[letter][at]);
            at += 1;
        }
        letter += 1;
    }
    Row {
        opcode,
        selector: None,
        name,
        permitted,
        writes_medium: false,
        manages_reservations: false,
    }
}

/// A service action of PERSISTENT RESERVE OUT, from table 66 of SPC-4: from a registered and from an unregistered
/// nexus while another nexus holds a reservation. Without a reservation an unregistered nexus may only register
/// (SPC-4 5.13.7), and while any nexus has a SCSI-2 reservation every one conflicts (SPC-2 5.5.1). A fenced nexus may send
/// none.
const fn reserve_out(service_action: u16, two: &'static [u8; 2], name: &'static str) -> Row {
    assert!((two[0] == b'A' || two[0] == b'C') && (two[1] == b'A' || two[1] == b'C'));
    let mut permitted = bit(Column::OpenRegistered) | bit(Column::Holder);
    if two[0] == b'A' {
        permitted |= bit(Column::RegistrantsOnly)
            | bit(Column::WriteExclusiveRegistered)
            | bit(Column::ExclusiveAccessRegistered);
    }
    if two[1] == b'A' {
        permitted |= bit(Column::Open)
            | bit(Column::WriteExclusive)
            | bit(Column::ExclusiveAccess)
            | bit(Column::WriteExclusiveRegistrants)
            | bit(Column::ExclusiveAccessRegistrants);
    }
    Row {
        opcode: 0x5f,
        selector: Some(service_action),
        name,
        permitted,
        writes_medium: false,
        manages_reservations: true,
    }
}

/// RESERVE and RELEASE: as SPC-2 says, conflicting when the nexus is registered (SPC-2 5.5.1), with the exceptions
/// of SPC-4 5.13.3. That they also conflict when only others are registered is seen by the machine.
const fn scsi2_reservation(opcode: u8, name: &'static str) -> Row {
    let mut row = command(opcode, b"CCACC", name);
    row.permitted &= !bit(Column::OpenRegistered);
    row.manages_reservations = true;
    row
}

impl Row {
    /// Allowed although another nexus holds a SCSI-2 reservation (SPC-2 table 9 and table B.2, first column).
    const fn scsi2(mut self) -> Self {
        self.permitted |= bit(Column::Scsi2Other);
        self
    }

    /// Allowed while reservations cannot be read, or are lost (the list of SPC-4 5.13.5.2).
    const fn unready(mut self) -> Self {
        self.permitted |= bit(Column::NotReady);
        self.lost()
    }

    /// Allowed while reservations are lost only.
    const fn lost(mut self) -> Self {
        self.permitted |= bit(Column::InformationLost) | bit(Column::Unconfirmed);
        self
    }

    /// How a nexus registers anew after a loss (docs/decisions/0005).
    const fn confirms(mut self) -> Self {
        self.permitted |= bit(Column::Unconfirmed);
        self
    }

    /// PERSISTENT RESERVE IN conflicts while there is a SCSI-2 reservation, for its holder too (SPC-2 5.5.1).
    const fn reserve_in(mut self) -> Self {
        self.permitted &= !bit(Column::Scsi2Holder);
        self.manages_reservations = true;
        self
    }

    const fn select(mut self, selector: u16) -> Self {
        self.selector = Some(selector);
        self
    }

    const fn writes(mut self) -> Self {
        self.writes_medium = true;
        self
    }
}

/// The access table, ordered by operation code. SPC-4 r37 tables 65 and 66, SBC-4 table 13, SPC-2 r20 table 9 and
/// table B.2; commands younger than SPC-2 are refused under another nexus's RESERVE unless table 65 always allows
/// them.
#[rustfmt::skip]
pub static TABLE: &[Row] = &ROWS;

#[rustfmt::skip]
const ROWS: [Row; 117] = [
    command(0x00, ALWAYS, "TEST UNIT READY"),
    command(0x03, ALWAYS, "REQUEST SENSE").scsi2().unready(),
    command(0x04, WRITE,  "FORMAT UNIT").writes(),
    command(0x07, WRITE,  "REASSIGN BLOCKS").writes(),
    command(0x08, READ,   "READ (6)"),
    command(0x0a, WRITE,  "WRITE (6)").writes(),
    command(0x12, ALWAYS, "INQUIRY").scsi2().unready(),
    command(0x15, WRITE,  "MODE SELECT (6)"),
    scsi2_reservation(0x16, "RESERVE (6)"),
    scsi2_reservation(0x17, "RELEASE (6)").scsi2(),
    command(0x1a, READ,   "MODE SENSE (6)"),
    command(0x1b, WRITE,  "START STOP UNIT, START=0 or POWER CONDITION not 0").select(0),
    command(0x1b, ALWAYS, "START STOP UNIT, START=1 and POWER CONDITION=0").select(1).scsi2().unready(),
    command(0x1c, READ,   "RECEIVE DIAGNOSTIC RESULTS"),
    command(0x1d, WRITE,  "SEND DIAGNOSTIC"),
    command(0x1e, ALWAYS, "PREVENT ALLOW MEDIUM REMOVAL, PREVENT=0").select(0).scsi2(),
    command(0x1e, WRITE,  "PREVENT ALLOW MEDIUM REMOVAL, PREVENT not 0").select(1),
    command(0x25, ALWAYS, "READ CAPACITY (10)").scsi2(),
    command(0x28, READ,   "READ (10)"),
    command(0x2a, WRITE,  "WRITE (10)").writes(),
    command(0x2e, WRITE,  "WRITE AND VERIFY (10)").writes(),
    command(0x2f, READ,   "VERIFY (10)"),
    command(0x34, READ,   "PRE-FETCH (10)"),
    command(0x35, WRITE,  "SYNCHRONIZE CACHE (10)"),
    command(0x37, READ,   "READ DEFECT DATA (10)"),
    command(0x3b, WRITE,  "WRITE BUFFER").unready(),
    command(0x3c, READ,   "READ BUFFER").unready(),
    command(0x3e, WRITE,  "READ LONG (10)"),
    command(0x3f, WRITE,  "WRITE LONG (10)").writes(),
    command(0x41, WRITE,  "WRITE SAME (10)").writes(),
    command(0x42, WRITE,  "UNMAP").writes(),
    command(0x48, WRITE,  "SANITIZE, OVERWRITE").select(0x01).writes(),
    command(0x48, WRITE,  "SANITIZE, BLOCK ERASE").select(0x02).writes(),
    command(0x48, WRITE,  "SANITIZE, CRYPTOGRAPHIC ERASE").select(0x03).writes(),
    command(0x48, WRITE,  "SANITIZE, EXIT FAILURE MODE").select(0x1f).writes(),
    command(0x4c, WRITE,  "LOG SELECT"),
    command(0x4d, ALWAYS, "LOG SENSE").scsi2().unready(),
    command(0x55, WRITE,  "MODE SELECT (10)"),
    scsi2_reservation(0x56, "RESERVE (10)"),
    scsi2_reservation(0x57, "RELEASE (10)").scsi2(),
    command(0x5a, READ,   "MODE SENSE (10)"),
    command(0x5e, ALWAYS, "PERSISTENT RESERVE IN, READ KEYS").select(0x00).reserve_in(),
    command(0x5e, ALWAYS, "PERSISTENT RESERVE IN, READ RESERVATION").select(0x01).reserve_in(),
    command(0x5e, ALWAYS, "PERSISTENT RESERVE IN, REPORT CAPABILITIES").select(0x02).reserve_in(),
    command(0x5e, ALWAYS, "PERSISTENT RESERVE IN, READ FULL STATUS").select(0x03).reserve_in(),
    reserve_out(0x00, b"AA", "PERSISTENT RESERVE OUT, REGISTER").confirms(),
    reserve_out(0x01, b"CC", "PERSISTENT RESERVE OUT, RESERVE"),
    reserve_out(0x02, b"AC", "PERSISTENT RESERVE OUT, RELEASE"),
    reserve_out(0x03, b"AC", "PERSISTENT RESERVE OUT, CLEAR"),
    reserve_out(0x04, b"AC", "PERSISTENT RESERVE OUT, PREEMPT"),
    reserve_out(0x05, b"AC", "PERSISTENT RESERVE OUT, PREEMPT AND ABORT"),
    reserve_out(0x06, b"AA", "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY").confirms(),
    reserve_out(0x07, b"CC", "PERSISTENT RESERVE OUT, REGISTER AND MOVE"),
    reserve_out(0x08, b"AC", "PERSISTENT RESERVE OUT, REPLACE LOST RESERVATION").lost(),
    command(0x7f, READ,   "READ (32)").select(0x0009),
    command(0x7f, READ,   "VERIFY (32)").select(0x000a),
    command(0x7f, WRITE,  "WRITE (32)").select(0x000b).writes(),
    command(0x7f, WRITE,  "WRITE AND VERIFY (32)").select(0x000c).writes(),
    command(0x7f, WRITE,  "WRITE SAME (32)").select(0x000d).writes(),
    command(0x7f, WRITE,  "ORWRITE (32)").select(0x000e).writes(),
    command(0x7f, WRITE,  "WRITE ATOMIC (32)").select(0x000f).writes(),
    command(0x83, WRITE,  "EXTENDED COPY (LID1)").select(0x00),
    command(0x83, WRITE,  "EXTENDED COPY (LID4)").select(0x01),
    command(0x83, READ,   "POPULATE TOKEN").select(0x10),
    command(0x83, WRITE,  "WRITE USING TOKEN").select(0x11).writes(),
    command(0x83, WRITE,  "COPY OPERATION ABORT").select(0x1c),
    command(0x84, ALWAYS, "RECEIVE COPY STATUS (LID1)").select(0x00),
    command(0x84, ALWAYS, "RECEIVE COPY DATA (LID1)").select(0x01),
    command(0x84, ALWAYS, "RECEIVE COPY OPERATING PARAMETERS").select(0x03),
    command(0x84, ALWAYS, "RECEIVE COPY FAILURE DETAILS (LID1)").select(0x04),
    command(0x84, ALWAYS, "RECEIVE COPY STATUS (LID4)").select(0x05),
    command(0x84, ALWAYS, "RECEIVE COPY DATA (LID4)").select(0x06),
    command(0x84, ALWAYS, "RECEIVE ROD TOKEN INFORMATION").select(0x07),
    command(0x84, ALWAYS, "REPORT ALL ROD TOKENS").select(0x08),
    command(0x86, ALWAYS, "ACCESS CONTROL IN").scsi2(),
    command(0x87, ALWAYS, "ACCESS CONTROL OUT").scsi2(),
    command(0x88, READ,   "READ (16)"),
    command(0x89, WRITE,  "COMPARE AND WRITE").writes(),
    command(0x8a, WRITE,  "WRITE (16)").writes(),
    command(0x8b, WRITE,  "ORWRITE (16)").writes(),
    command(0x8c, READ,   "READ ATTRIBUTE"),
    command(0x8d, WRITE,  "WRITE ATTRIBUTE"),
    command(0x8e, WRITE,  "WRITE AND VERIFY (16)").writes(),
    command(0x8f, READ,   "VERIFY (16)"),
    command(0x90, READ,   "PRE-FETCH (16)"),
    command(0x91, WRITE,  "SYNCHRONIZE CACHE (16)"),
    command(0x93, WRITE,  "WRITE SAME (16)").writes(),
    command(0x9c, WRITE,  "WRITE ATOMIC (16)").writes(),
    command(0x9e, ALWAYS, "READ CAPACITY (16)").select(0x10).scsi2(),
    command(0x9e, WRITE,  "READ LONG (16)").select(0x11),
    command(0x9e, READ,   "GET LBA STATUS").select(0x12),
    command(0x9e, ALWAYS, "REPORT REFERRALS").select(0x13).scsi2(),
    command(0x9f, WRITE,  "WRITE LONG (16)").select(0x11).writes(),
    command(0xa0, ALWAYS, "REPORT LUNS").scsi2().unready(),
    command(0xa2, READ,   "SECURITY PROTOCOL IN"),
    command(0xa3, ALWAYS, "REPORT IDENTIFYING INFORMATION").select(0x05).scsi2(),
    command(0xa3, ALWAYS, "REPORT TARGET PORT GROUPS").select(0x0a).scsi2().unready(),
    command(0xa3, ALWAYS, "REPORT ALIASES").select(0x0b).scsi2(),
    command(0xa3, READ,   "REPORT SUPPORTED OPERATION CODES").select(0x0c),
    command(0xa3, READ,   "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS").select(0x0d),
    command(0xa3, ALWAYS, "REPORT PRIORITY").select(0x0e).scsi2(),
    command(0xa3, ALWAYS, "REPORT TIMESTAMP").select(0x0f).scsi2(),
    command(0xa3, READ,   "MANAGEMENT PROTOCOL IN").select(0x10),
    command(0xa4, WRITE,  "SET IDENTIFYING INFORMATION").select(0x06),
    command(0xa4, WRITE,  "SET TARGET PORT GROUPS").select(0x0a),
    command(0xa4, WRITE,  "CHANGE ALIASES").select(0x0b),
    command(0xa4, WRITE,  "REMOVE I_T NEXUS").select(0x0c),
    command(0xa4, WRITE,  "SET PRIORITY").select(0x0e),
    command(0xa4, WRITE,  "SET TIMESTAMP").select(0x0f),
    command(0xa4, WRITE,  "MANAGEMENT PROTOCOL OUT").select(0x10),
    command(0xa8, READ,   "READ (12)"),
    command(0xaa, WRITE,  "WRITE (12)").writes(),
    command(0xab, ALWAYS, "READ MEDIA SERIAL NUMBER").select(0x01).scsi2(),
    command(0xae, WRITE,  "WRITE AND VERIFY (12)").writes(),
    command(0xaf, READ,   "VERIFY (12)"),
    command(0xb5, WRITE,  "SECURITY PROTOCOL OUT"),
    command(0xb7, READ,   "READ DEFECT DATA (12)"),
];

/// In [`FIRST`]: no row has this operation code.
pub(super) const NONE: u8 = u8::MAX;

/// For each operation code the index of its first row.
pub(super) static FIRST: [u8; 256] = {
    assert!(ROWS.len() < NONE as usize);
    let mut first = [NONE; 256];
    let mut at = ROWS.len();
    while at > 0 {
        at -= 1;
        first[ROWS[at].opcode as usize] = at as u8;
        if at > 0 {
            // A missing selector would hide the rows after it; a wrong order would hide rows of one operation code.
            let (before, after) = (&ROWS[at - 1], &ROWS[at]);
            assert!(before.opcode <= after.opcode);
            if before.opcode == after.opcode {
                assert!(match (before.selector, after.selector) {
                    (Some(a), Some(b)) => a < b,
                    _ => false,
                });
            }
        }
    }
    first
};

/// For each column a mask of the columns that take some command away from it.
pub(super) static NARROWER: [u16; Column::ALL.len()] = {
    let mut narrower = [0; Column::ALL.len()];
    let mut at = 0;
    while at < ROWS.len() {
        let row = &ROWS[at];
        let mut from = 0;
        while from < narrower.len() && !row.manages_reservations {
            if row.permitted >> from & 1 == 1 {
                narrower[from] |= !row.permitted & (u16::MAX >> (16 - Column::ALL.len()));
            }
            from += 1;
        }
        at += 1;
    }
    narrower
};
