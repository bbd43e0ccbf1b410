//! Fence domains in the daemon: a task a domain on the control reactor, which carries out what the domain's
//! [`Coordinator`](fencing::coordinator::Coordinator) decides.
//!
//! **What is durable.** A domain is a document of the pool. Only the task of a domain writes it, and only when the coordinator
//! says so; what others see of it ([`Running::domain`]) is what is durable.
//!
//! **Never in between.** The target keeps what the domains want of a volume whether the volume is served or not. So a unit that
//! comes up is either there when a fence goes round, or comes up with it.

mod carry_out;
mod driver;
mod mailbox;
mod methods;
pub(super) mod policy;
mod quorum;
mod running;
pub(super) mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use ::volume::config::DocumentRecord;
use ::volume::join::{boxed, join_all};
use ::volume::{Pool, Volume as PoolVolume};
use fencing::Domain;
use parking_lot::RwLock;
use reactor::{FileDevice, Handle};
use target::{FenceOrder, Target, UnitPolicy};
use uuid::Uuid;

use super::audit::Audit;
use crate::events::What;
use crate::failure::Failure;
use crate::iscsi::Service;
use crate::network::client::RemoteClient;
use running::Item;
pub(super) use running::Running;

/// The kind of document that a domain is kept as.
pub(super) const KIND: &str = "domain";
/// How long a domain may take to say whether something is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What the domains work with.
pub(super) struct Parts {
    pub(super) control: Handle,
    pub(super) pool: Arc<Pool<FileDevice>>,
    pub(super) target: Arc<Target<FileDevice>>,
    pub(super) audit: Arc<Audit>,
    /// What asks quorum servers, where the daemon has a certificate.
    pub(super) remote: Option<RemoteClient>,
}

/// All domains of the daemon.
pub(super) struct Domains {
    control: Handle,
    pool: Arc<Pool<FileDevice>>,
    target: Arc<Target<FileDevice>>,
    audit: Arc<Audit>,
    remote: Option<RemoteClient>,
    /// There from [`Domains::start`] on.
    service: OnceLock<Arc<Service<FileDevice>>>,
    table: RwLock<BTreeMap<Uuid, Arc<Running>>>,
    /// What a volume is told of members and grants is told in the order in which it was decided.
    refreshing: async_lock::Mutex<()>,
}

