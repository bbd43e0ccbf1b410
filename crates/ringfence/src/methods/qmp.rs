//! `stonith:qmp`: a QEMU machine by its QMP socket (QEMU Machine Protocol; `-qmp unix:PATH,server=on,wait=off`).
//!
//! Options: `socket=PATH`, `action=reset|quit|pause` (default `reset`). `reset` is proven by the event RESET, `pause` by a
//! status other than running, `quit` by the end of the process, which closes the socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{MethodFailure, Options, Proof};

/// The name of this method.
pub(super) const AGENT: &str = "qmp";

/// The longest line that is read.
const LINE_MAX_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Reset,
    Quit,
    Pause,
}

impl Action {
    fn command(self) -> &'static str {
        match self {
            Action::Reset => "system_reset",
            Action::Quit => "quit",
            Action::Pause => "stop",
        }
    }
}

/// The options name a socket and an action; the machine may be off now.
pub(super) fn check(options: &Options) -> Result<(), MethodFailure> {
    parse(options).map(|_| ())
}

fn parse(options: &Options) -> Result<(&Path, Action), MethodFailure> {
    if let Some(unknown) = options
        .keys()
        .find(|key| !matches!(key.as_str(), "socket" | "action"))
    {
        return Err(MethodFailure::Option(format!(
            "stonith:qmp has no option {unknown}: it has socket=PATH and action=reset|quit|pause"
        )));
    }
    let socket = options
        .get("socket")
        .map(Path::new)
        .filter(|path| path.is_absolute());
    let socket = socket.ok_or_else(|| {
        MethodFailure::Option(
            "stonith:qmp needs socket=PATH, the absolute path of the machine's QMP socket".into(),
        )
    })?;
    let action = match options.get("action").map(String::as_str) {
        None | Some("reset") => Action::Reset,
        Some("quit") => Action::Quit,
        Some("pause") => Action::Pause,
        Some(other) => {
            return Err(MethodFailure::Option(format!(
                "action={other} is none of stonith:qmp's: reset, quit, pause"
            )));
        }
    };
    Ok((socket, action))
}

/// A conversation with a deadline.
struct Monitor {
    reader: BufReader<UnixStream>,
    deadline: Instant,
    limit: Duration,
}

impl Monitor {
    fn failed(&self, what: &str, error: &io::Error) -> MethodFailure {
        if matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ) {
            return MethodFailure::TimedOut {
                what: what.into(),
                seconds: self.limit.as_secs(),
            };
        }
        MethodFailure::Refused {
            what: what.into(),
            reason: error.to_string(),
        }
    }

    /// The next message; `None` at the end of the connection.
    fn next(&mut self) -> io::Result<Option<Value>> {
        let mut line = Vec::new();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.reader.get_ref().set_read_timeout(Some(left))?;
            let room = LINE_MAX_BYTES.saturating_sub(line.len() as u64);
            let mut limited = io::Read::take(&mut self.reader, room);
            match limited.read_until(b'\n', &mut line) {
                Ok(0) if line.is_empty() => return Ok(None),
                Ok(_) if line.ends_with(b"\n") => {
                    return serde_json::from_slice(&line)
                        .map(Some)
                        .map_err(io::Error::from);
                }
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a command; `seen` is asked about every message that comes, until it has seen enough, or about `None` at the end of
    /// the connection. An error that QEMU answers is one here.
    fn command(
        &mut self,
        name: &str,
        mut seen: impl FnMut(Option<&Value>) -> bool,
    ) -> Result<(), MethodFailure> {
        let what = format!("QMP {name}");
        let line = format!("{}\n", json!({ "execute": name }));
        let left = self.deadline.saturating_duration_since(Instant::now());
        let sent = if left.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            let stream = self.reader.get_mut();
            stream
                .set_write_timeout(Some(left))
                .and_then(|()| stream.write_all(line.as_bytes()))
        };
        sent.map_err(|error| self.failed(&what, &error))?;
        loop {
            match self.next() {
                Ok(Some(message)) => {
                    if let Some(error) = message.get("error") {
                        let said = error.get("desc").and_then(Value::as_str);
                        return Err(MethodFailure::Refused {
                            what,
                            reason: said.unwrap_or("QEMU gives no reason").into(),
                        });
                    }
                    if seen(Some(&message)) {
                        return Ok(());
                    }
                }
                Ok(None) if seen(None) => return Ok(()),
                Ok(None) => {
                    return Err(MethodFailure::Refused {
                        what,
                        reason: "QEMU hung up".into(),
                    });
                }
                // A process that is killed resets its connections.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && seen(None) => {
                    return Ok(());
                }
                Err(error) => return Err(self.failed(&what, &error)),
            }
        }
    }
}

fn is_answer(message: Option<&Value>) -> bool {
    message.is_some_and(|message| message.get("return").is_some())
}

