//! Watching the quorum device: is it there, and does it still bind other heads for us?

use super::{Action, Coordinator, Event};
use crate::domain::Domain;
use crate::quorum::{QUORUM_LIMIT_MS, QuorumRegister};

/// How often the quorum device is looked for, in milliseconds.
const PROBE_MS: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Watch {
    /// It could not be reached last.
    lost: bool,
    /// The latest epoch that it is known to have heard of.
    pub floor: u64,
    /// The probe that is under way.
    probe: Option<u64>,
    /// When the next probe is due, or the one under way has failed.
    at_ms: u64,
}

impl Watch {
    pub fn new(now_ms: u64) -> Self {
        Self {
            lost: false,
            floor: 0,
            probe: None,
            at_ms: now_ms,
        }
    }

    pub fn wake_ms(&self, domain: &Domain) -> Option<u64> {
        domain.quorum.as_ref().map(|_| self.at_ms)
    }
}

impl Coordinator {
    pub(super) fn advance_watch(&mut self, now_ms: u64) {
        if self.domain.quorum.is_none() || self.watch.at_ms > now_ms {
            return;
        }
        if self.watch.probe.take().is_some() {
            self.quorum_lost("it has not answered in time".into());
            self.watch.at_ms = now_ms.saturating_add(PROBE_MS);
            return;
        }
        let ticket = self.ticket();
        self.watch.probe = Some(ticket);
        self.watch.at_ms = now_ms.saturating_add(QUORUM_LIMIT_MS);
        self.act(Action::ProbeQuorum { ticket });
    }

    pub(super) fn probed(
        &mut self,
        ticket: u64,
        answer: Result<QuorumRegister, String>,
        now_ms: u64,
    ) {
        if self.watch.probe != Some(ticket) {
            return;
        }
        self.watch.probe = None;
        self.watch.at_ms = now_ms.saturating_add(PROBE_MS);
        match answer {
            Ok(register) => {
                self.quorum_back();
                self.heard_of(&register);
                self.bring_up_to_date(&register);
            }
            Err(reason) => self.quorum_lost(reason),
        }
    }

    /// Tells it the last verdict where it does not know that, and lets go of it where nobody is fenced any more: by unfencing, or
    /// because a crash came between its grant and our commit.
    fn bring_up_to_date(&mut self, register: &QuorumRegister) {
        let knows = register.verdict.as_ref().map_or(0, |verdict| verdict.epoch);
        let last = self.domain.state.verdict.as_ref();
        if let Some(verdict) = last.filter(|verdict| verdict.epoch > knows) {
            let verdict = verdict.clone();
            self.act(Action::TellQuorum { verdict });
        }
        let stands = register.standing.get(&self.domain.uuid).copied();
        let nobody = self.domain.state.fenced.is_empty() && !self.race.is_closed();
        if let Some(epoch) = stands.filter(|_| nobody) {
            self.act(Action::CloseQuorum { epoch });
        }
    }

    /// After a commit that ended the last fence, or a race without winner: do not wait for the next probe.
    pub(super) fn probe_soon(&mut self, now_ms: u64) {
        if self.watch.probe.is_none() {
            self.watch.at_ms = now_ms;
        }
    }

    /// Another quorum device: what is known is about the old one.
    pub(super) fn forget_quorum(&mut self, now_ms: u64) {
        self.watch = Watch::new(now_ms);
    }

    /// An epoch that the device has heard of is not asked for again.
    pub(super) fn heard_of(&mut self, register: &QuorumRegister) {
        self.watch.floor = self.watch.floor.max(register.epoch);
    }

    pub(super) fn quorum_lost(&mut self, reason: String) {
        if !std::mem::replace(&mut self.watch.lost, true) {
            self.event(Event::QuorumDeviceLost { reason });
        }
    }

    pub(super) fn quorum_back(&mut self) {
        if std::mem::replace(&mut self.watch.lost, false) {
            self.event(Event::QuorumDeviceBack);
        }
    }
}
