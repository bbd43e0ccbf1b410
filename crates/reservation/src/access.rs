//! The access table: who may send which command.
//!
//! One table ([`TABLE`]) over operation codes and service actions holds SPC-4 tables 65 and 66, the SBC-3 and SBC-4
//! table of commands allowed in the presence of reservations, the column of SPC-2 for a logical unit reserved with
//! RESERVE, and the two short lists of SPC-4 5.13.5. A nexus is at any time in one [`Column`] of it, found by
//! [`column`] from the state; a command is one [`Row`], found by [`row`] or [`row_of`]; [`Row::permits`] is one shift.
//! Data direction plays no part.
//!
//! The table decides everything but this: RESERVE and RELEASE of SCSI-2 and the PERSISTENT RESERVE commands are also
//! judged by [`crate::machine::step`], which sees the whole state; the table answers for them only what follows from
//! the column, so that a conflict can be answered before their parameter lists are fetched.

mod render;
mod table;

use std::fmt;

pub use render::{render_markdown, render_role};
pub use table::TABLE;

use crate::machine::LuReservations;
use crate::reject::Reject;
use crate::state::{Lost, Nexus, ReservationType};

/// How a logical unit's reservations look from one nexus: the columns of the access table. Fits in four bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Column {
    /// No reservation; the nexus is not registered.
    Open = 0,
    /// No reservation; the nexus is registered.
    OpenRegistered = 1,
    /// The nexus holds the persistent reservation, as every registrant does for types 7 and 8.
    Holder = 2,
    /// Registered; another nexus holds a registrants-only reservation (types 5 and 6).
    RegistrantsOnly = 3,
    /// Registered; another nexus holds Write Exclusive.
    WriteExclusiveRegistered = 4,
    /// Registered; another nexus holds Exclusive Access.
    ExclusiveAccessRegistered = 5,
    /// Not registered; another nexus holds Write Exclusive.
    WriteExclusive = 6,
    /// Not registered; another nexus holds Exclusive Access.
    ExclusiveAccess = 7,
    /// Not registered; Write Exclusive for registrants (types 5 and 7).
    WriteExclusiveRegistrants = 8,
    /// Not registered; Exclusive Access for registrants (types 6 and 8).
    ExclusiveAccessRegistrants = 9,
    /// The nexus holds the SCSI-2 reservation.
    Scsi2Holder = 10,
    /// Another nexus holds the SCSI-2 reservation.
    Scsi2Other = 11,
    /// Persistent reservation information was lost, and only REPLACE LOST RESERVATION ends that (SPC-4 5.13.5.3.2); the
    /// same for every nexus.
    InformationLost = 12,
    /// The logical unit cannot read its reservations at all (SPC-4 5.13.5.2). [`column`] never gives this: whoever
    /// finds the private region unusable sets it. The answer to what it refuses is NOT READY.
    NotReady = 13,
    /// The initiator is fenced, whatever is reserved: what an Exclusive Access reservation of another nexus leaves to a
    /// stranger, without PERSISTENT RESERVE OUT.
    Fenced = 14,
    /// Persistent reservation information was lost, and the nexus has not registered since: as
    /// [`Column::InformationLost`], but that it may register ([`Lost::UntilRegistered`](crate::Lost::UntilRegistered)).
    /// A nexus that has registered since is in the column that its registration gives it.
    Unconfirmed = 15,
}

impl Column {
    /// Every column, in the order of the numbers.
    pub const ALL: [Self; 16] = [
        Self::Open,
        Self::OpenRegistered,
        Self::Holder,
        Self::RegistrantsOnly,
        Self::WriteExclusiveRegistered,
        Self::ExclusiveAccessRegistered,
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrants,
        Self::ExclusiveAccessRegistrants,
        Self::Scsi2Holder,
        Self::Scsi2Other,
        Self::InformationLost,
        Self::NotReady,
        Self::Fenced,
        Self::Unconfirmed,
    ];

