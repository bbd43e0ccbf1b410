//! Fence domains at the target: policies of volumes, fencing on many volumes at once, initiators that are cut off.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use event_listener::{Event, listener};
use parking_lot::Mutex;
use reservation::{Nexus, ReservationType};
use thiserror::Error;
use uuid::Uuid;
use volume::block_device::BlockDevice;

use crate::gate::Grant;
use crate::policy::UnitPolicy;
use crate::target::Target;
use crate::unit::LogicalUnit;

/// Whom to fence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceOrder {
    /// Names of the initiators, in lower case.
    pub initiators: BTreeSet<String>,
    /// Names of the initiators that inherit the reservations they hold, in order of preference: on each volume the first
    /// that is registered there.
    pub heirs: Vec<String>,
    /// `reserve-release`: see [`UnitPolicy::scsi2_owners`]. Empty: as before.
    pub scsi2_owners: Vec<String>,
}

/// What fencing came to on one volume. It is durable, and what the initiators had in flight has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceDone {
    /// Registrations that were removed; 0 also where everything had been done before.
    pub registrations_removed: usize,
    /// Who inherited the reservation.
    pub passed_to: Option<Nexus>,
    /// The reservation that ended because nobody inherited it.
    pub released: Option<ReservationType>,
    /// Sessions whose commands were aborted.
    pub sessions: usize,
    /// Who has the SCSI-2 reservation.
    pub ownership: Ownership,
}

/// What became of [`UnitPolicy::scsi2_owners`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// It was not asked for.
    #[default]
    NotAsked,
    /// This nexus has it.
    Owner(Nexus),
    /// None of the owners is logged in; the first that comes gets it.
    NobodyLoggedIn,
    /// Somebody is registered, so RESERVE is not possible (SPC-2 5.5.1): persistent reservations say who has access. So they
    /// do while information about them is lost, whoever is registered.
    Registrants,
    /// Another nexus has reserved the volume.
    ReservedBy(Nexus),
}

/// Why fencing is not done on a volume.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FenceError {
    /// The volume is not served. Nobody can write there, and the initiators will be fenced before it is served again:
    /// for a cluster they are fenced.
    #[error("it is not served ({0}); the fence is applied before it is served again")]
    NotServed(String),
    /// An atomic write of theirs may have left an intent that a restart would carry out. They are *not* fenced.
    #[error("a write that was begun may still be carried out at a restart: {0}")]
    WriteMayLand(String),
}

impl FenceError {
    /// Whether the initiators cannot harm the volume all the same.
    pub fn counts_as_fenced(&self) -> bool {
        matches!(self, FenceError::NotServed(_))
    }
}

impl<D: BlockDevice> Target<D> {
    /// What the domains want of a volume, served or not, from now on. It takes the place of the policy before, but for
    /// `fenced` and `heirs`, to which it adds: only [`Target::unfence`] and [`Target::forget_policy`] take anyone out of
    /// there. Returns when nobody who lost access has I/O in flight; to be called before [`Target::add_logical_unit`] at
    /// a start.
    ///
    /// # Errors
    /// As for [`Target::fence`], where anybody is fenced; the policy is in force all the same.
    pub async fn set_policy(
        &self,
        volume: Uuid,
        policy: UnitPolicy,
    ) -> Result<FenceDone, FenceError> {
        self.follow(volume, |now| {
            let fenced: BTreeSet<String> = now.fenced.union(&policy.fenced).cloned().collect();
            let heirs = preferred(&policy.heirs, &now.heirs);
            *now = UnitPolicy {
                fenced,
                heirs,
                ..policy
            };
        })
        .await
    }

    /// As if no domain had ever had to do with the volume.
    ///
    /// # Errors
    /// As for [`Target::unfence`].
    pub async fn forget_policy(&self, volume: Uuid) -> Result<FenceDone, FenceError> {
        let result = self.follow(volume, |now| *now = UnitPolicy::default());
        let result = result.await;
        let mut policies = self.policies.lock();
        if self.unit_of(volume).is_none() {
            policies.forget(volume);
        }
        result
    }

    /// Fences initiators on a volume: they lose their registrations and all access, what they have in flight is aborted
    /// and waited for, an heir inherits the reservation. To be called when the decision is durable: access is taken at
    /// once, not when the private region has it. Again, it returns what there still is to do.
    ///
    /// # Errors
    /// [`FenceError`]. The fence is in force for new commands in any case.
    pub async fn fence(&self, volume: Uuid, order: &FenceOrder) -> Result<FenceDone, FenceError> {
        self.follow(volume, |now| {
            now.fenced.extend(order.initiators.iter().cloned());
            now.heirs = preferred(&order.heirs, &now.heirs);
            if !order.scsi2_owners.is_empty() {
                now.scsi2_owners = order.scsi2_owners.clone();
            }
        })
        .await
    }

    /// [`Target::fence`] on all of these volumes at once. The results are in the order of `volumes`.
    pub async fn fence_all(
        self: &Arc<Self>,
        volumes: &[Uuid],
        order: &FenceOrder,
    ) -> Vec<(Uuid, Result<FenceDone, FenceError>)> {
        let order = order.clone();
        let each = move |target: Arc<Self>, volume| {
            let order = order.clone();
            async move { target.fence(volume, &order).await }
        };
        self.everywhere(volumes, each).await
    }

