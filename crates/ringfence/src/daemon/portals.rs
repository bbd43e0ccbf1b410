//! Binding the portals. A listener stays on the reactor that bound it, so it is a task there: it binds, says where,
//! waits for the service to be ready, and serves. Connections that come earlier wait in the kernel's queue.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use async_lock::OnceCell;
use reactor::{FileDevice, Handle, Reactors, TcpListener};

use super::patience;
use crate::cli::serve::DEFAULT_PORT;
use crate::failure::Failure;
use crate::iscsi::{PortalInfo, Service};

/// Portals that listen and do not serve yet.
pub struct Portals {
    /// Where they listen, by position.
    pub infos: Vec<PortalInfo>,
    service: Arc<OnceCell<Arc<Service<FileDevice>>>>,
}

/// Binds `wanted` (or the default portal) on the reactor `control`; their connections will be spread over
/// `reactors`.
pub fn bind(
    wanted: &[SocketAddr],
    control: &Handle,
    reactors: &Reactors,
) -> Result<Portals, Failure> {
    let default = [SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))];
    let wanted = if wanted.is_empty() { &default } else { wanted };
    let mut portals = Portals {
        infos: Vec::new(),
        service: Arc::default(),
    };
    let deadline = Instant::now() + patience::PATIENCE;
    for (target_port, address) in (1_u16..).zip(wanted.iter().copied()) {
        let address = patience::until(deadline, || {
            let service = Arc::clone(&portals.service);
            let index = portals.infos.len();
            listen(address, index, service, control, reactors.clone())
        })?;
        portals.infos.push(PortalInfo {
            address,
            target_port,
        });
    }
    Ok(portals)
}

/// Starts the task of one portal on `control`; gives the address that it is bound to.
fn listen(
    address: SocketAddr,
    index: usize,
    service: Arc<OnceCell<Arc<Service<FileDevice>>>>,
    control: &Handle,
    reactors: Reactors,
) -> Result<SocketAddr, Failure> {
    let (bound, result) = mpsc::sync_channel(1);
    // The task lives as long as its reactor.
    drop(control.spawn(move || async move {
        let listener = match TcpListener::bind(address) {
            Ok(listener) => listener,
            Err(error) => {
                // The other end waits for it.
                let _ = bound.send(Err(error));
                return;
            }
        };
        let _ = bound.send(Ok(listener.local_addr()));
        let service = Arc::clone(service.wait().await);
        service.run_portal(listener, index, reactors).await;
    }));
    result
        .recv()
        .map_err(|_| {
            Failure::failed(format!(
                "the portal {address} cannot be opened: the reactor ended"
            ))
        })?
        .map_err(|error| cannot_bind(address, &error))
}

impl Portals {
    /// Lets the portals serve.
    pub fn start(self, service: Arc<Service<FileDevice>>) {
        // It was not set before: `self` is the only one that sets it, once.
        let _ = self.service.set_blocking(service);
    }
}

fn cannot_bind(address: SocketAddr, error: &std::io::Error) -> Failure {
    let message = format!("the portal {address} cannot be opened: {error}");
    match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::busy(message).advise(
            "another program (another ringfence, or tgt?) listens there; choose another with --portal ADDR:PORT",
        ),
        std::io::ErrorKind::AddrNotAvailable => Failure::failed(message)
            .advise("the address must be one of this machine: see 'ip address'"),
        std::io::ErrorKind::PermissionDenied => Failure::failed(message)
            .advise("ports below 1024 need root or CAP_NET_BIND_SERVICE"),
        _ => Failure::failed(message),
    }
}
