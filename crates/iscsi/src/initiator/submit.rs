//! What an initiator sends in the full feature phase.

use bytes::{Bytes, BytesMut};

use super::connection::{Connection, Phase, Request, Task};
use super::event::{Command, Expected};
use crate::parameters::SessionType;
use crate::pdu::{self, AdditionalHeaders, DataOut, ScsiCommand};
use crate::sequence::before;
use crate::target::TaskFunction;

impl Connection {
    /// Queues a command and gives its tag; it goes out when the command window admits it. Nothing happens to it outside
    /// of a normal session's full feature phase, but the end of the connection.
    pub fn submit(&mut self, command: Command) -> u32 {
        let itt = self.new_itt();
        self.queued.push_back((itt, command));
        self.send_queued();
        itt
    }

    /// Sends what the command window admits.
    pub(super) fn send_queued(&mut self) {
        let ready = matches!(self.phase, Phase::FullFeature)
            && self.parameters.session_type == SessionType::Normal;
        while ready && !before(self.max_cmd_sn, self.cmd_sn) {
            let Some((itt, command)) = self.queued.pop_front() else {
                return;
            };
            self.send_command(itt, command);
        }
    }

    fn send_command(&mut self, itt: u32, command: Command) {
        let length = u32::try_from(command.data_out.len()).unwrap_or(u32::MAX);
        let expected = command.expected_override.unwrap_or(Expected {
            read: command.data_in_length_bytes > 0,
            write: length > 0,
            length_bytes: command.data_in_length_bytes.max(length),
        });
        let parameters = &self.parameters;
        let peer_segment = parameters.peer_max_recv_data_segment_length_bytes;
        let first_burst = parameters.first_burst_length_bytes.min(length);
        let immediate = match parameters.immediate_data {
            true => first_burst.min(peer_segment),
            false => 0,
        };
        let unsolicited = !parameters.initial_r2t && immediate < first_burst;
        let mut flags = command.attribute & ScsiCommand::ATTRIBUTE;
        for (set, flag) in [
            (expected.read, ScsiCommand::READ),
            (expected.write, ScsiCommand::WRITE),
            (!unsolicited, pdu::FINAL),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut cdb = [0; 16];
        let short = command.cdb.len().min(16);
        cdb[..short].copy_from_slice(&command.cdb[..short]);
        let mut additional = Vec::new();
        if command.cdb.len() > 16 {
            let mut specific = vec![0];
            specific.extend_from_slice(&command.cdb[16..]);
            AdditionalHeaders::append(&mut additional, pdu::EXTENDED_CDB, &specific);
        }
        let cmd_sn = self.cmd_sn;
        let mut header = ScsiCommand::new()
            .set_flags(flags)
            .set_lun(command.lun)
            .set_itt(itt)
            .set_expected_data_transfer_length_bytes(expected.length_bytes)
            .set_cdb(cdb)
            .0;
        self.stamp(&mut header);
        let data = command.data_out.slice(..immediate as usize);
        self.out.push(header, &additional, std::iter::once(data));
        self.tasks.insert(
            itt,
            Task {
                cmd_sn,
                lun: command.lun,
                data_out: command.data_out,
                data_in: BytesMut::new(),
                data_in_limit: command.data_in_length_bytes,
                next_data_sn: 0,
                next_r2t_sn: 0,
            },
        );
        if unsolicited {
            self.send_data_out(itt, pdu::RESERVED_TAG, immediate, first_burst);
        }
    }

    /// Sends one sequence of Data-Out, from offset `from` to `to`, which the task has.
    pub(super) fn send_data_out(&mut self, itt: u32, ttt: u32, from: u32, to: u32) {
        let segment = self.parameters.peer_max_recv_data_segment_length_bytes;
        let Some(task) = self.tasks.get(&itt) else {
            return;
        };
        let (lun, data): ([u8; 8], Bytes) = (task.lun, task.data_out.clone());
        let (mut offset, mut data_sn) = (from, 0u32);
        while offset < to {
            let end = to.min(offset.saturating_add(segment));
            let mut header = DataOut::new()
                .set_flags(if end == to { pdu::FINAL } else { 0 })
                .set_lun(lun)
                .set_itt(itt)
                .set_ttt(ttt)
                .set_exp_stat_sn(self.exp_stat_sn)
                .set_data_sn(data_sn)
                .set_buffer_offset_bytes(offset)
                .0;
            header[24..28].fill(0);
            let part = data.slice(offset as usize..end as usize);
            self.out.push(header, &[], std::iter::once(part));
            offset = end;
            data_sn += 1;
        }
    }

    /// Sends a task management function as an immediate request and gives its tag. `referenced_itt` is the task meant by
    /// ABORT TASK and QUERY TASK.
    pub fn task_management(
        &mut self,
        function: TaskFunction,
        lun: [u8; 8],
        referenced_itt: Option<u32>,
    ) -> u32 {
        let itt = self.new_itt();
        // RFC 7143 11.5.5: the CmdSN of the task meant, or this request's own.
        let task = referenced_itt.and_then(|itt| self.tasks.get(&itt));
        let ref_cmd_sn = task.map_or(self.cmd_sn, |task| task.cmd_sn);
        let request = pdu::TaskManagementRequest::new()
            .set_byte0(pdu::TaskManagementRequest::OPCODE | pdu::IMMEDIATE)
            .set_flags(pdu::FINAL | function.number())
            .set_lun(lun)
            .set_itt(itt)
            .set_referenced_task_tag(referenced_itt.unwrap_or(pdu::RESERVED_TAG))
            .set_ref_cmd_sn(ref_cmd_sn);
        self.send_request(request.0, itt, Request::TaskManagement, &[]);
        itt
    }

    /// Forgets a task that was aborted, for which no response will come.
    pub fn forget(&mut self, itt: u32) {
        self.tasks.remove(&itt);
    }

    /// Asks for targets: `All`, a name, or nothing for the session's own (RFC 7143 Appendix C).
    pub fn send_targets(&mut self, which: &str) {
        let mut text = Vec::new();
        crate::text::put(&mut text, "SendTargets", which);
        self.text.clear();
        let itt = self.new_itt();
        self.send_text(itt, pdu::RESERVED_TAG, &text);
    }

    pub(super) fn send_text(&mut self, itt: u32, ttt: u32, text: &[u8]) {
        let request = pdu::TextRequest::new()
            .set_byte0(pdu::TextRequest::OPCODE | pdu::IMMEDIATE)
            .set_flags(pdu::FINAL)
            .set_itt(itt)
            .set_ttt(ttt);
        self.send_request(request.0, itt, Request::Text, text);
    }

    /// Sends a NOP-Out with data to be echoed.
    pub fn ping_with(&mut self, data: &[u8]) {
        let itt = self.new_itt();
        let request = pdu::NopOut::new()
            .set_byte0(pdu::NopOut::OPCODE | pdu::IMMEDIATE)
            .set_flags(pdu::FINAL)
            .set_itt(itt)
            .set_ttt(pdu::RESERVED_TAG);
        self.send_request(request.0, itt, Request::Nop, data);
    }

    /// Asks to close the session; `Event::Closed` follows.
    pub fn logout(&mut self) {
        let itt = self.new_itt();
        let request = pdu::LogoutRequest::new()
            .set_byte0(pdu::LogoutRequest::OPCODE | pdu::IMMEDIATE)
            .set_flags(pdu::FINAL)
            .set_itt(itt);
        self.send_request(request.0, itt, Request::Logout, &[]);
        if matches!(self.phase, Phase::FullFeature) {
            self.phase = Phase::LoggingOut;
        }
    }

    fn send_request(&mut self, mut header: [u8; 48], itt: u32, request: Request, data: &[u8]) {
        if matches!(self.phase, Phase::FullFeature) {
            self.stamp(&mut header);
            self.requests.insert(itt, request);
            self.out.push_copied(header, data);
        }
    }
}
