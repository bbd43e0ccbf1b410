//! How long PERSISTENT RESERVE OUT takes, beside the plain writes and flushes that durability needs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::load::Subject;
use super::session::{Pattern, Session};

const PAGE_BYTES: usize = 4096;
/// Write Exclusive, Registrants Only (SPC-4 5.12.3).
const TYPE: u8 = 5;

/// The service actions that are timed, by name and code (SPC-4 6.14.2).
pub const ACTIONS: [(&str, u8); 4] = [
    ("REGISTER", 0),
    ("PREEMPT", 4),
    ("RELEASE", 2),
    ("RESERVE", 1),
];

/// Two nexuses that take a reservation from each other in turn.
#[derive(Debug)]
pub struct Duel {
    holder: (Session, u64),
    other: (Session, u64),
}

impl Duel {
    /// Logs in twice, and registers and reserves with one of them.
    ///
    /// # Errors
    /// When the target refuses.
    pub fn start(subject: &Subject) -> Result<Self> {
        let login = |index| {
            let pattern = Pattern {
                write: false,
                length_bytes: 4096,
                random: false,
                depth: 1,
                span_bytes: 1 << 20,
            };
            Session::login(subject.portal, &subject.name, subject.lun, index, pattern)
        };
        let mut duel = Self {
            holder: (login(1)?, 0xa1),
            other: (login(2)?, 0xb2),
        };
        let (session, key) = &mut duel.holder;
        reserve_out(session, 0, 0, *key)?;
        reserve_out(session, 1, *key, 0)?;
        Ok(duel)
    }

    /// One round: the other nexus registers, preempts, releases and reserves. The times are in the order of
    /// [`ACTIONS`].
    ///
    /// # Errors
    /// When the target refuses.
    pub fn round(&mut self) -> Result<[Duration; 4]> {
        let (holder, holder_key) = &mut self.holder;
        let (session, key) = &mut self.other;
        let register = reserve_out(session, ACTIONS[0].1, 0, *key)?;
        let preempt = reserve_out(session, ACTIONS[1].1, *key, *holder_key)?;
        let release = reserve_out(session, ACTIONS[2].1, *key, 0)?;
        let reserve = reserve_out(session, ACTIONS[3].1, *key, 0)?;
        holder.take_attentions()?;
        std::mem::swap(&mut self.holder, &mut self.other);
        Ok([register, preempt, release, reserve])
    }

    /// Gives up reservation and registration, so that other sessions may write again.
    ///
    /// # Errors
    /// When the target refuses.
    pub fn end(mut self) -> Result<()> {
        let (session, key) = &mut self.holder;
        reserve_out(session, 3, *key, 0).map(drop)
    }
}

fn reserve_out(session: &mut Session, action: u8, key: u64, action_key: u64) -> Result<Duration> {
    let cdb = [0x5f, action, TYPE, 0, 0, 0, 0, 0, 24, 0];
    let mut list = [0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&action_key.to_be_bytes());
    let start = Instant::now();
    let status = session.command(&cdb, &list)?;
    let time = start.elapsed();
    ensure!(
        status == 0,
        "PERSISTENT RESERVE OUT with service action {action} ended with status {status:#04x}"
    );
    Ok(time)
}

/// The yardstick: a page written to a file on the same file system and made durable.
#[derive(Debug)]
pub struct PlainPair {
    file: File,
    turn: u64,
}

impl PlainPair {
    const PAGES: u64 = 16;

    /// A file whose blocks are allocated.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        let file = File::create(folder.join("plain.img"))?;
        for page in 0..Self::PAGES {
            file.write_all_at(&[1; PAGE_BYTES], page * PAGE_BYTES as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, turn: 0 })
    }

    /// One write and fdatasync.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn time(&mut self) -> Result<Duration> {
        self.turn += 1;
        let offset = self.turn % Self::PAGES * PAGE_BYTES as u64;
        let start = Instant::now();
        self.file
            .write_all_at(&[self.turn.to_le_bytes()[0]; PAGE_BYTES], offset)?;
        self.file.sync_data()?;
        Ok(start.elapsed())
    }
}
