//! A session: one connection, driven by the calls made on it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iscsi::initiator::{AsyncMessage, CloseReason, Command, Completion, Config, Connection, Event};
use iscsi::initiator::{DiscoveredTarget, SessionParameters, TaskFunction};
use scsi::Lun;

use crate::error::{CommandError, Error};
use crate::socket::Socket;

/// How long a call waits unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Size of the receive buffer in bytes.
const RECEIVE_BYTES: usize = 256 * 1024;

/// How much output is taken from the connection at a time, in bytes.
const TRANSMIT_BYTES: usize = 1024 * 1024;

/// An iSCSI session with a target.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    socket: Socket,
    buffer: Box<[u8]>,
    timeout: Duration,
    tsih: u16,
    completions: VecDeque<Completion>,
    management: VecDeque<(u32, u8)>,
    targets: VecDeque<Vec<DiscoveredTarget>>,
    rejects: VecDeque<u8>,
    pongs: usize,
    messages: VecDeque<AsyncMessage>,
    closed: Option<CloseReason>,
}

/// Opening, closing, driving.
impl Session {
    /// Connects to a portal and logs in.
    ///
    /// # Errors
    /// The portal cannot be reached, the login is refused ([`Error::Fatal`]) or takes too long.
    pub fn connect(portal: SocketAddr, config: Config) -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| std::io::Error::other(error.to_string()))?;
        let socket = Socket::connect(portal, config.login_timeout)?;
        let login_timeout = config.login_timeout;
        let mut session = Self {
            connection: Connection::new(Arc::new(config), seed, Instant::now()),
            socket,
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            timeout: DEFAULT_TIMEOUT,
            tsih: 0,
            completions: VecDeque::new(),
            management: VecDeque::new(),
            targets: VecDeque::new(),
            rejects: VecDeque::new(),
            pongs: 0,
            messages: VecDeque::new(),
            closed: None,
        };
        session.drive_until(login_timeout, |session| {
            session.connection.parameters().map(|_| ())
        })?;
        Ok(session)
    }

    /// How long calls wait for their answer (30 seconds unless set).
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The session handle that the target gave.
    pub fn tsih(&self) -> u16 {
        self.tsih
    }

    /// What was agreed at login; `None` once the session is over.
    pub fn parameters(&self) -> Option<&SessionParameters> {
        self.connection.parameters()
    }

    /// The addresses of this end and of the target.
    ///
    /// # Errors
    /// The socket is not connected any more.
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr), Error> {
        Ok(self.socket.addresses()?)
    }

    /// Logs out and closes.
    ///
    /// # Errors
    /// The target did not answer; the connection is closed all the same.
    pub fn logout(mut self) -> Result<(), Error> {
        self.connection.logout();
        let timeout = self.timeout;
        self.drive_until(timeout, |session| session.closed)?;
        Ok(())
    }

    /// Receives and answers what comes (pings, asynchronous messages) for a while.
    ///
    /// # Errors
    /// The session is over.
    pub fn serve(&mut self, duration: Duration) -> Result<(), Error> {
        match self.drive_until(duration, |_| None::<()>) {
            Err(Error::Timeout) => Ok(()),
            other => other,
        }
    }

    /// Asynchronous messages that have come, oldest first.
    pub fn next_async_message(&mut self) -> Option<AsyncMessage> {
        self.messages.pop_front()
    }

    /// Drives the connection until `done` gives something.
    fn drive_until<T>(
        &mut self,
        timeout: Duration,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            self.take_events();
            self.send()?;
            if let Some(result) = done(self) {
                return Ok(result);
            }
            if let Some(reason) = self.closed {
                return Err(Error::Closed(reason));
            }
            if let Some(reason) = self.rejects.pop_front() {
                return Err(Error::Rejected(reason));
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Error::Timeout);
            }
            self.connection.handle_timeout(now);
            match self.socket.read(&mut self.buffer, deadline)? {
                None => {}
                Some(0) => return Err(Error::Disconnected),
                Some(length) => self
                    .connection
                    .receive(&self.buffer[..length], Instant::now())?,
            }
        }
    }

    /// Hands output to the socket as far as it takes it.
    fn send(&mut self) -> Result<(), Error> {
        loop {
            self.socket.write()?;
            let room = self.socket.pending.is_empty();
            if !room
                || self
                    .connection
                    .poll_transmit(&mut self.socket.pending, TRANSMIT_BYTES)
                    == 0
            {
                return Ok(());
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::LoggedIn { tsih, .. } => self.tsih = tsih,
                Event::Completed(completion) => self.completions.push_back(completion),
                Event::TaskManagement { itt, response } => {
                    self.management.push_back((itt, response));
                }
                Event::Targets(targets) => self.targets.push_back(targets),
                Event::Pong(_) => self.pongs += 1,
                Event::Async(message) => self.messages.push_back(message),
                Event::Rejected { reason, .. } => self.rejects.push_back(reason),
                Event::Closed(reason) => self.closed = Some(reason),
            }
        }
    }
}

