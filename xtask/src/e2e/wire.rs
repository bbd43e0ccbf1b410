//! The smallest iSCSI initiator that does what the tests ask, on a blocking socket. It shares no code with the
//! product, so that both cannot be wrong in the same way, and it sends what no honest initiator would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// No answer within this time means that the target hangs; nothing here takes a second.
pub const STALL: Duration = Duration::from_secs(20);
const NO_TAG: u32 = 0xffff_ffff;

/// Initiator opcodes (RFC 7143 11.2.1.2).
pub mod opcode {
    pub const NOP_OUT: u8 = 0x00;
    pub const SCSI_COMMAND: u8 = 0x01;
    pub const TASK_MANAGEMENT: u8 = 0x02;
    pub const LOGIN: u8 = 0x03;
    pub const TEXT: u8 = 0x04;
    pub const DATA_OUT: u8 = 0x05;
    pub const LOGOUT: u8 = 0x06;
    pub const SNACK: u8 = 0x10;
    pub const NOP_IN: u8 = 0x20;
    pub const SCSI_RESPONSE: u8 = 0x21;
    pub const LOGIN_RESPONSE: u8 = 0x23;
    pub const DATA_IN: u8 = 0x25;
    pub const R2T: u8 = 0x31;
    pub const ASYNC: u8 = 0x32;
}

/// A PDU without digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    /// Basic header segment; the data segment's length is filled in by [`Pdu::bytes`].
    pub header: [u8; 48],
    /// Data segment, without padding.
    pub data: Vec<u8>,
}

impl Pdu {
    /// An initiator's PDU: opcode (with the immediate bit where wanted), flags and task tag.
    pub fn new(opcode: u8, flags: u8, task_tag: u32, data: &[u8]) -> Self {
        let mut header = [0; 48];
        header[0] = opcode;
        header[1] = flags;
        header[16..20].copy_from_slice(&task_tag.to_be_bytes());
        Self {
            header,
            data: data.to_vec(),
        }
    }

    /// Sets the four bytes at `offset` of the header.
    #[must_use]
    pub fn with(mut self, offset: usize, value: u32) -> Self {
        self.header[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    /// The four bytes at `offset` of the header.
    pub fn word(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.header[offset..offset + 4]);
        u32::from_be_bytes(word)
    }

    /// The opcode without the immediate bit.
    pub fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    /// As it goes over the wire, with the true length and padding.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.to_vec();
        let length = u32::try_from(self.data.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        bytes[5..8].copy_from_slice(&length[1..]);
        bytes.extend_from_slice(&self.data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// Reads one PDU.
    ///
    /// # Errors
    /// When the connection ends or nothing comes within [`STALL`].
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut header = [0; 48];
        stream.read_exact(&mut header)?;
        let additional = usize::from(header[4]) * 4;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let mut rest = vec![0; additional + length.next_multiple_of(4)];
        stream.read_exact(&mut rest)?;
        Ok(Self {
            header,
            data: rest[additional..additional + length].to_vec(),
        })
    }
}

/// The answer to a SCSI command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// SAM status.
    pub status: u8,
    /// Sense data, without its length.
    pub sense: Vec<u8>,
    /// Data read.
    pub data: Vec<u8>,
}

impl Reply {
    /// Sense key, additional sense code and qualifier; zeroes without sense data.
    pub fn sense_codes(&self) -> (u8, u8, u8) {
        match self.sense.first().map(|code| code & 0x7f) {
            Some(0x70 | 0x71) if self.sense.len() >= 14 => {
                (self.sense[2] & 15, self.sense[12], self.sense[13])
            }
            Some(0x72 | 0x73) if self.sense.len() >= 4 => {
                (self.sense[1] & 15, self.sense[2], self.sense[3])
            }
            _ => (0, 0, 0),
        }
    }
}

/// Who logs in where.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Initiator name.
    pub initiator: String,
    /// The six bytes of the ISID.
    pub isid: [u8; 6],
}

/// A normal session with one connection in full feature phase.
#[derive(Debug)]
pub struct Session {
    /// The connection, for tests that put bytes of their own on it.
    pub stream: TcpStream,
    /// Next command number.
    pub command_sn: u32,
    /// The target's status number expected next.
    pub expected_status_sn: u32,
    /// The longest data segment that the target takes.
    pub target_segment_bytes: usize,
    next_tag: u32,
}

