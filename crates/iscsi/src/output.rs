//! Queues outgoing PDUs as chunks: headers and small data coalesced, large data passed on without a copy.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::digest::{self, Digest};
use crate::pdu::{BHS_BYTES, padding_bytes};

/// Data up to this length is copied behind its header instead of becoming a chunk of its own, in bytes.
const COALESCE_BYTES: usize = 512;

/// How much the buffer that collects headers grows at a time, in bytes.
const GROW_BYTES: usize = 4096;

/// The sending half of a connection's framing.
#[derive(Debug, Default)]
pub(crate) struct Output {
    chunks: VecDeque<Bytes>,
    /// What comes after `chunks` and is still being appended to.
    tail: BytesMut,
    /// Bytes in `chunks` (without `tail`).
    chunk_bytes: usize,
    /// Set once negotiated.
    pub header_digest: bool,
    /// Set once negotiated.
    pub data_digest: bool,
}

impl Output {
    /// Queues a PDU. Its DataSegmentLength and TotalAHSLength are filled in here. `additional` is a multiple of four
    /// bytes long, at most 1,020; `data` is at most 2^24-1 bytes.
    pub fn push(
        &mut self,
        mut header: [u8; BHS_BYTES],
        additional: &[u8],
        data: impl Iterator<Item = Bytes> + Clone,
    ) {
        let length: usize = data.clone().map(|part| part.len()).sum();
        self.push_header(&mut header, additional, length);
        if length == 0 {
            return;
        }
        let mut crc = Digest::default();
        for part in data {
            if self.data_digest {
                crc.update(&part);
            }
            if part.len() <= COALESCE_BYTES {
                self.reserve(part.len());
                self.tail.put_slice(&part);
            } else {
                self.flush_tail();
                self.chunk_bytes += part.len();
                self.chunks.push_back(part);
            }
        }
        self.push_trailer(crc, length);
    }

    /// Queues a PDU whose data is short and borrowed.
    pub fn push_copied(&mut self, mut header: [u8; BHS_BYTES], data: &[u8]) {
        self.push_header(&mut header, &[], data.len());
        if data.is_empty() {
            return;
        }
        self.reserve(data.len());
        self.tail.put_slice(data);
        let mut crc = Digest::default();
        if self.data_digest {
            crc.update(data);
        }
        self.push_trailer(crc, data.len());
    }

    fn push_header(&mut self, header: &mut [u8; BHS_BYTES], additional: &[u8], length: usize) {
        debug_assert!(
            length < 1 << 24 && additional.len().is_multiple_of(4) && additional.len() <= 1020
        );
        header[4] = (additional.len() / 4) as u8;
        header[5..8].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
        self.reserve(BHS_BYTES + additional.len() + 4);
        self.tail.put_slice(header);
        self.tail.put_slice(additional);
        if self.header_digest {
            self.tail.put_slice(&digest::of_header(header, additional));
        }
    }

    fn push_trailer(&mut self, mut crc: Digest, length: usize) {
        self.reserve(8);
        self.tail.put_bytes(0, padding_bytes(length));
        if self.data_digest {
            crc.pad(length);
            self.tail.put_slice(&crc.to_wire());
        }
    }

    /// Makes room in the tail, in steps, so that headers rarely allocate.
    fn reserve(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes {
            self.tail.reserve(bytes.max(GROW_BYTES));
        }
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunk_bytes += self.tail.len();
            self.chunks.push_back(self.tail.split().freeze());
        }
    }

    /// Moves whole chunks to `out` until `limit_bytes` is reached or passed; returns the bytes moved.
    pub fn poll(&mut self, out: &mut VecDeque<Bytes>, limit_bytes: usize) -> usize {
        let mut moved = 0;
        while moved < limit_bytes {
            if self.chunks.is_empty() {
                self.flush_tail();
            }
            let Some(chunk) = self.chunks.pop_front() else {
                break;
            };
            self.chunk_bytes -= chunk.len();
            moved += chunk.len();
            out.push_back(chunk);
        }
        moved
    }

    /// Bytes queued.
    pub fn pending_bytes(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }
}
