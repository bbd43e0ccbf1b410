//! What the keeper remembers between two looks; all of it can be lost by a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_lock::Mutex;
use uuid::Uuid;

use super::pace::Pacer;
use crate::config::VolumeRecord;
use crate::pool::jobs::ByteRange;

/// Waits that grow while something goes on failing.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::pool) struct Backoff {
    /// Not before this.
    pub(in crate::pool) until: Duration,
    step: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(300);

    /// It failed once more: the wait until the next try doubles.
    pub(in crate::pool) fn failed(&mut self, now: Duration) {
        self.step = if self.step.is_zero() {
            Self::FIRST
        } else {
            (self.step * 2).min(Self::LONGEST)
        };
        self.until = now.saturating_add(self.step);
    }

    /// It worked: the next failure waits shortly again.
    pub(in crate::pool) fn worked(&mut self) {
        *self = Backoff::default();
    }

    /// Whether it may be tried.
    pub(in crate::pool) fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }
}

/// What was reported of a plex.
#[derive(Clone, Debug, Default)]
pub(in crate::pool) struct Trouble {
    /// The regions that gave trouble; empty when the whole plex does.
    pub(in crate::pool) regions: Vec<Range<u32>>,
    /// The first reason, for people.
    pub(in crate::pool) reason: String,
}

impl Trouble {
    pub(in crate::pool) fn concerns(&self, region: u32) -> bool {
        self.regions.is_empty() || self.regions.iter().any(|range| range.contains(&region))
    }
}

/// Why copying does not go on by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pool) struct Stall {
    pub(in crate::pool) reason: String,
    pub(in crate::pool) ranges: Vec<ByteRange>,
}

/// What is known of a volume.
pub(in crate::pool) struct VolumeState<D> {
    /// Held by whoever changes which plexes there are or which of them take part.
    pub(in crate::pool) plexes: Arc<Mutex<()>>,
    /// Held by whoever changes which replicas of the keys there are, from the look at the members to the commit of the
    /// record: a list of members that is older than the record would take new members for leftovers.
    pub(in crate::pool) keys_change: Arc<Mutex<()>>,
    /// Devices on which a new replica of the keys could not be made: others come first.
    pub(in crate::pool) keys_refused: BTreeSet<Uuid>,
    pub(in crate::pool) trouble: BTreeMap<Uuid, Trouble>,
    /// Plexes whose trouble nothing can be done about now, by plex.
    pub(in crate::pool) hopeless: BTreeMap<Uuid, Backoff>,
    /// The record of the layout that is known to be the only one in use.
    pub(in crate::pool) drained: Option<Arc<VolumeRecord>>,
    /// Detached plexes, and when to attach them again.
    pub(in crate::pool) attach: BTreeMap<Uuid, Backoff>,
    pub(in crate::pool) pacer: Option<Arc<Pacer<D>>>,
    pub(in crate::pool) copy: Backoff,
    /// When the copier last got on.
    pub(in crate::pool) copied_at: Duration,
    pub(in crate::pool) stall: Option<Stall>,
    /// The stall was told of.
    pub(in crate::pool) stall_told: bool,
    pub(in crate::pool) finish: Backoff,
    /// An operator paused the resync.
    pub(in crate::pool) resync_paused: bool,
    pub(in crate::pool) resync_rate: Option<u64>,
    /// Bytes of the resync that was told of, at its start; `None` when there is none.
    pub(in crate::pool) resync_bytes: Option<u64>,
    pub(in crate::pool) sweep_at: Duration,
    /// When it is tried next to end atomic writes that are stuck.
    pub(in crate::pool) intents_at: Duration,
    pub(in crate::pool) keys: Backoff,
    pub(in crate::pool) keys_at: Duration,
    /// Replicas of the keys that were told of as lost, and since when.
    pub(in crate::pool) keys_lost: BTreeMap<Uuid, Duration>,
}

impl<D> Default for VolumeState<D> {
    fn default() -> Self {
        VolumeState {
            plexes: Arc::default(),
            keys_change: Arc::default(),
            keys_refused: BTreeSet::new(),
            trouble: BTreeMap::new(),
            hopeless: BTreeMap::new(),
            drained: None,
            attach: BTreeMap::new(),
            pacer: None,
            copy: Backoff::default(),
            copied_at: Duration::ZERO,
            stall: None,
            stall_told: false,
            finish: Backoff::default(),
            resync_paused: false,
            resync_rate: None,
            resync_bytes: None,
            sweep_at: Duration::ZERO,
            intents_at: Duration::ZERO,
            keys: Backoff::default(),
            keys_at: Duration::ZERO,
            keys_lost: BTreeMap::new(),
        }
    }
}

/// What is known of a device.
#[derive(Default)]
pub(in crate::pool) struct DeviceState {
    /// It did not answer; when it was noticed.
    pub(in crate::pool) hung_since: Option<Duration>,
    /// That was told of.
    pub(in crate::pool) hung_told: bool,
    /// When it is asked again.
    pub(in crate::pool) back: Backoff,
    /// It gave errors to writes, and the first of them.
    pub(in crate::pool) suspect: Option<String>,
    /// A read of it failed: whether it still has its whole length is to be looked at.
    pub(in crate::pool) check_end: bool,
    /// Its failure was told of.
    pub(in crate::pool) told: bool,
    pub(in crate::pool) config: Backoff,
    /// When it may be tried again to take it out of the pool.
    pub(in crate::pool) let_go: Backoff,
}

/// Everything.
pub(in crate::pool) struct State<D> {
    pub(in crate::pool) volumes: BTreeMap<Uuid, VolumeState<D>>,
    pub(in crate::pool) devices: BTreeMap<Uuid, DeviceState>,
    /// Devices that are to leave the pool when they are empty, and what takes their place.
    pub(in crate::pool) leaving: BTreeMap<Uuid, Uuid>,
    /// When the copies of the configuration are looked at next.
    pub(in crate::pool) config_at: Duration,
    /// The configuration could not be changed; told of.
    pub(in crate::pool) config_lost: bool,
    pub(in crate::pool) closing: bool,
}

impl<D> Default for State<D> {
    fn default() -> Self {
        State {
            volumes: BTreeMap::new(),
            devices: BTreeMap::new(),
            config_lost: false,
            closing: false,
            leaving: BTreeMap::new(),
            config_at: Duration::ZERO,
        }
    }
}
