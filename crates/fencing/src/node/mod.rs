//! The core of a member's node: who is there, which group it is in, and when to claim. No sockets, files, clocks or
//! random numbers: whoever drives it gives it time, heartbeats and what was read from the mailbox, and carries out the
//! [`Output`]s in order. Same inputs, same outputs.
//!
//! - **Links.** A node sends a heartbeat to each member every interval. It carries the sender's clock, and echoes the last
//!   one it heard of each peer. A link to a peer is up while the peer's echo of what this node sent is younger than the
//!   timeout: so only links that work in both ways count, and a recorded datagram proves nothing.
//! - **Group.** The best clique with itself in it ([`best_clique`]) of the links that both ends report. Members that are
//!   fenced, have left, or have lost their storage are in no group.
//! - **View.** The lowest slot of a group is its master. When all of the group say that this is their group, the master
//!   publishes it under the next number, and the others adopt it.
//! - **Claim.** Members that have access and are not in the group are *missing*. One that was there is claimed against
//!   when its link has been lost for the timeout and the group agrees, or has had time to; one that never was, after the
//!   join timeout. The claim stays in the slot until it is answered.
//! - **Storage.** The head's beat in the mailbox must go on. If it stops for the storage timeout, the member has lost.
//! - **A pause.** When time has jumped, nothing is believed or done before the mailbox has been read again.

mod clique;
mod evaluate;
mod event;
mod heartbeat;
mod machine;
mod mailbox;
mod peer;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use uuid::Uuid;

use crate::mailbox::{HeadArea, MemberSlot};
use crate::slots::SlotSet;

pub use clique::best_clique;
pub use event::Event;
pub use heartbeat::{Heartbeat, HeartbeatError, MAX_HEARTBEAT_BYTES};
pub use machine::Node;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The domain, from the mailbox's envelope.
    pub domain: Uuid,
    /// Which member it is.
    pub slot: u16,
    /// The member's name.
    pub name: String,
    /// New at each boot of the machine, the same for all starts of the node in one boot.
    pub incarnation: Uuid,
    /// Random, new at each start of the node: what the ids of claims are made of.
    pub claim_seed: Uuid,
    /// Where it hears heartbeats; written to its slot.
    pub addresses: Vec<SocketAddr>,
    /// Between heartbeats, writes of the slot and reads of the mailbox, in milliseconds; at least 10.
    pub interval_ms: u64,
    /// After how long without an echo a link is lost, in milliseconds; at least four intervals.
    pub timeout_ms: u64,
    /// After how long a member that has access and was never seen is claimed against, in milliseconds.
    pub join_timeout_ms: u64,
    /// After how long without a sign of the head in the mailbox the storage is lost, in milliseconds.
    pub storage_timeout_ms: u64,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a heartbeat to a member.
    Send {
        /// To whom; its addresses are [`Node::addresses`].
        to: u16,
        /// What.
        heartbeat: Heartbeat,
    },
    /// Read the head area, and these slots, from the disk and not from any cache; then call [`Node::handle_mailbox`] or
    /// [`Node::handle_read_failed`]. There is no other read before that.
    Read {
        /// Which read.
        ticket: u64,
        /// Slots of interest.
        slots: SlotSet,
    },
    /// Write the own slot. If an earlier write is still under way, this one follows it, and replaces one that waits.
    Write(Box<MemberSlot>),
    /// Register a key on the volumes of the domain; then call [`Node::handle_registered`]. With `all`, also where it was
    /// registered before in this run; else only on volumes that are new.
    Register {
        /// Also where it was before: at start, and after an unfence.
        all: bool,
    },
    /// Run a hook.
    Hook(Hook),
    /// Something to tell.
    Event(Event),
}

/// What the member's software must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The group goes on, and these are fenced, with proof.
    Won {
        /// The epoch that began with it.
        epoch: u64,
        /// Who was fenced; empty when the member had lost and has found everybody again.
        fenced: SlotSet,
    },
    /// The member does not go on: stop all I/O.
    Lost {
        /// Why.
        cause: LostCause,
        /// The epoch that it knows.
        epoch: u64,
    },
    /// The member has been fenced without having raced.
    Fenced {
        /// The epoch in which it was.
        epoch: u64,
    },
}

/// Why a member has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCause {
    /// It lost a race, or nobody won it.
    Race,
    /// Its storage does not answer.
    Storage,
    /// It is no longer a member.
    Removed,
}

/// What was read from the mailbox.
#[derive(Clone, Debug)]
pub struct MailboxRead {
    /// The head area.
    pub head: HeadArea,
    /// The slots that were asked for and could be read.
    pub slots: Vec<(u16, MemberSlot)>,
}
