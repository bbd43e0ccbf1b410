//! What a node knows of a peer.

use std::net::SocketAddr;

use uuid::Uuid;

use super::heartbeat::Heartbeat;

/// A member other than this one.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// As its slot in the mailbox says; heartbeats of any other are not believed.
    pub incarnation: Option<Uuid>,
    /// Where it hears.
    pub addresses: Vec<SocketAddr>,
    /// The last heartbeat that was believed, and when it came.
    pub last: Option<(Heartbeat, u64)>,
    /// The newest of this node's counters that it has echoed.
    pub echoed: Option<u64>,
    /// The link was up at the last evaluation.
    pub link: bool,
    /// It was in a group with this member, with a key, since it last came, so its absence is a loss.
    pub seen: bool,
    /// It stopped in order, as its slot or its last heartbeat say.
    pub left: bool,
    /// When it may be claimed against; `None` while it is not missing.
    pub missing_until: Option<u64>,
    /// Its heartbeat in the mailbox: the incarnation and the beat that were last read in its slot.
    pub beat: Option<(Uuid, u64)>,
    /// Since when that has been seen to stand still. It starts anew when the heartbeat goes on, while there is a link, and
    /// when the mailbox was not read for a while.
    pub still_since_ms: Option<u64>,
}

impl Peer {
    /// Whether it has echoed what was sent less than `timeout_ms` ago.
    pub fn is_linked(&self, now_ms: u64, timeout_ms: u64) -> bool {
        self.echoed
            .is_some_and(|echoed| now_ms.saturating_sub(echoed) < timeout_ms)
    }

    /// The counter to echo: of what was heard less than `timeout_ms` ago.
    pub fn echo(&self, now_ms: u64, timeout_ms: u64) -> Option<u64> {
        let (heartbeat, came_ms) = self.last.as_ref()?;
        (now_ms.saturating_sub(*came_ms) < timeout_ms).then_some(heartbeat.counter)
    }

    /// Its slot was read.
    pub fn hear_beat(&mut self, now_ms: u64, incarnation: Uuid, beat: u64) {
        if self.beat.replace((incarnation, beat)) != Some((incarnation, beat)) {
            self.still_since_ms = Some(now_ms);
        }
    }

    /// For how long its heartbeat in the mailbox has been seen to stand still.
    pub fn still_ms(&self, now_ms: u64) -> u64 {
        self.still_since_ms
            .map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }

    /// It is somebody else now: a new boot of the same member.
    pub fn reborn(&mut self, incarnation: Uuid) {
        self.incarnation = Some(incarnation);
        self.last = None;
        self.echoed = None;
        self.left = false;
    }
}
