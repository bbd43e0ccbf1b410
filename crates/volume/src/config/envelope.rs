//! A record in pages: JSON in one page, or in several when it is longer than a page holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use crate::page_store::PAGE_BYTES;

const MAGIC: [u8; 4] = *b"RFCR";
const VERSION: u16 = 1;

pub(crate) const OFFSET_VERSION: usize = 4;
pub(crate) const OFFSET_KIND: usize = 6;
pub(crate) const OFFSET_RECORD: usize = 8;
pub(crate) const OFFSET_PART: usize = 24;
pub(crate) const OFFSET_PARTS: usize = 28;
pub(crate) const OFFSET_LENGTH: usize = 32;
pub(crate) const OFFSET_TOTAL: usize = 36;
pub(crate) const OFFSET_PAYLOAD: usize = 64;
/// Bytes of a record that fit into one page.
pub const PAYLOAD_BYTES: usize = PAGE_BYTES as usize - OFFSET_PAYLOAD;
/// Longest record in bytes.
pub const MAX_RECORD_BYTES: usize = 4 << 20;

/// A record as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What the payload is.
    pub kind: u16,
    /// Identity of the record.
    pub uuid: Uuid,
    /// The record.
    pub payload: Vec<u8>,
}

impl Stored {
    /// The pages of the record, in order; at least one.
    pub fn encode(&self) -> Vec<Bytes> {
        let parts = self.payload.len().div_ceil(PAYLOAD_BYTES).max(1);
        (0..parts)
            .map(|part| {
                let start = part * PAYLOAD_BYTES;
                let end = self.payload.len().min(start + PAYLOAD_BYTES);
                let payload = &self.payload[start..end];
                let mut page = vec![0; PAGE_BYTES as usize];
                let mut put = |offset: usize, bytes: &[u8]| {
                    page[offset..offset + bytes.len()].copy_from_slice(bytes);
                };
                put(0, &MAGIC);
                put(OFFSET_VERSION, &VERSION.to_le_bytes());
                put(OFFSET_KIND, &self.kind.to_le_bytes());
                put(OFFSET_RECORD, self.uuid.as_bytes());
                put(OFFSET_PART, &(part as u32).to_le_bytes());
                put(OFFSET_PARTS, &(parts as u32).to_le_bytes());
                put(OFFSET_LENGTH, &(payload.len() as u32).to_le_bytes());
                put(OFFSET_TOTAL, &(self.payload.len() as u32).to_le_bytes());
                put(OFFSET_PAYLOAD, payload);
                page.into()
            })
            .collect()
    }
}

/// A record and its pages in order.
pub type Placed = (Stored, Vec<u32>);

/// Puts records together from pages (number and content, in any order). Returns each record and its pages in order.
///
/// # Errors
/// The page and what is wrong with it.
pub fn decode(
    pages: impl IntoIterator<Item = (u32, Bytes)>,
) -> Result<Vec<Placed>, (u32, &'static str)> {
    struct Parts {
        kind: u16,
        total: usize,
        parts: Vec<Option<(u32, Bytes)>>,
    }
    let mut records: BTreeMap<Uuid, Parts> = BTreeMap::new();
    for (page, bytes) in pages {
        let wrong = |what| (page, what);
        if bytes.len() != PAGE_BYTES as usize || bytes[..4] != MAGIC {
            return Err(wrong("not a configuration record"));
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i])) as usize;
        if u16_at(OFFSET_VERSION) != VERSION {
            return Err(wrong("unknown version"));
        }
        let kind = u16_at(OFFSET_KIND);
        let uuid = Uuid::from_bytes(std::array::from_fn(|i| bytes[OFFSET_RECORD + i]));
        let (part, parts) = (u32_at(OFFSET_PART), u32_at(OFFSET_PARTS));
        let (length, total) = (u32_at(OFFSET_LENGTH), u32_at(OFFSET_TOTAL));
        if total > MAX_RECORD_BYTES
            || parts != total.div_ceil(PAYLOAD_BYTES).max(1)
            || part >= parts
        {
            return Err(wrong("impossible number of parts"));
        }
        // `part < parts`, so the part starts inside the record.
        if length != (total - part * PAYLOAD_BYTES).min(PAYLOAD_BYTES) {
            return Err(wrong("impossible length"));
        }
        let record = records.entry(uuid).or_insert_with(|| Parts {
            kind,
            total,
            parts: vec![None; parts],
        });
        if record.kind != kind || record.total != total {
            return Err(wrong("its parts do not belong together"));
        }
        let payload = bytes.slice(OFFSET_PAYLOAD..OFFSET_PAYLOAD + length);
        // Equal totals mean equal numbers of parts.
        if record.parts[part].replace((page, payload)).is_some() {
            return Err(wrong("a part is there twice"));
        }
    }
    records
        .into_iter()
        .map(|(uuid, record)| {
            let mut payload = Vec::with_capacity(record.total);
            let mut pages = Vec::with_capacity(record.parts.len());
            let some_page = record
                .parts
                .iter()
                .flatten()
                .next()
                .map_or(0, |(page, _)| *page);
            for part in record.parts {
                let (page, bytes) = part.ok_or((some_page, "a part is missing"))?;
                pages.push(page);
                payload.extend_from_slice(&bytes);
            }
            let stored = Stored {
                kind: record.kind,
                uuid,
                payload,
            };
            Ok((stored, pages))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            lengths in prop::collection::vec(0usize..20_000, 1..5), seed: u8, kind: u16,
        ) {
            let records: Vec<Stored> = lengths.iter().enumerate().map(|(number, length)| Stored {
                kind,
                uuid: Uuid::from_u128(number as u128),
                payload: (0..*length).map(|at| (at as u8).wrapping_mul(seed)).collect(),
            }).collect();
            let mut pages: Vec<Bytes> = records.iter().flat_map(Stored::encode).collect();
            pages.reverse();
            let read = decode((0u32..).zip(pages.clone())).unwrap();
            let read: Vec<Stored> = read.into_iter().map(|(stored, _)| stored).collect();
            prop_assert_eq!(read, records);
            if pages.len() > lengths.len() {
                let mut cut = pages.clone();
                cut.retain(|page| page[OFFSET_PART] != 1);
                prop_assert!(decode((0u32..).zip(cut)).is_err());
            }
            pages.push(pages[0].clone());
            prop_assert!(decode((0u32..).zip(pages)).is_err());
        }

        #[test]
        fn noise_does_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 4096), parts in 0u32..3, small: bool) {
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[4..6].copy_from_slice(&1u16.to_le_bytes());
            if small {
                bytes[OFFSET_PARTS..OFFSET_PARTS + 4].copy_from_slice(&parts.to_le_bytes());
                bytes[OFFSET_PART..OFFSET_PART + 4].fill(0);
                bytes[OFFSET_LENGTH + 2..OFFSET_PAYLOAD].fill(0);
            }
            if let Ok(records) = decode([(0, Bytes::from(bytes))]) {
                prop_assert!(records[0].0.payload.len() <= PAYLOAD_BYTES);
            }
        }
    }
}
