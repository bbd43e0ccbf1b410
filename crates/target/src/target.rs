//! The target: logical units by number, sessions by nexus.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use reservation::Nexus;
use scsi::lun::Lun;
use scsi::unit_attention::UnitAttention;
use thiserror::Error;
use volume::Volume;
use volume::block_device::BlockDevice;

use crate::gate::Grant;
use crate::policy::Policies;
use crate::runtime::{Event, EventKind, EventSink, Runtime};
use crate::session::NexusSession;
use crate::unit::LogicalUnit;

/// What the target is called and how it behaves.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// iSCSI name of the target.
    pub name: String,
    /// Relative target port identifiers, which are also the target port group identifiers, 1 to 65535, each once.
    pub ports: Vec<u16>,
    /// Limit of the rate of SANITIZE, so that it leaves the devices to others; `None` for as fast as they go.
    pub sanitize_bytes_per_second: Option<NonZeroU64>,
}

/// What all logical units of a target share.
pub(crate) struct Shared {
    pub(crate) config: TargetConfig,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) events: Arc<dyn EventSink>,
}

/// Why a logical unit cannot be added.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddError {
    /// Another logical unit has the number.
    #[error("LUN {0} is in use")]
    InUse(u16),
    /// The number cannot be addressed.
    #[error("LUN {0} is above 16383")]
    TooLarge(u16),
}

/// Why the condition of lost information was not ended.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EndLostError {
    /// No logical unit has the number.
    #[error("no logical unit has LUN {0}")]
    NoSuchUnit(u16),
    /// Nothing was lost.
    #[error("no reservation information was lost")]
    NotLost,
    /// It is not ready, and why.
    #[error("the logical unit is not ready: {0}")]
    NotReady(String),
    /// The private region could not be written; nothing has changed.
    #[error("the private region could not be written; nothing has changed")]
    NotPersisted,
}

/// Why a nexus cannot come up.
#[derive(Error)]
pub enum AttachError<D: BlockDevice> {
    /// It is up already: session reinstatement. The transport drops the session given, waits until it is detached,
    /// and tries again.
    #[error("the nexus is in use")]
    InUse(Arc<NexusSession<D>>),
    /// The initiator is cut off ([`Target::cut`]); the login is refused with "authorization failure" (RFC 7143 11.13.5).
    #[error("the initiator is fenced")]
    Refused,
}

impl<D: BlockDevice> std::fmt::Debug for AttachError<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AttachError::InUse(session) => write!(f, "InUse(session {})", session.id()),
            AttachError::Refused => f.write_str("Refused"),
        }
    }
}

/// The sessions, and who may have none.
pub(crate) struct Sessions<D: BlockDevice> {
    pub(crate) by_nexus: HashMap<Nexus, Arc<NexusSession<D>>>,
    /// Initiators whose logins are refused.
    pub(crate) cut: BTreeSet<String>,
}

pub(crate) type Units<D> = BTreeMap<u16, Arc<LogicalUnit<D>>>;

/// One SCSI target device.
pub struct Target<D: BlockDevice> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) units: ArcSwap<Units<D>>,
    pub(crate) sessions: Mutex<Sessions<D>>,
    /// What the domains want, by volume.
    pub(crate) policies: Mutex<Policies>,
    next_session_id: AtomicU64,
    /// Serialises changes of `units`.
    pub(crate) changing: async_lock::Mutex<()>,
}

