//! One session of the load generator: a blocking socket, one read and one write a batch, nothing allocated while it
//! runs, so that the client takes as little of the shared processors as a client can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, bail, ensure};

use crate::e2e::wire::{self, Identity, Pdu, lun_bytes, opcode};
use crate::random::Random;

const HEADER_BYTES: usize = 48;
const RECEIVE_BYTES: usize = 1 << 20;
/// Writes up to this length go as immediate data: within the FirstBurstLength that the login offers, and the least
/// MaxRecvDataSegmentLength that targets in use declare.
const IMMEDIATE_BYTES: u32 = 8192;
const BLOCK_BYTES: u64 = 512;

/// What a session does.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// Writes instead of reads.
    pub write: bool,
    /// Length of each command, in bytes.
    pub length_bytes: u32,
    /// Random addresses instead of ascending ones.
    pub random: bool,
    /// Commands outstanding.
    pub depth: u32,
    /// The part of the volume that is used, from its start, in bytes.
    pub span_bytes: u64,
}

/// A session in full feature phase.
#[derive(Debug)]
pub struct Session {
    pub stream: TcpStream,
    pattern: Pattern,
    lun: [u8; 2],
    command_sn: u32,
    expected_status_sn: u32,
    target_segment_bytes: usize,
    random: Random,
    next_offset_bytes: u64,
    input: Vec<u8>,
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    /// Bytes of a data segment and its padding that are still to come.
    skip: usize,
    output: Vec<u8>,
    payload: Vec<u8>,
    completed: u64,
}

impl Session {
    /// Connects, logs in and takes the unit attentions that wait.
    ///
    /// # Errors
    /// When the target refuses.
    pub fn login(
        portal: SocketAddr,
        target: &str,
        lun: u16,
        index: u32,
        pattern: Pattern,
    ) -> Result<Self> {
        let [_, a, b, c] = index.to_be_bytes();
        let identity = Identity {
            initiator: format!("iqn.2026-11.dev.ringfence:bench-{index}"),
            isid: [0x80, 0, 0, a, b, c],
        };
        let login = wire::Session::login(portal, &identity, target)?;
        let mut random = Random::new(u64::from(index));
        let payload = random.bytes(pattern.length_bytes.max(64 << 10) as usize);
        let mut session = Self {
            stream: login.stream,
            pattern,
            lun: lun_bytes(lun),
            command_sn: login.command_sn,
            expected_status_sn: login.expected_status_sn,
            target_segment_bytes: login.target_segment_bytes,
            random,
            next_offset_bytes: 0,
            input: vec![0; RECEIVE_BYTES],
            header: [0; HEADER_BYTES],
            header_filled: 0,
            skip: 0,
            output: Vec::with_capacity(RECEIVE_BYTES),
            payload,
            completed: 0,
        };
        session.take_attentions()?;
        Ok(session)
    }

