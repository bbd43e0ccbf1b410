//! SCSI commands begin tasks (RFC 7143 11.3).

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::connection::Connection;
use super::event::{Command, Event, TaskAttribute};
use super::receive::Request;
use super::task::{DataFault, Stage, Task};
use crate::parameters::SessionType;
use crate::pdu::{self, AdditionalHeaders, RejectReason, ScsiCommand};

/// Requests that an initiator may have outstanding beyond the command window, by sending them as immediate.
pub(super) const MAX_IMMEDIATE: usize = 16;

impl Connection {
    /// Takes a command in its turn.
    pub(super) fn command(&mut self, request: Request) {
        let command = ScsiCommand(request.header);
        if self.parameters.session_type == SessionType::Discovery {
            return self.reject(RejectReason::ProtocolError, &request.header);
        }
        if command.itt() == pdu::RESERVED_TAG {
            return self.reject(RejectReason::InvalidPduField, &request.header);
        }
        if self.is_tag_in_use(command.itt()) {
            return self.reject(RejectReason::TaskInProgress, &request.header);
        }
        let window = self.config.command_window as usize;
        if command.is_immediate() && self.tasks.len() >= window + MAX_IMMEDIATE {
            return self.reject(RejectReason::ImmediateCommandReject, &request.header);
        }
        let Some(cdb) = whole_cdb(&command, &request.additional) else {
            return self.reject(RejectReason::InvalidPduField, &request.header);
        };
        let read = command.has_flag(ScsiCommand::READ);
        let write = command.has_flag(ScsiCommand::WRITE);
        let expected = if read || write {
            command.expected_data_transfer_length_bytes()
        } else {
            0
        };
        let mut task = Task {
            lun: command.lun(),
            read,
            write,
            expected,
            stage: Stage::Delivered,
            wanted: 0,
            goal: 0,
            received: 0,
            unsolicited: None,
            r2ts: VecDeque::new(),
            solicited: 0,
            next_r2t_sn: 0,
            fault: None,
            charged: request.data.capacity(),
            buffer: request.data,
        };
        let fault = if read && write {
            Some(DataFault::InvalidCommandInformationUnit)
        } else {
            self.unsolicited_fault(&command, &mut task)
        };
        self.charged += task.charged;
        self.tasks.insert(command.itt(), task);
        if let Some(fault) = fault {
            return self.fail(command.itt(), fault);
        }
        self.events.push_back(Event::Command(Command {
            itt: command.itt(),
            lun: command.lun(),
            attribute: attribute(command.flags()),
            cdb,
            cmd_sn: command.cmd_sn(),
            immediate: command.is_immediate(),
            read,
            write,
            expected_data_length_bytes: expected,
        }));
    }

    /// Checks the immediate data of a command and what it announces (RFC 7143 4.2.5.2, 11.3.4), and opens the unsolicited
    /// sequence if there is one.
    fn unsolicited_fault(&self, command: &ScsiCommand, task: &mut Task) -> Option<DataFault> {
        // The data segment was limited to 24 bits.
        let immediate = task.buffer.len() as u32;
        let limit = self.parameters.first_burst_length_bytes.min(task.expected);
        if immediate > 0 {
            if !task.write || !self.parameters.immediate_data {
                return Some(DataFault::UnexpectedUnsolicitedData);
            }
            if immediate > limit {
                return Some(DataFault::IncorrectAmountOfData);
            }
        }
        task.received = immediate;
        task.solicited = immediate;
        if task.write && !command.has_flag(pdu::FINAL) {
            if self.parameters.initial_r2t {
                return Some(DataFault::UnexpectedUnsolicitedData);
            }
            if immediate < limit {
                task.unsolicited = Some(0);
            }
        }
        None
    }

    /// True while a task or a task management request has this tag.
    pub(super) fn is_tag_in_use(&self, itt: u32) -> bool {
        self.tasks.contains_key(&itt) || self.management.contains(&itt)
    }
}

/// The CDB with its extension (RFC 7143 11.2.2.3); `None` when an additional header segment is malformed.
fn whole_cdb(command: &ScsiCommand, additional: &[u8]) -> Option<SmallVec<[u8; 16]>> {
    let mut cdb = SmallVec::from_buf(command.cdb());
    for segment in AdditionalHeaders::new(additional) {
        let segment = segment.ok()?;
        if segment.kind == pdu::EXTENDED_CDB {
            if cdb.len() > 16 {
                return None; // at most one
            }
            // The first of the specific bytes is reserved.
            cdb.extend_from_slice(segment.specific.get(1..)?);
        }
    }
    Some(cdb)
}

fn attribute(flags: u8) -> TaskAttribute {
    match flags & ScsiCommand::ATTRIBUTE {
        0 => TaskAttribute::Untagged,
        1 => TaskAttribute::Simple,
        2 => TaskAttribute::Ordered,
        3 => TaskAttribute::HeadOfQueue,
        4 => TaskAttribute::Aca,
        reserved => TaskAttribute::Reserved(reserved),
    }
}
