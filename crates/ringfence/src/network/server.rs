//! The listener: a thread a client, blocking, as the control socket has.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::role::Client;
use super::{HANDSHAKE_LIMIT, Identity};
use crate::control::line::{LineError, read_line, write_line};
use crate::control::protocol::{Frame, Request};
use crate::control::server::{Handler, Sink, turn};
use crate::events::Operator;
use crate::failure::Failure;

/// How many clients may be connected at once; more are hung up on.
pub const CLIENTS_MAX: usize = 64;

/// A client that has asked nothing for so long is hung up on.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a client may take to take an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(20);

/// Says whether a client may ask for something.
pub type Permits = fn(&Client, &Request) -> Result<(), Failure>;

/// The listener, bound.
pub struct Server {
    address: SocketAddr,
    busy: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
}

struct Shared {
    config: Arc<ServerConfig>,
    handler: Arc<dyn Handler>,
    permits: Permits,
    clients: AtomicUsize,
    busy: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
}

impl Server {
    /// Binds `address` and serves `handler` there to who has a certificate.
    ///
    /// # Errors
    /// The address or a file of the identity cannot be used.
    pub fn start(
        address: SocketAddr,
        identity: &Identity,
        handler: Arc<dyn Handler>,
        permits: Permits,
    ) -> Result<Self, Failure> {
        let config = identity.server()?;
        let unusable = |error: io::Error| {
            Failure::failed(format!("the API cannot listen on {address}: {error}"))
        };
        let listener = TcpListener::bind(address).map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let shared = Arc::new(Shared {
            config,
            handler,
            permits,
            clients: AtomicUsize::new(0),
            busy: Arc::default(),
            closing: Arc::default(),
        });
        let (busy, closing) = (Arc::clone(&shared.busy), Arc::clone(&shared.closing));
        thread::Builder::new()
            .name("api".to_owned())
            .spawn(move || accept(&listener, &shared))
            .map_err(unusable)?;
        Ok(Self {
            address,
            busy,
            closing,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; if that fails, the next client does.
        drop(TcpStream::connect_timeout(
            &self.address,
            Duration::from_secs(1),
        ));
    }

    /// Requests that are being carried out.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for others to close instead of spinning.
                tracing::warn!(%error, "API connection not accepted");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if shared.closing.load(Ordering::Relaxed) {
            return;
        }
        if shared.clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            shared.clients.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%peer, "API connection refused: {CLIENTS_MAX} clients are connected");
            continue;
        }
        let served = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name("api-client".to_owned())
            .spawn(move || {
                if let Err(error) = converse(stream, peer, &served) {
                    tracing::info!(%peer, %error, "API client gone");
                }
                served.clients.fetch_sub(1, Ordering::Relaxed);
            });
        if let Err(error) = spawned {
            shared.clients.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "no thread for an API client");
        }
    }
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

struct TlsSink<'a>(&'a mut Tls);

impl Sink for TlsSink<'_> {
    fn send(&mut self, frame: &Frame) -> io::Result<()> {
        write_line(&mut self.0, frame)
    }

    /// No request that runs until its client has gone is to be had here.
    fn is_gone(&self) -> bool {
        false
    }
}

fn converse(stream: TcpStream, peer: SocketAddr, shared: &Shared) -> Result<(), LineError> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_LIMIT))?;
    stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    let connection = ServerConnection::new(Arc::clone(&shared.config)).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    let certificate = tls.conn.peer_certificates().and_then(|chain| chain.first());
    let client = match certificate.map(|certificate| Client::of(certificate)) {
        Some(Ok(client)) => client,
        Some(Err(failure)) => {
            TlsSink(&mut tls).send(&Frame::Error(failure))?;
            return Ok(hang_up(&mut tls)?);
        }
        // The verifier lets nobody in without one.
        None => return Err(io::Error::from(io::ErrorKind::PermissionDenied).into()),
    };
    let operator = Operator::Remote {
        certificate: client.name.clone(),
        peer: peer.to_string(),
    };
    tls.sock.set_read_timeout(Some(IDLE_LIMIT))?;
    let mut reader = BufReader::new(tls);
    loop {
        let read = read_line(&mut reader);
        let mut sink = TlsSink(reader.get_mut());
        let handler = shared.handler.as_ref();
        let permits = |request: &Request| {
            if shared.closing.load(Ordering::Relaxed) {
                return Err(Failure::refused("the daemon is stopping"));
            }
            (shared.permits)(&client, request)
        };
        if !turn(read, handler, &operator, &mut sink, &shared.busy, permits)? {
            return Ok(hang_up(reader.get_mut())?);
        }
    }
}

/// Ends a connection so that the other end sees that nothing is cut off.
fn hang_up(tls: &mut Tls) -> io::Result<()> {
    tls.conn.send_close_notify();
    while tls.conn.wants_write() {
        tls.conn.write_tls(&mut tls.sock)?;
    }
    Ok(())
}
