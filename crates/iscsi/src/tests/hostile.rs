//! No bytes make an end panic, answer endlessly, or keep more than its limits.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::pair::{initiator_config, target_config, write_command};
use super::raw::Raw;
use crate::initiator;
use crate::pdu::{self, BHS_BYTES, opcode};
use crate::target::{Config, Event, ScsiResponse, TaskResponse};

const BUDGET_BYTES: usize = 16 * 1024;
const WINDOW: u32 = 8;
const FIRST_BURST_BYTES: u32 = 4096;

fn small() -> Config {
    Config {
        data_budget_bytes: BUDGET_BYTES,
        command_window: WINDOW,
        first_burst_length_bytes: FIRST_BURST_BYTES,
        max_recv_data_segment_length_bytes: 4096,
        max_write_bytes: 64 * 1024,
        ..target_config()
    }
}

/// The most that `buffered_bytes` may say: the budget, what one command may exceed it by, and unsolicited data of a full
/// window, each rounded up by allocation.
const LIMIT_BYTES: usize = 2 * BUDGET_BYTES + 64 * 1024 + (WINDOW as usize + 16) * 2 * 4096;

/// Feeds bytes, and answers what comes of them somehow.
fn feed(raw: &mut Raw, bytes: &[u8], choice: u8) -> Result<(), TestCaseError> {
    let result = raw.target.receive(bytes, raw.now);
    prop_assert_eq!(result.is_err(), raw.target.is_closed());
    prop_assert!(
        raw.target.buffered_bytes() <= LIMIT_BYTES,
        "{}",
        raw.target.buffered_bytes()
    );
    let mut closed = 0;
    let target = &mut raw.target;
    while let Some(event) = target.poll_event() {
        // An answer may come too late: the task may have been ended by what came after it.
        let _ = match event {
            Event::Command(command) => match choice % 4 {
                0 => Ok(()),
                1 => target.respond(command.itt, ScsiResponse::good()),
                _ => target.accept_write(command.itt, u64::from(choice) * 100),
            },
            Event::CommandData { itt, .. } if choice < 128 => {
                target.respond(itt, ScsiResponse::good())
            }
            Event::TaskManagement(request) => {
                target.abort_task(request.referenced_itt);
                target.respond_task_management(request.itt, TaskResponse::Complete)
            }
            Event::LoginRequest(_) => {
                target.accept_login(NonZeroU16::MIN);
                Ok(())
            }
            Event::SendTargets(_) => {
                target.answer_send_targets(&[]);
                Ok(())
            }
            Event::Logout(_) => {
                target.respond_logout();
                Ok(())
            }
            Event::Closed(_) => {
                closed += 1;
                Ok(())
            }
            Event::CommandData { .. } | Event::SessionEstablished(_) | Event::TaskFailed { .. } => {
                Ok(())
            }
        };
    }
    prop_assert!(closed <= 1);
    Ok(())
}

