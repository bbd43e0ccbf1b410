//! A logical unit follows the policy of its volume: fences, grants of domains, windows, SCSI-2 owners.

use std::collections::BTreeSet;
use std::sync::Arc;

use event_listener::listener;
use futures_lite::future::zip;
use reservation::effects::{Effects, Fact};
use reservation::machine::{self, LuReservations};
use reservation::{Cause, Event, Nexus};
use scsi::unit_attention::UnitAttention;
use volume::block_device::BlockDevice;

use super::LogicalUnit;
use super::change::Consequences;
use super::snapshot::Snapshot;
use crate::fencing::{FenceDone, FenceError, Ownership};
use crate::gate::Grant;
use crate::policy::UnitPolicy;
use crate::runtime::EventKind;

/// What following came to.
pub(crate) struct Refreshed {
    pub(crate) before: Arc<Snapshot>,
    pub(crate) after: Snapshot,
    pub(crate) fenced: Result<FenceDone, FenceError>,
}

/// The reservations when everybody is fenced whom the policy names, and nobody else.
pub(super) fn fenced(
    reservations: &LuReservations,
    policy: &UnitPolicy,
) -> (LuReservations, Effects) {
    let wanted: BTreeSet<Arc<str>> = names(&policy.fenced);
    let not_any_more = Event::Unfence {
        initiators: reservations.fenced.difference(&wanted).cloned().collect(),
    };
    let state = machine::apply(reservations, &not_any_more).state;
    let fence = Event::Fence {
        initiators: wanted,
        heirs: names(&policy.heirs),
    };
    let step = machine::apply(&state, &fence);
    (step.state, step.effects)
}

fn names<'a, C: FromIterator<Arc<str>>>(names: impl IntoIterator<Item = &'a String>) -> C {
    names.into_iter().map(|name| name.as_str().into()).collect()
}

impl<D: BlockDevice> LogicalUnit<D> {
    /// Is the policy in force the one that the volume has?
    pub(crate) fn is_following(&self) -> bool {
        let latest = self.policy.load();
        Arc::ptr_eq(&self.access.lock().current.policy, &latest)
    }

    /// Takes over the grants of the volume's record and the policy of the volume as they are when nothing else changes.
    ///
    /// What it takes away is published before the private region has it: whoever calls for a fence has made the decision
    /// durable, so that a restart fences too. If the private region refuses the commit, the logical unit fails closed.
    pub(crate) async fn refresh(&self) -> Refreshed {
        let _change = self.change.lock().await;
        let before = self.access.lock().current.clone();
        let policy = self.policy.load_full();
        let (reservations, effects) = fenced(&before.reservations, &policy);
        let removed = self.is_removed();
        let next = Snapshot {
            reservations,
            record: self.volume.record(),
            policy: policy.clone(),
            // What a removed logical unit had on the devices may belong to others by now.
            unreadable: before.unreadable || removed,
        };
        let consequences = self.consequences(&before, &next, &effects);
        let draining = self.begin(next.clone(), &consequences, None);
        let commit = async {
            if effects.persist && !next.unreadable {
                self.persist(&before.reservations, &next.reservations).await
            } else {
                Ok(())
            }
        };
        let drain = async {
            draining.drained().await;
            self.stop_sanitize_of(&policy.fenced).await;
        };
        let (committed, ()) = zip(commit, drain).await;
        let failed = match committed {
            Ok(()) if !next.unreadable => None,
            Ok(()) => Some(
                self.failure()
                    .unwrap_or_else(|| "it is being removed".into()),
            ),
            Err(error) => {
                let reason = format!("a fence could not be recorded: {}", error.reason());
                let after = Snapshot {
                    unreadable: true,
                    ..next.clone()
                };
                self.fail_closed(&after, reason.clone()).await;
                Some(reason)
            }
        };
        if failed.is_none() || next.unreadable {
            self.finish();
        }
        self.tell(&consequences);
        let mut done = FenceDone {
            sessions: draining
                .fenced
                .iter()
                .filter(|nexus| consequences.abort.contains(nexus))
                .count(),
            ..FenceDone::default()
        };
        if failed.is_none() {
            done.take(&effects.facts);
            for fact in effects.facts {
                self.record(None, EventKind::Reservation(fact));
            }
            done.ownership = self.restore_owner().await;
        }
        for nexus in draining.fenced {
            let aborted = consequences.abort.contains(&nexus);
            self.record(None, EventKind::Fenced { nexus, aborted });
        }
        let fenced = match (failed, self.volume.writes_refused()) {
            (Some(reason), _) => Err(FenceError::NotServed(reason)),
            (None, Some(reason)) if !policy.fenced.is_empty() => {
                Err(FenceError::WriteMayLand(reason.to_string()))
            }
            (None, _) => Ok(done),
        };
        Refreshed {
            before,
            after: next,
            fenced,
        }
    }

