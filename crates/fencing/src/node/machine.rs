//! The node's state, its inputs and its getters.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use uuid::Uuid;

use super::event::Event;
use super::heartbeat::Heartbeat;
use super::peer::Peer;
use super::{Hook, LostCause, Output, Settings};
use crate::mailbox::{HeadArea, MemberSlot, SlotClaim, Status, View};
use crate::slots::SlotSet;

/// A member's node. Times are milliseconds of one clock of the caller that never goes back in one boot and counts the
/// time of a suspend.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) settings: Settings,
    pub(super) now_ms: u64,
    pub(super) out: VecDeque<Output>,

    // The mailbox.
    pub(super) head: Option<HeadArea>,
    /// When the read was asked for that last showed a new beat of the head.
    pub(super) fresh_ms: u64,
    pub(super) storage: bool,
    /// Nothing is believed or done before a read with this ticket or a later one.
    pub(super) trusted_ticket: u64,
    pub(super) verifying: bool,
    pub(super) next_ticket: u64,
    /// Of the last read that was believed.
    pub(super) read_ticket: Option<u64>,
    pub(super) reading: Option<(u64, u64)>,
    /// When the mailbox was last read.
    pub(super) read_ms: u64,
    pub(super) next_read_ms: u64,
    pub(super) slots_wanted: SlotSet,
    pub(super) beat: u64,

    // The members.
    pub(super) peers: BTreeMap<u16, Peer>,
    pub(super) counter: u64,
    pub(super) next_send_ms: u64,
    pub(super) sent_ms: u64,
    /// Peers are given a timeout from here before their absence counts.
    pub(super) patient_since_ms: u64,

    // What follows from them.
    pub(super) status: Status,
    /// It was told that it has access, or is about to be told otherwise: hooks are due.
    pub(super) active: bool,
    pub(super) registering: bool,
    /// Not before.
    pub(super) register_ms: u64,
    pub(super) registered_ticket: Option<u64>,
    /// Members with a key that are waited for before this one registers.
    pub(super) waits_for: SlotSet,
    pub(super) directory_sequence: u64,
    pub(super) wants_unfence: bool,
    pub(super) group: SlotSet,
    pub(super) group_since_ms: u64,
    pub(super) view: Option<View>,
    /// The highest number of a view that was heard of.
    pub(super) top_number: u64,
    pub(super) claim: Option<SlotClaim>,
    pub(super) claims: u64,
    pub(super) retry_ms: u64,
    pub(super) retry_pause_ms: u64,
    /// The last epoch whose verdict was looked at; `None` before the first read.
    pub(super) verdict_epoch: Option<u64>,
}

/// First pause after a race that nobody won, and the longest, in milliseconds.
pub(super) const RETRY_PAUSES_MS: (u64, u64) = (5_000, 60_000);

impl Node {
    /// A node that starts.
    pub fn new(settings: Settings, now_ms: u64) -> Self {
        let own = settings.slot;
        Self {
            now_ms,
            out: VecDeque::new(),
            head: None,
            fresh_ms: now_ms,
            storage: true,
            trusted_ticket: 0,
            verifying: true,
            next_ticket: 0,
            read_ticket: None,
            reading: None,
            read_ms: now_ms,
            next_read_ms: now_ms,
            slots_wanted: SlotSet::one(own),
            beat: 0,
            peers: BTreeMap::new(),
            counter: now_ms,
            next_send_ms: now_ms,
            sent_ms: 0,
            patient_since_ms: now_ms,
            status: Status::Starting,
            active: false,
            registering: false,
            register_ms: now_ms,
            registered_ticket: None,
            waits_for: SlotSet::EMPTY,
            directory_sequence: 0,
            wants_unfence: false,
            group: SlotSet::one(own),
            group_since_ms: now_ms,
            view: None,
            top_number: 0,
            claim: None,
            claims: 0,
            retry_ms: now_ms,
            retry_pause_ms: RETRY_PAUSES_MS.0,
            verdict_epoch: None,
            settings,
        }
    }

    // What happened.

