//! The table of commands: operation code, service action, and which CDB bits are evaluated (SPC-4 6.35.3).

use super::CdbError;

/// One row of the table of commands.
#[derive(Clone, Copy, Debug)]
pub struct CommandDescriptor {
    /// The command.
    pub id: CommandId,
    /// The standard's name.
    pub name: &'static str,
    /// OPERATION CODE.
    pub operation_code: u8,
    /// SERVICE ACTION, for commands that have one; it is in byte 1, bits 4 to 0, of all commands here.
    pub service_action: Option<u8>,
    /// CDB USAGE DATA of REPORT SUPPORTED OPERATION CODES: the operation code, the service action in its place, and
    /// ones for the bits that are evaluated. Its length is the CDB length in bytes.
    pub usage: &'static [u8],
    /// Bits that may be non-zero, as a big-endian number of 16 bytes: those of `usage`, the operation code, the
    /// service action, and fields that are allowed and not evaluated (GROUP NUMBER).
    pub(crate) allowed: u128,
}

const fn row(
    id: CommandId,
    name: &'static str,
    service_action: Option<u8>,
    usage: &'static [u8],
    ignored: &[(usize, u8)],
) -> CommandDescriptor {
    let mut allowed = [0u8; 16];
    let mut at = 0;
    while at < 16 {
        // Bytes behind the CDB are padding of the transport and not looked at.
        allowed[at] = if at < usage.len() { usage[at] } else { 0xff };
        at += 1;
    }
    allowed[0] = 0xff;
    if let Some(code) = service_action {
        assert!(
            usage[1] & 0x1f == code,
            "the service action is in byte 1 of the usage data"
        );
        allowed[1] |= 0x1f;
    }
    let mut index = 0;
    while index < ignored.len() {
        allowed[ignored[index].0] |= ignored[index].1;
        index += 1;
    }
    let operation_code = usage[0];
    CommandDescriptor {
        id,
        name,
        operation_code,
        service_action,
        usage,
        allowed: u128::from_be_bytes(allowed),
    }
}

macro_rules! commands {
    ($($id:ident = $name:literal, $service_action:expr, [$($usage:literal),*] $(, ignored $ignored:expr)?;)*) => {
        /// What names a command: operation code and service action.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum CommandId {
            $(#[doc = $name] $id,)*
        }

        /// Every command that this crate decodes, in the order of [`CommandId`].
        pub const COMMANDS: &[CommandDescriptor] = &[$({
            const IGNORED: &[(usize, u8)] = { let _none: &[(usize, u8)] = &[]; $(let _none: &[(usize, u8)] = &$ignored;)? _none };
            const ROW: CommandDescriptor = row(CommandId::$id, $name, $service_action, &[$($usage),*], IGNORED);
            ROW
        }),*];
    };
}

const GROUP10: [(usize, u8); 1] = [(6, 0x1f)];
const GROUP12: [(usize, u8); 1] = [(10, 0x1f)];
const GROUP16: [(usize, u8); 1] = [(14, 0x1f)];

