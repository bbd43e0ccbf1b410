//! The sockets of the heartbeats.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::Sender;
use std::thread;

use fencing::node::MAX_HEARTBEAT_BYTES;

use crate::error::NodeError;
use crate::run::Input;

/// A socket for each `--listen`.
#[derive(Debug)]
pub struct Network {
    sockets: Vec<UdpSocket>,
    /// Where members hear, as the operator says.
    peers: BTreeMap<String, Vec<SocketAddr>>,
}

impl Network {
    /// Binds the sockets.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn bind(listen: &[SocketAddr], peers: &[(String, SocketAddr)]) -> Result<Self, NodeError> {
        let mut sockets = Vec::new();
        for address in listen {
            if address.ip().is_unspecified() {
                return Err(NodeError::Usage(format!(
                    "--listen {address} is no address that others can reach: name one of this machine's on the cluster's network"
                )));
            }
            let socket = UdpSocket::bind(address).map_err(|error| NodeError::File {
                what: "cannot hear heartbeats at",
                path: address.to_string(),
                error,
            })?;
            sockets.push(socket);
        }
        let mut by_name: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
        for (name, address) in peers {
            by_name.entry(name.clone()).or_default().push(*address);
        }
        Ok(Self {
            sockets,
            peers: by_name,
        })
    }

    /// Where this node hears.
    ///
    /// # Errors
    /// Of getsockname(2).
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(UdpSocket::local_addr).collect()
    }

    /// Has what comes put into the queue, each socket by a thread of its own.
    ///
    /// # Errors
    /// Of dup(2).
    pub fn hear(&self, queue: &Sender<Input>) -> io::Result<()> {
        for socket in &self.sockets {
            let socket = socket.try_clone()?;
            let queue = queue.clone();
            thread::spawn(move || {
                let mut buffer = [0; MAX_HEARTBEAT_BYTES + 1];
                loop {
                    // An error is of what was sent earlier (ICMP), and says nothing of what comes.
                    let Ok(length) = socket.recv(&mut buffer) else {
                        thread::sleep(std::time::Duration::from_millis(1));
                        continue;
                    };
                    let datagram = buffer[..length].to_vec();
                    if queue.send(Input::Datagram(datagram)).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(())
    }

    /// Sends a datagram to a member, on each of its networks. What cannot be sent is lost, as on any network.
    pub fn send(&self, member: &str, addresses: &[SocketAddr], datagram: &[u8]) {
        let named = self.peers.get(member).map(Vec::as_slice);
        for (number, address) in named.unwrap_or(addresses).iter().enumerate() {
            let same = |socket: &&UdpSocket| {
                let own = socket.local_addr();
                own.is_ok_and(|own| own.is_ipv4() == address.is_ipv4())
            };
            let numbered = self.sockets.get(number).filter(same);
            if let Some(socket) = numbered.or_else(|| self.sockets.iter().find(same)) {
                let _ = socket.send_to(datagram, address);
            }
        }
    }
}
