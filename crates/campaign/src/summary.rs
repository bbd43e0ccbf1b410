//! What a campaign did.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of what was done and found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Histories that were begun.
    pub episodes: u64,
    /// Crashes after which everything was opened and checked.
    pub crash_points: u64,
    /// Operations that ended well, by kind.
    pub done: BTreeMap<&'static str, u64>,
    /// Operations that were refused or failed where they may, by kind.
    pub refused: BTreeMap<&'static str, u64>,
    /// Crash points at which an operation of the kind was under way.
    pub interrupted: BTreeMap<&'static str, u64>,
    /// Faults of disks, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Times that everything was healed and the plexes were compared byte by byte.
    pub comparisons: u64,
    /// Virtual seconds.
    pub virtual_seconds: u64,
}

fn add_all(to: &mut BTreeMap<&'static str, u64>, from: &BTreeMap<&'static str, u64>) {
    for (kind, count) in from {
        *to.entry(kind).or_default() += count;
    }
}

impl Summary {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &Summary) {
        self.episodes += other.episodes;
        self.crash_points += other.crash_points;
        self.comparisons += other.comparisons;
        self.virtual_seconds += other.virtual_seconds;
        add_all(&mut self.done, &other.done);
        add_all(&mut self.refused, &other.refused);
        add_all(&mut self.interrupted, &other.interrupted);
        add_all(&mut self.faults, &other.faults);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} crash points in {} histories, {} comparisons of healed plexes, {} s of virtual time",
            self.crash_points, self.episodes, self.comparisons, self.virtual_seconds
        )?;
        writeln!(
            f,
            "{:<22} {:>10} {:>10} {:>14}",
            "operation", "done", "refused", "crashed into"
        )?;
        let mut kinds: Vec<&str> = self
            .done
            .keys()
            .chain(self.refused.keys())
            .chain(self.interrupted.keys())
            .copied()
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let of = |counts: &BTreeMap<&'static str, u64>| counts.get(kind).copied().unwrap_or(0);
            writeln!(
                f,
                "{kind:<22} {:>10} {:>10} {:>14}",
                of(&self.done),
                of(&self.refused),
                of(&self.interrupted)
            )?;
        }
        if !self.faults.is_empty() {
            let faults: Vec<String> = self
                .faults
                .iter()
                .map(|(kind, count)| format!("{kind} {count}"))
                .collect();
            writeln!(f, "faults: {}", faults.join(", "))?;
        }
        Ok(())
    }
}
