//! Who is let in, and what happens to a session that was there before (RFC 7143 6.3.5).

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::iscsi::target::{DiscoveredTarget, LoginRequest, LoginStatus, SendTargets, SessionType};
use ::target::{AttachError, NexusSession};
use jiff::Timestamp;
use reservation::{InitiatorPort, Nexus};
use volume::block_device::BlockDevice;

use super::registry::Entry;
use super::{PortalInfo, Service, SessionInfo};

/// How long a login waits for the I/O of the session that it takes the place of.
const REINSTATEMENT_LIMIT: Duration = Duration::from_secs(12);

/// A session that was let in.
pub(super) struct Admitted<D: BlockDevice> {
    /// The nexus; `None` for discovery.
    pub(super) nexus: Option<Arc<NexusSession<D>>>,
    /// Its place in the registry.
    pub(super) entry: Arc<Entry>,
    /// TSIH.
    pub(super) tsih: NonZeroU16,
}

/// A session that was turned away.
pub(super) struct Refused {
    pub(super) status: LoginStatus,
    pub(super) reason: String,
}

impl Refused {
    fn new(status: LoginStatus, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }
}

/// Decides on a login. Waits while an older session of the same nexus ends.
pub(super) async fn admit<D: BlockDevice>(
    service: &Arc<Service<D>>,
    request: &LoginRequest,
    portal: PortalInfo,
    peer: SocketAddr,
) -> Result<Admitted<D>, Refused> {
    if service.is_stopping() {
        return Err(Refused::new(
            LoginStatus::SERVICE_UNAVAILABLE,
            "the daemon is stopping",
        ));
    }
    if request.tsih != 0 {
        return Err(if service.registry.has_tsih(request.tsih) {
            Refused::new(
                LoginStatus::TOO_MANY_CONNECTIONS,
                "a session has one connection",
            )
        } else {
            Refused::new(LoginStatus::SESSION_DOES_NOT_EXIST, "no such session")
        });
    }
    // Names compare without case (RFC 7143 4.2.7.1); grants and TransportIDs are kept in lower case.
    let initiator = request.initiator_name.to_lowercase();
    let cut_off = |reason| Refused::new(LoginStatus::AUTHORIZATION_FAILURE, reason);
    if let Some(reason) = service.refusal(&initiator) {
        return Err(cut_off(reason));
    }
    let discovery = request.session_type == SessionType::Discovery;
    let nexus = if discovery {
        if service.target.is_cut(&initiator) {
            return Err(fenced());
        }
        None
    } else {
        let nexus = Nexus {
            initiator: InitiatorPort {
                name: initiator.as_str().into(),
                isid: request.isid,
            },
            target_port: portal.target_port,
        };
        Some(attach(service, nexus, peer).await?)
    };
    let entry = service.registry.enter(SessionInfo {
        id: 0,
        initiator: initiator.clone(),
        isid: request.isid,
        tsih: 0,
        discovery,
        target_port: portal.target_port,
        portal: portal.address,
        peer,
        auth: match &request.chap_name {
            None => "none",
            Some(_) if request.mutual_chap => "mutual-chap",
            Some(_) => "chap",
        },
        since: Timestamp::now(),
    });
    let admitted = entry.and_then(|entry| {
        let tsih = NonZeroU16::new(entry.info.tsih)?;
        Some((entry, tsih))
    });
    let Some((entry, tsih)) = admitted else {
        if let Some(nexus) = nexus {
            nexus.detach(::target::DetachReason::NexusLoss).await;
        }
        return Err(Refused::new(
            LoginStatus::OUT_OF_RESOURCES,
            "every session handle is taken",
        ));
    };
    // Who cuts an initiator off first refuses it, then looks at the sessions there are: either it has seen this one, or
    // this one sees the refusal.
    if let Some(reason) = service.refusal(&initiator) {
        if let Some(nexus) = nexus {
            nexus.detach(::target::DetachReason::NexusLoss).await;
        }
        service.registry.leave(entry.info.id);
        return Err(cut_off(reason));
    }
    Ok(Admitted { nexus, entry, tsih })
}

fn fenced() -> Refused {
    Refused::new(
        LoginStatus::AUTHORIZATION_FAILURE,
        "the initiator is fenced by the method fabric",
    )
}

/// Brings the nexus up; a session that it has already is ended first (session reinstatement).
async fn attach<D: BlockDevice>(
    service: &Arc<Service<D>>,
    nexus: Nexus,
    peer: SocketAddr,
) -> Result<Arc<NexusSession<D>>, Refused> {
    let deadline = Instant::now() + REINSTATEMENT_LIMIT;
    loop {
        match service.target.attach(nexus.clone(), peer.to_string()) {
            Ok(session) => return Ok(session),
            Err(AttachError::Refused) => return Err(fenced()),
            Err(AttachError::InUse(old)) => {
                old.request_drop();
                let left = deadline.saturating_duration_since(Instant::now());
                if reactor::timeout(left, old.detached()).await.is_err() {
                    return Err(Refused::new(
                        LoginStatus::OUT_OF_RESOURCES,
                        "the commands of the session before have not ended yet",
                    ));
                }
            }
        }
    }
}

/// The answer to SendTargets. A portal that listens on every address is told as the address by which this
/// initiator came.
pub(super) fn discovered<D: BlockDevice>(
    service: &Service<D>,
    which: &SendTargets,
    local: SocketAddr,
) -> Vec<DiscoveredTarget> {
    let name = &service.target.config().name;
    if let SendTargets::Named(asked) = which
        && asked != name
    {
        return Vec::new();
    }
    let portals = service
        .portals
        .iter()
        .filter_map(|portal| {
            let mut address = portal.address;
            if address.ip().is_unspecified() {
                if address.is_ipv4() != local.is_ipv4() {
                    return None;
                }
                address.set_ip(local.ip());
            }
            Some((address.to_string(), portal.target_port))
        })
        .collect();
    vec![DiscoveredTarget {
        name: name.clone(),
        portals,
    }]
}
