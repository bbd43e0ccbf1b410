//! A client that writes numbered blocks, reads them back all the time, and knows what every block may hold: through
//! restarts of the daemon, too.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use initiator::{Command, CommandError, Completion, Config, Error, Session};
use scsi::Lun;
use scsi::cdb::{Cdb, SynchronizeCache, Transfer, TransferSize, Unmap};
use scsi::sense::SenseKey;
use scsi::unmap::UnmapBlockDescriptor;

use super::ledger::{Allowed, BLOCK_BYTES, Ledger};
use crate::random::Random;

const DEPTH: usize = 6;
/// The most blocks of one command.
const BLOCKS_MOST: usize = 24;
/// Detaching a device that hangs may pause I/O for some seconds; nothing may take as long as this.
const PATIENCE: Duration = Duration::from_secs(90);
/// Blocks read at a time by [`Client::verify`].
const VERIFY_BLOCKS: usize = 64;

/// Which volume, and as whom.
#[derive(Debug, Clone)]
pub struct Address {
    /// Where to log in.
    pub portal: SocketAddr,
    /// iSCSI name of the target.
    pub target: String,
    /// The volume.
    pub lun: u16,
    /// Logical block size of the volume in bytes.
    pub block_size_bytes: u32,
    /// iSCSI name of this client.
    pub initiator: String,
}

impl Address {
    /// Logs in and takes the unit attentions.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub fn log_in(&self) -> Result<Session, Error> {
        let mut session = self.connect()?;
        session.clear_unit_attentions(self.unit())?;
        Ok(session)
    }

    /// Logs in and sends no command.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub fn connect(&self) -> Result<Session, Error> {
        let kind = iscsi::initiator::Session::Normal {
            target_name: self.target.clone(),
        };
        let config = Config::new(&self.initiator, [0x80, 0, 0, 0, 0, 7], kind);
        let mut session = Session::connect(self.portal, config)?;
        session.set_timeout(PATIENCE);
        Ok(session)
    }

    /// The volume as LUN.
    pub fn unit(&self) -> Lun {
        Lun::new(self.lun).unwrap_or_default()
    }
}

/// What was done and seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// Commands answered with GOOD.
    pub commands: u64,
    /// Times the capacity was told to have changed.
    pub capacity_changes: u64,
    /// The longest time that a command took.
    pub longest: Duration,
}

/// The client, and what it knows of the volume.
#[derive(Debug)]
pub struct Client {
    address: Address,
    ledger: Ledger,
    random: Random,
    work: Work,
    pace: Duration,
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// The connection broke.
    ConnectionLost,
}

#[derive(Debug)]
enum Kind {
    Write,
    Zero,
    Read(Vec<Allowed>),
    Flush,
}

#[derive(Debug)]
struct Outstanding {
    kind: Kind,
    first: usize,
    count: usize,
    since: Instant,
}

impl Client {
    /// A client of a volume of zeroes that nobody else writes to.
    pub fn new(address: Address, size_bytes: u64, seed: u64) -> Self {
        Self {
            address,
            ledger: Ledger::new(seed, size_bytes),
            random: Random::new(seed),
            work: Work::default(),
            pace: Duration::ZERO,
        }
    }

    /// Waits so long after each command.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Where it logs in from now on: the volume may have moved to another daemon.
    pub fn redirect(&mut self, portal: SocketAddr, target: &str, lun: u16) {
        self.address.portal = portal;
        self.address.target = target.into();
        self.address.lun = lun;
    }

    /// Where it logs in.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Writes every block once.
    ///
    /// # Errors
    /// When a write ends with anything but GOOD.
    pub fn fill(&mut self) -> Result<()> {
        let mut session = self.address.log_in()?;
        let mut first = 0;
        while first < self.ledger.len() {
            let count = VERIFY_BLOCKS.min(self.ledger.len() - first);
            let data = self.ledger.begin_write(first, count);
            session
                .write(
                    self.address.unit(),
                    self.lba(first),
                    data.into(),
                    self.address.block_size_bytes,
                    false,
                )
                .with_context(|| format!("filling block {first}"))?;
            self.ledger.acknowledge(first, count);
            first += count;
        }
        self.work.commands += 1;
        session.synchronize_cache(self.address.unit())?;
        session.logout()?;
        Ok(())
    }

    /// Reads every block, twice: so that both copies of a mirror are likely asked, and because what was read once has
    /// to be read again.
    ///
    /// # Errors
    /// When a block holds what it may not, or a read fails.
    pub fn verify(&mut self) -> Result<()> {
        let mut session = self.log_in().context("logging in to verify")?;
        for round in 1..=2 {
            let mut first = 0;
            while first < self.ledger.len() {
                let count = VERIFY_BLOCKS.min(self.ledger.len() - first);
                let allowed = self.ledger.begin_read(first, count);
                let blocks = u32::try_from(count * self.lbas_each())?;
                let data = session
                    .read(
                        self.address.unit(),
                        self.lba(first),
                        blocks,
                        self.address.block_size_bytes,
                    )
                    .with_context(|| format!("reading {count} blocks from {first} on"))?;
                for (index, allowed) in allowed.iter().enumerate() {
                    let bytes = &data[index * BLOCK_BYTES..][..BLOCK_BYTES];
                    self.ledger
                        .observe(first + index, bytes, allowed)
                        .with_context(|| format!("pass {round} of reading everything"))?;
                }
                first += count;
            }
        }
        session.logout()?;
        Ok(())
    }

