//! Fence domains.

mod create;
mod describe;
mod members;
mod race;
mod volumes;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use fencing::coordinator::{Change, Input, Reply, RequestError};
use fencing::{ClaimRefusal, DomainError, Method};
use uuid::Uuid;

use super::Operations;
use crate::control::model::Domain;
use crate::daemon::domains::Running;
use crate::failure::{Failure, FailureKind};

pub(super) use create::Wanted;
pub(super) use members::Joining;
pub(super) use race::Racing;

/// How long a change of a domain may take: a commit of the configuration and the drain of those who lose access.
const CHANGE_PATIENCE: Duration = Duration::from_secs(60);
/// How often a request that waits long looks whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(500);

impl Operations {
    /// The domain of this name.
    pub(super) fn domain(&self, name: &str) -> Result<Arc<Running>, Failure> {
        self.domains.named(name).ok_or_else(|| {
            let names: Vec<String> = self
                .domains
                .documents()
                .iter()
                .map(|domain| domain.name.clone())
                .collect();
            let failure = Failure::not_found(format!("there is no fence domain {name}"));
            match names.as_slice() {
                [] => failure
                    .advise("make one with: ringfence domain create NAME --volumes VOLUME,..."),
                names => failure.advise(format!("there are: {}", names.join(", "))),
            }
        })
    }

    /// Changes a domain: durable and published when it returns.
    fn change(&self, running: &Arc<Running>, change: Change) -> Result<Domain, Failure> {
        let id = Uuid::new_v4();
        let answer = running.ask(id, None, Input::Change { id, change });
        match wait(running, id, &answer, CHANGE_PATIENCE, || false)? {
            Some(Reply::Changed) => self.describe_domain(running),
            Some(Reply::Refused(error)) => Err(refused(&error)),
            Some(other) => Err(unexpected(&other)),
            None => Err(Failure::failed(format!(
                "the domain was not changed within {} s",
                CHANGE_PATIENCE.as_secs()
            ))
            .advise("a device may hang: see 'ringfence device list'; 'ringfence domain show' tells whether it was changed after all")),
        }
    }
}

/// Waits for the answer with the identity `id`; `None` when `patience` is over or `gone` says that nobody wants it any more.
fn wait(
    running: &Running,
    id: Uuid,
    answer: &Receiver<Reply>,
    patience: Duration,
    gone: impl Fn() -> bool,
) -> Result<Option<Reply>, Failure> {
    let begun = Instant::now();
    loop {
        let left = patience.saturating_sub(begun.elapsed());
        match answer.recv_timeout(left.min(LOOK)) {
            Ok(reply) => return Ok(Some(reply)),
            Err(RecvTimeoutError::Timeout) if left > LOOK && !gone() => {}
            Err(RecvTimeoutError::Timeout) => {
                running.forget(id);
                return Ok(None);
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::refused("the domain is being let go of")
                    .advise("the pool is exported or the domain deleted; look again with 'ringfence domain list'"));
            }
        }
    }
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::failed(format!(
        "the domain gave an answer of another kind: {reply:?}"
    ))
}

/// What is wrong with a domain, as a failure.
fn wrong(error: &DomainError) -> Failure {
    let kind = match error {
        DomainError::NoSuchMember { .. } => FailureKind::NotFound,
        DomainError::Name { .. }
        | DomainError::InitiatorCount(_)
        | DomainError::Initiator(_)
        | DomainError::Votes { .. }
        | DomainError::Methods(_)
        | DomainError::VolumeCount
        | DomainError::Address(_)
        | DomainError::Limit { .. } => FailureKind::Usage,
        _ => FailureKind::Refused,
    };
    Failure::new(kind, error.to_string())
}

/// Why a request was refused, as a failure.
fn refused(error: &RequestError) -> Failure {
    match error {
        RequestError::Domain(error) => wrong(error),
        RequestError::Unproven { .. } | RequestError::Busy => Failure::refused(error.to_string()),
        RequestError::Commit(_) => Failure::failed(error.to_string()),
    }
}

/// Why a claim is none, as a failure.
fn no_claim(refusal: &ClaimRefusal) -> Failure {
    match refusal {
        ClaimRefusal::NoSuchMember { .. } => Failure::not_found(refusal.to_string()),
        _ => Failure::refused(refusal.to_string()),
    }
}

/// Looks at the methods before they are needed: whatever is beyond the daemon must be there.
fn check_methods(methods: &[Method]) -> Result<(), Failure> {
    for method in methods {
        if let Method::Stonith { agent, options } = method {
            crate::methods::check(agent, options).map_err(|failure| {
                Failure::refused(format!("stonith:{agent} cannot be used: {failure}"))
                    .advise("a fence agent is a program of the fence-agents packages, or qmp; options are stonith:AGENT?KEY=VALUE&...")
            })?;
        }
    }
    Ok(())
}
