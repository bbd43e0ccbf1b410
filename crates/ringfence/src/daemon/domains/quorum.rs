//! The quorum device of a domain: its record in a region of a device of the pool.

use std::time::Duration;

use fencing::quorum::{QUORUM_LIMIT_MS, QuorumAnswer, QuorumAsk, QuorumRecord};
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
        let mut record = read(domains, running).await?;
        let before = record.clone();
        let answer = record.grant(ask);
        if record != before {
            write(domains, running, &record).await?;
        }
        Ok(answer)
    })
    .await
}

/// Whether the quorum device can be reached.
pub(super) async fn probe(domains: &Domains, running: &Running) -> Result<(), String> {
    within(async {
        let _one = running.quorum.lock().await;
        read(domains, running).await.map(drop)
    })
    .await
}

/// Lets the quorum device keep a verdict, if it can be reached.
pub(super) async fn tell(domains: &Domains, running: &Running, verdict: &Verdict) {
    let told = within(async {
        let _one = running.quorum.lock().await;
        let mut record = read(domains, running).await?;
        if record.tell(verdict) {
            write(domains, running, &record).await?;
        }
        Ok(())
    });
    if let Err(reason) = told.await {
        tracing::warn!(
            domain = running.domain().name,
            reason,
            "the quorum device was not told the verdict"
        );
    }
}

async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match reactor::timeout(LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

fn on_device(running: &Running) -> Result<(), String> {
    match running.domain().quorum.as_ref().map(|quorum| &quorum.place) {
        Some(QuorumPlace::Device { .. }) => Ok(()),
        Some(QuorumPlace::Server { address, .. }) => {
            Err(format!("this build does not reach quorum servers ({address})"))
        }
        None => Err("the domain has no quorum device".to_owned()),
    }
}

async fn read(domains: &Domains, running: &Running) -> Result<QuorumRecord, String> {
    on_device(running)?;
    let bytes = domains
        .pool
        .quorum_read(running.uuid)
        .await
        .map_err(|error| error.to_string())?;
    if bytes.is_empty() {
        return Ok(QuorumRecord::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("its record is not understood: {error}"))
}

async fn write(domains: &Domains, running: &Running, record: &QuorumRecord) -> Result<(), String> {
    let bytes = serde_json::to_vec(record).map_err(|error| error.to_string())?;
    domains
        .pool
        .quorum_write(running.uuid, &bytes)
        .await
        .map_err(|error| error.to_string())
}
