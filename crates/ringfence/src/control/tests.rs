//! Both ends of the control socket against each other.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::client::{Client, SOCKET_NAME};
use super::protocol::{Answer, Frame, Request};
use super::server::{Handler, Server, Sink};
use crate::control::model::Progress;
use crate::events::Operator;
use crate::failure::{Failure, FailureKind};

/// Answers by the request: an error with the operator in it, three frames of progress, or frames until the client
/// has gone.
struct Fake {
    gone: Sender<()>,
}

impl Handler for Fake {
    fn handle(
        &self,
        request: Request,
        operator: &Operator,
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        match request {
            Request::DeviceList => Ok(Answer::Devices(Vec::new())),
            Request::VolumeList => {
                for done_bytes in 1..=3 {
                    sink.send(&Frame::Progress(Progress {
                        volume: "v".to_owned(),
                        job: "migrate".to_owned(),
                        state: "running".to_owned(),
                        done_bytes,
                        total_bytes: 3,
                        rate_bytes_per_second: None,
                        eta_s: None,
                    }))
                    .map_err(|error| Failure::failed(error.to_string()))?;
                }
                Ok(Answer::Done)
            }
            Request::SessionDrop { id } => {
                while !sink.is_gone() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                self.gone.send(()).unwrap();
                Err(Failure::failed(format!("{id} gone")))
            }
            _ => Err(Failure::refused(operator.to_string()).advise("no")),
        }
    }
}

fn fake() -> Arc<Fake> {
    Arc::new(Fake { gone: channel().0 })
}

fn server() -> (tempfile::TempDir, Server) {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(state.path(), fake()).unwrap();
    (state, server)
}

#[test]
fn requests_answers_streams_and_failures() {
    let (state, _server) = server();
    let mut client = Client::connect(state.path()).unwrap();
    assert_eq!(
        client.ask(Request::DeviceList),
        Ok(Answer::Devices(Vec::new()))
    );
    let mut done = Vec::new();
    let answer = client.request(Request::VolumeList, |frame| {
        if let Frame::Progress(progress) = frame {
            done.push(progress.done_bytes);
        }
        true
    });
    assert_eq!((answer, done), (Ok(Answer::Done), vec![1, 2, 3]));
    let failure = client.ask(Request::Status).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(
        failure.message,
        format!("uid {uid} (pid {})", std::process::id())
    );
    assert_eq!(failure.advice.as_deref(), Some("no"));
}

#[test]
fn the_socket_is_private_and_can_be_taken_away() {
    let (state, server) = server();
    let path = state.path().join(SOCKET_NAME);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.close();
    assert!(!path.exists());
    server.settle(Duration::ZERO);
    let Err(failure) = Client::connect(state.path()) else {
        panic!("connected to a server that is gone");
    };
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.advice.unwrap().contains("ringfence serve --state"));
}

#[test]
fn a_socket_left_behind_is_replaced() {
    let state = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(state.path().join(SOCKET_NAME)).unwrap());
    let _server = Server::start(state.path(), fake()).unwrap();
    Client::connect(state.path())
        .unwrap()
        .ask(Request::DeviceList)
        .unwrap();
}

#[test]
fn bad_lines_are_answered_and_other_clients_do_not_notice() {
    let (state, _server) = server();
    let table = [
        ("{}\n", "version"),
        (
            "{\"version\":99,\"request\":{\"op\":\"status\"}}\n",
            "version 1 of the control protocol, the client 99",
        ),
        (
            "{\"version\":1,\"request\":{\"op\":\"nonsense\"}}\n",
            "not understood",
        ),
        ("not json\n", "not understood"),
    ];
    for (line, want) in table {
        let mut stream = UnixStream::connect(state.path().join(SOCKET_NAME)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        match serde_json::from_str::<Frame>(&answer).unwrap() {
            Frame::Error(failure) => {
                assert_eq!(failure.kind, FailureKind::Usage, "{line}");
                assert!(failure.message.contains(want), "{line}: {failure}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    Client::connect(state.path())
        .unwrap()
        .ask(Request::DeviceList)
        .unwrap();
}

#[test]
fn a_handler_sees_that_its_client_has_gone() {
    let state = tempfile::tempdir().unwrap();
    let (gone, is_gone) = channel();
    let _server = Server::start(state.path(), Arc::new(Fake { gone })).unwrap();
    let mut stream = UnixStream::connect(state.path().join(SOCKET_NAME)).unwrap();
    stream
        .write_all(b"{\"version\":1,\"request\":{\"op\":\"session-drop\",\"id\":1}}\n")
        .unwrap();
    let early = is_gone.recv_timeout(Duration::from_millis(50));
    assert_eq!(early, Err(RecvTimeoutError::Timeout));
    drop(stream);
    is_gone.recv().unwrap();
}
