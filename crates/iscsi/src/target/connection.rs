//! The state of a target connection and what the driver and the application see of it.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::config::Config;
use super::event::{CloseReason, Event, Fatal};
use super::login::Login;
use super::receive::{Incoming, Request};
use super::response::LoginStatus;
use super::task::TaskTable;
use super::text_exchange::TextExchange;
use crate::frame::{Framer, Limits};
use crate::output::Output;
use crate::parameters::{DEFAULT_DATA_SEGMENT_BYTES, SessionParameters};
use crate::pdu::{self, BHS_BYTES};

/// The most additional header segments taken in the full feature phase, in bytes: an extended CDB and a length.
const MAX_AHS_BYTES: u32 = 272;

/// Where a connection is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// Login Requests come in.
    Login(Box<Login>),
    /// The application is deciding about the login; the last Login Request is kept for the response.
    Deciding(Box<Login>, pdu::LoginRequest),
    FullFeature,
    /// A Logout Request was received (its task tag is kept); nothing is taken any more.
    LoggingOut(u32),
    Closed,
}

/// The numbers of RFC 7143 4.2.2.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// The StatSN of the next response.
    pub stat_sn: u32,
    pub exp_cmd_sn: u32,
    /// Never goes back.
    pub max_cmd_sn: u32,
}

/// The target's end of one TCP connection, from its first byte to its last.
#[derive(Debug)]
pub struct Connection {
    pub(super) config: Arc<Config>,
    pub(super) phase: Phase,
    /// A Login Request has come.
    pub(super) begun: bool,
    pub(super) parameters: SessionParameters,
    /// The connection identifier, from the login.
    pub(super) cid: u16,
    /// The target that was logged in to.
    pub(super) target_name: Option<String>,
    /// Who the initiator of a refused login said it is.
    refused_name: Option<String>,
    pub(super) framer: Framer,
    pub(super) incoming: Incoming,
    pub(super) out: Output,
    pub(super) events: VecDeque<Event>,
    pub(super) numbers: Numbering,
    pub(super) tasks: TaskTable,
    /// Task management requests that the application has not answered.
    pub(super) management: Vec<u32>,
    /// Requests that came before others they must wait for, by CmdSN.
    pub(super) held: BTreeMap<u32, Request>,
    /// The data bytes in `held`.
    pub(super) held_bytes: usize,
    /// Tasks in `Stage::Waiting`, first come first served.
    pub(super) waiting: VecDeque<u32>,
    /// Bytes charged to tasks, against `Config::data_budget_bytes`.
    pub(super) charged: usize,
    pub(super) next_ttt: u32,
    pub(super) text: TextExchange,
    pub(super) last_heard: Instant,
    /// The login must be complete by then; `None` afterwards.
    pub(super) login_deadline: Option<Instant>,
    /// When the unanswered ping was sent.
    pub(super) pinged: Option<Instant>,
}

/// Feeding and draining.
impl Connection {
    /// A connection that was just accepted. `challenge_seed` is 32 random bytes from the operating system, from
    /// which the CHAP challenge is derived; they must not be used for anything else.
    pub fn new(config: Arc<Config>, challenge_seed: [u8; 32], now: Instant) -> Self {
        Self {
            phase: Phase::Login(Box::new(Login::new(&config, challenge_seed))),
            begun: false,
            login_deadline: now.checked_add(config.login_timeout),
            config,
            parameters: SessionParameters::default(),
            cid: 0,
            target_name: None,
            refused_name: None,
            framer: Framer::new(Limits {
                data_bytes: DEFAULT_DATA_SEGMENT_BYTES,
                ahs_bytes: 0,
            }),
            incoming: Incoming::Discard,
            out: Output::default(),
            events: VecDeque::new(),
            numbers: Numbering::default(),
            tasks: TaskTable::default(),
            management: Vec::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            waiting: VecDeque::new(),
            charged: 0,
            next_ttt: 0,
            text: TextExchange::default(),
            last_heard: now,
            pinged: None,
        }
    }

