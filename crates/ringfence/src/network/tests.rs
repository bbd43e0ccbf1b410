//! Both ends against each other, with certificates of an authority made for it.

use std::sync::Arc;
use std::time::Duration;

use super::Identity;
use super::certificates::{Purpose, init, issue};
use super::client::{RemoteClient, host_and_port};
use super::role::{Client, Role};
use super::server::Server;
use crate::control::protocol::{Answer, Request};
use crate::control::server::{Handler, Sink};
use crate::events::Operator;
use crate::failure::{Failure, FailureKind};

struct Fake;

impl Handler for Fake {
    fn handle(
        &self,
        request: Request,
        operator: &Operator,
        _: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        match request {
            Request::DeviceList => Ok(Answer::Devices(Vec::new())),
            _ => Err(Failure::refused(operator.to_string())),
        }
    }
}

fn permits(client: &Client, request: &Request) -> Result<(), Failure> {
    match request {
        Request::DeviceList => client.may(Role::Fence, Some("prod")),
        Request::VolumeList => client.may(Role::Fence, None),
        _ => client.may(Role::Quorum, None),
    }
}

const LONG: Duration = Duration::from_secs(20);

fn client(role: Role, domain: Option<&str>) -> Purpose {
    Purpose::Client {
        role,
        domain: domain.map(str::to_owned),
    }
}

fn serve(identity: &Identity) -> (Server, String) {
    let server = Server::start(
        "127.0.0.1:0".parse().unwrap(),
        identity,
        Arc::new(Fake),
        permits,
    )
    .unwrap();
    let address = server.address().to_string();
    (server, address)
}

#[test]
fn who_has_a_certificate_may_do_what_it_is_for() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    init(at, 30).unwrap();
    let head = issue(
        at,
        "head",
        &Purpose::Head(vec!["127.0.0.1".into(), "head.example".into()]),
        30,
    )
    .unwrap();
    let (server, address) = serve(&head);
    let ask = |name: &str, purpose: &Purpose, request: Request| {
        let identity = issue(at, name, purpose, 30).unwrap();
        RemoteClient::new(&identity)
            .unwrap()
            .ask(&address, request, LONG)
    };

    assert_eq!(
        ask("any", &client(Role::Fence, None), Request::DeviceList),
        Ok(Answer::Devices(Vec::new()))
    );
    assert!(
        ask(
            "prod",
            &client(Role::Fence, Some("prod")),
            Request::DeviceList
        )
        .is_ok()
    );
    let other = ask(
        "test",
        &client(Role::Fence, Some("test")),
        Request::DeviceList,
    )
    .unwrap_err();
    assert!(other.message.contains("for the domain test"), "{other:?}");
    let quorum = ask("q", &client(Role::Quorum, None), Request::DeviceList).unwrap_err();
    assert_eq!(quorum.kind, FailureKind::Refused);
    let told = ask("node1", &client(Role::Fence, None), Request::VolumeList).unwrap_err();
    assert!(told.message.starts_with("node1 (127.0.0.1:"), "{told:?}");

    server.close();
    let late = ask("late", &client(Role::Fence, None), Request::DeviceList).unwrap_err();
    assert_eq!(late.kind, FailureKind::Unreachable);
}

#[test]
fn strangers_stay_outside() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in [&ours, &theirs] {
        init(directory.path(), 30).unwrap();
    }
    let here = Purpose::Head(vec!["127.0.0.1".into()]);
    let head = issue(ours.path(), "head", &here, 30).unwrap();
    let (_server, address) = serve(&head);
    let friend = issue(ours.path(), "friend", &client(Role::Fence, None), 30).unwrap();
    let stranger = issue(theirs.path(), "stranger", &client(Role::Fence, None), 30).unwrap();
    let ask = |identity: &Identity, address: &str| {
        RemoteClient::new(identity)
            .unwrap()
            .ask(address, Request::DeviceList, LONG)
    };
    assert!(ask(&friend, &address).is_ok());

    // Each end refuses the other's authority, also when one of them is fooled about it.
    let unreachable = |result: Result<Answer, Failure>| {
        assert_eq!(result.unwrap_err().kind, FailureKind::Unreachable);
    };
    unreachable(ask(&stranger, &address));
    let fooled = Identity {
        authority: friend.authority.clone(),
        ..stranger.clone()
    };
    unreachable(ask(&fooled, &address));
    let fooled = Identity {
        authority: stranger.authority.clone(),
        ..friend.clone()
    };
    unreachable(ask(&fooled, &address));

    // A head's certificate names it, and is one of another head's clients.
    let elsewhere = issue(
        ours.path(),
        "elsewhere",
        &Purpose::Head(vec!["192.0.2.1".into()]),
        30,
    )
    .unwrap();
    let (_other, other) = serve(&elsewhere);
    unreachable(ask(&friend, &other));
    assert_eq!(ask(&head, &address).unwrap_err().kind, FailureKind::Refused);
    // A client that may not be a server.
    let (_fake, fake) = serve(&friend);
    unreachable(ask(&friend, &fake));
}

#[test]
fn files_are_kept_and_errors_say_which() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let failure = issue(at, "x", &client(Role::Fence, None), 30).unwrap_err();
    assert!(failure.advice.unwrap().contains("certificate init"));
    init(at, 30).unwrap();
    assert!(init(at, 30).unwrap_err().message.contains("ca.key"));
    let identity = issue(at, "x", &client(Role::Fence, None), 30).unwrap();
    assert!(issue(at, "x", &client(Role::Fence, None), 30).is_err());
    let swapped = Identity {
        key: identity.certificate.clone(),
        ..identity
    };
    assert!(
        swapped
            .client()
            .unwrap_err()
            .message
            .contains("private key")
    );
    assert!(issue(at, "y", &Purpose::Head(vec!["not a name".into()]), 30).is_err());
}

#[test]
fn addresses() {
    for (text, want) in [
        ("head1", ("head1", 3262)),
        ("head1:99", ("head1", 99)),
        ("192.0.2.1", ("192.0.2.1", 3262)),
        ("192.0.2.1:99", ("192.0.2.1", 99)),
        ("[2001:db8::1]:99", ("2001:db8::1", 99)),
        ("2001:db8::1", ("2001:db8::1", 3262)),
    ] {
        assert_eq!(host_and_port(text), Ok(want), "{text}");
    }
    for bad in [
        "", ":1", "a b", "head1:", "head1:0", "head1:x", "[::1", "[::1]x",
    ] {
        assert!(host_and_port(bad).is_err(), "{bad}");
    }
}
