//! How a field of a header is read and written.

use super::BHS_BYTES;

/// A type that a header field can have.
pub trait Field {
    /// What the field reads as.
    type Value;

    /// Reads the field at byte `offset`, which is a constant inside the header.
    fn get(header: &[u8; BHS_BYTES], offset: usize) -> Self::Value;

    /// Writes the field.
    fn set(header: &mut [u8; BHS_BYTES], offset: usize, value: Self::Value);
}

/// A 24-bit big-endian number in a `u32`; the upper eight bits are dropped.
#[derive(Debug)]
pub struct U24;

impl Field for U24 {
    type Value = u32;

    fn get(header: &[u8; BHS_BYTES], offset: usize) -> u32 {
        u32::from_be_bytes([0, header[offset], header[offset + 1], header[offset + 2]])
    }

    fn set(header: &mut [u8; BHS_BYTES], offset: usize, value: u32) {
        header[offset..offset + 3].copy_from_slice(&value.to_be_bytes()[1..]);
    }
}

macro_rules! number {
    ($($ty:ty),*) => { $(
        impl Field for $ty {
            type Value = $ty;

            fn get(header: &[u8; BHS_BYTES], offset: usize) -> $ty {
                let mut bytes = [0; size_of::<$ty>()];
                bytes.copy_from_slice(&header[offset..offset + size_of::<$ty>()]);
                <$ty>::from_be_bytes(bytes)
            }

            fn set(header: &mut [u8; BHS_BYTES], offset: usize, value: $ty) {
                header[offset..offset + size_of::<$ty>()].copy_from_slice(&value.to_be_bytes());
            }
        }
    )* };
}

number!(u8, u16, u32);

impl<const N: usize> Field for [u8; N] {
    type Value = [u8; N];

    fn get(header: &[u8; BHS_BYTES], offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&header[offset..offset + N]);
        bytes
    }

    fn set(header: &mut [u8; BHS_BYTES], offset: usize, value: [u8; N]) {
        header[offset..offset + N].copy_from_slice(&value);
    }
}
