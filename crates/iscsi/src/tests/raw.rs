//! A target connection driven PDU by PDU, with every field in the test's hands.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use super::pair::{INITIATOR, ISID, TARGET};
use crate::frame::{Framer, Limits, Step};
use crate::output::Output;
use crate::pdu::{self, BHS_BYTES, IMMEDIATE, opcode};
use crate::target::{Config, Connection, Event, Fatal};

/// A PDU of the target.
#[derive(Clone, Debug)]
pub struct Pdu {
    pub header: [u8; BHS_BYTES],
    pub data: Vec<u8>,
}

impl Pdu {
    pub fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }
}

#[derive(Debug)]
pub struct Raw {
    pub target: Connection,
    pub now: Instant,
    framer: Framer,
    /// Encodes what is sent.
    pub output: Output,
}

impl Raw {
    pub fn new(config: Config) -> Self {
        let now = Instant::now();
        Self {
            target: Connection::new(Arc::new(config), [7; 32], now),
            now,
            framer: Framer::new(Limits {
                data_bytes: 0xff_ffff,
                ahs_bytes: 1020,
            }),
            output: Output::default(),
        }
    }

    /// Logged in with these operational keys, separated by spaces, and the events of it taken.
    pub fn logged_in(config: Config, keys: &str) -> Self {
        let mut raw = Self::new(config);
        let text = format!("InitiatorName={INITIATOR} TargetName={TARGET} {keys} ");
        let response = raw.login(0x87, text.replace(' ', "\0").as_bytes());
        assert_eq!(pdu::LoginResponse(response.header).status_class(), 0);
        assert_eq!(response.header[1], 0x87);
        assert!(matches!(
            raw.target.poll_event(),
            Some(Event::SessionEstablished(_))
        ));
        let parameters = raw.target.parameters().unwrap();
        (raw.framer.header_digest, raw.framer.data_digest) =
            (parameters.header_digest, parameters.data_digest);
        (raw.output.header_digest, raw.output.data_digest) =
            (parameters.header_digest, parameters.data_digest);
        raw
    }

    /// One login exchange; the login is accepted when the application is asked.
    pub fn login(&mut self, flags: u8, text: &[u8]) -> Pdu {
        let request = pdu::LoginRequest::new()
            .set_byte0(opcode::LOGIN_REQUEST | IMMEDIATE)
            .set_flags(flags)
            .set_isid(ISID)
            .set_cmd_sn(1);
        let _ = self.send(request.0, text);
        if let Some(event) = self.target.poll_event() {
            match event {
                Event::LoginRequest(_) => self.target.accept_login(NonZeroU16::MIN),
                Event::Closed(_) => {}
                other => panic!("{other:?}"),
            }
        }
        self.one()
    }

    pub fn send(&mut self, header: [u8; BHS_BYTES], data: &[u8]) -> Result<(), Fatal> {
        self.output.push_copied(header, data);
        let bytes = self.taken();
        self.target.receive(&bytes, self.now)
    }

    /// The bytes of what was pushed into `output`.
    pub fn taken(&mut self) -> Vec<u8> {
        let mut chunks = VecDeque::new();
        while self.output.poll(&mut chunks, usize::MAX) > 0 {}
        chunks.iter().flatten().copied().collect()
    }

    /// Everything the target has sent.
    pub fn all(&mut self) -> Vec<Pdu> {
        let mut chunks = VecDeque::new();
        while self.target.poll_transmit(&mut chunks, usize::MAX) > 0 {}
        let bytes: Vec<u8> = chunks.iter().flatten().copied().collect();
        let mut input = &bytes[..];
        let (mut pdus, mut data) = (Vec::new(), Vec::new());
        loop {
            match self.framer.step(&mut input).unwrap() {
                Step::NeedMore => return pdus,
                Step::Header => data.clear(),
                Step::Data(part) => data.extend_from_slice(part),
                Step::End(good) => {
                    assert!(good, "the target's digests are right");
                    let header = *self.framer.header();
                    pdus.push(Pdu {
                        header,
                        data: data.clone(),
                    });
                }
            }
        }
    }

    /// The only PDU the target has sent.
    pub fn one(&mut self) -> Pdu {
        let mut all = self.all();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// The next event, which must be a command.
    pub fn command(&mut self) -> crate::target::Command {
        match self.target.poll_event() {
            Some(Event::Command(command)) => command,
            other => panic!("{other:?}"),
        }
    }

    /// The next event, which must be the data of a command.
    pub fn data(&mut self) -> BytesMut {
        match self.target.poll_event() {
            Some(Event::CommandData { data, .. }) => data,
            other => panic!("{other:?}"),
        }
    }
}

/// A WRITE command: non-immediate, F bit as given.
pub fn write(itt: u32, cmd_sn: u32, length: u32, last: bool) -> pdu::ScsiCommand {
    pdu::ScsiCommand::new()
        .set_flags(pdu::ScsiCommand::WRITE | if last { pdu::FINAL } else { 0 })
        .set_itt(itt)
        .set_cmd_sn(cmd_sn)
        .set_expected_data_transfer_length_bytes(length)
}

/// A command without data.
pub fn no_data(itt: u32, cmd_sn: u32) -> pdu::ScsiCommand {
    pdu::ScsiCommand::new()
        .set_flags(pdu::FINAL)
        .set_itt(itt)
        .set_cmd_sn(cmd_sn)
}

/// A Data-Out.
pub fn data_out(itt: u32, ttt: u32, data_sn: u32, offset: u32, last: bool) -> pdu::DataOut {
    pdu::DataOut::new()
        .set_flags(if last { pdu::FINAL } else { 0 })
        .set_itt(itt)
        .set_ttt(ttt)
        .set_data_sn(data_sn)
        .set_buffer_offset_bytes(offset)
}

/// The reason of a Reject.
pub fn rejected(pdu: &Pdu) -> u8 {
    assert_eq!(pdu.opcode(), opcode::REJECT, "{pdu:?}");
    assert_eq!(pdu.data.len(), 48, "the bad header comes back");
    pdu::Reject(pdu.header).reason()
}

/// Sense key, ASC and ASCQ of a CHECK CONDITION.
pub fn sense(pdu: &Pdu) -> (u8, u8, u8) {
    assert_eq!(pdu.opcode(), opcode::SCSI_RESPONSE, "{pdu:?}");
    assert_eq!(pdu::ScsiResponse(pdu.header).status(), 2);
    let sense = &pdu.data[2..];
    (sense[2], sense[12], sense[13])
}
