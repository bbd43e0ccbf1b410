//! How long a fence takes, beside what the device needs for making anything durable.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::load::{Place, identity};
use super::number;
use crate::e2e::wire::Session;
use crate::targets::Target;

const KEY_A: u64 = 0xa1;
const KEY_B: u64 = 0xb2;
const REGISTER: u8 = 0;
const PREEMPT: u8 = 4;
const REGISTER_AND_IGNORE: u8 = 6;
/// A commit that changes a registrant's slot writes and flushes twice: the slot's page, then the header.
const PAIRS_PER_COMMIT: f64 = 2.0;

/// PREEMPT of another registrant, on each target, and write plus fdatasync on a file beside theirs.
///
/// # Errors
/// When a command fails.
pub fn report(
    report: &mut String,
    folder: &Path,
    targets: &[(&str, Box<dyn Target>)],
    places: &[Place],
    quick: bool,
) -> Result<()> {
    let rounds = if quick { 50 } else { 300 };
    let pair = median_ms(&mut sync_pairs(&folder.join("fdatasync"), rounds)?);
    writeln!(
        report,
        "| fencing, median of {rounds} | ms | against the write + fdatasync pairs it needs |"
    )?;
    writeln!(report, "| --- | ---: | ---: |")?;
    writeln!(
        report,
        "| write of 4 KiB + fdatasync, same file system | {pair:.3} | |"
    )?;
    for ((name, _), place) in targets.iter().zip(places) {
        let preempt = median_ms(&mut preempts(place, rounds)?);
        // tgt keeps its registrations in memory.
        let against = (*name == "ringfence").then_some(preempt / (pair * PAIRS_PER_COMMIT));
        writeln!(
            report,
            "| PREEMPT, {name} | {preempt:.3} | {} |",
            number(against, 2)
        )?;
    }
    writeln!(report)?;
    Ok(())
}

fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn sync_pairs(path: &Path, rounds: u32) -> Result<Vec<Duration>> {
    let file = File::create(path)?;
    let page = [0x5a; 4096];
    // In place, as a private region is: the file's size does not change.
    file.write_all_at(&[0; 65_536], 0)?;
    file.sync_all()?;
    (0..rounds)
        .map(|round| {
            let start = Instant::now();
            file.write_all_at(&page, u64::from(round % 16) * 4096)?;
            file.sync_data()?;
            Ok(start.elapsed())
        })
        .collect()
}

fn preempts(place: &Place, rounds: u32) -> Result<Vec<Duration>> {
    let mut a = Session::login(place.portal, &identity(100), &place.target)?;
    let mut b = Session::login(place.portal, &identity(101), &place.target)?;
    a.clear_attentions(place.lun)?;
    b.clear_attentions(place.lun)?;
    reserve_out(&mut a, place.lun, REGISTER_AND_IGNORE, 0, KEY_A)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        reserve_out(&mut b, place.lun, REGISTER_AND_IGNORE, 0, KEY_B)?;
        let start = Instant::now();
        reserve_out(&mut a, place.lun, PREEMPT, KEY_A, KEY_B)?;
        times.push(start.elapsed());
        b.clear_attentions(place.lun)?;
    }
    reserve_out(&mut a, place.lun, REGISTER, KEY_A, 0)?;
    Ok(times)
}

fn reserve_out(
    session: &mut Session,
    lun: u16,
    action: u8,
    key: u64,
    action_key: u64,
) -> Result<()> {
    let mut list = [0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&action_key.to_be_bytes());
    let reply = session.command(lun, &[0x5f, action, 5, 0, 0, 0, 0, 0, 24, 0], &list, 0)?;
    ensure!(
        reply.status == 0,
        "PERSISTENT RESERVE OUT {action:#04x} ends with {reply:?}"
    );
    Ok(())
}