    /// Who is aborted and told what.
    fn consequences(&self, before: &Snapshot, next: &Snapshot, effects: &Effects) -> Consequences {
        let mut consequences = Consequences::from(effects);
        let access = self.access.lock();
        for nexus in access.nexuses.keys() {
            let name = &nexus.initiator.name;
            let newly = next.reservations.is_fenced(name) && !before.reservations.is_fenced(name);
            if newly && !consequences.abort.contains(nexus) {
                consequences.abort.push(nexus.clone());
            }
            let (was, is) = (before.grant(nexus), next.grant(nexus));
            if was != is && was != Grant::None && is != Grant::None {
                // The WP bit of the mode parameter header.
                let attention = (nexus.clone(), UnitAttention::ModeParametersChanged);
                consequences.attentions.push(attention);
            }
        }
        consequences
    }

    /// Gives the SCSI-2 reservation to whom the policy wants to have it. Under the `change` lock.
    pub(super) async fn restore_owner(&self) -> Ownership {
        let (reservations, candidate) = {
            let access = self.access.lock();
            let owners = &access.current.policy.scsi2_owners;
            if owners.is_empty() {
                return Ownership::NotAsked;
            }
            let candidate = owners.iter().find_map(|owner| {
                let mut nexuses = access.nexuses.keys();
                nexuses.find(|nexus| *nexus.initiator.name == **owner)
            });
            let reservations = access.current.reservations.clone();
            if access.current.unreadable {
                return Ownership::NobodyLoggedIn;
            }
            (reservations, candidate.cloned())
        };
        if let Some(holder) = reservations.scsi2 {
            return match Some(&holder.initiator) == candidate.as_ref().map(|nexus| &nexus.initiator)
            {
                true => Ownership::Owner(holder),
                false => Ownership::ReservedBy(holder),
            };
        }
        let persistent = &reservations.persistent;
        if !persistent.registrants.is_empty() || persistent.lost.is_some() {
            return Ownership::Registrants;
        }
        let Some(nexus) = candidate else {
            return Ownership::NobodyLoggedIn;
        };
        self.apply(&Event::Own(nexus.clone()), None).await;
        Ownership::Owner(nexus)
    }

    /// Ends the SANITIZE of an initiator that is fenced.
    async fn stop_sanitize_of(&self, fenced: &BTreeSet<String>) {
        loop {
            listener!(self.condition.sanitize_ended => ended);
            let by = self.condition.sanitize_by();
            if by.is_none_or(|by| !fenced.contains(&*by)) {
                return;
            }
            self.condition.stop_sanitize();
            ended.await;
        }
    }

    /// Whether a nexus that came up is to have the SCSI-2 reservation.
    pub(crate) fn is_owner(&self, nexus: &Nexus) -> bool {
        let owners = &self.access.lock().current.policy.scsi2_owners;
        owners.iter().any(|owner| **owner == *nexus.initiator.name)
    }

    /// Gives the SCSI-2 reservation to a nexus that came up, if it is to have it.
    pub(crate) async fn nexus_came(&self) {
        let _change = self.change.lock().await;
        if !self.is_removed() {
            self.restore_owner().await;
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<UnitPolicy> {
        self.access.lock().current.policy.clone()
    }

    /// Names of the initiators that are registered; `None` while that is not known.
    pub fn registered_initiators(&self) -> Option<BTreeSet<String>> {
        let state = self.reservations()?.persistent;
        let registrants = state.registrants.keys();
        Some(
            registrants
                .map(|nexus| nexus.initiator.name.to_string())
                .collect(),
        )
    }

    /// Names of the initiators that hold the persistent reservation: of the all-registrants types everyone who is
    /// registered. `None` while that is not known.
    pub fn holder_initiators(&self) -> Option<BTreeSet<String>> {
        let state = self.reservations()?.persistent;
        let holders = state
            .registrants
            .keys()
            .filter(|nexus| state.is_holder(nexus));
        Some(
            holders
                .map(|nexus| nexus.initiator.name.to_string())
                .collect(),
        )
    }
}

impl FenceDone {
    fn take(&mut self, facts: &[Fact]) {
        for fact in facts {
            match fact {
                Fact::Unregistered {
                    cause: Cause::Fence,
                    ..
                } => self.registrations_removed += 1,
                Fact::Moved { to, .. } => self.passed_to = Some(to.clone()),
                Fact::Released { kind, .. } => self.released = Some(*kind),
                _ => {}
            }
        }
    }
}
