//! What an initiator receives.

use bytes::{Buf, BytesMut};

use super::connection::{Connection, Phase, Request};
use super::event::{AsyncMessage, CloseReason, Completion, Event, Fatal, Residual};
use crate::frame::{FrameError, Step};
use crate::pdu::{self, BHS_BYTES, DataIn, opcode};
use crate::target::DiscoveredTarget;
use crate::text::{self, MAX_TEXT_BYTES};

impl From<FrameError> for Fatal {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::HeaderDigest => Self::Digest,
            FrameError::DataTooLong { .. } | FrameError::HeaderTooLong { .. } => Self::TooLong,
        }
    }
}

impl Connection {
    pub(super) fn take_apart(&mut self, mut input: &[u8]) -> Result<(), Fatal> {
        loop {
            match self.framer.step(&mut input)? {
                Step::NeedMore => return Ok(()),
                Step::Header => self.begin()?,
                Step::Data(part) => match self.data_in_task() {
                    Some(itt) => {
                        if let Some(task) = self.tasks.get_mut(&itt) {
                            task.data_in.extend_from_slice(part);
                        }
                    }
                    None => self.gather.extend_from_slice(part),
                },
                Step::End(false) => return Err(Fatal::Digest),
                Step::End(true) => self.finish()?,
            }
        }
    }

    /// The task of the Data-In that is coming in.
    fn data_in_task(&self) -> Option<u32> {
        let pdu = DataIn(*self.framer.header());
        (pdu.byte0() & 0x3f == opcode::DATA_IN).then(|| pdu.itt())
    }

    /// A header is complete.
    fn begin(&mut self) -> Result<(), Fatal> {
        self.gather = BytesMut::new();
        if let Some(itt) = self.data_in_task() {
            let pdu = DataIn(*self.framer.header());
            let Some(task) = self.tasks.get_mut(&itt) else {
                return Ok(()); // of a task that was given up
            };
            let length = self.framer.data_length();
            let offset = pdu.buffer_offset_bytes() as usize;
            if pdu.data_sn() != task.next_data_sn || offset != task.data_in.len() {
                return Err(Fatal::OutOfSequence);
            }
            let limit = task.data_in_limit as usize;
            if length > limit.saturating_sub(offset) {
                return Err(Fatal::OutOfBounds);
            }
            if offset == 0 {
                task.data_in.reserve(limit);
            }
            task.next_data_sn = task.next_data_sn.wrapping_add(1);
        }
        Ok(())
    }

    /// A PDU is complete.
    fn finish(&mut self) -> Result<(), Fatal> {
        let header = *self.framer.header();
        let data = std::mem::take(&mut self.gather);
        let opcode = header[0] & 0x3f;
        if opcode == opcode::LOGIN_RESPONSE {
            return self.login_response(&pdu::LoginResponse(header), &data);
        }
        if matches!(self.phase, Phase::Login(_) | Phase::Closed) {
            return Err(Fatal::Unexpected { opcode });
        }
        let window = pdu::NopIn(header);
        self.update_window(window.exp_cmd_sn(), window.max_cmd_sn());
        self.check_stat_sn(&header)?;
        match opcode {
            opcode::DATA_IN => self.data_in(&DataIn(header)),
            opcode::SCSI_RESPONSE => self.scsi_response(&pdu::ScsiResponse(header), data),
            opcode::READY_TO_TRANSFER => self.ready_to_transfer(&pdu::ReadyToTransfer(header))?,
            opcode::NOP_IN => self.nop_in(&pdu::NopIn(header), data),
            opcode::TASK_MANAGEMENT_RESPONSE => {
                let pdu = pdu::TaskManagementResponse(header);
                self.expect(pdu.itt(), Request::TaskManagement, opcode)?;
                self.events.push_back(Event::TaskManagement {
                    itt: pdu.itt(),
                    response: pdu.response(),
                });
            }
            opcode::TEXT_RESPONSE => self.text_response(&pdu::TextResponse(header), &data)?,
            opcode::LOGOUT_RESPONSE => {
                let pdu = pdu::LogoutResponse(header);
                self.expect(pdu.itt(), Request::Logout, opcode)?;
                self.close(CloseReason::LoggedOut {
                    response: pdu.response(),
                });
            }
            opcode::ASYNC_MESSAGE => {
                let pdu = pdu::AsyncMessage(header);
                self.events.push_back(Event::Async(AsyncMessage {
                    event: pdu.event(),
                    lun: pdu.lun(),
                    parameters: [pdu.parameter1(), pdu.parameter2(), pdu.parameter3()],
                    sense: without_length(data),
                }));
            }
            opcode::REJECT => self.events.push_back(Event::Rejected {
                reason: pdu::Reject(header).reason(),
                header: data,
            }),
            _ => return Err(Fatal::Unexpected { opcode }),
        }
        self.send_queued();
        Ok(())
    }

    /// StatSN must be the next (RFC 7143 4.2.2.2): at ErrorRecoveryLevel 0 a gap cannot be mended.
    fn check_stat_sn(&mut self, header: &[u8; BHS_BYTES]) -> Result<(), Fatal> {
        let pdu = pdu::NopIn(*header);
        let uses_stat_sn = match header[0] & 0x3f {
            opcode::DATA_IN if header[1] & DataIn::STATUS == 0 => return Ok(()),
            opcode::READY_TO_TRANSFER => false,
            opcode::NOP_IN => pdu.itt() != pdu::RESERVED_TAG,
            _ => true,
        };
        if pdu.stat_sn() != self.exp_stat_sn {
            return Err(Fatal::OutOfSequence);
        }
        if uses_stat_sn {
            self.exp_stat_sn = self.exp_stat_sn.wrapping_add(1);
        }
        Ok(())
    }

