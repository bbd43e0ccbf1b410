//! Keeps `docs/on-disk-format.md` true to the code: every offset in its tables is looked up here.

use crate::config::envelope;
use crate::page_store::{Geometry, header};
use crate::pool::quorum;
use crate::private_region::{commit_record, slot};
use crate::volume::regions::log_page;
use crate::volume::{PLEX_LOG_BYTES, atomic_write};
use crate::{label, private_region};

const DOC: &str = include_str!("../../../docs/on-disk-format.md");

/// The offsets of the table below `heading`, with the first words of each field.
fn table(heading: &str) -> Vec<(String, String)> {
    let start = DOC.find(&format!("\n{heading}\n")).unwrap();
    let after = start + heading.len() + 2;
    let end = DOC[after..].find("\n#").map_or(DOC.len(), |at| after + at);
    DOC[after..end]
        .lines()
        .skip_while(|line| !line.starts_with("| offset"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1].to_owned(), cells[3].to_owned())
        })
        .collect()
}

fn check(heading: &str, fields: &[(usize, &str)]) {
    let rows = table(heading);
    for (offset, field) in fields {
        assert!(
            rows.iter()
                .any(|(at, text)| *at == offset.to_string() && text.starts_with(field)),
            "{heading}: no row for {field} at {offset} in {rows:?}"
        );
    }
    let numbered = rows.iter().filter(|(at, _)| at.parse::<u64>().is_ok());
    assert_eq!(
        numbered.count(),
        fields.len(),
        "{heading}: every row is checked"
    );
}