impl Domains {
    /// No domains yet.
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            control: parts.control,
            pool: parts.pool,
            target: parts.target,
            audit: parts.audit,
            remote: parts.remote,
            service: OnceLock::new(),
            table: RwLock::default(),
            refreshing: async_lock::Mutex::new(()),
        })
    }

    /// Reads the domains of the pool, before anything of it is served.
    ///
    /// # Errors
    /// When one cannot be understood: who is fenced in it is not known then, and nothing may be served.
    pub(super) async fn load(&self) -> Result<(), Failure> {
        let mut table = BTreeMap::new();
        for document in self.pool.documents(KIND).await {
            let domain = parse(&document)?;
            table.insert(domain.uuid, Running::new(domain, document.extents));
        }
        *self.table.write() = table;
        for volume in self.pool.volumes() {
            let policy = self.policy(&volume);
            if !policy.is_empty() {
                // Nothing is served yet: there is nothing to fence, and nobody to wait for.
                let _ = self.target.set_policy(volume.uuid(), policy).await;
            }
        }
        Ok(())
    }

    /// Takes up what the domains were doing when the daemon ended. Logins that must be refused are from here on.
    pub(super) async fn start(self: &Arc<Self>, service: &Arc<Service<FileDevice>>) {
        // The daemon has one service; a second start is after a change of the pool.
        let _ = self.service.set(Arc::clone(service));
        self.refuse_logins();
        for running in self.all() {
            // There are no sessions of theirs: it only says that there must not be any.
            service.cut(&running.cut()).await;
            self.spawn(running);
        }
    }

    /// Whether quorum servers can be asked.
    pub(super) fn can_ask_servers(&self) -> bool {
        self.remote.is_some()
    }

    /// Adds a domain, whose document is durable, and starts it.
    pub(super) fn add(self: &Arc<Self>, running: Arc<Running>) {
        self.table
            .write()
            .insert(running.uuid, Arc::clone(&running));
        self.spawn(running);
    }

    fn spawn(self: &Arc<Self>, running: Arc<Running>) {
        let domains = Arc::clone(self);
        // It ends when it is told to, or with the reactor.
        drop(
            self.control
                .spawn(move || async move { driver::run(domains, running).await }),
        );
    }

    /// Lets go of a domain: its task has ended, and nobody finds it any more. False when something is under way and not
    /// `force`: then nothing has happened. Not to be called on a reactor.
    pub(super) fn stop(&self, running: &Arc<Running>, force: bool) -> bool {
        let (answer, stopped) = mpsc::channel();
        running.give(Item::Stop { force, answer });
        if !stopped.recv_timeout(STOP_PATIENCE).unwrap_or(false) {
            return false;
        }
        self.table.write().remove(&running.uuid);
        true
    }

    /// All domains, by identity.
    pub(super) fn all(&self) -> Vec<Arc<Running>> {
        self.table.read().values().cloned().collect()
    }

    /// The domain of this name.
    pub(super) fn named(&self, name: &str) -> Option<Arc<Running>> {
        let table = self.table.read();
        table.values().find(|d| d.domain().name == name).cloned()
    }

    /// All domains as they are durable, by name.
    pub(super) fn documents(&self) -> Vec<Arc<Domain>> {
        let mut domains: Vec<_> = self.all().iter().map(|running| running.domain()).collect();
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        domains
    }

    /// The domain that a volume is in or the mailbox of.
    pub(super) fn of_volume(&self, volume: Uuid) -> Option<Arc<Domain>> {
        let mut domains = self.documents().into_iter();
        domains.find(|domain| domain.mailbox == volume || domain.volumes.contains(&volume))
    }

    fn policy(&self, volume: &PoolVolume<FileDevice>) -> UnitPolicy {
        let record = volume.record();
        let domains = self.documents();
        let domains = domains.iter().map(AsRef::as_ref);
        policy::unit_policy(record.uuid, &record.grants, domains)
    }

    /// Brings a logical unit in line with the members of the domains and the grants to them. Returns when nobody who lost
    /// access by that has I/O in flight. Who is fenced is not touched: that goes round by itself.
    pub(super) async fn refresh(&self, volume: &PoolVolume<FileDevice>) {
        let _refreshing = self.refreshing.lock().await;
        self.refresh_now(volume).await;
    }

    async fn refresh_now(&self, volume: &PoolVolume<FileDevice>) {
        let policy = UnitPolicy {
            fenced: BTreeSet::new(),
            heirs: Vec::new(),
            ..self.policy(volume)
        };
        // What stands in the way of a fence is the business of the one who fences.
        let _ = self.target.set_policy(volume.uuid(), policy).await;
    }

    /// Makes the domain what it is to be for others, and waits until who lost access by that has no I/O in flight.
    async fn adopt(&self, running: &Running, domain: Domain) {
        let before = running.domain();
        running.adopt(domain);
        let after = running.domain();
        if before.volumes == after.volumes && before.members == after.members {
            return;
        }
        self.follow(&before, &after).await;
    }

    /// Brings all logical units in line after a change of a domain's members or volumes.
    pub(super) async fn follow(&self, before: &Domain, after: &Domain) {
        let grantee = policy::grantee_of(&after.name);
        // A volume that joins is closed to those who are fenced before anybody hears that it has joined.
        let new: Vec<Uuid> = after.volumes.difference(&before.volumes).copied().collect();
        for (name, fenced) in &after.state.fenced {
            if let Some(member) = after.members.get(name) {
                let order = FenceOrder {
                    initiators: member.initiators.clone(),
                    heirs: fenced.heirs.clone(),
                    scsi2_owners: Vec::new(),
                };
                for (volume, result) in self.target.fence_all(&new, &order).await {
                    if let Err(error) = result {
                        tracing::warn!(%volume, member = name, %error, "a volume that joins");
                    }
                }
            }
        }
        let gone: Vec<Uuid> = before.volumes.difference(&after.volumes).copied().collect();
        let members = before.members.values();
        let everyone = members.flat_map(|member| member.initiators.iter().cloned());
        self.target.unfence(&gone, &everyone.collect()).await;
        let concerned = self.pool.volumes().into_iter().filter(|volume| {
            let record = volume.record();
            before.volumes.contains(&record.uuid)
                || after.volumes.contains(&record.uuid)
                || after.mailbox == record.uuid
                || record.grants.contains_key(&grantee)
        });
        let concerned: Vec<_> = concerned.collect();
        let _refreshing = self.refreshing.lock().await;
        let refreshes = concerned
            .iter()
            .map(|volume| boxed(self.refresh_now(volume)));
        join_all(refreshes).await;
    }

    /// Tells the portals whose logins to refuse.
    fn refuse_logins(&self) {
        let Some(service) = self.service.get() else {
            return;
        };
        let mut refused = BTreeMap::new();
        for running in self.all() {
            let domain = running.domain();
            let cut = running.observed.lock().cut.clone();
            for (name, member) in cut
                .iter()
                .filter_map(|name| Some((name, domain.members.get(name)?)))
            {
                let reason = format!("{name} is fenced in domain {}", domain.name);
                let initiators = member.initiators.iter().cloned();
                refused.extend(initiators.map(|initiator| (initiator, reason.clone())));
            }
        }
        service.refuse_logins(refused);
    }

    /// Members with a key on a volume of the domain; nobody while that cannot be seen.
    pub(super) fn registered(&self, domain: &Domain) -> BTreeSet<String> {
        carry_out::registered(self, domain)
    }

    /// Whether the domain's mailbox has room for what its directory says.
    pub(super) fn check_mailbox(&self, domain: &Domain) -> Result<(), String> {
        mailbox::check(domain, &carry_out::volumes(self, domain))
    }

    /// The member that an initiator is, and whether that is fenced.
    pub(super) fn member_of(&self, initiator: &str) -> Option<(String, bool)> {
        self.documents().iter().find_map(|domain| {
            let member = domain.member_of(initiator)?;
            let fenced = domain.is_fenced(member);
            Some((format!("{}/{member}", domain.name), fenced))
        })
    }

    fn record(&self, what: What) {
        self.audit.log().record(what);
    }
}

/// The domain of a document.
fn parse(document: &DocumentRecord) -> Result<Domain, Failure> {
    let wrong = |why: String| {
        Failure::failed(format!(
            "fence domain {} in the pool's configuration cannot be understood: {why}",
            document.name
        ))
        .advise("who is fenced is not known, and nothing is served: use the version of ringfence that wrote it")
    };
    let domain: Domain =
        serde_json::from_slice(&document.body).map_err(|error| wrong(error.to_string()))?;
    domain.check().map_err(|error| wrong(error.to_string()))?;
    if domain.uuid != document.uuid || domain.name != document.name {
        return Err(wrong("it is the document of another domain".to_owned()));
    }
    Ok(domain)
}

/// The document of a domain.
///
/// # Errors
/// In words; nothing of it can fail to be written as JSON.
pub(super) fn document(
    domain: &Domain,
    extents: Vec<::volume::config::Extent>,
) -> Result<DocumentRecord, String> {
    Ok(DocumentRecord {
        uuid: domain.uuid,
        kind: KIND.to_owned(),
        name: domain.name.clone(),
        extents,
        body: serde_json::to_vec(domain).map_err(|error| error.to_string())?,
    })
}
