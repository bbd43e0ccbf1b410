//! The quorum device of a domain: its register, in a region of a device of the pool or at another daemon.

use std::time::Duration;

use fencing::quorum::{QUORUM_LIMIT_MS, QuorumAnswer, QuorumAsk, QuorumRegister};
use fencing::{QuorumPlace, QuorumReply, QuorumRequest, Verdict};

use super::Domains;
use super::methods::blocking;
use super::running::Running;
use crate::control::client::unexpected;
use crate::control::protocol::{Answer, Request};

const LIMIT: Duration = Duration::from_millis(QUORUM_LIMIT_MS);

/// Asks for the votes of an epoch; granted means durably.
pub(super) async fn ask(
    domains: &Domains,
    running: &Running,
    ask: &QuorumAsk,
) -> Result<QuorumAnswer, String> {
    match request(domains, running, QuorumRequest::Ask(ask.clone())).await? {
        QuorumReply::Answer(answer) => Ok(answer),
        QuorumReply::Register(_) => Err("its answer is one to another question".to_owned()),
    }
}

/// What the quorum device remembers, if it can be reached.
pub(super) async fn probe(domains: &Domains, running: &Running) -> Result<QuorumRegister, String> {
    match request(domains, running, QuorumRequest::Read).await? {
        QuorumReply::Register(register) => Ok(register),
        QuorumReply::Answer(_) => Err("its answer is one to another question".to_owned()),
    }
}

/// Lets the quorum device keep a verdict, if it can be reached.
pub(super) async fn tell(domains: &Domains, running: &Running, verdict: &Verdict) {
    try_to(domains, running, QuorumRequest::Tell(verdict.clone())).await;
}

/// Lets the quorum device know that nobody is fenced any more for what it granted up to `epoch`, if it can be reached.
pub(super) async fn close(domains: &Domains, running: &Running, epoch: u64) {
    let by = running.uuid;
    try_to(domains, running, QuorumRequest::Close { by, epoch }).await;
}

async fn try_to(domains: &Domains, running: &Running, wanted: QuorumRequest) {
    if let Err(reason) = request(domains, running, wanted).await {
        let domain = running.domain().name.clone();
        tracing::warn!(domain, reason, "the quorum device could not be told");
    }
}

/// Asks the quorum device, wherever it is.
async fn request(
    domains: &Domains,
    running: &Running,
    wanted: QuorumRequest,
) -> Result<QuorumReply, String> {
    let domain = running.domain();
    let asked = async {
        let _one = running.quorum.lock().await;
        match domain.quorum.as_ref().map(|quorum| &quorum.place) {
            Some(QuorumPlace::Device { .. }) => on_device(domains, running, &wanted).await,
            Some(QuorumPlace::Server { address, name }) => {
                let name = name.clone().unwrap_or_else(|| running.uuid.to_string());
                at_server(domains, address.clone(), name, wanted).await
            }
            None => Err("the domain has no quorum device".to_owned()),
        }
    };
    // On the heap: what reads and writes a page store is large.
    match reactor::timeout(LIMIT, Box::pin(asked)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// What it changes is durable before the answer.
async fn on_device(
    domains: &Domains,
    running: &Running,
    wanted: &QuorumRequest,
) -> Result<QuorumReply, String> {
    let bytes = domains.pool.quorum_read(running.uuid).await;
    let bytes = bytes.map_err(|error| error.to_string())?;
    let register = if bytes.is_empty() {
        QuorumRegister::default()
    } else {
        serde_json::from_slice(&bytes)
            .map_err(|error| format!("its register is not understood: {error}"))?
    };
    let (reply, next) = register.apply(wanted);
    if next != register {
        let bytes = serde_json::to_vec(&next).map_err(|error| error.to_string())?;
        let written = domains.pool.quorum_write(running.uuid, &bytes).await;
        written.map_err(|error| error.to_string())?;
    }
    Ok(reply)
}

async fn at_server(
    domains: &Domains,
    address: String,
    name: String,
    request: QuorumRequest,
) -> Result<QuorumReply, String> {
    let client = domains.remote.clone().ok_or(
        "this daemon runs without a certificate: --tls-cert, --tls-key and --tls-ca of 'ringfence serve'",
    )?;
    blocking(move || {
        let wanted = Request::Quorum { name, request };
        match client.ask(&address, wanted, LIMIT) {
            Ok(Answer::Quorum(reply)) => Ok(reply),
            Ok(other) => Err(unexpected(&other).message),
            Err(failure) => Err(failure.message),
        }
    })
    .await
}
