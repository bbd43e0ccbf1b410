//! A virtual machine of the demo: an initiator with a name, a key, and a block of its own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use initiator::{Config, Error, ReservationType, Session};
use scsi::Lun;

use super::daemon::TARGET_NAME;
use crate::failure::Failure;

const BLOCK_BYTES: u32 = 512;

/// Status TASK ABORTED (SAM-5 5.3.1).
const TASK_ABORTED: u8 = 0x40;

/// How long a VM waits for an answer: an aborted command may get none.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// GOOD.
    Good,
    /// RESERVATION CONFLICT.
    Conflict,
    /// TASK ABORTED, or (with TAS=0 in the control mode page) no answer at all.
    Aborted,
    /// CHECK CONDITION with UNIT ATTENTION: the VM is told of something, and asks again.
    Attention,
}

/// A virtual machine that is logged in.
pub struct Vm {
    name: String,
    session: Session,
    lun: Lun,
    key: u64,
    block: u64,
}

impl Vm {
    /// The iSCSI name of the VM at `index`.
    pub fn initiator_name(index: usize) -> String {
        format!("iqn.2026-11.com.example:vm{}", index + 1)
    }

    /// Logs the VM at `index` in at `portal`, as the same nexus every time.
    pub fn log_in(portal: SocketAddr, index: usize, key: u64, lun: u16) -> Result<Self, Failure> {
        let name = format!("vm{}", index + 1);
        let kind = iscsi_session();
        let config = Config::new(Self::initiator_name(index), [0x80, 0, 0, 0, 0, 1], kind);
        let failed = |error: Error| Failure::failed(format!("{name} cannot log in: {error}"));
        let mut session = Session::connect(portal, config).map_err(failed)?;
        session.set_timeout(TIMEOUT);
        let lun = Lun::new(lun).ok_or_else(|| Failure::failed(format!("{lun} is no LUN")))?;
        session.clear_unit_attentions(lun).map_err(failed)?;
        Ok(Self {
            name,
            session,
            lun,
            key,
            block: index as u64,
        })
    }

    /// `vm1` and so on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The block that it writes to.
    pub fn block(&self) -> u64 {
        self.block
    }

    /// REGISTER.
    pub fn register(&mut self) -> Result<Outcome, Failure> {
        let done = self.session.register(self.lun, 0, self.key, true);
        self.outcome(done)
    }

    /// RESERVE, write exclusive for registrants only.
    pub fn reserve(&mut self) -> Result<Outcome, Failure> {
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        let done = self.session.reserve(self.lun, self.key, kind);
        self.outcome(done)
    }

    /// PREEMPT AND ABORT of the key `victim`.
    pub fn preempt_and_abort(&mut self, victim: u64) -> Result<Outcome, Failure> {
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        let done = self
            .session
            .preempt_and_abort(self.lun, self.key, victim, kind);
        self.outcome(done)
    }

    /// WRITE of a record number to its block.
    pub fn write(&mut self, record: u64) -> Result<Outcome, Failure> {
        let data = Bytes::from(record.to_be_bytes().repeat(BLOCK_BYTES as usize / 8));
        let done = self
            .session
            .write(self.lun, self.block, data, BLOCK_BYTES, false);
        self.outcome(done)
    }

    /// READ of the record number in a block; a block that is not one record is an error.
    pub fn read_record(&mut self, block: u64) -> Result<u64, Failure> {
        let data = self
            .session
            .read(self.lun, block, 1, BLOCK_BYTES)
            .map_err(|error| self.failed(&error))?;
        let mut records = data.as_chunks::<8>().0.iter();
        let first = records.next().copied().unwrap_or_default();
        if records.any(|record| *record != first) {
            return Err(Failure::failed(format!(
                "block {block} holds a mixture of records"
            )));
        }
        Ok(u64::from_be_bytes(first))
    }

    /// Logs out.
    pub fn log_out(self) -> Result<(), Failure> {
        let name = self.name;
        self.session
            .logout()
            .map_err(|error| Failure::failed(format!("{name} cannot log out: {error}")))
    }

    fn outcome(&self, done: Result<(), Error>) -> Result<Outcome, Failure> {
        match done {
            Ok(()) => Ok(Outcome::Good),
            Err(error) if error.is_reservation_conflict() => Ok(Outcome::Conflict),
            Err(Error::Timeout) => Ok(Outcome::Aborted),
            Err(Error::Command(error)) if error.status == TASK_ABORTED => Ok(Outcome::Aborted),
            Err(error) => match error.sense() {
                Some(sense) if sense.key == scsi::sense::SenseKey::UnitAttention => {
                    Ok(Outcome::Attention)
                }
                _ => Err(self.failed(&error)),
            },
        }
    }

    fn failed(&self, error: &Error) -> Failure {
        Failure::failed(format!("{}: {error}", self.name))
    }
}

fn iscsi_session() -> ::iscsi::initiator::Session {
    ::iscsi::initiator::Session::Normal {
        target_name: TARGET_NAME.to_owned(),
    }
}