    /// The column with this number, 0 to 15: the way back out of a packed gate word.
    pub const fn from_code(code: u8) -> Option<Self> {
        if (code as usize) < Self::ALL.len() {
            Some(Self::ALL[code as usize])
        } else {
            None
        }
    }

    /// The number of the column, 0 to 15.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// A nexus that goes from this column to `after` may afterwards not send some command, other than those that
    /// manage reservations, that it could send before: its admitted I/O has to be drained.
    pub const fn narrows_to(self, after: Self) -> bool {
        table::NARROWER[self as usize] >> after as u8 & 1 == 1
    }

    /// What to answer to a command that this column does not permit. `None` for [`Column::NotReady`]: NOT READY,
    /// with the additional sense code of whoever set it.
    pub const fn refusal(self) -> Option<Reject> {
        match self {
            Self::NotReady => None,
            Self::InformationLost | Self::Unconfirmed => Some(Reject::ReservationInformationLost),
            _ => Some(Reject::ReservationConflict),
        }
    }
}

/// One command, or one service action of it, in the access table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    opcode: u8,
    selector: Option<u16>,
    name: &'static str,
    permitted: u16,
    writes_medium: bool,
    manages_reservations: bool,
}

impl Row {
    /// Operation code.
    pub const fn opcode(&self) -> u8 {
        self.opcode
    }

    /// What else tells this row from others with the same operation code, see [`selector_of`]; `None` when the
    /// operation code alone names the command.
    pub const fn selector(&self) -> Option<u16> {
        self.selector
    }

    /// The standard's name of the command.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a nexus in `column` may send the command.
    #[inline]
    pub const fn permits(&self, column: Column) -> bool {
        self.permitted >> column as u8 & 1 == 1
    }

    /// The command changes data on the medium: a nexus with a read-only grant gets DATA PROTECT, WRITE PROTECTED.
    /// EXTENDED COPY is not such a command, its copy destinations are checked one by one; nor is SYNCHRONIZE CACHE.
    #[inline]
    pub const fn writes_medium(&self) -> bool {
        self.writes_medium
    }

    /// RESERVE, RELEASE and the PERSISTENT RESERVE commands.
    pub const fn manages_reservations(&self) -> bool {
        self.manages_reservations
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.selector {
            Some(selector) => write!(f, "{:02X}h/{:02X}h {}", self.opcode, selector, self.name),
            None => write!(f, "{:02X}h {}", self.opcode, self.name),
        }
    }
}

/// The row of an operation code and [selector](selector_of). `None` when the table does not know the command, which
/// is then not executed: INVALID COMMAND OPERATION CODE if [`knows_opcode`] is false too, else INVALID FIELD IN CDB.
#[inline]
pub fn row(opcode: u8, selector: u16) -> Option<&'static Row> {
    let first = table::FIRST[opcode as usize] as usize;
    let mut at = first;
    while let Some(row) = TABLE.get(at) {
        if row.opcode != opcode {
            return None;
        }
        match row.selector {
            Some(wanted) if wanted != selector => at += 1,
            _ => return Some(row),
        }
    }
    None
}

/// The row of a CDB; `None` also when the CDB ends before the field that names the command.
pub fn row_of(cdb: &[u8]) -> Option<&'static Row> {
    row(*cdb.first()?, selector_of(cdb)?)
}

/// Whether any row has this operation code.
pub fn knows_opcode(opcode: u8) -> bool {
    table::FIRST[opcode as usize] != table::NONE
}

