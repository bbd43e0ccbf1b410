//! What RFC 7143 says about sequence numbers, task management, and PDUs out of place.

use super::pair::target_config;
use super::raw::{Raw, no_data, rejected, sense, write};
use crate::pdu::{self, RESERVED_TAG, RejectReason, opcode};
use crate::target::{Config, Event, Fatal, ScsiResponse, TaskFunction, TaskResponse};

#[test]
fn commands_outside_the_window_are_ignored() {
    let mut raw = Raw::logged_in(
        Config {
            command_window: 4,
            ..target_config()
        },
        "",
    );
    for cmd_sn in [0, 5, 6, 1 << 31, u32::MAX] {
        raw.send(no_data(1, cmd_sn).0, &[]).unwrap();
        assert!(raw.target.poll_event().is_none(), "CmdSN {cmd_sn}");
    }
    raw.send(no_data(1, 1).0, &[]).unwrap();
    assert_eq!(raw.command().cmd_sn, 1);
    raw.target.respond(1, ScsiResponse::good()).unwrap();
    let response = pdu::ScsiResponse(raw.one().header);
    assert_eq!((response.exp_cmd_sn(), response.max_cmd_sn()), (2, 5));
}

#[test]
fn the_window_closes_with_running_tasks_and_opens_with_responses() {
    let mut raw = Raw::logged_in(
        Config {
            command_window: 3,
            ..target_config()
        },
        "",
    );
    for n in 1..=3 {
        raw.send(no_data(n, n).0, &[]).unwrap();
        raw.command();
    }
    raw.send(no_data(4, 4).0, &[]).unwrap();
    assert!(raw.target.poll_event().is_none());
    raw.target.respond(2, ScsiResponse::good()).unwrap();
    assert_eq!(pdu::ScsiResponse(raw.one().header).max_cmd_sn(), 4);
    raw.send(no_data(4, 4).0, &[]).unwrap();
    assert_eq!(raw.command().itt, 4);
}

#[test]
fn commands_are_delivered_in_order_and_immediate_ones_at_once() {
    let mut raw = Raw::logged_in(target_config(), "");
    for cmd_sn in [3, 2] {
        raw.send(no_data(cmd_sn, cmd_sn).0, &[]).unwrap();
        assert!(raw.target.poll_event().is_none());
    }
    let immediate = no_data(9, 1).set_byte0(opcode::SCSI_COMMAND | pdu::IMMEDIATE);
    raw.send(immediate.0, &[]).unwrap();
    let command = raw.command();
    assert!(command.itt == 9 && command.immediate);
    raw.send(no_data(1, 1).0, &[]).unwrap();
    assert_eq!([1, 2, 3].map(|_| raw.command().itt), [1, 2, 3]);
}

#[test]
fn abort_task_plugs_a_missing_command() {
    let mut raw = Raw::logged_in(target_config(), "");
    raw.send(no_data(2, 2).0, &[]).unwrap();
    assert!(raw.target.poll_event().is_none());
    let abort = pdu::TaskManagementRequest::new()
        .set_byte0(opcode::TASK_MANAGEMENT_REQUEST | pdu::IMMEDIATE)
        .set_flags(0x81)
        .set_itt(7)
        .set_referenced_task_tag(1)
        .set_ref_cmd_sn(1)
        .set_cmd_sn(3);
    raw.send(abort.0, &[]).unwrap();
    assert_eq!(pdu::TaskManagementResponse(raw.one().header).response(), 0);
    assert_eq!(raw.command().itt, 2);
}

