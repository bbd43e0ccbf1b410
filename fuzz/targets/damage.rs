//! Damage to a valid structure: what random bytes do not find behind a checksum.

/// Changes bytes of `structure` as `recipe` says (two bytes where, one byte what to XOR).
pub fn damage(structure: &mut [u8], recipe: &[u8]) {
    for step in recipe.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([step[0], step[1]])) % structure.len();
        structure[at] ^= step[2];
    }
}

#[allow(dead_code)] // The envelopes of the mailbox are made by their codec.
/// Sets the checksum at `at` to that of `structure` with zeroes in its place.
pub fn sign(structure: &mut [u8], at: usize) {
    structure[at..at + 4].fill(0);
    let crc = crc32c::crc32c(structure);
    structure[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}