/// What in a CDB selects the row among those of its operation code:
///
/// - SERVICE ACTION where the operation code has service actions;
/// - START STOP UNIT: 1 when START is one and POWER CONDITION is zero, else 0;
/// - PREVENT ALLOW MEDIUM REMOVAL: 0 when PREVENT is zero, else 1;
/// - everything else: 0.
///
/// `None` when the CDB is too short to tell.
pub fn selector_of(cdb: &[u8]) -> Option<u16> {
    let first = *TABLE.get(table::FIRST[*cdb.first()? as usize] as usize)?;
    if first.selector.is_none() {
        return Some(0);
    }
    Some(match cdb[0] {
        0x1b => u16::from(cdb.get(4)? & 0xf1 == 0x01),
        0x1e => u16::from(cdb.get(4)? & 0x03 != 0),
        0x7f => u16::from_be_bytes([*cdb.get(8)?, *cdb.get(9)?]),
        _ => u16::from(cdb.get(1)? & 0x1f),
    })
}

/// The column that `nexus` is in.
pub fn column(reservations: &LuReservations, nexus: &Nexus) -> Column {
    let state = &reservations.persistent;
    if reservations.is_fenced(&nexus.initiator.name) {
        Column::Fenced
    } else if state.is_registered(nexus) {
        column_of_registrant(reservations, nexus)
    } else if reservations.scsi2.as_ref() == Some(nexus) && state.lost.is_none() {
        Column::Scsi2Holder
    } else {
        column_of_others(reservations)
    }
}

/// The column of `nexus`, which is registered.
pub(crate) fn column_of_registrant(reservations: &LuReservations, nexus: &Nexus) -> Column {
    let state = &reservations.persistent;
    if let Some(lost) = &state.lost
        && lost.applies_to_registrant(nexus)
    {
        return told(lost);
    }
    let Some(reservation) = &state.reservation else {
        return Column::OpenRegistered;
    };
    if reservation
        .holder
        .as_ref()
        .is_none_or(|holder| holder == nexus)
    {
        return Column::Holder;
    }
    match reservation.kind {
        ReservationType::WriteExclusive => Column::WriteExclusiveRegistered,
        ReservationType::ExclusiveAccess => Column::ExclusiveAccessRegistered,
        _ => Column::RegistrantsOnly,
    }
}

/// The column of a nexus that a loss applies to.
const fn told(lost: &Lost) -> Column {
    match lost {
        Lost::UntilReplaced => Column::InformationLost,
        Lost::UntilRegistered { .. } => Column::Unconfirmed,
    }
}

