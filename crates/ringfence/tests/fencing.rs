//! Promise 1 over TCP: several initiators on several reactors write what they can while they are fenced. What has
//! landed is looked up in the file that backs the volume.
#![allow(clippy::unwrap_used)] // a test fails by panicking, in its helpers too

#[allow(dead_code)] // other tests use more of it
mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use common::Daemon;
use initiator::{Config, ReservationType, Session};
use iscsi::initiator::Command;
use scsi::Lun;
use scsi::cdb::{Cdb, Transfer, TransferSize};

const TYPE: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
const VICTIMS: usize = 4;
/// Each victim writes to this many bytes of its own.
const AREA_BYTES: usize = 64 << 10;
const QUEUE: usize = 12;
const KEY: u64 = 0xbad;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    Preempt,
    PreemptAndAbort,
    ReadOnly,
    Dropped,
}

const FENCES: [Fence; 4] = [
    Fence::Preempt,
    Fence::PreemptAndAbort,
    Fence::ReadOnly,
    Fence::Dropped,
];

fn lun() -> Lun {
    Lun::new(0).unwrap()
}

fn name(index: usize) -> String {
    format!("iqn.2026-11.com.example:vm{index}")
}

fn log_in(daemon: &Daemon, name: String) -> Session {
    let kind = iscsi::initiator::Session::Normal {
        target_name: "iqn.2026-11.dev.ringfence:test".to_owned(),
    };
    let config = Config::new(name, [0x80, 0, 0, 0, 0, 1], kind);
    let mut session = Session::connect(daemon.portals[0].parse().unwrap(), config).unwrap();
    session.clear_unit_attentions(lun()).unwrap();
    session
}

/// A write of one of several sizes, with content that was never written before.
fn write(victim: usize, count: usize) -> Command {
    let length = [512, 4096, AREA_BYTES, 8192, 512][count % 5];
    let slots = AREA_BYTES / length;
    let offset = victim * AREA_BYTES + count % slots * length;
    let transfer = Transfer {
        size: TransferSize::Sixteen,
        lba: offset as u64 / 512,
        length_blocks: length as u32 / 512,
        dpo: false,
        fua: count.is_multiple_of(7),
    };
    let data: Vec<u8> = (count as u64).to_le_bytes().repeat(length / 8);
    Command {
        lun: lun().encode(),
        cdb: Bytes::from(Cdb::Write(transfer).encode().to_vec()),
        data_out: Bytes::from(data),
        attribute: 1,
        ..Command::default()
    }
}

/// Keeps writes in flight until `stop`, or until the target has nothing more to say; the connection is cut then. One
/// that `comes_and_goes` cuts it every now and then, in the middle of its writes, and logs in again.
fn writer(
    daemon: &Daemon,
    mut session: Session,
    (victim, comes_and_goes): (usize, bool),
    count: &AtomicUsize,
    good: &AtomicUsize,
    stop: &AtomicBool,
) {
    session.set_timeout(Duration::from_secs(2));
    while !stop.load(SeqCst) {
        while session.outstanding() < QUEUE {
            let next = count.fetch_add(1, SeqCst);
            if session.submit(write(victim, next)).is_err() {
                return;
            }
        }
        match session.next_completion() {
            Ok(completion) => good.fetch_add(usize::from(completion.status == 0), SeqCst),
            Err(_) => return,
        };
        if comes_and_goes && count.load(SeqCst).is_multiple_of(16) {
            drop(session);
            session = log_in(daemon, name(victim));
        }
    }
}

fn content(file: &File, offset: u64) -> Vec<u8> {
    let mut content = vec![0; VICTIMS * AREA_BYTES];
    file.read_exact_at(&mut content, offset).unwrap();
    content
}

