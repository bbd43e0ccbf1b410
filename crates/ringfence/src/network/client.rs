//! The client's end.

use std::io::{self, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{DEFAULT_API_PORT, Identity};
use crate::control::line::{read_line, write_line};
use crate::control::protocol::{Answer, Envelope, Frame, Request};
use crate::failure::{Failure, FailureKind};

/// Asks daemons over the network.
#[derive(Clone)]
pub struct RemoteClient {
    config: Arc<ClientConfig>,
}

/// Host and port of `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`.
///
/// # Errors
/// It is none of these.
pub fn host_and_port(text: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("{text:?} is not of the form HOST, HOST:PORT, [V6] or [V6]:PORT");
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
        match after.strip_prefix(':') {
            Some(number) => (host, port(number)?),
            None if after.is_empty() => (host, DEFAULT_API_PORT),
            None => return Err(wrong()),
        }
    } else {
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => (text, DEFAULT_API_PORT),
            Some((host, number)) => (host, port(number)?),
            None => (text, DEFAULT_API_PORT),
        }
    };
    if ServerName::try_from(host).is_err() {
        return Err(wrong());
    }
    Ok((host, port))
}

impl RemoteClient {
    /// A client with this certificate.
    ///
    /// # Errors
    /// A file of the identity cannot be used.
    pub fn new(identity: &Identity) -> Result<Self, Failure> {
        Ok(Self {
            config: identity.client()?,
        })
    }

    /// Sends one request to `address` on a connection of its own and waits for its answer, `limit` in all.
    ///
    /// # Errors
    /// [`FailureKind::Unreachable`] when there is no answer: it may or may not have been carried out. What the daemon refuses
    /// comes as it said it.
    pub fn ask(&self, address: &str, request: Request, limit: Duration) -> Result<Answer, Failure> {
        let (host, port) = host_and_port(address).map_err(Failure::usage)?;
        let deadline = Instant::now() + limit;
        self.converse(host, port, request, deadline)
            .map_err(|error| {
                Failure::new(
                    FailureKind::Unreachable,
                    format!("no answer from {address}: {error}"),
                )
                .advise("see that the daemon there runs with --api, that its certificate is for this name and of the same authority, and that the network lets it through")
            })?
    }

    fn converse(
        &self,
        host: &str,
        port: u16,
        request: Request,
        deadline: Instant,
    ) -> io::Result<Result<Answer, Failure>> {
        let left = || {
            let left = deadline.saturating_duration_since(Instant::now());
            (!left.is_zero())
                .then_some(left)
                .ok_or(io::ErrorKind::TimedOut)
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut stream = Err(io::Error::from(io::ErrorKind::NotFound));
        for address in (host, port).to_socket_addrs()? {
            stream = TcpStream::connect_timeout(&address, left()?);
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(left()?))?;
        stream.set_write_timeout(Some(left()?))?;
        let connection =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream);
        write_line(&mut tls, &Envelope::new(request))?;
        let mut reader = BufReader::new(tls);
        loop {
            reader.get_ref().sock.set_read_timeout(Some(left()?))?;
            let answer = match read_line::<Frame>(&mut reader).map_err(io::Error::other)? {
                Some(Frame::Answer(answer)) => Ok(answer),
                Some(Frame::Error(failure)) => Err(failure),
                Some(_) => continue,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            // So that the daemon does not take it for a connection that broke. The answer is here, whatever comes of it.
            let tls = reader.get_mut();
            tls.conn.send_close_notify();
            let _ = tls.flush();
            return Ok(answer);
        }
    }
}
