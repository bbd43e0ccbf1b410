//! The mode parameters that can be changed, shared by all nexuses (SPC-4 7.5).

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Current values. They are not saved: power on and resets bring back the defaults.
#[derive(Debug)]
pub(crate) struct ModeParameters {
    descriptor_sense: AtomicBool,
    write_protected: AtomicBool,
    task_aborted_status: AtomicBool,
}

impl Default for ModeParameters {
    fn default() -> Self {
        Self {
            descriptor_sense: AtomicBool::new(false),
            write_protected: AtomicBool::new(false),
            task_aborted_status: AtomicBool::new(Self::DEFAULT_TAS),
        }
    }
}

impl ModeParameters {
    /// TAS is one by default: a node whose tasks another one aborts learns it at once, not from its own timeout.
    pub(crate) const DEFAULT_TAS: bool = true;

    /// D_SENSE in the Control mode page.
    pub(crate) fn descriptor_sense(&self) -> bool {
        self.descriptor_sense.load(SeqCst)
    }

    /// SWP in the Control mode page.
    pub(crate) fn write_protected(&self) -> bool {
        self.write_protected.load(SeqCst)
    }

    /// TAS in the Control mode page.
    pub(crate) fn task_aborted_status(&self) -> bool {
        self.task_aborted_status.load(SeqCst)
    }

    /// Sets all; true when anything changed.
    pub(crate) fn set(&self, descriptor_sense: bool, swp: bool, tas: bool) -> bool {
        let mut changed = self.descriptor_sense.swap(descriptor_sense, SeqCst) != descriptor_sense;
        changed |= self.write_protected.swap(swp, SeqCst) != swp;
        changed |= self.task_aborted_status.swap(tas, SeqCst) != tas;
        changed
    }

    /// Brings back the defaults.
    pub(crate) fn reset(&self) {
        self.set(false, false, Self::DEFAULT_TAS);
    }
}
