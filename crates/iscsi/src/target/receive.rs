//! Takes the stream apart, puts requests in CmdSN order, and hands them to whom they concern.

use bytes::BytesMut;

use super::connection::{Connection, Phase};
use super::event::Fatal;
use super::response::LoginStatus;
use crate::buffer::aligned_buffer;
use crate::frame::{FrameError, Step};
use crate::pdu::{self, BHS_BYTES, RejectReason, opcode};
use crate::sequence::{before, in_window};

/// A whole request.
#[derive(Debug)]
pub(super) struct Request {
    pub header: [u8; BHS_BYTES],
    /// Additional header segments; empty mostly.
    pub additional: Vec<u8>,
    pub data: BytesMut,
}

impl Request {
    pub fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    /// CmdSN, at the same place in all requests that have one.
    pub fn cmd_sn(&self) -> u32 {
        pdu::NopOut(self.header).cmd_sn()
    }

    pub fn is_immediate(&self) -> bool {
        self.header[0] & pdu::IMMEDIATE != 0
    }
}

/// What becomes of the data segment that is coming in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Thrown away, with its PDU.
    Discard,
    /// Gathered, until the request is whole.
    Gather(BytesMut),
    /// Data-Out for a task: kept when `store`, otherwise only its end counts.
    DataOut { itt: u32, store: bool },
}

impl From<FrameError> for Fatal {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::HeaderDigest => Self::HeaderDigest,
            FrameError::DataTooLong { length, limit } => Self::DataSegmentTooLong {
                length_bytes: length,
                limit_bytes: limit,
            },
            FrameError::HeaderTooLong { length, limit } => Self::HeaderTooLong {
                length_bytes: length,
                limit_bytes: limit,
            },
        }
    }
}

impl Connection {
    pub(super) fn take_apart(&mut self, mut input: &[u8]) -> Result<(), Fatal> {
        loop {
            match self.framer.step(&mut input)? {
                Step::NeedMore => return Ok(()),
                Step::Header => self.incoming = self.begin()?,
                Step::Data(part) => self.take_data(part),
                Step::End(digest_good) => self.finish(digest_good)?,
            }
        }
    }

    /// A header is complete: decides where its data goes.
    fn begin(&mut self) -> Result<Incoming, Fatal> {
        let header = self.framer.header();
        let length = self.framer.data_length();
        let opcode = header[0] & 0x3f;
        match &self.phase {
            Phase::Login(_) if opcode == opcode::LOGIN_REQUEST => {
                Ok(Incoming::Gather(BytesMut::with_capacity(length)))
            }
            Phase::Login(_) | Phase::Deciding(..) => self.not_a_login(),
            Phase::FullFeature => match opcode {
                opcode::DATA_OUT => Ok(self.begin_data_out(pdu::DataOut(*header), length)),
                opcode::SCSI_COMMAND => Ok(self.begin_command(pdu::ScsiCommand(*header), length)),
                _ => Ok(Incoming::Gather(BytesMut::with_capacity(length))),
            },
            Phase::LoggingOut(_) | Phase::Closed => Ok(Incoming::Discard),
        }
    }

    /// Something other than a Login Request in the login phase: answered once a login has begun (RFC 7143 11.13.5,
    /// 020Bh), otherwise the peer does not speak iSCSI.
    fn not_a_login(&mut self) -> Result<Incoming, Fatal> {
        let header = *self.framer.header();
        if self.begun && header[0] & 0x3f != opcode::LOGIN_REQUEST {
            let response = pdu::LoginResponse::new()
                .set_itt(pdu::NopOut(header).itt())
                .set_status_class(LoginStatus::INVALID_DURING_LOGIN.class)
                .set_status_detail(LoginStatus::INVALID_DURING_LOGIN.detail);
            self.send_copied(response.0, &[]);
        }
        Err(Fatal::NotLoggedIn)
    }

    /// Where the immediate data of a command is gathered: a buffer that also has room for the rest when there is more
    /// to come and the budget permits.
    fn begin_command(&self, command: pdu::ScsiCommand, length: usize) -> Incoming {
        if !command.is_immediate() && !self.is_in_window(command.cmd_sn()) {
            return Incoming::Discard;
        }
        if length == 0 {
            return Incoming::Gather(BytesMut::new());
        }
        let expected = command.expected_data_transfer_length_bytes();
        let room = self.config.data_budget_bytes.saturating_sub(self.charged);
        let whole = expected as usize;
        let capacity = if whole <= room && expected <= self.config.max_write_bytes {
            length.max(whole)
        } else {
            length
        };
        Incoming::Gather(aligned_buffer(capacity))
    }

    fn take_data(&mut self, part: &[u8]) {
        match &mut self.incoming {
            Incoming::Discard => {}
            Incoming::Gather(buffer) => buffer.extend_from_slice(part),
            Incoming::DataOut { itt, store: true } => {
                let itt = *itt;
                self.store_data_out(itt, part);
            }
            Incoming::DataOut { store: false, .. } => {}
        }
    }