    /// Reads, writes, unmaps and flushes at random until told to stop or the connection breaks. `logged_in` is called when
    /// commands are about to be sent.
    ///
    /// # Errors
    /// When a command ends otherwise than with GOOD, takes longer than any pause may, or a read gives what it may not.
    fn run(&mut self, stop: &AtomicBool, logged_in: impl FnOnce()) -> Result<Ended> {
        let mut outstanding = HashMap::new();
        let result = self.session(stop, &mut outstanding, logged_in);
        self.ledger.lose_connection();
        match result {
            Ok(()) => Ok(Ended::Stopped),
            Err(error) => match error.downcast_ref::<Error>() {
                Some(Error::Io(_) | Error::Disconnected | Error::Closed(_)) => {
                    Ok(Ended::ConnectionLost)
                }
                Some(Error::Timeout) => Err(error.context(format!(
                    "a command was not answered within {} s; outstanding: {:?}",
                    PATIENCE.as_secs(),
                    outstanding
                        .values()
                        .map(|o| (o.first, o.count))
                        .collect::<Vec<_>>()
                ))),
                _ => Err(error),
            },
        }
    }

    /// Runs it in a thread of its own; returns when it has logged in, so that it is told of what happens next.
    pub fn spawn(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut client = self;
        let (sender, logged_in) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let ended = client.run(&told, move || drop(sender));
            (client, ended)
        });
        // Nothing is sent: the sender goes when it has logged in, or with the thread.
        let _ = logged_in.recv();
        Running { stop, thread }
    }

    fn session(
        &mut self,
        stop: &AtomicBool,
        outstanding: &mut HashMap<u32, Outstanding>,
        logged_in: impl FnOnce(),
    ) -> Result<()> {
        let mut session = self.log_in()?;
        logged_in();
        while !stop.load(Ordering::Relaxed) {
            while outstanding.len() < DEPTH {
                let (command, entry) = self.choose();
                outstanding.insert(session.submit(command)?, entry);
            }
            self.end_one(&mut session, outstanding)?;
            if !self.pace.is_zero() {
                std::thread::sleep(self.pace);
            }
        }
        while !outstanding.is_empty() {
            self.end_one(&mut session, outstanding)?;
        }
        session.logout()?;
        Ok(())
    }

    /// The volume may have grown while nobody was logged in.
    fn log_in(&mut self) -> Result<Session> {
        let mut session = self.address.log_in()?;
        self.take_capacity(&mut session)?;
        Ok(session)
    }

    fn take_capacity(&mut self, session: &mut Session) -> Result<()> {
        let capacity = session
            .read_capacity(self.address.unit())
            .context("READ CAPACITY")?;
        let blocks = capacity.last_lba.saturating_add(1);
        self.ledger
            .grow(blocks.saturating_mul(u64::from(self.address.block_size_bytes)));
        Ok(())
    }

    fn end_one(
        &mut self,
        session: &mut Session,
        outstanding: &mut HashMap<u32, Outstanding>,
    ) -> Result<()> {
        let completion = session.next_completion()?;
        let entry = outstanding
            .remove(&completion.itt)
            .context("an answer to nothing")?;
        self.work.longest = self.work.longest.max(entry.since.elapsed());
        if let Err(error) = CommandError::check(&completion) {
            return self.refused(session, &entry, error);
        }
        self.work.commands += 1;
        self.ended(&entry, &completion)
    }

    fn ended(&mut self, entry: &Outstanding, completion: &Completion) -> Result<()> {
        match &entry.kind {
            Kind::Write | Kind::Zero => self.ledger.acknowledge(entry.first, entry.count),
            Kind::Flush => {}
            Kind::Read(allowed) => {
                ensure!(
                    completion.data_in.len() == entry.count * BLOCK_BYTES,
                    "a read of {} blocks gave {} bytes",
                    entry.count,
                    completion.data_in.len()
                );
                for (index, allowed) in allowed.iter().enumerate() {
                    let bytes = &completion.data_in[index * BLOCK_BYTES..][..BLOCK_BYTES];
                    self.ledger.observe(entry.first + index, bytes, allowed)?;
                }
            }
        }
        Ok(())
    }

    /// Only a unit attention may keep a command from being executed.
    fn refused(
        &mut self,
        session: &mut Session,
        entry: &Outstanding,
        error: CommandError,
    ) -> Result<()> {
        let Some(sense) = error
            .sense
            .filter(|sense| sense.key == SenseKey::UnitAttention)
        else {
            bail!(
                "an I/O error at the initiator: {:?} of {} blocks from {} on after {} ms: {error}",
                match entry.kind {
                    Kind::Write => "WRITE",
                    Kind::Zero => "UNMAP",
                    Kind::Read(_) => "READ",
                    Kind::Flush => "SYNCHRONIZE CACHE",
                },
                entry.count,
                entry.first,
                entry.since.elapsed().as_millis()
            );
        };
        if matches!(entry.kind, Kind::Write | Kind::Zero) {
            self.ledger.withdraw(entry.first, entry.count);
        }
        if sense.additional == scsi::sense::AdditionalSense::CAPACITY_DATA_HAS_CHANGED {
            self.work.capacity_changes += 1;
            // Answers of the other commands are kept by the session meanwhile.
            self.take_capacity(session)?;
        }
        Ok(())
    }

    fn choose(&mut self) -> (Command, Outstanding) {
        // Half of it in a narrow band, so that blocks are written often and together.
        let reach = if self.random.below(2) == 0 {
            self.ledger.len().min(256)
        } else {
            self.ledger.len()
        };
        let dice = self.random.below(100);
        let mut count = 1 + self.random.below(BLOCKS_MOST.min(reach));
        let mut first = self.random.below(reach - count + 1);
        let writes = dice < 55;
        // Writes of a block are never in flight together: whose it would be afterwards nobody could say.
        let mut tries = 0;
        while writes && !self.ledger.idle(first, count) {
            count = 1 + self.random.below(4.min(self.ledger.len()));
            first = self.random.below(self.ledger.len() - count + 1);
            tries += 1;
            if tries > 64 {
                return self.flush();
            }
        }
        let lba = self.lba(first);
        // A command has at most BLOCKS_MOST of them.
        let length_blocks = u32::try_from(count * self.lbas_each()).unwrap_or(u32::MAX);
        let transfer = Transfer {
            size: TransferSize::Sixteen,
            lba,
            length_blocks,
            dpo: false,
            fua: dice.is_multiple_of(16),
        };
        let (kind, cdb, data_out, data_in) = match dice {
            0..50 => {
                let data = self.ledger.begin_write(first, count);
                (Kind::Write, Cdb::Write(transfer), data, 0)
            }
            50..55 => {
                self.ledger.begin_zero(first, count);
                let list = scsi::unmap::encode(&[UnmapBlockDescriptor { lba, length_blocks }]);
                let unmap = Unmap {
                    anchor: false,
                    // One descriptor.
                    parameter_list_length: u16::try_from(list.len()).unwrap_or(u16::MAX),
                };
                (Kind::Zero, Cdb::Unmap(unmap), list, 0)
            }
            55..97 => {
                let allowed = self.ledger.begin_read(first, count);
                let length = u32::try_from(count * BLOCK_BYTES).unwrap_or(u32::MAX);
                (Kind::Read(allowed), Cdb::Read(transfer), Vec::new(), length)
            }
            _ => return self.flush(),
        };
        let command = self.command(&cdb, data_out.into(), data_in);
        let since = Instant::now();
        (
            command,
            Outstanding {
                kind,
                first,
                count,
                since,
            },
        )
    }

    fn flush(&self) -> (Command, Outstanding) {
        let cdb = Cdb::SynchronizeCache(SynchronizeCache {
            size: TransferSize::Sixteen,
            immediate: false,
            lba: 0,
            length_blocks: 0,
        });
        let entry = Outstanding {
            kind: Kind::Flush,
            first: 0,
            count: 0,
            since: Instant::now(),
        };
        (self.command(&cdb, Bytes::new(), 0), entry)
    }

    fn command(&self, cdb: &Cdb, data_out: Bytes, data_in_length_bytes: u32) -> Command {
        Command {
            lun: self.address.unit().encode(),
            cdb: cdb.encode().to_vec().into(),
            data_out,
            data_in_length_bytes,
            ..Command::default()
        }
    }

    fn lbas_each(&self) -> usize {
        BLOCK_BYTES / self.address.block_size_bytes as usize
    }

    fn lba(&self, block: usize) -> u64 {
        (block * self.lbas_each()) as u64
    }
}

/// A client at work in its thread.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Client, Result<Ended>)>,
}

impl Running {
    /// Whether it has ended by itself: its connection is gone, or it has seen what may not be.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells it to stop, and waits until all its commands are answered.
    ///
    /// # Errors
    /// When it has seen what may not be, or lost its connection.
    pub fn stop(self) -> Result<Client> {
        self.stop.store(true, Ordering::Relaxed);
        let (client, ended) = self.join()?;
        match ended {
            Ended::Stopped => Ok(client),
            Ended::ConnectionLost => bail!("the client lost its connection"),
        }
    }

    /// Waits until it has ended because the daemon was killed.
    ///
    /// # Errors
    /// When it has seen what may not be.
    pub fn join(self) -> Result<(Client, Ended)> {
        let (client, ended) = self
            .thread
            .join()
            .map_err(|_| anyhow!("the client's thread panicked"))?;
        Ok((client, ended?))
    }
}
