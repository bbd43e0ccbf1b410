//! The state of an initiator connection and what its driver sees of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::config::Config;
use super::event::{CloseReason, Command, Event, Fatal};
use super::login::Login;
use crate::frame::{Framer, Limits};
use crate::output::Output;
use crate::parameters::{DEFAULT_DATA_SEGMENT_BYTES, SessionParameters};
use crate::pdu::{self, BHS_BYTES};
use crate::sequence::before;

/// Where a connection is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    Login(Box<Login>),
    FullFeature,
    LoggingOut,
    Closed,
}

/// A command that has no response yet.
#[derive(Debug)]
pub(super) struct Task {
    pub cmd_sn: u32,
    pub lun: [u8; 8],
    pub data_out: Bytes,
    pub data_in: BytesMut,
    pub data_in_limit: u32,
    pub next_data_sn: u32,
    pub next_r2t_sn: u32,
}

/// What other requests wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    TaskManagement,
    Text,
    Nop,
    Logout,
}

/// The initiator's end of one TCP connection, from its first byte to its last.
#[derive(Debug)]
pub struct Connection {
    pub(super) config: Arc<Config>,
    pub(super) phase: Phase,
    pub(super) parameters: SessionParameters,
    pub(super) framer: Framer,
    /// The data segment that is coming in, unless it is Data-In of a task.
    pub(super) gather: BytesMut,
    pub(super) out: Output,
    pub(super) events: VecDeque<Event>,
    /// CmdSN of the next command.
    pub(super) cmd_sn: u32,
    pub(super) exp_stat_sn: u32,
    pub(super) exp_cmd_sn: u32,
    pub(super) max_cmd_sn: u32,
    pub(super) next_itt: u32,
    pub(super) tasks: HashMap<u32, Task>,
    pub(super) requests: HashMap<u32, Request>,
    /// Commands that wait for the command window.
    pub(super) queued: VecDeque<(u32, Command)>,
    /// Text of SendTargets that continues.
    pub(super) text: Vec<u8>,
    pub(super) last_heard: Instant,
    pub(super) login_deadline: Option<Instant>,
    pub(super) pinged: Option<Instant>,
}

/// Feeding and draining.
impl Connection {
    /// A connection that was just opened; the first Login Request is queued. `challenge_seed` is 32 random bytes from
    /// the operating system, from which the challenge of mutual CHAP is derived.
    pub fn new(config: Arc<Config>, challenge_seed: [u8; 32], now: Instant) -> Self {
        let mut connection = Self {
            phase: Phase::Closed,
            parameters: SessionParameters::default(),
            framer: Framer::new(Limits {
                data_bytes: DEFAULT_DATA_SEGMENT_BYTES,
                ahs_bytes: 0,
            }),
            gather: BytesMut::new(),
            out: Output::default(),
            events: VecDeque::new(),
            cmd_sn: 1,
            exp_stat_sn: 0,
            exp_cmd_sn: 1,
            max_cmd_sn: 0,
            next_itt: 0,
            tasks: HashMap::new(),
            requests: HashMap::new(),
            queued: VecDeque::new(),
            text: Vec::new(),
            last_heard: now,
            login_deadline: now.checked_add(config.login_timeout),
            pinged: None,
            config,
        };
        let mut login = Box::new(Login::new(&connection.config, challenge_seed));
        let first = login.first_request(&connection.config);
        connection.phase = Phase::Login(login);
        connection.send_login(first);
        connection
    }

    /// Takes bytes as they come from the socket, all of them.
    ///
    /// # Errors
    /// The connection cannot go on; [`Event::Closed`] is queued.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Fatal> {
        if matches!(self.phase, Phase::Closed) {
            return Err(Fatal::Closed);
        }
        if !bytes.is_empty() {
            self.last_heard = now;
            self.pinged = None;
        }
        self.take_apart(bytes).inspect_err(|fatal| {
            self.close(match fatal {
                Fatal::LoginRefused(status) => CloseReason::LoginRefused(*status),
                fatal => CloseReason::Fatal(*fatal),
            });
        })
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Moves queued output to the end of `chunks`, whole chunks until `limit_bytes` is reached or passed, and
    /// returns the number of bytes moved (0: nothing to send).
    pub fn poll_transmit(&mut self, chunks: &mut VecDeque<Bytes>, limit_bytes: usize) -> usize {
        self.out.poll(chunks, limit_bytes)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Login(_) => self.login_deadline,
            Phase::FullFeature => match self.pinged {
                Some(sent) => sent.checked_add(self.config.ping_timeout),
                None => self.last_heard.checked_add(self.config.ping_interval?),
            },
            Phase::LoggingOut | Phase::Closed => None,
        }
    }

    /// Tells the time: pings a silent target, gives up a dead one or a login that takes too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        match (&self.phase, self.pinged) {
            (Phase::Login(_), _) => self.close(CloseReason::LoginTimeout),
            (Phase::FullFeature, Some(_)) => self.close(CloseReason::PeerDead),
            (Phase::FullFeature, None) => {
                self.pinged = Some(now);
                self.ping_with(&[]);
            }
            (Phase::LoggingOut | Phase::Closed, _) => {}
        }
    }

    /// What was agreed at login; `None` before.
    pub fn parameters(&self) -> Option<&SessionParameters> {
        matches!(self.phase, Phase::FullFeature).then_some(&self.parameters)
    }

    /// True once the connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Commands submitted and not completed.
    pub fn outstanding(&self) -> usize {
        self.tasks.len() + self.queued.len()
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.phase = Phase::Closed;
            self.tasks.clear();
            self.queued.clear();
            self.requests.clear();
            self.events.push_back(Event::Closed(reason));
        }
    }

    /// A tag that nothing outstanding has.
    pub(super) fn new_itt(&mut self) -> u32 {
        loop {
            let itt = self.next_itt;
            self.next_itt = self.next_itt.wrapping_add(1);
            let taken = itt == pdu::RESERVED_TAG
                || self.tasks.contains_key(&itt)
                || self.requests.contains_key(&itt)
                || self.queued.iter().any(|(queued, _)| *queued == itt);
            if !taken {
                return itt;
            }
        }
    }

    /// Takes over the command window that a response carries (RFC 7143 4.2.2.1).
    pub(super) fn update_window(&mut self, exp_cmd_sn: u32, max_cmd_sn: u32) {
        if before(max_cmd_sn, exp_cmd_sn.wrapping_sub(1)) {
            return;
        }
        if before(self.exp_cmd_sn, exp_cmd_sn) {
            self.exp_cmd_sn = exp_cmd_sn;
        }
        if before(self.max_cmd_sn, max_cmd_sn) {
            self.max_cmd_sn = max_cmd_sn;
        }
    }

    /// Fills in CmdSN and ExpStatSN, at the same place in all requests that have them.
    pub(super) fn stamp(&mut self, header: &mut [u8; BHS_BYTES]) {
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        header[28..32].copy_from_slice(&self.exp_stat_sn.to_be_bytes());
        if header[0] & pdu::IMMEDIATE == 0 {
            self.cmd_sn = self.cmd_sn.wrapping_add(1);
        }
    }
}
