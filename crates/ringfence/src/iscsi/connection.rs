//! One connection, from accept to close.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::iscsi::target::{
    AsyncEvent, CloseReason, Command, Connection as Machine, Event, ScsiResponse, TaskManagement,
    TaskResponse,
};
use ::target::{DetachReason, NexusSession, Outcome, Request, Task};
use bytes::{Bytes, BytesMut};
use event_listener::EventListener;
use futures_lite::future;
use reactor::{Accepted, TcpStream, spawn_local};
use volume::block_device::BlockDevice;

use super::registry::{Ask, Entry};
use super::signal::Signal;
use super::{PortalInfo, Service, convert, login};

/// Room for one reception, in bytes.
const RECEIVE_BYTES: usize = 64 * 1024;
/// The most that is given to the socket at once, in bytes.
const SEND_BYTES: usize = 1024 * 1024;
/// Data for the initiator that is being read or waits to be sent, in bytes, above which no further command of it is
/// started.
const OUTGOING_LIMIT_BYTES: usize = 32 * 1024 * 1024;
/// Output, in bytes, above which it is sent before the next command is looked at.
const SEND_EARLY_BYTES: usize = 512 * 1024;
/// How long one send of at most [`SEND_BYTES`] may take before the initiator counts as dead.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// How long a closing connection tries to send its last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the initiator without logout")]
    PeerClosed,
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("logged out")]
    LoggedOut,
    #[error("login refused")]
    LoginRefused,
    #[error("login took too long")]
    LoginTimeout,
    #[error("the initiator does not answer any more")]
    PeerDead,
    #[error("protocol error: {0}")]
    Protocol(String),
    #[error("dropped by the operator")]
    Dropped,
    #[error("replaced by a new session, or the target was reset")]
    Stopped,
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::LoggedOut => End::LoggedOut,
            CloseReason::LoginRefused(_) => End::LoginRefused,
            CloseReason::LoginTimeout => End::LoginTimeout,
            CloseReason::PeerDead => End::PeerDead,
            CloseReason::Fatal(fatal) => End::Protocol(fatal.to_string()),
        }
    }
}

/// The session of a connection, from the answer to its login on.
struct Session<D: BlockDevice> {
    /// `None` for discovery.
    nexus: Option<Arc<NexusSession<D>>>,
    entry: Arc<Entry>,
    established: Cell<bool>,
}

struct Connection<D: BlockDevice> {
    service: Arc<Service<D>>,
    portal: PortalInfo,
    stream: TcpStream,
    machine: RefCell<Machine>,
    session: RefCell<Option<Rc<Session<D>>>>,
    /// The login was refused by the service, which has recorded it.
    turned_away: Cell<bool>,
    /// Commands whose data has not come yet, by ITT.
    waiting: RefCell<HashMap<u32, Task<D>>>,
    /// Commands that run and have not ended at once, by ITT. The number tells two users of one ITT apart.
    running: RefCell<HashMap<u32, u64>>,
    next_serial: Cell<u64>,
    /// Bytes that running commands may still add to the output.
    reading_bytes: Cell<usize>,
    sending: Cell<bool>,
    /// When the send that is under way began.
    send_began: Cell<Instant>,
    /// There is something to send.
    output: Signal,
    /// Output has been sent, or a command has ended.
    room: Signal,
    /// The watcher should look again at what it waits for.
    watched: Signal,
}

/// Serves a connection until it is over and its session is detached.
pub(super) async fn serve<D: BlockDevice>(
    service: Arc<Service<D>>,
    accepted: Accepted,
    index: usize,
) {
    let portal = service.portals[index];
    let peer = accepted.peer_addr();
    let mut seed = [0; 32];
    let stream = accepted.into_stream().and_then(|stream| {
        stream.set_nodelay(true)?;
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        Ok(stream)
    });
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, %peer, "connection lost at once");
            return;
        }
    };
    let machine = Machine::new(service.configs[index].clone(), seed, Instant::now());
    let connection = Rc::new(Connection {
        service,
        portal,
        stream,
        machine: RefCell::new(machine),
        session: RefCell::new(None),
        turned_away: Cell::new(false),
        waiting: RefCell::default(),
        running: RefCell::default(),
        next_serial: Cell::new(0),
        reading_bytes: Cell::new(0),
        sending: Cell::new(false),
        send_began: Cell::new(Instant::now()),
        output: Signal::default(),
        room: Signal::default(),
        watched: Signal::default(),
    });
    let end = {
        let reader = pin!(connection.read());
        let writer = pin!(connection.write());
        let watcher = pin!(connection.watch());
        future::or(reader, future::or(writer, watcher)).await
    };
    tracing::debug!(%end, %peer, "connection over");
    connection.close(end).await;
}