fn take(daemon: &Daemon, by: &mut Session, fence: Fence) {
    match fence {
        Fence::Preempt => by.preempt(lun(), 1, KEY, TYPE).unwrap(),
        Fence::PreemptAndAbort => by.preempt_and_abort(lun(), 1, KEY, TYPE).unwrap(),
        Fence::ReadOnly => {
            for victim in 0..VICTIMS {
                daemon.json(&["grant", "v1", &name(victim), "ro"]);
            }
        }
        Fence::Dropped => {
            // First by the reservation, so that they do not come back.
            by.preempt(lun(), 1, KEY, TYPE).unwrap();
            let sessions = daemon.json(&["session", "list"]);
            for session in sessions.as_array().unwrap() {
                if session["initiator"] != name(VICTIMS) {
                    // One that comes and goes may have gone.
                    daemon.run(&["session", "drop", &session["id"].to_string()]);
                }
            }
        }
    }
}

#[test]
fn after_the_answer_nothing_of_the_fenced_lands_in_the_file() {
    let mut daemon = Daemon::without_process();
    daemon.restart(&["--portal", "127.0.0.1:0", "--reactors", "3"]);
    daemon.add_device("d1", "64M");
    daemon.json(&["volume", "create", "v1", "--size", "16M"]);
    daemon.json(&["grant", "v1", "*", "rw"]);
    let map = daemon.json(&["volume", "map", "v1", "0"]);
    let offset = map["extents"][0]["device_offset_bytes"].as_u64().unwrap();
    let file = File::open(daemon.path("d1.img")).unwrap();
    let mut by = log_in(&daemon, name(VICTIMS));
    by.register(lun(), 0, 1, false).unwrap();
    by.reserve(lun(), 1, TYPE).unwrap();
    let count = AtomicUsize::new(1);
    let mut before = content(&file, offset);
    for round in 0..12 {
        let fence = FENCES[round % FENCES.len()];
        let sessions: Vec<Session> = (0..VICTIMS)
            .map(|victim| {
                daemon.json(&["grant", "v1", &name(victim), "rw"]);
                let mut session = log_in(&daemon, name(victim));
                session.register_and_ignore(lun(), KEY, false).unwrap();
                session
            })
            .collect();
        let stop = AtomicBool::new(false);
        let good: Vec<AtomicUsize> = (0..VICTIMS).map(|_| AtomicUsize::new(0)).collect();
        let at_answer = thread::scope(|scope| {
            for (victim, session) in sessions.into_iter().enumerate() {
                let (daemon, count, stop, good) = (&daemon, &count, &stop, &good[victim]);
                let who = (victim, victim == VICTIMS - 1);
                scope.spawn(move || writer(daemon, session, who, count, good, stop));
            }
            while good.iter().any(|good| good.load(SeqCst) < 3 + round) {
                thread::yield_now();
            }
            take(&daemon, &mut by, fence);
            let at_answer = content(&file, offset);
            thread::sleep(Duration::from_millis(20));
            stop.store(true, SeqCst);
            at_answer
        });
        let at_end = content(&file, offset);
        assert!(at_answer == at_end, "round {round}, {fence:?}");
        assert!(at_answer != before, "they have been writing");
        before = at_end;
        by.clear_unit_attentions(lun()).unwrap();
    }
}

#[test]
fn the_case_of_a_name_opens_no_way_round_a_grant() {
    let daemon = Daemon::start();
    daemon.add_device("d1", "64M");
    daemon.json(&["volume", "create", "v1", "--size", "16M"]);
    daemon.json(&["grant", "v1", "*", "rw"]);
    daemon.json(&["grant", "v1", &name(1), "ro"]);
    let mut shouting = log_in(&daemon, name(1).replace("example", "EXAMPLE"));
    let block = Bytes::from(vec![1; 512]);
    let refused = shouting.write(lun(), 0, block, 512, false).unwrap_err();
    assert!(refused.sense().is_some(), "{refused}");
    let sessions = daemon.json(&["session", "list"]);
    assert_eq!(sessions[0]["initiator"], name(1));
}
