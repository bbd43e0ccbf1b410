//! What each block of a volume may hold, and the contents by which a block tells what was written to it.

use anyhow::{Result, bail, ensure};

/// The unit in which contents are told apart, in bytes.
pub const BLOCK_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"proofblk";

/// The number of a write. Zero stands for a block of zeroes: never written, or unmapped.
pub type Sequence = u64;

/// The contents of `block` after write `sequence` of the ledger with this salt. All of it follows from these three, so
/// that a block that is not as it was written is found in every byte.
pub fn contents(salt: u64, block: u64, sequence: Sequence) -> Vec<u8> {
    if sequence == 0 {
        return vec![0; BLOCK_BYTES];
    }
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    bytes.extend_from_slice(&MAGIC);
    for word in [salt, block, sequence] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let mut state =
        (salt ^ block.rotate_left(32) ^ sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < BLOCK_BYTES {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Which write the contents of a block are of.
///
/// # Errors
/// When they are of none: torn, of another block or volume, or nothing that was ever written.
pub fn recognize(salt: u64, block: u64, bytes: &[u8]) -> Result<Sequence> {
    ensure!(
        bytes.len() == BLOCK_BYTES,
        "{} bytes are no block",
        bytes.len()
    );
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let word = |index: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[index * 8..][..8]);
        word
    };
    if word(0) != MAGIC {
        bail!("noise: {:02x?} ...", &bytes[..16]);
    }
    let [seen_salt, seen_block, sequence] = [1, 2, 3].map(|index| u64::from_le_bytes(word(index)));
    ensure!(seen_salt == salt, "a block of another volume or run");
    ensure!(
        seen_block == block,
        "block {seen_block} (its write {sequence})"
    );
    let right = contents(salt, block, sequence);
    if let Some(at) = (0..BLOCK_BYTES).find(|at| right[*at] != bytes[*at]) {
        bail!("write {sequence} torn: another one's or nobody's from byte {at}");
    }
    Ok(sequence)
}

/// One block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    /// What a read gave or an acknowledged write put there, whichever was last.
    value: Sequence,
    /// Writes that were never answered, and that no read and no later write has settled.
    doubtful: Vec<Sequence>,
    /// The write whose answer is awaited.
    in_flight: Option<Sequence>,
}

/// What a read may give, as known when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed(Vec<Sequence>);

/// What all blocks of a volume may hold. Writes of one block are never in flight together; reads may be, with one
/// another and with a write.
#[derive(Debug, Clone)]
pub struct Ledger {
    salt: u64,
    blocks: Vec<Entry>,
    last: Sequence,
}

impl Ledger {
    /// A volume of zeroes.
    pub fn new(salt: u64, size_bytes: u64) -> Self {
        let mut ledger = Self {
            salt,
            blocks: Vec::new(),
            last: 0,
        };
        ledger.grow(size_bytes);
        ledger
    }

    /// The volume is larger now; what is new reads as zeroes.
    pub fn grow(&mut self, size_bytes: u64) {
        let blocks = usize::try_from(size_bytes / BLOCK_BYTES as u64).unwrap_or(usize::MAX);
        if blocks > self.blocks.len() {
            self.blocks.resize_with(blocks, Entry::default);
        }
    }

    /// Size of the volume in blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether no write of these blocks is in flight.
    pub fn idle(&self, first: usize, count: usize) -> bool {
        self.blocks[first..first + count]
            .iter()
            .all(|entry| entry.in_flight.is_none())
    }

    /// A write of these blocks is sent; returns its number and the data.
    pub fn begin_write(&mut self, first: usize, count: usize) -> Vec<u8> {
        self.last += 1;
        let mut data = Vec::with_capacity(count * BLOCK_BYTES);
        for block in first..first + count {
            self.blocks[block].in_flight = Some(self.last);
            data.extend_from_slice(&contents(self.salt, block as u64, self.last));
        }
        data
    }

    /// An UNMAP of these blocks is sent.
    pub fn begin_zero(&mut self, first: usize, count: usize) {
        for entry in &mut self.blocks[first..first + count] {
            entry.in_flight = Some(0);
        }
    }

    /// The write of these blocks that is in flight was answered with GOOD.
    pub fn acknowledge(&mut self, first: usize, count: usize) {
        for entry in &mut self.blocks[first..first + count] {
            if let Some(sequence) = entry.in_flight.take() {
                entry.value = sequence;
                entry.doubtful.clear();
            }
        }
    }

    /// The write of these blocks was refused without being executed.
    pub fn withdraw(&mut self, first: usize, count: usize) {
        for entry in &mut self.blocks[first..first + count] {
            entry.in_flight = None;
        }
    }

    /// The connection is gone: nobody knows what became of the writes in flight.
    pub fn lose_connection(&mut self) {
        for entry in &mut self.blocks {
            entry.doubtful.extend(entry.in_flight.take());
        }
    }

    /// A read of these blocks is sent.
    pub fn begin_read(&self, first: usize, count: usize) -> Vec<Allowed> {
        self.blocks[first..first + count]
            .iter()
            .map(|entry| {
                let mut allowed = vec![entry.value];
                allowed.extend(&entry.doubtful);
                allowed.extend(entry.in_flight);
                Allowed(allowed)
            })
            .collect()
    }