    /// Time has passed. To be called at [`Node::next_ms`] at the latest.
    pub fn handle_tick(&mut self, now_ms: u64) {
        self.clock(now_ms);
        self.evaluate();
    }

    /// An authenticated heartbeat has come.
    pub fn handle_heartbeat(&mut self, now_ms: u64, heartbeat: Heartbeat) {
        self.clock(now_ms);
        let known = self.head.as_ref().map(|head| head.epoch);
        let own = self.settings.slot;
        let timeout_ms = self.settings.timeout_ms;
        let Some(peer) = self.peers.get_mut(&heartbeat.from) else {
            return;
        };
        if heartbeat.domain != self.settings.domain {
            return;
        }
        if peer.incarnation != Some(heartbeat.incarnation) {
            // Its slot says which is the right one.
            if self.slots_wanted.insert(heartbeat.from) {
                self.next_read_ms = self.now_ms;
            }
            return;
        }
        let before = peer.last.as_ref().map(|(last, _)| last);
        if before.is_some_and(|last| last.counter >= heartbeat.counter) {
            return;
        }
        let echo = heartbeat.echoes.iter().find(|(slot, _)| *slot == own);
        if let Some((_, echo)) = echo
            && *echo <= self.counter
        {
            peer.echoed = peer.echoed.max(Some(*echo));
        }
        let changed = before.is_none_or(|last| {
            (last.links, last.group, last.view, last.storage)
                != (
                    heartbeat.links,
                    heartbeat.group,
                    heartbeat.view,
                    heartbeat.storage,
                )
        });
        let news = changed
            || peer.left != heartbeat.leaving
            || peer.link != peer.is_linked(self.now_ms, timeout_ms);
        peer.left = heartbeat.leaving;
        if heartbeat.leaving {
            peer.seen = false;
            peer.echoed = None;
        }
        if let Some(view) = heartbeat.view {
            self.top_number = self.top_number.max(view.number);
        }
        if known.is_some_and(|known| heartbeat.epoch > known) {
            self.next_read_ms = self.now_ms;
        }
        peer.last = Some((heartbeat, self.now_ms));
        if news {
            self.evaluate();
        }
    }

    /// Keys were registered, or could not be: it is tried again after a while.
    pub fn handle_registered(&mut self, now_ms: u64, fine: bool) {
        self.clock(now_ms);
        self.registering = false;
        if fine {
            // Only a read that begins now shows who was registered before this member.
            self.registered_ticket.get_or_insert(self.next_ticket);
        } else {
            self.directory_sequence = 0;
            self.register_ms = self.now_ms + 2 * self.settings.timeout_ms;
        }
        self.evaluate();
    }

