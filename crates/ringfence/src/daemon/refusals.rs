//! A limit on refused logins in the event log: whoever can reach a portal could otherwise fill the log until the
//! audit trail is rotated away.

use std::time::{Duration, Instant};

/// Refused logins recorded in each [`WINDOW`]; the rest is counted.
const RECORDED_MAX: u32 = 60;

const WINDOW: Duration = Duration::from_secs(60);

/// Counts refused logins.
#[derive(Debug, Default)]
pub struct Refusals {
    window: Option<Instant>,
    recorded: u32,
    unrecorded: u64,
}

impl Refusals {
    /// Takes note of one at `now`. Gives how many before it went unrecorded when this one is to be recorded, and
    /// `None` when it is not.
    pub fn count(&mut self, now: Instant) -> Option<u64> {
        let open = self
            .window
            .is_some_and(|begun| now.saturating_duration_since(begun) < WINDOW);
        if !open {
            self.window = Some(now);
            self.recorded = 0;
        }
        if self.recorded < RECORDED_MAX {
            self.recorded += 1;
            return Some(std::mem::take(&mut self.unrecorded));
        }
        self.unrecorded = self.unrecorded.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_recorded() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let recorded = (0..1000)
            .filter(|_| refusals.count(start).is_some())
            .count();
        assert_eq!(recorded, RECORDED_MAX as usize);
        let later = start + WINDOW;
        assert_eq!(refusals.count(later), Some(1000 - u64::from(RECORDED_MAX)));
        assert_eq!(refusals.count(later), Some(0));
    }
}
