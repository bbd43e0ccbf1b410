//! Hostile input at the portal, while an honest session next to it must not notice.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::context::Context;
use crate::e2e::wire::{Identity, Pdu, Session, connect, login_request, opcode, read16, write16};
use crate::process::wait_for;
use crate::random::Random;
use crate::targets::Target;
use crate::targets::layout::Layout;
use crate::targets::loopback_portals;
use crate::targets::ringfence::Ringfence;

const HONEST: &str = "iqn.2026-11.com.example:honest";
const HALF_OPEN: usize = 100;
const MUTATED_STREAMS: usize = 400;
/// Memory that the daemon may have more than before once everyone has gone.
const LEAK_LIMIT_KIB: u64 = 64 * 1024;

/// What an attack needs to know.
struct Field {
    portal: SocketAddr,
    target: String,
    lun: u16,
    seed: u64,
}

impl Field {
    fn attacker(&self) -> Identity {
        Identity {
            initiator: "iqn.2026-11.com.example:attacker".into(),
            isid: [0x80, 0, 0, 0, 0, 1],
        }
    }

    fn session(&self) -> Result<Session> {
        let mut session = Session::login(self.portal, &self.attacker(), &self.target)?;
        session.clear_attentions(self.lun)?;
        Ok(session)
    }
}

/// An attack, by name; what it returns is kept open until the next attacks have run.
type Attack = (&'static str, fn(&Field) -> Result<Vec<TcpStream>>);

const ATTACKS: &[Attack] = &[
    ("half-open connections", half_open),
    ("a login byte by byte", slow_login),
    ("garbage instead of a login", garbage),
    ("a login longer than anything", oversized_login),
    ("a login that never ends", endless_login),
    ("lengths beyond what was negotiated", oversized_lengths),
    ("wrong sequence numbers", wrong_sequence_numbers),
    ("data for nobody", stray_data),
    ("tags and opcodes out of place", misplaced_pdus),
    ("random CDBs", random_cdbs),
    ("connections reset at once", resets),
    ("mutated streams", mutated_streams),
];

/// Runs the attacks one after the other beside a session that writes, reads back and compares.
///
/// # Errors
/// When the daemon ends or leaks, refuses an honest login, or the honest session sees an error.
pub fn run(context: &Context, layout: Layout) -> Result<String> {
    let folder = context.folder(&format!("hostile-{}", layout.name()))?;
    let mut target =
        Ringfence::new(context.ringfence()?, &folder, loopback_portals(1)?)?.with_layout(layout);
    target.start()?;
    let honest_lun = target.create_volume("honest", 16, 512)?;
    let lun = target.create_volume("attacked", 16, 512)?;
    // The attacker is let in, but not to the honest volume.
    target.cli_ok(&["grant", "honest", "*", "none"])?;
    target.cli_ok(&["grant", "honest", HONEST, "rw"])?;
    let field = Field {
        portal: target.portals()[0],
        target: target.name().into(),
        lun,
        seed: context.seed,
    };
    let pid = target.pid().context("a running daemon")?;

    let stop = Arc::new(AtomicBool::new(false));
    let bystander = {
        let (stop, portal, name) = (Arc::clone(&stop), field.portal, field.target.clone());
        std::thread::spawn(move || honest_session(portal, &name, honest_lun, &stop))
    };
    drop(field.session()?);
    let before = usage(pid)?;
    let result = attack_all(&field, &mut target);
    stop.store(true, Ordering::Relaxed);
    let rounds = bystander
        .join()
        .map_err(|_| anyhow!("the honest session's thread panicked"))?;
    result?;
    let rounds = rounds.context("the honest session noticed")?;
    let after = wait_for(
        "the daemon to close the attackers' connections",
        Duration::from_secs(60),
        || {
            usage(pid)
                .ok()
                .filter(|usage| usage.files <= before.files + 2)
        },
    )
    .with_context(|| format!("{} files open before, now {:?}", before.files, usage(pid)))?;
    ensure!(
        after.memory_kib <= before.memory_kib + LEAK_LIMIT_KIB,
        "the daemon grew from {} to {} KiB",
        before.memory_kib,
        after.memory_kib
    );
    target.check_running()?;
    Ok(format!(
        "{} attacks, {rounds} honest rounds beside them",
        ATTACKS.len()
    ))
}

fn attack_all(field: &Field, target: &mut Ringfence) -> Result<()> {
    let mut open = Vec::new();
    for (name, attack) in ATTACKS {
        open.extend(attack(field).with_context(|| format!("attack: {name}"))?);
        target
            .check_running()
            .with_context(|| format!("after: {name}"))?;
        let mut session = field
            .session()
            .with_context(|| format!("no login after: {name}"))?;
        let reply = session.command(field.lun, &read16(0, 1), &[], 512)?;
        ensure!(
            reply.status == 0,
            "after {name}: a read ends with {reply:?}"
        );
    }
    Ok(())
}

/// Writes, reads back and compares until told to stop; returns how often.
fn honest_session(portal: SocketAddr, target: &str, lun: u16, stop: &AtomicBool) -> Result<u64> {
    let identity = Identity {
        initiator: HONEST.into(),
        isid: [0x80, 0, 0, 0, 0, 2],
    };
    let mut session = Session::login(portal, &identity, target)?;
    session.clear_attentions(lun)?;
    let mut rounds = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let lba = rounds % 1000 * 8;
        let data = rounds.to_le_bytes().repeat(512);
        let written = session.command(lun, &write16(lba, 8), &data, 0)?;
        ensure!(written.status == 0, "write {rounds} ends with {written:?}");
        let read = session.command(lun, &read16(lba, 8), &[], 4096)?;
        ensure!(
            read.status == 0 && read.data == data,
            "read {rounds} gives other data"
        );
        rounds += 1;
    }
    Ok(rounds)
}

