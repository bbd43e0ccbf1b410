//! What the data path tells about plexes that fail, and to whom.

use std::collections::VecDeque;
use std::ops::Range;

use event_listener::{Event, EventListener};
use parking_lot::Mutex;
use uuid::Uuid;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Data could not be written, and why.
    WriteFailed(String),
    /// A flush failed, and why.
    FlushFailed(String),
    /// Data could be read from another plex only, and the bad place could not be written again.
    ReadFailed(String),
    /// The region log or an intent could not be written, and why.
    LogFailed(String),
    /// An operation did not end in time.
    Hung {
        /// How long it was waited for.
        seconds: u64,
    },
}

/// A plex that failed an operation, to be dealt with by the pool's keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The volume.
    pub volume: Uuid,
    /// The plex.
    pub plex: Uuid,
    /// The device that failed, where it is known.
    pub device: Option<Uuid>,
    /// The regions that the operation was for; empty where it was for none in particular.
    pub regions: Range<u32>,
    /// What happened.
    pub what: Trouble,
}

/// The reports that nobody has taken yet. One a pool, shared by all of its volumes.
///
/// Nothing is lost between two threads: a report is in the queue before listeners are notified, and a keeper that
/// listens first, then takes, then waits, sees it either way.
#[derive(Default)]
pub struct Reports {
    queue: Mutex<VecDeque<Report>>,
    pushed: Event,
}

impl Reports {
    /// Adds a report, unless the same one is waiting.
    pub(crate) fn push(&self, report: Report) {
        let mut queue = self.queue.lock();
        if queue.contains(&report) {
            return;
        }
        queue.push_back(report);
        drop(queue);
        self.pushed.notify(usize::MAX);
    }

    /// Takes all reports, oldest first.
    pub fn take(&self) -> Vec<Report> {
        self.queue.lock().drain(..).collect()
    }

    /// Resolves after the next report.
    pub fn listen(&self) -> EventListener {
        self.pushed.listen()
    }
}
