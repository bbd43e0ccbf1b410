//! The content of a disk, and changes of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::random::Random;
use crate::block_device::{Allocation, SECTOR_BYTES};

const CHUNK_BYTES: u64 = 4096;
type Chunk = [u8; CHUNK_BYTES as usize];

/// The content of a disk; what was never written is zero and costs nothing. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Image {
    chunks: BTreeMap<u64, Arc<Chunk>>,
}

impl Image {
    /// Copies out `buf.len()` bytes from `offset_bytes`.
    pub fn read(&self, offset_bytes: u64, buf: &mut [u8]) {
        for (at, within, part) in pieces(offset_bytes, buf.len()) {
            let out = &mut buf[part.clone()];
            match self.chunks.get(&at) {
                Some(chunk) => out.copy_from_slice(&chunk[within..within + part.len()]),
                None => out.fill(0),
            }
        }
    }

    /// Copies `data` in at `offset_bytes`.
    pub fn write(&mut self, offset_bytes: u64, data: &[u8]) {
        for (at, within, part) in pieces(offset_bytes, data.len()) {
            let data = &data[part];
            if let Ok(whole) = <&Chunk>::try_from(data) {
                self.chunks.insert(at, Arc::new(*whole));
                continue;
            }
            let chunk = self
                .chunks
                .entry(at)
                .or_insert_with(|| Arc::new([0; CHUNK_BYTES as usize]));
            Arc::make_mut(chunk)[within..within + data.len()].copy_from_slice(data);
        }
    }

    /// Makes a range read as zeroes; whole blocks of it are given back.
    pub fn zero(&mut self, offset_bytes: u64, length_bytes: u64) {
        let end = offset_bytes + length_bytes;
        let first = offset_bytes.next_multiple_of(CHUNK_BYTES);
        let last = end / CHUNK_BYTES * CHUNK_BYTES;
        if first >= last {
            self.write(offset_bytes, &vec![0; length_bytes as usize]);
            return;
        }
        self.write(offset_bytes, &vec![0; (first - offset_bytes) as usize]);
        self.write(last, &vec![0; (end - last) as usize]);
        let whole: Vec<u64> = self
            .chunks
            .range(first / CHUNK_BYTES..last / CHUNK_BYTES)
            .map(|(at, _)| *at)
            .collect();
        for at in whole {
            self.chunks.remove(&at);
        }
    }

    /// The first offset in `range` of `self` where its bytes differ from those of `other` from `other_offset_bytes` on,
    /// relative to the start of both. Looks only at what was ever written.
    pub fn first_difference(
        &self,
        range: Range<u64>,
        other: &Image,
        other_offset_bytes: u64,
    ) -> Option<u64> {
        let length = range.end.saturating_sub(range.start);
        let touched = |image: &Image, start: u64| -> Vec<u64> {
            let chunks = start / CHUNK_BYTES..(start + length).div_ceil(CHUNK_BYTES);
            let offsets = image.chunks.range(chunks).map(|(at, _)| at * CHUNK_BYTES);
            offsets.map(|at| at.saturating_sub(start)).collect()
        };
        let mut places = touched(self, range.start);
        places.extend(touched(other, other_offset_bytes));
        places.sort_unstable();
        places.dedup();
        for at in places {
            // A chunk of one may begin inside a chunk of the other.
            let count = CHUNK_BYTES.min(length.saturating_sub(at)) as usize;
            let (mut ours, mut theirs) = (vec![0; count], vec![0; count]);
            self.read(range.start + at, &mut ours);
            other.read(other_offset_bytes + at, &mut theirs);
            if let Some(byte) = (0..count).find(|byte| ours[*byte] != theirs[*byte]) {
                return Some(at + byte as u64);
            }
        }
        None
    }

    /// Calls `look` with each block of 4096 bytes in a range of such blocks that was ever written.
    pub(super) fn each_written(&self, range: Range<u64>, mut look: impl FnMut(u64, &[u8])) {
        let chunks = range.start.div_ceil(CHUNK_BYTES)..range.end / CHUNK_BYTES;
        if chunks.is_empty() {
            return;
        }
        for (at, chunk) in self.chunks.range(chunks) {
            look(at * CHUNK_BYTES, &chunk[..]);
        }
    }

    pub(super) fn allocation(&self, offset_bytes: u64, length_bytes: u64) -> Allocation {
        let at = offset_bytes / CHUNK_BYTES;
        let end = (offset_bytes + length_bytes).div_ceil(CHUNK_BYTES);
        let allocated = self.chunks.contains_key(&at);
        let mut next = at + 1;
        while next < end && self.chunks.contains_key(&next) == allocated {
            next += 1;
        }
        Allocation {
            allocated,
            length_bytes: (next * CHUNK_BYTES - offset_bytes).min(length_bytes),
        }
    }
}