/// A header with a likely operation code and small numbers, so that it often means something.
fn header() -> impl Strategy<Value = [u8; BHS_BYTES]> {
    let opcodes = prop_oneof![
        Just(opcode::SCSI_COMMAND),
        Just(opcode::DATA_OUT),
        Just(opcode::TASK_MANAGEMENT_REQUEST),
        Just(opcode::TEXT_REQUEST),
        Just(opcode::NOP_OUT),
        any::<u8>(),
    ];
    let tag = prop_oneof![0..4u32, Just(pdu::RESERVED_TAG)];
    (
        opcodes,
        any::<bool>(),
        any::<u8>(),
        tag.clone(),
        tag,
        0..12u32,
        0..4u32,
        0..3u32,
        0..9000u32,
    )
        .prop_map(
            |(opcode, immediate, flags, itt, ttt, cmd_sn, data_sn, offset, length)| {
                let byte0 = if immediate {
                    opcode | pdu::IMMEDIATE
                } else {
                    opcode
                };
                let pdu = pdu::DataOut([0; BHS_BYTES])
                    .set_byte0(byte0)
                    .set_flags(flags)
                    .set_itt(itt)
                    .set_exp_stat_sn(1)
                    .set_data_sn(data_sn)
                    .set_buffer_offset_bytes(offset * 512);
                let header = pdu::NopOut(pdu.0).set_cmd_sn(cmd_sn).set_ttt(ttt).0;
                if opcode == opcode::SCSI_COMMAND {
                    let command = pdu::ScsiCommand(header);
                    return command.set_expected_data_transfer_length_bytes(length).0;
                }
                header
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_before_login(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut raw = Raw::new(small());
        feed(&mut raw, &bytes, 0)?;
    }

    #[test]
    fn random_login_text(flags: u8, bytes in proptest::collection::vec(any::<u8>(), 0..300), more in "[A-Za-z=,0-9]{0,80}") {
        let mut raw = Raw::new(small());
        for text in [&bytes[..], more.as_bytes()] {
            let request = pdu::LoginRequest::new().set_byte0(0x43).set_flags(flags);
            raw.output.push_copied(request.0, text);
            let sent = raw.taken();
            feed(&mut raw, &sent, 0)?;
        }
    }

    /// Plausible and implausible requests in the full feature phase.
    #[test]
    fn random_requests(
        requests in proptest::collection::vec((header(), 0..5000usize, any::<u8>()), 1..40),
        digests: bool,
    ) {
        let keys = if digests { "DataDigest=CRC32C HeaderDigest=CRC32C InitialR2T=No" } else { "InitialR2T=No" };
        let mut raw = Raw::logged_in(small(), keys);
        for (header, length, choice) in requests {
            raw.output.push_copied(header, &vec![choice; length]);
            let mut bytes = raw.taken();
            if choice > 250 && length > 0 {
                let last = bytes.len() - 1;
                bytes[last] ^= 0xff;
            }
            feed(&mut raw, &bytes, choice)?;
        }
        // Whatever is left can be ended, and then only held requests stay behind.
        for itt in (0..4).chain([pdu::RESERVED_TAG]) {
            raw.target.abort_task(itt);
        }
        prop_assert!(raw.target.buffered_bytes() <= BUDGET_BYTES);
    }

    /// A valid stream in which a few bytes are changed.
    #[test]
    fn mutated_streams(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        choice: u8,
    ) {
        let mut stream = Vec::new();
        let mut raw = Raw::logged_in(small(), "InitialR2T=No");
        for n in 1..6u32 {
            let command = super::raw::write(n, n, 1000 * n, n % 2 == 0).0;
            raw.output.push_copied(command, &vec![n as u8; 500]);
            let data = super::raw::data_out(n, pdu::RESERVED_TAG, 0, 500, true).0;
            raw.output.push_copied(data, &vec![n as u8; 500]);
            raw.output.push_copied(super::raw::no_data(n + 20, n + 5).0, &[]);
        }
        stream.extend(raw.taken());
        for (index, byte) in changes {
            let index = index.index(stream.len());
            stream[index] = byte;
        }
        for piece in stream.chunks(700) {
            feed(&mut raw, piece, choice)?;
        }
    }

    /// The initiator end holds against a target gone wrong.
    #[test]
    fn mutated_responses(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        at_login: bool,
    ) {
        let config = Arc::new(initiator_config());
        let now = Instant::now();
        let mut connection = initiator::Connection::new(config, [3; 32], now);
        // A recorded conversation of a target: login response, R2T, response.
        let mut output = crate::output::Output::default();
        let login = pdu::LoginResponse::new()
            .set_flags(0x87)
            .set_tsih(1)
            .set_stat_sn(5)
            .set_exp_cmd_sn(1)
            .set_max_cmd_sn(20);
        output.push_copied(login.0, b"HeaderDigest=None\0InitialR2T=Yes\0ImmediateData=No\0");
        let itt = connection.submit(write_command(0, vec![1; 3000].into()));
        let r2t = pdu::ReadyToTransfer::new().set_itt(itt).set_stat_sn(6).set_exp_cmd_sn(2)
            .set_max_cmd_sn(20).set_desired_data_transfer_length_bytes(3000);
        output.push_copied(r2t.0, &[]);
        let data = pdu::DataIn::new().set_itt(itt).set_exp_cmd_sn(2).set_max_cmd_sn(20);
        output.push_copied(data.0, &[1, 2, 3]);
        let response = pdu::ScsiResponse::new().set_flags(0x80).set_itt(itt).set_stat_sn(6)
            .set_exp_cmd_sn(2).set_max_cmd_sn(20).set_status(2);
        output.push_copied(response.0, &[0, 3, 0x70, 0, 5]);
        let mut chunks = std::collections::VecDeque::new();
        while output.poll(&mut chunks, usize::MAX) > 0 {}
        let mut stream: Vec<u8> = chunks.iter().flatten().copied().collect();
        let from = if at_login { 0 } else { 100 };
        for (index, byte) in changes {
            let index = from + index.index(stream.len() - from);
            stream[index] = byte;
        }
        for piece in stream.chunks(100) {
            let _ = connection.receive(piece, now);
        }
        let mut sent = std::collections::VecDeque::new();
        prop_assert!(connection.poll_transmit(&mut sent, usize::MAX) < 64 * 1024);
    }
}

/// A flood of requests that ask for nothing but answers is bounded by what is received.
#[test]
fn answers_do_not_multiply() {
    let mut raw = Raw::logged_in(small(), "");
    let mut sent = 0;
    for n in 0..1000u32 {
        let header = pdu::Snack::new().set_itt(n).0;
        sent += BHS_BYTES;
        raw.send(header, &[]).unwrap();
    }
    assert!(raw.target.transmit_pending_bytes() <= 2 * sent);
}
