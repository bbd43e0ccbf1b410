//! The head area: what the head tells all members.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::envelope::{CopyWrite, Read, ReadError, TooLong};
use super::{HEAD, MAX_NAME_BYTES};
use crate::domain::{MAX_MEMBERS, Secret};
use crate::slots::SlotSet;

/// What the head area says. Its longest form (64 members with the longest names, an answer for each) fits its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadArea {
    /// Name of the domain.
    pub name: String,
    /// New at each start of the daemon.
    pub incarnation: Uuid,
    /// Grows by at least one with each look of the head at the slots, within a second: its heartbeat.
    pub beat: u64,
    /// The domain's epoch.
    pub epoch: u64,
    /// What nodes authenticate their heartbeats with.
    pub secret: Secret,
    /// Sequence number of the directory that belongs to this.
    pub directory_sequence: u64,
    /// The members by slot.
    pub members: BTreeMap<u16, HeadMember>,
    /// The last verdict of a race.
    pub verdict: Option<LastVerdict>,
    /// Answers to claims, by the slot that made them; kept until that slot claims anew.
    pub answers: BTreeMap<u16, Answer>,
}

/// A member, as the head sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadMember {
    /// Its name.
    pub name: String,
    /// Its votes.
    pub votes: u32,
    /// It has a key on at least one volume of the domain.
    pub registered: bool,
    /// Its heartbeat in its slot has stopped while those of others go on.
    pub suspect: bool,
    /// The epoch in which it was fenced; `None` for a member that has access.
    pub fenced: Option<u64>,
    /// Its fence is decided and not yet proven: something of it may still be in flight.
    #[serde(default)]
    pub unproven: bool,
}

/// The last verdict of a race.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerdict {
    /// The epoch that began with it.
    pub epoch: u64,
    /// Who goes on; empty without a winner.
    pub winners: SlotSet,
    /// Who was fenced for it.
    pub fenced: SlotSet,
}

/// The answer to a claim. It is final: the same claim is never answered differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The claim's id.
    pub claim: Uuid,
    /// What became of it.
    pub verdict: AnswerVerdict,
    /// The domain's epoch after it.
    pub epoch: u64,
    /// Who goes on.
    pub winners: SlotSet,
    /// Who was fenced.
    pub fenced: SlotSet,
    /// Why it was refused; at most 120 bytes, without control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerVerdict {
    /// The claimer goes on; whoever is not among the winners is fenced, and that is proven.
    Won,
    /// The claimer does not go on: it is fenced, or no group had more than half of all votes.
    Lost,
    /// It was made for an epoch that has passed: the claimer looks again, and claims anew if it must.
    Stale,
    /// It was no claim: see the reason.
    Refused,
}

const MAX_REASON_BYTES: usize = 120;

impl HeadArea {
    /// The copy to be written for `sequence`.
    ///
    /// # Errors
    /// [`TooLong`], when it breaks the bounds of its fields.
    pub fn encode(&self, domain: Uuid, sequence: u64) -> Result<CopyWrite, TooLong> {
        HEAD.encode(domain, sequence, self)
    }

    /// Reads the head area from its two copies, or as much of each as [`super::Place::length_bytes`] asks for.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn decode(copies: [&[u8]; 2], domain: Option<Uuid>) -> Result<Read<Self>, ReadError> {
        let read: Read<Self> = HEAD.decode(copies, domain)?;
        match read.payload.fault() {
            Some(fault) => Err(ReadError::Impossible(fault)),
            None => Ok(read),
        }
    }

    /// The slot of a member.
    pub fn slot_of(&self, member: &str) -> Option<u16> {
        let mut members = self.members.iter();
        members
            .find(|(_, known)| known.name == member)
            .map(|(slot, _)| *slot)
    }

    /// The names of members; a slot that is nobody's is shown by its number.
    pub fn names(&self, slots: SlotSet) -> Vec<String> {
        let name = |slot: u16| {
            let known = self.members.get(&slot);
            known.map_or_else(|| format!("slot {slot}"), |member| member.name.clone())
        };
        slots.iter().map(name).collect()
    }

    /// Members whose fence is decided and not yet proven.
    pub fn unproven(&self) -> SlotSet {
        let members = self.members.iter();
        members
            .filter(|(_, member)| member.unproven)
            .map(|(slot, _)| *slot)
            .collect()
    }

    /// Members that have access.
    pub fn unfenced(&self) -> SlotSet {
        let members = self.members.iter();
        members
            .filter(|(_, member)| member.fenced.is_none())
            .map(|(slot, _)| *slot)
            .collect()
    }

    fn fault(&self) -> Option<String> {
        let slots = self.members.keys().chain(self.answers.keys());
        for slot in slots {
            if usize::from(*slot) >= MAX_MEMBERS {
                return Some(format!("{slot} is no slot"));
            }
        }
        for member in self.members.values() {
            if member.name.is_empty() || member.name.len() > MAX_NAME_BYTES {
                return Some(format!("a name of {} bytes", member.name.len()));
            }
        }
        None
    }
}

impl Answer {
    /// A refusal. A reason that is too long is cut, and control characters in it become spaces.
    pub fn refused(claim: Uuid, epoch: u64, reason: &str) -> Self {
        let mut end = reason.len().min(MAX_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            claim,
            verdict: AnswerVerdict::Refused,
            epoch,
            winners: SlotSet::EMPTY,
            fenced: SlotSet::EMPTY,
            reason: Some(reason[..end].replace(char::is_control, " ")),
        }
    }
}
