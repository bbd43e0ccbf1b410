//! Buffers for data that goes to storage.

use bytes::{Buf, BytesMut};

/// The alignment of data buffers handed to the application, in bytes: what direct I/O wants.
pub const DATA_ALIGNMENT_BYTES: usize = 4096;

/// An empty buffer with room for `capacity_bytes`, whose address is a multiple of [`DATA_ALIGNMENT_BYTES`] for as
/// long as it does not grow beyond that.
pub fn aligned_buffer(capacity_bytes: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(capacity_bytes + DATA_ALIGNMENT_BYTES);
    let skip = buffer.as_ptr().align_offset(DATA_ALIGNMENT_BYTES);
    buffer.resize(skip, 0);
    buffer.advance(skip);
    buffer
}

/// Makes room for `capacity_bytes` in all in a buffer made by [`aligned_buffer`], or a new one, keeping its alignment.
pub(crate) fn reserve_aligned(buffer: &mut BytesMut, capacity_bytes: usize) {
    if buffer.capacity() < capacity_bytes {
        let mut larger = aligned_buffer(capacity_bytes);
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
}

/// Appends to a buffer made by [`aligned_buffer`], moving to a new aligned one of `capacity_bytes` (at least) when it
/// is full.
pub(crate) fn append_aligned(buffer: &mut BytesMut, bytes: &[u8], capacity_bytes: usize) {
    let needed = buffer.len() + bytes.len();
    if buffer.capacity() < needed {
        reserve_aligned(buffer, needed.max(capacity_bytes));
    }
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_stay_aligned_while_they_fill_and_grow() {
        for capacity in [1, 511, 4096, 70_000] {
            let mut buffer = aligned_buffer(capacity);
            let start = buffer.as_ptr();
            assert_eq!(start.align_offset(DATA_ALIGNMENT_BYTES), 0);
            buffer.extend_from_slice(&vec![7; capacity]);
            assert_eq!(buffer.as_ptr(), start, "filled without moving");
            append_aligned(&mut buffer, &[8; 5000], 0);
            assert_eq!(buffer.as_ptr().align_offset(DATA_ALIGNMENT_BYTES), 0);
            assert_eq!(buffer.len(), capacity + 5000);
            assert_eq!(
                buffer.freeze().as_ptr().align_offset(DATA_ALIGNMENT_BYTES),
                0
            );
        }
    }
}