impl<D: BlockDevice> Target<D> {
    /// A target without logical units.
    pub fn new(
        config: TargetConfig,
        runtime: Arc<dyn Runtime>,
        events: Arc<dyn EventSink>,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                config,
                runtime,
                events,
            }),
            units: ArcSwap::default(),
            sessions: Mutex::new(Sessions {
                by_nexus: HashMap::new(),
                cut: BTreeSet::new(),
            }),
            policies: Mutex::default(),
            next_session_id: AtomicU64::new(1),
            changing: async_lock::Mutex::new(()),
        })
    }

    /// Name and ports.
    pub fn config(&self) -> &TargetConfig {
        &self.shared.config
    }

    /// Serves a volume under its LUN, and tells those who may use it (REPORTED LUNS DATA HAS CHANGED).
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add_logical_unit(
        &self,
        volume: Arc<Volume<D>>,
    ) -> Result<Arc<LogicalUnit<D>>, AddError> {
        let _changing = self.changing.lock().await;
        let lun = volume.lun();
        if Lun::new(lun).is_none() {
            return Err(AddError::TooLarge(lun));
        }
        if self.units.load().contains_key(&lun) {
            return Err(AddError::InUse(lun));
        }
        let policy = self.policies.lock().cell(volume.record().uuid);
        let unit = Arc::new(LogicalUnit::open(volume, self.shared.clone(), policy).await);
        while !self.insert(&unit) {
            unit.refresh().await;
        }
        self.tell_visibility(|nexus| unit.grant(nexus) != Grant::None);
        Ok(unit)
    }

    /// Puts a logical unit among the others: from then on whoever changes the policy of its volume has it follow. False, and
    /// nothing done, when it does not follow the policy that there is now.
    fn insert(&self, unit: &Arc<LogicalUnit<D>>) -> bool {
        let _policies = self.policies.lock();
        if !unit.is_following() {
            return false;
        }
        let mut units = Units::clone(&self.units.load());
        units.insert(unit.lun, unit.clone());
        self.units.store(Arc::new(units));
        true
    }

    /// Stops serving a logical unit. When it returns no I/O of it is in flight. False when there was none.
    pub async fn remove_logical_unit(&self, lun: u16) -> bool {
        let _changing = self.changing.lock().await;
        let mut units = Units::clone(&self.units.load());
        let Some(unit) = units.remove(&lun) else {
            return false;
        };
        self.units.store(Arc::new(units));
        unit.close().await;
        self.policies.lock().forget(unit.uuid);
        self.tell_visibility(|nexus| unit.grant(nexus) != Grant::None);
        true
    }

    /// Takes over the grants of a volume's record. Returns when nobody who lost access has I/O in flight.
    pub async fn grants_changed(&self, lun: u16) {
        let Some(unit) = self.logical_unit(lun) else {
            return;
        };
        let refreshed = unit.refresh().await;
        unit.record(None, EventKind::GrantsChanged);
        self.tell_visibility(|nexus| {
            let visible = |grant| grant != Grant::None;
            visible(refreshed.before.grant(nexus)) != visible(refreshed.after.grant(nexus))
        });
    }

    /// Takes over the size of a volume that has grown.
    pub fn capacity_changed(&self, lun: u16) {
        if let Some(unit) = self.logical_unit(lun)
            && unit.refresh_capacity()
        {
            unit.attention_all(UnitAttention::CapacityDataChanged, None);
        }
    }

    /// Reads the private region of a logical unit that has failed again, as it does by itself when commands come.
    pub async fn retry(&self, lun: u16) {
        if let Some(unit) = self.logical_unit(lun) {
            unit.recover().await;
        }
    }

    /// An operator ends the condition that persistent reservation information was lost (SPC-4 5.13.5.3), for initiators
    /// that do not know REPLACE LOST RESERVATION: all registrations and the reservation go, and who was registered is
    /// told RESERVATIONS PREEMPTED.
    ///
    /// # Errors
    /// [`EndLostError`].
    pub async fn end_lost_information(&self, lun: u16) -> Result<(), EndLostError> {
        let unit = self
            .logical_unit(lun)
            .ok_or(EndLostError::NoSuchUnit(lun))?;
        unit.end_lost_information().await
    }

    /// The logical unit with this number.
    pub fn logical_unit(&self, lun: u16) -> Option<Arc<LogicalUnit<D>>> {
        self.units.load().get(&lun).cloned()
    }

    /// All logical units in the order of their numbers.
    pub fn logical_units(&self) -> Vec<Arc<LogicalUnit<D>>> {
        self.units.load().values().cloned().collect()
    }

    /// All sessions that are up.
    pub fn sessions(&self) -> Vec<Arc<NexusSession<D>>> {
        let mut sessions: Vec<_> = self.sessions.lock().by_nexus.values().cloned().collect();
        sessions.sort_by_key(|session| session.id());
        sessions
    }

    /// The session of a nexus that is up.
    pub fn session(&self, nexus: &Nexus) -> Option<Arc<NexusSession<D>>> {
        self.sessions.lock().by_nexus.get(nexus).cloned()
    }

    /// A nexus comes up. `peer` is the address of its connection, for the audit trail.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(
        self: &Arc<Self>,
        nexus: Nexus,
        peer: impl Into<Arc<str>>,
    ) -> Result<Arc<NexusSession<D>>, AttachError<D>> {
        let session = {
            let mut sessions = self.sessions.lock();
            if sessions.cut.contains(&*nexus.initiator.name) {
                return Err(AttachError::Refused);
            }
            if let Some(session) = sessions.by_nexus.get(&nexus) {
                return Err(AttachError::InUse(session.clone()));
            }
            let session = Arc::new(NexusSession::new(
                self.clone(),
                self.next_session_id.fetch_add(1, SeqCst),
                nexus.clone(),
                peer.into(),
            ));
            sessions.by_nexus.insert(nexus, session.clone());
            session
        };
        self.record(&session, EventKind::Attached);
        Ok(session)
    }

    /// A session has been detached.
    pub(crate) fn forget(&self, session: &NexusSession<D>) {
        self.sessions.lock().by_nexus.remove(session.nexus());
    }

    /// Hard reset of the target as this initiator sees it: every logical unit that it may write. A cold reset ends all
    /// sessions as well (RFC 7143 11.5.1), and takes the right to write every logical unit. False when the initiator
    /// lacks the right: then nothing is done.
    pub(crate) async fn reset(&self, by: &NexusSession<D>, cold: bool) -> bool {
        let all = self.logical_units();
        let may_write = |unit: &Arc<LogicalUnit<D>>| unit.grant(by.nexus()) == Grant::ReadWrite;
        let units: Vec<_> = all.iter().filter(|unit| may_write(unit)).collect();
        if units.len() < all.len() && (cold || units.is_empty()) {
            return false;
        }
        let is_restricted = |unit: &LogicalUnit<D>| {
            let access = unit.access.lock();
            access.word(by.nexus()).is_restricted()
        };
        if cold && units.iter().any(|unit| is_restricted(unit)) {
            return false;
        }
        for unit in units {
            let sender = unit.access.lock().nexuses.get(by.nexus()).cloned();
            if is_restricted(unit) {
                if let Some(sender) = sender {
                    unit.abort_task_set(&sender).await;
                }
                continue;
            }
            unit.reset(UnitAttention::ScsiBusReset, sender.as_deref())
                .await;
        }
        self.record(by, EventKind::TargetReset);
        if cold {
            for session in self.sessions() {
                session.request_drop();
            }
        }
        true
    }

    /// Tells the sessions of the nexuses for which a logical unit came or went that the list of LUNs has changed.
    pub(crate) fn tell_visibility(&self, changed: impl Fn(&Nexus) -> bool) {
        for session in self.sessions() {
            if changed(session.nexus()) {
                session.attention(UnitAttention::ReportedLunsDataChanged);
            }
        }
    }

    pub(crate) fn record(&self, session: &NexusSession<D>, kind: EventKind) {
        self.shared.events.record(Event {
            volume: None,
            nexus: Some(session.nexus().clone()),
            peer: Some(session.peer().to_string()),
            kind,
        });
    }
}
