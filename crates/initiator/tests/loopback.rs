//! The driver against the target end of `iscsi` over real sockets, with a disk in memory behind it.

#![allow(clippy::unwrap_used)] // a test

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use initiator::{Chap, Command, Config, DigestChoice, Error, Session, TaskFunction, discover};
use iscsi::target::{
    AsyncEvent, ChapAccount, ChapConfig, Connection, DiscoveredTarget, Event, ScsiResponse,
    TaskResponse,
};
use scsi::sense::SenseFormat;
use scsi::{Cdb, Lun, Sense};

const TARGET: &str = "iqn.2026-11.dev.ringfence:loopback";
const INITIATOR: &str = "iqn.2026-11.dev.ringfence:tester";
const ISID: [u8; 6] = [0x80, 1, 2, 3, 4, 5];
const BLOCK: u32 = 512;
const LUN: Lun = Lun::MAX;

fn config() -> Config {
    let target_name = TARGET.to_owned();
    Config::new(
        INITIATOR,
        ISID,
        iscsi::initiator::Session::Normal { target_name },
    )
}

/// A target that serves `connections` connections, one after the other.
fn serve(target: iscsi::target::Config, connections: usize) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(iscsi::target::Config {
        target_names: vec![TARGET.to_owned()],
        ..target
    });
    let thread = std::thread::spawn(move || {
        let mut disk = vec![0; 4 << 20];
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            serve_one(stream, config.clone(), &mut disk, address);
        }
    });
    (address, thread)
}

fn serve_one(
    mut stream: TcpStream,
    config: Arc<iscsi::target::Config>,
    disk: &mut [u8],
    address: SocketAddr,
) {
    let mut connection = Connection::new(config, [1; 32], Instant::now());
    let mut writes: HashMap<u32, usize> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut chunks = VecDeque::new();
    loop {
        while let Some(event) = connection.poll_event() {
            match event {
                Event::LoginRequest(_) => connection.accept_login(NonZeroU16::MIN),
                Event::Command(command) => {
                    let itt = command.itt;
                    assert_eq!(command.lun, LUN.encode());
                    let response = match Cdb::decode(&command.cdb) {
                        Ok(Cdb::Write(transfer)) => {
                            writes.insert(itt, (transfer.lba * u64::from(BLOCK)) as usize);
                            let length = u64::from(transfer.length_blocks) * u64::from(BLOCK);
                            connection.accept_write(itt, length).unwrap();
                            continue;
                        }
                        Ok(Cdb::Read(transfer)) => {
                            let start = (transfer.lba * u64::from(BLOCK)) as usize;
                            let length = (transfer.length_blocks * BLOCK) as usize;
                            ScsiResponse::data(Bytes::copy_from_slice(&disk[start..start + length]))
                        }
                        Ok(Cdb::TestUnitReady) => ScsiResponse::good(),
                        Ok(Cdb::PersistentReserveIn(_)) => ScsiResponse::status(0x18),
                        Ok(Cdb::SynchronizeCache(_)) => {
                            connection
                                .send_async_message(AsyncEvent::LogoutRequest { timeout_s: 3 });
                            connection.ping(Instant::now());
                            ScsiResponse::good()
                        }
                        _ => ScsiResponse::check_condition(
                            Sense::invalid_operation_code().encode(SenseFormat::Fixed),
                        ),
                    };
                    connection.respond(itt, response).unwrap();
                }
                Event::CommandData { itt, data } => {
                    let start = writes.remove(&itt).unwrap();
                    disk[start..start + data.len()].copy_from_slice(&data);
                    connection.respond(itt, ScsiResponse::good()).unwrap();
                }
                Event::TaskManagement(request) => {
                    let response = TaskResponse::TaskDoesNotExist;
                    connection
                        .respond_task_management(request.itt, response)
                        .unwrap();
                }
                Event::SendTargets(_) => connection.answer_send_targets(&[DiscoveredTarget {
                    name: TARGET.to_owned(),
                    portals: vec![(address.to_string(), 1)],
                }]),
                Event::Logout(_) => connection.respond_logout(),
                Event::SessionEstablished(_) | Event::Closed(_) | Event::TaskFailed { .. } => {}
            }
        }
        while connection.poll_transmit(&mut chunks, 1 << 20) > 0 {
            for chunk in chunks.drain(..) {
                if stream.write_all(&chunk).is_err() {
                    return;
                }
            }
        }
        if connection.is_closed() {
            return;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let _ = connection.receive(&buffer[..length], Instant::now());
            }
        }
    }
}

