//! What follows from time, links and mailbox: storage, group, view, claim, status.

use super::event::Event;
use super::machine::{Node, RETRY_PAUSES_MS};
use super::{Hook, LostCause, Output, best_clique};
use crate::domain::MAX_MEMBERS;
use crate::mailbox::{SlotClaim, Status, View};
use crate::slots::SlotSet;

/// Every so many reads of the head area, all slots are read too.
const READS_PER_LOOK_AT_ALL: u64 = 10;

impl Node {
    pub(super) fn evaluate(&mut self) {
        if self.status == Status::Left {
            self.next_send_ms = u64::MAX;
            self.next_read_ms = u64::MAX;
            return;
        }
        self.look_at_storage();
        self.read();
        let known = self.head.is_some() && !self.verifying;
        if known && self.is_member() {
            if self.status != Status::Fenced {
                self.find_links();
                self.find_group();
                self.find_view();
                self.find_missing();
                self.find_claim();
                self.find_status();
            }
            if self.now_ms >= self.next_send_ms {
                if self.status != Status::Fenced {
                    self.send();
                }
                self.write();
                self.sent_ms = self.now_ms;
                self.next_send_ms = self.now_ms + self.settings.interval_ms;
            }
        } else if self.now_ms >= self.next_send_ms {
            self.next_send_ms = self.now_ms + self.settings.interval_ms;
        }
    }

    fn is_member(&self) -> bool {
        let name = self
            .head
            .as_ref()
            .and_then(|head| head.members.get(&self.settings.slot));
        name.is_some_and(|me| me.name == self.settings.name)
    }

    fn look_at_storage(&mut self) {
        let silent_ms = self.storage_silent_ms();
        if self.storage && silent_ms >= self.settings.storage_timeout_ms {
            self.storage = false;
            self.tell(Event::StorageLost { silent_ms });
            if matches!(self.status, Status::Member | Status::Racing) {
                self.lose(LostCause::Storage);
            }
            self.claim = None;
        }
    }

