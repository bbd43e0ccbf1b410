//! What RFC 7143 says about Data-Out, R2T and Data-In, and about data that does not belong.

use bytes::Bytes;

use super::pair::target_config;
use super::raw::{Raw, data_out, no_data, rejected, sense, write};
use crate::pdu::{self, RESERVED_TAG, RejectReason, opcode};
use crate::target::{Config, Event, ScsiResponse};

const SOLICITED_ONLY: &str = "InitialR2T=Yes ImmediateData=No MaxBurstLength=1024";

const CRC_ERROR: (u8, u8, u8) = (0x0b, 0x47, 0x05);
const UNEXPECTED_DATA: (u8, u8, u8) = (0x0b, 0x0c, 0x0c);
const INCORRECT_AMOUNT: (u8, u8, u8) = (0x0b, 0x0c, 0x0d);

/// A WRITE of `length` bytes that is accepted, up to its R2Ts.
fn solicited(raw: &mut Raw, itt: u32, cmd_sn: u32, length: u32) -> Vec<pdu::ReadyToTransfer> {
    raw.send(write(itt, cmd_sn, length, true).0, &[]).unwrap();
    assert_eq!(raw.command().itt, itt);
    raw.target.accept_write(itt, length.into()).unwrap();
    let r2ts: Vec<_> = raw
        .all()
        .iter()
        .map(|pdu| pdu::ReadyToTransfer(pdu.header))
        .collect();
    assert!(
        r2ts.iter()
            .all(|r2t| r2t.byte0() == opcode::READY_TO_TRANSFER)
    );
    r2ts
}

#[test]
fn several_r2ts_are_outstanding_and_numbered() {
    let keys = format!("{SOLICITED_ONLY} MaxOutstandingR2T=2");
    let mut raw = Raw::logged_in(target_config(), &keys);
    let r2ts = solicited(&mut raw, 1, 1, 3000);
    let of = |r2t: &pdu::ReadyToTransfer| {
        (
            r2t.r2t_sn(),
            r2t.buffer_offset_bytes(),
            r2t.desired_data_transfer_length_bytes(),
        )
    };
    assert_eq!(
        r2ts.iter().map(of).collect::<Vec<_>>(),
        [(0, 0, 1024), (1, 1024, 1024)]
    );
    assert_ne!(r2ts[0].ttt(), r2ts[1].ttt());
    raw.send(data_out(1, r2ts[0].ttt(), 0, 0, false).0, &[1; 1000])
        .unwrap();
    assert!(raw.all().is_empty());
    raw.send(data_out(1, r2ts[0].ttt(), 1, 1000, true).0, &[2; 24])
        .unwrap();
    let third = pdu::ReadyToTransfer(raw.one().header);
    assert_eq!(of(&third), (2, 2048, 952));
    raw.send(data_out(1, r2ts[1].ttt(), 0, 1024, true).0, &[3; 1024])
        .unwrap();
    raw.send(data_out(1, third.ttt(), 0, 2048, true).0, &[4; 952])
        .unwrap();
    let data = raw.data();
    assert_eq!(
        (data.len(), data[999], data[1000], data[2047], data[2999]),
        (3000, 1, 2, 3, 4)
    );
    raw.target.respond(1, ScsiResponse::good()).unwrap();
    let response = pdu::ScsiResponse(raw.one().header);
    assert_eq!(
        (response.status(), response.exp_data_sn(), response.flags()),
        (0, 3, 0x80)
    );
}

/// Like libiscsi's test of invalid DataSN: the command fails, once, after the sequence has ended.
#[test]
fn wrong_data_sequences_fail_the_command() {
    // Each: the PDUs sent as (DataSN, offset, last, length), and the sense expected.
    type Pdus = &'static [(u32, u32, bool, usize)];
    let cases: &[(Pdus, (u8, u8, u8))] = &[
        (&[(0, 0, false, 512), (0, 512, true, 512)], CRC_ERROR),
        (&[(27, 0, true, 1024)], CRC_ERROR),
        (&[(u32::MAX, 0, true, 1024)], CRC_ERROR),
        (&[(1, 0, false, 512), (0, 512, true, 512)], CRC_ERROR),
        (&[(0, 4, true, 1020)], CRC_ERROR),
        (&[(0, 0, false, 512), (1, 0, true, 512)], CRC_ERROR),
        (&[(0, 0, true, 512)], INCORRECT_AMOUNT),
        (&[(0, 0, true, 1028)], INCORRECT_AMOUNT),
        (&[(0, 0, true, 0)], INCORRECT_AMOUNT),
    ];
    for (pdus, expected) in cases {
        let mut raw = Raw::logged_in(target_config(), SOLICITED_ONLY);
        let r2t = solicited(&mut raw, 1, 1, 1024)[0];
        for (i, (data_sn, offset, last, length)) in pdus.iter().enumerate() {
            assert!(raw.all().is_empty(), "{pdus:?} answered before PDU {i}");
            let pdu = data_out(1, r2t.ttt(), *data_sn, *offset, *last);
            raw.send(pdu.0, &vec![0xa6; *length]).unwrap();
        }
        assert_eq!(sense(&raw.one()), *expected, "{pdus:?}");
        assert!(matches!(
            raw.target.poll_event(),
            Some(Event::TaskFailed { itt: 1 })
        ));
        assert!(raw.target.poll_event().is_none());
        assert_eq!(raw.target.buffered_bytes(), 0);
        // The session goes on.
        let r2t = solicited(&mut raw, 1, 2, 8)[0];
        raw.send(data_out(1, r2t.ttt(), 0, 0, true).0, &[9; 8])
            .unwrap();
        assert_eq!(raw.data()[..], [9; 8]);
    }
}