    /// Initiators are fenced no more on these volumes.
    ///
    /// Returns the volumes where others are still fenced and something is in the way of that, as for [`Target::fence`].
    pub async fn unfence(
        self: &Arc<Self>,
        volumes: &[Uuid],
        initiators: &BTreeSet<String>,
    ) -> Vec<(Uuid, Result<FenceDone, FenceError>)> {
        let initiators = initiators.clone();
        let each = move |target: Arc<Self>, volume| {
            let initiators = initiators.clone();
            async move {
                let change = |now: &mut UnitPolicy| {
                    now.fenced.retain(|fenced| !initiators.contains(fenced));
                    if now.fenced.is_empty() {
                        now.heirs.clear();
                        now.scsi2_owners.clear();
                    }
                };
                target.follow(volume, change).await
            }
        };
        self.everywhere(volumes, each).await
    }

    /// The policy of a volume.
    pub fn policy(&self, volume: Uuid) -> Arc<UnitPolicy> {
        self.policies.lock().cell(volume).load_full()
    }

    /// Runs `each` for all volumes together, every one as a task of its own: a wake-up of one costs the others nothing.
    async fn everywhere<T: 'static, F: Future<Output = T> + 'static>(
        self: &Arc<Self>,
        volumes: &[Uuid],
        each: impl Fn(Arc<Self>, Uuid) -> F,
    ) -> Vec<(Uuid, T)> {
        let results: Arc<Mutex<Vec<Option<T>>>> = Arc::new(Mutex::new(Vec::new()));
        results.lock().resize_with(volumes.len(), || None);
        let ended = Arc::new(Event::new());
        for (index, volume) in volumes.iter().enumerate() {
            let future = each(self.clone(), *volume);
            let (results, ended) = (results.clone(), ended.clone());
            self.shared.runtime.spawn(Box::pin(async move {
                let result = future.await;
                results.lock()[index] = Some(result);
                ended.notify(usize::MAX);
            }));
        }
        loop {
            listener!(ended => one_more);
            if results.lock().iter().all(Option::is_some) {
                break;
            }
            one_more.await;
        }
        let results = std::mem::take(&mut *results.lock());
        let results = results.into_iter().flatten();
        volumes.iter().copied().zip(results).collect()
    }

    /// Changes the policy of a volume and has its logical unit follow it.
    async fn follow(
        &self,
        volume: Uuid,
        change: impl FnOnce(&mut UnitPolicy),
    ) -> Result<FenceDone, FenceError> {
        let unit = {
            let mut policies = self.policies.lock();
            policies.update(volume, change);
            self.unit_of(volume)
        };
        let unit = match unit {
            Some(unit) => unit,
            None => {
                // It may be on its way out, with I/O in flight, or on its way in, following the new policy.
                let _changing = self.changing.lock().await;
                let unit = self.unit_of(volume);
                unit.ok_or_else(|| FenceError::NotServed("no logical unit has it".into()))?
            }
        };
        let owners = self.policy(volume).scsi2_owners.clone();
        if !owners.is_empty() {
            for session in self.sessions() {
                if owners
                    .iter()
                    .any(|owner| **owner == *session.nexus().initiator.name)
                {
                    session.visible(unit.lun);
                }
            }
        }
        let refreshed = unit.refresh().await;
        self.tell_visibility(|nexus| {
            let visible = |grant| grant != Grant::None;
            visible(refreshed.before.grant(nexus)) != visible(refreshed.after.grant(nexus))
        });
        refreshed.fenced
    }

    /// The logical unit of a volume.
    pub(crate) fn unit_of(&self, volume: Uuid) -> Option<Arc<LogicalUnit<D>>> {
        let units = self.units.load();
        let mut units = units.values();
        units.find(|unit| unit.uuid == volume).cloned()
    }

    /// Cuts initiators off: from now on [`Target::attach`] refuses them, and their sessions end. Returns when these are
    /// gone, with everything they had in flight.
    pub async fn cut(&self, initiators: &BTreeSet<String>) {
        let sessions: Vec<_> = {
            let mut sessions = self.sessions.lock();
            sessions.cut.extend(initiators.iter().cloned());
            let of_them = sessions.by_nexus.values();
            of_them
                .filter(|session| initiators.contains(&*session.nexus().initiator.name))
                .cloned()
                .collect()
        };
        for session in &sessions {
            session.request_drop();
        }
        for session in &sessions {
            session.detached().await;
        }
    }

    /// Ends [`Target::cut`].
    pub fn restore(&self, initiators: &BTreeSet<String>) {
        let mut sessions = self.sessions.lock();
        sessions.cut.retain(|cut| !initiators.contains(cut));
    }

    /// Whether an initiator is cut off, and its logins are to be refused.
    pub fn is_cut(&self, initiator: &str) -> bool {
        self.sessions.lock().cut.contains(initiator)
    }
}

/// `first`, then what `rest` has beside it.
fn preferred(first: &[String], rest: &[String]) -> Vec<String> {
    let mut all = first.to_vec();
    all.extend(rest.iter().filter(|name| !first.contains(name)).cloned());
    all
}