/// Commands.
impl Session {
    /// Runs a command to its end, whatever its status. Completions of other commands are kept for
    /// [`next_completion`](Self::next_completion).
    ///
    /// # Errors
    /// The session is over, or there is no answer in time.
    pub fn execute(&mut self, command: Command) -> Result<Completion, Error> {
        let itt = self.submit(command)?;
        let timeout = self.timeout;
        self.drive_until(timeout, |session| {
            let index = session
                .completions
                .iter()
                .position(|done| done.itt == itt)?;
            session.completions.remove(index)
        })
    }

    /// Runs a command that must end with GOOD.
    ///
    /// # Errors
    /// [`Error::Command`] for any other status; otherwise as [`execute`](Self::execute).
    pub fn command(
        &mut self,
        lun: Lun,
        cdb: &[u8],
        data_out: Bytes,
        data_in_length_bytes: u32,
    ) -> Result<Completion, Error> {
        let completion = self.execute(Command {
            lun: lun.encode(),
            cdb: Bytes::copy_from_slice(cdb),
            data_out,
            data_in_length_bytes,
            ..Command::default()
        })?;
        CommandError::check(&completion)?;
        Ok(completion)
    }

    /// Sends a command without waiting for its end; gives the tag that its completion will have.
    ///
    /// # Errors
    /// The socket failed.
    pub fn submit(&mut self, command: Command) -> Result<u32, Error> {
        let itt = self.connection.submit(command);
        self.send()?;
        Ok(itt)
    }

    /// Waits for the next command to end, in the order in which the target ends them.
    ///
    /// # Errors
    /// The session is over, or none ends in time.
    pub fn next_completion(&mut self) -> Result<Completion, Error> {
        let timeout = self.timeout;
        self.drive_until(timeout, |session| session.completions.pop_front())
    }

    /// Commands that have been submitted and whose completion has not been taken.
    pub fn outstanding(&self) -> usize {
        self.connection.outstanding() + self.completions.len()
    }

    /// Runs a task management function; gives the response (RFC 7143 11.6.1: 0 is complete, 1 no such task).
    ///
    /// # Errors
    /// The session is over, or there is no answer in time.
    pub fn task_management(
        &mut self,
        function: TaskFunction,
        lun: Lun,
        referenced_itt: Option<u32>,
    ) -> Result<u8, Error> {
        let itt = self
            .connection
            .task_management(function, lun.encode(), referenced_itt);
        let timeout = self.timeout;
        let response = self.drive_until(timeout, |session| {
            let index = session.management.iter().position(|(tag, _)| *tag == itt)?;
            session
                .management
                .remove(index)
                .map(|(_, response)| response)
        })?;
        if let (TaskFunction::AbortTask, 0, Some(aborted)) = (function, response, referenced_itt) {
            self.connection.forget(aborted);
        }
        Ok(response)
    }

    /// LOGICAL UNIT RESET.
    ///
    /// # Errors
    /// As [`task_management`](Self::task_management).
    pub fn logical_unit_reset(&mut self, lun: Lun) -> Result<u8, Error> {
        self.task_management(TaskFunction::LogicalUnitReset, lun, None)
    }

    /// Sends a NOP-Out with data and waits for its echo.
    ///
    /// # Errors
    /// The session is over, or there is no answer in time.
    pub fn ping(&mut self) -> Result<(), Error> {
        let before = self.pongs;
        self.connection.ping_with(b"ringfence");
        let timeout = self.timeout;
        self.drive_until(timeout, |session| (session.pongs > before).then_some(()))
    }

    /// Asks for targets: `All`, or a name (RFC 7143 Appendix C).
    ///
    /// # Errors
    /// The session is over, or there is no answer in time.
    pub fn send_targets(&mut self, which: &str) -> Result<Vec<DiscoveredTarget>, Error> {
        self.connection.send_targets(which);
        let timeout = self.timeout;
        self.drive_until(timeout, |session| session.targets.pop_front())
    }
}
