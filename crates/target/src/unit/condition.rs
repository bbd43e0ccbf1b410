//! Why a logical unit may not be ready: failed closed, sanitizing, stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use event_listener::Event;
use parking_lot::Mutex;
use scsi::Sense;
use scsi::sense::AdditionalSense;

/// Progress when no sanitize operation is running.
const IDLE: u32 = u32::MAX;

/// The condition of a logical unit.
pub(crate) struct Condition {
    /// Stopped by START STOP UNIT with START=0.
    stopped: AtomicBool,
    /// Progress of a sanitize operation in 1/65536, or [`IDLE`].
    sanitize: AtomicU32,
    /// The last sanitize operation failed: the medium is neither old nor clean (SBC-3 4.11.4).
    sanitize_failed: AtomicBool,
    /// AUSE of the last SANITIZE: the failed state may be left without sanitizing again.
    unrestricted_exit: AtomicBool,
    /// Notified when a sanitize operation ends.
    pub(crate) sanitize_ended: Event,
    /// Initiator that began the running sanitize operation.
    sanitize_by: Mutex<Option<Arc<str>>>,
    /// The running sanitize operation is to end: who began it is fenced.
    sanitize_stop: AtomicBool,
    failure: Mutex<Option<String>>,
    /// A task is trying to read the private region again.
    pub(crate) recovering: AtomicBool,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            stopped: AtomicBool::new(false),
            sanitize: AtomicU32::new(IDLE),
            sanitize_failed: AtomicBool::new(false),
            unrestricted_exit: AtomicBool::new(false),
            sanitize_ended: Event::new(),
            sanitize_by: Mutex::new(None),
            sanitize_stop: AtomicBool::new(false),
            failure: Mutex::new(None),
            recovering: AtomicBool::new(false),
        }
    }
}

impl Condition {
    /// Is any command but a few refused? (A failure is in the column of the access table.)
    pub(crate) fn is_not_ready(&self) -> bool {
        self.stopped.load(SeqCst)
            || self.sanitize.load(SeqCst) != IDLE
            || self.sanitize_failed.load(SeqCst)
    }

    /// The sense data for a command that is refused because the logical unit is not ready; `None` when it is ready.
    pub(crate) fn sense(&self) -> Option<Sense> {
        if self.failure.lock().is_some() {
            return Some(Sense::not_ready(
                AdditionalSense::MANUAL_INTERVENTION_REQUIRED,
            ));
        }
        if let Some(progress) = self.sanitize_progress() {
            return Some(Sense::sanitize_in_progress(progress));
        }
        if self.sanitize_failed.load(SeqCst) {
            return Some(Sense::sanitize_failed());
        }
        self.stopped
            .load(SeqCst)
            .then(|| Sense::not_ready(AdditionalSense::INITIALIZING_COMMAND_REQUIRED))
    }

    /// Progress of a running sanitize operation in 1/65536.
    pub(crate) fn sanitize_progress(&self) -> Option<u16> {
        let progress = self.sanitize.load(SeqCst);
        (progress != IDLE).then_some(progress.min(0xffff) as u16)
    }

    /// Begins a sanitize operation for an initiator; false when one is running. `unrestricted_exit` is AUSE.
    pub(crate) fn begin_sanitize(&self, by: &Arc<str>, unrestricted_exit: bool) -> bool {
        let begun = self
            .sanitize
            .compare_exchange(IDLE, 0, SeqCst, SeqCst)
            .is_ok();
        if begun {
            *self.sanitize_by.lock() = Some(by.clone());
            self.sanitize_stop.store(false, SeqCst);
            self.sanitize_failed.store(false, SeqCst);
            self.unrestricted_exit.store(unrestricted_exit, SeqCst);
        }
        begun
    }

    /// Who began the sanitize operation that is running.
    pub(crate) fn sanitize_by(&self) -> Option<Arc<str>> {
        self.sanitize_progress()?;
        self.sanitize_by.lock().clone()
    }

    /// Has the running sanitize operation end as a failed one.
    pub(crate) fn stop_sanitize(&self) {
        self.sanitize_stop.store(true, SeqCst);
    }

    /// Is the running sanitize operation to end?
    pub(crate) fn is_sanitize_stopped(&self) -> bool {
        self.sanitize_stop.load(SeqCst)
    }

    /// Sets the progress of the running sanitize operation.
    pub(crate) fn set_sanitize_progress(&self, done: u64, total: u64) {
        // done <= total, so the quotient is at most 65535.
        let part = u128::from(done) * 0xffff / u128::from(total.max(1));
        self.sanitize.store(part as u32, SeqCst);
    }

    /// Ends the sanitize operation.
    pub(crate) fn end_sanitize(&self, complete: bool) {
        self.sanitize_failed.store(!complete, SeqCst);
        self.sanitize.store(IDLE, SeqCst);
        self.sanitize_ended.notify(usize::MAX);
    }

    /// Did the last sanitize operation fail?
    pub(crate) fn has_sanitize_failed(&self) -> bool {
        self.sanitize_failed.load(SeqCst)
    }

    /// Leaves the failed state (SANITIZE with EXIT FAILURE MODE); false when there is none, or when AUSE was zero.
    pub(crate) fn exit_sanitize_failure(&self) -> bool {
        self.unrestricted_exit.load(SeqCst) && self.sanitize_failed.swap(false, SeqCst)
    }

    /// START STOP UNIT.
    pub(crate) fn set_stopped(&self, stopped: bool) {
        self.stopped.store(stopped, SeqCst);
    }

    /// Records that the logical unit has failed closed.
    pub(crate) fn fail(&self, reason: String) {
        *self.failure.lock() = Some(reason);
    }

    /// Records that it works again.
    pub(crate) fn recovered(&self) {
        *self.failure.lock() = None;
    }

    /// Why it has failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }
}