/// The column of every nexus that is not registered, does not hold the SCSI-2 reservation and is not fenced.
pub fn column_of_others(reservations: &LuReservations) -> Column {
    let state = &reservations.persistent;
    if let Some(lost) = &state.lost {
        return told(lost);
    }
    if reservations.scsi2.is_some() {
        return Column::Scsi2Other;
    }
    match state
        .reservation
        .as_ref()
        .map(|reservation| reservation.kind)
    {
        None => Column::Open,
        Some(ReservationType::WriteExclusive) => Column::WriteExclusive,
        Some(ReservationType::ExclusiveAccess) => Column::ExclusiveAccess,
        Some(kind) if kind.is_write_exclusive() => Column::WriteExclusiveRegistrants,
        Some(_) => Column::ExclusiveAccessRegistrants,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ALLOW_COMMANDS;

    fn permits(opcode: u8, selector: u16, column: Column) -> bool {
        row(opcode, selector).unwrap().permits(column)
    }

    /// Every command that ringfence implements, with its service actions.
    #[test]
    fn implemented_commands_have_rows() {
        let plain = [
            0x00, 0x03, 0x04, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1c, 0x1d, 0x25, 0x28,
            0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x37, 0x3b, 0x3c, 0x41, 0x42, 0x4c, 0x4d, 0x55, 0x56,
            0x57, 0x5a, 0x88, 0x89, 0x8a, 0x8b, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0x9c, 0xa0, 0xa8,
            0xaa, 0xae, 0xaf, 0xb7,
        ];
        for opcode in plain {
            let mut cdb = [0xff; 32];
            cdb[0] = opcode;
            assert_eq!(
                row_of(&cdb).map(|row| (row.opcode(), row.selector())),
                Some((opcode, None))
            );
        }
        let selected: [(u8, &[u16]); 11] = [
            (0x1b, &[0, 1]),
            (0x1e, &[0, 1]),
            (0x48, &[0x01, 0x02, 0x03, 0x1f]),
            (0x5e, &[0, 1, 2, 3]),
            (0x5f, &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
            (0x83, &[0x00]),
            (0x84, &[0x00, 0x03, 0x04]),
            (0x9e, &[0x10, 0x12]),
            (0xa3, &[0x0a, 0x0c, 0x0d]),
            (0x7f, &[0x0009, 0x000b]),
            (0xab, &[0x01]),
        ];
        for (opcode, selectors) in selected {
            for &selector in selectors {
                assert_eq!(
                    row(opcode, selector).and_then(Row::selector),
                    Some(selector),
                    "{opcode:02x}/{selector:02x}"
                );
            }
        }
    }

    #[test]
    fn every_row_is_found_and_unknown_commands_are_not() {
        for wanted in TABLE {
            assert_eq!(
                row(wanted.opcode, wanted.selector.unwrap_or(0)),
                Some(wanted)
            );
            assert!(knows_opcode(wanted.opcode));
        }
        assert!(!knows_opcode(0xc0) && !knows_opcode(0xff) && !knows_opcode(0x01));
        assert_eq!(row(0xff, 0), None);
        assert_eq!(row(0x5f, 0x09), None);
        assert_eq!(row(0x9e, 0x00), None);
        assert_eq!(row(0xa3, 0x1f), None);
        assert_eq!(row(0xb7, 5), row(0xb7, 0));
    }

    #[test]
    fn selectors_come_from_the_cdb() {
        assert_eq!(selector_of(&[]), None);
        assert_eq!(selector_of(&[0x28]), Some(0));
        assert_eq!(selector_of(&[0xff]), None);
        assert_eq!(selector_of(&[0x5f, 0xe7]), Some(7));
        assert_eq!(selector_of(&[0x5f]), None);
        assert_eq!(selector_of(&[0x1b, 0, 0, 0, 0x01, 0]), Some(1));
        assert_eq!(
            selector_of(&[0x1b, 0, 0, 0, 0x03, 0]),
            Some(1),
            "LOEJ does not matter"
        );
        assert_eq!(
            selector_of(&[0x1b, 0, 0, 0, 0x11, 0]),
            Some(0),
            "POWER CONDITION"
        );
        assert_eq!(selector_of(&[0x1b, 0, 0, 0, 0x00, 0]), Some(0));
        assert_eq!(selector_of(&[0x1b, 0, 0, 0]), None);
        assert_eq!(selector_of(&[0x1e, 0, 0, 0, 0x00, 0]), Some(0));
        assert_eq!(selector_of(&[0x1e, 0, 0, 0, 0x02, 0]), Some(1));
        let mut variable = [0; 32];
        variable[0] = 0x7f;
        variable[9] = 0x0b;
        assert_eq!(row_of(&variable).map(Row::name), Some("WRITE (32)"));
        assert_eq!(row_of(&variable[..9]), None);
    }

    #[test]
    fn columns_survive_packing() {
        for column in Column::ALL {
            assert_eq!(Column::from_code(column.code()), Some(column));
        }
        assert_eq!(Column::from_code(16), None);
        assert!(Column::ALL.len() <= 16);
    }

    /// Going to a column in which a nexus can do everything takes nothing away; going from there to any other does.
    #[test]
    fn narrowing_follows_the_rows() {
        let open = open_columns();
        for from in Column::ALL {
            for to in Column::ALL {
                let loses = TABLE
                    .iter()
                    .any(|row| !row.manages_reservations && row.permits(from) && !row.permits(to));
                assert_eq!(from.narrows_to(to), loses, "{from:?} to {to:?}");
            }
            assert!(!from.narrows_to(from));
            assert!(open.iter().all(|&to| !from.narrows_to(to)));
            assert!(
                open.iter()
                    .all(|column| column.narrows_to(from) != open.contains(&from))
            );
        }
        assert!(Column::WriteExclusive.narrows_to(Column::ExclusiveAccess));
        assert!(!Column::ExclusiveAccess.narrows_to(Column::WriteExclusive));
        assert!(!Column::WriteExclusive.narrows_to(Column::WriteExclusiveRegistrants));
    }

    /// The columns in which a nexus can do everything with the medium.
    fn open_columns() -> [Column; 5] {
        [
            Column::Open,
            Column::OpenRegistered,
            Column::Holder,
            Column::RegistrantsOnly,
            Column::Scsi2Holder,
        ]
    }

    /// ALLOW COMMANDS (SPC-4 table 208, code 100b) says what the table does.
    #[test]
    fn allow_commands_is_the_truth() {
        assert_eq!(ALLOW_COMMANDS, 0b100);
        let (write_exclusive, exclusive_access) = (Column::WriteExclusive, Column::ExclusiveAccess);
        for (opcode, selector) in [
            (0x00, 0),
            (0x84, 0x00),
            (0x84, 0x01),
            (0x84, 0x03),
            (0x84, 0x04),
        ] {
            assert!(
                permits(opcode, selector, write_exclusive)
                    && permits(opcode, selector, exclusive_access)
            );
        }
        let reads = [
            (0x1a, 0),
            (0x5a, 0),
            (0x8c, 0),
            (0x3c, 0),
            (0x1c, 0),
            (0xa3, 0x0c),
            (0xa3, 0x0d),
            (0x37, 0),
            (0xb7, 0),
        ];
        for (opcode, selector) in reads {
            assert!(
                permits(opcode, selector, write_exclusive)
                    && !permits(opcode, selector, exclusive_access)
            );
        }
    }

    /// What writes the medium is never permitted where reservations keep writers out.
    #[test]
    fn writers_are_kept_out() {
        for row in TABLE.iter().filter(|row| row.writes_medium()) {
            for column in Column::ALL {
                assert_eq!(
                    row.permits(column),
                    open_columns().contains(&column),
                    "{row} in {column:?}"
                );
            }
        }
    }

    /// A fenced nexus may send what a stranger may beside an Exclusive Access reservation, and manage nothing.
    #[test]
    fn a_fenced_nexus_is_a_stranger_that_cannot_register() {
        for row in TABLE {
            let wanted = row.permits(Column::ExclusiveAccess)
                && (!row.manages_reservations() || row.opcode() == 0x5e);
            assert_eq!(row.permits(Column::Fenced), wanted, "{row}");
        }
        assert!(permits(0x5e, 0, Column::Fenced) && permits(0x12, 0, Column::Fenced));
        assert!(!permits(0x5f, 0, Column::Fenced) && !permits(0x28, 0, Column::Fenced));
    }

    /// Who has not registered since information was lost may do what everyone may then, and register.
    #[test]
    fn an_unconfirmed_nexus_may_register_and_no_more() {
        for row in TABLE {
            let registers = row.opcode() == 0x5f && matches!(row.selector(), Some(0x00 | 0x06));
            let wanted = row.permits(Column::InformationLost) || registers;
            assert_eq!(row.permits(Column::Unconfirmed), wanted, "{row}");
        }
        assert!(!permits(0x28, 0, Column::Unconfirmed) && !permits(0x5f, 4, Column::Unconfirmed));
    }

    #[test]
    fn refusals() {
        assert_eq!(Column::NotReady.refusal(), None);
        for column in [Column::InformationLost, Column::Unconfirmed] {
            let refusal = column.refusal();
            assert_eq!(refusal, Some(Reject::ReservationInformationLost));
        }
        assert_eq!(
            Column::Scsi2Other.refusal(),
            Some(Reject::ReservationConflict)
        );
        assert_eq!(Column::Fenced.refusal(), Some(Reject::ReservationConflict));
    }
}
