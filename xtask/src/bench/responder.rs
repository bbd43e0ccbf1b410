//! The limit: a responder that takes a login and answers every READ with canned bytes at once. It looks at no more of a
//! command than it must, so that no target on this machine can be faster with this client.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Result;

use crate::e2e::wire::{Pdu, opcode};

/// Name that it answers to; any will do.
pub const NAME: &str = "iqn.2026-11.dev.ringfence:canned";

/// Starts it on a free port; it answers until the process ends.
///
/// # Errors
/// When there is no free port.
pub fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

/// Ends with the connection; an error here is the client's leaving.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
    let canned = vec![0xca; 1 << 20];
    let mut output = Vec::with_capacity(256 * 1024);
    let mut status_sn = 1_u32;
    loop {
        if input.buffer().len() < 48 && !output.is_empty() {
            stream.write_all(&output)?;
            output.clear();
        }
        let mut header = [0; 48];
        input.read_exact(&mut header)?;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]);
        std::io::copy(
            &mut (&mut input).take(u64::from(length.next_multiple_of(4))),
            &mut std::io::sink(),
        )?;
        let request = Pdu {
            header,
            data: Vec::new(),
        };
        let tag = request.word(16);
        let answer = match request.opcode() {
            opcode::LOGIN => {
                let mut answer = Pdu::new(
                    opcode::LOGIN_RESPONSE,
                    header[1],
                    tag,
                    b"TargetPortalGroupTag=1\0",
                );
                answer.header[8..16].copy_from_slice(&header[8..16]);
                answer.header[15] = 1;
                answer
            }
            _ if header[1] & 0x40 != 0 => {
                let wanted = (request.word(20) as usize).min(canned.len());
                Pdu::new(opcode::DATA_IN, 0x81, tag, &canned[..wanted])
            }
            _ => Pdu::new(opcode::SCSI_RESPONSE, 0x80, tag, &[]),
        };
        let next_command = request.word(24).wrapping_add(1);
        let answer = answer
            .with(24, status_sn)
            .with(28, next_command)
            .with(32, next_command.wrapping_add(256));
        output.extend_from_slice(&answer.bytes());
        status_sn = status_sn.wrapping_add(1);
    }
}
