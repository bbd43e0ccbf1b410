//! The header of a page store: its form on disk, and reading it from bytes that may be anything.
//!
//! All integers are little endian. The layout is in `docs/on-disk-format.md`; a test keeps the two together.

use uuid::Uuid;

/// First bytes of a header copy.
pub const MAGIC: [u8; 8] = *b"RINGFPS\0";
/// Version of the format.
pub const VERSION: u32 = 1;
/// Bytes before the member list.
pub const FIXED_BYTES: usize = 512;
/// Bytes of a member in the list.
pub const MEMBER_BYTES: usize = 16;
/// Bytes of a page's entry in the table.
pub const ENTRY_BYTES: usize = 8;
/// Most replicas that a store may have.
pub const MAX_MEMBERS: usize = 128;
/// Bytes of the commit record.
pub const RECORD_BYTES: usize = 256;

pub(crate) const OFFSET_VERSION: usize = 8;
pub(crate) const OFFSET_HEADER_BYTES: usize = 12;
pub(crate) const OFFSET_STORE: usize = 16;
pub(crate) const OFFSET_KIND: usize = 32;
pub(crate) const OFFSET_PAGE_COUNT: usize = 36;
pub(crate) const OFFSET_EPOCH: usize = 40;
pub(crate) const OFFSET_SEQUENCE: usize = 48;
pub(crate) const OFFSET_CLAIM: usize = 56;
pub(crate) const OFFSET_WRITER: usize = 64;
pub(crate) const OFFSET_REPLICA: usize = 80;
pub(crate) const OFFSET_MEMBER_COUNT: usize = 96;
pub(crate) const OFFSET_RECORD: usize = 128;
pub(crate) const OFFSET_CRC32C: usize = 508;

const FLAG_COPY: u8 = 1;
const FLAG_USED: u8 = 2;

/// Which store this is. A header of another store is foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pool's or the volume's UUID.
    pub store: Uuid,
    /// What the pages hold: `CONF` or `KEYS`.
    pub kind: [u8; 4],
}

/// A page in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageEntry {
    /// CRC32C of the current copy.
    pub crc32c: u32,
    /// Which copy is current, 0 or 1.
    pub copy: u8,
    /// The page holds something.
    pub used: bool,
}

/// What a commit makes current, the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Number of the opening that made the commit; see `docs/on-disk-format.md`.
    pub epoch: u64,
    /// Number of the commit.
    pub sequence: u64,
    /// Random identity of the opening.
    pub writer: Uuid,
    /// The replicas whose majority makes a commit durable.
    pub members: Vec<Uuid>,
    /// The commit record.
    pub record: [u8; RECORD_BYTES],
    /// The table of pages, up to the last one ever used.
    pub pages: Vec<PageEntry>,
}

/// A header as one replica stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is current.
    pub content: Content,
    /// The highest epoch that an opening has claimed on this replica.
    pub claim: u64,
    /// Identity of the replica.
    pub replica: Uuid,
}

/// Why bytes are not a header of this store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// All zeroes.
    #[error("empty")]
    Empty,
    /// Not a header, or one whose checksum does not match.
    #[error("torn or overwritten")]
    Torn,
    /// A valid header of another store or replica.
    #[error("belongs to {what} {uuid}")]
    Foreign {
        /// `store` or `replica`.
        what: &'static str,
        /// Whose it is.
        uuid: Uuid,
    },
    /// A valid header of a version that this program does not know.
    #[error("format version {version}; this program knows version {VERSION}")]
    Unsupported {
        /// The version.
        version: u32,
    },
    /// The checksum matches but a field is impossible.
    #[error("impossible value in field {field}")]
    Invalid {
        /// The field.
        field: &'static str,
    },
}

/// Length in bytes that the first 4 KiB of a header copy announce, when they look like a header's.
pub fn announced_bytes(first: &[u8]) -> Option<usize> {
    if first.get(..8)? != MAGIC {
        return None;
    }
    Some(u32_at(first, OFFSET_HEADER_BYTES)? as usize)
}