#[test]
fn the_page_tells_the_offsets_of_the_code() {
    check(
        "## Quorum region",
        &[
            (quorum::OFFSET_LENGTH, "bytes of the content"),
            (quorum::OFFSET_CONTENT, "content"),
        ],
    );
    check(
        "### Label",
        &[
            (0, "magic `RINGFLB\\0`"),
            (label::OFFSET_VERSION, "version"),
            (label::OFFSET_NAME_LENGTH, "length of the name"),
            (label::OFFSET_POOL, "pool UUID"),
            (label::OFFSET_DEVICE, "device UUID"),
            (label::OFFSET_SEQUENCE, "sequence"),
            (label::OFFSET_SIZE, "size"),
            (label::OFFSET_AREAS, "configuration offset"),
            (label::OFFSET_NAME, "name"),
            (label::OFFSET_CRC32C, "CRC32C"),
        ],
    );
    check(
        "### Header",
        &[
            (0, "magic `RINGFPS\\0`"),
            (header::OFFSET_VERSION, "version"),
            (header::OFFSET_HEADER_BYTES, "length"),
            (header::OFFSET_STORE, "store UUID"),
            (header::OFFSET_KIND, "kind"),
            (header::OFFSET_PAGE_COUNT, "p, entries"),
            (header::OFFSET_EPOCH, "epoch"),
            (header::OFFSET_SEQUENCE, "sequence"),
            (header::OFFSET_CLAIM, "claim"),
            (header::OFFSET_WRITER, "writer"),
            (header::OFFSET_REPLICA, "replica"),
            (header::OFFSET_MEMBER_COUNT, "m, members"),
            (header::OFFSET_RECORD, "commit record"),
            (header::OFFSET_CRC32C, "CRC32C"),
            (header::FIXED_BYTES, "members"),
        ],
    );
    check(
        "## Configuration",
        &[
            (0, "magic `RFCR`"),
            (envelope::OFFSET_VERSION, "version"),
            (envelope::OFFSET_KIND, "kind"),
            (envelope::OFFSET_RECORD, "record UUID"),
            (envelope::OFFSET_PART, "part, "),
            (envelope::OFFSET_PARTS, "parts"),
            (envelope::OFFSET_LENGTH, "bytes of the record in this page"),
            (envelope::OFFSET_TOTAL, "bytes of the record in all"),
            (envelope::OFFSET_PAYLOAD, "payload"),
        ],
    );
    check(
        "### Commit record",
        &[
            (0, "version"),
            (commit_record::OFFSET_GENERATION, "generation"),
            (commit_record::OFFSET_FLAGS, "flags"),
            (commit_record::OFFSET_TYPE, "reservation type"),
            (commit_record::OFFSET_HOLDER, "slot of the holder"),
            (commit_record::OFFSET_BOOT, "boot id"),
            (commit_record::OFFSET_COUNT, "number of registrants"),
            (commit_record::OFFSET_SLOTS, "slot map"),
        ],
    );
    check(
        "### Slot",
        &[
            (0, "magic `RFSL`"),
            (slot::OFFSET_VERSION, "version"),
            (slot::OFFSET_FLAGS, "flags"),
            (slot::OFFSET_NAME_LENGTH, "length of the name"),
            (slot::OFFSET_KEY, "key"),
            (slot::OFFSET_ISID, "ISID"),
            (slot::OFFSET_TARGET_PORT, "relative target port"),
            (slot::OFFSET_SLOT, "number of this slot"),
            (slot::OFFSET_CRC32C, "CRC32C"),
            (slot::OFFSET_VOLUME, "volume UUID"),
            (slot::OFFSET_NAME, "initiator name"),
        ],
    );
    check(
        "## Intents of atomic writes",
        &[
            (0, "magic `RINGFAW\\0`"),
            (atomic_write::OFFSET_VERSION, "version"),
            (atomic_write::OFFSET_DATA_CRC32C, "CRC32C of the data"),
            (atomic_write::OFFSET_VOLUME, "volume UUID"),
            (atomic_write::OFFSET_OFFSET, "offset"),
            (atomic_write::OFFSET_LENGTH, "length"),
            (atomic_write::OFFSET_CRC32C, "CRC32C"),
            (atomic_write::HEADER_BYTES, "data"),
        ],
    );
    check(
        "## Region log",
        &[
            (0, "magic `RFRL`"),
            (log_page::OFFSET_VERSION, "version"),
            (log_page::OFFSET_KIND, "kind"),
            (log_page::OFFSET_SECTOR, "number n of the sector"),
            (log_page::OFFSET_SEQUENCE, "sequence"),
            (log_page::OFFSET_VOLUME, "volume UUID"),
            (log_page::OFFSET_PLEX, "plex UUID"),
            (log_page::OFFSET_COUNT, "number of regions"),
            (log_page::OFFSET_REGION_SHIFT, "binary logarithm"),
            (log_page::OFFSET_REGIONS_SET, "bitmap"),
            (log_page::OFFSET_CRC32C, "CRC32C"),
        ],
    );
}

#[test]
fn the_page_tells_the_sizes_of_the_code() {
    use crate::allocator::PRIVATE_UNIT_BYTES;
    let round = |bytes: u64| bytes.div_ceil(PRIVATE_UNIT_BYTES) * PRIVATE_UNIT_BYTES;
    assert_eq!(round(private_region::MIN_REGION_BYTES), 1088 << 10);
    assert_eq!(private_region::REGISTRANT_CAPACITY, 1024);
    assert_eq!(
        (atomic_write::LANES, atomic_write::LANE_BYTES),
        (4, 132 << 10)
    );
    assert_eq!(PLEX_LOG_BYTES, 640 << 10);
    assert_eq!(log_page::LOG_OFFSET, 528 << 10);
    assert_eq!((log_page::PAGES, log_page::PAGE_BYTES), (9, 4096));
    assert_eq!(
        (log_page::SECTOR_REGIONS, log_page::MAX_REGIONS),
        (3616, 28_928)
    );
    assert_eq!(label::COPY_OFFSETS_BYTES, [0, 64 << 10]);
    assert_eq!(
        header::FIXED_BYTES + header::MAX_MEMBERS * header::MEMBER_BYTES,
        2560
    );
    let keys = Geometry::of(1088 << 10).unwrap();
    assert_eq!(keys.header_copy_bytes, 4096, "a PREEMPT writes one page");
}
