//! Whose heartbeat on storage has stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a heartbeat may stand still while others go on.
const PATIENCE: Duration = Duration::from_secs(5);

/// When each member's heartbeat was last seen to go on.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    members: BTreeMap<String, (u64, Instant)>,
}

impl Heartbeats {
    /// A slot shows `beat` at `now`.
    pub(super) fn note(&mut self, member: &str, beat: u64, now: Instant) {
        match self.members.get_mut(member) {
            Some((known, _)) if *known == beat => {}
            Some(known) => *known = (beat, now),
            None => {
                self.members.insert(member.to_owned(), (beat, now));
            }
        }
    }

    /// The member has stopped in order.
    pub(super) fn forget(&mut self, member: &str) {
        self.members.remove(member);
    }

    /// Forgets those that are not wanted any more.
    pub(super) fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.members.retain(|name, _| wanted(name));
    }

    /// Members that have had a heartbeat and stand still while another one goes on. When all stand still it is the storage,
    /// or a cluster that is down: nobody is suspect.
    pub(super) fn suspects(&self, now: Instant) -> BTreeSet<String> {
        let still = |at: &Instant| now.saturating_duration_since(*at) >= PATIENCE;
        if self.members.values().all(|(_, at)| still(at)) {
            return BTreeSet::new();
        }
        let stopped = self.members.iter().filter(|(_, (_, at))| still(at));
        stopped.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_while_others_go_on_is_suspect() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let mut beats = Heartbeats::default();
        for second in 0..4 {
            beats.note("a", second, at(second));
            beats.note("b", 7, at(second));
        }
        assert_eq!(beats.suspects(at(4)), BTreeSet::new());
        beats.note("a", 9, at(5));
        assert_eq!(beats.suspects(at(5)), names(&["b"]));
        // Everybody stands still: nobody is to be blamed.
        assert_eq!(beats.suspects(at(10)), BTreeSet::new());
        beats.note("b", 8, at(11));
        assert_eq!(beats.suspects(at(11)), names(&["a"]));
        beats.forget("a");
        assert_eq!(beats.suspects(at(11)), BTreeSet::new());
        beats.note("a", 9, at(11));
        beats.keep(|name| name == "b");
        assert_eq!(beats.suspects(at(12)), BTreeSet::new());
    }
}
