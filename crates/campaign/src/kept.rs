//! Seeds that once broke something.

/// A seed whose history once broke a promise, and what was behind it.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The seed.
    pub seed: u64,
    /// What was wrong; it is right now.
    pub reason: &'static str,
}

/// All of them. Each short run goes through them first. What a seed makes follows from the whole program, so that a seed
/// may lead past the place that it was kept for after a change: the unit tests of these defects are what remains.
pub const KEPT: &[Kept] = &[
    Kept {
        seed: 1044,
        reason: "a device that came back counted as whole while a region log still knew its earlier opening",
    },
    Kept {
        seed: 2096,
        reason: "deleting a volume whose writes wait for a device that just died never ended",
    },
    Kept {
        seed: 10_115,
        reason: "verifying beside the removal of the last mirror failed for want of a region log",
    },
    Kept {
        seed: 10_141,
        reason: "device online beside device remove brought the removed device back",
    },
    Kept {
        seed: 10_160,
        reason: "the keeper and the end of a job changed the replicas of the keys at once",
    },
    Kept {
        seed: 10_328,
        reason: "as 10115, at another moment of the removal",
    },
    Kept {
        seed: 900_000_190,
        reason: "the campaign itself took candidates for replicas of the keys for replicas that count",
    },
    Kept {
        seed: 900_000_528,
        reason: "the zeroes of a grow that hung landed on what an overtaking grow had made room for",
    },
    Kept {
        seed: 1_100_000_454,
        reason: "the campaign itself removed the last device of the pool",
    },
    Kept {
        seed: 1_200_000_129,
        reason: "the campaign itself waited for keys on a device that a job empties",
    },
    Kept {
        seed: 1_300_000_255,
        reason: "what a client wrote while a job began, and nobody flushed, came back from the copy after a power cut",
    },
    Kept {
        seed: 1_397_028_988,
        reason: "a job that was cancelled while its end waited still made its keys members",
    },
    Kept {
        seed: 1_567_145_788,
        reason: "the keeper dropped a replica of the keys by a list of members from before a commit",
    },
    Kept {
        seed: 2_056_111_762,
        reason: "a device without which the configuration had no quorum could not be brought online",
    },
];

/// Whether a seed is one of them.
pub fn is_kept(seed: u64) -> bool {
    KEPT.iter().any(|kept| kept.seed == seed)
}
