//! Changes of access: persist, publish, drain, answer (promise 1).
//!
//! Every function here runs under the logical unit's `change` lock, which it takes itself. None may be called by a
//! task that is counted in flight: the drain would wait for its caller.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use event_listener::listener;
use reservation::access::column;
use reservation::effects::{Effects, UnitAttention as ReservationAttention};
use reservation::machine::{self, LuReservations};
use reservation::{Command, Nexus, Reject, Topology};
use scsi::Sense;
use scsi::sense::AdditionalSense;
use scsi::unit_attention::UnitAttention;
use volume::block_device::BlockDevice;
use volume::private_region::{PrivateRegionError, REGISTRANT_CAPACITY};

use super::LogicalUnit;
use super::nexus_unit::NexusUnit;
use super::policy::fenced;
use super::snapshot::Snapshot;
use crate::gate::GateWord;
use crate::response::Failure;
use crate::runtime::EventKind;
use crate::target::EndLostError;
use crate::task::Task;
use crate::task_set::AbortedBy;

/// Why a change did not happen.
pub(super) enum NotPersisted {
    /// What is durable is still the state before.
    Unchanged,
    /// Nobody knows what is durable.
    Unknown(String),
}

impl NotPersisted {
    pub(super) fn reason(&self) -> &str {
        match self {
            NotPersisted::Unchanged => "the private region could not be written",
            NotPersisted::Unknown(reason) => reason,
        }
    }
}

/// What `publish` does beside the snapshot.
#[derive(Default)]
pub(super) struct Consequences {
    pub(super) abort: Vec<Nexus>,
    pub(super) attentions: Vec<(Nexus, UnitAttention)>,
}

/// A change whose reductions are published.
pub(super) struct Draining {
    /// Who lost access.
    pub(super) fenced: Vec<Nexus>,
    units: Vec<Arc<NexusUnit>>,
}

impl Draining {
    /// Waits until what they had in flight has ended.
    pub(super) async fn drained(&self) {
        for unit in &self.units {
            unit.gate.drain().await;
        }
    }
}

impl From<&Effects> for Consequences {
    fn from(effects: &Effects) -> Self {
        let attentions = effects.unit_attentions.iter().map(|(nexus, attention)| {
            let attention = match attention {
                ReservationAttention::ReservationsPreempted => UnitAttention::ReservationsPreempted,
                ReservationAttention::ReservationsReleased => UnitAttention::ReservationsReleased,
                ReservationAttention::RegistrationsPreempted => {
                    UnitAttention::RegistrationsPreempted
                }
            };
            (nexus.clone(), attention)
        });
        Self {
            abort: effects.abort.clone(),
            attentions: attentions.collect(),
        }
    }
}

