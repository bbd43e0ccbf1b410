//! The state machine of a target connection.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{
    AsyncEvent, Config, DiscoveredTarget, Event, Fatal, LoginStatus, ScsiResponse,
    SessionParameters, TaskResponse, UnknownTask,
};

/// The target's end of one TCP connection, from its first byte to its last.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    events: VecDeque<Event>,
    transmit: VecDeque<Bytes>,
    parameters: Option<Box<SessionParameters>>,
}

/// Feeding and draining.
impl Connection {
    /// A connection that was just accepted. `challenge_seed` is 32 random bytes from the operating system, from
    /// which CHAP challenges are derived.
    pub fn new(config: Arc<Config>, challenge_seed: [u8; 32], now: Instant) -> Self {
        let _ = (challenge_seed, now);
        Self {
            config,
            events: VecDeque::new(),
            transmit: VecDeque::new(),
            parameters: None,
        }
    }

    /// Takes bytes as they come from the socket, all of them.
    ///
    /// # Errors
    /// The stream cannot go on; `Event::Closed` is queued. Send what [`poll_transmit`](Self::poll_transmit) still
    /// gives, then close.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Fatal> {
        let _ = (bytes, now, &self.config);
        Err(Fatal::Closed)
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Moves queued output to the end of `chunks`, whole chunks until `limit_bytes` is reached or passed, and
    /// returns the number of bytes moved (0: nothing to send). Chunks are to be sent in order (by writev).
    pub fn poll_transmit(&mut self, chunks: &mut VecDeque<Bytes>, limit_bytes: usize) -> usize {
        let mut moved = 0;
        while moved < limit_bytes {
            let Some(chunk) = self.transmit.pop_front() else {
                break;
            };
            moved += chunk.len();
            chunks.push_back(chunk);
        }
        moved
    }

    /// Bytes waiting in the transmit queue. A driver stops receiving while this is large (an initiator that
    /// sends commands and reads no answers).
    pub fn transmit_pending_bytes(&self) -> usize {
        self.transmit.iter().map(Bytes::len).sum()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Tells the time: pings a silent initiator, gives up a dead one or a login that takes too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// What was agreed at login; `None` before.
    pub fn parameters(&self) -> Option<&SessionParameters> {
        self.parameters.as_deref()
    }

    /// True once the connection is over.
    pub fn is_closed(&self) -> bool {
        true
    }
}

/// Answers to events, and what the application starts by itself.
impl Connection {
    /// Answers `Event::LoginRequest`: the session begins with the given TSIH. For discovery sessions any TSIH will do.
    pub fn accept_login(&mut self, tsih: NonZeroU16) {
        let _ = tsih;
    }

    /// Answers `Event::LoginRequest`: refused.
    pub fn reject_login(&mut self, status: LoginStatus) {
        let _ = status;
    }

    /// Asks for the data of a command: the first `wanted_bytes` of it, or all if there is less. R2Ts are sent as the
    /// budget permits; `Event::CommandData` follows when all data is here (at once for immediate data).
    ///
    /// # Errors
    /// The task is gone, or has no data to write, or was accepted before.
    pub fn accept_write(&mut self, itt: u32, wanted_bytes: u64) -> Result<(), UnknownTask> {
        let _ = (itt, wanted_bytes);
        Err(UnknownTask)
    }

    /// Ends a task. Data still under way to the target is swallowed.
    ///
    /// # Errors
    /// The task is gone; nothing is sent.
    pub fn respond(&mut self, itt: u32, response: ScsiResponse) -> Result<(), UnknownTask> {
        let _ = (itt, response);
        Err(UnknownTask)
    }

    /// Forgets a task without a response (it was aborted by task management with TAS=0 or by its own session).
    /// Returns false when it was gone already.
    pub fn abort_task(&mut self, itt: u32) -> bool {
        let _ = itt;
        false
    }

    /// Answers `Event::TaskManagement`.
    ///
    /// # Errors
    /// No such request is waiting.
    pub fn respond_task_management(
        &mut self,
        itt: u32,
        response: TaskResponse,
    ) -> Result<(), UnknownTask> {
        let _ = (itt, response);
        Err(UnknownTask)
    }

    /// Answers `Event::SendTargets`.
    pub fn answer_send_targets(&mut self, targets: &[DiscoveredTarget]) {
        let _ = targets;
    }

    /// Answers `Event::Logout`, after the application has ended all tasks.
    pub fn respond_logout(&mut self) {}

    /// Sends an Asynchronous Message (RFC 7143 11.9); ignored before login and after logout.
    pub fn send_async_message(&mut self, event: AsyncEvent) {
        let _ = event;
    }

    /// Sends a NOP-In ping now (RFC 7143 11.19), unless one is outstanding.
    pub fn ping(&mut self, now: Instant) {
        let _ = now;
    }
}
