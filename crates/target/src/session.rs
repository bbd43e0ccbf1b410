//! A session: one nexus that is up, and the logical units it has touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use arc_swap::ArcSwap;
use event_listener::{Event, listener};
use parking_lot::Mutex;
use reservation::Nexus;
use scsi::lun::Lun;
use scsi::sam::{TaskManagementFunction, TaskManagementResponse};
use scsi::sense::SenseFormat;
use scsi::unit_attention::UnitAttention;
use volume::block_device::BlockDevice;

use crate::commands;
use crate::gate::Grant;
use crate::response::Response;
use crate::runtime::EventKind;
use crate::target::Target;
use crate::task::{Request, Task};
use crate::task_set::{AbortedBy, TaskSet};
use crate::unit::LogicalUnit;
use crate::unit::nexus_unit::NexusUnit;

/// A logical unit as one session sees it.
pub(crate) struct Attached<D: BlockDevice> {
    pub(crate) unit: Arc<LogicalUnit<D>>,
    pub(crate) nexus: Arc<NexusUnit>,
    pub(crate) target: Arc<Target<D>>,
}

type Table<D> = Vec<Option<Arc<Attached<D>>>>;

/// Why a nexus goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetachReason {
    /// The initiator logged out.
    Logout,
    /// The connection was lost or closed by the target.
    NexusLoss,
}

/// One nexus that is up.
pub struct NexusSession<D: BlockDevice> {
    target: Arc<Target<D>>,
    id: u64,
    nexus: Nexus,
    peer: Arc<str>,
    tasks: Arc<TaskSet>,
    units: ArcSwap<Table<D>>,
    /// Serialises changes of `units`.
    changing: Mutex<()>,
    stop: AtomicBool,
    stop_event: Event,
    detaching: AtomicBool,
    detached: AtomicBool,
    detached_event: Event,
}

impl<D: BlockDevice> NexusSession<D> {
    pub(crate) fn new(target: Arc<Target<D>>, id: u64, nexus: Nexus, peer: Arc<str>) -> Self {
        Self {
            target,
            id,
            nexus,
            peer,
            tasks: Arc::default(),
            units: ArcSwap::default(),
            changing: Mutex::new(()),
            stop: AtomicBool::new(false),
            stop_event: Event::new(),
            detaching: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            detached_event: Event::new(),
        }
    }

    /// Number of the session, never reused while the program runs.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The nexus.
    pub fn nexus(&self) -> &Nexus {
        &self.nexus
    }

    /// Address of the connection.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Number of tasks in the task sets of this session.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Asks the transport to close the connection and detach the session.
    pub fn request_drop(&self) {
        self.stop.store(true, SeqCst);
        self.stop_event.notify(usize::MAX);
    }

