//! Who may do what on a logical unit, as one value, and the nexuses it is published to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use reservation::Nexus;
use reservation::access::{Column, column};
use reservation::machine::LuReservations;
use scsi::unit_attention::UnitAttention;
use volume::VolumeRecord;

use super::nexus_unit::NexusUnit;
use crate::attention::AttentionSet;
use crate::gate::{GateWord, Grant};
use crate::policy::UnitPolicy;

/// Most absent nexuses for which pending unit attentions are kept, by logical unit; beyond, the oldest is forgotten.
pub(crate) const AWAY_MAX: usize = 4096;

/// Reservations and grants at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) reservations: LuReservations,
    pub(crate) record: Arc<VolumeRecord>,
    /// What the domains want; `reservations` has its fenced initiators.
    pub(crate) policy: Arc<UnitPolicy>,
    /// The reservations are not known: everything that needs them is refused with NOT READY.
    pub(crate) unreadable: bool,
}

impl Snapshot {
    /// Grant and column of `nexus`.
    pub(crate) fn word(&self, nexus: &Nexus) -> GateWord {
        let column = if self.unreadable {
            Column::NotReady
        } else {
            column(&self.reservations, nexus)
        };
        GateWord::new(self.grant(nexus), column)
            .with(GateWord::WINDOWED, self.policy.windows.is_some())
    }

    /// What the operator granted to the initiator of `nexus`: itself, else the domain it is in, else everyone.
    pub(crate) fn grant(&self, nexus: &Nexus) -> Grant {
        let name = &*nexus.initiator.name;
        match self.policy.grants.get(name) {
            Some(access) if !self.record.grants.contains_key(name) => (*access).into(),
            _ => self.record.access_of(name).into(),
        }
    }

    /// May some initiator write less of a mailbox in `next`?
    fn window_shrinks(&self, next: &Self, nexus: &Nexus) -> bool {
        let name = &nexus.initiator.name;
        match (self.policy.window(name), next.policy.window(name)) {
            (Some(before), Some(after)) => {
                !before.is_empty() && (before.start < after.start || before.end > after.end)
            }
            // That there is one at all is in the gate word.
            _ => false,
        }
    }

    fn may_write(&self, initiator: &str, bytes: &Range<u64>) -> bool {
        self.policy
            .window(initiator)
            .is_none_or(|window| window.start <= bytes.start && bytes.end <= window.end)
    }
}

/// A map of bounded size that forgets its oldest entry.
pub(crate) struct Bounded<V> {
    map: HashMap<Nexus, V>,
    order: VecDeque<Nexus>,
    limit: usize,
}

impl<V> Bounded<V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            map: HashMap::new(),
            order: VecDeque::new(),
            limit,
        }
    }

    pub(crate) fn entry(&mut self, nexus: &Nexus, default: V) -> &mut V {
        if !self.map.contains_key(nexus) {
            if self.order.len() >= self.limit
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
            self.order.push_back(nexus.clone());
        }
        self.map.entry(nexus.clone()).or_insert(default)
    }

    pub(crate) fn remove(&mut self, nexus: &Nexus) -> Option<V> {
        let value = self.map.remove(nexus)?;
        self.order.retain(|other| other != nexus);
        Some(value)
    }
}

/// The published access of a logical unit. Behind a mutex that is held for moments only.
pub(crate) struct Access {
    pub(crate) current: Arc<Snapshot>,
    /// While a change waits for the drain: reductions of it are published, additions not yet.
    next: Option<Arc<Snapshot>>,
    pub(crate) nexuses: BTreeMap<Nexus, Arc<NexusUnit>>,
    away: Bounded<AttentionSet>,
}

impl Access {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self {
            current: Arc::new(snapshot),
            next: None,
            nexuses: BTreeMap::new(),
            away: Bounded::new(AWAY_MAX),
        }
    }

    /// The word that applies to `nexus` now: of a change under way only what it takes away.
    pub(crate) fn word(&self, nexus: &Nexus) -> GateWord {
        let current = self.current.word(nexus);
        match &self.next {
            Some(next) if current.narrows_to(next.word(nexus)) => next.word(nexus),
            _ => current,
        }
    }

    /// Begins a change: publishes what it takes away, and returns the nexuses that lose something.
    pub(crate) fn begin(&mut self, next: Snapshot) -> Vec<Arc<NexusUnit>> {
        self.next = Some(Arc::new(next));
        let mut narrowed = Vec::new();
        for (nexus, unit) in &self.nexuses {
            let (before, after) = (self.current.word(nexus), self.word(nexus));
            if before.narrows_to(after) {
                unit.gate.publish(after);
                narrowed.push(unit.clone());
            } else if let Some(next) = &self.next
                && self.current.window_shrinks(next, nexus)
            {
                narrowed.push(unit.clone());
            }
        }
        narrowed
    }

    /// May an initiator write these bytes of a mailbox? While a change is under way, only if it may before and after.
    pub(crate) fn may_write(&self, initiator: &str, bytes: Range<u64>) -> bool {
        let next = self.next.as_ref();
        self.current.may_write(initiator, &bytes)
            && next.is_none_or(|next| next.may_write(initiator, &bytes))
    }

    /// Ends a change after the drain: publishes what it gives.
    pub(crate) fn finish(&mut self) {
        if let Some(next) = self.next.take() {
            self.current = next;
        }
        for (nexus, unit) in &self.nexuses {
            unit.gate.publish(self.current.word(nexus));
        }
    }

    /// Establishes a unit attention condition for a nexus, here or away.
    pub(crate) fn attention(&mut self, nexus: &Nexus, attention: UnitAttention) {
        match self.nexuses.get(nexus) {
            Some(unit) => unit.attention(attention),
            None => {
                let pending = self.away.entry(nexus, AttentionSet::default());
                *pending = pending.with(attention);
            }
        }
    }

    /// Adds a nexus that came up.
    pub(crate) fn insert(&mut self, unit: Arc<NexusUnit>) {
        self.nexuses.insert(unit.nexus.clone(), unit);
    }

    /// Conditions that were established for `nexus` while it was away.
    pub(crate) fn returning(&mut self, nexus: &Nexus) -> AttentionSet {
        self.away.remove(nexus).unwrap_or_default()
    }

    /// Removes a nexus; what it should have been told and was not is kept for its return, but for resets, which its
    /// return as such tells it.
    pub(crate) fn remove(&mut self, unit: &Arc<NexusUnit>) {
        if self
            .nexuses
            .get(&unit.nexus)
            .is_some_and(|present| Arc::ptr_eq(present, unit))
        {
            self.nexuses.remove(&unit.nexus);
        }
        for attention in UnitAttention::ALL {
            if attention.precedence() == 4 && unit.pending_attentions().contains(attention) {
                self.attention(&unit.nexus, attention);
            }
        }
    }
}
