//! Appending to the event log.
//!
//! One thread owns the file. Events come over a channel, so that a reactor never waits for the log; a batch of
//! them is written with one call and, if one of them is a fencing event, made durable with one fdatasync. The
//! truth about keys is the private region, which is durable before the command is answered; the log follows it.
//!
//! The log rotates at [`Limits::file_bytes`]: `events.jsonl` becomes `events.jsonl.1`, that `.2` and so on, and
//! the oldest is removed. A torn last line, left by a crash, is ended at start, and readers skip it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use super::{Event, LOG_NAME, What};

/// How large the log may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A file is rotated before it grows past this size in bytes.
    pub file_bytes: u64,
    /// How many rotated files are kept.
    pub rotated_files: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            rotated_files: 8,
        }
    }
}

/// The path of the `n`th rotated file (from 1), or of the current one (0).
pub fn rotated_path(directory: &Path, n: u32) -> PathBuf {
    match n {
        0 => directory.join(LOG_NAME),
        n => directory.join(format!("{LOG_NAME}.{n}")),
    }
}

/// The file end of the log: what the thread of [`EventLog`] owns.
#[derive(Debug)]
pub struct LogFile {
    directory: PathBuf,
    limits: Limits,
    file: File,
    length_bytes: u64,
    next_sequence: u64,
}

impl LogFile {
    /// Opens the log of `directory`, creating it with mode 0600, and ends a torn last line.
    pub fn open(directory: &Path, limits: Limits) -> io::Result<Self> {
        let mut file = open_append(&rotated_path(directory, 0))?;
        let mut length_bytes = file.metadata()?.len();
        if length_bytes > 0 {
            let mut last = [0_u8];
            file.seek(SeekFrom::Start(length_bytes - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                length_bytes += 1;
            }
        }
        let last = super::reader::last_sequence(directory, limits.rotated_files)?;
        Ok(Self {
            directory: directory.to_owned(),
            limits,
            file,
            length_bytes,
            next_sequence: last + 1,
        })
    }

    /// Appends events with the next sequence numbers, in one write a file; durable before the return if one of
    /// them is a fencing event.
    pub fn append(
        &mut self,
        events: impl IntoIterator<Item = (Timestamp, What)>,
    ) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut durable = false;
        for (time, what) in events {
            durable |= what.is_fencing();
            let event = Event {
                sequence: self.next_sequence,
                time,
                what,
            };
            self.next_sequence += 1;
            let start = batch.len();
            serde_json::to_writer(&mut batch, &event)?;
            batch.push(b'\n');
            let used = self.length_bytes + batch.len() as u64;
            if used > self.limits.file_bytes && self.length_bytes + start as u64 > 0 {
                let line = batch.split_off(start);
                self.write(&batch)?;
                self.rotate()?;
                batch = line;
            }
        }
        self.write(&batch)?;
        if durable {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(batch) {
            // Part of it may be there: end that line, so that the next event has its own.
            let _ = self.file.write_all(b"\n");
            self.length_bytes = self.file.metadata()?.len();
            return Err(error);
        }
        self.length_bytes += batch.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        for n in (0..self.limits.rotated_files).rev() {
            let from = rotated_path(&self.directory, n);
            match std::fs::rename(&from, rotated_path(&self.directory, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.limits.rotated_files == 0 {
            std::fs::remove_file(rotated_path(&self.directory, 0))?;
        }
        self.file = open_append(&rotated_path(&self.directory, 0))?;
        self.length_bytes = 0;
        File::open(&self.directory)?.sync_all()
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

enum Message {
    Event(Timestamp, Box<What>),
    Barrier(Sender<()>),
    Stop,
}

/// Tells followers that there is something new, and whether there will be more.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<(u64, bool)>,
    rung: Condvar,
}

/// A handle to the running log. Cloning is cheap; any thread may record.
#[derive(Clone, Debug)]
pub struct EventLog {
    sender: Sender<Message>,
    bell: Arc<Bell>,
    directory: PathBuf,
    limits: Limits,
}

/// Ends the thread of the log when told to.
#[derive(Debug)]
pub struct EventLogThread {
    sender: Sender<Message>,
    thread: JoinHandle<()>,
}

impl EventLog {
    /// Opens the log of `directory` and starts its thread.
    pub fn start(directory: &Path, limits: Limits) -> io::Result<(Self, EventLogThread)> {
        let file = LogFile::open(directory, limits)?;
        let (sender, receiver) = channel();
        let bell = Arc::new(Bell::default());
        let ring = Arc::clone(&bell);
        let thread = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || write_events(file, &receiver, &ring))?;
        let log = Self {
            sender: sender.clone(),
            bell,
            directory: directory.to_owned(),
            limits,
        };
        Ok((log, EventLogThread { sender, thread }))
    }

    /// Records that `what` happened now. Never blocks.
    pub fn record(&self, what: What) {
        // It fails only after the log was stopped, at the very end of the daemon.
        if let Err(error) = self
            .sender
            .send(Message::Event(Timestamp::now(), Box::new(what)))
            && let Message::Event(_, what) = error.0
        {
            tracing::warn!(?what, "an event came after the event log was closed");
        }
    }

    /// Waits until everything recorded before is in the file.
    pub fn settle(&self) {
        let (done, wait) = channel();
        if self.sender.send(Message::Barrier(done)).is_ok() {
            // An error means that the log was stopped, and it stops with everything written.
            let _ = wait.recv();
        }
    }

    /// The directory of the log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How often the log was written so far: the argument of [`EventLog::wait`].
    pub fn written(&self) -> u64 {
        lock(&self.bell).0
    }

    /// Waits until the log was written more than `seen` times, for at most `patience`. False when the log was
    /// stopped and nothing more will come.
    pub fn wait(&self, seen: u64, patience: Duration) -> bool {
        let guard = lock(&self.bell);
        let (guard, _) = self
            .bell
            .rung
            .wait_timeout_while(guard, patience, |state| state.0 <= seen && !state.1)
            .unwrap_or_else(PoisonError::into_inner);
        !guard.1
    }
}

impl EventLogThread {
    /// Writes what was recorded before, makes it durable, and ends the thread.
    pub fn stop(self) {
        // If the thread is gone there is nothing to stop.
        let _ = self.sender.send(Message::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the event log thread panicked");
        }
    }
}

fn lock(bell: &Bell) -> std::sync::MutexGuard<'_, (u64, bool)> {
    // The state is two words that are always valid.
    bell.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_events(mut file: LogFile, receiver: &Receiver<Message>, bell: &Bell) {
    let mut stop = false;
    while !stop {
        let mut events = Vec::new();
        let mut barriers = Vec::new();
        let Ok(first) = receiver.recv() else { break };
        for message in std::iter::once(first).chain(receiver.try_iter()) {
            match message {
                Message::Event(time, what) => events.push((time, *what)),
                Message::Barrier(done) => barriers.push(done),
                Message::Stop => stop = true,
            }
        }
        if let Err(error) = file.append(events) {
            // The daemon goes on: to stop serving because the log is full would turn it into an outage. The
            // hole in the sequence numbers shows that something is missing.
            tracing::error!(%error, "events could not be written to the event log");
        }
        lock(bell).0 += 1;
        bell.rung.notify_all();
        for done in barriers {
            // Who asked may have gone.
            let _ = done.send(());
        }
    }
    if let Err(error) = file.file.sync_data() {
        tracing::error!(%error, "the event log could not be made durable");
    }
    lock(bell).1 = true;
    bell.rung.notify_all();
}