    /// A PDU is complete.
    fn finish(&mut self, digest_good: bool) -> Result<(), Fatal> {
        match std::mem::replace(&mut self.incoming, Incoming::Discard) {
            Incoming::Discard => Ok(()),
            Incoming::DataOut { itt, store } => {
                self.finish_data_out(itt, store, digest_good);
                Ok(())
            }
            Incoming::Gather(data) => {
                let request = Request {
                    header: *self.framer.header(),
                    additional: self.framer.additional().to_vec(),
                    data,
                };
                if matches!(self.phase, Phase::Login(_)) {
                    return self.login(request);
                }
                if !digest_good {
                    // RFC 7143 7.8: rejected and discarded; its CmdSN counts as not received (11.17.1).
                    self.reject(RejectReason::DataDigestError, &request.header);
                    return Ok(());
                }
                self.order(request)
            }
        }
    }

    fn is_in_window(&self, cmd_sn: u32) -> bool {
        in_window(cmd_sn, self.numbers.exp_cmd_sn, self.numbers.max_cmd_sn)
    }

    /// Delivers requests in CmdSN order (RFC 7143 4.2.2.1). Immediate requests are delivered at once.
    fn order(&mut self, request: Request) -> Result<(), Fatal> {
        if request.opcode() == opcode::SNACK || request.is_immediate() {
            self.execute(request);
            return Ok(());
        }
        if !has_cmd_sn(request.opcode()) {
            // Responses and unknown operation codes: no CmdSN is known to be there.
            self.execute(request);
            return Ok(());
        }
        let cmd_sn = request.cmd_sn();
        if !self.is_in_window(cmd_sn) {
            return Ok(()); // RFC 7143 4.2.2.1: silently ignored
        }
        if cmd_sn != self.numbers.exp_cmd_sn {
            self.held_bytes += request.data.capacity() + request.additional.len();
            if self.held_bytes > self.config.data_budget_bytes {
                return Err(Fatal::LimitExceeded);
            }
            self.held.entry(cmd_sn).or_insert(request);
            return Ok(());
        }
        self.advance_cmd_sn();
        self.execute(request);
        self.release_held();
        Ok(())
    }

    fn advance_cmd_sn(&mut self) {
        self.numbers.exp_cmd_sn = self.numbers.exp_cmd_sn.wrapping_add(1);
    }

    /// Delivers what had to wait and need not any more.
    fn release_held(&mut self) {
        while let Some(request) = self.held.remove(&self.numbers.exp_cmd_sn) {
            self.held_bytes -= request.data.capacity() + request.additional.len();
            self.advance_cmd_sn();
            self.execute(request);
        }
    }

    /// Counts a CmdSN before `own` as received although its command never came (RFC 7143 11.6.1: ABORT TASK for a
    /// command that was lost). False when it is not missing.
    pub(super) fn plug_cmd_sn(&mut self, missing: u32, own: u32) -> bool {
        if !self.is_in_window(missing) || !before(missing, own) || self.held.contains_key(&missing)
        {
            return false;
        }
        if missing == self.numbers.exp_cmd_sn {
            self.advance_cmd_sn();
            self.release_held();
        } else {
            // A NOP-Out that asks for nothing takes its place.
            let header = pdu::NopOut::new()
                .set_itt(pdu::RESERVED_TAG)
                .set_ttt(pdu::RESERVED_TAG)
                .0;
            let (additional, data) = (Vec::new(), BytesMut::new());
            self.held.insert(
                missing,
                Request {
                    header,
                    additional,
                    data,
                },
            );
        }
        true
    }

    fn execute(&mut self, request: Request) {
        if !matches!(self.phase, Phase::FullFeature) {
            return;
        }
        match request.opcode() {
            opcode::SCSI_COMMAND => self.command(request),
            opcode::NOP_OUT => self.nop_out(&request),
            opcode::TASK_MANAGEMENT_REQUEST => self.task_management(&request),
            opcode::TEXT_REQUEST => self.text_request(&request),
            opcode::LOGOUT_REQUEST => self.logout(&request),
            opcode::SNACK => self.reject(RejectReason::SnackReject, &request.header),
            opcode::LOGIN_REQUEST => self.reject(RejectReason::ProtocolError, &request.header),
            _ => self.reject(RejectReason::CommandNotSupported, &request.header),
        }
    }
}

/// True for the requests that carry a CmdSN.
fn has_cmd_sn(opcode: u8) -> bool {
    matches!(
        opcode,
        opcode::NOP_OUT
            | opcode::SCSI_COMMAND
            | opcode::TASK_MANAGEMENT_REQUEST
            | opcode::TEXT_REQUEST
            | opcode::LOGOUT_REQUEST
    )
}
