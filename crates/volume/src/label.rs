//! The label: what says that a device is ringfence's, of which pool, and where its areas are.
//!
//! Two copies, far enough apart that a partition table or a boot sector written by mistake does not reach both. They are
//! written alternately, each made durable before the other is touched. Layout: `docs/on-disk-format.md`.

use thiserror::Error;
use uuid::Uuid;

use crate::block_device::{BlockDevice, IO_ALIGNMENT_BYTES, aligned_buffer};
use crate::error::VolumeError;

use crate::device::Device;

/// First bytes of a label.
pub const MAGIC: [u8; 8] = *b"RINGFLB\0";
/// Version of the format.
pub const VERSION: u32 = 1;
/// Length of a label in bytes: one sector, which no crash tears. The rest of its 4 KiB is zero.
pub const LABEL_BYTES: usize = 512;
/// Offsets of the two copies in bytes.
pub const COPY_OFFSETS_BYTES: [u64; 2] = [0, 65_536];
/// The start of a device that belongs to the label, in bytes.
pub const LABEL_AREA_BYTES: u64 = 131_072;
/// Smallest device in bytes.
pub const MIN_DEVICE_BYTES: u64 = 16 << 20;
/// Longest name of a device in bytes.
pub const MAX_NAME_BYTES: usize = 64;

const MIB: u64 = 1 << 20;
const CONFIG_MIN_BYTES: u64 = 4 * MIB;
const CONFIG_MAX_BYTES: u64 = 256 * MIB;

pub(crate) const OFFSET_VERSION: usize = 8;
pub(crate) const OFFSET_NAME_LENGTH: usize = 12;
pub(crate) const OFFSET_POOL: usize = 16;
pub(crate) const OFFSET_DEVICE: usize = 32;
pub(crate) const OFFSET_SEQUENCE: usize = 48;
pub(crate) const OFFSET_SIZE: usize = 56;
pub(crate) const OFFSET_AREAS: usize = 64;
pub(crate) const OFFSET_NAME: usize = 96;
pub(crate) const OFFSET_CRC32C: usize = LABEL_BYTES - 4;

/// Where the areas of a device are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Areas {
    /// First byte of the copy of the pool's configuration.
    pub config_offset_bytes: u64,
    /// Length of that in bytes.
    pub config_length_bytes: u64,
    /// First byte that extents may use; a multiple of 1 MiB.
    pub data_offset_bytes: u64,
    /// Length of that in bytes; a multiple of 1 MiB.
    pub data_length_bytes: u64,
}

impl Areas {
    /// The layout for a device of `size_bytes`, or `None` below [`MIN_DEVICE_BYTES`]. The configuration gets a 64th, at
    /// least 4 MiB and at most 256 MiB (more than 30,000 records).
    pub fn of(size_bytes: u64) -> Option<Areas> {
        if size_bytes < MIN_DEVICE_BYTES {
            return None;
        }
        let config_length_bytes =
            (size_bytes / 64 / MIB * MIB).clamp(CONFIG_MIN_BYTES, CONFIG_MAX_BYTES);
        let data_offset_bytes = MIB + config_length_bytes;
        Some(Areas {
            config_offset_bytes: MIB,
            config_length_bytes,
            data_offset_bytes,
            data_length_bytes: (size_bytes - data_offset_bytes) / MIB * MIB,
        })
    }

    /// Whether the areas follow one another inside a device of `size_bytes`.
    fn is_sound(&self, size_bytes: u64) -> bool {
        let aligned = |value: u64| value.is_multiple_of(4096);
        let config_end = self
            .config_offset_bytes
            .checked_add(self.config_length_bytes);
        let data_end = self.data_offset_bytes.checked_add(self.data_length_bytes);
        self.config_offset_bytes >= LABEL_AREA_BYTES
            && aligned(self.config_offset_bytes)
            && aligned(self.config_length_bytes)
            && self.data_offset_bytes.is_multiple_of(MIB)
            && self.data_length_bytes.is_multiple_of(MIB)
            && config_end.is_some_and(|end| end <= self.data_offset_bytes)
            && data_end.is_some_and(|end| end <= size_bytes)
    }
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The pool.
    pub pool: Uuid,
    /// The device.
    pub device: Uuid,
    /// Number of the update; the copy with the higher one counts.
    pub sequence: u64,
    /// Size of the device in bytes when it was added; it must still be at least that.
    pub size_bytes: u64,
    /// Where the areas are.
    pub areas: Areas,
    /// The operator's name for the device, 1 to 64 bytes.
    pub name: String,
}