#[test]
fn task_management_functions_and_answers() {
    let mut raw = Raw::logged_in(target_config(), "iSCSIProtocolLevel=2");
    let request = |function: u8, itt| {
        pdu::TaskManagementRequest::new()
            .set_byte0(opcode::TASK_MANAGEMENT_REQUEST | pdu::IMMEDIATE)
            .set_flags(pdu::FINAL | function)
            .set_itt(itt)
    };
    use TaskFunction::*;
    for function in [
        AbortTask,
        AbortTaskSet,
        ClearAca,
        ClearTaskSet,
        LogicalUnitReset,
        TargetWarmReset,
        TargetColdReset,
        QueryTask,
        QueryTaskSet,
        ITNexusReset,
        QueryAsynchronousEvent,
    ] {
        raw.send(request(function.number(), 5).0, &[]).unwrap();
        let Some(Event::TaskManagement(event)) = raw.target.poll_event() else {
            panic!()
        };
        assert_eq!((event.function, event.itt), (function, 5));
        raw.target
            .respond_task_management(5, TaskResponse::LunDoesNotExist)
            .unwrap();
        assert!(
            raw.target
                .respond_task_management(5, TaskResponse::Complete)
                .is_err()
        );
        assert_eq!(pdu::TaskManagementResponse(raw.one().header).response(), 2);
    }
    for (function, response) in [(8, 4), (0, 5), (13, 5), (127, 5)] {
        raw.send(request(function, 5).0, &[]).unwrap();
        assert_eq!(
            pdu::TaskManagementResponse(raw.one().header).response(),
            response
        );
    }
    // RFC 7144 functions need iSCSIProtocolLevel 2.
    let mut raw = Raw::logged_in(target_config(), "");
    raw.send(request(QueryTask.number(), 5).0, &[]).unwrap();
    assert_eq!(pdu::TaskManagementResponse(raw.one().header).response(), 5);
    for itt in 0..16 {
        raw.send(request(1, itt).0, &[]).unwrap();
    }
    raw.send(request(1, 3).0, &[]).unwrap();
    raw.send(request(1, 16).0, &[]).unwrap();
    let reasons: Vec<_> = raw.all().iter().map(rejected).collect();
    assert_eq!(
        reasons,
        [
            RejectReason::TaskInProgress as u8,
            RejectReason::ImmediateCommandReject as u8
        ]
    );
}

#[test]
fn a_tag_in_use_is_rejected() {
    let mut raw = Raw::logged_in(target_config(), "");
    raw.send(no_data(1, 1).0, &[]).unwrap();
    raw.send(no_data(1, 2).0, &[]).unwrap();
    assert_eq!(rejected(&raw.one()), RejectReason::TaskInProgress as u8);
    raw.send(no_data(RESERVED_TAG, 3).0, &[]).unwrap();
    assert_eq!(rejected(&raw.one()), RejectReason::InvalidPduField as u8);
}

#[test]
fn a_header_digest_error_ends_the_connection() {
    let mut raw = Raw::logged_in(target_config(), "HeaderDigest=CRC32C");
    raw.output.push_copied(no_data(1, 1).0, &[]);
    let mut bytes = raw.taken();
    bytes[20] ^= 1;
    assert_eq!(
        raw.target.receive(&bytes, raw.now),
        Err(Fatal::HeaderDigest)
    );
    assert!(raw.target.is_closed());
    assert!(matches!(raw.target.poll_event(), Some(Event::Closed(_))));
    assert_eq!(raw.target.receive(&bytes, raw.now), Err(Fatal::Closed));
}

#[test]
fn pdus_out_of_place_are_rejected() {
    let mut raw = Raw::logged_in(target_config(), "");
    let mut reject = |opcode: u8| {
        let mut header = no_data(1, 1).0;
        header[0] = opcode | pdu::IMMEDIATE;
        raw.send(header, &[]).unwrap();
        rejected(&raw.one())
    };
    assert_eq!(reject(opcode::SNACK), RejectReason::SnackReject as u8);
    assert_eq!(
        reject(opcode::LOGIN_REQUEST),
        RejectReason::ProtocolError as u8
    );
    for opcode in [0x07, 0x1c, opcode::NOP_IN, opcode::DATA_IN, 0x3e] {
        assert_eq!(reject(opcode), RejectReason::CommandNotSupported as u8);
    }
}

