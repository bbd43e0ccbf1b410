//! Making and deleting domains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ::volume::config::Extent;
use ::volume::{CreateVolume, Volume as PoolVolume};
use fencing::domain::{DEFAULT_ATTEMPT_TIMEOUT_MS, DEFAULT_ATTEMPTS, DEFAULT_WINDOW_MS};
use fencing::mailbox::MAILBOX_BYTES;
use fencing::{Domain, DomainState, Prefer, Quorum, QuorumPlace, Secret};
use reactor::FileDevice;
use uuid::Uuid;

use super::super::{Operations, explain, lock};
use super::wrong;
use crate::control::model;
use crate::control::protocol::QuorumWish;
use crate::daemon::domains::{Running, document, policy};
use crate::events::domain::DomainEvent;
use crate::events::{Operator, What};
use crate::failure::Failure;
use crate::names::object_name;
use crate::network::client::host_and_port;

/// What `domain create` was asked for.
pub(in crate::daemon::operations) struct Wanted {
    pub(in crate::daemon::operations) name: String,
    pub(in crate::daemon::operations) volumes: Vec<String>,
    pub(in crate::daemon::operations) quorum: Option<QuorumWish>,
    pub(in crate::daemon::operations) quorum_votes: Option<u32>,
    pub(in crate::daemon::operations) prefer: Prefer,
    pub(in crate::daemon::operations) window_ms: Option<u64>,
    pub(in crate::daemon::operations) mailbox_on: Vec<String>,
}

/// The name of a domain's mailbox.
fn mailbox_name(domain: &str) -> String {
    format!("{domain}-mailbox")
}

impl Operations {
    pub(in crate::daemon::operations) fn domain_create(
        &self,
        wanted: Wanted,
        operator: &Operator,
    ) -> Result<model::Domain, Failure> {
        object_name(&wanted.name).map_err(Failure::usage)?;
        let _shared = self.shared()?;
        let _changing = lock(&self.changing_domains);
        let volumes: Vec<_> = wanted
            .volumes
            .iter()
            .map(|name| self.volume(name))
            .collect::<Result<_, _>>()?;
        let mut domain = self.planned(&wanted, &volumes)?;
        let mailbox = self.make_mailbox(&wanted, &volumes)?;
        domain.mailbox = mailbox.uuid();
        let made = self.make_durable(&wanted, domain);
        let running = match made {
            Ok(running) => running,
            Err(failure) => {
                let (pool, name) = (Arc::clone(&self.pool), mailbox_name(&wanted.name));
                let deleted = self.run(move || async move { pool.volume_delete(&name).await })?;
                return Err(match deleted {
                    Ok(()) => failure,
                    Err(error) => failure.advise(format!(
                        "the mailbox was left behind ({error}): delete it with 'ringfence volume delete {}'",
                        mailbox_name(&wanted.name)
                    )),
                });
            }
        };
        self.domains.add(Arc::clone(&running));
        let domains = Arc::clone(&self.domains);
        let refreshed = Arc::clone(&mailbox);
        // Nobody may write beside his slot from the first moment on.
        self.run(move || async move { domains.refresh(&refreshed).await })?;
        self.serve(mailbox)?;
        self.audit
            .log()
            .record(What::Domain(DomainEvent::DomainCreated {
                domain: wanted.name,
                volumes: wanted.volumes,
                by: operator.clone(),
            }));
        self.describe_domain(&running)
    }