impl Session {
    /// Connects and logs in without authentication.
    ///
    /// # Errors
    /// When the target cannot be reached or refuses.
    pub fn login(portal: SocketAddr, identity: &Identity, target: &str) -> Result<Self> {
        let mut stream = connect(portal)?;
        stream.write_all(&login_request(identity, target).bytes())?;
        let answer = Pdu::read(&mut stream).context("no answer to the login")?;
        ensure!(
            answer.opcode() == opcode::LOGIN_RESPONSE,
            "not a login response: {answer:?}"
        );
        let status = (answer.header[36], answer.header[37]);
        ensure!(
            status == (0, 0),
            "the login was refused with {:02x}{:02x}",
            status.0,
            status.1
        );
        ensure!(
            answer.header[1] & 0x83 == 0x83,
            "the target does not go to full feature phase at once: {:?} {}",
            answer.header,
            String::from_utf8_lossy(&answer.data)
        );
        Ok(Self {
            stream,
            command_sn: 1,
            expected_status_sn: answer.word(24).wrapping_add(1),
            target_segment_bytes: segment_bytes(&answer.data),
            next_tag: 1,
        })
    }

    /// A task tag not used before.
    pub fn tag(&mut self) -> u32 {
        let tag = self.next_tag;
        self.next_tag += 1;
        tag
    }

    /// The PDU of a SCSI command with all its data immediate; takes the next command number.
    pub fn command_pdu(
        &mut self,
        lun: u16,
        cdb: &[u8],
        data_out: &[u8],
        data_in_bytes: u32,
    ) -> Pdu {
        let mut flags = 0x80 | 0x01;
        if data_in_bytes > 0 {
            flags |= 0x40;
        } else if !data_out.is_empty() {
            flags |= 0x20;
        }
        let length = if data_in_bytes > 0 {
            data_in_bytes
        } else {
            u32::try_from(data_out.len()).unwrap_or(u32::MAX)
        };
        let tag = self.tag();
        let mut pdu = Pdu::new(opcode::SCSI_COMMAND, flags, tag, data_out)
            .with(20, length)
            .with(24, self.command_sn)
            .with(28, self.expected_status_sn);
        pdu.header[8..10].copy_from_slice(&lun_bytes(lun));
        pdu.header[32..32 + cdb.len()].copy_from_slice(cdb);
        self.command_sn = self.command_sn.wrapping_add(1);
        pdu
    }

    /// Sends a command and waits for its status. Data out goes as immediate data: at most 8 KiB.
    ///
    /// # Errors
    /// When the connection ends, or the target hangs or breaks the protocol.
    pub fn command(
        &mut self,
        lun: u16,
        cdb: &[u8],
        data_out: &[u8],
        data_in_bytes: u32,
    ) -> Result<Reply> {
        ensure!(data_out.len() <= 8192, "more than FirstBurstLength");
        let pdu = self.command_pdu(lun, cdb, data_out, data_in_bytes);
        self.stream.write_all(&pdu.bytes())?;
        self.wait_for_reply(pdu.word(16))
    }

    /// Waits for the status of a command sent before; answers the target's pings meanwhile.
    ///
    /// # Errors
    /// As for [`Session::command`].
    pub fn wait_for_reply(&mut self, tag: u32) -> Result<Reply> {
        let mut data = Vec::new();
        loop {
            let pdu = Pdu::read(&mut self.stream).context("waiting for a command's status")?;
            match pdu.opcode() {
                opcode::DATA_IN if pdu.word(16) == tag => {
                    let offset = pdu.word(40) as usize;
                    ensure!(
                        offset == data.len(),
                        "data at {offset} after {} bytes",
                        data.len()
                    );
                    data.extend_from_slice(&pdu.data);
                    if pdu.header[1] & 1 != 0 {
                        self.expected_status_sn = pdu.word(24).wrapping_add(1);
                        return Ok(Reply {
                            status: pdu.header[3],
                            sense: Vec::new(),
                            data,
                        });
                    }
                }
                opcode::SCSI_RESPONSE if pdu.word(16) == tag => {
                    ensure!(pdu.header[2] == 0, "iSCSI response {}", pdu.header[2]);
                    self.expected_status_sn = pdu.word(24).wrapping_add(1);
                    let sense = pdu.data.get(2..).unwrap_or_default().to_vec();
                    return Ok(Reply {
                        status: pdu.header[3],
                        sense,
                        data,
                    });
                }
                opcode::NOP_IN => self.answer_ping(&pdu)?,
                opcode::ASYNC => self.expected_status_sn = pdu.word(24).wrapping_add(1),
                other => bail!("unexpected PDU with opcode {other:#04x}: {:?}", pdu.header),
            }
        }
    }