/// Resets, pauses or ends the machine, and waits for the proof.
pub(super) fn fence(options: &Options, limit: Duration) -> Result<Proof, MethodFailure> {
    let (socket, action) = parse(options)?;
    let stream = UnixStream::connect(socket).map_err(|error| MethodFailure::Refused {
        what: format!("the QMP socket {}", socket.display()),
        reason: format!(
            "{error}; the machine may be off, or something else is connected: give fencing a QMP socket of its own"
        ),
    })?;
    let mut monitor = Monitor {
        reader: BufReader::new(stream),
        deadline: Instant::now() + limit,
        limit,
    };
    // One client at a time is served: the greeting comes when it is our turn.
    match monitor.next() {
        Ok(Some(greeting)) if greeting.get("QMP").is_some() => {}
        Ok(_) => {
            return Err(MethodFailure::Refused {
                what: socket.display().to_string(),
                reason: "it does not greet as a QMP socket does".into(),
            });
        }
        Err(error) => return Err(monitor.failed("the greeting of QMP", &error)),
    }
    monitor.command("qmp_capabilities", is_answer)?;
    match action {
        Action::Reset => {
            let (mut answered, mut reset) = (false, false);
            monitor.command(action.command(), |message| {
                answered |= is_answer(message);
                reset |= message
                    .and_then(|message| message.get("event"))
                    .is_some_and(|event| event == "RESET");
                answered && reset
            })?;
            Ok(Proof("QEMU has reset it".into()))
        }
        Action::Quit => {
            monitor.command(action.command(), |message| message.is_none())?;
            Ok(Proof("QEMU has ended".into()))
        }
        Action::Pause => {
            monitor.command(action.command(), is_answer)?;
            let mut status = None;
            monitor.command("query-status", |message| {
                status = message.and_then(|message| message.get("return")).cloned();
                is_answer(message)
            })?;
            let running = status.as_ref().and_then(|status| status.get("running"));
            if running == Some(&Value::Bool(false)) {
                Ok(Proof("QEMU says that it does not run".into()))
            } else {
                Err(MethodFailure::Refused {
                    what: "QMP stop".into(),
                    reason: "QEMU says that the machine runs".into(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A QMP socket that answers each command by the lines of `script`, then hangs up.
    fn machine(
        directory: &Path,
        script: &'static [(&'static str, &'static [&'static str])],
    ) -> Options {
        let path = directory.join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            writeln!(
                stream,
                "{}",
                json!({"QMP": {"version": {}, "capabilities": []}})
            )
            .unwrap();
            for (command, answers) in script {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let message: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(message["execute"], *command);
                for answer in *answers {
                    writeln!(stream, "{answer}").unwrap();
                }
            }
        });
        Options::from([("socket".into(), path.display().to_string())])
    }

    fn with(mut options: Options, action: &str) -> Options {
        options.insert("action".into(), action.into());
        options
    }

    const GOOD: &str = r#"{"return": {}}"#;
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_reset_is_proven_by_its_event() {
        let directory = tempfile::tempdir().unwrap();
        let options = machine(
            directory.path(),
            &[
                ("qmp_capabilities", &[GOOD]),
                (
                    "system_reset",
                    &[
                        r#"{"event": "NIC_RX_FILTER_CHANGED"}"#,
                        GOOD,
                        r#"{"event": "RESET", "data": {"guest": false}}"#,
                    ],
                ),
            ],
        );
        fence(&options, LONG).unwrap();
    }

    #[test]
    fn an_answer_without_the_event_is_no_proof() {
        let directory = tempfile::tempdir().unwrap();
        let options = machine(
            directory.path(),
            &[("qmp_capabilities", &[GOOD]), ("system_reset", &[GOOD])],
        );
        let failure = fence(&options, LONG).unwrap_err().to_string();
        assert!(failure.contains("hung up"), "{failure}");
    }

    #[test]
    fn a_quit_is_proven_by_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let options = machine(
            directory.path(),
            &[
                ("qmp_capabilities", &[GOOD]),
                ("quit", &[GOOD, r#"{"event": "SHUTDOWN"}"#]),
            ],
        );
        fence(&with(options, "quit"), LONG).unwrap();
    }

    #[test]
    fn a_pause_is_proven_by_the_status() {
        for (running, good) in [("false", true), ("true", false)] {
            let directory = tempfile::tempdir().unwrap();
            let script: &'static [(&'static str, &'static [&'static str])] = if good {
                &[
                    ("qmp_capabilities", &[GOOD]),
                    ("stop", &[r#"{"event": "STOP"}"#, GOOD]),
                    (
                        "query-status",
                        &[r#"{"return": {"status": "paused", "running": false}}"#],
                    ),
                ]
            } else {
                &[
                    ("qmp_capabilities", &[GOOD]),
                    ("stop", &[GOOD]),
                    (
                        "query-status",
                        &[r#"{"return": {"status": "running", "running": true}}"#],
                    ),
                ]
            };
            let options = with(machine(directory.path(), script), "pause");
            assert_eq!(fence(&options, LONG).is_ok(), good, "{running}");
        }
    }

    #[test]
    fn errors_of_qemu_and_silence_are_failures() {
        let directory = tempfile::tempdir().unwrap();
        let options = machine(
            directory.path(),
            &[(
                "qmp_capabilities",
                &[r#"{"error": {"class": "GenericError", "desc": "not today"}}"#],
            )],
        );
        let failure = fence(&options, LONG).unwrap_err().to_string();
        assert!(failure.contains("not today"), "{failure}");

        let path = directory.path().join("silent");
        let _listener = UnixListener::bind(&path).unwrap();
        let options = Options::from([("socket".into(), path.display().to_string())]);
        let failure = fence(&options, Duration::from_millis(100)).unwrap_err();
        assert!(
            matches!(failure, MethodFailure::TimedOut { .. }),
            "{failure}"
        );
    }

    #[test]
    fn options_are_looked_at() {
        let socket = Options::from([("socket".into(), "/run/x".into())]);
        assert!(check(&socket).is_ok());
        for wrong in [
            Options::new(),
            Options::from([("socket".into(), "x".into())]),
            with(socket.clone(), "off"),
            Options::from([("socket".into(), "/x".into()), ("path".into(), "y".into())]),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }
}
