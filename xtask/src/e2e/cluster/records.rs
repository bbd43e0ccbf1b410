//! The records that `xtask/vm/cluster/rf-records` writes, and what they prove.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::lab::Cluster;

/// Size of a volume for records: the area of the witnesses, then one for each guest.
pub const VOLUME_MIB: u32 = 8;
const RECORD_BYTES: usize = 4096;
const AREA_BYTES: usize = 2 << 20;
const SLOTS: u64 = (AREA_BYTES / RECORD_BYTES) as u64;
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = 28;
const PROGRAM: &str = include_str!("../../../vm/cluster/rf-records");

/// What a writer says of itself; each list has an entry for each disk.
#[derive(Debug, Clone)]
pub struct Status {
    /// The last sequence number that was acknowledged.
    pub acknowledged: Vec<u64>,
    /// How many writes were refused.
    pub refused: Vec<u64>,
    /// What the last refused one was told.
    pub errors: Vec<String>,
}

/// What a witness saw of a node, right after it learned that the node was fenced; each list has an entry for each disk.
#[derive(Debug, Clone)]
pub struct Seen {
    /// SHA-256 of the node's area.
    pub sha256: Vec<String>,
    /// The highest sequence number in it.
    pub last: Vec<u64>,
}

/// Puts the program into a guest and starts a witness there.
///
/// # Errors
/// When the guest is gone.
pub fn start_witness(cluster: &mut Cluster, index: usize) -> Result<()> {
    let paths = record_paths(cluster);
    let guest = &mut cluster.guests[index];
    guest.put("/usr/sbin/rf-records", "755", PROGRAM)?;
    guest.ok(&format!(
        "mkfifo -m 666 /run/rf-fenced; chmod 666 /run/rf-fenced; touch /run/rf-seen; \
         setsid rf-records witness {} /run/rf-fenced /run/rf-seen {paths} >/run/rf-witness.log 2>&1 </dev/null &",
        index + 1
    ))
    .map(drop)
}

/// Starts the writer of a guest.
///
/// # Errors
/// When it has written nothing after a while.
pub fn start_writer(cluster: &mut Cluster, index: usize) -> Result<()> {
    let paths = record_paths(cluster);
    let guest = &mut cluster.guests[index];
    guest.ok(&format!(
        "rm -f /run/rf-status; \
         setsid rf-records write {} /run/rf-status {paths} >/run/rf-writer.log 2>&1 </dev/null &",
        index + 1
    ))?;
    guest.wait_until("[ -s /run/rf-status ]", 20, "cat /run/rf-writer.log")
}

fn record_paths(cluster: &Cluster) -> String {
    let disks = cluster.record_disks();
    let paths: Vec<&str> = disks.iter().map(|disk| disk.path.as_str()).collect();
    paths.join(" ")
}

/// What the writer of a guest says now.
///
/// # Errors
/// When the guest is gone or the writer has ended.
pub fn status(cluster: &mut Cluster, index: usize) -> Result<Status> {
    let text = cluster.guests[index]
        .ok("pgrep -f 'rf-records write' >/dev/null || { cat /run/rf-writer.log; exit 1; }; cat /run/rf-status")?;
    parse_status(&text)
}

/// Ends the writer of a guest; returns what it said last.
///
/// # Errors
/// When the guest is gone or there is no writer.
pub fn stop_writer(cluster: &mut Cluster, index: usize) -> Result<Status> {
    let guest = &mut cluster.guests[index];
    guest.ok("pkill -f 'rf-records write'")?;
    guest.wait_until("! pgrep -f 'rf-records write' >/dev/null", 20, "ps ax")?;
    parse_status(&guest.ok("cat /run/rf-status")?)
}

fn parse_status(text: &str) -> Result<Status> {
    let value: Value = serde_json::from_str(text).with_context(|| text.to_owned())?;
    let numbers = |name: &str| -> Result<Vec<u64>> {
        let list = value[name].as_array().context("a list")?;
        list.iter()
            .map(|number| number.as_u64().context("a number"))
            .collect()
    };
    let errors = value["errors"].as_array().context("a list")?;
    Ok(Status {
        acknowledged: numbers("acknowledged")?,
        refused: numbers("refused")?,
        errors: errors.iter().map(ToString::to_string).collect(),
    })
}

