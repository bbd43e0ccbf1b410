//! The limit of what any target could do behind these sockets: a responder that answers READs with fixed bytes, does
//! nothing else and touches no disk.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::load::Subject;
use super::process_cost::Source;
use crate::e2e::wire::{Pdu, opcode};

const THREAD: &str = "canned";
const WINDOW: u32 = 128;
/// How long it looks for the next command before it sleeps: no target that sleeps at once can be a limit.
const LOOK: Duration = Duration::from_micros(50);

/// Starts the responder; it goes on until the process ends.
///
/// # Errors
/// When no port is free.
pub fn start() -> Result<Subject> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let portal = listener.local_addr()?;
    std::thread::Builder::new()
        .name(THREAD.into())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // A session that ends is the client's doing, and the thread goes with it.
                let _ = std::thread::Builder::new()
                    .name(THREAD.into())
                    .spawn(move || serve(stream).ok());
            }
        })?;
    Ok(Subject {
        portal,
        name: "iqn.2026-11.dev.ringfence:canned".into(),
        lun: 0,
        cost: Source::OwnThreads(THREAD),
    })
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let login = Pdu::read(&mut stream)?;
    let answer = Pdu::new(opcode::LOGIN_RESPONSE, 0x87, login.word(16), &[])
        .with(28, 1)
        .with(32, WINDOW);
    stream.write_all(&answer.bytes())?;
    let mut input = vec![0; 64 << 10];
    let mut filled = 0;
    let mut output = Vec::new();
    let mut status_sn = 1_u32;
    loop {
        let received = read_looking(&mut stream, &mut input[filled..])?;
        if received == 0 {
            return Ok(());
        }
        filled += received;
        let mut taken = 0;
        // Only commands without data come: TEST UNIT READY and READ (10).
        while let Some(command) = input[taken..filled].first_chunk::<48>() {
            taken += command.len();
            answer_command(command, status_sn, &mut output);
            status_sn = status_sn.wrapping_add(1);
        }
        input.copy_within(taken..filled, 0);
        filled -= taken;
        stream.write_all(&output)?;
        output.clear();
    }
}

/// Reads what is there; sleeps only when nothing has come for a while.
fn read_looking(stream: &mut TcpStream, input: &mut [u8]) -> Result<usize> {
    let start = Instant::now();
    stream.set_nonblocking(true)?;
    let mut result = stream.read(input);
    while start.elapsed() < LOOK
        && matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock)
    {
        result = stream.read(input);
    }
    stream.set_nonblocking(false)?;
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(stream.read(input)?),
        result => Ok(result?),
    }
}

fn answer_command(command: &[u8; 48], status_sn: u32, output: &mut Vec<u8>) {
    let read = command[1] & 0x40 != 0;
    let mut header = [0; 48];
    header[0] = if read {
        opcode::DATA_IN
    } else {
        opcode::SCSI_RESPONSE
    };
    header[1] = if read { 0x81 } else { 0x80 };
    header[16..20].copy_from_slice(&command[16..20]);
    header[24..28].copy_from_slice(&status_sn.to_be_bytes());
    let mut command_sn = [0; 4];
    command_sn.copy_from_slice(&command[24..28]);
    let expected = u32::from_be_bytes(command_sn).wrapping_add(1);
    header[28..32].copy_from_slice(&expected.to_be_bytes());
    header[32..36].copy_from_slice(&expected.wrapping_add(WINDOW - 1).to_be_bytes());
    let mut length = 0;
    if read {
        header[5..8].copy_from_slice(&command[21..24]);
        length = u32::from_be_bytes([0, command[21], command[22], command[23]]) as usize;
    }
    output.extend_from_slice(&header);
    output.resize(output.len() + length, 0x5a);
}
