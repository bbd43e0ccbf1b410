//! What is not SCSI: NOP, task management, logout, asynchronous messages, Reject.

use std::time::Instant;

use super::command::MAX_IMMEDIATE;
use super::connection::{Connection, Phase};
use super::event::{CloseReason, Event, LogoutReason, TaskFunction, TaskManagement};
use super::read::sense_segment;
use super::receive::Request;
use super::response::{AsyncEvent, TaskResponse, UnknownTask};
use crate::parameters::SessionType;
use crate::pdu::{self, BHS_BYTES, RejectReason};

/// Logout Response codes (RFC 7143 11.15.1).
mod logout_response {
    pub const CLOSED: u8 = 0;
    pub const CID_NOT_FOUND: u8 = 1;
    pub const RECOVERY_NOT_SUPPORTED: u8 = 2;
}

impl Connection {
    /// Rejects a PDU (RFC 7143 11.17); its header goes back with it.
    pub(super) fn reject(&mut self, reason: RejectReason, bad: &[u8; BHS_BYTES]) {
        let reject = pdu::Reject::new()
            .set_flags(pdu::FINAL)
            .set_reason(reason as u8)
            .set_itt(pdu::RESERVED_TAG);
        self.send_copied(reject.0, bad);
    }

    /// NOP-Out (RFC 7143 11.18): a ping is echoed; an answer to our own ping has done its work by having come.
    pub(super) fn nop_out(&mut self, request: &Request) {
        let nop = pdu::NopOut(request.header);
        if nop.itt() == pdu::RESERVED_TAG {
            return;
        }
        if nop.ttt() != pdu::RESERVED_TAG {
            // RFC 7143 11.18: a tag of ours is answered without expecting an answer.
            return self.reject(RejectReason::InvalidPduField, &request.header);
        }
        let limit = self.parameters.peer_max_recv_data_segment_length_bytes as usize;
        let echo = &request.data[..request.data.len().min(limit)];
        let answer = pdu::NopIn::new()
            .set_flags(pdu::FINAL)
            .set_lun(nop.lun())
            .set_itt(nop.itt())
            .set_ttt(pdu::RESERVED_TAG);
        self.send_copied(answer.0, echo);
    }