    fn expect(&mut self, itt: u32, request: Request, opcode: u8) -> Result<(), Fatal> {
        match self.requests.remove(&itt) {
            Some(found) if found == request => Ok(()),
            _ => Err(Fatal::Unexpected { opcode }),
        }
    }

    fn data_in(&mut self, pdu: &DataIn) {
        if !pdu.has_flag(DataIn::STATUS) {
            return;
        }
        if let Some(task) = self.tasks.remove(&pdu.itt()) {
            self.events.push_back(Event::Completed(Completion {
                itt: pdu.itt(),
                response: 0,
                status: pdu.status(),
                sense: BytesMut::new(),
                data_in: task.data_in,
                residual: residual(pdu.flags(), pdu.residual_bytes()),
            }));
        }
    }

    fn scsi_response(&mut self, pdu: &pdu::ScsiResponse, data: BytesMut) {
        if let Some(task) = self.tasks.remove(&pdu.itt()) {
            self.events.push_back(Event::Completed(Completion {
                itt: pdu.itt(),
                response: pdu.response(),
                status: pdu.status(),
                sense: without_length(data),
                data_in: task.data_in,
                residual: residual(pdu.flags(), pdu.residual_bytes()),
            }));
        }
    }

    fn ready_to_transfer(&mut self, r2t: &pdu::ReadyToTransfer) -> Result<(), Fatal> {
        let Some(task) = self.tasks.get_mut(&r2t.itt()) else {
            return Ok(()); // of a task that was given up
        };
        let from = r2t.buffer_offset_bytes();
        let length = r2t.desired_data_transfer_length_bytes();
        if r2t.r2t_sn() != task.next_r2t_sn {
            return Err(Fatal::OutOfSequence);
        }
        task.next_r2t_sn = task.next_r2t_sn.wrapping_add(1);
        let max_burst = self.parameters.max_burst_length_bytes;
        let to = from
            .checked_add(length)
            .filter(|to| *to as usize <= task.data_out.len())
            .filter(|_| length > 0 && length <= max_burst)
            .ok_or(Fatal::OutOfBounds)?;
        self.send_data_out(r2t.itt(), r2t.ttt(), from, to);
        Ok(())
    }

    fn nop_in(&mut self, nop: &pdu::NopIn, data: BytesMut) {
        if nop.itt() != pdu::RESERVED_TAG {
            if self.requests.remove(&nop.itt()) == Some(Request::Nop) {
                self.events.push_back(Event::Pong(data));
            }
        } else if nop.ttt() != pdu::RESERVED_TAG {
            // The target pings (RFC 7143 11.19).
            let mut header = pdu::NopOut::new()
                .set_byte0(pdu::NopOut::OPCODE | pdu::IMMEDIATE)
                .set_flags(pdu::FINAL)
                .set_lun(nop.lun())
                .set_itt(pdu::RESERVED_TAG)
                .set_ttt(nop.ttt())
                .0;
            self.stamp(&mut header);
            self.out.push_copied(header, &[]);
        }
    }

    fn text_response(&mut self, pdu: &pdu::TextResponse, data: &[u8]) -> Result<(), Fatal> {
        self.expect(pdu.itt(), Request::Text, opcode::TEXT_RESPONSE)?;
        if self.text.len() + data.len() > MAX_TEXT_BYTES {
            return Err(Fatal::BadText);
        }
        self.text.extend_from_slice(data);
        if !pdu.has_flag(pdu::FINAL) {
            self.send_text(pdu.itt(), pdu.ttt(), &[]);
            return Ok(());
        }
        let text = std::mem::take(&mut self.text);
        let pairs = text::parse(&text).map_err(|_| Fatal::BadText)?;
        let mut targets: Vec<DiscoveredTarget> = Vec::new();
        for (key, value) in pairs {
            match (key, targets.last_mut()) {
                ("TargetName", _) => targets.push(DiscoveredTarget {
                    name: value.to_owned(),
                    portals: Vec::new(),
                }),
                ("TargetAddress", Some(target)) => {
                    let (address, tag) = value.rsplit_once(',').ok_or(Fatal::BadText)?;
                    let tag = tag.parse().map_err(|_| Fatal::BadText)?;
                    target.portals.push((address.to_owned(), tag));
                }
                _ => {}
            }
        }
        self.events.push_back(Event::Targets(targets));
        Ok(())
    }
}

fn residual(flags: u8, bytes: u32) -> Residual {
    if flags & DataIn::OVERFLOW != 0 {
        Residual::Overflow(bytes)
    } else if flags & DataIn::UNDERFLOW != 0 {
        Residual::Underflow(bytes)
    } else {
        Residual::None
    }
}

/// Sense data without the two bytes of length in front (RFC 7143 11.4.7).
fn without_length(mut segment: BytesMut) -> BytesMut {
    if segment.len() >= 2 {
        let length = usize::from(segment.get_u16());
        segment.truncate(length);
    }
    segment
}
