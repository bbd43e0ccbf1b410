//! What the target needs of the program around it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use reservation::Nexus;
use reservation::effects::Fact;

/// A future that stays on the thread that made it.
pub type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The executor of the calling thread.
pub trait Runtime: Send + Sync + 'static {
    /// Runs `future` to its end on the reactor of the calling thread, whatever becomes of the caller.
    fn spawn(&self, future: LocalFuture);

    /// Completes after `duration`; driven by the thread that polls it.
    fn sleep(&self, duration: Duration) -> LocalFuture;
}

/// Where the audit trail goes. Called in the order in which things happened on one logical unit, after they are
/// durable and before the command is answered.
pub trait EventSink: Send + Sync + 'static {
    /// Takes one event. Must not block.
    fn record(&self, event: Event);
}

/// An event for the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name of the volume concerned; `None` for events of the whole target.
    pub volume: Option<String>,
    /// The nexus that did it; `None` for the operator.
    pub nexus: Option<Nexus>,
    /// The address of that nexus's connection.
    pub peer: Option<String>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A registration or reservation changed.
    Reservation(Fact),
    /// A nexus lost access to the medium that it had before: it is fenced. All its I/O has ended.
    Fenced {
        /// Who lost access.
        nexus: Nexus,
        /// Its tasks were aborted as well.
        aborted: bool,
    },
    /// The logical unit was reset.
    LogicalUnitReset,
    /// The target was reset.
    TargetReset,
    /// Grants changed.
    GrantsChanged,
    /// A nexus came up.
    Attached,
    /// A nexus went away; `true` by logout.
    Detached {
        /// By logout, else by loss of the connection or by force.
        logout: bool,
    },
    /// The private region could not be written; the logical unit does not answer until it is read again.
    FailedClosed {
        /// Why.
        reason: String,
    },
    /// SANITIZE began.
    SanitizeStarted,
    /// SANITIZE ended.
    SanitizeEnded {
        /// The whole medium was sanitized.
        complete: bool,
    },
}

/// Forgets events; for tests and tools.
pub struct NoEvents;

impl EventSink for NoEvents {
    fn record(&self, _event: Event) {}
}