impl<D: BlockDevice> LogicalUnit<D> {
    /// Carries out a command that changes reservations.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        task: &Task<D>,
        command: &Command,
    ) -> Result<(), Failure> {
        let sender: &NexusUnit = &task.attached().nexus;
        let _change = self.change.lock().await;
        task.allowed()?;
        let current = self.access.lock().current.clone();
        if current.unreadable {
            return Err(self.not_known());
        }
        let topology = Topology {
            target_ports: &self.shared.config.ports,
            registrant_capacity: REGISTRANT_CAPACITY,
        };
        let step = machine::step(&current.reservations, &topology, &sender.nexus, command)
            .map_err(refusal)?;
        let narrows = !step.effects.narrowed.is_empty();
        if narrows {
            self.can_fence()?;
        }
        if step.effects.persist {
            match self.persist(&current.reservations, &step.state).await {
                Ok(()) => {}
                Err(NotPersisted::Unchanged) => {
                    return Err(Sense::internal_target_failure().into());
                }
                Err(NotPersisted::Unknown(reason)) => {
                    self.fail_closed(&current, reason).await;
                    return Err(Sense::internal_target_failure().into());
                }
            }
        }
        let next = Snapshot {
            reservations: step.state,
            ..(*current).clone()
        };
        let consequences = Consequences::from(&step.effects);
        let fenced = self
            .publish(next, &consequences, Some((&sender.nexus, task.tag)))
            .await;
        for fact in step.effects.facts {
            self.record(Some(sender), EventKind::Reservation(fact));
        }
        // Who heard of lost information had nothing that could be taken away.
        let had_access = |nexus: &&Nexus| {
            column(&current.reservations, nexus).refusal()
                != Some(Reject::ReservationInformationLost)
        };
        for nexus in fenced
            .iter()
            .filter(|nexus| **nexus != sender.nexus)
            .filter(had_access)
        {
            let kind = EventKind::Fenced {
                nexus: nexus.clone(),
                aborted: consequences.abort.contains(nexus),
            };
            self.record(Some(sender), kind);
        }
        // An atomic write that the drain waited for may have left its intent behind.
        if narrows {
            self.can_fence()?;
        }
        Ok(())
    }

    /// An answer that somebody is fenced must stay true when intents of atomic writes are replayed, by a restart or by the
    /// keeper: while one could not be removed, the answer is an error.
    fn can_fence(&self) -> Result<(), Failure> {
        let Some(reason) = self.volume.writes_refused() else {
            return Ok(());
        };
        tracing::error!(lun = self.lun, %reason, "nobody can be fenced now");
        Err(Sense::internal_target_failure().into())
    }

    /// Applies an event to the reservations: nothing that must be durable comes of the events used here.
    pub(super) async fn apply(&self, event: &reservation::Event, by: Option<&NexusUnit>) {
        let current = self.access.lock().current.clone();
        let step = machine::apply(&current.reservations, event);
        if step.state == current.reservations {
            return;
        }
        self.adopt(&current, step, by).await;
    }

    /// Puts a step, durable where it must be, in place of `current`, and records what happened.
    async fn adopt(&self, current: &Snapshot, step: machine::Step, by: Option<&NexusUnit>) {
        let next = Snapshot {
            reservations: step.state,
            ..current.clone()
        };
        self.publish(next, &Consequences::from(&step.effects), None)
            .await;
        for fact in step.effects.facts {
            self.record(by, EventKind::Reservation(fact));
        }
    }

    /// Publishes `next`: what it takes away, then the drain, then what it gives. Returns who lost access.
    async fn publish(
        &self,
        next: Snapshot,
        consequences: &Consequences,
        own: Option<(&Nexus, u32)>,
    ) -> Vec<Nexus> {
        let draining = self.begin(next, consequences, own);
        draining.drained().await;
        self.finish();
        self.tell(consequences);
        draining.fenced
    }

    /// Publishes what `next` takes away, and aborts tasks.
    pub(super) fn begin(
        &self,
        next: Snapshot,
        consequences: &Consequences,
        own: Option<(&Nexus, u32)>,
    ) -> Draining {
        let mut access = self.access.lock();
        let units = access.begin(next);
        let mut draining = Draining {
            fenced: units.iter().map(|unit| unit.nexus.clone()).collect(),
            units,
        };
        for nexus in &consequences.abort {
            let Some(unit) = access.nexuses.get(nexus).cloned() else {
                continue;
            };
            let own_tag = own.and_then(|(sender, tag)| (sender == nexus).then_some(tag));
            self.abort_by_other(&unit, own_tag);
            unit.prevents_removal.store(false, SeqCst);
            if !draining.fenced.contains(nexus) {
                draining.fenced.push(nexus.clone());
                draining.units.push(unit);
            }
        }
        draining
    }

    /// Publishes what the change that was begun gives.
    pub(super) fn finish(&self) {
        self.access.lock().finish();
    }

    /// Establishes unit attention conditions. Not before the change is published: who is told of a release may use what it
    /// gives.
    pub(super) fn tell(&self, consequences: &Consequences) {
        let mut access = self.access.lock();
        for (nexus, attention) in &consequences.attentions {
            access.attention(nexus, *attention);
        }
    }

    /// Aborts the tasks of a nexus on behalf of another nexus: they end as TAS says (SAM-5 5.6).
    fn abort_by_other(&self, unit: &NexusUnit, except_tag: Option<u32>) {
        let by = if except_tag.is_some() {
            AbortedBy::Own
        } else {
            AbortedBy::Other
        };
        let count = unit
            .tasks
            .abort(by, |lun, tag| lun == self.lun && Some(tag) != except_tag);
        if count > 0 && by == AbortedBy::Other && !self.mode.task_aborted_status() {
            unit.attention(UnitAttention::CommandsClearedByAnotherInitiator);
        }
    }

    pub(super) async fn persist(
        &self,
        before: &LuReservations,
        after: &LuReservations,
    ) -> Result<(), NotPersisted> {
        let region = self
            .volume
            .private_region()
            .map_err(|error| NotPersisted::Unknown(error.to_string()))?;
        let Err(error) = region.commit(&after.persistent).await else {
            return Ok(());
        };
        if is_full(&error) {
            return Err(NotPersisted::Unchanged);
        }
        tracing::error!(lun = self.lun, %error, "commit to the private region failed");
        match region.recover().await {
            Ok(durable) if durable == after.persistent => Ok(()),
            Ok(durable) if durable == before.persistent => Err(NotPersisted::Unchanged),
            Ok(_) => Err(NotPersisted::Unknown(
                "the private region holds a state that is neither the old nor the new one".into(),
            )),
            Err(again) => Err(NotPersisted::Unknown(again.to_string())),
        }
    }

    /// An operator ends the condition that persistent reservation information was lost: what survived goes as with CLEAR,
    /// and its registrants are told.
    pub(crate) async fn end_lost_information(&self) -> Result<(), EndLostError> {
        let _change = self.change.lock().await;
        let current = self.access.lock().current.clone();
        if current.unreadable || self.is_removed() {
            let reason = self.failure().unwrap_or_else(|| "it is not served".into());
            return Err(EndLostError::NotReady(reason));
        }
        if current.reservations.persistent.lost.is_none() {
            return Err(EndLostError::NotLost);
        }
        let step = machine::apply(&current.reservations, &reservation::Event::LossAccepted);
        match self.persist(&current.reservations, &step.state).await {
            Ok(()) => {}
            Err(NotPersisted::Unchanged) => return Err(EndLostError::NotPersisted),
            Err(NotPersisted::Unknown(reason)) => {
                self.fail_closed(&current, reason.clone()).await;
                return Err(EndLostError::NotReady(reason));
            }
        }
        self.adopt(&current, step, None).await;
        Ok(())
    }

    /// Refuses everything that needs reservations until they can be read again; `current` is what is in force beside them.
    pub(super) async fn fail_closed(&self, current: &Snapshot, reason: String) {
        tracing::error!(lun = self.lun, reason, "failed closed");
        self.condition.fail(reason.clone());
        let next = Snapshot {
            unreadable: true,
            ..current.clone()
        };
        self.publish(next, &Consequences::default(), None).await;
        self.record(None, EventKind::FailedClosed { reason });
    }

    /// The answer while reservations are not known; starts to find them out.
    pub(crate) fn not_known(self: &Arc<Self>) -> Failure {
        if !self.condition.recovering.swap(true, SeqCst) {
            let unit = self.clone();
            let runtime = self.shared.runtime.clone();
            self.shared.runtime.spawn(Box::pin(async move {
                unit.recover().await;
                // Not more often than this, however many commands come.
                runtime.sleep(Duration::from_secs(1)).await;
                unit.condition.recovering.store(false, SeqCst);
            }));
        }
        self.condition
            .sense()
            .unwrap_or_else(|| Sense::not_ready(AdditionalSense::MANUAL_INTERVENTION_REQUIRED))
            .into()
    }

    /// Reads the private region again after a failure; serves again when that succeeds, and when nobody who is fenced has
    /// anything in there.
    pub(crate) async fn recover(&self) {
        let _change = self.change.lock().await;
        let current = self.access.lock().current.clone();
        // What a removed logical unit had on the devices may belong to others by now.
        if !current.unreadable || self.is_removed() {
            return;
        }
        let state = match (self.volume.fault(), self.volume.private_region()) {
            (Some(fault), _) => Err(fault.to_string()),
            (None, Err(error)) => Err(error.to_string()),
            (None, Ok(region)) => region.recover().await.map_err(|error| error.to_string()),
        };
        let state = match state {
            Ok(state) => state,
            Err(reason) => return self.condition.fail(reason),
        };
        let policy = self.policy.load_full();
        let found = LuReservations {
            persistent: state,
            scsi2: current.reservations.scsi2.clone(),
            ..LuReservations::default()
        };
        let (reservations, effects) = fenced(&found, &policy);
        if effects.persist
            && let Err(error) = self.persist(&found, &reservations).await
        {
            return self.condition.fail(error.reason().to_owned());
        }
        tracing::info!(lun = self.lun, "the private region is readable again");
        let next = Snapshot {
            unreadable: false,
            reservations,
            policy,
            ..(*current).clone()
        };
        self.publish(next, &Consequences::from(&effects), None)
            .await;
        self.condition.recovered();
        for fact in effects.facts {
            self.record(None, EventKind::Reservation(fact));
        }
        self.restore_owner().await;
    }

    /// Logical unit reset (SAM-5 6.3.3): aborts all tasks, ends SCSI-2 reservations, brings back the default mode
    /// parameters, establishes `attention` for every nexus.
    pub(crate) async fn reset(&self, attention: UnitAttention, by: Option<&NexusUnit>) {
        let _change = self.change.lock().await;
        let units: Vec<Arc<NexusUnit>> = self.access.lock().nexuses.values().cloned().collect();
        for unit in &units {
            let own = by.is_some_and(|by| by.nexus == unit.nexus);
            let who = if own {
                AbortedBy::Own
            } else {
                AbortedBy::Other
            };
            unit.tasks.abort(who, |lun, _| lun == self.lun);
            unit.reset();
            unit.attention(attention);
        }
        for unit in &units {
            unit.gate.drain().await;
        }
        self.apply(&reservation::Event::Reset, by).await;
        self.restore_owner().await;
        self.mode.reset();
        self.condition.set_stopped(false);
        self.set_gates(GateWord::WRITE_PROTECTED, false);
        self.refresh_readiness();
        self.record(by, EventKind::LogicalUnitReset);
    }

    /// Aborts every task of every nexus (CLEAR TASK SET with TST=001b: only the sender's own, SAM-5 7.4) or the
    /// sender's (ABORT TASK SET), and waits until their I/O has ended.
    pub(crate) async fn abort_task_set(&self, unit: &NexusUnit) {
        unit.tasks.abort(AbortedBy::Own, |lun, _| lun == self.lun);
        let _change = self.change.lock().await;
        unit.gate.drain().await;
    }

    /// Waits until all I/O that was admitted before the call, of any nexus, has ended.
    pub(crate) async fn drain_all(&self) {
        let units: Vec<Arc<NexusUnit>> = self.access.lock().nexuses.values().cloned().collect();
        for unit in units {
            unit.gate.drain().await;
        }
    }

    /// Takes a nexus down: aborts its tasks, waits for their I/O, ends its SCSI-2 reservation.
    pub(crate) async fn detach(&self, unit: &Arc<NexusUnit>) {
        let _change = self.change.lock().await;
        unit.gate.set(GateWord::GONE, true);
        unit.tasks.abort(AbortedBy::Own, |lun, _| lun == self.lun);
        unit.gate.drain().await;
        self.apply(
            &reservation::Event::NexusLoss(unit.nexus.clone()),
            Some(unit),
        )
        .await;
        self.access.lock().remove(unit);
        self.restore_owner().await;
    }

    /// Takes the logical unit down: no command is admitted any more, and all I/O has ended.
    pub(crate) async fn close(&self) {
        self.removed.store(true, SeqCst);
        let _change = self.change.lock().await;
        self.set_gates(GateWord::GONE, true);
        self.drain_all().await;
        loop {
            listener!(self.condition.sanitize_ended => ended);
            if self.condition.sanitize_progress().is_none() {
                return;
            }
            ended.await;
        }
    }
}

/// The private region refused the state and changed nothing.
fn is_full(error: &PrivateRegionError) -> bool {
    matches!(error, PrivateRegionError::Full { .. })
}

/// The answer to a refused reservation command.
fn refusal(reject: Reject) -> Failure {
    use scsi::sense::{FieldPointer, SenseKey, SenseKeySpecific};
    let Some(sense) = reject.sense() else {
        return Failure::Conflict;
    };
    let additional = AdditionalSense {
        code: sense.asc,
        qualifier: sense.ascq,
    };
    let answer = Sense::new(SenseKey::from_low_bits(sense.sense_key), additional);
    match sense.field {
        Some(field) => answer.with_specific(SenseKeySpecific::Field(FieldPointer {
            in_cdb: field.in_cdb,
            bit: field.bit,
            byte: field.byte,
        })),
        None => answer,
    }
    .into()
}

/// The answer to a command that the column of a nexus does not permit.
pub(crate) fn column_refusal(column: reservation::access::Column) -> Option<Failure> {
    column.refusal().map(refusal)
}