    fn read(&mut self) {
        if self.reading.is_some() || self.now_ms < self.next_read_ms {
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut slots = self.slots_wanted;
        let unlinked = self.peers.iter().filter(|(_, peer)| !peer.link);
        for (slot, _) in unlinked {
            slots.insert(*slot);
        }
        if ticket.is_multiple_of(READS_PER_LOOK_AT_ALL) {
            slots = slots.or(self.peers.keys().copied().collect());
        }
        self.reading = Some((ticket, self.now_ms));
        self.next_read_ms = self.now_ms + self.settings.interval_ms;
        self.out.push_back(Output::Read { ticket, slots });
    }

    fn find_links(&mut self) {
        let mut changes = Vec::new();
        for (slot, peer) in &mut self.peers {
            let link = peer.is_linked(self.now_ms, self.settings.timeout_ms);
            if link != peer.link {
                peer.link = link;
                let silent_ms = self
                    .now_ms
                    .saturating_sub(peer.echoed.unwrap_or(self.now_ms));
                changes.push(match link {
                    true => Event::LinkUp { slot: *slot },
                    false => Event::LinkDown {
                        slot: *slot,
                        left: peer.left,
                        silent_ms,
                    },
                });
            }
        }
        if !changes.is_empty() {
            self.hurry();
        }
        for change in changes {
            self.tell(change);
        }
    }

    /// Peers hear of a change soon, but not of each one alone.
    fn hurry(&mut self) {
        let soon_ms = self.sent_ms + self.settings.interval_ms / 5;
        self.next_send_ms = self.next_send_ms.min(soon_ms.max(self.now_ms));
    }

    fn find_group(&mut self) {
        let own = self.settings.slot;
        let Some(head) = &self.head else { return };
        let unfenced = head.unfenced();
        let mut links = [SlotSet::EMPTY; MAX_MEMBERS];
        for (slot, peer) in &self.peers {
            let Some((last, _)) = &peer.last else {
                continue;
            };
            if peer.link && !peer.left && last.storage && unfenced.contains(*slot) {
                links[usize::from(own)].insert(*slot);
                links[usize::from(*slot)] = last.links;
            }
        }
        // Who has no key does not vote, and is not to take the place of who has one: keys come first, then members.
        let votes = |slot| {
            let member = head.members.get(&slot).filter(|member| member.registered);
            member.map_or(0, |member| u64::from(member.votes) << 8 | 1)
        };
        let group = best_clique(own, &links, votes);
        if group != self.group {
            self.group = group;
            self.group_since_ms = self.now_ms;
            self.hurry();
        }
    }

    /// Whether all of the group say that it is their group.
    fn is_agreed(&self) -> bool {
        let others = self.group.minus(SlotSet::one(self.settings.slot));
        let said = |slot| {
            let peer = self.peers.get(&slot)?;
            peer.last.as_ref().map(|(last, _)| last.group)
        };
        others.iter().all(|slot| said(slot) == Some(self.group))
    }

    fn find_view(&mut self) {
        let own = self.settings.slot;
        // The group has the member itself in it.
        let master = self.group.first().unwrap_or(own);
        let published = |slot: u16| self.peers.get(&slot)?.last.as_ref()?.0.view;
        let adopted = if master == own {
            let stands = self.view.is_some_and(|view| {
                let overtaken = self.group.iter().filter_map(published).any(|other| {
                    other.number > view.number || other.number == view.number && other != view
                });
                view.master == own && view.members == self.group && !overtaken
            });
            (!stands && self.is_registered() && self.is_agreed()).then(|| View {
                number: self.top_number.saturating_add(1),
                master: own,
                members: self.group,
            })
        } else {
            published(master).filter(|view| {
                let newer = self.view.is_none_or(|own| view.number > own.number);
                newer && view.master == master && view.members == self.group
            })
        };
        if let Some(view) = adopted {
            self.view = Some(view);
            self.top_number = self.top_number.max(view.number);
            self.tell(Event::View(view));
            self.hurry();
        }
    }

    fn find_missing(&mut self) {
        let Some(head) = &self.head else { return };
        let settings = &self.settings;
        let patient_ms = self.patient_since_ms + settings.timeout_ms + 2 * settings.interval_ms;
        for (slot, peer) in &mut self.peers {
            let member = head.members.get(slot);
            let access = member.is_some_and(|member| member.fenced.is_none());
            let registered = member.is_some_and(|member| member.registered);
            if self.group.contains(*slot) {
                // Who has had no key yet waits to join, and nothing is lost with it.
                peer.seen |= registered;
                peer.missing_until = None;
                continue;
            }
            if !access || !(registered || peer.seen && !peer.left) {
                peer.missing_until = None;
            } else if peer.missing_until.is_none() {
                // A link that is up, but not for all of the group, or of which the peer does not know yet (it may have been
                // started anew), has not been silent for a timeout.
                let patience_ms = match (peer.seen, peer.link) {
                    (true, false) => 0,
                    (true, true) => settings.timeout_ms,
                    (false, _) => settings.join_timeout_ms,
                };
                peer.missing_until = Some(patient_ms.max(self.now_ms + patience_ms));
            } else {
                peer.missing_until = peer.missing_until.max(Some(patient_ms));
            }
        }
    }

    fn find_claim(&mut self) {
        let own = self.settings.slot;
        let registered = self
            .head
            .as_ref()
            .and_then(|head| head.members.get(&own))
            .is_some_and(|me| me.registered);
        if !self.storage || !registered {
            return;
        }
        let due = self
            .peers
            .values()
            .filter_map(|peer| peer.missing_until)
            .filter(|until| self.now_ms >= *until);
        let due_ms = due.min();
        // The group agrees, or has had time to, or changes again and again.
        let calm_ms = self.settings.timeout_ms / 2;
        let settled = self.is_agreed()
            || self.now_ms.saturating_sub(self.group_since_ms) >= calm_ms
            || due_ms.is_some_and(|due| self.now_ms - due >= self.settings.timeout_ms);
        let wanted = match &self.claim {
            None => due_ms.is_some() && self.now_ms >= self.retry_ms,
            Some(claim) => claim.group != self.group,
        };
        if !wanted || !settled {
            return;
        }
        let claim = SlotClaim {
            id: self.claim_id(),
            epoch: self.epoch(),
            group: self.group,
        };
        self.claim = Some(claim);
        self.tell(Event::Claimed(claim));
        self.change_status(Status::Racing);
        self.next_send_ms = self.now_ms;
    }

    /// A member that starts, or had lost, goes on when everybody who has access is in its group and has its view.
    fn find_status(&mut self) {
        if !matches!(self.status, Status::Starting | Status::Lost) || self.claim.is_some() {
            return;
        }
        let me = self
            .head
            .as_ref()
            .and_then(|head| head.members.get(&self.settings.slot));
        // Somebody whose fence is not proven may still write.
        let proven = self
            .head
            .as_ref()
            .is_some_and(|head| head.unproven().is_empty());
        let whole = proven && self.peers.values().all(|peer| peer.missing_until.is_none());
        let viewed = self.view.is_some_and(|view| view.members == self.group);
        let registered = me.is_some_and(|me| me.registered) && self.is_registered();
        if self.storage && whole && viewed && registered {
            let had_lost = self.status == Status::Lost;
            self.active = true;
            self.retry_pause_ms = RETRY_PAUSES_MS.0;
            if had_lost {
                let epoch = self.epoch();
                let fenced = SlotSet::EMPTY;
                self.out
                    .push_back(Output::Hook(Hook::Won { epoch, fenced }));
            }
            self.change_status(Status::Member);
        }
    }

    /// Whether the mailbox was read since the own keys were registered: of two members that start at the same time, one
    /// sees the other there.
    pub(super) fn is_registered(&self) -> bool {
        self.registered_ticket
            .is_some_and(|ticket| self.read_ticket.is_some_and(|read| read >= ticket))
    }
}
