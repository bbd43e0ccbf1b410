//! What a node tells whoever watches it.

use crate::mailbox::{Answer, SlotClaim, Status, View};

use super::LostCause;
use crate::slots::SlotSet;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link works in both ways.
    LinkUp {
        /// To whom.
        slot: u16,
    },
    /// A link is lost.
    LinkDown {
        /// To whom.
        slot: u16,
        /// It has stopped in order.
        left: bool,
        /// How long ago the peer echoed what this node sent, in milliseconds.
        silent_ms: u64,
    },
    /// A view was published or adopted.
    View(View),
    /// The status is another.
    Status(Status),
    /// A claim was made.
    Claimed(SlotClaim),
    /// A claim was answered.
    Answered(Answer),
    /// Time has jumped.
    Paused {
        /// By how much, in milliseconds.
        jump_ms: u64,
    },
    /// The storage no longer answers.
    StorageLost {
        /// For how long it has not, in milliseconds.
        silent_ms: u64,
    },
    /// The storage answers again.
    StorageBack,
    /// No key is registered before there is a link with these members, which have one; empty when nobody is waited for
    /// any more.
    Waits {
        /// For whom.
        slots: SlotSet,
    },
    /// The member has lost.
    Lost(LostCause),
}
