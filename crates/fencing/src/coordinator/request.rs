//! What operators and agents ask for, one after the other.

use uuid::Uuid;

use super::commit::Why;
use super::{Change, Coordinator, Reply, RequestError};
use crate::check::DomainError;
use crate::domain::{Domain, FenceCause};
use crate::method::Method;

/// How many requests may wait.
const MOST_REQUESTS: usize = 256;

/// A request that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    id: Uuid,
    wish: Wish,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    Fence {
        member: String,
        methods: Option<Vec<Method>>,
    },
    Unfence {
        member: String,
    },
    Change(Change),
}

impl Coordinator {
    pub(super) fn request(&mut self, id: Uuid, wish: Wish) {
        if self.requests.len() < MOST_REQUESTS {
            self.requests.push_back(Request { id, wish });
        } else {
            self.reply(id, Reply::Refused(RequestError::Busy));
        }
    }

    /// Begins the commit that a request takes, or answers it.
    pub(super) fn serve(&mut self, request: Request) {
        let Request { id, wish } = request;
        let served = match wish {
            Wish::Fence { member, methods } => self.serve_fence(id, member, methods),
            Wish::Unfence { member } => self.serve_unfence(id, member),
            Wish::Change(change) => self.serve_change(id, change),
        };
        if let Err(error) = served {
            self.reply(id, Reply::Refused(error));
        }
    }

    fn serve_fence(
        &mut self,
        id: Uuid,
        member: String,
        methods: Option<Vec<Method>>,
    ) -> Result<(), RequestError> {
        self.domain.member(&member)?;
        if let Some(methods) = &methods {
            self.domain.check_methods(&member, methods)?;
        }
        if let Some(fenced) = self.domain.state.fenced.get(&member) {
            // It is fenced: more is done only where other methods are named than those that have worked, or are being tried.
            let enough = methods.as_ref().is_none_or(|methods| {
                let worked = fenced.proven.as_ref();
                worked.map_or(*methods == fenced.methods, |worked| {
                    methods.contains(worked)
                })
            });
            if enough {
                self.wait_for_fence(id, &member);
                return Ok(());
            }
        }
        let mut next = self.domain.clone();
        let epoch = self.next_epoch();
        next.state.epoch = epoch;
        let known = self.domain.state.fenced.get(&member);
        let cause = known.map_or(FenceCause::Request, |known| known.cause);
        let unfenced = self.domain.unfenced().map(|(name, _)| name);
        let heirs = self.initiators(unfenced, |name| name != member);
        if let Some(mut fenced) = self.new_fence(&member, epoch, cause, &heirs, methods) {
            if let Some(known) = known {
                fenced.incarnation = known.incarnation;
                fenced.heirs.clone_from(&known.heirs);
            }
            next.state.fenced.insert(member.clone(), fenced);
        }
        self.commit(next, Why::Fence { id, member });
        Ok(())
    }

    fn serve_unfence(&mut self, id: Uuid, member: String) -> Result<(), RequestError> {
        self.domain.member(&member)?;
        let Some(fenced) = self.domain.state.fenced.get(&member) else {
            if !self.wait_for_access(id, &member) {
                let epoch = self.domain.state.epoch;
                self.reply(id, Reply::Unfenced { member, epoch });
            }
            return Ok(());
        };
        if fenced.proven.is_none() {
            let domain = self.domain.name.clone();
            return Err(RequestError::Unproven { domain, member });
        }
        let mut next = self.domain.clone();
        next.state.epoch = self.next_epoch();
        next.state.fenced.remove(&member);
        self.commit(next, Why::Unfence { id, member });
        Ok(())
    }

    fn serve_change(&mut self, id: Uuid, change: Change) -> Result<(), RequestError> {
        let next = changed(&self.domain, change)?;
        if next == self.domain {
            self.reply(id, Reply::Changed);
        } else {
            self.commit(next, Why::Change { id });
        }
        Ok(())
    }
}

/// The domain with a change.
fn changed(domain: &Domain, change: Change) -> Result<Domain, DomainError> {
    let mut next = domain.clone();
    match change {
        Change::AddMember {
            member,
            initiators,
            votes,
            methods,
        } => next.add_member(&member, &initiators, votes, &methods)?,
        Change::RemoveMember { member } => next.remove_member(&member)?,
        Change::Quorum(quorum) => next.quorum = quorum,
        Change::Prefer(prefer) => next.prefer = prefer,
        Change::Volumes(volumes) => {
            // One that joins gets the fences before anybody hears that it has; one that leaves would be free of them.
            if !next.volumes.is_subset(&volumes) && !next.state.fenced.is_empty() {
                return Err(DomainError::VolumesWhileFenced(domain.name.clone()));
            }
            next.volumes = volumes;
        }
    }
    next.check()?;
    Ok(next)
}