#[test]
fn too_long_segments_are_refused_before_they_are_kept() {
    let mut raw = Raw::new(target_config());
    let mut header = pdu::LoginRequest::new().0;
    header[5..8].copy_from_slice(&[0, 0x20, 1]);
    assert_eq!(
        raw.target.receive(&header, raw.now),
        Err(Fatal::DataSegmentTooLong {
            length_bytes: 8193,
            limit_bytes: 8192
        })
    );
    let mut raw = Raw::logged_in(target_config(), "");
    let mut header = write(1, 1, 8, true).0;
    header[4] = 200;
    assert_eq!(
        raw.target.receive(&header, raw.now),
        Err(Fatal::HeaderTooLong {
            length_bytes: 800,
            limit_bytes: 272
        })
    );
    let mut raw = Raw::logged_in(
        Config {
            max_write_bytes: 4096,
            ..target_config()
        },
        "",
    );
    raw.send(write(1, 1, u32::MAX, true).0, &[]).unwrap();
    raw.command();
    raw.target.accept_write(1, 4097).unwrap();
    assert_eq!(sense(&raw.one()), (5, 0x55, 3));
    assert!(raw.target.buffered_bytes() == 0);
}

#[test]
fn only_login_requests_in_the_login_phase() {
    let mut raw = Raw::new(target_config());
    assert_eq!(raw.send(no_data(1, 1).0, &[]), Err(Fatal::NotLoggedIn));
    assert!(raw.all().is_empty());
    let mut raw = Raw::new(target_config());
    raw.login(
        0x04,
        format!("InitiatorName=iqn.x\0TargetName={}\0", super::pair::TARGET).as_bytes(),
    );
    assert_eq!(raw.send(no_data(1, 1).0, &[]), Err(Fatal::NotLoggedIn));
    let response = pdu::LoginResponse(raw.one().header);
    assert_eq!(
        (response.status_class(), response.status_detail()),
        (2, 0x0b)
    );
}

#[test]
fn stat_sn_counts_responses_and_not_pings() {
    let mut raw = Raw::logged_in(target_config(), "");
    let nop = |raw: &mut Raw, itt| {
        let nop = pdu::NopOut::new()
            .set_byte0(opcode::NOP_OUT | pdu::IMMEDIATE)
            .set_flags(pdu::FINAL)
            .set_itt(itt)
            .set_ttt(RESERVED_TAG);
        raw.send(nop.0, b"echo").unwrap();
    };
    nop(&mut raw, 1);
    let first = raw.one();
    assert_eq!(first.data, b"echo");
    let first = pdu::NopIn(first.header);
    raw.target.ping(raw.now);
    let ping = pdu::NopIn(raw.one().header);
    assert_eq!(
        (ping.stat_sn(), ping.itt()),
        (first.stat_sn() + 1, RESERVED_TAG)
    );
    assert_ne!(ping.ttt(), RESERVED_TAG);
    nop(&mut raw, 2);
    assert_eq!(pdu::NopIn(raw.one().header).stat_sn(), first.stat_sn() + 1);
    nop(&mut raw, RESERVED_TAG);
    assert!(raw.all().is_empty(), "nothing was asked");
}

