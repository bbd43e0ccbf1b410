//! What a connection knows of a SCSI task, and the table of them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::BytesMut;

/// How far a task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The application has the command and has asked for no data.
    Delivered,
    /// Data is wanted; unsolicited data may still be coming.
    Accepted,
    /// Data is wanted and R2Ts wait for the budget.
    Waiting,
    /// R2Ts go out and data comes in.
    Gathering,
    /// The application has everything.
    Executing,
}

/// What went wrong with the data of a task; ends in CHECK CONDITION with sense key ABORTED COMMAND (RFC 7143 11.4.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataFault {
    /// 0Ch/0Ch: data came that may not come unsolicited.
    UnexpectedUnsolicitedData,
    /// 0Ch/0Dh: too much or too little.
    IncorrectAmountOfData,
    /// 47h/05h: a digest was wrong, or a PDU before this one is missing.
    ProtocolServiceCrcError,
    /// 0Eh/03h: INVALID FIELD IN COMMAND INFORMATION UNIT (bidirectional command).
    InvalidCommandInformationUnit,
    /// 55h/03h: INSUFFICIENT RESOURCES: more data than this target takes in one command.
    InsufficientResources,
}

impl DataFault {
    /// Fixed-format sense data.
    pub fn sense(self) -> [u8; 18] {
        const ILLEGAL_REQUEST: u8 = 0x05;
        const ABORTED_COMMAND: u8 = 0x0b;
        let (key, asc, ascq) = match self {
            Self::UnexpectedUnsolicitedData => (ABORTED_COMMAND, 0x0c, 0x0c),
            Self::IncorrectAmountOfData => (ABORTED_COMMAND, 0x0c, 0x0d),
            Self::ProtocolServiceCrcError => (ABORTED_COMMAND, 0x47, 0x05),
            Self::InvalidCommandInformationUnit => (ILLEGAL_REQUEST, 0x0e, 0x03),
            Self::InsufficientResources => (ILLEGAL_REQUEST, 0x55, 0x03),
        };
        let mut sense = [0; 18];
        (sense[0], sense[2], sense[7]) = (0x70, key, 10);
        (sense[12], sense[13]) = (asc, ascq);
        sense
    }
}

/// An R2T whose data has not all come.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutstandingR2t {
    pub ttt: u32,
    pub offset: u32,
    pub length: u32,
    pub received: u32,
    pub next_data_sn: u32,
}

/// A SCSI task between its command and its response.
#[derive(Debug)]
pub(super) struct Task {
    pub lun: [u8; 8],
    pub read: bool,
    pub write: bool,
    /// Expected Data Transfer Length.
    pub expected: u32,
    pub stage: Stage,
    /// What the application asked of `accept_write`.
    pub wanted: u64,
    /// The part of `wanted` that the initiator has.
    pub goal: u32,
    /// The data so far, in order.
    pub buffer: BytesMut,
    /// The bytes of data received, in order, some of which may not have been kept.
    pub received: u32,
    /// The next DataSN of the unsolicited sequence while it is open.
    pub unsolicited: Option<u32>,
    pub r2ts: VecDeque<OutstandingR2t>,
    /// Up to where data has been received or solicited.
    pub solicited: u32,
    pub next_r2t_sn: u32,
    pub fault: Option<DataFault>,
    /// What this task is charged for in the data budget, in bytes.
    pub charged: usize,
}

impl Task {
    /// True while a Data-Out sequence is incomplete.
    pub fn sequence_open(&self) -> bool {
        self.unsolicited.is_some() || !self.r2ts.is_empty()
    }
}

/// Tasks by Initiator Task Tag. The tags are the initiator's own, and at most a command window of them exists, so the
/// hash need not resist anybody.
pub(super) type TaskTable = HashMap<u32, Task, BuildHasherDefault<TagHasher>>;

/// Spreads 32-bit tags by multiplication.
#[derive(Debug, Default)]
pub(super) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, tag: u32) {
        let mixed = (self.0 ^ u64::from(tag)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}