    /// Commands that have ended.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Sends as many commands as the depth says.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn start(&mut self) -> Result<()> {
        for tag in 0..self.pattern.depth {
            self.queue(tag);
        }
        self.send()
    }

    /// Receives once, and sends a new command for each that has ended.
    ///
    /// # Errors
    /// When a command fails or the connection is gone.
    pub fn turn(&mut self) -> Result<()> {
        self.receive(true)?;
        self.send()
    }

    /// Lets the commands that are outstanding end.
    ///
    /// # Errors
    /// As for [`Session::turn`].
    pub fn finish(&mut self) -> Result<()> {
        let goal = self.completed + u64::from(self.pattern.depth);
        while self.completed < goal {
            self.receive(false)?;
            self.send()?;
        }
        Ok(())
    }

    /// Sends a command by itself, its data immediate, and waits for its status.
    ///
    /// # Errors
    /// When the connection is gone. A SCSI status is no error.
    pub fn command(&mut self, cdb: &[u8], data_out: &[u8]) -> Result<u8> {
        let write = if data_out.is_empty() { 0 } else { 0x20 };
        let length = u32::try_from(data_out.len())?;
        let mut pdu = Pdu::new(opcode::SCSI_COMMAND, 0x81 | write, 0, data_out)
            .with(20, length)
            .with(24, self.command_sn)
            .with(28, self.expected_status_sn);
        pdu.header[8..10].copy_from_slice(&self.lun);
        pdu.header[32..32 + cdb.len()].copy_from_slice(cdb);
        self.command_sn = self.command_sn.wrapping_add(1);
        self.stream.write_all(&pdu.bytes())?;
        loop {
            let answer = Pdu::read(&mut self.stream)?;
            if answer.opcode() == opcode::SCSI_RESPONSE {
                self.expected_status_sn = answer.word(24).wrapping_add(1);
                return Ok(answer.header[3]);
            }
        }
    }

    /// TEST UNIT READY until it ends well.
    ///
    /// # Errors
    /// When it does not, or the connection is gone.
    pub fn take_attentions(&mut self) -> Result<()> {
        for _ in 0..8 {
            if self.command(&[0; 6], &[])? == 0 {
                return Ok(());
            }
        }
        bail!("TEST UNIT READY fails again and again")
    }

    fn receive(&mut self, go_on: bool) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        let received = self.stream.read(&mut input)?;
        ensure!(received > 0, "the target has closed the connection");
        let mut rest = &input[..received];
        while !rest.is_empty() {
            if self.skip > 0 {
                let part = self.skip.min(rest.len());
                self.skip -= part;
                rest = &rest[part..];
                continue;
            }
            let part = (HEADER_BYTES - self.header_filled).min(rest.len());
            self.header[self.header_filled..self.header_filled + part]
                .copy_from_slice(&rest[..part]);
            self.header_filled += part;
            rest = &rest[part..];
            if self.header_filled == HEADER_BYTES {
                self.header_filled = 0;
                let header = self.header;
                let length = u32::from_be_bytes([0, header[5], header[6], header[7]]);
                self.skip = length.next_multiple_of(4) as usize;
                self.take(&header, go_on)?;
            }
        }
        self.input = input;
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    fn take(&mut self, header: &[u8; HEADER_BYTES], go_on: bool) -> Result<()> {
        let ended = match header[0] & 0x3f {
            opcode::DATA_IN => header[1] & 1 != 0,
            opcode::SCSI_RESPONSE => true,
            opcode::R2T => {
                self.answer_r2t(header);
                false
            }
            // A ping that wants an answer would be one in ten idle seconds, and here nobody idles.
            opcode::NOP_IN => false,
            other => bail!("unexpected PDU with opcode {other:#04x}"),
        };
        if ended {
            ensure!(
                header[3] == 0,
                "a command ended with status {:#04x}",
                header[3]
            );
            self.expected_status_sn = word(header, 24).wrapping_add(1);
            self.completed += 1;
            if go_on {
                self.queue(word(header, 16));
            }
        }
        Ok(())
    }

    fn queue(&mut self, tag: u32) {
        let pattern = self.pattern;
        let length = u64::from(pattern.length_bytes);
        let offset = if pattern.random {
            self.random.next() % (pattern.span_bytes / length) * length
        } else {
            let offset = self.next_offset_bytes;
            self.next_offset_bytes = (offset + length) % pattern.span_bytes;
            offset
        };
        let immediate = if pattern.write && pattern.length_bytes <= IMMEDIATE_BYTES {
            pattern.length_bytes
        } else {
            0
        };
        let mut header = [0; HEADER_BYTES];
        header[0] = opcode::SCSI_COMMAND;
        header[1] = 0x81 | if pattern.write { 0x20 } else { 0x40 };
        put(&mut header, 4, immediate);
        header[8..10].copy_from_slice(&self.lun);
        put(&mut header, 16, tag);
        put(&mut header, 20, pattern.length_bytes);
        put(&mut header, 24, self.command_sn);
        put(&mut header, 28, self.expected_status_sn);
        header[32] = if pattern.write { 0x2a } else { 0x28 };
        // Volumes here are far smaller than the 2 TiB that 32 bits of blocks can say.
        put(&mut header, 34, (offset / BLOCK_BYTES) as u32);
        let blocks = (length / BLOCK_BYTES) as u16;
        header[39..41].copy_from_slice(&blocks.to_be_bytes());
        self.command_sn = self.command_sn.wrapping_add(1);
        self.output.extend_from_slice(&header);
        self.output
            .extend_from_slice(&self.payload[..immediate as usize]);
    }

    fn answer_r2t(&mut self, r2t: &[u8; HEADER_BYTES]) {
        let offset = word(r2t, 40) as usize;
        let wanted = word(r2t, 44) as usize;
        let mut sent = 0;
        let mut data_sn = 0;
        while sent < wanted {
            let length = (wanted - sent).min(self.target_segment_bytes);
            let mut header = [0; HEADER_BYTES];
            header[0] = opcode::DATA_OUT;
            header[1] = if sent + length == wanted { 0x80 } else { 0 };
            put(&mut header, 4, length as u32);
            header[8..16].copy_from_slice(&r2t[8..16]);
            header[16..24].copy_from_slice(&r2t[16..24]);
            put(&mut header, 28, self.expected_status_sn);
            put(&mut header, 36, data_sn);
            put(&mut header, 40, (offset + sent) as u32);
            self.output.extend_from_slice(&header);
            self.output
                .extend_from_slice(&self.payload[offset + sent..offset + sent + length]);
            sent += length;
            data_sn += 1;
        }
    }
}

fn word(header: &[u8; HEADER_BYTES], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&header[offset..offset + 4]);
    u32::from_be_bytes(word)
}

fn put(header: &mut [u8; HEADER_BYTES], offset: usize, value: u32) {
    header[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
}
