//! How fast jobs are, from how far they were at a few moments.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use uuid::Uuid;

/// How much of the past counts.
const WINDOW: Duration = Duration::from_secs(10);

/// Over less time than this nothing can be said.
const LEAST: Duration = Duration::from_secs(1);

/// How far jobs were of late, by their identities.
#[derive(Debug, Default)]
pub struct Rates {
    seen: HashMap<Uuid, VecDeque<(Duration, u64)>>,
}

impl Rates {
    /// Notes that `job` had done `done_bytes` at the time `now`.
    pub fn note(&mut self, job: Uuid, now: Duration, done_bytes: u64) {
        let seen = self.seen.entry(job).or_default();
        if seen.back().is_some_and(|(_, last)| *last > done_bytes) {
            // There is more to do than there was: what was measured before says nothing.
            seen.clear();
        }
        seen.push_back((now, done_bytes));
        // One that is older than the window stays, so that all of the window is covered.
        while seen
            .get(1)
            .is_some_and(|(time, _)| now.saturating_sub(*time) > WINDOW)
        {
            seen.pop_front();
        }
    }

    /// Forgets all jobs for which `lives` says no.
    pub fn retain(&mut self, lives: impl Fn(Uuid) -> bool) {
        self.seen.retain(|job, _| lives(*job));
    }

    /// Bytes per second of `job`; `None` while that is not known.
    pub fn bytes_per_second(&self, job: Uuid) -> Option<u64> {
        let seen = self.seen.get(&job)?;
        let ((began, first), (now, last)) = (seen.front()?, seen.back()?);
        let time = now.checked_sub(*began).filter(|time| *time >= LEAST)?;
        let rate = u128::from(last - first) * 1000 / time.as_millis();
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

/// Seconds that `left_bytes` take at `bytes_per_second`, rounded up.
pub fn eta_s(left_bytes: u64, bytes_per_second: Option<u64>) -> Option<u64> {
    let rate = bytes_per_second.filter(|rate| *rate > 0)?;
    Some(left_bytes.div_ceil(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut rates = Rates::default();
        let at = Duration::from_secs;
        rates.note(A, at(0), 0);
        assert_eq!(rates.bytes_per_second(A), None);
        rates.note(A, Duration::from_millis(500), 100);
        assert_eq!(rates.bytes_per_second(A), None, "too early");
        for second in 1..=20 {
            rates.note(A, at(second), second * 1000);
        }
        assert_eq!(rates.bytes_per_second(A), Some(1000));
        for second in 21..=32 {
            rates.note(A, at(second), 20_000);
        }
        assert_eq!(rates.bytes_per_second(A), Some(0), "it stands still");
        rates.note(A, at(33), 5);
        assert_eq!(rates.bytes_per_second(A), None, "it began again");
        rates.note(B, at(33), 5);
        rates.retain(|job| job == B);
        assert!(!rates.seen.contains_key(&A) && rates.seen.contains_key(&B));
    }

    #[test]
    fn estimates() {
        assert_eq!(eta_s(1001, Some(1000)), Some(2));
        assert_eq!(eta_s(0, Some(1000)), Some(0));
        assert_eq!(eta_s(1000, Some(0)), None);
        assert_eq!(eta_s(1000, None), None);
    }
}
