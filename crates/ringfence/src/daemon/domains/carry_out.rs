//! What a coordinator wants done, done over target, pool and portals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ::volume::{PoolError, PoolErrorKind};
use fencing::coordinator::{Action, CommitOutcome, Input, Revoked};
use fencing::{Domain, Survey};
use reactor::FileDevice;
use target::{FenceError, FenceOrder};
use uuid::Uuid;

use super::running::Running;
use super::{Domains, document, methods, quorum};

type PoolVolume = Arc<::volume::Volume<FileDevice>>;

/// Carries `action` out; gives the input that answers it, where there is one.
pub(super) async fn action(
    domains: &Arc<Domains>,
    running: &Arc<Running>,
    action: Action,
) -> Option<Input> {
    Some(match action {
        Action::Survey { ticket } => Input::Surveyed {
            ticket,
            survey: survey(domains, &running.domain()),
        },
        Action::AskQuorum { ticket, ask } => Input::Asked {
            ticket,
            answer: quorum::ask(domains, running, &ask).await,
        },
        Action::ProbeQuorum { ticket } => Input::Probed {
            ticket,
            answer: quorum::probe(domains, running).await,
        },
        Action::TellQuorum { verdict } => {
            quorum::tell(domains, running, &verdict).await;
            return None;
        }
        Action::CloseQuorum { epoch } => {
            quorum::close(domains, running, epoch).await;
            return None;
        }
        Action::Commit { ticket, domain } => Input::Committed {
            ticket,
            outcome: commit(domains, running, *domain).await,
        },
        Action::Revoke { ticket, member } => Input::Revoked {
            ticket,
            result: revoke(domains, &running.domain(), &member).await,
        },
        Action::Execute {
            ticket,
            member,
            method,
            timeout_ms,
            ..
        } => {
            let timeout = Duration::from_millis(timeout_ms);
            Input::Executed {
                ticket,
                result: methods::execute(domains, running, &member, method, timeout).await,
            }
        }
        Action::Restore { ticket, member } => Input::Restored {
            ticket,
            result: restore(domains, running, &member).await,
        },
        // The driver has seen to these.
        Action::Reply { .. } | Action::Event(_) => return None,
    })
}

/// The volumes of a domain that are in the pool.
pub(super) fn volumes(domains: &Domains, domain: &Domain) -> Vec<PoolVolume> {
    let all = domains.pool.volumes().into_iter();
    all.filter(|volume| domain.volumes.contains(&volume.uuid()))
        .collect()
}

/// Who is registered and who holds. A volume that is not served says nothing.
fn survey(domains: &Domains, domain: &Domain) -> Result<Survey, String> {
    let mut survey = Survey::default();
    let mut seen = 0;
    for volume in volumes(domains, domain) {
        let Some(unit) = domains.target.logical_unit(volume.lun()) else {
            continue;
        };
        let (Some(registered), Some(holders)) =
            (unit.registered_initiators(), unit.holder_initiators())
        else {
            continue;
        };
        seen += 1;
        let members = |initiators: &BTreeSet<String>| -> BTreeSet<String> {
            let names = initiators.iter();
            names
                .filter_map(|initiator| domain.member_of(initiator).map(str::to_owned))
                .collect()
        };
        survey.registered.extend(members(&registered));
        for member in members(&holders) {
            *survey.holds.entry(member).or_default() += 1;
        }
    }
    if seen == 0 {
        return Err("no volume of the domain is served".to_owned());
    }
    Ok(survey)
}

/// Members with a key on a volume of the domain; nobody while that cannot be seen.
pub(super) fn registered(domains: &Domains, domain: &Domain) -> BTreeSet<String> {
    survey(domains, domain)
        .map(|survey| survey.registered)
        .unwrap_or_default()
}

/// Whether a change that failed with `error` may be durable all the same.
fn outcome(error: &PoolError) -> CommitOutcome {
    match error.kind() {
        PoolErrorKind::Failed => CommitOutcome::Unknown(error.to_string()),
        PoolErrorKind::NotFound | PoolErrorKind::Usage | PoolErrorKind::Refused => {
            CommitOutcome::Failed(error.to_string())
        }
    }
}

async fn commit(domains: &Domains, running: &Running, domain: Domain) -> CommitOutcome {
    let record = match document(&domain, running.extents.clone()) {
        Ok(record) => record,
        Err(reason) => return CommitOutcome::Failed(reason),
    };
    if let Err(error) = domains.pool.put_document(record).await {
        tracing::error!(domain = domain.name, %error, "the domain could not be written");
        return outcome(&error);
    }
    domains.adopt(running, domain).await;
    CommitOutcome::Done
}

/// Takes a member's access to all volumes away. Volumes that are not served, to anybody, are named.
async fn revoke(domains: &Domains, domain: &Domain, member: &str) -> Result<Revoked, String> {
    let (Some(fenced), Some(who)) = (domain.state.fenced.get(member), domain.members.get(member))
    else {
        return Err(format!("{member} is not fenced"));
    };
    let order = FenceOrder {
        initiators: who.initiators.clone(),
        heirs: fenced.heirs.clone(),
        scsi2_owners: Vec::new(),
    };
    let mut revoked = Revoked::default();
    let mut failed = Vec::new();
    for (name, result) in fence_all(domains, domain, &order).await {
        match result {
            Ok(_) => {}
            Err(error) if error.counts_as_fenced() => {
                revoked.not_served.insert(name);
            }
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    if failed.is_empty() {
        Ok(revoked)
    } else {
        Err(failed.join("; "))
    }
}

/// Carries `order` out on all volumes of a domain at once; the results by name of the volume.
pub(super) async fn fence_all(
    domains: &Domains,
    domain: &Domain,
    order: &FenceOrder,
) -> Vec<(String, Result<target::FenceDone, FenceError>)> {
    let names: BTreeMap<Uuid, String> = volumes(domains, domain)
        .iter()
        .map(|volume| (volume.uuid(), volume.record().name.clone()))
        .collect();
    // Those that the pool does not have are among them: they are served to nobody.
    let all: Vec<Uuid> = domain.volumes.iter().copied().collect();
    let results = domains.target.fence_all(&all, order).await.into_iter();
    let named = results.map(|(volume, result)| {
        let name = names.get(&volume).cloned();
        (name.unwrap_or_else(|| volume.to_string()), result)
    });
    named.collect()
}

/// Gives a member its access back: what its fence left on the volumes and at the portals ends.
async fn restore(domains: &Domains, running: &Running, member: &str) -> Result<(), String> {
    let domain = running.domain();
    let Some(who) = domain.members.get(member) else {
        return Ok(());
    };
    if domain.is_fenced(member) {
        return Err(format!("{member} is still fenced"));
    }
    let all: Vec<Uuid> = domain.volumes.iter().copied().collect();
    let results = domains.target.unfence(&all, &who.initiators).await;
    let failed = results.into_iter().filter_map(|(volume, result)| {
        let error = result.err().filter(|error| !error.counts_as_fenced())?;
        Some(format!("{volume}: {error}"))
    });
    let failed: Vec<String> = failed.collect();
    if !failed.is_empty() {
        return Err(failed.join("; "));
    }
    running.observed.lock().cut.remove(member);
    domains.target.restore(&who.initiators);
    domains.refuse_logins();
    Ok(())
}