/// What the witness in a guest saw of a node, once it has; the last time if there were several.
///
/// # Errors
/// When the guest or the witness is gone.
pub fn seen(cluster: &mut Cluster, index: usize, loser: &str) -> Result<Option<Seen>> {
    let text = cluster.guests[index]
        .ok("pgrep -f 'rf-records witness' >/dev/null || { cat /run/rf-witness.log; exit 1; }; cat /run/rf-seen")?;
    let mut found = None;
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if value["loser"] != loser {
            continue;
        }
        let sums = value["sha256"].as_array().context("a list")?;
        let last = value["last"].as_array().context("a list")?;
        found = Some(Seen {
            sha256: sums
                .iter()
                .filter_map(|sum| sum.as_str().map(str::to_owned))
                .collect(),
            last: last.iter().filter_map(Value::as_u64).collect(),
        });
    }
    Ok(found)
}

/// A node's area of a volume.
pub fn area(volume: &[u8], node: usize) -> &[u8] {
    &volume[node * AREA_BYTES..][..AREA_BYTES]
}

/// Where it is, in bytes.
pub fn area_range(node: usize) -> Range<u64> {
    let start = (node * AREA_BYTES) as u64;
    start..start + AREA_BYTES as u64
}

/// Checks that an area has the last records of its node and nothing else: each whole, in its place, and without a gap.
/// Returns the highest sequence number.
///
/// # Errors
/// When a record is torn, of somebody else, or in a wrong place; or one is missing.
pub fn check_area(area: &[u8], node: usize) -> Result<u64> {
    let mut sequences = Vec::new();
    for (slot, record) in area.chunks_exact(RECORD_BYTES).enumerate() {
        if record.iter().all(|&byte| byte == 0) {
            continue;
        }
        let sequence =
            decode(record, node).with_context(|| format!("slot {slot} of node {node}"))?;
        ensure!(
            sequence % SLOTS == slot as u64,
            "record {sequence} of node {node} is in slot {slot}"
        );
        sequences.push(sequence);
    }
    sequences.sort_unstable();
    let last = sequences.last().copied().unwrap_or(0);
    ensure!(
        sequences.len() as u64 == last.min(SLOTS)
            && sequences.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "records of node {node} are missing: {} are there, the last is {last}",
        sequences.len()
    );
    Ok(last)
}

fn decode(record: &[u8], node: usize) -> Result<u64> {
    let (body, sum) = record.split_at(RECORD_BYTES - HASH_BYTES);
    if Sha256::digest(body).as_slice() != sum {
        bail!("the checksum is wrong");
    }
    let header: &[u8; HEADER_BYTES] = body.first_chunk().context("a header")?;
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
    ensure!(&header[..8] == b"RFRECORD", "no magic");
    ensure!(word(8) as usize == node, "a record of node {}", word(8));
    ensure!(word(12) == 0, "a record of kind {}", word(12));
    Ok(u64::from(word(16)) | u64::from(word(20)) << 32)
}

/// The sum that the witnesses give, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(node: u32, sequence: u64) -> Vec<u8> {
        let mut record = b"RFRECORD".to_vec();
        record.extend(node.to_le_bytes());
        record.extend(0_u32.to_le_bytes());
        record.extend(sequence.to_le_bytes());
        record.resize(RECORD_BYTES - HASH_BYTES, 0);
        let sum = Sha256::digest(&record);
        record.extend_from_slice(&sum);
        record
    }

    fn area_of(node: u32, sequences: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut area = vec![0; AREA_BYTES];
        for sequence in sequences {
            let at = (sequence % SLOTS) as usize * RECORD_BYTES;
            area[at..at + RECORD_BYTES].copy_from_slice(&record(node, sequence));
        }
        area
    }

    #[test]
    fn whole_areas_pass() -> Result<()> {
        assert_eq!(check_area(&area_of(2, 0..0), 2)?, 0);
        assert_eq!(check_area(&area_of(2, 1..4), 2)?, 3);
        assert_eq!(check_area(&area_of(2, 1..1300), 2)?, 1299);
        Ok(())
    }

    #[test]
    fn what_is_torn_missing_or_of_another_is_found() {
        let mut torn = area_of(2, 1..1300);
        torn[RECORD_BYTES * 7 + 2000] ^= 1;
        assert!(check_area(&torn, 2).is_err());
        assert!(check_area(&area_of(2, 1..100), 1).is_err());
        assert!(check_area(&area_of(2, (1..100).filter(|n| *n != 50)), 2).is_err());
        // An old record where a newer one was acknowledged.
        let mut stale = area_of(2, 1..1300);
        let at = (1000 % SLOTS) as usize * RECORD_BYTES;
        stale[at..at + RECORD_BYTES].copy_from_slice(&record(2, 1000 - SLOTS));
        assert!(check_area(&stale, 2).is_err());
    }
}
