//! The client end of the control socket.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::line::{LineError, read_line, write_line};
use super::protocol::{Answer, Envelope, Frame, Request};
use crate::failure::{Failure, FailureKind};

/// The name of the socket in the state directory.
pub const SOCKET_NAME: &str = "control.sock";

/// A connection to a running daemon.
pub struct Client {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    state: PathBuf,
}

impl Client {
    /// Connects to the daemon of the state directory `state`. Fails with [`FailureKind::Unreachable`] when there
    /// is none, and says how to start it.
    pub fn connect(state: &Path) -> Result<Self, Failure> {
        let path = state.join(SOCKET_NAME);
        let connected = UnixStream::connect(&path)
            .and_then(|stream| stream.try_clone().map(|read_half| (stream, read_half)));
        match connected {
            Ok((stream, read_half)) => Ok(Self {
                stream,
                reader: BufReader::new(read_half),
                state: state.to_owned(),
            }),
            Err(error) => Err(unreachable(state, &error)),
        }
    }

    /// Sends `request` and waits for its answer. Events and progress on the way are given to `on_frame`; when
    /// that returns false the request is left, and [`Answer::Done`] comes back.
    pub fn request(
        &mut self,
        request: Request,
        mut on_frame: impl FnMut(Frame) -> bool,
    ) -> Result<Answer, Failure> {
        write_line(&mut self.stream, &Envelope::new(request)).map_err(|e| self.lost(&e.into()))?;
        loop {
            match read_line::<Frame>(&mut self.reader) {
                Ok(Some(Frame::Answer(answer))) => return Ok(answer),
                Ok(Some(Frame::Error(failure))) => return Err(failure),
                Ok(Some(frame)) => {
                    if !on_frame(frame) {
                        return Ok(Answer::Done);
                    }
                }
                Ok(None) => return Err(self.lost(&LineError::Unfinished)),
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    /// [`Client::request`] for requests that answer at once.
    pub fn ask(&mut self, request: Request) -> Result<Answer, Failure> {
        self.request(request, |_| true)
    }

    fn lost(&self, error: &LineError) -> Failure {
        match error {
            LineError::Malformed(inner) => Failure::failed(format!(
                "the daemon's answer is not understood ({inner})"
            ))
            .advise("command line and daemon should be of the same version: restart the daemon after an upgrade"),
            other => Failure::new(
                FailureKind::Unreachable,
                format!("the daemon went away before it answered ({other})"),
            )
            .advise(format!(
                "whether the operation was carried out is not known: look at the daemon's log, start it again if it is gone ({}), then list the object",
                serve_command(&self.state)
            )),
        }
    }
}

/// The command that starts a daemon on `state`.
pub fn serve_command(state: &Path) -> String {
    if state == Path::new(crate::cli::DEFAULT_STATE) {
        "ringfence serve, or systemctl start ringfence".to_owned()
    } else {
        format!("ringfence serve --state {}", state.display())
    }
}

fn unreachable(state: &Path, error: &io::Error) -> Failure {
    let socket = state.join(SOCKET_NAME);
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Failure::new(
            FailureKind::Unreachable,
            format!(
                "no permission to use the control socket {}",
                socket.display()
            ),
        )
        .advise("run the command as the user that runs the daemon, usually root");
    }
    Failure::new(
        FailureKind::Unreachable,
        format!("no daemon is running on {}", state.display()),
    )
    .advise(format!(
        "start it with: {}; or name the state directory of a running one with --state DIR or RINGFENCE_STATE",
        serve_command(state)
    ))
}

/// The answer was of another kind than asked for: the daemon is broken or of another version.
pub fn unexpected(answer: &Answer) -> Failure {
    Failure::failed(format!("the daemon gave an unexpected answer: {answer:?}"))
        .advise("command line and daemon should be of the same version: restart the daemon after an upgrade")
}
