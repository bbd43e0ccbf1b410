//! Data to the target: unsolicited and solicited Data-Out, R2T, and the budget (RFC 7143 11.7, 11.8).
//!
//! Data of a task is taken strictly in order (DataPDUInOrder, DataSequenceInOrder and RFC 7143 11.8: R2Ts are fulfilled
//! in the order in which they were sent), so a buffer only ever grows at its end. What comes out of order marks the
//! task as faulty; it is then ended when all sequences that are under way have come to their end (RFC 7143 7.9).

use super::connection::Connection;
use super::event::Event;
use super::receive::Incoming;
use super::response::{ScsiResponse, UnknownTask};
use super::task::{DataFault, OutstandingR2t, Stage, Task};
use crate::buffer::{append_aligned, reserve_aligned};
use crate::pdu::{self, DataOut, RejectReason};

impl Connection {
    /// Asks for the data of a command: the first `wanted_bytes` of it, or all if there is less. R2Ts are sent as the
    /// budget permits; [`Event::CommandData`] follows when all data is here (at once for immediate data), or
    /// [`Event::TaskFailed`].
    ///
    /// # Errors
    /// The task is gone or was accepted before.
    pub fn accept_write(&mut self, itt: u32, wanted_bytes: u64) -> Result<(), UnknownTask> {
        let task = self.tasks.get_mut(&itt).ok_or(UnknownTask)?;
        if task.stage != Stage::Delivered {
            return Err(UnknownTask);
        }
        task.stage = Stage::Accepted;
        task.wanted = wanted_bytes;
        // A command that has no data although its CDB wants some is given none: residual overflow.
        let available = if task.write { task.expected } else { 0 };
        task.goal = u32::try_from(wanted_bytes).map_or(available, |n| n.min(available));
        if task.goal > self.config.max_write_bytes {
            task.fault.get_or_insert(DataFault::InsufficientResources);
        }
        self.advance_write(itt);
        Ok(())
    }

    /// The header of a Data-Out is here: checks that its data is the next of its task.
    pub(super) fn begin_data_out(&mut self, pdu: DataOut, length: usize) -> Incoming {
        let first_burst = self.parameters.first_burst_length_bytes;
        let itt = pdu.itt();
        let Some(task) = self.tasks.get_mut(&itt) else {
            // Aborted or answered early: the rest of its data is swallowed (RFC 7143 4.2.3, 11.5).
            return Incoming::Discard;
        };
        if task.stage == Stage::Executing {
            return Incoming::Discard;
        }
        // The data segment was limited to 24 bits.
        let length = length as u32;
        let (next_data_sn, limit) = if pdu.ttt() == pdu::RESERVED_TAG {
            let Some(next_data_sn) = task.unsolicited else {
                task.fault
                    .get_or_insert(DataFault::UnexpectedUnsolicitedData);
                return Incoming::DataOut { itt, store: false };
            };
            (next_data_sn, first_burst.min(task.expected))
        } else {
            let Some(index) = task.r2ts.iter().position(|r2t| r2t.ttt == pdu.ttt()) else {
                self.reject(RejectReason::InvalidPduField, &pdu.0);
                return Incoming::Discard;
            };
            let r2t = task.r2ts[index];
            if index != 0 {
                task.fault.get_or_insert(DataFault::ProtocolServiceCrcError);
            }
            (r2t.next_data_sn, r2t.offset + r2t.length)
        };
        if pdu.data_sn() != next_data_sn || pdu.buffer_offset_bytes() != task.received {
            task.fault.get_or_insert(DataFault::ProtocolServiceCrcError);
        } else if length > limit.saturating_sub(task.received) {
            task.fault.get_or_insert(DataFault::IncorrectAmountOfData);
        }
        Incoming::DataOut {
            itt,
            store: task.fault.is_none(),
        }
    }

    /// Appends data that [`begin_data_out`](Self::begin_data_out) has let through.
    pub(super) fn store_data_out(&mut self, itt: u32, part: &[u8]) {
        let first_burst = self.parameters.first_burst_length_bytes;
        let Some(task) = self.tasks.get_mut(&itt) else {
            return;
        };
        if task.buffer.capacity() - task.buffer.len() >= part.len() {
            task.buffer.extend_from_slice(part);
            return;
        }
        // Only unsolicited data outgrows its buffer: there was no R2T to make room for.
        let hint = first_burst.min(task.expected) as usize;
        append_aligned(&mut task.buffer, part, hint);
        self.charge(itt);
    }

