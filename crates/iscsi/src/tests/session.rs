//! Sessions of two good ends: discovery, authentication, pings, logout.

use std::collections::HashMap;
use std::time::Duration;

use super::pair::{INITIATOR, ISID, Pair, TARGET, initiator_config, read_command, target_config};
use crate::initiator::{self, Chap, CloseReason, Event, Fatal, Session, TaskFunction};
use crate::target::{
    self, ChapAccount, ChapConfig, Config, DiscoveredTarget, LoginStatus, TaskResponse,
};

fn closed(pair: &Pair) -> CloseReason {
    match pair.events.last() {
        Some(Event::Closed(reason)) => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn discovery_over_several_pdus() {
    let config = initiator::Config {
        max_recv_data_segment_length_bytes: 512,
        ..initiator::Config::new(INITIATOR, ISID, Session::Discovery)
    };
    let mut pair = Pair::logged_in(target_config(), config, 3);
    pair.discovered = (0..40)
        .map(|n| DiscoveredTarget {
            name: format!("{TARGET}-{n}"),
            portals: vec![
                ("192.0.2.1:3260".into(), 1),
                ("[2001:db8::1]:3260".into(), 2),
            ],
        })
        .collect();
    pair.initiator.send_targets("All");
    pair.run();
    let Some(Event::Targets(found)) = pair.events.pop() else {
        panic!("{:?}", pair.events)
    };
    assert_eq!(found, pair.discovered);
    pair.initiator.logout();
    pair.run();
    assert_eq!(closed(&pair), CloseReason::LoggedOut { response: 0 });
    assert!(pair.target.is_closed());
}

fn chap_target(mutual: bool) -> Config {
    let account = ChapAccount {
        secret: b"one".to_vec(),
        initiator_name: None,
    };
    let chap = Some(ChapConfig {
        initiators: HashMap::from([("me".to_owned(), account)]),
        target: mutual.then(|| ("it".to_owned(), b"two".to_vec())),
        discovery: false,
    });
    Config {
        chap,
        ..target_config()
    }
}

#[test]
fn chap_one_way_and_mutual() {
    let initiator = |algorithms: &str, target| initiator::Config {
        chap: Some(Chap {
            target,
            algorithms: algorithms.into(),
            ..Chap::new("me", *b"one")
        }),
        ..initiator_config()
    };
    let it = |secret: &str| Some(("it".to_owned(), secret.as_bytes().to_vec()));
    for algorithms in ["5", "7", "7,5", "6,5"] {
        Pair::logged_in(chap_target(false), initiator(algorithms, None), 1);
        Pair::logged_in(chap_target(true), initiator(algorithms, it("two")), 1);
    }
    // The target has no identity, or another than expected.
    for (target, expected) in [
        (
            chap_target(false),
            CloseReason::LoginRefused(LoginStatus::AUTHENTICATION_FAILURE),
        ),
        (chap_target(true), CloseReason::Fatal(Fatal::Authentication)),
    ] {
        let mut pair = Pair::new(target, initiator("7", it("wrong")), 1);
        pair.run();
        assert_eq!(closed(&pair), expected);
    }
    // One secret for both directions.
    let mut target = chap_target(true);
    target.chap.as_mut().unwrap().target.as_mut().unwrap().1 = b"one".to_vec();
    let mut pair = Pair::new(target, initiator("7", it("one")), 1);
    pair.run();
    assert_eq!(
        closed(&pair),
        CloseReason::LoginRefused(LoginStatus::AUTHENTICATION_FAILURE)
    );
}

#[test]
fn the_application_refuses() {
    let mut pair = Pair::new(target_config(), initiator_config(), 1);
    pair.refuse = Some(LoginStatus::AUTHORIZATION_FAILURE);
    pair.run();
    assert_eq!(
        closed(&pair),
        CloseReason::LoginRefused(LoginStatus::AUTHORIZATION_FAILURE)
    );
    assert!(pair.target.is_closed());
}

#[test]
fn pings_keep_a_silent_peer_and_find_a_dead_one() {
    let seconds = |n| Some(Duration::from_secs(n));
    let target = Config {
        ping_interval: seconds(10),
        ping_timeout: Duration::from_secs(5),
        ..target_config()
    };
    let mut pair = Pair::logged_in(target, initiator_config(), 1);
    for _ in 0..3 {
        pair.now += Duration::from_secs(10);
        assert_eq!(pair.target.next_timeout(), Some(pair.now));
        pair.target.handle_timeout(pair.now);
        pair.run(); // the initiator answers
    }
    pair.now += Duration::from_secs(10);
    pair.target.handle_timeout(pair.now);
    pair.now += Duration::from_secs(4);
    pair.target.handle_timeout(pair.now);
    assert!(!pair.target.is_closed());
    pair.now += Duration::from_secs(1);
    pair.target.handle_timeout(pair.now);
    assert!(pair.target.is_closed());
    assert!(matches!(
        pair.target.poll_event(),
        Some(target::Event::Closed(target::CloseReason::PeerDead))
    ));
}

#[test]
fn a_login_that_never_comes_ends() {
    let mut pair = Pair::new(target_config(), initiator_config(), 1);
    pair.now += target_config().login_timeout;
    pair.target.handle_timeout(pair.now);
    assert!(matches!(
        pair.target.poll_event(),
        Some(target::Event::Closed(target::CloseReason::LoginTimeout))
    ));
}

#[test]
fn task_management_and_aborted_tasks() {
    let mut pair = Pair::logged_in(target_config(), initiator_config(), 1);
    pair.hold = true;
    let itt = pair.initiator.submit(read_command(0, 100));
    pair.run();
    let request = pair
        .initiator
        .task_management(TaskFunction::AbortTask, [0; 8], Some(itt));
    pair.run();
    let Some(target::Event::TaskManagement(management)) = pair.target_events.pop() else {
        panic!("{:?}", pair.target_events)
    };
    assert_eq!(management.referenced_itt, itt);
    assert!(pair.target.abort_task(itt));
    assert!(!pair.target.abort_task(itt), "only once");
    assert!(
        pair.target
            .respond(itt, target::ScsiResponse::good())
            .is_err()
    );
    pair.target
        .respond_task_management(management.itt, TaskResponse::Complete)
        .unwrap();
    pair.run();
    assert!(matches!(
        pair.events[..],
        [Event::TaskManagement { itt, response: 0 }] if itt == request
    ));
}

#[test]
fn asynchronous_messages_arrive() {
    let mut pair = Pair::logged_in(target_config(), initiator_config(), 1);
    pair.target
        .send_async_message(target::AsyncEvent::LogoutRequest { timeout_s: 7 });
    let (lun, sense) = ([1; 8], vec![0x70, 0, 6].into());
    pair.target
        .send_async_message(target::AsyncEvent::Scsi { lun, sense });
    pair.run();
    let [Event::Async(logout), Event::Async(scsi)] = &pair.events[..] else {
        panic!("{:?}", pair.events)
    };
    assert_eq!((logout.event, logout.parameters), (1, [0, 0, 7]));
    assert_eq!(
        (scsi.event, scsi.lun, &scsi.sense[..]),
        (0, [1; 8], &[0x70, 0, 6][..])
    );
}
