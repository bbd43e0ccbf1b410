//! The work: a request of 48 bytes names a block of a file; the answer is the request and the block.

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::{ReadWriteFlags, preadv2};

/// Length of a request, and of the header of an answer (that of an iSCSI header).
pub const HEADER_BYTES: usize = 48;
/// Length of a block.
pub const BLOCK_BYTES: usize = 4096;
/// Length of an answer.
pub const ANSWER_BYTES: usize = HEADER_BYTES + BLOCK_BYTES;
/// Blocks in the file: 256 MiB, all of it in the page cache.
pub const BLOCKS: u64 = 65_536;
/// Most bytes a server receives at once.
pub const RECV_BYTES: usize = 64 * 1024;

/// Writes the file: each block begins with its number.
pub fn write_file(path: &Path) -> io::Result<()> {
    let mut file = io::BufWriter::new(File::create(path)?);
    let mut block = [0x5a_u8; BLOCK_BYTES];
    for number in 0..BLOCKS {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block)?;
    }
    file.flush()
}

/// A request for block `number`.
pub fn request(number: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0_u8; HEADER_BYTES];
    header[..8].copy_from_slice(&number.to_le_bytes());
    header
}

/// The number at the start of a request, an answer or a block.
pub fn number(bytes: &[u8]) -> u64 {
    let mut number = [0_u8; 8];
    number.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(number)
}

/// The offset in the file that a request asks for.
pub fn offset_bytes(request: &[u8]) -> u64 {
    number(request) % BLOCKS * BLOCK_BYTES as u64
}

/// Reads a block on the calling thread: from the page cache, or waiting when it is not there (which a run of the
/// bench hardly sees).
pub fn read_inline(file: &File, offset_bytes: u64, block: &mut [u8]) -> io::Result<()> {
    let slices = &mut [IoSliceMut::new(block)];
    match preadv2(file, slices, offset_bytes, ReadWriteFlags::NOWAIT) {
        Ok(count) if count == BLOCK_BYTES => Ok(()),
        _ => file.read_exact_at(block, offset_bytes),
    }
}