/// Splits a range at chunk borders: (chunk, offset in it, part of the range).
fn pieces(offset_bytes: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let at = offset_bytes + done as u64;
        let within = (at % CHUNK_BYTES) as usize;
        let count = (length - done).min(CHUNK_BYTES as usize - within);
        let part = done..done + count;
        done += count;
        Some((at / CHUNK_BYTES, within, part))
    })
}

/// A change of a disk's content.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write {
        offset_bytes: u64,
        data: Bytes,
    },
    Zero {
        offset_bytes: u64,
        length_bytes: u64,
    },
}

/// Above this length zeroes are there wholly or not at all, as a hole that a file system punches at once.
const WHOLE_HOLE_BYTES: u64 = 64 * CHUNK_BYTES;

impl Change {
    pub(super) fn apply(&self, image: &mut Image) {
        match self {
            Change::Write { offset_bytes, data } => image.write(*offset_bytes, data),
            Change::Zero {
                offset_bytes,
                length_bytes,
            } => image.zero(*offset_bytes, *length_bytes),
        }
    }

    /// Applies the units that `keep` chooses: sectors of the disk for a write, blocks of the file system for zeroes.
    fn apply_some(&self, image: &mut Image, mut keep: impl FnMut(u64) -> bool) {
        let (start, length, unit) = match self {
            Change::Write { offset_bytes, data } => {
                (*offset_bytes, data.len() as u64, SECTOR_BYTES as u64)
            }
            Change::Zero {
                offset_bytes,
                length_bytes,
            } => (
                *offset_bytes,
                *length_bytes,
                if *length_bytes > WHOLE_HOLE_BYTES {
                    u64::MAX
                } else {
                    CHUNK_BYTES
                },
            ),
        };
        let end = start + length;
        let (mut at, mut number) = (start, 0);
        while at < end {
            // Units of the disk, not of the change.
            let next = (at - at % unit).saturating_add(unit).min(end);
            if keep(number) {
                match self {
                    Change::Write { data, .. } => {
                        image.write(at, &data[(at - start) as usize..(next - start) as usize]);
                    }
                    Change::Zero { .. } => image.zero(at, next - at),
                }
            }
            at = next;
            number += 1;
        }
    }

    /// The bytes it touches.
    pub(super) fn range(&self) -> Range<u64> {
        match self {
            Change::Write { offset_bytes, data } => {
                *offset_bytes..*offset_bytes + data.len() as u64
            }
            Change::Zero {
                offset_bytes,
                length_bytes,
            } => *offset_bytes..*offset_bytes + *length_bytes,
        }
    }

    /// The same at another place.
    pub(super) fn move_to(&mut self, at: u64) {
        match self {
            Change::Write { offset_bytes, .. } | Change::Zero { offset_bytes, .. } => {
                *offset_bytes = at;
            }
        }
    }

    /// Its first sectors, of a random number; maybe none of them.
    pub(super) fn prefix(&self, random: &mut Random) -> Change {
        let range = self.range();
        let sectors = (range.end - range.start) / SECTOR_BYTES as u64;
        let length = random.below(sectors + 1) * SECTOR_BYTES as u64;
        match self {
            Change::Write { offset_bytes, data } => Change::Write {
                offset_bytes: *offset_bytes,
                data: data.slice(..length as usize),
            },
            Change::Zero { offset_bytes, .. } => Change::Zero {
                offset_bytes: *offset_bytes,
                length_bytes: length,
            },
        }
    }

    /// What is done of it when the process dies meanwhile: nothing, a part, or all.
    pub(super) fn left_by_kill(self, random: &mut Random) -> Option<Change> {
        match random.below(3) {
            0 => None,
            1 => Some(self.prefix(random)),
            _ => Some(self),
        }
    }

    /// Applies what a crash may leave of it: nothing, all, a prefix, or any of its units.
    pub(super) fn tear(&self, image: &mut Image, random: &mut Random) {
        match random.below(4) {
            0 => {}
            1 => self.apply(image),
            2 => {
                let until = random.below(9);
                self.apply_some(image, |unit| unit < until);
            }
            _ => self.apply_some(image, |_| random.one_in(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_where_they_are() {
        let (mut a, mut b) = (Image::default(), Image::default());
        a.write(4096 + 100, &[1; 5000]);
        b.write(8192 + 100, &[1; 5000]);
        assert_eq!(a.first_difference(4096..1 << 20, &b, 8192), None);
        assert_eq!(a.first_difference(4096..1 << 20, &b, 4096), Some(100));
        b.write(8192 + 70_001, &[7]);
        assert_eq!(a.first_difference(4096..1 << 20, &b, 8192), Some(70_001));
        assert_eq!(a.first_difference(4096..4096 + 70_001, &b, 8192), None);
        b.zero(8192 + 70_000, 2);
        a.write(200_000, &[0; 9000]);
        assert_eq!(a.first_difference(4096..1 << 20, &b, 8192), None);
        a.zero(4096, 4096);
        assert_eq!(a.first_difference(4096..1 << 20, &b, 8192), Some(100));
    }
}
