//! One sector as an atomic register that crashes: which values may a read return now, and which after a power cut?
//!
//! A *candidate* is a write (or zeroing) with the moments of its begin and its end. It is *superseded* by another one
//! that began after its end and was acknowledged. A read may return what was not superseded when it began, or what began
//! since. A flush makes what had been acknowledged before it durable: what that superseded cannot come back even after a
//! power cut. A value that a read returned while no write was under way is what the sector holds: the read counts as an
//! acknowledged write of that value.

/// When something happened; the model counts events.
pub type Moment = u64;

/// Content of a sector: the number of the write; 0 for zeroes.
pub type Value = u64;

/// Writes that may pass while one read is under way.
const LATELY: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    value: Value,
    /// Number of the write, zeroing or read that it comes from.
    id: u64,
    begun: Moment,
    /// `None` while it is under way.
    ended: Option<Moment>,
    /// It was acknowledged, at this moment.
    acknowledged: Option<Moment>,
    /// A read returned it, at this moment.
    seen: Option<Moment>,
    /// It was under way when a disk lost what it had: of a part that was done before nothing is certain.
    straddles: bool,
}

/// One sector.
#[derive(Clone, Debug)]
pub struct Register {
    /// All that may be found after a power cut, and what may be read now.
    candidates: Vec<Candidate>,
    last_begun: Moment,
    /// When a disk lost what it had not made durable; 0 for never.
    lost: Moment,
    /// Values that began lately, with their moments, also those that are superseded by now.
    lately: Vec<(Value, Moment)>,
    /// The pool was opened since the last write began: what is read is durable.
    clean: bool,
}

impl Default for Register {
    /// Zeroes, durable.
    fn default() -> Self {
        Register {
            candidates: vec![Candidate {
                value: 0,
                id: 0,
                begun: 0,
                ended: Some(0),
                acknowledged: Some(0),
                seen: None,
                straddles: false,
            }],
            last_begun: 0,
            lost: 0,
            lately: Vec::new(),
            clean: false,
        }
    }
}

/// What a read of a sector may return, noted when it begins.
#[derive(Clone, Debug)]
pub struct Allowed {
    at: Moment,
    quiet: bool,
    values: Vec<Value>,
}

impl Register {
    /// Whether `older` is out because of something acknowledged (or, unless `durable`, seen) before `at`.
    fn superseded(&self, older: &Candidate, at: Moment, durable: bool) -> bool {
        let Some(ended) = older.ended else {
            return false;
        };
        self.candidates.iter().any(|newer| {
            let known = match (newer.acknowledged, newer.seen) {
                (Some(acknowledged), _) => acknowledged <= at,
                (None, Some(seen)) => !durable && seen <= at,
                (None, None) => false,
            };
            known && ended < newer.begun
        })
    }

    /// A write or zeroing begins.
    pub fn begin(&mut self, value: Value, id: u64, now: Moment) {
        self.candidates.push(Candidate {
            value,
            id,
            begun: now,
            ended: None,
            acknowledged: None,
            seen: None,
            straddles: false,
        });
        self.last_begun = now;
        if self.lately.len() >= LATELY {
            self.lately.remove(0);
        }
        self.lately.push((value, now));
        self.clean = false;
    }

    /// It ends, acknowledged or with an error.
    pub fn end(&mut self, id: u64, acknowledged: bool, now: Moment) {
        for candidate in &mut self.candidates {
            if candidate.id == id && candidate.ended.is_none() {
                candidate.ended = Some(now);
                let certain = acknowledged && !candidate.straddles;
                candidate.acknowledged = certain.then_some(now);
            }
        }
    }

    /// A flush that began at `since` was acknowledged.
    pub fn flushed(&mut self, since: Moment) {
        if self.candidates.len() > 1 {
            let before = self.clone();
            self.candidates
                .retain(|candidate| !before.superseded(candidate, since, true));
        }
    }

    /// A read begins.
    pub fn allowed(&self, now: Moment) -> Allowed {
        let candidates = self.candidates.iter();
        let values = candidates
            .filter(|candidate| !self.superseded(candidate, now, false))
            .map(|candidate| candidate.value);
        Allowed {
            at: now,
            quiet: self.candidates.iter().all(|c| c.ended.is_some()),
            values: values.collect(),
        }
    }

    /// A read that began with `allowed` returned `value`; whether it may.
    pub fn read(&mut self, allowed: &Allowed, value: Value, id: u64, now: Moment) -> bool {
        let since = |(begun, at): &(Value, Moment)| *begun == value && *at > allowed.at;
        let lost = self.lost > allowed.at && self.candidates.iter().any(|c| c.value == value);
        let may = lost || allowed.values.contains(&value) || self.lately.iter().any(since);
        if allowed.quiet && self.last_begun < allowed.at {
            let settled = Candidate {
                value,
                id,
                begun: allowed.at,
                ended: Some(now),
                acknowledged: Some(now),
                seen: Some(now),
                straddles: false,
            };
            let alone = self.candidates.iter().all(|c| c.value == value);
            if alone || self.clean {
                self.candidates.clear();
            } else {
                // Earlier reads say the same.
                self.candidates.retain(|c| c.value != value);
            }
            self.candidates.push(settled);
        } else if let Some(seen) = self.candidates.iter_mut().find(|c| c.value == value) {
            seen.seen.get_or_insert(now);
        }
        may
    }

