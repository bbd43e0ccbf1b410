//! The load generator: keeps a number of commands outstanding on each of its sessions, each session on a thread with a
//! blocking socket. All targets are measured with it.

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::e2e::wire::{Identity, Pdu, Session, opcode, read16, write16};
use crate::random::Random;

/// What to do to a volume.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Row of the table.
    pub name: &'static str,
    /// Writes instead of reads.
    pub write: bool,
    /// Ascending addresses instead of random ones.
    pub sequential: bool,
    /// Size of each transfer.
    pub transfer_bytes: u32,
    /// Commands outstanding on each session.
    pub depth: u32,
    /// Sessions, each a connection and a thread here.
    pub sessions: usize,
}

/// Where the volume is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Portal.
    pub portal: SocketAddr,
    /// Target name.
    pub target: String,
    /// Volume.
    pub lun: u16,
    /// Part of the volume that is used.
    pub span_bytes: u64,
}

const BLOCK_BYTES: u32 = 512;

/// Runs the workload; returns the commands finished per second.
///
/// # Errors
/// When a command fails or the target breaks the protocol.
pub fn run(place: &Place, workload: Workload, time: Duration) -> Result<f64> {
    let start = Instant::now();
    let threads: Vec<_> = (0..workload.sessions)
        .map(|number| {
            let place = place.clone();
            std::thread::spawn(move || one_session(&place, workload, time, number))
        })
        .collect();
    let mut commands = 0;
    for thread in threads {
        commands += thread
            .join()
            .map_err(|_| anyhow!("a load thread panicked"))??;
    }
    Ok(commands as f64 / start.elapsed().as_secs_f64())
}

/// An initiator of the bench, by number.
pub fn identity(number: usize) -> Identity {
    Identity {
        initiator: format!("iqn.2026-11.com.example:bench{number}"),
        isid: [0x80, 0, 0, 0, 0, 1],
    }
}

fn one_session(place: &Place, workload: Workload, time: Duration, number: usize) -> Result<u64> {
    let mut session = Session::login(place.portal, &identity(number), &place.target)?;
    session.clear_attentions(place.lun)?;
    let mut load = Load {
        input: BufReader::with_capacity(512 * 1024, session.stream.try_clone()?),
        output: Vec::with_capacity(512 * 1024),
        data: vec![0xda; workload.transfer_bytes as usize],
        random: Random::new(number as u64),
        next_transfer: 0,
        session,
        workload,
        place,
        scratch: vec![0; workload.transfer_bytes as usize],
    };
    load.go(time)
}

struct Load<'a> {
    session: Session,
    input: BufReader<std::net::TcpStream>,
    output: Vec<u8>,
    data: Vec<u8>,
    scratch: Vec<u8>,
    random: Random,
    next_transfer: u64,
    workload: Workload,
    place: &'a Place,
}

impl Load<'_> {
    fn go(&mut self, time: Duration) -> Result<u64> {
        let end = Instant::now() + time;
        let (mut outstanding, mut finished) = (0, 0);
        for _ in 0..self.workload.depth {
            self.submit();
            outstanding += 1;
        }
        while outstanding > 0 {
            // Everything that has arrived is handled before anything is sent: one system call each way per batch.
            if self.input.buffer().len() < 48 && !self.output.is_empty() {
                self.session.stream.write_all(&self.output)?;
                self.output.clear();
            }
            if !self.one_pdu()? {
                continue;
            }
            outstanding -= 1;
            finished += 1;
            if finished % 16 != 0 || Instant::now() < end {
                self.submit();
                outstanding += 1;
            } else {
                // Time is up: let the rest come in.
                self.drain(&mut outstanding, &mut finished)?;
            }
        }
        Ok(finished)
    }

    fn drain(&mut self, outstanding: &mut u32, finished: &mut u64) -> Result<()> {
        while *outstanding > 0 {
            self.session.stream.write_all(&self.output)?;
            self.output.clear();
            if self.one_pdu()? {
                *outstanding -= 1;
                *finished += 1;
            }
        }
        Ok(())
    }

    /// Puts the next command into the output. Small writes carry their data; large ones wait for the target to ask.
    fn submit(&mut self) {
        let workload = self.workload;
        let transfers = self.place.span_bytes / u64::from(workload.transfer_bytes);
        let index = if workload.sequential {
            self.next_transfer % transfers
        } else {
            self.random.next() % transfers
        };
        self.next_transfer += 1;
        let blocks = workload.transfer_bytes / BLOCK_BYTES;
        let lba = index * u64::from(blocks);
        let pdu = if !workload.write {
            self.session.command_pdu(
                self.place.lun,
                &read16(lba, blocks),
                &[],
                workload.transfer_bytes,
            )
        } else if self.data.len() <= 4096 {
            self.session
                .command_pdu(self.place.lun, &write16(lba, blocks), &self.data, 0)
        } else {
            let mut pdu = self
                .session
                .command_pdu(self.place.lun, &write16(lba, blocks), &[], 0);
            pdu.header[1] = 0x80 | 0x20 | 0x01;
            pdu.with(20, workload.transfer_bytes)
        };
        self.output.extend_from_slice(&pdu.bytes());
    }

    /// Reads one PDU; tells whether it ended a command.
    fn one_pdu(&mut self) -> Result<bool> {
        let mut header = [0; 48];
        self.input.read_exact(&mut header)?;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let padded = length.next_multiple_of(4);
        if self.scratch.len() < padded {
            self.scratch.resize(padded, 0);
        }
        self.input.read_exact(&mut self.scratch[..padded])?;
        let pdu = Pdu {
            header,
            data: Vec::new(),
        };
        match pdu.opcode() {
            opcode::DATA_IN if header[1] & 1 == 0 => Ok(false),
            opcode::DATA_IN | opcode::SCSI_RESPONSE => {
                ensure!(
                    header[3] == 0,
                    "a command ends with status {:#04x}",
                    header[3]
                );
                self.session.expected_status_sn = pdu.word(24).wrapping_add(1);
                Ok(true)
            }
            opcode::R2T => {
                self.send_data(&pdu);
                Ok(false)
            }
            opcode::NOP_IN => Ok(false),
            other => Err(anyhow!("unexpected PDU with opcode {other:#04x}")),
        }
    }

    fn send_data(&mut self, ask: &Pdu) {
        let (offset, length) = (ask.word(40) as usize, ask.word(44) as usize);
        let segment = self.session.target_segment_bytes;
        let mut sent = 0;
        let mut number = 0;
        while sent < length {
            let size = segment.min(length - sent);
            let place = offset + sent;
            sent += size;
            let flags = if sent == length { 0x80 } else { 0 };
            let mut pdu = Pdu::new(
                opcode::DATA_OUT,
                flags,
                ask.word(16),
                &self.data[place..place + size],
            )
            .with(20, ask.word(20))
            .with(28, self.session.expected_status_sn)
            .with(36, number)
            .with(40, u32::try_from(place).unwrap_or(u32::MAX));
            pdu.header[8..16].copy_from_slice(&ask.header[8..16]);
            self.output.extend_from_slice(&pdu.bytes());
            number += 1;
        }
    }
}