    /// Was that asked?
    pub fn stop_requested(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// Notified when [`NexusSession::stop_requested`] becomes true.
    pub fn stop_event(&self) -> &Event {
        &self.stop_event
    }

    /// Notified when tasks of this session were aborted: the transport looks at those that wait for data.
    pub fn abort_event(&self) -> &Event {
        self.tasks.abort_event()
    }

    /// Waits until the session is detached.
    pub async fn detached(&self) {
        loop {
            listener!(self.detached_event => ended);
            if self.detached.load(SeqCst) {
                return;
            }
            ended.await;
        }
    }

    /// Takes a command. The answer in `Err` is final, and may be GOOD: what needs no logical unit is answered here.
    ///
    /// # Errors
    /// The response to send; no task was made.
    pub fn submit(&self, request: Request<'_>) -> Result<Task<D>, Response> {
        let attached = Lun::decode(request.lun).and_then(|lun| self.visible(lun.number()));
        let Some(attached) = attached else {
            return Err(commands::unknown_lun::respond(
                &self.target,
                &self.nexus,
                &request,
            ));
        };
        Task::take(&attached, &request).map_err(|refused| {
            let mut response = refused.failure.into_response(attached.unit.sense_format());
            response.transfer_length_bytes = refused.transfer_length_bytes;
            response
        })
    }

    /// The logical unit, if the initiator may see it.
    pub(crate) fn visible(&self, lun: u16) -> Option<Arc<Attached<D>>> {
        self.lookup(lun)
            .filter(|attached| attached.nexus.gate.word().grant() != Grant::None)
    }

    fn lookup(&self, lun: u16) -> Option<Arc<Attached<D>>> {
        let units = self.units.load();
        match units.get(usize::from(lun)) {
            Some(Some(attached)) if !attached.unit.is_removed() => Some(attached.clone()),
            _ => self.attach(lun),
        }
    }

    /// Meets a logical unit for the first time.
    #[cold]
    fn attach(&self, lun: u16) -> Option<Arc<Attached<D>>> {
        let unit = self.target.logical_unit(lun)?;
        let _changing = self.changing.lock();
        if self.detaching.load(SeqCst) {
            return None;
        }
        let units = self.units.load();
        if let Some(Some(attached)) = units.get(usize::from(lun))
            && Arc::ptr_eq(&attached.unit, &unit)
        {
            return Some(attached.clone());
        }
        let nexus = unit.attach(&self.nexus, |word, attentions| {
            NexusUnit::new(
                self.nexus.clone(),
                self.peer.clone(),
                self.tasks.clone(),
                word,
                attentions,
            )
        })?;
        let attached = Arc::new(Attached {
            unit,
            nexus,
            target: self.target.clone(),
        });
        let mut table = Table::clone(&units);
        if table.len() <= usize::from(lun) {
            table.resize(usize::from(lun) + 1, None);
        }
        table[usize::from(lun)] = Some(attached.clone());
        self.units.store(Arc::new(table));
        if attached.unit.is_owner(&self.nexus) {
            let unit = attached.unit.clone();
            let came = async move { unit.nexus_came().await };
            self.target.shared.runtime.spawn(Box::pin(came));
        }
        Some(attached)
    }

    /// Everything this session has met.
    pub(crate) fn attached(&self) -> Vec<Arc<Attached<D>>> {
        self.units.load().iter().flatten().cloned().collect()
    }

    /// Establishes a unit attention condition on every logical unit this session has met.
    pub(crate) fn attention(&self, attention: UnitAttention) {
        for attached in self.attached() {
            attached.nexus.attention(attention);
        }
    }

    /// Clears a condition on every logical unit this session has met.
    pub(crate) fn clear_attention(&self, attention: UnitAttention) {
        for attached in self.attached() {
            attached.nexus.clear_attention(attention);
        }
    }

    /// Carries out a task management function (SAM-5 7). It returns when the tasks it ends are gone; those of this
    /// session that wait for data must be given up meanwhile ([`NexusSession::abort_event`]).
    pub async fn task_management(
        &self,
        function: TaskManagementFunction,
        lun: [u8; 8],
        referenced_tag: u32,
    ) -> TaskManagementResponse {
        use TaskManagementFunction as F;
        use TaskManagementResponse as R;
        match function {
            F::TargetWarmReset | F::TargetColdReset => {
                let cold = function == F::TargetColdReset;
                return match self.target.reset(self, cold).await {
                    true => R::FunctionComplete,
                    false => R::FunctionAuthorizationFailed,
                };
            }
            F::ClearAca | F::TaskReassign => return R::FunctionNotSupported,
            F::AbortTask | F::AbortTaskSet | F::ClearTaskSet | F::LogicalUnitReset => {}
        }
        let Some(attached) = Lun::decode(lun).and_then(|lun| self.visible(lun.number())) else {
            return R::LunDoesNotExist;
        };
        let unit = &attached.unit;
        let number = unit.lun;
        match function {
            F::AbortTask => {
                if !self.tasks.contains(number, referenced_tag) {
                    return R::TaskDoesNotExist;
                }
                let which = |lun, tag| lun == number && tag == referenced_tag;
                self.tasks.abort(AbortedBy::Own, which);
                self.tasks.gone(which).await;
            }
            F::LogicalUnitReset => {
                // Else a reader could stop the writers.
                if attached.nexus.gate.word().grant() != Grant::ReadWrite {
                    return R::FunctionAuthorizationFailed;
                }
                if attached.nexus.gate.word().is_restricted() {
                    unit.abort_task_set(&attached.nexus).await;
                } else {
                    unit.reset(UnitAttention::BusDeviceResetFunction, Some(&attached.nexus))
                        .await;
                }
                self.tasks.gone(|lun, _| lun == number).await;
            }
            // TST is 001b: the task set is this nexus's alone, and CLEAR TASK SET is ABORT TASK SET (SAM-5 7.4).
            _ => {
                unit.abort_task_set(&attached.nexus).await;
                self.tasks.gone(|lun, _| lun == number).await;
            }
        }
        R::FunctionComplete
    }

    /// The sense format of the logical unit, for responses that the transport makes itself.
    pub fn sense_format(&self, lun: [u8; 8]) -> SenseFormat {
        Lun::decode(lun)
            .and_then(|lun| self.visible(lun.number()))
            .map_or(SenseFormat::Fixed, |attached| attached.unit.sense_format())
    }

    /// Takes the nexus down: aborts its tasks, waits until their I/O has ended, drops SCSI-2 reservations.
    /// Registrations stay. Afterwards the same nexus can attach again.
    pub async fn detach(&self, reason: DetachReason) {
        {
            let _changing = self.changing.lock();
            if self.detaching.swap(true, SeqCst) {
                return;
            }
        }
        self.request_drop();
        self.tasks.abort(AbortedBy::Own, |_, _| true);
        for attached in self.attached() {
            attached.unit.detach(&attached.nexus).await;
        }
        self.units.store(Arc::default());
        self.target.forget(self);
        self.target.record(
            self,
            EventKind::Detached {
                logout: reason == DetachReason::Logout,
            },
        );
        self.detached.store(true, SeqCst);
        self.detached_event.notify(usize::MAX);
    }
}