    /// The program stopped. When something `loses`, as a power cut does, nothing that was not durable is certain.
    pub fn stopped(&mut self, loses: bool, now: Moment) {
        for candidate in &mut self.candidates {
            candidate.ended.get_or_insert(now);
            if loses {
                candidate.acknowledged = None;
                candidate.seen = None;
            }
        }
        self.clean = false;
    }

    /// A disk without which the volume cannot do lost what was not durable there; whoever uses the volume met an error.
    pub fn lost(&mut self, now: Moment) {
        for candidate in &mut self.candidates {
            candidate.acknowledged = None;
            candidate.seen = None;
            candidate.straddles = candidate.ended.is_none();
        }
        self.lost = now;
        self.clean = false;
    }

    /// The pool was opened: what is found now is durable.
    pub fn opened(&mut self, now: Moment) {
        self.flushed(now);
        self.clean = true;
    }

    /// What may be found, for messages.
    pub fn describe(&self) -> String {
        let candidates: Vec<String> = self
            .candidates
            .iter()
            .map(|c| {
                let end = match (c.ended, c.acknowledged) {
                    (None, _) => "under way".to_owned(),
                    (Some(ended), None) => format!("to {ended}, not acknowledged"),
                    (Some(ended), Some(_)) => format!("to {ended}"),
                };
                format!("{} (from {} {end})", c.value, c.begun)
            })
            .collect();
        candidates.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(register: &Register, value: Value, at: Moment) -> bool {
        register.allowed(at).values.contains(&value)
    }

    #[test]
    fn an_acknowledged_write_is_read_and_may_be_lost_until_it_is_flushed() {
        let mut register = Register::default();
        register.begin(1, 1, 1);
        assert!(may(&register, 0, 2) && may(&register, 1, 2));
        register.end(1, true, 3);
        assert!(!may(&register, 0, 4) && may(&register, 1, 4));
        let mut cut = register.clone();
        cut.stopped(true, 5);
        assert!(may(&cut, 0, 6) && may(&cut, 1, 6));
        register.flushed(2);
        let mut cut = register.clone();
        cut.stopped(true, 5);
        assert!(
            may(&cut, 0, 6),
            "the flush began before the acknowledgement"
        );
        register.flushed(4);
        register.stopped(true, 5);
        assert!(!may(&register, 0, 6) && may(&register, 1, 6));
    }

    #[test]
    fn concurrent_writes_leave_either() {
        let mut register = Register::default();
        register.begin(1, 1, 1);
        register.begin(2, 2, 2);
        register.end(2, true, 3);
        register.end(1, true, 4);
        assert!(!may(&register, 0, 5) && may(&register, 1, 5) && may(&register, 2, 5));
        let allowed = register.allowed(6);
        assert!(register.read(&allowed, 1, 9, 7));
        assert!(
            may(&register, 1, 8) && !may(&register, 2, 8),
            "read once, read again"
        );
    }

    #[test]
    fn what_was_seen_of_a_write_under_way_does_not_vanish() {
        let mut register = Register::default();
        register.begin(1, 1, 1);
        let allowed = register.allowed(2);
        assert!(register.read(&allowed, 1, 9, 3));
        assert!(!may(&register, 0, 4));
        register.stopped(true, 5);
        assert!(may(&register, 0, 6), "but a power cut may take it");
    }

    #[test]
    fn what_a_read_found_after_a_crash_stays_whatever_comes() {
        let mut register = Register::default();
        register.begin(1, 1, 1);
        register.stopped(true, 2);
        register.opened(3);
        assert!(may(&register, 0, 4) && may(&register, 1, 4));
        let allowed = register.allowed(4);
        assert!(register.read(&allowed, 0, 9, 5));
        register.stopped(true, 6);
        register.opened(7);
        assert!(may(&register, 0, 8) && !may(&register, 1, 8));
    }

    #[test]
    fn a_failed_write_may_be_there_until_it_is_written_over() {
        let mut register = Register::default();
        register.begin(1, 1, 1);
        register.end(1, false, 2);
        assert!(may(&register, 0, 3) && may(&register, 1, 3));
        register.begin(2, 2, 4);
        register.end(2, true, 5);
        assert!(!may(&register, 0, 6) && !may(&register, 1, 6));
        let allowed = register.allowed(6);
        assert!(!register.read(&allowed, 1, 9, 7));
    }

    #[test]
    fn what_a_disk_lost_may_be_there_until_it_is_read_or_written_again() {
        let mut register = Register::default();
        register.begin(1, 1, 1);
        register.end(1, true, 2);
        register.begin(2, 2, 3);
        let reading = register.allowed(4);
        register.lost(5);
        register.end(2, true, 6);
        for value in [0, 1, 2] {
            assert!(may(&register, value, 7), "{value}");
            assert!(register.clone().read(&reading, value, 9, 8), "{value}");
        }
        let reading = register.allowed(9);
        assert!(register.read(&reading, 1, 3, 10));
        assert!(may(&register, 1, 11) && !may(&register, 2, 11));
        register.begin(4, 4, 12);
        register.end(4, true, 13);
        register.flushed(14);
        register.stopped(true, 15);
        assert!(may(&register, 4, 16) && !may(&register, 1, 16));
    }
}