    /// What a read of the block has given. What it gave has to be given again by every read sent from now on, until
    /// something newer is written.
    ///
    /// # Errors
    /// When it is nothing that the block may hold.
    pub fn observe(&mut self, block: usize, bytes: &[u8], allowed: &Allowed) -> Result<()> {
        let seen = match recognize(self.salt, block as u64, bytes) {
            Ok(seen) => seen,
            Err(_) if self.is_mixture(block, bytes, allowed) => return Ok(()),
            Err(error) => bail!(
                "block {block} holds {error:#}; it may hold {}",
                self.describe(block)
            ),
        };
        let entry = &mut self.blocks[block];
        if seen == entry.value || entry.doubtful.contains(&seen) || entry.in_flight == Some(seen) {
            entry.value = seen;
            entry.doubtful.clear();
            return Ok(());
        }
        // A write has been answered since the read was sent: it may have been served before.
        ensure!(
            allowed.0.contains(&seen),
            "block {block} holds write {seen}; it may hold {}, and when the read was sent {:?}",
            self.describe(block),
            allowed.0
        );
        Ok(())
    }

    /// Whether a write of the block was under way while it was read, and every byte is from before or after it. A volume
    /// with one plex in the page cache promises no more than a file does: a read beside a write may have some of each.
    fn is_mixture(&self, block: usize, bytes: &[u8], allowed: &Allowed) -> bool {
        let entry = &self.blocks[block];
        if entry.in_flight.is_none() && allowed.0.contains(&entry.value) {
            return false;
        }
        let candidates: Vec<Vec<u8>> = allowed
            .0
            .iter()
            .chain([&entry.value])
            .chain(&entry.doubtful)
            .chain(&entry.in_flight)
            .map(|sequence| contents(self.salt, block as u64, *sequence))
            .collect();
        bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| candidates.iter().any(|candidate| candidate[at] == *byte))
    }

    fn describe(&self, block: usize) -> String {
        let entry = &self.blocks[block];
        format!(
            "write {} or one without an answer yet: lost with the connection {:?}, in flight {:?} (0 are zeroes)",
            entry.value, entry.doubtful, entry.in_flight
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 7;

    fn read(ledger: &mut Ledger, sequence: Sequence) -> Result<()> {
        let allowed = ledger.begin_read(3, 1);
        ledger.observe(3, &contents(SALT, 3, sequence), &allowed[0])
    }

    #[test]
    fn contents_tell_where_and_when_they_were_written() {
        let bytes = contents(SALT, 3, 9);
        assert_eq!(bytes.len(), BLOCK_BYTES);
        assert_eq!(recognize(SALT, 3, &bytes).unwrap(), 9);
        assert_eq!(recognize(SALT, 3, &contents(SALT, 3, 0)).unwrap(), 0);
        assert!(recognize(SALT, 4, &bytes).is_err());
        assert!(recognize(SALT + 1, 3, &bytes).is_err());
        let mut torn = bytes;
        torn[4000..].copy_from_slice(&contents(SALT, 3, 8)[4000..]);
        assert!(recognize(SALT, 3, &torn).is_err());
        assert!(recognize(SALT, 3, &[5; BLOCK_BYTES]).is_err());
    }

    #[test]
    fn acknowledged_writes_stay() {
        let mut ledger = Ledger::new(SALT, 16 * BLOCK_BYTES as u64);
        read(&mut ledger, 0).unwrap();
        ledger.begin_write(2, 4);
        assert!(!ledger.idle(5, 1) && ledger.idle(6, 10));
        ledger.acknowledge(2, 4);
        read(&mut ledger, 1).unwrap();
        assert!(read(&mut ledger, 0).is_err(), "lost");
        ledger.begin_zero(3, 1);
        ledger.acknowledge(3, 1);
        read(&mut ledger, 0).unwrap();
        assert!(read(&mut ledger, 1).is_err());
    }

    #[test]
    fn what_was_read_once_is_read_again() {
        let mut ledger = Ledger::new(SALT, 16 * BLOCK_BYTES as u64);
        ledger.begin_write(3, 1);
        ledger.lose_connection();
        let mut other = ledger.clone();
        read(&mut ledger, 1).unwrap();
        assert!(read(&mut ledger, 0).is_err());
        read(&mut other, 0).unwrap();
        assert!(read(&mut other, 1).is_err());
        // With the write still in flight the old contents settle nothing.
        other.begin_write(3, 1);
        read(&mut other, 0).unwrap();
        read(&mut other, 2).unwrap();
        assert!(read(&mut other, 0).is_err());
        other.acknowledge(3, 1);
        read(&mut other, 2).unwrap();
    }

    #[test]
    fn a_read_sent_before_the_answer_of_a_write_may_give_either() {
        let mut ledger = Ledger::new(SALT, 16 * BLOCK_BYTES as u64);
        ledger.begin_write(3, 1);
        let allowed = ledger.begin_read(3, 1);
        ledger.acknowledge(3, 1);
        ledger
            .observe(3, &contents(SALT, 3, 0), &allowed[0])
            .unwrap();
        ledger
            .observe(3, &contents(SALT, 3, 1), &allowed[0])
            .unwrap();
        assert!(read(&mut ledger, 0).is_err());
    }

    #[test]
    fn a_read_beside_a_write_may_have_some_of_each_and_nothing_else() {
        let mut ledger = Ledger::new(SALT, 16 * BLOCK_BYTES as u64);
        let mut mixture = contents(SALT, 3, 0);
        mixture[1280..].copy_from_slice(&contents(SALT, 3, 1)[1280..]);
        let allowed = ledger.begin_read(3, 1);
        assert!(ledger.observe(3, &mixture, &allowed[0]).is_err());
        ledger.begin_write(3, 1);
        ledger.observe(3, &mixture, &allowed[0]).unwrap();
        mixture[4000..].copy_from_slice(&contents(SALT, 3, 2)[4000..]);
        assert!(ledger.observe(3, &mixture, &allowed[0]).is_err());
    }
}