#[derive(Debug)]
struct Usage {
    files: usize,
    memory_kib: u64,
}

fn usage(pid: u32) -> Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(Usage {
        files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        memory_kib: memory.parse()?,
    })
}

/// Sends bytes to a fresh connection and waits until the target closes it. A target that drops the connection while
/// the bytes are still on their way is as good.
fn expect_closed(field: &Field, bytes: &[u8]) -> Result<()> {
    let mut stream = connect(field.portal)?;
    let sent = stream.write_all(bytes);
    if sent.is_ok() {
        stream.shutdown(Shutdown::Write).ok();
    }
    drain(&mut stream)
}

/// Reads until the target closes the connection.
fn drain(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("the target neither answers nor closes"),
        }
    }
}

fn half_open(field: &Field) -> Result<Vec<TcpStream>> {
    (0..HALF_OPEN)
        .map(|index| {
            let mut stream = connect(field.portal)?;
            // Some say nothing at all, some a part of a header.
            stream.write_all(
                &login_request(&field.attacker(), &field.target).bytes()[..index % 48],
            )?;
            Ok(stream)
        })
        .collect()
}

fn slow_login(field: &Field) -> Result<Vec<TcpStream>> {
    let mut stream = connect(field.portal)?;
    let mut identity = field.attacker();
    identity.isid[5] = 9;
    for byte in login_request(&identity, &field.target).bytes() {
        stream.write_all(&[byte])?;
        std::thread::sleep(Duration::from_millis(2));
    }
    let answer = Pdu::read(&mut stream).context("a slow login is still a login")?;
    ensure!(
        answer.opcode() == opcode::LOGIN_RESPONSE && answer.header[36] == 0,
        "{answer:?}"
    );
    Ok(vec![stream])
}

fn garbage(field: &Field) -> Result<Vec<TcpStream>> {
    let mut random = Random::new(field.seed);
    expect_closed(
        field,
        b"GET / HTTP/1.1\r\nHost: storage\r\n\r\nand more to fill the header of a PDU",
    )?;
    for _ in 0..20 {
        let length = 48 + random.below(2000);
        expect_closed(field, &random.bytes(length))?;
    }
    Ok(Vec::new())
}

