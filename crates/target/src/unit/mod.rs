//! A logical unit: a volume as SCSI sees it.

pub(crate) mod change;
pub(crate) mod condition;
pub(crate) mod mode;
pub(crate) mod nexus_unit;
mod policy;
pub(crate) mod snapshot;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;
use reservation::Nexus;
use reservation::machine::LuReservations;
use scsi::sense::SenseFormat;
use scsi::unit_attention::UnitAttention;
use uuid::Uuid;
use volume::Volume;
use volume::block_device::BlockDevice;

use crate::attention::AttentionSet;
use crate::gate::{GateWord, Grant};
use crate::policy::PolicyCell;
use crate::range_lock::RangeLock;
use crate::runtime::{Event, EventKind};
use crate::target::Shared;
use condition::Condition;
use mode::ModeParameters;
use nexus_unit::NexusUnit;
use snapshot::{Access, Snapshot};

/// A logical unit. Shared by all reactors.
pub struct LogicalUnit<D> {
    pub(crate) lun: u16,
    /// Identity of the volume.
    pub(crate) uuid: Uuid,
    /// The policy of the volume; the one in force is in `access`.
    pub(crate) policy: Arc<PolicyCell>,
    pub(crate) volume: Arc<Volume<D>>,
    pub(crate) shared: Arc<Shared>,
    /// log2 of the logical block size.
    pub(crate) block_shift: u32,
    capacity_blocks: AtomicU64,
    pub(crate) access: Mutex<Access>,
    /// Held through every change of access, from the decision to the end of the drain.
    pub(crate) change: async_lock::Mutex<()>,
    pub(crate) ranges: RangeLock,
    pub(crate) condition: Condition,
    pub(crate) mode: ModeParameters,
    pub(crate) removed: AtomicBool,
}

impl<D: BlockDevice> LogicalUnit<D> {
    /// A logical unit over `volume`. When the reservations cannot be read it is there and not ready. It does not follow
    /// the policy yet: nobody may see it before [`LogicalUnit::refresh`].
    pub(crate) async fn open(
        volume: Arc<Volume<D>>,
        shared: Arc<Shared>,
        policy: Arc<PolicyCell>,
    ) -> Self {
        let condition = Condition::default();
        let reservations = match Self::load(&volume).await {
            Ok(state) => Some(LuReservations {
                persistent: state,
                ..LuReservations::default()
            }),
            Err(reason) => {
                tracing::error!(volume = volume.record().name, reason, "not served");
                condition.fail(reason);
                None
            }
        };
        let block_bytes = u64::from(volume.block_size().bytes());
        let snapshot = Snapshot {
            unreadable: reservations.is_none(),
            reservations: reservations.unwrap_or_default(),
            record: volume.record(),
            policy: Arc::default(),
        };
        Self {
            lun: volume.lun(),
            uuid: volume.record().uuid,
            policy,
            block_shift: block_bytes.trailing_zeros(),
            capacity_blocks: AtomicU64::new(volume.size_bytes() / block_bytes),
            access: Mutex::new(Access::new(snapshot)),
            change: async_lock::Mutex::new(()),
            ranges: RangeLock::default(),
            condition,
            mode: ModeParameters::default(),
            removed: AtomicBool::new(false),
            volume,
            shared,
        }
    }

    async fn load(volume: &Volume<D>) -> Result<reservation::State, String> {
        if let Some(fault) = volume.fault() {
            return Err(fault.to_string());
        }
        let region = volume.private_region().map_err(|error| error.to_string())?;
        region.load().await.map_err(|error| error.to_string())
    }

    /// Logical unit number.
    pub fn lun(&self) -> u16 {
        self.lun
    }

    /// The volume below.
    pub fn volume(&self) -> &Arc<Volume<D>> {
        &self.volume
    }

    /// Logical block size in bytes.
    pub fn block_bytes(&self) -> u64 {
        1 << self.block_shift
    }

    /// Capacity in logical blocks.
    pub fn capacity_blocks(&self) -> u64 {
        self.capacity_blocks.load(SeqCst)
    }

    /// Takes over the size of the volume; true when it changed.
    pub(crate) fn refresh_capacity(&self) -> bool {
        let now = self.volume.size_bytes() >> self.block_shift;
        self.capacity_blocks.swap(now, SeqCst) != now
    }

    /// The reservations as published, for the command line; `None` while they are not known.
    pub fn reservations(&self) -> Option<LuReservations> {
        let snapshot = self.access.lock().current.clone();
        (!snapshot.unreadable).then(|| snapshot.reservations.clone())
    }

    /// Why the logical unit is not ready, if it has failed.
    pub fn failure(&self) -> Option<String> {
        self.condition.failure()
    }

    /// Format of sense data for all nexuses.
    pub(crate) fn sense_format(&self) -> SenseFormat {
        SenseFormat::from_bit(self.mode.descriptor_sense())
    }

    /// Adds a nexus; `None` when it is not granted anything or the logical unit is being removed.
    pub(crate) fn attach(
        &self,
        nexus: &Nexus,
        new: impl FnOnce(GateWord, AttentionSet) -> NexusUnit,
    ) -> Option<Arc<NexusUnit>> {
        let mut access = self.access.lock();
        let word = access.word(nexus);
        if self.removed.load(SeqCst) || word.grant() == Grant::None {
            return None;
        }
        // Power on and I_T nexus loss alike, by the code that says the least: initiators in the field know no other.
        let attentions = access
            .returning(nexus)
            .with(UnitAttention::PowerOnResetOrBusDeviceReset);
        let word = word
            .with(GateWord::NOT_READY, self.condition.is_not_ready())
            .with(GateWord::WRITE_PROTECTED, self.mode.write_protected());
        let unit = Arc::new(new(word, attentions));
        access.insert(unit.clone());
        Some(unit)
    }

    /// What the initiator of `nexus` is granted, as published.
    pub(crate) fn grant(&self, nexus: &Nexus) -> Grant {
        self.access.lock().word(nexus).grant()
    }

    /// Is the logical unit being removed?
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(SeqCst)
    }

    /// Brings the gates in line with the condition of the logical unit.
    pub(crate) fn refresh_readiness(&self) {
        let access = self.access.lock();
        let not_ready = self.condition.is_not_ready();
        for unit in access.nexuses.values() {
            unit.gate.set(GateWord::NOT_READY, not_ready);
        }
    }

    /// Sets or clears slow-path bits in the gate of every nexus.
    pub(crate) fn set_gates(&self, bits: u32, set: bool) {
        for unit in self.access.lock().nexuses.values() {
            unit.gate.set(bits, set);
        }
    }

    /// Establishes a unit attention condition for every nexus that is up, but `except`.
    pub(crate) fn attention_all(&self, attention: UnitAttention, except: Option<&Nexus>) {
        for (nexus, unit) in &self.access.lock().nexuses {
            if Some(nexus) != except {
                unit.attention(attention);
            }
        }
    }

    /// Number of tasks that are past the gate now.
    pub fn in_flight(&self) -> u64 {
        let access = self.access.lock();
        let gates = access.nexuses.values().map(|unit| unit.gate.in_flight());
        gates.sum()
    }

    /// Writes to the audit trail.
    pub(crate) fn record(&self, by: Option<&NexusUnit>, kind: EventKind) {
        self.shared.events.record(Event {
            volume: Some(self.volume.record().name.clone()),
            nexus: by.map(|unit| unit.nexus.clone()),
            peer: by.map(|unit| unit.peer.to_string()),
            kind,
        });
    }
}