#[test]
fn data_for_nobody_changes_nothing() {
    let mut raw = Raw::logged_in(target_config(), SOLICITED_ONLY);
    let r2t = solicited(&mut raw, 1, 1, 8)[0];
    // No such task: swallowed, as after an early answer.
    raw.send(data_out(5, r2t.ttt(), 0, 0, true).0, &[1; 8])
        .unwrap();
    assert!(raw.all().is_empty());
    // No such transfer of this task.
    raw.send(data_out(1, r2t.ttt() + 1, 0, 0, true).0, &[2; 8])
        .unwrap();
    assert_eq!(rejected(&raw.one()), RejectReason::InvalidPduField as u8);
    raw.send(data_out(1, r2t.ttt(), 0, 0, true).0, &[3; 8])
        .unwrap();
    assert_eq!(raw.data()[..], [3; 8]);
    // Late data of a task that is being executed.
    raw.send(data_out(1, r2t.ttt(), 0, 0, true).0, &[4; 8])
        .unwrap();
    assert!(raw.all().is_empty() && raw.target.poll_event().is_none());
}

#[test]
fn unsolicited_data_only_as_agreed() {
    let send = |keys: &str, command: pdu::ScsiCommand, data: &[u8]| {
        let mut raw = Raw::logged_in(target_config(), keys);
        raw.send(command.0, data).unwrap();
        raw
    };
    // ImmediateData=No
    let mut raw = send("ImmediateData=No", write(1, 1, 8, true), &[0; 8]);
    assert_eq!(sense(&raw.one()), UNEXPECTED_DATA);
    // Data with a command that does not write.
    let mut raw = send("", no_data(1, 1), &[0; 8]);
    assert_eq!(sense(&raw.one()), UNEXPECTED_DATA);
    // InitialR2T=Yes, and the command announces unsolicited data.
    let mut raw = send("InitialR2T=Yes", write(1, 1, 8, false), &[]);
    assert_eq!(sense(&raw.one()), UNEXPECTED_DATA);
    // More than FirstBurstLength, more than expected.
    let mut raw = send("FirstBurstLength=512", write(1, 1, 2000, true), &[0; 516]);
    assert_eq!(sense(&raw.one()), INCORRECT_AMOUNT);
    let mut raw = send("", write(1, 1, 8, true), &[0; 12]);
    assert_eq!(sense(&raw.one()), INCORRECT_AMOUNT);
    // Unsolicited Data-Out beyond FirstBurstLength.
    let mut raw = send(
        "InitialR2T=No FirstBurstLength=512",
        write(1, 1, 2000, false),
        &[],
    );
    raw.command();
    raw.target.accept_write(1, 2000).unwrap();
    raw.send(data_out(1, RESERVED_TAG, 0, 0, true).0, &[0; 516])
        .unwrap();
    assert_eq!(sense(&raw.one()), INCORRECT_AMOUNT);
    // A bidirectional command.
    let both = write(1, 1, 8, true).set_flags(0xe0);
    let mut raw = send("", both, &[]);
    assert_eq!(sense(&raw.one()), (5, 0x0e, 3));
    // In all these the application was told nothing that it has to answer.
    assert!(raw.target.poll_event().is_none());
}