fn oversized_login(field: &Field) -> Result<Vec<TcpStream>> {
    let request = login_request(&field.attacker(), &field.target);
    let mut bytes = request.bytes();
    bytes[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
    bytes.resize(1 << 20, b'A');
    expect_closed(field, &bytes)?;
    // All additional header segments that a header can announce.
    let mut bytes = request.bytes();
    bytes[4] = 0xff;
    bytes.resize(4096, 0);
    expect_closed(field, &bytes)?;
    // Text that is no text: no key, no value, no end, not UTF-8.
    for text in [
        &b"=\0=\0=\0"[..],
        b"InitiatorName",
        &[0xff; 512],
        b"\0\0\0\0",
        b"AuthMethod=\0InitiatorName=\0",
    ] {
        let mut pdu = request.clone();
        pdu.data = text.to_vec();
        expect_closed(field, &pdu.bytes())?;
    }
    Ok(Vec::new())
}

/// Login requests with the continue bit for ever: the target has to stop listening, not to run out of memory.
fn endless_login(field: &Field) -> Result<Vec<TcpStream>> {
    let mut stream = connect(field.portal)?;
    let mut pdu = login_request(&field.attacker(), &field.target);
    pdu.header[1] = 0x40 | 0x04;
    pdu.data = [b"X-com.example.key=".as_slice(), &[b'v'; 8000]].concat();
    for _ in 0..2000 {
        if stream.write_all(&pdu.bytes()).is_err() {
            return Ok(Vec::new());
        }
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        match Pdu::read(&mut stream) {
            Ok(answer) if answer.header[36] == 0 => {}
            Ok(_) | Err(_) => return Ok(Vec::new()),
        }
    }
    Err(anyhow!("the target took 16 MB of login text"))
}

fn oversized_lengths(field: &Field) -> Result<Vec<TcpStream>> {
    let write = write16(0, 16);
    for (announced, sent) in [(0x00ff_ffff_u32, 1 << 20), (300_000, 300_000)] {
        let mut session = field.session()?;
        let pdu = session.command_pdu(field.lun, &write, &vec![0; sent], 0);
        let mut bytes = pdu.bytes();
        bytes[5..8].copy_from_slice(&announced.to_be_bytes()[1..]);
        // The target may close as soon as it has seen the length.
        let _ = session.stream.write_all(&bytes);
        let _ = session.stream.shutdown(Shutdown::Write);
        drain(&mut session.stream)?;
    }
    // A WRITE that announces 4 GiB and a READ that wants as much: answered or refused, not obeyed.
    let mut session = field.session()?;
    let mut pdu = session.command_pdu(field.lun, &write16(0, 0xffff_ffff), &[0; 512], 0);
    pdu = pdu.with(20, 0xffff_ffff);
    session.stream.write_all(&pdu.bytes())?;
    let reply = session.wait_for_reply(pdu.word(16))?;
    ensure!(
        reply.status == 2,
        "a write of 2 TiB on a volume of 16 MiB: {reply:?}"
    );
    let reply = session.command(field.lun, &read16(0, 0xffff_ffff), &[], 0xffff_ffff)?;
    ensure!(
        reply.status == 2,
        "a read of 2 TiB on a volume of 16 MiB: {reply:?}"
    );
    Ok(vec![session.stream])
}

fn wrong_sequence_numbers(field: &Field) -> Result<Vec<TcpStream>> {
    // Outside the command window: ignored (RFC 7143 4.2.2.1); the connection goes on.
    let mut session = field.session()?;
    for offset in [0x4000_0000, 0x8000_0000, 0xffff_fff0_u32] {
        let right = session.command_sn;
        session.command_sn = right.wrapping_add(offset);
        let pdu = session.command_pdu(field.lun, &[0; 6], &[], 0);
        session.stream.write_all(&pdu.bytes())?;
        session.command_sn = right;
    }
    let reply = session.command(field.lun, &read16(0, 1), &[], 512)?;
    ensure!(reply.status == 0, "{reply:?}");
    // Status numbers that the target never gave.
    let mut session = field.session()?;
    session.expected_status_sn = session.expected_status_sn.wrapping_add(0x1000_0000);
    let pdu = session.command_pdu(field.lun, &read16(0, 1), &[], 512);
    session.stream.write_all(&pdu.bytes())?;
    let _ = session.wait_for_reply(pdu.word(16));
    Ok(vec![session.stream])
}

fn stray_data(field: &Field) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for (tag, target_tag, data_sn, offset) in [
        (0x7777, 0x8888, 0, 0),
        (0x7777, 0xffff_ffff, 5, 0),
        (0xffff_ffff, 1, 0, 0xffff_fff0),
    ] {
        let mut session = field.session()?;
        let pdu = Pdu::new(opcode::DATA_OUT, 0x80, tag, &[0xee; 512])
            .with(20, target_tag)
            .with(36, data_sn)
            .with(40, offset);
        session.stream.write_all(&pdu.bytes())?;
        open.push(session.stream);
    }
    // An honest WRITE without data, then data with a wrong tag, place and number once the target asks for it.
    for (tag_shift, data_sn, offset_shift) in
        [(1, 0, 0), (0, 7, 0), (0, 0, 512), (0, 0, 0x7fff_f000_u32)]
    {
        let mut session = field.session()?;
        let mut pdu = session.command_pdu(field.lun, &write16(0, 256), &[], 0);
        pdu.header[1] = 0x80 | 0x20 | 0x01;
        pdu = pdu.with(20, 131_072);
        session.stream.write_all(&pdu.bytes())?;
        let ask = Pdu::read(&mut session.stream)?;
        ensure!(
            ask.opcode() == opcode::R2T,
            "no R2T for a write without data: {:?}",
            ask.header
        );
        let data = Pdu::new(opcode::DATA_OUT, 0x80, pdu.word(16), &[0xdd; 1024])
            .with(20, ask.word(20).wrapping_add(tag_shift))
            .with(28, session.expected_status_sn)
            .with(36, data_sn)
            .with(40, ask.word(40).wrapping_add(offset_shift));
        session.stream.write_all(&data.bytes())?;
        open.push(session.stream);
    }
    Ok(open)
}

