//! The sessions of the daemon: for `session list`, `session drop` and the shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use event_listener::Event;
use jiff::Timestamp;
use parking_lot::Mutex;

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Identity; never used twice while the daemon runs.
    pub id: u64,
    /// iSCSI name of the initiator.
    pub initiator: String,
    /// The initiator's part of the session identifier.
    pub isid: [u8; 6],
    /// The target's part of the session identifier.
    pub tsih: u16,
    /// A discovery session.
    pub discovery: bool,
    /// Relative target port identifier of the portal.
    pub target_port: u16,
    /// The portal's address.
    pub portal: SocketAddr,
    /// The initiator's address.
    pub peer: SocketAddr,
    /// `none`, `chap` or `mutual-chap`.
    pub auth: &'static str,
    /// When it logged in.
    pub since: Timestamp,
}

/// What somebody wants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// That its initiator be asked to log out within so many seconds.
    Logout {
        /// The time it is given.
        seconds: u16,
    },
    /// That it end now.
    Drop,
}

/// One session; shared by the registry and its connection.
pub(super) struct Entry {
    pub(super) info: SessionInfo,
    asked: Mutex<Option<Ask>>,
    /// Called when something is asked.
    pub(super) event: Event,
}

impl Entry {
    /// What has been asked since the last call.
    pub(super) fn take_asked(&self) -> Option<Ask> {
        self.asked.lock().take()
    }

    fn ask(&self, ask: Ask) {
        let mut asked = self.asked.lock();
        if *asked != Some(Ask::Drop) {
            *asked = Some(ask);
        }
        drop(asked);
        self.event.notify(usize::MAX);
    }
}

#[derive(Default)]
struct Sessions {
    last_id: u64,
    last_tsih: u16,
    by_id: BTreeMap<u64, Arc<Entry>>,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Registry {
    sessions: Mutex<Sessions>,
    /// Called when a session has left.
    left: Event,
}

impl Registry {
    /// Enters a session; identity and TSIH are filled in. `None` when every TSIH is taken.
    pub(super) fn enter(&self, mut info: SessionInfo) -> Option<Arc<Entry>> {
        let mut sessions = self.sessions.lock();
        info.tsih = (1..=u16::MAX)
            .map(|step| sessions.last_tsih.wrapping_add(step))
            .find(|&tsih| tsih != 0 && sessions.by_id.values().all(|e| e.info.tsih != tsih))?;
        sessions.last_tsih = info.tsih;
        sessions.last_id += 1;
        info.id = sessions.last_id;
        let entry = Arc::new(Entry {
            info,
            asked: Mutex::new(None),
            event: Event::new(),
        });
        sessions.by_id.insert(entry.info.id, entry.clone());
        Some(entry)
    }

    /// Takes a session out.
    pub(super) fn leave(&self, id: u64) {
        let mut sessions = self.sessions.lock();
        sessions.by_id.remove(&id);
        self.left.notify(usize::MAX);
    }

    pub(super) fn sessions(&self) -> Vec<SessionInfo> {
        let sessions = self.sessions.lock();
        sessions.by_id.values().map(|e| e.info.clone()).collect()
    }

    /// Whether a session has this TSIH.
    pub(super) fn has_tsih(&self, tsih: u16) -> bool {
        let sessions = self.sessions.lock();
        sessions.by_id.values().any(|e| e.info.tsih == tsih)
    }

    pub(super) fn ask(&self, id: u64, ask: Ask) -> bool {
        let entry = self.sessions.lock().by_id.get(&id).cloned();
        entry.map(|entry| entry.ask(ask)).is_some()
    }

    pub(super) fn ask_all(&self, ask: Ask) {
        let entries: Vec<_> = self.sessions.lock().by_id.values().cloned().collect();
        for entry in entries {
            entry.ask(ask);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.lock().by_id.is_empty()
    }

    /// Waits until there is no session.
    pub(super) async fn empty(&self) {
        loop {
            let left = self.left.listen();
            if self.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Ends the sessions of these initiators, discovery included, and waits until their I/O has ended and they are gone.
    /// Returns how many there were. Who may still log in has to be refused first.
    pub(super) async fn cut(&self, initiators: &BTreeSet<String>) -> usize {
        let mut cut = BTreeSet::new();
        loop {
            let left = self.left.listen();
            let entries: Vec<_> = {
                let sessions = self.sessions.lock();
                let theirs = sessions.by_id.values();
                theirs
                    .filter(|entry| initiators.contains(&entry.info.initiator))
                    .cloned()
                    .collect()
            };
            if entries.is_empty() {
                return cut.len();
            }
            for entry in entries {
                if cut.insert(entry.info.id) {
                    entry.ask(Ask::Drop);
                }
            }
            left.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> SessionInfo {
        let address = SocketAddr::from(([127, 0, 0, 1], 3260));
        SessionInfo {
            id: 0,
            initiator: "iqn.2026-11.com.example:a".to_owned(),
            isid: [0; 6],
            tsih: 0,
            discovery: false,
            target_port: 1,
            portal: address,
            peer: address,
            auth: "none",
            since: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn handles_are_unique_and_never_zero() {
        let registry = Registry::default();
        let first = registry.enter(info()).unwrap();
        registry.sessions.lock().last_tsih = u16::MAX;
        let second = registry.enter(info()).unwrap();
        assert_eq!((first.info.tsih, second.info.tsih), (1, 2));
        assert_eq!((first.info.id, second.info.id), (1, 2));
        registry.leave(1);
        assert!(!registry.has_tsih(1));
        assert!(registry.has_tsih(2));
    }

    #[test]
    fn a_cut_waits_until_all_sessions_of_the_initiators_are_gone() {
        use futures_lite::future::{block_on, poll_once};
        let registry = Registry::default();
        let named = |name: &str| SessionInfo {
            initiator: name.to_owned(),
            ..info()
        };
        let first = registry.enter(named("iqn.x:a")).unwrap();
        let other = registry.enter(named("iqn.x:b")).unwrap();
        let second = registry.enter(named("iqn.x:a")).unwrap();
        let names = BTreeSet::from(["iqn.x:a".to_owned()]);
        block_on(async {
            let mut cut = std::pin::pin!(registry.cut(&names));
            assert!(poll_once(&mut cut).await.is_none());
            assert_eq!(first.take_asked(), Some(Ask::Drop));
            assert_eq!(second.take_asked(), Some(Ask::Drop));
            assert_eq!(other.take_asked(), None);
            registry.leave(first.info.id);
            assert!(poll_once(&mut cut).await.is_none());
            // One that was let in just before its name was refused.
            let third = registry.enter(named("iqn.x:a")).unwrap();
            registry.leave(second.info.id);
            assert!(poll_once(&mut cut).await.is_none());
            assert_eq!(third.take_asked(), Some(Ask::Drop));
            registry.leave(third.info.id);
            assert_eq!(poll_once(&mut cut).await, Some(3));
        });
    }

    #[test]
    fn a_drop_is_not_taken_back_by_a_milder_request() {
        let registry = Registry::default();
        let entry = registry.enter(info()).unwrap();
        assert!(registry.ask(1, Ask::Drop));
        assert!(registry.ask(1, Ask::Logout { seconds: 1 }));
        assert!(!registry.ask(2, Ask::Drop));
        assert_eq!(entry.take_asked(), Some(Ask::Drop));
        assert_eq!(entry.take_asked(), None);
    }
}
