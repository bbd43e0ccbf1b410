//! The daemon's end of the control socket: a thread a connection, blocking.

use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvFlags, recv};

use super::client::SOCKET_NAME;
use super::line::{LineError, read_line, write_line};
use super::protocol::{Answer, Envelope, Frame, PROTOCOL_VERSION, Request};
use crate::events::Operator;
use crate::failure::Failure;

/// How many clients may be connected at once. More are told to come back.
pub const CLIENTS_MAX: usize = 256;

/// Where frames of a request go.
pub trait Sink {
    /// Sends a frame that is not the last one. An error means that the client has gone and the work may stop.
    fn send(&mut self, frame: &Frame) -> io::Result<()>;

    /// Whether the client has hung up, so that a quiet stream can end.
    fn is_gone(&self) -> bool;
}

/// Who carries requests out. Called on the thread of the connection, which may block.
pub trait Handler: Send + Sync + 'static {
    /// Carries `request` out for `operator`.
    fn handle(
        &self,
        request: Request,
        operator: &Operator,
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure>;
}

/// The bound control socket. Its connections end with their clients.
pub struct Server {
    path: PathBuf,
    busy: Arc<AtomicUsize>,
}

impl Server {
    /// Binds `STATE/control.sock` with mode 0600 and serves it with `handler`. The caller holds the lock of the
    /// state directory, so that a socket file found there is one left behind, and is replaced.
    pub fn start(state: &Path, handler: Arc<dyn Handler>) -> io::Result<Self> {
        let path = state.join(SOCKET_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = bind_private(&path)?;
        let clients = Arc::new(AtomicUsize::new(0));
        let busy = Arc::new(AtomicUsize::new(0));
        let served = Arc::clone(&busy);
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || accept(&listener, &handler, &clients, &served))?;
        Ok(Self { path, busy })
    }

    /// Takes the socket away, so that no new client comes.
    pub fn close(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket could not be removed");
        }
    }

    /// Waits until no request is being carried out, for at most `patience`.
    pub fn settle(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.busy.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Binds under another name, restricts the mode, then moves it to its place: at no moment can others connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let unborn = path.with_extension("sock.new");
    match std::fs::remove_file(&unborn) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&unborn)?;
    std::fs::set_permissions(&unborn, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unborn, path)?;
    Ok(listener)
}

fn accept(
    listener: &UnixListener,
    handler: &Arc<dyn Handler>,
    clients: &Arc<AtomicUsize>,
    busy: &Arc<AtomicUsize>,
) {
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, most likely: wait for others to close instead of spinning.
                tracing::warn!(%error, "control connection not accepted");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::Relaxed);
            let busy = Failure::failed(format!(
                "{CLIENTS_MAX} control clients are connected already"
            ))
            .advise("end some of them ('events --follow' counts) and try again");
            // It is refused in any case; whether it hears why is up to it.
            let _ = write_line(&mut &stream, &Frame::Error(busy));
            continue;
        }
        let handler = Arc::clone(handler);
        let count = Arc::clone(clients);
        let busy = Arc::clone(busy);
        let spawned = thread::Builder::new()
            .name("control-client".to_owned())
            .spawn(move || {
                if let Err(error) = converse(&stream, handler.as_ref(), &busy) {
                    tracing::debug!(%error, "control client gone");
                }
                count.fetch_sub(1, Ordering::Relaxed);
            });
        if let Err(error) = spawned {
            clients.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "no thread for a control client");
        }
    }
}

struct StreamSink<'a>(&'a UnixStream);

impl Sink for StreamSink<'_> {
    fn send(&mut self, frame: &Frame) -> io::Result<()> {
        write_line(&mut self.0, frame)
    }

    fn is_gone(&self) -> bool {
        let mut byte = [0_u8];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(self.0, &mut byte[..], flags) {
            // The end of the client's requests: nobody reads what would be sent.
            Ok((0, _)) => true,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        }
    }
}

fn converse(
    stream: &UnixStream,
    handler: &dyn Handler,
    busy: &AtomicUsize,
) -> Result<(), LineError> {
    let credentials = socket_peercred(stream).map_err(io::Error::from)?;
    let operator = Operator::Local {
        uid: credentials.uid.as_raw(),
        pid: credentials.pid.as_raw_nonzero().get().unsigned_abs(),
    };
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut sink = StreamSink(stream);
    loop {
        let read = read_line(&mut reader);
        if !turn(read, handler, &operator, &mut sink, busy, |_| Ok(()))? {
            return Ok(());
        }
    }
}

/// One request of a conversation, from the line that was read to the answer that was sent; false at the end of the conversation.
/// `permits` says whether this client may ask for this.
pub(crate) fn turn(
    read: Result<Option<serde_json::Value>, LineError>,
    handler: &dyn Handler,
    operator: &Operator,
    sink: &mut dyn Sink,
    busy: &AtomicUsize,
    permits: impl FnOnce(&Request) -> Result<(), Failure>,
) -> Result<bool, LineError> {
    let value = match read {
        Ok(None) => return Ok(false),
        Ok(Some(value)) => value,
        Err(LineError::Io(error)) => return Err(error.into()),
        Err(error) => {
            // The stream is out of step: say so and hang up.
            let failure = Failure::usage(error.to_string());
            sink.send(&Frame::Error(failure))?;
            return Ok(false);
        }
    };
    busy.fetch_add(1, Ordering::Relaxed);
    let result = understand(value).and_then(|request| {
        permits(&request)?;
        handler.handle(request, operator, sink)
    });
    let last = match result {
        Ok(answer) => Frame::Answer(answer),
        Err(failure) => Frame::Error(failure),
    };
    let sent = sink.send(&last);
    busy.fetch_sub(1, Ordering::Relaxed);
    sent?;
    Ok(true)
}

fn understand(value: serde_json::Value) -> Result<Request, Failure> {
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(PROTOCOL_VERSION)) {
        return Err(Failure::usage(format!(
            "the daemon speaks version {PROTOCOL_VERSION} of the control protocol, the client {}",
            version.map_or_else(|| "none".to_owned(), |v| v.to_string())
        ))
        .advise(
            "use a command line of the daemon's version, or restart the daemon after an upgrade",
        ));
    }
    match serde_json::from_value::<Envelope>(value) {
        Ok(envelope) => Ok(envelope.request),
        Err(error) => Err(Failure::usage(format!(
            "the request is not understood: {error}"
        ))),
    }
}