    /// The node is to end in order: peers are told, so that nobody races. Keys are to be given up after that.
    pub fn handle_stop(&mut self, now_ms: u64) {
        self.clock(now_ms);
        if matches!(self.status, Status::Fenced | Status::Left) {
            return;
        }
        self.claim = None;
        self.active = false;
        self.change_status(Status::Left);
        self.send();
        self.write();
        self.evaluate();
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    // How things are.

    /// When [`Node::handle_tick`] is due.
    pub fn next_ms(&self) -> u64 {
        match self.reading {
            None => self.next_send_ms.min(self.next_read_ms),
            Some(_) => self.next_send_ms,
        }
    }

    /// What it is doing.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Its slot.
    pub fn slot(&self) -> u16 {
        self.settings.slot
    }

    /// Whether the member may use the volumes as far as it knows: a watchdog is petted while this is so. A node that has
    /// just been paused does not know.
    pub fn has_access(&self) -> bool {
        self.active && !self.verifying
    }

    /// Peers that it has a link with.
    pub fn links(&self) -> SlotSet {
        let linked = self.peers.iter().filter(|(_, peer)| peer.link);
        linked.map(|(slot, _)| *slot).collect()
    }

    /// Its group, with itself.
    pub fn group(&self) -> SlotSet {
        self.group
    }

    /// Members that have access and are not in its group.
    pub fn missing(&self) -> SlotSet {
        let missing = self.peers.iter();
        missing
            .filter(|(_, peer)| peer.missing_until.is_some())
            .map(|(slot, _)| *slot)
            .collect()
    }

    /// Members that it waits for before it registers: they have a key, there is no link with them, and their heartbeat in
    /// the mailbox has not stood still for long enough.
    pub fn waits_for(&self) -> SlotSet {
        self.waits_for
    }

    /// The view that it has adopted.
    pub fn view(&self) -> Option<View> {
        self.view
    }

    /// The claim that is not answered yet.
    pub fn claim(&self) -> Option<SlotClaim> {
        self.claim
    }

    /// What the head said last.
    pub fn head(&self) -> Option<&HeadArea> {
        self.head.as_ref()
    }

    /// Where a member hears heartbeats, as its slot says.
    pub fn addresses(&self, slot: u16) -> &[SocketAddr] {
        self.peers
            .get(&slot)
            .map_or(&[], |peer| peer.addresses.as_slice())
    }

    /// For how long the head's beat has not been seen to go on, in milliseconds.
    pub fn storage_silent_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.fresh_ms)
    }

    // Inside.

    /// Takes the time, and notices when it has jumped.
    pub(super) fn clock(&mut self, now_ms: u64) {
        let jump_ms = now_ms.saturating_sub(self.now_ms);
        self.now_ms = self.now_ms.max(now_ms);
        if jump_ms <= self.settings.timeout_ms / 2 {
            return;
        }
        self.verifying = true;
        self.trusted_ticket = self.next_ticket;
        self.next_read_ms = self.now_ms;
        // Nobody had a chance to show that the storage goes on.
        self.fresh_ms = self.now_ms;
        self.patient_since_ms = self.now_ms;
        self.tell(Event::Paused { jump_ms });
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    pub(super) fn change_status(&mut self, status: Status) {
        if self.status != status {
            self.status = status;
            self.tell(Event::Status(status));
            // At once, not with the next beat.
            self.next_send_ms = self.now_ms;
        }
    }

    /// The member has lost: its software is told if it has access, as far as it knows.
    pub(super) fn lose(&mut self, cause: LostCause) {
        self.claim = None;
        self.tell(Event::Lost(cause));
        if self.active {
            let epoch = self.epoch();
            self.out
                .push_back(Output::Hook(Hook::Lost { cause, epoch }));
        }
        self.active = false;
        self.change_status(Status::Lost);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.epoch)
    }

    pub(super) fn claim_id(&mut self) -> Uuid {
        self.claims += 1;
        let seed = self.settings.claim_seed.as_u128();
        Uuid::from_u128(seed.wrapping_add(u128::from(self.claims)))
    }

    /// A heartbeat to every member that has access.
    pub(super) fn send(&mut self) {
        let settings = &self.settings;
        self.counter = self.now_ms.max(self.counter + 1);
        let echoes = self
            .peers
            .iter()
            .filter_map(|(slot, peer)| Some((*slot, peer.echo(self.now_ms, settings.timeout_ms)?)));
        let heartbeat = Heartbeat {
            domain: settings.domain,
            from: settings.slot,
            incarnation: settings.incarnation,
            counter: self.counter,
            epoch: self.epoch(),
            storage: self.storage,
            leaving: self.status == Status::Left,
            links: self.links(),
            group: self.group,
            view: self.view,
            echoes: echoes.collect(),
        };
        let unfenced = self
            .head
            .as_ref()
            .map_or(SlotSet::EMPTY, HeadArea::unfenced);
        for to in self.peers.keys().filter(|slot| unfenced.contains(**slot)) {
            let heartbeat = heartbeat.clone();
            self.out.push_back(Output::Send { to: *to, heartbeat });
        }
    }

    pub(super) fn write(&mut self) {
        self.beat += 1;
        let slot = MemberSlot {
            member: self.settings.name.clone(),
            incarnation: self.settings.incarnation,
            beat: self.beat,
            status: self.status,
            addresses: self.settings.addresses.clone(),
            heard: self.links(),
            view: self.view,
            claim: self.claim,
            wants_unfence: self.wants_unfence,
        };
        self.out.push_back(Output::Write(Box::new(slot)));
    }
}
