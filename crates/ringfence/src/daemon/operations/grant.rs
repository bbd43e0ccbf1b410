//! Grants.

use std::sync::Arc;

use ::volume::Access;

use super::{Operations, explain, lock};
use crate::control::model::{AccessRight, Grant, Grants};
use crate::events::{Operator, What};
use crate::failure::Failure;
use crate::names::{DOMAIN_PREFIX, grantee};

impl Operations {
    /// Durable in the pool first, then adopted by the target, which drains what is no longer allowed: promise 1.
    pub(super) fn grant(
        &self,
        name: &str,
        initiator: &str,
        access: AccessRight,
        operator: &Operator,
    ) -> Result<Grant, Failure> {
        let initiator = grantee(initiator).map_err(Failure::usage)?;
        let _shared = self.shared()?;
        let order = self.volume_lock(name);
        let _order = lock(&order);
        let volume = self.volume(name)?;
        if let Some(domain) = initiator.strip_prefix(DOMAIN_PREFIX) {
            self.domain(domain)?;
        }
        let _acting = self.audit.acting(name, operator);
        let wanted = match access {
            AccessRight::None => Access::None,
            AccessRight::ReadOnly => Access::Ro,
            AccessRight::ReadWrite => Access::Rw,
        };
        let pool = Arc::clone(&self.pool);
        let (owned, to) = (name.to_owned(), initiator.clone());
        self.run(move || async move { pool.grant(&owned, &to, wanted).await })?
            .map_err(|error| explain(&error))?;
        let target = Arc::clone(&self.target);
        let domains = Arc::clone(&self.domains);
        self.run(move || async move {
            // The members of domains first: both wait for the I/O that is not allowed any more.
            domains.refresh(&volume).await;
            target.grants_changed(volume.lun()).await;
        })?;
        self.audit.log().record(What::GrantChanged {
            volume: name.to_owned(),
            initiator: initiator.clone(),
            access: access.to_string(),
            by: operator.clone(),
        });
        Ok(Grant {
            volume: name.to_owned(),
            initiator,
            access,
        })
    }

    pub(super) fn grants(&self, name: &str) -> Result<Grants, Failure> {
        let record = self.volume(name)?.record();
        let mut grants: Vec<Grant> = record
            .grants
            .iter()
            .map(|(initiator, access)| Grant {
                volume: name.to_owned(),
                initiator: initiator.clone(),
                access: match access {
                    Access::None => AccessRight::None,
                    Access::Ro => AccessRight::ReadOnly,
                    Access::Rw => AccessRight::ReadWrite,
                },
            })
            .collect();
        // The default is stated, so that the list is never read as if it were open to others.
        if !record.grants.contains_key("*") {
            grants.push(Grant {
                volume: name.to_owned(),
                initiator: "*".to_owned(),
                access: AccessRight::None,
            });
        }
        grants.sort_by_key(|grant| (grant.initiator != "*", grant.initiator.clone()));
        Ok(Grants {
            volume: name.to_owned(),
            grants,
        })
    }
}