#[test]
fn text_in_a_normal_session() {
    let mut raw = Raw::logged_in(target_config(), "");
    let text = |raw: &mut Raw, flags: u8, ttt: u32, text: &str| {
        let request = pdu::TextRequest::new()
            .set_byte0(opcode::TEXT_REQUEST | pdu::IMMEDIATE)
            .set_flags(flags)
            .set_itt(1)
            .set_ttt(ttt);
        raw.send(request.0, text.as_bytes()).unwrap();
    };
    // As libiscsi's test suite sends them.
    for bad in [
        "SendTargetsPlease=All\0",
        "SendTargets=Alle\0",
        "SendTargets=A\0",
        "sENDtARGETS=aLL\0",
    ] {
        text(&mut raw, 0x80, RESERVED_TAG, bad);
        assert_eq!(
            rejected(&raw.one()),
            RejectReason::ProtocolError as u8,
            "{bad}"
        );
    }
    text(&mut raw, 0x40, RESERVED_TAG, "SendTar");
    let more = pdu::TextResponse(raw.one().header);
    assert_eq!(more.flags(), 0);
    text(&mut raw, 0x80, more.ttt() + 1, "gets=");
    assert_eq!(rejected(&raw.one()), RejectReason::InvalidPduField as u8);
    text(
        &mut raw,
        0x80,
        more.ttt(),
        "gets=\0X-a=b\0MaxBurstLength=1\0",
    );
    let Some(Event::SendTargets(which)) = raw.target.poll_event() else {
        panic!()
    };
    assert_eq!(
        which,
        crate::target::SendTargets::Named(super::pair::TARGET.into())
    );
    raw.target.answer_send_targets(&[]);
    let answer = raw.one();
    assert_eq!(pdu::TextResponse(answer.header).flags(), 0x80);
    assert_eq!(answer.data, b"X-a=NotUnderstood\0MaxBurstLength=Reject\0");
    text(
        &mut raw,
        0x80,
        RESERVED_TAG,
        "MaxRecvDataSegmentLength=4096\0",
    );
    assert!(raw.one().data.is_empty());
    let parameters = raw.target.parameters().unwrap();
    assert_eq!(parameters.peer_max_recv_data_segment_length_bytes, 4096);
}

#[test]
fn logout_waits_for_the_application() {
    let mut raw = Raw::logged_in(target_config(), "");
    raw.send(no_data(1, 1).0, &[]).unwrap();
    raw.command();
    let logout = |reason: u8, cid| {
        pdu::LogoutRequest::new()
            .set_byte0(opcode::LOGOUT_REQUEST | pdu::IMMEDIATE)
            .set_flags(pdu::FINAL | reason)
            .set_itt(9)
            .set_cid(cid)
    };
    for (request, response) in [(logout(2, 0), 2), (logout(1, 5), 1)] {
        raw.send(request.0, &[]).unwrap();
        assert_eq!(pdu::LogoutResponse(raw.one().header).response(), response);
    }
    raw.send(logout(3, 0).0, &[]).unwrap();
    assert_eq!(rejected(&raw.one()), RejectReason::InvalidPduField as u8);
    raw.send(logout(0, 0).0, &[]).unwrap();
    assert!(raw.all().is_empty());
    assert!(matches!(raw.target.poll_event(), Some(Event::Logout(_))));
    raw.send(no_data(2, 2).0, &[]).unwrap();
    assert!(
        raw.target.poll_event().is_none(),
        "nothing is taken after a logout"
    );
    raw.target.respond_logout();
    let response = pdu::LogoutResponse(raw.one().header);
    assert_eq!((response.response(), response.itt()), (0, 9));
    assert!(matches!(raw.target.poll_event(), Some(Event::Closed(_))));
}

#[test]
fn extended_cdbs() {
    let mut raw = Raw::logged_in(target_config(), "");
    let mut additional = Vec::new();
    pdu::AdditionalHeaders::append(&mut additional, pdu::EXTENDED_CDB, &[0, 0xaa, 0xbb, 0xcc]);
    raw.output.push(
        no_data(1, 1).set_cdb([0x7f; 16]).0,
        &additional,
        std::iter::empty(),
    );
    let bytes = raw.taken();
    raw.target.receive(&bytes, raw.now).unwrap();
    let cdb = raw.command().cdb;
    assert_eq!(cdb[..16], [0x7f; 16]);
    assert_eq!(cdb[16..], [0xaa, 0xbb, 0xcc]);
    additional[1] = 100; // runs past the end
    raw.output
        .push(no_data(2, 2).0, &additional, std::iter::empty());
    let bytes = raw.taken();
    raw.target.receive(&bytes, raw.now).unwrap();
    assert_eq!(rejected(&raw.one()), RejectReason::InvalidPduField as u8);
}
