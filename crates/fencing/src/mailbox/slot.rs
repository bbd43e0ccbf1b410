//! A member's slot: what it tells the head and its peers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::envelope::{CopyWrite, Read, ReadError, TooLong};
use super::{MAX_NAME_BYTES, slot_place};
use crate::slots::SlotSet;

/// Most addresses of a node.
pub const MAX_ADDRESSES: usize = 4;

/// What a slot says. Its longest form fits its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSlot {
    /// Name of the member that wrote it.
    pub member: String,
    /// New at each boot of the member; a restart of the node alone keeps it.
    pub incarnation: Uuid,
    /// Grows by one with each write: its heartbeat on storage.
    pub beat: u64,
    /// What it is doing.
    pub status: Status,
    /// Where it hears heartbeats, at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// Whom it hears.
    pub heard: SlotSet,
    /// The view that it has adopted.
    pub view: Option<View>,
    /// What it claims; stays until it has read the answer.
    pub claim: Option<SlotClaim>,
    /// It is fenced, has stopped everything, and asks for its access. The head gives it if `incarnation` is not the one that was fenced.
    pub wants_unfence: bool,
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has not yet found its place.
    Starting,
    /// It has access and watches its peers.
    Member,
    /// It has claimed and waits for the verdict.
    Racing,
    /// It lost, or cannot reach its storage, and has stopped its I/O.
    Lost,
    /// It is fenced.
    Fenced,
    /// It was stopped in order: nobody need race for it.
    Left,
}

/// What the master of a group publishes and all of the group adopt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Grows with each view that a member adopts. Two views with one number and one master are the same.
    pub number: u64,
    /// Who published it: the lowest slot of the group.
    pub master: u16,
    /// The group.
    pub members: SlotSet,
}

/// A claim: this member and its group go on, all others are to be fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotClaim {
    /// New for each claim.
    pub id: Uuid,
    /// The epoch that the member knows.
    pub epoch: u64,
    /// The group, with the member itself.
    pub group: SlotSet,
}

impl MemberSlot {
    /// The copy to be written for `sequence` in slot `slot`.
    ///
    /// # Errors
    /// [`TooLong`], when it breaks the bounds of its fields, or the number is no slot.
    pub fn encode(&self, domain: Uuid, slot: u16, sequence: u64) -> Result<CopyWrite, TooLong> {
        let none = TooLong {
            length_bytes: 0,
            limit_bytes: 0,
        };
        let place = slot_place(slot).ok_or(none)?;
        place.encode(domain, sequence, self)
    }

    /// Reads a slot from its two copies of [`super::UNIT_BYTES`]. A claim that does not name its own member, or that
    /// names another slot's member, is for whoever reads it to judge: only he knows the members.
    ///
    /// # Errors
    /// [`ReadError`]; for a number that is no slot [`ReadError::Foreign`].
    pub fn decode(copies: [&[u8]; 2], slot: u16, domain: Uuid) -> Result<Read<Self>, ReadError> {
        let place = slot_place(slot).ok_or(ReadError::Foreign)?;
        let read: Read<Self> = place.decode(copies, Some(domain))?;
        let said = &read.payload;
        if said.member.is_empty() || said.member.len() > MAX_NAME_BYTES {
            return Err(ReadError::Impossible("the name of the member".into()));
        }
        if said.addresses.len() > MAX_ADDRESSES {
            return Err(ReadError::Impossible("too many addresses".into()));
        }
        if let Some(view) = &said.view
            && view.members.first() != Some(view.master)
        {
            return Err(ReadError::Impossible("a view without its master".into()));
        }
        if let Some(claim) = &said.claim
            && !claim.group.contains(slot)
        {
            return Err(ReadError::Impossible(
                "a claim that leaves its claimer out".into(),
            ));
        }
        Ok(read)
    }
}