    /// Takes bytes as they come from the socket, all of them.
    ///
    /// # Errors
    /// The stream cannot go on; [`Event::Closed`] is queued. Send what [`poll_transmit`](Self::poll_transmit) still
    /// gives, then close.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), Fatal> {
        if self.is_closed() {
            return Err(Fatal::Closed);
        }
        if !bytes.is_empty() {
            self.last_heard = now;
            self.pinged = None;
        }
        self.take_apart(bytes).inspect_err(|fatal| {
            if !self.is_closed() {
                self.close(CloseReason::Fatal(*fatal));
            }
        })
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Moves queued output to the end of `chunks`, whole chunks until `limit_bytes` is reached or passed, and
    /// returns the number of bytes moved (0: nothing to send). Chunks are to be sent in order (by writev).
    pub fn poll_transmit(&mut self, chunks: &mut VecDeque<Bytes>, limit_bytes: usize) -> usize {
        self.out.poll(chunks, limit_bytes)
    }

    /// Bytes waiting in the transmit queue. A driver stops receiving while this is large (an initiator that
    /// sends commands and reads no answers).
    pub fn transmit_pending_bytes(&self) -> usize {
        self.out.pending_bytes()
    }

    /// Bytes held for the data of tasks and of requests that wait for others (of `Config::data_budget_bytes`).
    pub fn buffered_bytes(&self) -> usize {
        self.charged + self.held_bytes
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, if nothing else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Login(_) | Phase::Deciding(..) => self.login_deadline,
            Phase::FullFeature => match self.pinged {
                Some(sent) => sent.checked_add(self.config.ping_timeout),
                None => self.last_heard.checked_add(self.config.ping_interval?),
            },
            Phase::LoggingOut(_) | Phase::Closed => None,
        }
    }

    /// Tells the time: pings a silent initiator, gives up a dead one or a login that takes too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        match (&self.phase, self.pinged) {
            (Phase::Login(_) | Phase::Deciding(..), _) => self.close(CloseReason::LoginTimeout),
            (Phase::FullFeature, Some(_)) => self.close(CloseReason::PeerDead),
            (Phase::FullFeature, None) => self.ping(now),
            (Phase::LoggingOut(_) | Phase::Closed, _) => {}
        }
    }

    /// What was agreed at login; `None` before.
    pub fn parameters(&self) -> Option<&SessionParameters> {
        match self.phase {
            Phase::FullFeature | Phase::LoggingOut(_) => Some(&self.parameters),
            Phase::Login(_) | Phase::Deciding(..) | Phase::Closed => None,
        }
    }

    /// The InitiatorName of a login that this connection refused by itself, if it came so far; not proved.
    pub fn refused_name(&self) -> Option<&str> {
        self.refused_name.as_deref()
    }

    /// True once the connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Ends the connection: forgets all tasks and announces it.
    pub(super) fn close(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed;
        self.incoming = Incoming::Discard;
        self.tasks.clear();
        self.held.clear();
        self.waiting.clear();
        self.management.clear();
        self.charged = 0;
        self.held_bytes = 0;
        self.events.push_back(Event::Closed(reason));
    }
}

/// The login phase.
impl Connection {
    /// Takes a Login Request.
    pub(super) fn login(&mut self, request: Request) -> Result<(), Fatal> {
        let pdu = pdu::LoginRequest(request.header);
        let Phase::Login(login) = &mut self.phase else {
            return Err(Fatal::NotLoggedIn);
        };
        if !self.begun {
            self.begun = true;
            // RFC 7143 4.2.2.1, 11.12.8: the first CmdSN and StatSN of the session are the initiator's. StatSN starts
            // at 1 or what it expects.
            self.numbers.exp_cmd_sn = pdu.cmd_sn();
            self.numbers.max_cmd_sn = pdu.cmd_sn().wrapping_sub(1);
            self.numbers.stat_sn = pdu.exp_stat_sn().max(1);
        }
        match login.request(&pdu, &request.data, &self.config) {
            Ok(super::login::Answer::Respond { flags, text }) => {
                self.send_login_response(&pdu, flags, 0, LoginStatus::SUCCESS, &text);
                Ok(())
            }
            Ok(super::login::Answer::AskApplication) => {
                let Phase::Login(login) = std::mem::replace(&mut self.phase, Phase::Closed) else {
                    return Err(Fatal::NotLoggedIn);
                };
                let question = login.application_request();
                self.cid = pdu.cid();
                self.target_name = question.as_ref().and_then(|q| q.target_name.clone());
                self.phase = Phase::Deciding(login, pdu);
                self.events.extend(question.map(Event::LoginRequest));
                Ok(())
            }
            Err(status) => {
                self.refused_name = login.initiator_name().map(str::to_owned);
                self.refuse_login(&pdu, status);
                Err(Fatal::LoginRefused)
            }
        }
    }