    /// The domain as it is to be, but for its mailbox and the place of its quorum device.
    fn planned(
        &self,
        wanted: &Wanted,
        volumes: &[Arc<PoolVolume<FileDevice>>],
    ) -> Result<Domain, Failure> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| {
            Failure::failed(format!("the kernel gives no random bytes: {error}"))
        })?;
        let window_ms = match wanted.window_ms {
            None => DEFAULT_WINDOW_MS,
            // What does not fit is far beyond the limit that is checked below.
            Some(window_ms) => u32::try_from(window_ms).unwrap_or(u32::MAX),
        };
        let place = match &wanted.quorum {
            None => None,
            Some(QuorumWish::Device(name)) => Some(QuorumPlace::Device {
                device: self.device_uuid(name)?,
                offset_bytes: 0,
                length_bytes: 0,
            }),
            Some(QuorumWish::Server { address, name }) => {
                if !self.domains.can_ask_servers() {
                    return Err(Failure::refused(
                        "the daemon has no certificate to ask a quorum server with",
                    )
                    .advise("restart it with --tls-cert, --tls-key and --tls-ca; 'ringfence certificate' makes the files"));
                }
                host_and_port(address).map_err(Failure::usage)?;
                Some(QuorumPlace::Server {
                    address: address.clone(),
                    name: name.clone(),
                })
            }
        };
        if place.is_none() && wanted.quorum_votes.is_some() {
            return Err(Failure::usage(
                "votes of a quorum device, and no such device",
            ));
        }
        let domain = Domain {
            uuid: Uuid::new_v4(),
            name: wanted.name.clone(),
            volumes: volumes.iter().map(|volume| volume.uuid()).collect(),
            mailbox: Uuid::nil(),
            members: BTreeMap::new(),
            quorum: place.map(|place| Quorum {
                place,
                votes: wanted.quorum_votes,
            }),
            prefer: wanted.prefer,
            window_ms,
            attempt_timeout_ms: DEFAULT_ATTEMPT_TIMEOUT_MS,
            attempts: DEFAULT_ATTEMPTS,
            secret: Secret::new(secret),
            state: DomainState::default(),
        };
        self.check(&domain)?;
        Ok(domain)
    }

    /// Whether a domain is as it may be, beside the others.
    pub(super) fn check(&self, domain: &Domain) -> Result<(), Failure> {
        domain.check().map_err(|error| wrong(&error))?;
        let others = self.domains.documents();
        for other in &others {
            // In the operator's words: the domain knows only identities.
            for volume in domain.volumes.iter() {
                let theirs = other.uuid != domain.uuid
                    && (other.volumes.contains(volume) || other.mailbox == *volume);
                if theirs {
                    let name = self.volume_name(*volume);
                    return Err(Failure::refused(format!(
                        "volume {name} belongs to fence domain {}",
                        other.name
                    ))
                    .advise("a volume is in one domain at most"));
                }
            }
        }
        let others = others.iter().map(AsRef::as_ref);
        domain.check_beside(others).map_err(|error| wrong(&error))?;
        self.domains
            .check_mailbox(domain)
            .map_err(|reason| Failure::refused(format!("the mailbox has no room for it: {reason}")))
    }

    /// The name of a volume, or else its identity.
    pub(super) fn volume_name(&self, uuid: Uuid) -> String {
        let mut volumes = self.pool.volumes().into_iter();
        volumes
            .find(|volume| volume.uuid() == uuid)
            .map_or_else(|| uuid.to_string(), |volume| volume.record().name.clone())
    }

    fn device_uuid(&self, name: &str) -> Result<Uuid, Failure> {
        let mut devices = self.device_infos()?.into_iter();
        let device = devices.find(|device| device.name == name);
        device.map(|device| device.uuid).ok_or_else(|| {
            Failure::not_found(format!("there is no device {name}"))
                .advise("'ringfence device list' shows them")
        })
    }

    /// The mailbox has as many copies as the volume of the domain that has most.
    fn make_mailbox(
        &self,
        wanted: &Wanted,
        volumes: &[Arc<PoolVolume<FileDevice>>],
    ) -> Result<Arc<PoolVolume<FileDevice>>, Failure> {
        let name = mailbox_name(&wanted.name);
        let copies = volumes.iter().map(|volume| volume.record().plexes.len());
        let request = CreateVolume {
            name: name.clone(),
            size_bytes: MAILBOX_BYTES,
            on: wanted.mailbox_on.clone(),
            mirrors: match wanted.mailbox_on.len() {
                0 => copies.max().unwrap_or(1),
                devices => copies.max().unwrap_or(1).min(devices),
            },
            ..CreateVolume::default()
        };
        let order = self.volume_lock(&name);
        let _order = lock(&order);
        let pool = Arc::clone(&self.pool);
        self.run(move || async move { pool.volume_create(request).await })?
            .map_err(|error| {
                let failure = explain(&error);
                Failure::new(
                    failure.kind,
                    format!("the mailbox cannot be made: {}", failure.message),
                )
                .advise(format!(
                    "choose its devices with --mailbox-on; a volume {name} that is left from before can be deleted"
                ))
            })
    }

    /// Reserves the region of the quorum device and writes the document.
    fn make_durable(&self, wanted: &Wanted, mut domain: Domain) -> Result<Arc<Running>, Failure> {
        let mut extents: Vec<Extent> = Vec::new();
        if let Some(QuorumWish::Device(device)) = &wanted.quorum {
            let (pool, device, uuid) = (Arc::clone(&self.pool), device.clone(), domain.uuid);
            let extent = self
                .run(move || async move { pool.reserve_quorum_region(&device, uuid).await })?
                .map_err(|error| explain(&error))?;
            if let Some(quorum) = &mut domain.quorum {
                quorum.place = QuorumPlace::Device {
                    device: extent.device,
                    offset_bytes: extent.offset_bytes,
                    length_bytes: extent.length_bytes,
                };
            }
            extents.push(extent);
        }
        let record = document(&domain, extents.clone()).map_err(Failure::failed)?;
        let pool = Arc::clone(&self.pool);
        if let Err(error) = self.run(move || async move { pool.put_document(record).await })? {
            let (pool, uuid) = (Arc::clone(&self.pool), domain.uuid);
            self.run(move || async move { pool.release_quorum_region(uuid).await })?;
            return Err(explain(&error));
        }
        Ok(Running::new(domain, extents))
    }

    pub(in crate::daemon::operations) fn domain_delete(
        &self,
        name: &str,
        operator: &Operator,
    ) -> Result<(), Failure> {
        let _shared = self.shared()?;
        let _changing = lock(&self.changing_domains);
        let running = self.domain(name)?;
        let fenced =
            |domain: &Domain| -> BTreeSet<String> { domain.state.fenced.keys().cloned().collect() };
        let standing = fenced(&running.domain());
        let busy = || {
            Failure::refused(format!("something is under way in domain {name}")).advise(format!(
                "'ringfence domain show {name}' tells what; wait for its end"
            ))
        };
        if let Some(first) = standing.first() {
            let names: Vec<&str> = standing.iter().map(String::as_str).collect();
            return Err(Failure::refused(format!(
                "{} fenced in domain {name}: without the domain the fence would be given up",
                match names.as_slice() {
                    [one] => format!("{one} is"),
                    many => format!("{} are", many.join(", ")),
                }
            ))
            .advise(format!(
                "stop what is fenced, then: ringfence unfence {name} {first}"
            )));
        }
        if !self.domains.stop(&running, false) {
            return Err(busy());
        }
        let domain = running.domain();
        let again = |failure: Failure| {
            self.domains.add(Running::new(
                domain.as_ref().clone(),
                running.extents().to_vec(),
            ));
            failure
        };
        // Between the first look and the stop somebody may have been fenced.
        if !fenced(&domain).is_empty() {
            return Err(again(busy()));
        }
        let (pool, uuid) = (Arc::clone(&self.pool), domain.uuid);
        if let Err(error) = self.run(move || async move { pool.remove_document(uuid).await })? {
            return Err(again(explain(&error)));
        }
        self.give_up_grants(&domain)?;
        let mailbox = self.volume_name(domain.mailbox);
        self.delete_mailbox(&mailbox).map_err(|failure| {
            Failure::failed(format!(
                "domain {name} is deleted, but not its mailbox: {}",
                failure.message
            ))
            .advise(format!("delete it with: ringfence volume delete {mailbox}"))
        })?;
        self.audit
            .log()
            .record(What::Domain(DomainEvent::DomainDeleted {
                domain: name.to_owned(),
                by: operator.clone(),
            }));
        Ok(())
    }

    /// Takes back what was granted to the members of a domain that is no more.
    fn give_up_grants(&self, domain: &Arc<Domain>) -> Result<(), Failure> {
        let grantee = policy::grantee_of(&domain.name);
        let (pool, domains) = (Arc::clone(&self.pool), Arc::clone(&self.domains));
        let before = Arc::clone(domain);
        let nobody = Domain {
            volumes: BTreeSet::new(),
            members: BTreeMap::new(),
            ..domain.as_ref().clone()
        };
        self.run(move || async move {
            for volume in pool.volumes() {
                if volume.record().grants.contains_key(&grantee) {
                    let name = volume.record().name.clone();
                    pool.forget_grant(&name, &grantee).await?;
                }
            }
            domains.follow(&before, &nobody).await;
            Ok(())
        })?
        .map_err(|error| explain(&error))
    }

    fn delete_mailbox(&self, name: &str) -> Result<(), Failure> {
        let order = self.volume_lock(name);
        let _order = lock(&order);
        let volume = self.volume(name)?;
        let (target, lun) = (Arc::clone(&self.target), volume.lun());
        self.run(move || async move { target.remove_logical_unit(lun).await })?;
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        let deleted = self.run(move || async move { pool.volume_delete(&owned).await })?;
        let (target, uuid) = (Arc::clone(&self.target), volume.uuid());
        self.run(move || async move { drop(target.forget_policy(uuid).await) })?;
        deleted.map_err(|error| explain(&error))
    }
}