#[test]
fn unsolicited_then_solicited_data() {
    let keys = "InitialR2T=No FirstBurstLength=512 MaxBurstLength=1024";
    let mut raw = Raw::logged_in(target_config(), keys);
    raw.send(write(1, 1, 1000, false).0, &[1; 100]).unwrap();
    raw.command();
    raw.target.accept_write(1, 1000).unwrap();
    assert!(
        raw.all().is_empty(),
        "no R2T while unsolicited data is coming"
    );
    raw.send(data_out(1, RESERVED_TAG, 0, 100, false).0, &[2; 200])
        .unwrap();
    raw.send(data_out(1, RESERVED_TAG, 1, 300, true).0, &[3; 212])
        .unwrap();
    let r2t = pdu::ReadyToTransfer(raw.one().header);
    assert_eq!(
        (
            r2t.buffer_offset_bytes(),
            r2t.desired_data_transfer_length_bytes()
        ),
        (512, 488)
    );
    raw.send(data_out(1, r2t.ttt(), 0, 512, true).0, &[4; 488])
        .unwrap();
    let data = raw.data();
    assert_eq!(
        [data[99], data[100], data[299], data[300], data[512]],
        [1, 2, 2, 3, 4]
    );
}

#[test]
fn data_digest_errors() {
    let keys = "DataDigest=CRC32C InitialR2T=Yes ImmediateData=Yes";
    let mut raw = Raw::logged_in(target_config(), keys);
    let corrupt = |raw: &mut Raw, header, data: &[u8]| {
        raw.output.push_copied(header, data);
        let mut bytes = raw.taken();
        bytes[48] ^= 1;
        raw.target.receive(&bytes, raw.now).unwrap();
    };
    // A command with immediate data: rejected, and its CmdSN is still missing.
    corrupt(&mut raw, write(1, 1, 8, true).0, &[0; 8]);
    let reject = raw.one();
    assert_eq!(rejected(&reject), RejectReason::DataDigestError as u8);
    assert_eq!(pdu::Reject(reject.header).exp_cmd_sn(), 1);
    assert!(raw.target.poll_event().is_none());
    // Data-Out: rejected, and the command fails.
    let r2t = solicited(&mut raw, 1, 1, 8)[0];
    corrupt(&mut raw, data_out(1, r2t.ttt(), 0, 0, true).0, &[0; 8]);
    let [reject, response] = &raw.all()[..] else {
        panic!()
    };
    assert_eq!(rejected(reject), RejectReason::DataDigestError as u8);
    assert_eq!(sense(response), CRC_ERROR);
    assert!(matches!(
        raw.target.poll_event(),
        Some(Event::TaskFailed { itt: 1 })
    ));
}

#[test]
fn data_in_is_cut_as_agreed_and_carries_the_status() {
    let keys = "MaxRecvDataSegmentLength=1024 MaxBurstLength=1536";
    let mut raw = Raw::logged_in(target_config(), keys);
    let read = no_data(1, 1)
        .set_flags(0xc0)
        .set_expected_data_transfer_length_bytes(4096);
    raw.send(read.0, &[]).unwrap();
    raw.command();
    let data: Vec<u8> = (0..3000).map(|n| n as u8).collect();
    raw.target
        .respond(1, ScsiResponse::data(Bytes::from(data.clone())))
        .unwrap();
    let pdus = raw.all();
    let shape: Vec<_> = pdus
        .iter()
        .map(|pdu| pdu::DataIn(pdu.header))
        .map(|p| {
            (
                p.flags(),
                p.data_sn(),
                p.buffer_offset_bytes(),
                p.residual_bytes(),
            )
        })
        .collect();
    let lengths: Vec<_> = pdus.iter().map(|pdu| pdu.data.len()).collect();
    assert_eq!(lengths, [1024, 512, 1024, 440]);
    assert_eq!(
        shape,
        [
            (0, 0, 0, 0),
            (0x80, 1, 1024, 0),
            (0, 2, 1536, 0),
            (0x83, 3, 2560, 1096)
        ]
    );
    assert_eq!(
        pdus.iter()
            .flat_map(|pdu| pdu.data.clone())
            .collect::<Vec<_>>(),
        data
    );
}

#[test]
fn the_budget_is_kept() {
    let config = Config {
        data_budget_bytes: 64 * 1024,
        ..target_config()
    };
    let mut raw = Raw::logged_in(config, "InitialR2T=Yes ImmediateData=No");
    assert_eq!(solicited(&mut raw, 1, 1, 40_000).len(), 1);
    assert!(solicited(&mut raw, 2, 2, 40_000).is_empty(), "must wait");
    assert!(
        solicited(&mut raw, 3, 3, 1000).is_empty(),
        "first come, first served"
    );
    assert!(raw.target.buffered_bytes() <= 64 * 1024);
    assert!(raw.target.abort_task(1));
    let r2ts = raw.all();
    let tags: Vec<_> = r2ts
        .iter()
        .map(|pdu| pdu::ReadyToTransfer(pdu.header).itt())
        .collect();
    assert_eq!(tags, [2, 3]);
}