impl Header {
    /// The stored form, exactly as long as it needs.
    pub fn encode(&self, identity: Identity) -> Vec<u8> {
        let content = &self.content;
        let length =
            FIXED_BYTES + content.members.len() * MEMBER_BYTES + content.pages.len() * ENTRY_BYTES;
        let mut out = vec![0u8; FIXED_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| {
            out[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &MAGIC);
        put(OFFSET_VERSION, &VERSION.to_le_bytes());
        put(OFFSET_HEADER_BYTES, &(length as u32).to_le_bytes());
        put(OFFSET_STORE, identity.store.as_bytes());
        put(OFFSET_KIND, &identity.kind);
        put(
            OFFSET_PAGE_COUNT,
            &(content.pages.len() as u32).to_le_bytes(),
        );
        put(OFFSET_EPOCH, &content.epoch.to_le_bytes());
        put(OFFSET_SEQUENCE, &content.sequence.to_le_bytes());
        put(OFFSET_CLAIM, &self.claim.to_le_bytes());
        put(OFFSET_WRITER, content.writer.as_bytes());
        put(OFFSET_REPLICA, self.replica.as_bytes());
        put(
            OFFSET_MEMBER_COUNT,
            &(content.members.len() as u32).to_le_bytes(),
        );
        put(OFFSET_RECORD, &content.record);
        out.reserve_exact(length - FIXED_BYTES);
        for member in &content.members {
            out.extend_from_slice(member.as_bytes());
        }
        for page in &content.pages {
            out.extend_from_slice(&page.crc32c.to_le_bytes());
            let flags = page.copy & FLAG_COPY | if page.used { FLAG_USED } else { 0 };
            out.extend_from_slice(&[flags, 0, 0, 0]);
        }
        let crc = crc32c::crc32c(&out);
        out[OFFSET_CRC32C..OFFSET_CRC32C + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header from `bytes`, which start at a header copy and reach at least as far as it announces.
    /// `capacity_pages` bounds the table.
    ///
    /// # Errors
    /// [`HeaderError`]; nothing is believed before the checksum matches.
    pub fn decode(
        bytes: &[u8],
        identity: Identity,
        replica: Uuid,
        capacity_pages: u32,
    ) -> Result<Header, HeaderError> {
        let fixed = bytes.get(..FIXED_BYTES).ok_or(HeaderError::Torn)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Empty);
        }
        let length = announced_bytes(fixed).ok_or(HeaderError::Torn)?;
        let max = FIXED_BYTES + MAX_MEMBERS * MEMBER_BYTES + capacity_pages as usize * ENTRY_BYTES;
        if length < FIXED_BYTES || length > max {
            return Err(HeaderError::Torn);
        }
        let all = bytes.get(..length).ok_or(HeaderError::Torn)?;
        let stored = u32_at(fixed, OFFSET_CRC32C).ok_or(HeaderError::Torn)?;
        let crc = crc32c::crc32c(&all[..OFFSET_CRC32C]);
        let crc = crc32c::crc32c_append(crc, &[0; 4]);
        if crc32c::crc32c_append(crc, &all[FIXED_BYTES..]) != stored {
            return Err(HeaderError::Torn);
        }
        // From here on the bytes are what some ringfence wrote.
        let version = u32_at(fixed, OFFSET_VERSION).ok_or(HeaderError::Torn)?;
        if version != VERSION {
            return Err(HeaderError::Unsupported { version });
        }
        let store = uuid_at(fixed, OFFSET_STORE)?;
        if store != identity.store || fixed[OFFSET_KIND..OFFSET_KIND + 4] != identity.kind {
            return Err(HeaderError::Foreign {
                what: "store",
                uuid: store,
            });
        }
        let own = uuid_at(fixed, OFFSET_REPLICA)?;
        if own != replica {
            return Err(HeaderError::Foreign {
                what: "replica",
                uuid: own,
            });
        }
        let member_count = u32_at(fixed, OFFSET_MEMBER_COUNT).ok_or(HeaderError::Torn)? as usize;
        let page_count = u32_at(fixed, OFFSET_PAGE_COUNT).ok_or(HeaderError::Torn)? as usize;
        if member_count == 0 || member_count > MAX_MEMBERS {
            return Err(HeaderError::Invalid {
                field: "member count",
            });
        }
        if page_count > capacity_pages as usize
            || length != FIXED_BYTES + member_count * MEMBER_BYTES + page_count * ENTRY_BYTES
        {
            return Err(HeaderError::Invalid {
                field: "page count",
            });
        }
        let (members, pages) = all[FIXED_BYTES..].split_at(member_count * MEMBER_BYTES);
        let members: Vec<Uuid> = members
            .chunks_exact(MEMBER_BYTES)
            .map(|member| uuid_at(member, 0))
            .collect::<Result<_, _>>()?;
        if (1..members.len()).any(|i| members[..i].contains(&members[i])) {
            return Err(HeaderError::Invalid { field: "members" });
        }
        let pages = pages
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| {
                let flags = entry[4];
                if flags & !(FLAG_COPY | FLAG_USED) != 0 || entry[5..] != [0; 3] {
                    return Err(HeaderError::Invalid {
                        field: "page table",
                    });
                }
                Ok(PageEntry {
                    crc32c: u32_at(entry, 0).ok_or(HeaderError::Torn)?,
                    copy: flags & FLAG_COPY,
                    used: flags & FLAG_USED != 0,
                })
            })
            .collect::<Result<_, _>>()?;
        let mut record = [0; RECORD_BYTES];
        record.copy_from_slice(&fixed[OFFSET_RECORD..OFFSET_RECORD + RECORD_BYTES]);
        let epoch = u64_at(fixed, OFFSET_EPOCH)?;
        let claim = u64_at(fixed, OFFSET_CLAIM)?;
        if claim < epoch {
            return Err(HeaderError::Invalid { field: "claim" });
        }
        Ok(Header {
            content: Content {
                epoch,
                sequence: u64_at(fixed, OFFSET_SEQUENCE)?,
                writer: uuid_at(fixed, OFFSET_WRITER)?,
                members,
                record,
                pages,
            },
            claim,
            replica,
        })
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let raw = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(raw.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, HeaderError> {
    bytes
        .get(offset..offset + 8)
        .and_then(|raw| raw.try_into().ok())
        .map(u64::from_le_bytes)
        .ok_or(HeaderError::Torn)
}

fn uuid_at(bytes: &[u8], offset: usize) -> Result<Uuid, HeaderError> {
    bytes
        .get(offset..offset + 16)
        .and_then(|raw| Uuid::from_slice(raw).ok())
        .ok_or(HeaderError::Torn)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: Identity = Identity {
        store: Uuid::from_u128(7),
        kind: *b"TEST",
    };

    fn header(members: u128, pages: u32) -> Header {
        Header {
            content: Content {
                epoch: 3,
                sequence: 9,
                writer: Uuid::from_u128(99),
                members: (1..=members).map(Uuid::from_u128).collect(),
                record: [0xa5; RECORD_BYTES],
                pages: (0..pages)
                    .map(|page| PageEntry {
                        crc32c: page.wrapping_mul(0x9e37_79b9),
                        copy: (page % 2) as u8,
                        used: page % 3 != 0,
                    })
                    .collect(),
            },
            claim: 4,
            replica: Uuid::from_u128(1),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Header, HeaderError> {
        Header::decode(bytes, IDENTITY, Uuid::from_u128(1), 1000)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(members in 1u128..=128, pages in 0u32..=1000) {
            let header = header(members, pages);
            prop_assert_eq!(decode(&header.encode(IDENTITY)), Ok(header));
        }

        #[test]
        fn any_changed_byte_is_noticed(at in 0usize..1000, bit in 0u8..8) {
            let mut bytes = header(3, 100).encode(IDENTITY);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), Err(HeaderError::Torn));
        }

        #[test]
        fn noise_is_never_a_header(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), magic: bool, fix: bool) {
            if magic && bytes.len() >= FIXED_BYTES {
                bytes[..8].copy_from_slice(&MAGIC);
                if fix {
                    // A right checksum over wrong fields.
                    let length = bytes.len() as u32;
                    bytes[OFFSET_HEADER_BYTES..OFFSET_HEADER_BYTES + 4].copy_from_slice(&length.to_le_bytes());
                    bytes[OFFSET_CRC32C..FIXED_BYTES].fill(0);
                    let crc = crc32c::crc32c(&bytes);
                    bytes[OFFSET_CRC32C..FIXED_BYTES].copy_from_slice(&crc.to_le_bytes());
                }
            }
            prop_assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn each_error_is_told_apart() {
        let good = header(2, 4);
        let bytes = good.encode(IDENTITY);
        assert_eq!(decode(&[0; 4096]), Err(HeaderError::Empty));
        assert_eq!(decode(&[1; 4096]), Err(HeaderError::Torn));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(HeaderError::Torn));
        let other = Identity {
            store: Uuid::from_u128(8),
            ..IDENTITY
        };
        assert!(matches!(
            decode(&good.encode(other)),
            Err(HeaderError::Foreign { what: "store", .. })
        ));
        assert!(matches!(
            Header::decode(&bytes, IDENTITY, Uuid::from_u128(2), 1000),
            Err(HeaderError::Foreign {
                what: "replica",
                ..
            })
        ));
        let twice = Header {
            content: Content {
                members: vec![Uuid::from_u128(1); 2],
                ..good.content.clone()
            },
            ..good.clone()
        };
        assert_eq!(
            decode(&twice.encode(IDENTITY)),
            Err(HeaderError::Invalid { field: "members" })
        );
        let unclaimed = Header { claim: 2, ..good };
        assert_eq!(
            decode(&unclaimed.encode(IDENTITY)),
            Err(HeaderError::Invalid { field: "claim" })
        );
    }
}
