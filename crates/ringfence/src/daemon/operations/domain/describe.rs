//! Domains as the command line shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fencing::{Method, Prefer, QuorumPlace};
use reactor::FileDevice;
use uuid::Uuid;

use super::super::Operations;
use super::super::describe::DeviceNames;
use crate::control::model::{
    Domain, DomainMember, DomainQuorum, DomainVerdict, DomainVolume, MemberFence, StatusDomain,
};
use crate::daemon::domains::{Running, tell::cause_name};
use crate::failure::Failure;

type Volumes = BTreeMap<Uuid, Arc<::volume::Volume<FileDevice>>>;

impl Operations {
    pub(in crate::daemon::operations) fn domain_show(&self, name: &str) -> Result<Domain, Failure> {
        self.describe_domain(&self.domain(name)?)
    }

    pub(in crate::daemon::operations) fn domain_list(&self) -> Result<Vec<Domain>, Failure> {
        let mut domains: Vec<Domain> = self
            .domains
            .all()
            .iter()
            .map(|running| self.describe_domain(running))
            .collect::<Result<_, _>>()?;
        domains.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(domains)
    }

    pub(super) fn describe_domain(&self, running: &Arc<Running>) -> Result<Domain, Failure> {
        let domain = running.domain();
        let registered = self.domains.registered(&domain);
        let pool: Volumes = self
            .pool
            .volumes()
            .into_iter()
            .map(|volume| (volume.uuid(), volume))
            .collect();
        let mut volumes: Vec<DomainVolume> = domain
            .volumes
            .iter()
            .map(|uuid| self.domain_volume(&pool, *uuid))
            .collect();
        volumes.sort_by_key(|volume| volume.lun);
        let members: Vec<DomainMember> = domain
            .members
            .keys()
            .map(|name| self.describe_member(running, name, &registered))
            .collect();
        let quorum = match &domain.quorum {
            None => None,
            Some(quorum) => Some(self.describe_quorum(running, quorum)?),
        };
        let voters = members
            .iter()
            .filter(|member| member.registered && member.fence.is_none());
        let state = if domain.has_unproven_fence() {
            "fencing"
        } else if running.quorum_lost().is_some()
            || volumes.iter().any(|volume| volume.state != "online")
        {
            "degraded"
        } else if !domain.state.fenced.is_empty() {
            "fenced"
        } else {
            "good"
        };
        Ok(Domain {
            name: domain.name.clone(),
            uuid: domain.uuid.to_string(),
            state: state.to_owned(),
            epoch: domain.state.epoch,
            mailbox: self.domain_volume(&pool, domain.mailbox),
            prefer: match domain.prefer {
                Prefer::Largest => "largest",
                Prefer::Weight => "weight",
                Prefer::Holder => "holder",
            }
            .to_owned(),
            window_ms: domain.window_ms.into(),
            votes_total: voters.map(|member| u64::from(member.votes)).sum::<u64>()
                + domain.quorum_votes(),
            verdict: domain.state.verdict.as_ref().map(|verdict| DomainVerdict {
                epoch: verdict.epoch,
                winners: verdict.winners.iter().cloned().collect(),
                fenced: verdict.fenced.iter().cloned().collect(),
                votes: verdict.votes,
                votes_total: verdict.votes_total,
                quorum_voted: verdict.quorum_voted,
            }),
            volumes,
            members,
            quorum,
        })
    }

    fn domain_volume(&self, pool: &Volumes, uuid: Uuid) -> DomainVolume {
        let Some(volume) = pool.get(&uuid) else {
            return DomainVolume {
                volume: uuid.to_string(),
                lun: 0,
                naa: String::new(),
                state: "not-served".to_owned(),
            };
        };
        let unit = self.target.logical_unit(volume.lun());
        let served = volume.fault().is_none() && unit.is_some_and(|unit| unit.failure().is_none());
        let record = volume.record();
        DomainVolume {
            volume: record.name.clone(),
            lun: record.lun,
            naa: format!("0x{}", record.naa),
            state: if served { "online" } else { "not-served" }.to_owned(),
        }
    }

    fn describe_member(
        &self,
        running: &Running,
        name: &str,
        registered: &BTreeSet<String>,
    ) -> DomainMember {
        let domain = running.domain();
        // The name comes from the members of the same domain; one that has gone since is shown without anything.
        let member = domain.members.get(name);
        let initiators: Vec<String> = member
            .map(|member| member.initiators.iter().cloned().collect())
            .unwrap_or_default();
        let fence = domain.state.fenced.get(name);
        let sessions = self.service.sessions();
        let state = match fence {
            Some(fence) if fence.proven.is_some() => "fenced",
            Some(_) => "fencing",
            None if running.is_suspect(name) => "suspect",
            None => "member",
        };
        DomainMember {
            domain: domain.name.clone(),
            member: name.to_owned(),
            state: state.to_owned(),
            votes: member.map_or(0, |member| member.votes),
            methods: member
                .map(|member| member.methods.iter().map(Method::public_name).collect())
                .unwrap_or_default(),
            slot: member.map_or(0, |member| member.slot),
            registered: registered.contains(name),
            sessions: sessions
                .iter()
                .filter(|session| !session.discovery && initiators.contains(&session.initiator))
                .count(),
            fence: fence.map(|fence| MemberFence {
                epoch: fence.epoch,
                cause: cause_name(fence.cause).to_owned(),
                proven: fence.proven.as_ref().map(Method::public_name),
            }),
            initiators,
        }
    }

    fn describe_quorum(
        &self,
        running: &Running,
        quorum: &fencing::Quorum,
    ) -> Result<DomainQuorum, Failure> {
        let names: DeviceNames = self.device_names()?;
        let (device, server) = match &quorum.place {
            QuorumPlace::Device { device, .. } => (Some(names.name(*device)), None),
            QuorumPlace::Server { address, .. } => (None, Some(address.clone())),
        };
        let lost = running.quorum_lost().is_some();
        Ok(DomainQuorum {
            device,
            server,
            votes: running.domain().quorum_votes(),
            votes_fixed: quorum.votes.is_some(),
            state: if lost { "lost" } else { "online" }.to_owned(),
        })
    }

    /// All domains in short, for `status`.
    pub(in crate::daemon::operations) fn status_domains(&self) -> Vec<StatusDomain> {
        let mut domains: Vec<StatusDomain> = self
            .domains
            .all()
            .iter()
            .map(|running| {
                let domain = running.domain();
                let state = if domain.has_unproven_fence() {
                    "fencing"
                } else if running.quorum_lost().is_some() {
                    "degraded"
                } else if !domain.state.fenced.is_empty() {
                    "fenced"
                } else {
                    "good"
                };
                StatusDomain {
                    domain: domain.name.clone(),
                    state: state.to_owned(),
                    epoch: domain.state.epoch,
                    members: domain.members.len(),
                    fenced: domain.state.fenced.keys().cloned().collect(),
                }
            })
            .collect();
        domains.sort_by(|a, b| a.domain.cmp(&b.domain));
        domains
    }
}
