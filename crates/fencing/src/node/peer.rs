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
    /// It was in a group with this member since it last came, so its absence is a loss.
    pub seen: bool,
    /// It stopped in order, as its slot or its last heartbeat say.
    pub left: bool,
    /// When it may be claimed against; `None` while it is not missing.
    pub missing_until: Option<u64>,
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

    /// It is somebody else now: a new boot of the same member.
    pub fn reborn(&mut self, incarnation: Uuid) {
        self.incarnation = Some(incarnation);
        self.last = None;
        self.echoed = None;
        self.left = false;
    }
}