    /// Sends a NOP-In ping now (RFC 7143 11.19), unless one is outstanding.
    pub fn ping(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::FullFeature) || self.pinged.is_some() {
            return;
        }
        self.pinged = Some(now);
        let ttt = self.new_ttt();
        let ping = pdu::NopIn::new()
            .set_flags(pdu::FINAL)
            .set_itt(pdu::RESERVED_TAG)
            .set_ttt(ttt);
        let mut header = ping.0;
        // RFC 7143 11.19.1: StatSN is the next one and is not used up.
        self.stamp(&mut header, false);
        self.out.push_copied(header, &[]);
    }

    /// Task management (RFC 7143 11.5, RFC 7144).
    pub(super) fn task_management(&mut self, request: &Request) {
        let pdu = pdu::TaskManagementRequest(request.header);
        let itt = pdu.itt();
        if self.parameters.session_type == SessionType::Discovery {
            return self.reject(RejectReason::ProtocolError, &request.header);
        }
        if itt == pdu::RESERVED_TAG {
            return self.reject(RejectReason::InvalidPduField, &request.header);
        }
        if self.is_tag_in_use(itt) {
            return self.reject(RejectReason::TaskInProgress, &request.header);
        }
        if self.management.len() >= MAX_IMMEDIATE {
            return self.reject(RejectReason::ImmediateCommandReject, &request.header);
        }
        let function = match self.function(pdu.function()) {
            Ok(function) => function,
            Err(response) => return self.send_management_response(itt, response),
        };
        if function == TaskFunction::AbortTask
            && !self.tasks.contains_key(&pdu.referenced_task_tag())
            && self.plug_cmd_sn(pdu.ref_cmd_sn(), pdu.cmd_sn())
        {
            // RFC 7143 11.6.1: the command never came and now counts as received and aborted.
            return self.send_management_response(itt, TaskResponse::Complete);
        }
        self.management.push(itt);
        self.events.push_back(Event::TaskManagement(TaskManagement {
            itt,
            function,
            lun: pdu.lun(),
            referenced_itt: pdu.referenced_task_tag(),
            ref_cmd_sn: pdu.ref_cmd_sn(),
        }));
    }

    fn function(&self, number: u8) -> Result<TaskFunction, TaskResponse> {
        use TaskFunction::*;
        Ok(match number {
            1 => AbortTask,
            2 => AbortTaskSet,
            3 => ClearAca,
            4 => ClearTaskSet,
            5 => LogicalUnitReset,
            6 => TargetWarmReset,
            7 => TargetColdReset,
            // TASK REASSIGN: not at ErrorRecoveryLevel 0.
            8 => return Err(TaskResponse::ReassignmentNotSupported),
            // RFC 7144 4.1: only when iSCSIProtocolLevel 2 was agreed.
            9..=12 if self.parameters.protocol_level < 2 => return Err(TaskResponse::NotSupported),
            9 => QueryTask,
            10 => QueryTaskSet,
            11 => ITNexusReset,
            12 => QueryAsynchronousEvent,
            _ => return Err(TaskResponse::NotSupported),
        })
    }

    /// Answers [`Event::TaskManagement`].
    ///
    /// # Errors
    /// No such request is waiting.
    pub fn respond_task_management(
        &mut self,
        itt: u32,
        response: TaskResponse,
    ) -> Result<(), UnknownTask> {
        let index = self.management.iter().position(|waiting| *waiting == itt);
        self.management.swap_remove(index.ok_or(UnknownTask)?);
        self.send_management_response(itt, response);
        Ok(())
    }

    fn send_management_response(&mut self, itt: u32, response: TaskResponse) {
        let pdu = pdu::TaskManagementResponse::new()
            .set_flags(pdu::FINAL)
            .set_response(response.number())
            .set_itt(itt);
        self.send_copied(pdu.0, &[]);
    }

    /// Logout (RFC 7143 11.14).
    pub(super) fn logout(&mut self, request: &Request) {
        /// Any CID names this connection, the only one of its session, when the session is closed.
        const CLOSE_SESSION: u8 = 0;
        const CLOSE_CONNECTION: u8 = 1;
        const REMOVE_FOR_RECOVERY: u8 = 2;
        let pdu = pdu::LogoutRequest(request.header);
        let reason = match pdu.reason() {
            CLOSE_SESSION => LogoutReason::CloseSession,
            CLOSE_CONNECTION if pdu.cid() == self.cid => LogoutReason::CloseConnection,
            CLOSE_CONNECTION => {
                return self.send_logout_response(pdu.itt(), logout_response::CID_NOT_FOUND);
            }
            REMOVE_FOR_RECOVERY => {
                let response = logout_response::RECOVERY_NOT_SUPPORTED;
                return self.send_logout_response(pdu.itt(), response);
            }
            _ => return self.reject(RejectReason::InvalidPduField, &request.header),
        };
        self.phase = Phase::LoggingOut(pdu.itt());
        self.held.clear();
        self.held_bytes = 0;
        self.events.push_back(Event::Logout(reason));
    }

    /// Answers [`Event::Logout`], after the application has ended all tasks.
    pub fn respond_logout(&mut self) {
        if let Phase::LoggingOut(itt) = self.phase {
            self.send_logout_response(itt, logout_response::CLOSED);
            self.close(CloseReason::LoggedOut);
        }
    }

    fn send_logout_response(&mut self, itt: u32, response: u8) {
        let pdu = pdu::LogoutResponse::new()
            .set_flags(pdu::FINAL)
            .set_response(response)
            .set_itt(itt)
            .set_time2wait_s(self.parameters.time2wait_s);
        self.send_copied(pdu.0, &[]);
    }

    /// Sends an Asynchronous Message (RFC 7143 11.9); ignored before login and after logout.
    pub fn send_async_message(&mut self, event: AsyncEvent) {
        if !matches!(self.phase, Phase::FullFeature) {
            return;
        }
        let pdu = pdu::AsyncMessage::new()
            .set_flags(pdu::FINAL)
            .set_itt(pdu::RESERVED_TAG);
        let (pdu, sense) = match event {
            AsyncEvent::Scsi { lun, sense } => (pdu.set_lun(lun), sense_segment(&sense)),
            // RFC 7143 11.9.1: Parameter3 is the time in which to log out.
            AsyncEvent::LogoutRequest { timeout_s } => (
                pdu.set_event(1).set_parameter3(timeout_s),
                Default::default(),
            ),
            // Parameter1 is the CID.
            AsyncEvent::ConnectionDrop {
                time2wait_s,
                time2retain_s,
            } => (
                pdu.set_event(2)
                    .set_parameter1(self.cid)
                    .set_parameter2(time2wait_s)
                    .set_parameter3(time2retain_s),
                Default::default(),
            ),
            AsyncEvent::SessionDrop {
                time2wait_s,
                time2retain_s,
            } => (
                pdu.set_event(3)
                    .set_parameter2(time2wait_s)
                    .set_parameter3(time2retain_s),
                Default::default(),
            ),
        };
        self.send_copied(pdu.0, &sense);
    }
}

impl TaskResponse {
    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::TaskDoesNotExist => 1,
            Self::LunDoesNotExist => 2,
            Self::TaskStillAllegiant => 3,
            Self::ReassignmentNotSupported => 4,
            Self::NotSupported => 5,
            Self::AuthorizationFailed => 6,
            Self::Succeeded => 7,
            Self::Rejected => 255,
        }
    }
}

impl TaskFunction {
    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::AbortTask => 1,
            Self::AbortTaskSet => 2,
            Self::ClearAca => 3,
            Self::ClearTaskSet => 4,
            Self::LogicalUnitReset => 5,
            Self::TargetWarmReset => 6,
            Self::TargetColdReset => 7,
            Self::QueryTask => 9,
            Self::QueryTaskSet => 10,
            Self::ITNexusReset => 11,
            Self::QueryAsynchronousEvent => 12,
        }
    }
}
