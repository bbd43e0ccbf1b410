//! The members of a domain.

use fencing::Method;
use fencing::coordinator::Change;

use super::super::{Operations, lock};
use super::{check_methods, wrong};
use crate::control::model::{Domain, DomainMember};
use crate::events::domain::DomainEvent;
use crate::events::{Operator, What};
use crate::failure::Failure;
use crate::names::{iscsi_name, object_name};

/// What `domain member add` was asked for.
pub(in crate::daemon::operations) struct Joining {
    pub(in crate::daemon::operations) member: String,
    pub(in crate::daemon::operations) initiators: Vec<String>,
    pub(in crate::daemon::operations) votes: u32,
    pub(in crate::daemon::operations) methods: Vec<Method>,
}

impl Operations {
    pub(in crate::daemon::operations) fn member_add(
        &self,
        domain: &str,
        joining: Joining,
        operator: &Operator,
    ) -> Result<Domain, Failure> {
        object_name(&joining.member).map_err(Failure::usage)?;
        let initiators: Vec<String> = joining
            .initiators
            .iter()
            .map(|name| iscsi_name(name))
            .collect::<Result<_, _>>()
            .map_err(Failure::usage)?;
        let methods = match joining.methods {
            methods if methods.is_empty() => vec![Method::Reservation],
            methods => methods,
        };
        check_methods(&methods)?;
        let _shared = self.shared()?;
        let _changing = lock(&self.changing_domains);
        let running = self.domain(domain)?;
        let mut planned = running.domain().as_ref().clone();
        planned
            .add_member(&joining.member, &initiators, joining.votes, &methods)
            .map_err(|error| wrong(&error))?;
        self.check(&planned)?;
        let public: Vec<String> = methods.iter().map(Method::public_name).collect();
        let change = Change::AddMember {
            member: joining.member.clone(),
            initiators: initiators.clone(),
            votes: joining.votes,
            methods,
        };
        let described = self.change(&running, change)?;
        self.audit
            .log()
            .record(What::Domain(DomainEvent::MemberAdded {
                domain: domain.to_owned(),
                member: joining.member,
                initiators,
                votes: joining.votes,
                methods: public,
                by: operator.clone(),
            }));
        Ok(described)
    }

    pub(in crate::daemon::operations) fn member_remove(
        &self,
        domain: &str,
        member: &str,
        operator: &Operator,
    ) -> Result<Domain, Failure> {
        let _shared = self.shared()?;
        let _changing = lock(&self.changing_domains);
        let running = self.domain(domain)?;
        let change = Change::RemoveMember {
            member: member.to_owned(),
        };
        let described = self.change(&running, change)?;
        self.audit
            .log()
            .record(What::Domain(DomainEvent::MemberRemoved {
                domain: domain.to_owned(),
                member: member.to_owned(),
                by: operator.clone(),
            }));
        Ok(described)
    }

    pub(in crate::daemon::operations) fn member_list(
        &self,
        domain: &str,
    ) -> Result<Vec<DomainMember>, Failure> {
        Ok(self.domain_show(domain)?.members)
    }
}
