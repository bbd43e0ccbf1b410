//! What the control socket asks for, carried out.

mod device;
mod grant;
mod keys;
mod session;
mod stream;
mod volume;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::volume::{Pool, PoolError, PoolErrorKind, Volume};
use reactor::{FileDevice, Handle};
use target::Target;

use super::audit::Audit;
use super::device_list::DeviceList;
use crate::control::model::{Portal, Status};
use crate::control::protocol::{Answer, Request};
use crate::control::server::{Handler, Sink};
use crate::events::Operator;
use crate::failure::Failure;
use crate::iscsi::{PortalInfo, Service};

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
    pool: Arc<Pool<FileDevice>>,
    target: Arc<Target<FileDevice>>,
    service: Arc<Service<FileDevice>>,
    audit: Arc<Audit>,
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
            pool: parts.pool,
            target: parts.target,
            service: parts.service,
            audit: parts.audit,
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
        }
    }
}

/// What the pool says, as a failure.
fn explain(error: &PoolError) -> Failure {
    let message = error.to_string();
    match error.kind() {
        PoolErrorKind::NotFound => Failure::not_found(message),
        PoolErrorKind::Usage => Failure::usage(message),
        PoolErrorKind::Refused => Failure::refused(message),
        PoolErrorKind::Failed => Failure::failed(message),
    }
}

impl Handler for Operations {
    fn handle(
        &self,
        request: Request,
        operator: &Operator,
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        match request {
            Request::Status => Ok(Answer::Status(self.status())),
            Request::DeviceAdd {
                name,
                path,
                size_bytes,
                direct,
            } => self
                .device_add(&name, path, size_bytes, direct, operator)
                .map(Answer::Device),
            Request::DeviceList => self.device_list().map(Answer::Devices),
            Request::DeviceShow { name } => self.device_show(&name).map(Answer::Device),
            Request::DeviceRemove { name } => {
                self.device_remove(&name, operator).map(|()| Answer::Done)
            }
            Request::VolumeCreate {
                name,
                size_bytes,
                on,
                keys_on,
                block_size_bytes,
                persist_always,
            } => {
                let wanted = volume::Wanted {
                    name,
                    size_bytes,
                    on,
                    keys_on,
                    block_size_bytes,
                    persist_always,
                };
                self.volume_create(wanted, operator).map(Answer::Volume)
            }
            Request::VolumeList => self.volume_list().map(Answer::Volumes),
            Request::VolumeShow { name } => self.volume_show(&name).map(Answer::Volume),
            Request::VolumeDelete { name, force } => self
                .volume_delete(&name, force, operator)
                .map(|()| Answer::Done),
            Request::VolumeGrow { name, growth } => self
                .volume_grow(&name, growth, operator)
                .map(Answer::Volume),
            Request::VolumeMap { name, offset_bytes } => {
                self.volume_map(&name, offset_bytes).map(Answer::Map)
            }
            Request::Grant {
                volume,
                initiator,
                access,
            } => self
                .grant(&volume, &initiator, access, operator)
                .map(Answer::Grant),
            Request::Grants { volume } => self.grants(&volume).map(Answer::Grants),
            Request::Keys { volume } => self.keys(&volume).map(Answer::Keys),
            Request::SessionList => Ok(Answer::Sessions(self.sessions())),
            Request::SessionDrop { id } => self.session_drop(id, operator).map(|()| Answer::Done),
            Request::Events { since, follow } => {
                self.events(since, follow, sink).map(|()| Answer::Done)
            }
        }
    }
}
