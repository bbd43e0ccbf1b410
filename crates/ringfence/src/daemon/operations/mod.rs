//! What the control socket asks for, carried out.

mod chores;
mod describe;
mod device;
mod dispatch;
mod domain;
mod grant;
mod jobs;
mod keys;
mod layout;
mod map;
mod pool;
mod quorum;
mod recover;
mod session;
mod stream;
mod verify;
mod volume;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use ::volume::{Pool, PoolError, PoolErrorKind, Volume};
use reactor::{FileDevice, Handle};
use target::Target;

use super::audit::Audit;
use super::device_list::DeviceList;
use super::domains::Domains;
use super::endings::Endings;
use super::rates::Rates;
use crate::control::model::{Portal, Status};
use crate::failure::{Failure, FailureKind};
use crate::iscsi::{PortalInfo, Service};
use chores::Bell;

/// How long a change of the pool as a whole waits for others to end.
const ALONE_PATIENCE: Duration = Duration::from_secs(3);

/// What the operations work on.
pub struct Parts {
    /// The state directory.
    pub state: PathBuf,
    /// iSCSI name of the target.
    pub target_name: String,
    /// The bound portals.
    pub portals: Vec<PortalInfo>,
    /// The I/O engine, for people.
    pub io: String,
    /// How many reactors serve data.
    pub reactors: usize,
    /// Where the operations run.
    pub control: Handle,
    /// Which devices to open at start.
    pub devices: DeviceList,
    /// The pool.
    pub pool: Arc<Pool<FileDevice>>,
    /// What serves its volumes.
    pub target: Arc<Target<FileDevice>>,
    /// The sessions.
    pub service: Arc<Service<FileDevice>>,
    /// The audit trail.
    pub audit: Arc<Audit>,
    /// How jobs ended.
    pub endings: Arc<Endings>,
    /// The fence domains.
    pub domains: Arc<Domains>,
}

/// Carries requests out. Work on one volume is serialized, and work on the device list; work on different volumes
/// is not, so that a volume whose device hangs does not keep others from being fenced.
pub struct Operations {
    state: PathBuf,
    target_name: String,
    portals: Vec<PortalInfo>,
    io: String,
    reactors: usize,
    control: Handle,
    devices: Mutex<DeviceList>,
    volumes: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// Held for writing by what changes the pool as a whole, by all other changes for reading.
    whole: RwLock<()>,
    rates: Mutex<Rates>,
    /// One request at a time to this daemon as a quorum server.
    quorum: Mutex<()>,
    /// Wakes the thread of the chores.
    pub(super) chores: Bell,
    pool: Arc<Pool<FileDevice>>,
    target: Arc<Target<FileDevice>>,
    service: Arc<Service<FileDevice>>,
    audit: Arc<Audit>,
    endings: Arc<Endings>,
    domains: Arc<Domains>,
    /// Changes of what domains there are and what belongs to them come one after the other.
    changing_domains: Mutex<()>,
}

/// A poisoned lock is taken all the same: what it guards is written in one piece, or (the unit of a volume's lock)
/// guards only the order of work.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Operations {
    /// Operations on `parts`.
    pub fn new(parts: Parts) -> Self {
        Self {
            state: parts.state,
            target_name: parts.target_name,
            portals: parts.portals,
            io: parts.io,
            reactors: parts.reactors,
            control: parts.control,
            devices: Mutex::new(parts.devices),
            volumes: Mutex::default(),
            whole: RwLock::default(),
            rates: Mutex::default(),
            quorum: Mutex::default(),
            chores: Bell::default(),
            pool: parts.pool,
            target: parts.target,
            service: parts.service,
            audit: parts.audit,
            endings: parts.endings,
            domains: parts.domains,
            changing_domains: Mutex::default(),
        }
    }

    /// Runs a future on the control reactor.
    fn run<M, F>(&self, make: M) -> Result<F::Output, Failure>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        super::on_reactor(&self.control, make)
    }

    /// The lock of the volume `name`, whether or not there is one.
    fn volume_lock(&self, name: &str) -> Arc<Mutex<()>> {
        let mut locks = lock(&self.volumes);
        // Names without a holder are dropped here, so that the map stays as small as the number of volumes at work.
        locks.retain(|_, held| Arc::strong_count(held) > 1);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }

    /// For a change of a volume or device: not while the pool comes or goes.
    fn shared(&self) -> Result<RwLockReadGuard<'_, ()>, Failure> {
        match self.whole.try_read() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::refused("the pool is being imported or exported")
                    .advise("try again when that is done"))
            }
        }
    }

    /// For a change of the pool as a whole. It never keeps others waiting: who is at work is waited for without
    /// holding anything.
    fn alone(&self) -> Result<RwLockWriteGuard<'_, ()>, Failure> {
        let deadline = Instant::now() + ALONE_PATIENCE;
        loop {
            match self.whole.try_write() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Failure::refused("other changes are under way")
                        .advise("wait until they are done, then try again"));
                }
            }
        }
    }

    fn volume(&self, name: &str) -> Result<Arc<Volume<FileDevice>>, Failure> {
        self.pool.volume(name).map_err(|error| explain(&error))
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: self.state.clone(),
            target_name: self.target_name.clone(),
            portals: self
                .portals
                .iter()
                .map(|portal| Portal {
                    address: portal.address.to_string(),
                    target_port: portal.target_port,
                })
                .collect(),
            io: self.io.clone(),
            reactors: self.reactors,
            domains: self.status_domains(),
        }
    }
}

/// What the pool says, as a failure.
fn explain(error: &PoolError) -> Failure {
    let kind = match error.kind() {
        PoolErrorKind::NotFound => FailureKind::NotFound,
        PoolErrorKind::Usage => FailureKind::Usage,
        PoolErrorKind::Refused => FailureKind::Refused,
        PoolErrorKind::Failed => FailureKind::Failed,
    };
    Failure::new(kind, error.to_string())
}