/// Why a device has no label that can be used.
#[derive(Debug, Error)]
pub enum LabelError {
    /// Nothing but zeroes where a label would be.
    #[error("the device has no label")]
    Empty,
    /// Something that is not ringfence's.
    #[error("the device carries data that is not ringfence's")]
    Foreign,
    /// A label that is damaged in both copies.
    #[error("the label is damaged in both copies")]
    Torn,
    /// A later version's.
    #[error("the label has format version {version}; this program knows version {VERSION}")]
    Unsupported {
        /// The version.
        version: u32,
    },
    /// A whole label with impossible values.
    #[error("the label is whole but its field {field} is impossible")]
    Invalid {
        /// The field.
        field: &'static str,
    },
    /// The device has become smaller.
    #[error("the device has {actual_bytes} bytes now and had {label_bytes} when it was added")]
    Shrunk {
        /// Size in the label.
        label_bytes: u64,
        /// Size now.
        actual_bytes: u64,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] VolumeError),
}

impl Label {
    /// The stored form.
    pub fn encode(&self) -> [u8; LABEL_BYTES] {
        let mut out = [0; LABEL_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| {
            out[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        let name = &self.name.as_bytes()[..self.name.len().min(MAX_NAME_BYTES)];
        put(0, &MAGIC);
        put(OFFSET_VERSION, &VERSION.to_le_bytes());
        put(OFFSET_NAME_LENGTH, &(name.len() as u32).to_le_bytes());
        put(OFFSET_POOL, self.pool.as_bytes());
        put(OFFSET_DEVICE, self.device.as_bytes());
        put(OFFSET_SEQUENCE, &self.sequence.to_le_bytes());
        put(OFFSET_SIZE, &self.size_bytes.to_le_bytes());
        let areas = [
            self.areas.config_offset_bytes,
            self.areas.config_length_bytes,
            self.areas.data_offset_bytes,
            self.areas.data_length_bytes,
        ];
        for (index, value) in areas.iter().enumerate() {
            put(OFFSET_AREAS + 8 * index, &value.to_le_bytes());
        }
        put(OFFSET_NAME, name);
        let crc = crc32c::crc32c(&out[..OFFSET_CRC32C]);
        out[OFFSET_CRC32C..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads one copy.
    ///
    /// # Errors
    /// [`LabelError`]; nothing is believed before the checksum matches.
    pub fn decode(bytes: &[u8]) -> Result<Label, LabelError> {
        let bytes: &[u8; LABEL_BYTES] = bytes
            .get(..LABEL_BYTES)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(LabelError::Torn)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(LabelError::Empty);
        }
        if bytes[..8] != MAGIC {
            return Err(LabelError::Foreign);
        }
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let u64_at =
            |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]));
        let uuid_at = |at: usize| Uuid::from_bytes(std::array::from_fn(|i| bytes[at + i]));
        if crc32c::crc32c(&bytes[..OFFSET_CRC32C]) != u32_at(OFFSET_CRC32C) {
            return Err(LabelError::Torn);
        }
        let version = u32_at(OFFSET_VERSION);
        if version != VERSION {
            return Err(LabelError::Unsupported { version });
        }
        let name_length = u32_at(OFFSET_NAME_LENGTH) as usize;
        let name = bytes[OFFSET_NAME..OFFSET_NAME + MAX_NAME_BYTES]
            .get(..name_length)
            .filter(|name| !name.is_empty())
            .and_then(|name| std::str::from_utf8(name).ok())
            .ok_or(LabelError::Invalid { field: "name" })?;
        let label = Label {
            pool: uuid_at(OFFSET_POOL),
            device: uuid_at(OFFSET_DEVICE),
            sequence: u64_at(OFFSET_SEQUENCE),
            size_bytes: u64_at(OFFSET_SIZE),
            areas: Areas {
                config_offset_bytes: u64_at(OFFSET_AREAS),
                config_length_bytes: u64_at(OFFSET_AREAS + 8),
                data_offset_bytes: u64_at(OFFSET_AREAS + 16),
                data_length_bytes: u64_at(OFFSET_AREAS + 24),
            },
            name: name.to_owned(),
        };
        if !label.areas.is_sound(label.size_bytes) {
            return Err(LabelError::Invalid { field: "areas" });
        }
        Ok(label)
    }
}

/// Reads the label of a device.
///
/// # Errors
/// [`LabelError`], each verdict its own.
pub async fn read<D: BlockDevice>(device: &Device<D>) -> Result<Label, LabelError> {
    let size_bytes = device.size_bytes();
    if size_bytes < LABEL_AREA_BYTES {
        return Err(LabelError::Foreign);
    }
    let (result, area) = device
        .read(0, aligned_buffer(LABEL_AREA_BYTES as usize))
        .await;
    result?;
    let label = verdict(&area)?;
    if label.size_bytes > size_bytes {
        return Err(LabelError::Shrunk {
            label_bytes: label.size_bytes,
            actual_bytes: size_bytes,
        });
    }
    Ok(label)
}

/// The verdict on a label area of [`LABEL_AREA_BYTES`].
///
/// # Errors
/// [`LabelError`].
pub fn verdict(area: &[u8]) -> Result<Label, LabelError> {
    let copy = |at: u64| Label::decode(area.get(at as usize..).unwrap_or_default());
    let [first, second] = COPY_OFFSETS_BYTES.map(copy);
    match (first, second) {
        (Ok(first), Ok(second)) if first.sequence >= second.sequence => Ok(first),
        (_, Ok(second)) => Ok(second),
        (Ok(first), _) => Ok(first),
        (Err(first), Err(second)) => Err(worse(first, second, area)),
    }
}

/// Which of two failures tells more: a label of ours that cannot be used, then noise, then nothing.
fn worse(first: LabelError, second: LabelError, area: &[u8]) -> LabelError {
    let weight = |error: &LabelError| match error {
        LabelError::Empty => 0,
        LabelError::Foreign => 1,
        LabelError::Torn => 2,
        _ => 3,
    };
    let worst = if weight(&first) >= weight(&second) {
        first
    } else {
        second
    };
    match worst {
        LabelError::Empty if area.iter().any(|byte| *byte != 0) => LabelError::Foreign,
        worst => worst,
    }
}

/// Writes both copies, the first with `label.sequence` and durable before the second, with the number after it, is
/// touched.
///
/// # Errors
/// [`VolumeError::Device`].
pub async fn write<D: BlockDevice>(device: &Device<D>, label: &Label) -> Result<(), VolumeError> {
    for (copy, offset) in COPY_OFFSETS_BYTES.into_iter().enumerate() {
        let label = Label {
            sequence: label.sequence + copy as u64,
            ..label.clone()
        };
        let mut buf = aligned_buffer(IO_ALIGNMENT_BYTES);
        buf[..LABEL_BYTES].copy_from_slice(&label.encode());
        device.write(offset, buf.freeze()).await?;
        device.flush().await?;
    }
    Ok(())
}

/// Erases both copies.
///
/// # Errors
/// [`VolumeError::Device`].
pub async fn erase<D: BlockDevice>(device: &Device<D>) -> Result<(), VolumeError> {
    for offset in COPY_OFFSETS_BYTES {
        device
            .write(offset, aligned_buffer(IO_ALIGNMENT_BYTES).freeze())
            .await?;
    }
    device.flush().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label(sequence: u64) -> Label {
        Label {
            pool: Uuid::from_u128(1),
            device: Uuid::from_u128(2),
            sequence,
            size_bytes: 64 << 20,
            areas: Areas::of(64 << 20).unwrap(),
            name: "d1".into(),
        }
    }

    fn area(first: &[u8], second: &[u8]) -> Vec<u8> {
        let mut area = vec![0; LABEL_AREA_BYTES as usize];
        area[..first.len()].copy_from_slice(first);
        area[65_536..65_536 + second.len()].copy_from_slice(second);
        area
    }

    fn says(first: &[u8], second: &[u8]) -> String {
        match verdict(&area(first, second)) {
            Ok(label) => format!("sequence {}", label.sequence),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn verdicts_are_distinct() {
        let (l5, l6) = (label(5).encode(), label(6).encode());
        let mut torn = l6;
        torn[300] = 1;
        let mut v2 = l6;
        v2[8] = 2;
        let crc = crc32c::crc32c(&v2[..OFFSET_CRC32C]);
        v2[OFFSET_CRC32C..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(says(&l5, &l6), "sequence 6");
        assert_eq!(says(&l6, &l5), "sequence 6");
        assert_eq!(says(&torn, &l5), "sequence 5");
        assert_eq!(says(&l5, &[7; 512]), "sequence 5");
        assert_eq!(says(&[], &[]), "the device has no label");
        assert_eq!(says(&torn, &[]), "the label is damaged in both copies");
        assert_eq!(
            says(&[7; 512], &[]),
            "the device carries data that is not ringfence's"
        );
        assert!(says(&v2, &[]).contains("version 2"));
        let mut ext4 = area(&[], &[]);
        ext4[1024 + 0x38] = 0x53;
        assert!(
            matches!(verdict(&ext4), Err(LabelError::Foreign)),
            "past the copies"
        );
    }

    #[test]
    fn areas_never_overlap_and_scale() {
        assert_eq!(Areas::of(MIN_DEVICE_BYTES - 1), None);
        for size in [
            MIN_DEVICE_BYTES,
            MIN_DEVICE_BYTES + 12345,
            1 << 30,
            1 << 40,
            1 << 50,
        ] {
            let areas = Areas::of(size).unwrap();
            assert!(areas.is_sound(size), "{areas:?}");
            assert!(areas.data_length_bytes > 0);
        }
        let pages =
            crate::page_store::Geometry::of(Areas::of(1 << 40).unwrap().config_length_bytes);
        assert!(pages.unwrap().capacity_pages > 30_000);
    }

    proptest! {
        #[test]
        fn noise_is_never_a_label(mut bytes in prop::collection::vec(any::<u8>(), LABEL_BYTES), fix: bool) {
            bytes[..8].copy_from_slice(&MAGIC);
            if fix {
                bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
                let crc = crc32c::crc32c(&bytes[..OFFSET_CRC32C]);
                bytes[OFFSET_CRC32C..].copy_from_slice(&crc.to_le_bytes());
            }
            prop_assert!(Label::decode(&bytes).is_err());
        }
    }
}
