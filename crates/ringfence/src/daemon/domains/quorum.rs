//! The quorum device of a domain: its register in a region of a device of the pool.

use std::time::Duration;

use fencing::quorum::{QUORUM_LIMIT_MS, QuorumAnswer, QuorumAsk, QuorumRegister};
use fencing::{QuorumPlace, Verdict};

use super::Domains;
use super::running::Running;

const LIMIT: Duration = Duration::from_millis(QUORUM_LIMIT_MS);

/// Asks for the votes of an epoch; granted means durably.
pub(super) async fn ask(
    domains: &Domains,
    running: &Running,
    ask: &QuorumAsk,
) -> Result<QuorumAnswer, String> {
    within(async {
        let _one = running.quorum.lock().await;
        let register = read(domains, running).await?;
        let (answer, next) = register.grant(ask);
        keep(domains, running, &register, &next).await?;
        Ok(answer)
    })
    .await
}

/// What the quorum device remembers, if it can be reached.
pub(super) async fn probe(domains: &Domains, running: &Running) -> Result<QuorumRegister, String> {
    within(async {
        let _one = running.quorum.lock().await;
        read(domains, running).await
    })
    .await
}

/// Lets the quorum device keep a verdict, if it can be reached.
pub(super) async fn tell(domains: &Domains, running: &Running, verdict: &Verdict) {
    change(domains, running, |register| register.tell(verdict)).await;
}

/// Lets the quorum device know that nobody is fenced any more for what it granted up to `epoch`, if it can be reached.
pub(super) async fn close(domains: &Domains, running: &Running, epoch: u64) {
    let by = running.uuid;
    change(domains, running, |register| register.close(by, epoch)).await;
}

async fn change(
    domains: &Domains,
    running: &Running,
    next: impl FnOnce(&QuorumRegister) -> QuorumRegister,
) {
    let told = within(async {
        let _one = running.quorum.lock().await;
        let register = read(domains, running).await?;
        let next = next(&register);
        keep(domains, running, &register, &next).await
    });
    if let Err(reason) = told.await {
        tracing::warn!(
            domain = running.domain().name,
            reason,
            "the quorum device could not be told"
        );
    }
}

async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    // On the heap: what reads and writes a page store is large, and is wrapped several times.
    match reactor::timeout(LIMIT, Box::pin(work)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

fn on_device(running: &Running) -> Result<(), String> {
    match running.domain().quorum.as_ref().map(|quorum| &quorum.place) {
        Some(QuorumPlace::Device { .. }) => Ok(()),
        Some(QuorumPlace::Server { address, .. }) => Err(format!(
            "this build does not reach quorum servers ({address})"
        )),
        None => Err("the domain has no quorum device".to_owned()),
    }
}

async fn read(domains: &Domains, running: &Running) -> Result<QuorumRegister, String> {
    on_device(running)?;
    let bytes = Box::pin(domains.pool.quorum_read(running.uuid))
        .await
        .map_err(|error| error.to_string())?;
    if bytes.is_empty() {
        return Ok(QuorumRegister::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("its register is not understood: {error}"))
}

/// Makes `next` durable, where it is another than what is there.
async fn keep(
    domains: &Domains,
    running: &Running,
    register: &QuorumRegister,
    next: &QuorumRegister,
) -> Result<(), String> {
    if register == next {
        return Ok(());
    }
    let bytes = serde_json::to_vec(next).map_err(|error| error.to_string())?;
    Box::pin(domains.pool.quorum_write(running.uuid, &bytes))
        .await
        .map_err(|error| error.to_string())
}
