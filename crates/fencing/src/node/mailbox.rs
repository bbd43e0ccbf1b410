//! What the node makes of the mailbox.

use super::event::Event;
use super::machine::{Node, RETRY_PAUSES_MS};
use super::peer::Peer;
use super::{Hook, LostCause, MailboxRead, Output};
use crate::mailbox::{AnswerVerdict, HeadArea, LastVerdict, MemberSlot, Status};
use crate::slots::SlotSet;

/// Whether all that were fenced for a verdict are, with proof.
fn is_proven(head: &HeadArea, verdict: &LastVerdict) -> bool {
    head.unproven().and(verdict.fenced).is_empty()
}

/// A node that is started anew goes on with the numbers of its views this far behind the last one in its slot: it may
/// have published some that were never written there.
const NUMBERS_LEFT_OUT: u64 = 100;

impl Node {
    /// The mailbox was read for [`Output::Read`].
    pub fn handle_mailbox(&mut self, now_ms: u64, ticket: u64, read: MailboxRead) {
        self.clock(now_ms);
        let Some((_, asked_ms)) = self.reading.filter(|(asked, _)| *asked == ticket) else {
            return;
        };
        self.reading = None;
        let gap_ms = self.now_ms - self.read_ms;
        self.read_ms = self.now_ms;
        if ticket < self.trusted_ticket || self.status == Status::Left {
            // It began before the pause.
            self.next_read_ms = self.now_ms;
            return self.evaluate();
        }
        let beat = |head: &HeadArea| (head.incarnation, head.beat);
        if self.head.as_ref().map(beat) != Some(beat(&read.head)) {
            self.fresh_ms = self.fresh_ms.max(asked_ms);
            if !self.storage {
                self.storage = true;
                self.patient_since_ms = self.now_ms;
                self.tell(Event::StorageBack);
            }
        }
        // Who may have written meanwhile has not been seen to stand still.
        let blind = self.verifying || gap_ms > self.settings.timeout_ms;
        if self.verifying {
            self.verifying = false;
            self.patient_since_ms = self.now_ms;
            self.next_send_ms = self.now_ms;
        }
        if self.read_ticket.is_none() {
            // What the own slot says is in this read, unless it says nothing.
            self.slots_wanted.remove(self.settings.slot);
        }
        for (slot, said) in read.slots {
            self.slots_wanted.remove(slot);
            self.hear_slot(slot, said);
        }
        self.read_ticket = Some(ticket);
        self.hear_head(read.head, blind);
        self.evaluate();
    }

    /// The mailbox could not be read for [`Output::Read`].
    pub fn handle_read_failed(&mut self, now_ms: u64, ticket: u64) {
        self.clock(now_ms);
        if self.reading.is_some_and(|(asked, _)| asked == ticket) {
            self.reading = None;
        }
        self.evaluate();
    }

    fn hear_slot(&mut self, slot: u16, said: MemberSlot) {
        if let Some(view) = said.view {
            self.top_number = self.top_number.max(view.number);
        }
        if slot == self.settings.slot {
            self.beat = self.beat.max(said.beat);
            if self.read_ticket.is_none() {
                self.top_number = self.top_number.saturating_add(NUMBERS_LEFT_OUT);
            }
            return;
        }
        // Members come with the head area; a slot of nobody is of no interest.
        let Some(peer) = self.peers.get_mut(&slot) else {
            return;
        };
        peer.hear_beat(self.now_ms, said.incarnation, said.beat);
        if peer.incarnation != Some(said.incarnation) {
            peer.reborn(said.incarnation);
        }
        peer.addresses = said.addresses;
        if said.status == Status::Left {
            peer.left = true;
            peer.seen = false;
        }
    }

    fn hear_head(&mut self, head: HeadArea, blind: bool) {
        let own = self.settings.slot;
        let previous = self.head.replace(head.clone());
        let Some(me) = head
            .members
            .get(&own)
            .filter(|me| me.name == self.settings.name)
        else {
            if self.status != Status::Lost || self.active {
                self.lose(LostCause::Removed);
            }
            return;
        };
        self.peers
            .retain(|slot, _| *slot != own && head.members.contains_key(slot));
        for (slot, member) in head.members.iter().filter(|(slot, _)| **slot != own) {
            let known = previous.as_ref().and_then(|head| head.members.get(slot));
            let peer = self.peers.entry(*slot).or_default();
            if known.is_some_and(|known| known.name != member.name) {
                *peer = Peer::default();
            }
            if member.fenced.is_some() {
                peer.seen = false;
                peer.echoed = None;
            }
            if peer.incarnation.is_none() {
                self.slots_wanted.insert(*slot);
            }
            if peer.link || blind {
                peer.still_since_ms = Some(self.now_ms);
            }
            peer.still_since_ms.get_or_insert(self.now_ms);
        }
        // It was fenced and let in again between two reads: a fence and its end are two epochs, and the key is gone.
        let missed = previous.as_ref().is_some_and(|previous| {
            let had_key = previous.members.get(&own).is_some_and(|me| me.registered);
            had_key && !me.registered && head.epoch >= previous.epoch.saturating_add(2)
        });
        match (me.fenced, self.status) {
            (Some(epoch), status) if status != Status::Fenced => self.fenced(epoch),
            (None, status) if missed && status != Status::Fenced => self.fenced(head.epoch),
            (None, Status::Fenced) => {
                self.wants_unfence = false;
                self.registered_ticket = None;
                self.directory_sequence = 0;
                self.register_ms = self.now_ms;
                self.patient_since_ms = self.now_ms;
                self.change_status(Status::Starting);
            }
            _ => {}
        }
        if me.fenced.is_none() {
            self.hear_verdict(&head);
            self.hear_answer(&head);
            self.register(&head);
        }
        let verdict = match &head.verdict {
            None => Some(0),
            Some(verdict) if is_proven(&head, verdict) => Some(verdict.epoch),
            // It is looked at when its fences are proven.
            Some(verdict) => Some(verdict.epoch.saturating_sub(1)),
        };
        self.verdict_epoch = self.verdict_epoch.max(verdict);
        if !self.is_registered() && self.status == Status::Starting {
            self.patient_since_ms = self.now_ms;
        }
    }