    /// Takes the unit attentions that wait for this nexus.
    ///
    /// # Errors
    /// As for [`Session::command`], or when TEST UNIT READY ends otherwise.
    pub fn clear_attentions(&mut self, lun: u16) -> Result<()> {
        for _ in 0..8 {
            let reply = self.command(lun, &[0; 6], &[], 0)?;
            match (reply.status, reply.sense_codes().0) {
                (0, _) => return Ok(()),
                (2, 6) => {}
                other => bail!("TEST UNIT READY ends with {other:?}"),
            }
        }
        bail!("unit attentions without end")
    }

    fn answer_ping(&mut self, ping: &Pdu) -> Result<()> {
        let target_tag = ping.word(20);
        if target_tag != NO_TAG {
            let mut pong = Pdu::new(opcode::NOP_OUT | 0x40, 0x80, NO_TAG, &[])
                .with(20, target_tag)
                .with(24, self.command_sn)
                .with(28, self.expected_status_sn);
            pong.header[8..16].copy_from_slice(&ping.header[8..16]);
            self.stream.write_all(&pong.bytes())?;
        }
        Ok(())
    }
}

/// What the target declared as MaxRecvDataSegmentLength, or its default (RFC 7143 13.12).
fn segment_bytes(text: &[u8]) -> usize {
    let declared = text
        .split(|byte| *byte == 0)
        .find_map(|pair| pair.strip_prefix(b"MaxRecvDataSegmentLength="));
    declared
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .unwrap_or(8192)
}

/// A TCP connection on which nothing blocks longer than [`STALL`].
///
/// # Errors
/// When the target does not accept.
pub fn connect(portal: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&portal, STALL)
        .with_context(|| format!("cannot connect to {portal}"))?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A login request that asks for full feature phase at once.
pub fn login_request(identity: &Identity, target: &str) -> Pdu {
    let keys = [
        ("InitiatorName", identity.initiator.as_str()),
        ("TargetName", target),
        ("SessionType", "Normal"),
        ("HeaderDigest", "None"),
        ("DataDigest", "None"),
        ("MaxConnections", "1"),
        ("InitialR2T", "No"),
        ("ImmediateData", "Yes"),
        ("MaxRecvDataSegmentLength", "262144"),
        ("MaxBurstLength", "262144"),
        ("FirstBurstLength", "65536"),
        ("ErrorRecoveryLevel", "0"),
    ];
    let mut text = Vec::new();
    for (key, value) in keys {
        text.extend_from_slice(format!("{key}={value}\0").as_bytes());
    }
    // Transit from operational negotiation to full feature phase; CmdSN 1.
    let mut pdu = Pdu::new(opcode::LOGIN | 0x40, 0x87, 1, &text).with(24, 1);
    pdu.header[8..14].copy_from_slice(&identity.isid);
    pdu
}

/// Peripheral addressing below 256, flat addressing above (SAM-5 4.7).
pub fn lun_bytes(lun: u16) -> [u8; 2] {
    if lun < 256 {
        lun.to_be_bytes()
    } else {
        (lun | 0x4000).to_be_bytes()
    }
}

/// READ(16) of `blocks` blocks at `lba`.
pub fn read16(lba: u64, blocks: u32) -> [u8; 16] {
    transfer16(0x88, lba, blocks)
}

/// WRITE(16) of `blocks` blocks at `lba`.
pub fn write16(lba: u64, blocks: u32) -> [u8; 16] {
    transfer16(0x8a, lba, blocks)
}

fn transfer16(opcode: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}