fn pattern(seed: usize, length: usize) -> Bytes {
    (0..length)
        .map(|i| (i * 31 + seed * 7 + i / 251) as u8)
        .collect()
}

#[test]
fn commands_of_a_session() {
    let (portal, thread) = serve(iscsi::target::Config::default(), 1);
    let mut session = Session::connect(portal, config()).unwrap();
    assert_eq!(session.tsih(), 1);
    session.test_unit_ready(LUN).unwrap();
    session.ping().unwrap();
    for (lba, blocks) in [(0, 1), (5, 8), (64, 4000)] {
        let data = pattern(blocks, blocks * BLOCK as usize);
        session.write(LUN, lba, data.clone(), BLOCK, true).unwrap();
        assert!(session.read(LUN, lba, blocks as u32, BLOCK).unwrap() == data);
    }
    let conflict = session.read_keys(LUN).unwrap_err();
    assert!(conflict.is_reservation_conflict(), "{conflict}");
    let refused = session.read_capacity(LUN).unwrap_err();
    assert_eq!(refused.sense(), Some(Sense::invalid_operation_code()));
    assert_eq!(session.logical_unit_reset(LUN).unwrap(), 1);
    assert_eq!(
        session
            .task_management(TaskFunction::AbortTask, LUN, Some(99))
            .unwrap(),
        1
    );
    session.synchronize_cache(LUN).unwrap();
    let message = session.next_async_message().unwrap();
    assert_eq!((message.event, message.parameters[2]), (1, 3));
    session.logout().unwrap();
    thread.join().unwrap();
}

#[test]
fn many_commands_at_once() {
    let (portal, thread) = serve(iscsi::target::Config::default(), 1);
    let digests = Config {
        header_digest: DigestChoice::Crc32c,
        data_digest: DigestChoice::Crc32c,
        ..config()
    };
    let mut session = Session::connect(portal, digests).unwrap();
    const DEPTH: usize = 32;
    const BLOCKS: usize = 200;
    let mut tags = HashMap::new();
    for i in 0..DEPTH {
        let cdb = Cdb::Write(scsi::cdb::Transfer {
            size: scsi::cdb::TransferSize::Ten,
            lba: (i * BLOCKS) as u64,
            length_blocks: BLOCKS as u32,
            dpo: false,
            fua: false,
        });
        let command = Command {
            lun: LUN.encode(),
            cdb: Bytes::copy_from_slice(&cdb.encode()),
            data_out: pattern(i, BLOCKS * BLOCK as usize),
            ..Command::default()
        };
        tags.insert(session.submit(command).unwrap(), i);
    }
    for _ in 0..DEPTH {
        let completion = session.next_completion().unwrap();
        assert!(tags.remove(&completion.itt).is_some());
        assert_eq!(completion.status, 0);
    }
    assert_eq!(session.outstanding(), 0);
    for i in 0..DEPTH {
        let data = session
            .read(LUN, (i * BLOCKS) as u64, BLOCKS as u32, BLOCK)
            .unwrap();
        assert!(data == pattern(i, BLOCKS * BLOCK as usize), "region {i}");
    }
    session.logout().unwrap();
    thread.join().unwrap();
}

#[test]
fn discovery_and_authentication() {
    let account = ChapAccount {
        secret: b"a secret of twelve".to_vec(),
        initiator_name: Some(INITIATOR.to_owned()),
    };
    let chap = ChapConfig {
        initiators: HashMap::from([("tester".to_owned(), account)]),
        target: Some(("portal".to_owned(), b"another secret here".to_vec())),
        discovery: true,
    };
    let target = iscsi::target::Config {
        chap: Some(chap),
        ..iscsi::target::Config::default()
    };
    let (portal, thread) = serve(target, 4);
    let mut credentials = Chap::new("tester", *b"a secret of twelve");
    credentials.target = Some(("portal".to_owned(), b"another secret here".to_vec()));

    let found = discover(portal, INITIATOR, ISID, Some(credentials.clone())).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].portals, [(portal.to_string(), 1)]);

    let config = |chap| Config { chap, ..config() };
    let mut session = Session::connect(portal, config(Some(credentials.clone()))).unwrap();
    session.test_unit_ready(LUN).unwrap();
    session.logout().unwrap();

    credentials.secret[0] ^= 1;
    for chap in [None, Some(credentials)] {
        let refused = Session::connect(portal, config(chap)).unwrap_err();
        assert!(
            matches!(refused, Error::Fatal(iscsi::initiator::Fatal::LoginRefused(status))
                if (status.class, status.detail) == (2, 1)),
            "{refused}"
        );
    }
    thread.join().unwrap();
}