fn misplaced_pdus(field: &Field) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for number in 0..64 {
        let mut session = field.session()?;
        let pdu = Pdu::new(number, 0xff, 0x1234, &[0x55; 40])
            .with(20, 0x0102_0304)
            .with(24, session.command_sn)
            .with(28, session.expected_status_sn);
        session.stream.write_all(&pdu.bytes())?;
        open.push(session.stream);
    }
    // The same task tag for many commands at once.
    let mut session = field.session()?;
    for _ in 0..64 {
        let pdu = session
            .command_pdu(field.lun, &read16(0, 64), &[], 32_768)
            .with(16, 0x4242);
        session.stream.write_all(&pdu.bytes())?;
    }
    open.push(session.stream);
    // Task management for tasks that never were, and a login in the middle of a session. The target resets (6 and 7)
    // are left out: whoever is let in may end everybody's tasks with them, as SAM says.
    let mut session = field.session()?;
    for function in (0..16).filter(|function| ![6, 7].contains(function)) {
        let pdu = Pdu::new(
            opcode::TASK_MANAGEMENT | 0x40,
            0x80 | function,
            0x9000 + u32::from(function),
            &[],
        )
        .with(20, 0xdead)
        .with(24, session.command_sn);
        session.stream.write_all(&pdu.bytes())?;
    }
    session
        .stream
        .write_all(&login_request(&field.attacker(), &field.target).bytes())?;
    open.push(session.stream);
    Ok(open)
}