    /// A Data-Out is complete.
    pub(super) fn finish_data_out(&mut self, itt: u32, stored: bool, digest_good: bool) {
        let pdu = DataOut(*self.framer.header());
        if !digest_good {
            self.reject(RejectReason::DataDigestError, &pdu.0);
        }
        let Some(task) = self.tasks.get_mut(&itt) else {
            return;
        };
        if !digest_good {
            task.fault.get_or_insert(DataFault::ProtocolServiceCrcError);
        }
        let length = self.framer.data_length() as u32;
        if stored {
            task.received += length;
        }
        let last = pdu.has_flag(pdu::FINAL);
        if pdu.ttt() == pdu::RESERVED_TAG {
            task.solicited = task.received;
            task.unsolicited = task
                .unsolicited
                .filter(|_| !last)
                .map(|sn| sn.wrapping_add(1));
        } else if let Some(index) = task.r2ts.iter().position(|r2t| r2t.ttt == pdu.ttt()) {
            let r2t = &mut task.r2ts[index];
            r2t.next_data_sn = r2t.next_data_sn.wrapping_add(1);
            if stored {
                r2t.received += length;
            }
            let complete = r2t.received == r2t.length;
            if last && !complete {
                task.fault.get_or_insert(DataFault::IncorrectAmountOfData);
            }
            if last || complete {
                task.r2ts.remove(index);
            }
        }
        self.advance_write(itt);
    }

    /// Does what is due for a task with data: deliver it, end it as faulty, or ask for more.
    fn advance_write(&mut self, itt: u32) {
        let Some(task) = self.tasks.get_mut(&itt) else {
            return;
        };
        if let Some(fault) = task.fault {
            // Before it is accepted, the application's own answer goes first.
            if task.stage != Stage::Delivered && !task.sequence_open() {
                self.events.push_back(Event::TaskFailed { itt });
                self.fail(itt, fault);
            }
            return;
        }
        match task.stage {
            Stage::Delivered | Stage::Waiting | Stage::Executing => {}
            Stage::Accepted | Stage::Gathering if task.unsolicited.is_some() => {}
            Stage::Accepted | Stage::Gathering if task.received >= task.goal => self.deliver(itt),
            Stage::Accepted => {
                task.stage = Stage::Waiting;
                self.waiting.push_back(itt);
                self.grant_budget();
            }
            Stage::Gathering => self.send_r2ts(itt),
        }
    }

    /// Hands the data of a task to the application.
    fn deliver(&mut self, itt: u32) {
        if let Some(task) = self.tasks.get_mut(&itt) {
            task.stage = Stage::Executing;
            let mut data = std::mem::take(&mut task.buffer);
            data.truncate(task.goal as usize);
            self.events.push_back(Event::CommandData { itt, data });
        }
    }

    /// Lets waiting tasks have their buffers, in order, while the budget lasts. When nothing that holds buffers can
    /// end by itself, the first goes ahead whatever it needs.
    pub(super) fn grant_budget(&mut self) {
        while let Some(&itt) = self.waiting.front() {
            let Some(task) = self
                .tasks
                .get(&itt)
                .filter(|task| task.stage == Stage::Waiting)
            else {
                self.waiting.pop_front();
                continue;
            };
            let more = (task.goal as usize).saturating_sub(task.charged);
            let fits = self.charged + more <= self.config.data_budget_bytes;
            if !fits && self.tasks.values().any(makes_progress) {
                return;
            }
            self.waiting.pop_front();
            if let Some(task) = self.tasks.get_mut(&itt) {
                task.stage = Stage::Gathering;
                reserve_aligned(&mut task.buffer, task.goal as usize);
            }
            self.charge(itt);
            self.send_r2ts(itt);
        }
    }

    /// Asks for the next data, as many bursts at a time as were agreed (RFC 7143 13.17).
    fn send_r2ts(&mut self, itt: u32) {
        let max_outstanding = usize::from(self.parameters.max_outstanding_r2t);
        let max_burst = self.parameters.max_burst_length_bytes;
        loop {
            let ttt = self.next_ttt;
            let Some(task) = self.tasks.get_mut(&itt) else {
                return;
            };
            if task.r2ts.len() >= max_outstanding || task.solicited >= task.goal {
                return;
            }
            let length = max_burst.min(task.goal - task.solicited);
            let r2t = pdu::ReadyToTransfer::new()
                .set_flags(pdu::FINAL)
                .set_lun(task.lun)
                .set_itt(itt)
                .set_ttt(ttt)
                .set_r2t_sn(task.next_r2t_sn)
                .set_buffer_offset_bytes(task.solicited)
                .set_desired_data_transfer_length_bytes(length);
            task.r2ts.push_back(OutstandingR2t {
                ttt,
                offset: task.solicited,
                length,
                received: 0,
                next_data_sn: 0,
            });
            task.solicited += length;
            task.next_r2t_sn = task.next_r2t_sn.wrapping_add(1);
            self.new_ttt();
            let mut header = r2t.0;
            self.stamp(&mut header, false);
            self.out.push_copied(header, &[]);
        }
    }

    /// Brings the budget up to date with the buffer of a task.
    fn charge(&mut self, itt: u32) {
        if let Some(task) = self.tasks.get_mut(&itt) {
            let capacity = task.buffer.capacity();
            self.charged = self.charged - task.charged + capacity;
            task.charged = capacity;
        }
    }

    /// Ends a task with CHECK CONDITION because of its data.
    pub(super) fn fail(&mut self, itt: u32, fault: DataFault) {
        let response = ScsiResponse::check_condition(fault.sense().to_vec());
        // The caller has just seen the task.
        let _ = self.respond(itt, response);
    }
}

/// True for tasks that end without needing more of the budget.
fn makes_progress(task: &Task) -> bool {
    matches!(task.stage, Stage::Gathering | Stage::Executing)
}
