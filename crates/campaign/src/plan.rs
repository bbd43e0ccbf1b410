//! How a history is made: everything follows from its seed.

use volume::sim::Random;

/// A defect that is built into the test on purpose: the checks must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// Flushes succeed and do nothing.
    LyingFlush,
    /// Now and then a write of a client is lost.
    LostWrite,
    /// Now and then a write of a client lands in another place.
    MisdirectedWrite,
    /// Now and then a registration is acknowledged that was not committed.
    ForgottenKeys,
    /// The model believes that a write is durable when it is acknowledged.
    EagerModel,
}

/// How a history is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sizes of the disks in bytes.
    pub disks: Vec<u64>,
    /// Alignment that the disks ask for, in bytes.
    pub alignment_bytes: usize,
    /// Lives from an open to a crash.
    pub lives: u64,
    /// Clients that read and write.
    pub clients: u64,
    /// Operators.
    pub operators: u64,
    /// Operators work on the same volume at the same time.
    pub clashes: bool,
    /// How many times slower than at full speed clients and operators work.
    pub pace: u64,
    /// Side looks at what a crash would leave, in each life.
    pub looks: u64,
    /// Volumes at the same time at most.
    pub volumes: usize,
    /// The disks were used before: what nobody wrote is not zero.
    pub used: bool,
    /// One write in so many takes very long; 0 for none.
    pub stragglers: u64,
    /// Disks get into trouble.
    pub troubles: bool,
    /// Other futures than a crash at home are looked at.
    pub scenarios: bool,
    /// A defect of the test itself.
    pub plant: Option<Plant>,
}

impl Plan {
    /// The plan that belongs to a seed.
    pub fn new(seed: u64, plant: Option<Plant>) -> Plan {
        let mut random = Random::new(seed ^ 0x70_6c61_6e00);
        let disks = 1 + random.below(5);
        Plan {
            disks: (0..disks).map(|_| random.within(40..80) << 20).collect(),
            alignment_bytes: [1, 512, 512, 4096][random.below(4) as usize],
            lives: random.within(2..7),
            clients: random.within(1..6),
            operators: 1 + random.below(2),
            clashes: random.one_in(3),
            pace: [1, 1, 10, 100][random.below(4) as usize],
            looks: random.within(10..40),
            volumes: random.within(1..5) as usize,
            troubles: random.one_in(2) && plant.is_none(),
            scenarios: plant.is_none(),
            plant,
            used: random.one_in(2),
            stragglers: [0, 0, 100, 400][random.below(4) as usize],
        }
    }
}
