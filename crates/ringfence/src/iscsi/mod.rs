//! iSCSI portals: the daemon's connections between the protocol ([`::iscsi`]), the target ([`::target`]) and the
//! reactors ([`::reactor`]).
//!
//! A connection lives on one reactor and is served by one task there ([`connection`]): a reader that feeds the
//! protocol machine and starts commands, a writer that sends what is queued, and a watcher for timers and for
//! those who want the session to end. Commands run to their end even when the connection is gone; only then is the
//! nexus detached.

mod connection;
mod convert;
mod login;
mod registry;
mod signal;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::iscsi::target::{ChapConfig, Config};
use ::target::Target;
use event_listener::Event;
use futures_lite::future;
use parking_lot::Mutex;
use reactor::{Accepted, Handle, Reactors, TcpListener};
use volume::block_device::BlockDevice;

pub use registry::SessionInfo;
use registry::{Ask, Registry};

/// The most connections that are served at once; further ones are closed at once.
pub const MAX_CONNECTIONS: usize = 4096;

/// How long accepting pauses when the kernel has no file descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long sessions that are dropped at the end of the service may take to end their commands.
const DROP_PATIENCE: Duration = Duration::from_secs(10);

/// An address that initiators connect to: one target port of its own portal group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortalInfo {
    /// The bound address, with its real port.
    pub address: SocketAddr,
    /// Relative target port identifier and target portal group tag: the position from 1.
    pub target_port: u16,
}

/// Who wants to know of sessions: the event log.
pub trait SessionObserver: Send + Sync + 'static {
    /// A session has reached the full feature phase.
    fn session_started(&self, session: &SessionInfo);
    /// A session is over: its commands have ended and its nexus is detached.
    fn session_ended(&self, session: &SessionInfo, reason: &str);
    /// Somebody was turned away.
    fn login_refused(
        &self,
        initiator: Option<&str>,
        peer: SocketAddr,
        portal: SocketAddr,
        reason: &str,
    );
}

/// What the portals serve.
pub struct ServiceConfig<D: BlockDevice> {
    /// The one target.
    pub target: Arc<Target<D>>,
    /// All portals, by relative target port.
    pub portals: Vec<PortalInfo>,
    /// CHAP; `None` lets every initiator in.
    pub chap: Option<ChapConfig>,
    /// Silence after which an initiator is pinged; `None` never pings.
    pub ping_interval: Option<Duration>,
    /// The event log.
    pub observer: Arc<dyn SessionObserver>,
}

/// The iSCSI service of a daemon.
pub struct Service<D: BlockDevice> {
    target: Arc<Target<D>>,
    portals: Vec<PortalInfo>,
    /// The protocol settings of each portal.
    configs: Vec<Arc<Config>>,
    observer: Arc<dyn SessionObserver>,
    registry: Registry,
    /// Initiators that are cut off: each with why, for the event log.
    refused: Mutex<BTreeMap<String, String>>,
    connections: AtomicUsize,
    stopping: AtomicBool,
    stop: Event,
}

impl<D: BlockDevice> Service<D> {
    /// A service that nobody is connected to yet.
    pub fn new(config: ServiceConfig<D>) -> Arc<Self> {
        let configs = config
            .portals
            .iter()
            .map(|portal| {
                Arc::new(Config {
                    target_names: vec![config.target.config().name.clone()],
                    target_portal_group_tag: portal.target_port,
                    chap: config.chap.clone(),
                    ping_interval: config.ping_interval,
                    ..Config::default()
                })
            })
            .collect();
        Arc::new(Self {
            target: config.target,
            portals: config.portals,
            configs,
            observer: config.observer,
            registry: Registry::default(),
            refused: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            stop: Event::new(),
        })
    }

    /// Accepts connections on `listener`, the portal at position `index`, and spreads them over `reactors`, until
    /// [`shutdown`](Self::shutdown). Runs on the reactor that bound the listener.
    pub async fn run_portal(
        self: Arc<Self>,
        listener: TcpListener,
        index: usize,
        reactors: Reactors,
    ) {
        loop {
            let stopped = self.stop.listen();
            if self.is_stopping() {
                return;
            }
            let accepted = future::or(async { Some(listener.accept().await) }, async {
                stopped.await;
                None
            })
            .await;
            match accepted {
                None => return,
                Some(Ok(accepted)) => {
                    self.start(accepted, index, reactors.pick());
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, portal = %self.portals[index].address, "cannot accept");
                    reactor::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(self: &Arc<Self>, accepted: Accepted, index: usize, reactor: &Handle) {
        let peer = accepted.peer_addr();
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            let reason = format!("{MAX_CONNECTIONS} connections are served already");
            self.observer
                .login_refused(None, peer, self.portals[index].address, &reason);
            return;
        }
        let service = self.clone();
        drop(reactor.spawn(move || async move {
            connection::serve(service.clone(), accepted, index).await;
            service.connections.fetch_sub(1, Ordering::Relaxed);
        }));
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The sessions there are, by identity.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.registry.sessions()
    }

    /// Refuses the logins of these initiators from now on, on every portal, with the reason that goes to the event log,
    /// and of no others. Sessions that are there stay: see [`cut`](Self::cut).
    pub fn refuse_logins(&self, initiators: BTreeMap<String, String>) {
        *self.refused.lock() = initiators;
    }

    /// Why the logins of `initiator` (in lower case) are refused; `None` when they are not.
    fn refusal(&self, initiator: &str) -> Option<String> {
        self.refused.lock().get(initiator).cloned()
    }

    /// Ends all sessions of these initiators and waits until their I/O has ended and they are gone. Returns how many there
    /// were. After [`refuse_logins`](Self::refuse_logins) there will be no further ones.
    pub async fn cut(&self, initiators: &BTreeSet<String>) -> usize {
        let sessions = self.registry.cut(initiators);
        let (sessions, ()) = future::zip(sessions, self.target.cut(initiators)).await;
        sessions
    }

    /// Asks for the end of a session; false when there is none of that identity. It ends when its commands have.
    pub fn drop_session(&self, id: u64) -> bool {
        self.registry.ask(id, Ask::Drop)
    }

    /// Ends the service: no new sessions; asks every initiator to log out, and drops those that have not after
    /// `grace`. Returns when no session is left, or after [`DROP_PATIENCE`] more.
    pub async fn shutdown(&self, grace: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop.notify(usize::MAX);
        self.registry.ask_all(Ask::Logout {
            seconds: u16::try_from(grace.as_secs().max(1)).unwrap_or(u16::MAX),
        });
        let deadline = Instant::now() + grace;
        let _ = reactor::timeout(
            deadline.saturating_duration_since(Instant::now()),
            self.registry.empty(),
        )
        .await;
        // A login that was under way may still add a session: those that come are dropped as well. One with I/O that hangs
        // is left: nobody is told that its commands are done.
        let deadline = Instant::now() + DROP_PATIENCE;
        while !self.registry.is_empty() {
            if Instant::now() >= deadline {
                tracing::warn!("sessions have I/O that does not end");
                return;
            }
            self.registry.ask_all(Ask::Drop);
            let _ = reactor::timeout(Duration::from_millis(100), self.registry.empty()).await;
        }
    }
}