// Byte 1 of the transfer commands: DPO 10h, FUA 08h, FUA_NV 02h (SBC-2; honoured as FUA), BYTCHK 06h.
commands! {
    TestUnitReady = "TEST UNIT READY", None, [0x00, 0, 0, 0, 0, 0];
    RequestSense = "REQUEST SENSE", None, [0x03, 0x01, 0, 0, 0xff, 0];
    Read6 = "READ(6)", None, [0x08, 0x1f, 0xff, 0xff, 0xff, 0];
    Write6 = "WRITE(6)", None, [0x0a, 0x1f, 0xff, 0xff, 0xff, 0];
    Inquiry = "INQUIRY", None, [0x12, 0x01, 0xff, 0xff, 0xff, 0];
    ModeSelect6 = "MODE SELECT(6)", None, [0x15, 0x11, 0, 0, 0xff, 0];
    Reserve6 = "RESERVE(6)", None, [0x16, 0, 0, 0, 0, 0];
    Release6 = "RELEASE(6)", None, [0x17, 0, 0, 0, 0, 0];
    ModeSense6 = "MODE SENSE(6)", None, [0x1a, 0x08, 0xff, 0xff, 0xff, 0];
    StartStopUnit = "START STOP UNIT", None, [0x1b, 0x01, 0, 0x0f, 0xf7, 0];
    PreventAllowMediumRemoval = "PREVENT ALLOW MEDIUM REMOVAL", None, [0x1e, 0, 0, 0, 0x03, 0];
    ReadCapacity10 = "READ CAPACITY(10)", None, [0x25, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0];
    Read10 = "READ(10)", None, [0x28, 0x1a, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0], ignored GROUP10;
    Write10 = "WRITE(10)", None, [0x2a, 0x1a, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0], ignored GROUP10;
    WriteAndVerify10 = "WRITE AND VERIFY(10)", None, [0x2e, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0], ignored GROUP10;
    Verify10 = "VERIFY(10)", None, [0x2f, 0x16, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0], ignored GROUP10;
    PreFetch10 = "PRE-FETCH(10)", None, [0x34, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0], ignored GROUP10;
    SynchronizeCache10 = "SYNCHRONIZE CACHE(10)", None, [0x35, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0], ignored [(1, 0x04), (6, 0x1f)];
    ReadDefectData10 = "READ DEFECT DATA(10)", None, [0x37, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0];
    WriteSame10 = "WRITE SAME(10)", None, [0x41, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0], ignored GROUP10;
    Unmap = "UNMAP", None, [0x42, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, 0], ignored GROUP10;
    SanitizeOverwrite = "SANITIZE, OVERWRITE", Some(0x01), [0x48, 0xa1, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    SanitizeBlockErase = "SANITIZE, BLOCK ERASE", Some(0x02), [0x48, 0xa2, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    SanitizeCryptographicErase = "SANITIZE, CRYPTOGRAPHIC ERASE", Some(0x03), [0x48, 0xa3, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    SanitizeExitFailureMode = "SANITIZE, EXIT FAILURE MODE", Some(0x1f), [0x48, 0xbf, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    LogSense = "LOG SENSE", None, [0x4d, 0x01, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0];
    ModeSelect10 = "MODE SELECT(10)", None, [0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    Reserve10 = "RESERVE(10)", None, [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Release10 = "RELEASE(10)", None, [0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ModeSense10 = "MODE SENSE(10)", None, [0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0];
    PersistentReserveInReadKeys = "PERSISTENT RESERVE IN, READ KEYS", Some(0x00), [0x5e, 0x00, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    PersistentReserveInReadReservation = "PERSISTENT RESERVE IN, READ RESERVATION", Some(0x01), [0x5e, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    PersistentReserveInReportCapabilities = "PERSISTENT RESERVE IN, REPORT CAPABILITIES", Some(0x02), [0x5e, 0x02, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    PersistentReserveInReadFullStatus = "PERSISTENT RESERVE IN, READ FULL STATUS", Some(0x03), [0x5e, 0x03, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    PersistentReserveOutRegister = "PERSISTENT RESERVE OUT, REGISTER", Some(0x00), [0x5f, 0x00, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    PersistentReserveOutReserve = "PERSISTENT RESERVE OUT, RESERVE", Some(0x01), [0x5f, 0x01, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    PersistentReserveOutRelease = "PERSISTENT RESERVE OUT, RELEASE", Some(0x02), [0x5f, 0x02, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    PersistentReserveOutClear = "PERSISTENT RESERVE OUT, CLEAR", Some(0x03), [0x5f, 0x03, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    PersistentReserveOutPreempt = "PERSISTENT RESERVE OUT, PREEMPT", Some(0x04), [0x5f, 0x04, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    PersistentReserveOutPreemptAndAbort = "PERSISTENT RESERVE OUT, PREEMPT AND ABORT", Some(0x05), [0x5f, 0x05, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    PersistentReserveOutRegisterAndIgnore = "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", Some(0x06), [0x5f, 0x06, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    PersistentReserveOutRegisterAndMove = "PERSISTENT RESERVE OUT, REGISTER AND MOVE", Some(0x07), [0x5f, 0x07, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    PersistentReserveOutReplaceLostReservation = "PERSISTENT RESERVE OUT, REPLACE LOST RESERVATION", Some(0x08), [0x5f, 0x08, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    ExtendedCopyLid1 = "EXTENDED COPY(LID1)", Some(0x00), [0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    ReceiveCopyStatusLid1 = "RECEIVE COPY STATUS(LID1)", Some(0x00), [0x84, 0x00, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    ReceiveCopyDataLid1 = "RECEIVE COPY DATA(LID1)", Some(0x01), [0x84, 0x01, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    ReceiveCopyOperatingParameters = "RECEIVE COPY OPERATING PARAMETERS", Some(0x03), [0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored [(2, 0xff)];
    ReceiveCopyFailureDetailsLid1 = "RECEIVE COPY FAILURE DETAILS(LID1)", Some(0x04), [0x84, 0x04, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    Read16 = "READ(16)", None, [0x88, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP16;
    CompareAndWrite = "COMPARE AND WRITE", None, [0x89, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, 0], ignored GROUP16;
    Write16 = "WRITE(16)", None, [0x8a, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP16;
    OrWrite16 = "ORWRITE(16)", None, [0x8b, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP16;
    WriteAndVerify16 = "WRITE AND VERIFY(16)", None, [0x8e, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP16;
    Verify16 = "VERIFY(16)", None, [0x8f, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP16;
    PreFetch16 = "PRE-FETCH(16)", None, [0x90, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP16;
    SynchronizeCache16 = "SYNCHRONIZE CACHE(16)", None, [0x91, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored [(1, 0x04), (14, 0x1f)];
    WriteSame16 = "WRITE SAME(16)", None, [0x93, 0x19, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP16;
    WriteAtomic16 = "WRITE ATOMIC(16)", None, [0x9c, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP16;
    ReadCapacity16 = "READ CAPACITY(16)", Some(0x10), [0x9e, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0];
    GetLbaStatus = "GET LBA STATUS", Some(0x12), [0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    ReportLuns = "REPORT LUNS", None, [0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    ReportTargetPortGroups = "REPORT TARGET PORT GROUPS", Some(0x0a), [0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    ReportSupportedOperationCodes = "REPORT SUPPORTED OPERATION CODES", Some(0x0c), [0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    ReportSupportedTaskManagementFunctions = "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", Some(0x0d), [0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    Read12 = "READ(12)", None, [0xa8, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP12;
    Write12 = "WRITE(12)", None, [0xaa, 0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP12;
    WriteAndVerify12 = "WRITE AND VERIFY(12)", None, [0xae, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP12;
    Verify12 = "VERIFY(12)", None, [0xaf, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], ignored GROUP12;
    ReadDefectData12 = "READ DEFECT DATA(12)", None, [0xb7, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
}

/// Rows of [`COMMANDS`] by operation code: the first row and the number of rows that follow it with the same code.
static BY_OPERATION_CODE: [(u8, u8); 256] = index();

const fn index() -> [(u8, u8); 256] {
    let mut table = [(0u8, 0u8); 256];
    let mut at = 0;
    while at < COMMANDS.len() {
        let code = COMMANDS[at].operation_code as usize;
        if table[code].1 == 0 {
            table[code].0 = at as u8;
        }
        table[code].1 += 1;
        at += 1;
    }
    table
}

/// The rows of an operation code, one per service action; empty for a code that is not supported.
pub fn commands_of(operation_code: u8) -> &'static [CommandDescriptor] {
    let (first, count) = BY_OPERATION_CODE[usize::from(operation_code)];
    let first = usize::from(first);
    COMMANDS
        .get(first..first + usize::from(count))
        .unwrap_or(&[])
}

impl CommandId {
    /// Names the command of a CDB from its operation code and service action alone, so that the access check can come
    /// before any check of other fields.
    ///
    /// # Errors
    /// [`CdbError::UnsupportedOperationCode`]; [`CdbError::InvalidField`] at the service action when only that is
    /// unknown; [`CdbError::TooShort`] when the CDB lacks those bytes.
    pub fn of(cdb: &[u8]) -> Result<CommandId, CdbError> {
        let operation_code = *cdb.first().ok_or(CdbError::TooShort { length_bytes: 0 })?;
        match commands_of(operation_code) {
            [] => Err(CdbError::UnsupportedOperationCode(operation_code)),
            [only] if only.service_action.is_none() => Ok(only.id),
            rows => {
                let code = cdb.get(1).ok_or(CdbError::TooShort { length_bytes: 1 })? & 0x1f;
                rows.iter()
                    .find(|row| row.service_action == Some(code))
                    .map(|row| row.id)
                    .ok_or(CdbError::InvalidField {
                        byte: 1,
                        bit: Some(4),
                    })
            }
        }
    }

    /// The row of [`COMMANDS`].
    pub fn descriptor(self) -> &'static CommandDescriptor {
        // The enum and the table are written by one macro in one order.
        &COMMANDS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdb::Cdb;

    /// A CDB of a command with everything else zero.
    fn blank(row: &CommandDescriptor) -> Vec<u8> {
        let mut cdb = vec![0; row.usage.len()];
        cdb[0] = row.operation_code;
        cdb[1] = row.service_action.unwrap_or(0);
        cdb
    }

    #[test]
    fn the_table_is_in_order_and_each_row_is_found_by_its_codes() {
        for (index, row) in COMMANDS.iter().enumerate() {
            assert_eq!(row.id as usize, index);
            assert_eq!(CommandId::of(&blank(row)), Ok(row.id), "{}", row.name);
            let length = [6, 10, 10, 0, 16, 12, 0, 0][usize::from(row.operation_code >> 5)];
            assert_eq!(
                row.usage.len(),
                length,
                "{}: the group code gives the length",
                row.name
            );
        }
        assert_eq!(commands_of(0xff).len(), 0);
        assert_eq!(commands_of(0x5f).len(), 9);
    }

    #[test]
    fn unknown_commands_are_told_apart() {
        assert_eq!(
            CommandId::of(&[]),
            Err(CdbError::TooShort { length_bytes: 0 })
        );
        assert_eq!(
            CommandId::of(&[0x5e]),
            Err(CdbError::TooShort { length_bytes: 1 })
        );
        assert_eq!(
            CommandId::of(&[0x04, 0]),
            Err(CdbError::UnsupportedOperationCode(0x04))
        );
        for code in 4..0x20 {
            assert_eq!(
                CommandId::of(&[0x5e, code]),
                Err(CdbError::InvalidField {
                    byte: 1,
                    bit: Some(4)
                })
            );
        }
    }

    #[test]
    fn a_bit_that_is_not_allowed_is_refused_in_its_byte() {
        for row in COMMANDS {
            let allowed = row.allowed.to_be_bytes();
            for byte in 1..row.usage.len() {
                for bit in (0..8).filter(|bit| allowed[byte] >> bit & 1 == 0) {
                    let mut cdb = blank(row);
                    cdb[byte] |= 1 << bit;
                    match Cdb::decode_as(row.id, &cdb) {
                        Err(CdbError::InvalidField {
                            byte: at,
                            bit: pointer,
                        }) => {
                            assert_eq!(usize::from(at), byte, "{}", row.name);
                            assert!(pointer.is_none_or(|pointer| pointer >= bit), "{}", row.name);
                        }
                        other => panic!("{}: byte {byte} bit {bit}: {other:?}", row.name),
                    }
                }
            }
        }
    }

    #[test]
    fn every_bit_of_the_usage_data_makes_a_difference() {
        for row in COMMANDS {
            let base = Cdb::decode_as(row.id, &blank(row));
            for byte in 1..row.usage.len() {
                let service_action = if byte == 1 && row.service_action.is_some() {
                    0x1f
                } else {
                    0
                };
                for bit in (0..8).filter(|bit| (row.usage[byte] & !service_action) >> bit & 1 != 0)
                {
                    let mut cdb = blank(row);
                    cdb[byte] |= 1 << bit;
                    let changed = Cdb::decode_as(row.id, &cdb);
                    assert!(
                        changed.is_err() || changed != base,
                        "{}: byte {byte} bit {bit}",
                        row.name
                    );
                }
            }
        }
    }

    #[test]
    fn every_prefix_of_a_cdb_is_too_short() {
        for row in COMMANDS {
            let cdb = blank(row);
            for length in 0..cdb.len() {
                let short = Cdb::decode_as(row.id, &cdb[..length]);
                assert_eq!(
                    short,
                    Err(CdbError::TooShort {
                        length_bytes: length
                    }),
                    "{}",
                    row.name
                );
            }
        }
    }
}