fn random_cdbs(field: &Field) -> Result<Vec<TcpStream>> {
    let mut random = Random::new(field.seed ^ 1);
    let mut session = field.session()?;
    for index in 0..2000_usize {
        let length = *random.pick(&[6, 10, 12, 16]);
        let mut cdb = random.bytes(length);
        if index % 2 == 0 {
            // Half of them are commands that exist, with small numbers in them.
            cdb[0] = *random.pick(&[
                0x00, 0x03, 0x12, 0x15, 0x1a, 0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41, 0x42, 0x4d, 0x55,
                0x5a, 0x5e, 0x5f, 0x83, 0x84, 0x88, 0x89, 0x8a, 0x8f, 0x93, 0x9c, 0x9e, 0xa0, 0xa3,
                0xa8, 0xaa,
            ]);
            for byte in &mut cdb[1..] {
                *byte &= *random.pick(&[0x00, 0x01, 0x1f, 0xff]);
            }
        }
        let (out, data_in) = match random.below(3) {
            0 => (0, 0),
            1 => (1 + random.below(4096), 0),
            _ => (0, 1 + random.below(65_536)),
        };
        let data = random.bytes(out);
        let reply = session.command(field.lun, &cdb, &data, u32::try_from(data_in)?);
        reply.with_context(|| format!("CDB {cdb:02x?} with {out} bytes out, {data_in} in"))?;
    }
    Ok(vec![session.stream])
}

fn resets(field: &Field) -> Result<Vec<TcpStream>> {
    // A nexus of its own: a login that is carried out late must not take the place of a session of the next attack.
    let mut identity = field.attacker();
    identity.isid[5] = 3;
    for index in 0..300 {
        let mut stream = connect(field.portal)?;
        if index % 3 > 0 {
            stream.write_all(&login_request(&identity, &field.target).bytes())?;
        }
        if index % 3 > 1 {
            Pdu::read(&mut stream).ok();
        }
        // What has not been read makes the kernel send a reset at close.
        drop(stream);
    }
    Ok(Vec::new())
}

/// An honest stream of a login and commands with a few bytes changed.
fn mutated_streams(field: &Field) -> Result<Vec<TcpStream>> {
    let mut random = Random::new(field.seed ^ 2);
    let mut template = field.session()?;
    let mut honest = login_request(&field.attacker(), &field.target).bytes();
    template.command_sn = 1;
    for lba in 0..4 {
        honest.extend(
            template
                .command_pdu(field.lun, &write16(lba, 1), &[7; 512], 0)
                .bytes(),
        );
        honest.extend(
            template
                .command_pdu(field.lun, &read16(lba, 8), &[], 4096)
                .bytes(),
        );
    }
    honest.extend(
        Pdu::new(opcode::NOP_OUT, 0x80, 0x55, b"ping")
            .with(20, 0xffff_ffff)
            .with(24, template.command_sn)
            .bytes(),
    );
    honest.extend(
        Pdu::new(opcode::TEXT, 0x80, 0x56, b"SendTargets=All\0")
            .with(20, 0xffff_ffff)
            .bytes(),
    );
    honest.extend(Pdu::new(opcode::SNACK, 0x80, 0x57, &[]).bytes());
    honest.extend(Pdu::new(opcode::LOGOUT, 0x80, 0x58, &[]).bytes());
    for _ in 0..MUTATED_STREAMS {
        let mut bytes = honest.clone();
        for _ in 0..=random.below(4) {
            let place = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[place] ^= 1 << random.below(8),
                1 => bytes[place] = random.next().to_le_bytes()[0],
                _ => bytes.truncate(place.max(1)),
            }
        }
        let mut stream = connect(field.portal)?;
        if stream.write_all(&bytes).is_ok() {
            let _ = stream.shutdown(Shutdown::Write);
            drain(&mut stream)?;
        }
    }
    Ok(Vec::new())
}
