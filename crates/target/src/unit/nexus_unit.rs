//! What a logical unit keeps for one nexus that is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use parking_lot::Mutex;
use reservation::Nexus;
use scsi::unit_attention::UnitAttention;

use crate::attention::{AttentionSet, Attentions};
use crate::commands::copy::CopyResult;
use crate::gate::{Gate, GateWord};
use crate::task_set::TaskSet;

/// One nexus and logical unit (SAM's I_T_L nexus).
pub(crate) struct NexusUnit {
    pub(crate) nexus: Nexus,
    /// Address of the connection, for the audit trail.
    pub(crate) peer: Arc<str>,
    pub(crate) gate: Gate,
    attentions: Attentions,
    /// The tasks of the whole session.
    pub(crate) tasks: Arc<TaskSet>,
    /// PREVENT ALLOW MEDIUM REMOVAL state of this nexus.
    pub(crate) prevents_removal: AtomicBool,
    /// Result of the last EXTENDED COPY, for RECEIVE COPY RESULTS.
    pub(crate) copy_result: Mutex<Option<CopyResult>>,
}

impl NexusUnit {
    pub(crate) fn new(
        nexus: Nexus,
        peer: Arc<str>,
        tasks: Arc<TaskSet>,
        word: GateWord,
        attentions: AttentionSet,
    ) -> Self {
        let word = word.with(GateWord::ATTENTION, !attentions.is_empty());
        Self {
            nexus,
            peer,
            gate: Gate::new(word),
            attentions: Attentions::new(attentions),
            tasks,
            prevents_removal: AtomicBool::new(false),
            copy_result: Mutex::new(None),
        }
    }

    /// Establishes a unit attention condition.
    pub(crate) fn attention(&self, attention: UnitAttention) {
        self.attentions.push(attention);
        self.gate.set(GateWord::ATTENTION, true);
    }

    /// Takes the unit attention condition that goes first.
    pub(crate) fn take_attention(&self) -> Option<UnitAttention> {
        let first = self.attentions.take_first();
        self.refresh_attention_bit();
        first
    }

    /// Clears one condition without reporting it.
    pub(crate) fn clear_attention(&self, attention: UnitAttention) {
        self.attentions.clear(attention);
        self.refresh_attention_bit();
    }

    /// What is pending.
    pub(crate) fn pending_attentions(&self) -> AttentionSet {
        self.attentions.pending()
    }

    fn refresh_attention_bit(&self) {
        if self.attentions.pending().is_empty() {
            self.gate.set(GateWord::ATTENTION, false);
            // One may have been established between the two.
            if !self.attentions.pending().is_empty() {
                self.gate.set(GateWord::ATTENTION, true);
            }
        }
    }

    /// What a reset of the logical unit ends for this nexus.
    pub(crate) fn reset(&self) {
        self.prevents_removal.store(false, SeqCst);
        *self.copy_result.lock() = None;
    }
}