    /// This member has no access any more.
    fn fenced(&mut self, epoch: u64) {
        let raced = self.claim.take().is_some();
        if self.active || self.status == Status::Lost {
            // It has run with access: only a boot makes sure that nothing of that is left.
            self.wants_unfence = false;
            let hook = if raced && self.active {
                Hook::Lost {
                    cause: LostCause::Race,
                    epoch,
                }
            } else {
                Hook::Fenced { epoch }
            };
            self.out.push_back(Output::Hook(hook));
        } else {
            self.wants_unfence = true;
        }
        self.active = false;
        self.view = None;
        self.group = SlotSet::one(self.settings.slot);
        for peer in self.peers.values_mut() {
            peer.link = false;
            peer.seen = false;
            peer.missing_until = None;
        }
        self.change_status(Status::Fenced);
    }

    /// A verdict that this member has not seen, in which it won: the hook is run once for it, claim or no claim.
    fn hear_verdict(&mut self, head: &HeadArea) {
        let Some(verdict) = &head.verdict else {
            return;
        };
        let new = self.verdict_epoch.is_some_and(|seen| verdict.epoch > seen);
        if new
            && is_proven(head, verdict)
            && verdict.winners.contains(self.settings.slot)
            && !verdict.fenced.is_empty()
        {
            self.won(verdict.epoch, verdict.fenced);
        }
    }

    fn won(&mut self, epoch: u64, fenced: SlotSet) {
        self.verdict_epoch = self.verdict_epoch.max(Some(epoch));
        self.active = true;
        self.retry_pause_ms = RETRY_PAUSES_MS.0;
        self.out
            .push_back(Output::Hook(Hook::Won { epoch, fenced }));
        if self.claim.is_none() {
            self.change_status(Status::Member);
        }
    }

    fn hear_answer(&mut self, head: &HeadArea) {
        let answer = head.answers.get(&self.settings.slot);
        let Some((answer, claim)) = answer.zip(self.claim) else {
            return;
        };
        if answer.claim != claim.id {
            return;
        }
        self.claim = None;
        self.tell(Event::Answered(answer.clone()));
        // Never at once: what was answered is first looked at.
        self.retry_ms = self.now_ms + self.settings.interval_ms;
        match answer.verdict {
            AnswerVerdict::Won => {
                let new = self.verdict_epoch.is_none_or(|seen| answer.epoch > seen);
                let told = self.active && (answer.fenced.is_empty() || !new);
                if told {
                    self.change_status(Status::Member);
                } else {
                    self.won(answer.epoch, answer.fenced);
                }
            }
            AnswerVerdict::Lost => {
                self.retry_ms = self.now_ms + self.retry_pause_ms;
                self.retry_pause_ms = (self.retry_pause_ms * 2).min(RETRY_PAUSES_MS.1);
                self.lose(LostCause::Race);
            }
            AnswerVerdict::Stale | AnswerVerdict::Refused => {
                if answer.verdict == AnswerVerdict::Refused {
                    self.retry_ms = self.now_ms + 2 * self.settings.timeout_ms;
                }
                let status = if self.active {
                    Status::Member
                } else {
                    Status::Starting
                };
                self.change_status(status);
            }
        }
    }

    /// Registers on volumes where that was not done yet, if it may: a member without a key that came into a partition
    /// with one would only be the next to be raced for, or win, and its rivals after it.
    fn register(&mut self, head: &HeadArea) {
        if self.registering
            || self.now_ms < self.register_ms
            || self.directory_sequence == head.directory_sequence
        {
            return;
        }
        let waits_for = self.holds_back(head);
        if self.waits_for != waits_for {
            self.waits_for = waits_for;
            self.tell(Event::Waits { slots: waits_for });
        }
        if !waits_for.is_empty() {
            return;
        }
        let all = self.registered_ticket.is_none();
        self.registering = true;
        self.directory_sequence = head.directory_sequence;
        self.out.push_back(Output::Register { all });
    }

    /// Whom a member without a key waits for before it registers: everybody else who has a key and is not fenced, unless
    /// - there is a link, or
    /// - the member's heartbeat in the mailbox has been seen to stand still for the join timeout. Its node does not run,
    ///   or cannot write; its software may still, and the key may be left over from a crash. Both end by a race, and for
    ///   that this member needs a key.
    ///
    /// A member that has a key waits for nobody: it is already counted, and all others may be gone.
    fn holds_back(&self, head: &HeadArea) -> SlotSet {
        let own = self.settings.slot;
        let has_key = |slot: &u16| head.members.get(slot).is_some_and(|me| me.registered);
        if self.registered_ticket.is_some() || has_key(&own) {
            return SlotSet::EMPTY;
        }
        let limit_ms = self.settings.join_timeout_ms.max(self.settings.timeout_ms);
        let waits = |(slot, peer): &(&u16, &Peer)| {
            let fenced = |slot: &u16| head.members.get(slot).is_some_and(|m| m.fenced.is_some());
            let goes_on = peer.still_ms(self.now_ms) < limit_ms;
            has_key(slot) && !fenced(slot) && !peer.link && goes_on
        };
        let peers = self.peers.iter().filter(waits);
        peers.map(|(slot, _)| *slot).collect()
    }
}
