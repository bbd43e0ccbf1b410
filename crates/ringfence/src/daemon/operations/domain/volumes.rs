//! The volumes of a domain.

use std::collections::BTreeSet;

use fencing::coordinator::Change;
use uuid::Uuid;

use super::super::{Operations, lock};
use crate::control::model::Domain;
use crate::events::domain::DomainEvent;
use crate::events::{Operator, What};
use crate::failure::Failure;

impl Operations {
    pub(in crate::daemon::operations) fn domain_volume_add(
        &self,
        domain: &str,
        volume: &str,
        operator: &Operator,
    ) -> Result<Domain, Failure> {
        let _shared = self.shared()?;
        let _changing = lock(&self.changing_domains);
        let running = self.domain(domain)?;
        let uuid = self.volume(volume)?.uuid();
        let mut planned = running.domain().as_ref().clone();
        if !planned.volumes.insert(uuid) {
            return Err(Failure::refused(format!(
                "volume {volume} is in domain {domain} already"
            )));
        }
        self.check(&planned)?;
        let described = self.change(&running, Change::Volumes(planned.volumes))?;
        self.audit
            .log()
            .record(What::Domain(DomainEvent::DomainVolumeAdded {
                domain: domain.to_owned(),
                volume: volume.to_owned(),
                by: operator.clone(),
            }));
        Ok(described)
    }

    pub(in crate::daemon::operations) fn domain_volume_remove(
        &self,
        domain: &str,
        volume: &str,
        operator: &Operator,
    ) -> Result<Domain, Failure> {
        let _shared = self.shared()?;
        let _changing = lock(&self.changing_domains);
        let running = self.domain(domain)?;
        let before = running.domain();
        let uuid = self.volume(volume)?.uuid();
        let volumes: BTreeSet<Uuid> = before
            .volumes
            .iter()
            .copied()
            .filter(|other| *other != uuid)
            .collect();
        if volumes.len() == before.volumes.len() {
            return Err(Failure::not_found(format!(
                "volume {volume} is not in domain {domain}"
            )));
        }
        if volumes.is_empty() {
            return Err(Failure::refused(format!(
                "{volume} is the only volume of domain {domain}"
            ))
            .advise(format!(
                "delete the domain with: ringfence domain delete {domain}"
            )));
        }
        if let Some(member) = before.state.fenced.keys().next() {
            return Err(Failure::refused(format!(
                "{member} is fenced in domain {domain}: outside of it, {volume} would be open to it again"
            ))
            .advise(format!(
                "stop what is fenced, then: ringfence unfence {domain} {member}"
            )));
        }
        let described = self.change(&running, Change::Volumes(volumes))?;
        self.audit
            .log()
            .record(What::Domain(DomainEvent::DomainVolumeRemoved {
                domain: domain.to_owned(),
                volume: volume.to_owned(),
                by: operator.clone(),
            }));
        Ok(described)
    }
}
