//! A member: a virtual machine that watches its peers, claims when they vanish, and writes while it may.

use fencing::{Claim, ClaimAnswer};

use crate::plan::NAMES;

/// How long a peer may be silent before it counts as gone, in milliseconds.
pub const PEER_LIMIT_MS: u64 = 3_000;

/// What the members can read in the mailbox of a head: as it was at the head's last look.
#[derive(Clone, Debug, Default)]
pub struct Area {
    pub epoch: u64,
    pub fenced: u8,
    pub registered: u8,
    pub answers: [Option<(uuid::Uuid, Told)>; NAMES.len()],
}

/// What a claimer reads.
#[derive(Clone, Debug)]
pub enum Told {
    Answer(ClaimAnswer),
    Refused,
}

/// What a member writes into its slot.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub claim: Option<Claim>,
    pub wants_unfence: bool,
    pub incarnation: u64,
}

/// How a member stands with one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has just started.
    Joining,
    /// It writes.
    Active,
    /// It has stopped writing and waits for an answer.
    Claiming,
    /// Nobody has won; it claims again at this time.
    Again { at_ms: u64 },
    /// It has lost, and starts anew soon.
    Lost,
}

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct Member {
    pub alive: bool,
    pub incarnation: u64,
    pub paused_until_ms: u64,
    /// How far its clock is from the true one, in milliseconds.
    pub clock_ms: u64,
    /// When it started, by its own clock.
    booted_ms: u64,
    /// When it last heard of each peer, by its own clock.
    pub heard_ms: [u64; NAMES.len()],
    pub heads: Vec<Standing>,
    /// The real nodes, one a head; empty where the member is a simple one.
    pub nodes: Vec<fencing::node::Node>,
}

impl Member {
    /// A machine that starts.
    pub fn new(heads: usize) -> Self {
        Self {
            alive: true,
            incarnation: 1,
            paused_until_ms: 0,
            clock_ms: 100_000,
            booted_ms: 100_000,
            heard_ms: [0; NAMES.len()],
            heads: vec![Standing::Joining; heads],
            nodes: Vec::new(),
        }
    }

    /// Its own time.
    pub fn local_ms(&self, now_ms: u64) -> u64 {
        now_ms + self.clock_ms
    }

    /// It has been up for long enough to have heard of everybody who is there.
    pub fn settled(&self, now_ms: u64) -> bool {
        self.local_ms(now_ms) > self.booted_ms + 2 * PEER_LIMIT_MS
    }

    /// Whom it sees, itself included.
    pub fn view(&self, own: usize, now_ms: u64) -> u8 {
        let local_ms = self.local_ms(now_ms);
        let peers = self.heard_ms.iter().enumerate();
        peers
            .filter(|(_, heard_ms)| local_ms.saturating_sub(**heard_ms) <= PEER_LIMIT_MS)
            .fold(1 << own, |view, (peer, _)| view | 1 << peer)
    }

    /// Whether it goes on writing, as far as it knows.
    pub fn is_active(&self, head: usize) -> bool {
        match self.nodes.get(head) {
            Some(node) => node.has_access(),
            None => self.heads[head] == Standing::Active,
        }
    }

    /// It starts again: a new incarnation that knows nothing.
    pub fn boot(&mut self, now_ms: u64) {
        self.alive = true;
        self.incarnation += 1;
        self.paused_until_ms = 0;
        self.booted_ms = self.local_ms(now_ms);
        self.heard_ms = [0; NAMES.len()];
        self.heads.fill(Standing::Joining);
    }
}
