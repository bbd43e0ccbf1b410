//! The methods beyond taking the access away.

use std::sync::Arc;
use std::time::Duration;

use event_listener::Event;
use fencing::coordinator::Proof;
use fencing::{Domain, Method};
use parking_lot::Mutex;
use target::{FenceOrder, Ownership};

use super::running::Running;
use super::{Domains, carry_out, policy};

/// Carries `method` out on `member`, whose access is gone, within `timeout`.
pub(super) async fn execute(
    domains: &Arc<Domains>,
    running: &Running,
    member: &str,
    method: Method,
    timeout: Duration,
) -> Result<Proof, String> {
    let domain = running.domain();
    match method {
        // The revocation, which is over, is all of it.
        Method::Reservation => Ok("access is gone, and I/O has ended".to_owned()),
        Method::Fabric => {
            let cut = fabric(domains, running, &domain, member);
            match reactor::timeout(timeout, cut).await {
                Ok(result) => result,
                Err(_) => Err(format!(
                    "its sessions have not ended within {} s, a device may hang; logins are refused",
                    timeout.as_secs()
                )),
            }
        }
        Method::ReserveRelease => {
            let owned = reserve_release(domains, &domain, member);
            match reactor::timeout(timeout, owned).await {
                Ok(result) => result,
                Err(_) => Err(format!("not done within {} s", timeout.as_secs())),
            }
        }
        Method::Stonith { agent, options } => {
            let member = member.to_owned();
            blocking(move || {
                crate::methods::fence(&agent, &options, &member, timeout)
                    .map(|proof| proof.0)
                    .map_err(|failure| failure.to_string())
            })
            .await
        }
    }
}

/// Refuses the member's logins, then ends its sessions.
async fn fabric(
    domains: &Domains,
    running: &Running,
    domain: &Domain,
    member: &str,
) -> Result<Proof, String> {
    let who = domain.member(member).map_err(|error| error.to_string())?;
    let service = domains.service.get().ok_or("no portal is open yet")?;
    running.observed.lock().cut.insert(member.to_owned());
    domains.refuse_logins();
    let ended = service.cut(&who.initiators).await;
    Ok(match ended {
        1 => "1 session ended, logins are refused".to_owned(),
        many => format!("{many} sessions ended, logins are refused"),
    })
}

/// Makes an initiator of the other member the owner of every volume.
async fn reserve_release(
    domains: &Domains,
    domain: &Domain,
    member: &str,
) -> Result<Proof, String> {
    let who = domain.member(member).map_err(|error| error.to_string())?;
    let order = FenceOrder {
        initiators: who.initiators.clone(),
        heirs: Vec::new(),
        scsi2_owners: policy::owners(domain),
    };
    // Where keys are registered RESERVE is not possible: there the keys say who has access, and those of the fenced one
    // have gone.
    let (mut owned, mut by_keys) = (0, 0);
    let mut without = Vec::new();
    for (name, result) in carry_out::fence_all(domains, domain, &order).await {
        match result {
            Ok(done) => match done.ownership {
                Ownership::Owner(_) => owned += 1,
                Ownership::Registrants => by_keys += 1,
                Ownership::NobodyLoggedIn | Ownership::NotAsked => without.push(name),
                Ownership::ReservedBy(nexus) => {
                    return Err(format!("{} has reserved {name}", nexus.initiator.name));
                }
            },
            // Nobody can use it; the owner takes it when it comes up.
            Err(error) if error.counts_as_fenced() => {}
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    if without.is_empty() {
        return Ok(format!(
            "the other member owns {owned} volumes, and {by_keys} by its keys"
        ));
    }
    Err(format!(
        "no initiator of the other member is logged in to own {}",
        without.join(", ")
    ))
}

/// Runs what blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    struct Shared<T> {
        result: Mutex<Option<Result<T, String>>>,
        done: Event,
    }
    let shared = Arc::new(Shared {
        result: Mutex::new(None),
        done: Event::new(),
    });
    let theirs = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("method".to_owned())
        .spawn(move || {
            let result = work();
            *theirs.result.lock() = Some(result);
            theirs.done.notify(usize::MAX);
        })
        .map_err(|error| format!("no thread for it: {error}"))?;
    loop {
        let done = shared.done.listen();
        if let Some(result) = shared.result.lock().take() {
            return result;
        }
        done.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blocks_gives_its_result() {
        let result = futures_lite::future::block_on(blocking(|| {
            std::thread::sleep(Duration::from_millis(5));
            Ok(7)
        }));
        assert_eq!(result, Ok(7));
        let failed = futures_lite::future::block_on(blocking(|| Err::<(), _>("no".to_owned())));
        assert_eq!(failed, Err("no".to_owned()));
    }
}