    /// Answers [`Event::LoginRequest`]: the session begins with the given TSIH. For discovery sessions any TSIH will do.
    pub fn accept_login(&mut self, tsih: NonZeroU16) {
        let (mut login, request) = match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Deciding(login, request) => (login, request),
            other => {
                self.phase = other;
                return;
            }
        };
        let (flags, text) = login.final_response();
        self.parameters = login.parameters().clone();
        self.phase = Phase::FullFeature;
        self.login_deadline = None;
        self.send_login_response(&request, flags, tsih.get(), LoginStatus::SUCCESS, &text);
        // Digests begin with the first PDU after the login phase (RFC 7143 13.1).
        let parameters = &self.parameters;
        self.out.header_digest = parameters.header_digest;
        self.out.data_digest = parameters.data_digest;
        self.framer.header_digest = parameters.header_digest;
        self.framer.data_digest = parameters.data_digest;
        self.framer.limits = Limits {
            data_bytes: parameters.own_max_recv_data_segment_length_bytes,
            ahs_bytes: MAX_AHS_BYTES,
        };
        let parameters = Box::new(parameters.clone());
        self.events.push_back(Event::SessionEstablished(parameters));
    }

    /// Answers [`Event::LoginRequest`]: refused.
    pub fn reject_login(&mut self, status: LoginStatus) {
        if let Phase::Deciding(_, request) = &self.phase {
            let request = *request;
            self.refuse_login(&request, status);
        }
    }

    fn refuse_login(&mut self, request: &pdu::LoginRequest, status: LoginStatus) {
        self.send_login_response(request, 0, request.tsih(), status, &[]);
        self.close(CloseReason::LoginRefused(status));
    }

    fn send_login_response(
        &mut self,
        request: &pdu::LoginRequest,
        flags: u8,
        tsih: u16,
        status: LoginStatus,
        text: &[u8],
    ) {
        let response = pdu::LoginResponse::new()
            .set_flags(flags)
            .set_isid(request.isid())
            .set_tsih(if tsih == 0 { request.tsih() } else { tsih })
            .set_itt(request.itt())
            .set_status_class(status.class)
            .set_status_detail(status.detail);
        self.send_copied(response.0, text);
    }
}

/// Sending.
impl Connection {
    /// Sends a PDU that uses up a StatSN, with little data.
    pub(super) fn send_copied(&mut self, mut header: [u8; BHS_BYTES], data: &[u8]) {
        self.stamp(&mut header, true);
        self.out.push_copied(header, data);
    }

    /// Fills in StatSN, ExpCmdSN and MaxCmdSN, which lie at the same place in all responses (RFC 7143 11.4).
    pub(super) fn stamp(&mut self, header: &mut [u8; BHS_BYTES], uses_stat_sn: bool) {
        self.refresh_window();
        let numbers = &mut self.numbers;
        header[24..28].copy_from_slice(&numbers.stat_sn.to_be_bytes());
        header[28..32].copy_from_slice(&numbers.exp_cmd_sn.to_be_bytes());
        header[32..36].copy_from_slice(&numbers.max_cmd_sn.to_be_bytes());
        if uses_stat_sn {
            numbers.stat_sn = numbers.stat_sn.wrapping_add(1);
        }
    }

    /// Opens the command window as far as running tasks and the data budget allow; it never closes again
    /// (RFC 7143 4.2.2.1).
    fn refresh_window(&mut self) {
        let room = if self.charged > self.config.data_budget_bytes {
            0
        } else {
            let running = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
            self.config.command_window.saturating_sub(running)
        };
        // An idle connection always admits one command.
        let room = if self.tasks.is_empty() {
            room.max(1)
        } else {
            room
        };
        let last = self.numbers.exp_cmd_sn.wrapping_add(room).wrapping_sub(1);
        if crate::sequence::before(self.numbers.max_cmd_sn, last) {
            self.numbers.max_cmd_sn = last;
        }
    }

    /// A Target Transfer Tag that is not reserved.
    pub(super) fn new_ttt(&mut self) -> u32 {
        let ttt = self.next_ttt;
        self.next_ttt = match ttt.wrapping_add(1) {
            pdu::RESERVED_TAG => 0,
            next => next,
        };
        ttt
    }
}