impl<D: BlockDevice> Connection<D> {
    /// Feeds the machine and acts upon what it tells.
    async fn read(self: &Rc<Self>) -> End {
        let mut buf = BytesMut::with_capacity(RECEIVE_BYTES);
        loop {
            buf.clear();
            let (received, returned) = self.stream.recv(buf).await;
            buf = returned;
            match received {
                Ok(0) => return End::PeerClosed,
                Ok(_) => {}
                Err(error) => return End::Socket(error),
            }
            let fatal = self.machine.borrow_mut().receive(&buf, Instant::now());
            if let Some(end) = self.dispatch().await {
                return end;
            }
            if let Err(error) = self.flush().await {
                return End::Socket(error);
            }
            if let Err(fatal) = fatal {
                return End::Protocol(fatal.to_string());
            }
        }
    }

    /// Sends what commands and timers add to the output while the reader waits for bytes.
    async fn write(&self) -> End {
        loop {
            self.output.wait().await;
            if let Err(error) = self.flush().await {
                return End::Socket(error);
            }
        }
    }

    /// Watches the clock, and those who want the session to end.
    async fn watch(self: &Rc<Self>) -> End {
        loop {
            let session = self.session.borrow().clone();
            // Listeners first, then a look, so that no call is missed.
            let mut calls: Vec<EventListener> = Vec::new();
            if let Some(session) = &session {
                calls.push(session.entry.event.listen());
                if let Some(nexus) = &session.nexus {
                    calls.push(nexus.stop_event().listen());
                    calls.push(nexus.abort_event().listen());
                }
            }
            if let Some(session) = &session {
                if session.nexus.as_ref().is_some_and(|n| n.stop_requested()) {
                    self.tell(AsyncEvent::SessionDrop {
                        time2wait_s: 0,
                        time2retain_s: 0,
                    });
                    return End::Stopped;
                }
                match session.entry.take_asked() {
                    Some(Ask::Drop) => {
                        self.tell(AsyncEvent::SessionDrop {
                            time2wait_s: 2,
                            time2retain_s: 0,
                        });
                        return End::Dropped;
                    }
                    Some(Ask::Logout { seconds }) => {
                        self.tell(AsyncEvent::LogoutRequest { timeout_s: seconds });
                    }
                    None => {}
                }
                self.end_aborted();
            }
            let deadline = self.machine.borrow().next_timeout();
            let timer = async {
                match deadline {
                    Some(deadline) => reactor::sleep_until(deadline).await,
                    None => future::pending().await,
                }
            };
            let called = any(&mut calls);
            future::or(timer, future::or(called, self.watched.wait())).await;
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) && !self.sending.get() {
                self.machine.borrow_mut().handle_timeout(now);
                if self.machine.borrow().is_closed() {
                    return self.dispatch().await.unwrap_or(End::PeerDead);
                }
                self.output.call();
            } else if self.sending.get() {
                // The initiator has bytes to fetch first: its silence does not count while it fetches them.
                if self.send_began.get().elapsed() > SEND_LIMIT {
                    return End::PeerDead;
                }
                reactor::sleep(Duration::from_millis(250)).await;
            }
        }
    }

    fn tell(&self, event: AsyncEvent) {
        self.machine.borrow_mut().send_async_message(event);
        self.output.call();
    }

    /// Acts upon everything the machine has to tell.
    async fn dispatch(self: &Rc<Self>) -> Option<End> {
        loop {
            let event = self.machine.borrow_mut().poll_event();
            match event {
                None => return None,
                Some(Event::Command(command)) => {
                    while self.outgoing_bytes() > OUTGOING_LIMIT_BYTES {
                        self.output.call();
                        self.room.wait().await;
                    }
                    self.command(command).await;
                    if self.machine.borrow().transmit_pending_bytes() > SEND_EARLY_BYTES
                        && let Err(error) = self.flush().await
                    {
                        return Some(End::Socket(error));
                    }
                }
                Some(Event::CommandData { itt, data }) => {
                    let task = self.waiting.borrow_mut().remove(&itt);
                    if let Some(task) = task {
                        self.run(itt, task, data, 0).await;
                    }
                }
                Some(Event::TaskFailed { itt }) => {
                    let task = self.waiting.borrow_mut().remove(&itt);
                    drop(task);
                }
                Some(Event::TaskManagement(request)) => self.task_management(request),
                Some(Event::LoginRequest(request)) => self.login(&request).await,
                Some(Event::SessionEstablished(_)) => self.established(),
                Some(Event::SendTargets(which)) => {
                    let found = login::discovered(&self.service, &which, self.stream.local_addr());
                    self.machine.borrow_mut().answer_send_targets(&found);
                }
                Some(Event::Logout(_)) => {
                    self.end_session(DetachReason::Logout, "logged out").await;
                    self.machine.borrow_mut().respond_logout();
                }
                Some(Event::Closed(reason)) => {
                    self.login_refused(&reason);
                    return Some(reason.into());
                }
            }
        }
    }

    fn outgoing_bytes(&self) -> usize {
        self.reading_bytes.get() + self.machine.borrow().transmit_pending_bytes()
    }

    /// Records a login that the protocol machine refused by itself; [`login`](Self::login) records the others.
    fn login_refused(&self, reason: &CloseReason) {
        let machine = self.machine.borrow();
        match reason {
            CloseReason::LoginRefused(status) if !self.turned_away.get() => {
                self.service.observer.login_refused(
                    machine.refused_name(),
                    self.stream.peer_addr(),
                    self.portal.address,
                    &status.to_string(),
                );
            }
            _ => {}
        }
    }

    async fn login(&self, request: &::iscsi::target::LoginRequest) {
        let peer = self.stream.peer_addr();
        match login::admit(&self.service, request, self.portal, peer).await {
            Ok(admitted) => {
                self.session.replace(Some(Rc::new(Session {
                    nexus: admitted.nexus,
                    entry: admitted.entry,
                    established: Cell::new(false),
                })));
                self.machine.borrow_mut().accept_login(admitted.tsih);
                self.watched.call();
            }
            Err(refused) => {
                self.turned_away.set(true);
                self.service.observer.login_refused(
                    Some(&request.initiator_name),
                    peer,
                    self.portal.address,
                    &refused.reason,
                );
                self.machine.borrow_mut().reject_login(refused.status);
            }
        }
    }

    fn established(&self) {
        if let Some(session) = self.session.borrow().as_ref() {
            session.established.set(true);
            self.service.observer.session_started(&session.entry.info);
        }
        self.watched.call();
    }

    /// Starts a command, or asks for its data.
    async fn command(self: &Rc<Self>, command: Command) {
        let nexus = self.session.borrow().as_ref().and_then(|s| s.nexus.clone());
        let itt = command.itt;
        let (Some(nexus), Some(attribute)) = (nexus, convert::attribute(command.attribute)) else {
            // A discovery session has no commands (the machine rejects them), and attributes 5 to 7 mean nothing.
            let sense =
                scsi::Sense::illegal_request(scsi::sense::AdditionalSense::INVALID_MESSAGE_ERROR);
            let sense = sense.encode(scsi::sense::SenseFormat::Fixed);
            self.respond(itt, ScsiResponse::check_condition(Bytes::from(sense)));
            return;
        };
        let expected = u64::from(command.expected_data_length_bytes);
        let submitted = nexus.submit(Request {
            tag: itt,
            lun: command.lun,
            cdb: &command.cdb,
            attribute,
            data_out_bytes: if command.write { expected } else { 0 },
            data_in_bytes: if command.read { expected } else { 0 },
        });
        match submitted {
            Err(response) => self.respond(itt, convert::response(response)),
            Ok(task) if task.data_out_bytes() == 0 => {
                let reading = if command.read { expected } else { 0 };
                self.run(itt, task, BytesMut::new(), reading).await;
            }
            Ok(task) => {
                let wanted = task.data_out_bytes();
                self.waiting.borrow_mut().insert(itt, task);
                let accepted = self.machine.borrow_mut().accept_write(itt, wanted);
                if accepted.is_err() {
                    let task = self.waiting.borrow_mut().remove(&itt);
                    drop(task);
                }
            }
        }
    }

    /// Runs a command: to its end at once where nothing has to be waited for, else as a task of the reactor, which
    /// goes on whatever becomes of the connection.
    async fn run(self: &Rc<Self>, itt: u32, task: Task<D>, data: BytesMut, reading_bytes: u64) {
        let reading = usize::try_from(reading_bytes).unwrap_or(usize::MAX);
        let mut execution: Pin<Box<dyn Future<Output = Outcome>>> = Box::pin(task.execute(data));
        if let Some(outcome) = future::poll_once(&mut execution).await {
            self.finish(itt, outcome);
            return;
        }
        let serial = self.next_serial.get();
        self.next_serial.set(serial + 1);
        self.running.borrow_mut().insert(itt, serial);
        self.reading_bytes
            .set(self.reading_bytes.get().saturating_add(reading));
        let this = self.clone();
        drop(spawn_local(async move {
            let outcome = execution.await;
            this.reading_bytes
                .set(this.reading_bytes.get().saturating_sub(reading));
            let current = {
                let mut running = this.running.borrow_mut();
                let current = running.get(&itt) == Some(&serial);
                if current {
                    running.remove(&itt);
                }
                current
            };
            if current {
                this.finish(itt, outcome);
                this.output.call();
            }
            this.room.call();
        }));
    }

    fn finish(&self, itt: u32, outcome: Outcome) {
        match outcome {
            Outcome::Response(response) => self.respond(itt, convert::response(response)),
            Outcome::Aborted => {
                self.machine.borrow_mut().abort_task(itt);
            }
        }
    }

    fn respond(&self, itt: u32, response: ScsiResponse) {
        // A task that is gone was ended by the machine itself, which has answered it.
        let _ = self.machine.borrow_mut().respond(itt, response);
    }

    /// Ends the commands that were aborted from outside while they waited for their data.
    fn end_aborted(self: &Rc<Self>) {
        let aborted: Vec<(u32, Task<D>)> = {
            let mut waiting = self.waiting.borrow_mut();
            let itts: Vec<u32> = waiting
                .iter()
                .filter(|(_, task)| task.is_aborted())
                .map(|(&itt, _)| itt)
                .collect();
            itts.into_iter()
                .filter_map(|itt| waiting.remove(&itt).map(|task| (itt, task)))
                .collect()
        };
        for (itt, task) in aborted {
            let this = self.clone();
            drop(spawn_local(async move {
                let outcome = task.execute(BytesMut::new()).await;
                this.finish(itt, outcome);
                this.output.call();
            }));
        }
    }

    fn task_management(self: &Rc<Self>, request: TaskManagement) {
        let nexus = self.session.borrow().as_ref().and_then(|s| s.nexus.clone());
        let (Some(nexus), Some(function)) = (nexus, convert::function(request.function)) else {
            let _ = self
                .machine
                .borrow_mut()
                .respond_task_management(request.itt, TaskResponse::NotSupported);
            return;
        };
        let this = self.clone();
        drop(spawn_local(async move {
            let response = nexus
                .task_management(function, request.lun, request.referenced_itt)
                .await;
            let response = convert::task_response(response);
            // The connection may be over by now; then nobody waits for the answer.
            let _ = this
                .machine
                .borrow_mut()
                .respond_task_management(request.itt, response);
            this.output.call();
        }));
    }

    /// Sends what is queued. Returns at once when somebody else is sending: that one takes it along.
    async fn flush(&self) -> io::Result<()> {
        if self.sending.replace(true) {
            return Ok(());
        }
        let _sending = Sending(&self.sending);
        let mut chunks: VecDeque<Bytes> = VecDeque::new();
        loop {
            let moved = self
                .machine
                .borrow_mut()
                .poll_transmit(&mut chunks, SEND_BYTES);
            if moved == 0 {
                return Ok(());
            }
            self.send_began.set(Instant::now());
            let (sent, emptied) = self.stream.send_vectored(Vec::from(chunks)).await;
            sent?;
            chunks = VecDeque::from(emptied);
            self.room.call();
        }
    }

    /// Detaches the nexus when the I/O of its commands has ended, and forgets the session.
    async fn end_session(self: &Rc<Self>, reason: DetachReason, why: &str) {
        let waiting = self.waiting.take();
        drop(waiting);
        self.running.take();
        let Some(session) = self.session.take() else {
            return;
        };
        let service = self.service.clone();
        let why = why.to_owned();
        // A task of its own: it must come to its end even when this connection's task does not wait for it.
        let ended = spawn_local(async move {
            if let Some(nexus) = &session.nexus {
                nexus.detach(reason).await;
            }
            service.registry.leave(session.entry.info.id);
            if session.established.get() {
                service.observer.session_ended(&session.entry.info, &why);
            }
        });
        let _ = ended.await;
    }

    async fn close(self: Rc<Self>, end: End) {
        if !matches!(end, End::Socket(_) | End::PeerClosed | End::PeerDead) {
            let _ = reactor::timeout(LAST_WORDS, self.flush()).await;
        }
        let _ = self.stream.shutdown(Shutdown::Both);
        self.end_session(DetachReason::NexusLoss, &end.to_string())
            .await;
    }
}

/// Holds the `sending` flag.
struct Sending<'a>(&'a Cell<bool>);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Waits for any of the listeners; for ever when there is none.
async fn any(listeners: &mut [EventListener]) {
    std::future::poll_fn(|context| {
        for listener in listeners.iter_mut() {
            if Pin::new(listener).poll(context).is_ready() {
                return std::task::Poll::Ready(());
            }
        }
        std::task::Poll::Pending
    })
    .await;
}
