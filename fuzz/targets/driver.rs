//! Drives a target connection as the daemon would, without a daemon: every event is answered.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iscsi::target::{
    ChapAccount, ChapConfig, Config, Connection, DiscoveredTarget, Event, ScsiResponse,
    TaskResponse,
};

/// The most bytes that one connection may keep waiting for the network: what it has been told to send.
const OUTPUT_LIMIT_BYTES: usize = 1 << 20;

/// A connection to a target that asks for CHAP or not.
pub fn connection(chap: bool) -> Connection {
    let account = ChapAccount {
        secret: b"a secret of the guest".to_vec(),
        initiator_name: None,
    };
    let config = Config {
        target_names: vec!["iqn.x:t".into()],
        chap: chap.then(|| ChapConfig {
            initiators: [("guest".to_owned(), account)].into(),
            target: Some(("target".into(), b"a secret of the target".to_vec())),
            discovery: true,
        }),
        max_recv_data_segment_length_bytes: 8192,
        max_burst_length_bytes: 65_536,
        first_burst_length_bytes: 16_384,
        max_write_bytes: 1 << 20,
        data_budget_bytes: 1 << 18,
        ..Config::default()
    };
    Connection::new(Arc::new(config), [7; 32], Instant::now())
}

/// Feeds bytes in pieces and answers everything; ends when the connection does.
pub fn feed(connection: &mut Connection, bytes: &[u8], piece_bytes: usize) {
    let mut now = Instant::now();
    let mut output = VecDeque::new();
    let mut waiting = Vec::new();
    for piece in bytes.chunks(piece_bytes.max(1)) {
        now += Duration::from_millis(10);
        let received = connection.receive(piece, now);
        while let Some(event) = connection.poll_event() {
            answer(connection, event, &mut waiting);
        }
        connection.poll_transmit(&mut output, OUTPUT_LIMIT_BYTES);
        output.clear();
        if received.is_err() || connection.is_closed() {
            return;
        }
        // Half of the tasks are answered late.
        if waiting.len() > 4 {
            for tag in waiting.drain(..) {
                let _ = connection.respond(tag, ScsiResponse::good());
            }
        }
    }
    connection.handle_timeout(now + Duration::from_secs(3600));
    while connection.poll_event().is_some() {}
}

fn answer(connection: &mut Connection, event: Event, waiting: &mut Vec<u32>) {
    match event {
        Event::LoginRequest(_) => connection.accept_login(NonZeroU16::MIN),
        Event::Command(command) if command.write => {
            let wanted = u64::from(command.expected_data_length_bytes.min(1 << 17));
            let _ = connection.accept_write(command.itt, wanted);
        }
        Event::Command(command) if command.cdb.first().is_some_and(|opcode| opcode & 1 == 1) => {
            waiting.push(command.itt)
        }
        Event::Command(command) => {
            let length = command.expected_data_length_bytes.min(1 << 16) as usize;
            let _ = connection.respond(
                command.itt,
                ScsiResponse::data(Bytes::from(vec![0; length])),
            );
        }
        Event::CommandData { itt, .. } => {
            let _ = connection.respond(itt, ScsiResponse::good());
        }
        Event::TaskManagement(task) => {
            connection.abort_task(task.referenced_itt);
            let _ = connection.respond_task_management(task.itt, TaskResponse::Complete);
        }
        Event::SendTargets(_) => connection.answer_send_targets(&[DiscoveredTarget {
            name: "iqn.x:t".into(),
            portals: vec![
                ("192.0.2.1:3260".into(), 1),
                ("[2001:db8::1]:3260".into(), 2),
            ],
        }]),
        Event::Logout(_) => connection.respond_logout(),
        Event::SessionEstablished(_) | Event::TaskFailed { .. } | Event::Closed(_) => {}
    }
}
