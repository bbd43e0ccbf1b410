//! Devices of the pool.

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ::volume::config::DeviceRole;
use ::volume::pool::jobs::{JobError, Loss};
use ::volume::{Closed, DeviceInfo, DeviceSource, PoolError};

use super::chores::forget_gone;
use super::{Operations, explain, lock};
use crate::control::model::{ByteRange, Device, DeviceErrors, DeviceLoss, Job};
use crate::daemon::audit::Audit;
use crate::daemon::device_list::{DeviceList, Entry};
use crate::daemon::patience;
use crate::daemon::pool::open_device;
use crate::events::{Operator, What};
use crate::failure::Failure;
use crate::names::object_name;

/// Why nothing is put on a device that is well.
const EMPTYING: &str = "jobs move everything away from it; nothing new is put on it";
const EMPTIED: &str =
    "it is empty; nothing new is put on it until 'ringfence device online', or until it is named";

/// How a device joins the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    /// Round the page cache.
    pub(super) direct: bool,
    /// Whatever is on it.
    pub(super) force: bool,
}

impl Operations {
    pub(super) fn device_add(
        &self,
        name: &str,
        path: PathBuf,
        size_bytes: Option<u64>,
        how: Joining,
        operator: &Operator,
    ) -> Result<Device, Failure> {
        object_name(name).map_err(Failure::usage)?;
        if !path.is_absolute() {
            return Err(Failure::usage("the path of a device is absolute"));
        }
        let _shared = self.shared()?;
        let mut list = lock(&self.devices);
        let devices = self.device_infos()?;
        // One that was replaced a moment ago may be added again.
        forget_gone(&mut list, &devices)?;
        if let Some(info) = devices.into_iter().find(|info| info.name == name) {
            return Err(Failure::refused(format!(
                "there is a device {name} already, at {}",
                info.path
            ))
            .advise("choose another name; 'ringfence device list' shows them"));
        }
        refuse_twice(&list, &path)?;
        if let Some(size_bytes) = size_bytes {
            create_sparse(&path, size_bytes)?;
        }
        let added = self.join(&mut list, name, &path, how);
        drop(list);
        match added {
            Ok(device) => {
                self.audit.log().record(What::DeviceAdded {
                    device: name.to_owned(),
                    path: path.display().to_string(),
                    by: operator.clone(),
                });
                self.tidy_up();
                Ok(device)
            }
            Err(failure) => {
                if size_bytes.is_some()
                    && let Err(error) = std::fs::remove_file(&path)
                {
                    tracing::warn!(path = %path.display(), %error, "the new file was left behind");
                }
                Err(failure)
            }
        }
    }

    fn join(
        &self,
        list: &mut DeviceList,
        name: &str,
        path: &Path,
        how: Joining,
    ) -> Result<Device, Failure> {
        let source = DeviceSource {
            path: path.display().to_string(),
            device: Arc::new(open_device(path, how.direct)?),
        };
        list.put(Entry {
            path: path.to_owned(),
            direct: how.direct,
            unsettled: true,
        })
        .map_err(|error| unwritten(&error))?;
        let pool = Arc::clone(&self.pool);
        let owned = name.to_owned();
        let added =
            self.run(move || async move { pool.device_add_with(&owned, source, how.force).await })?;
        match added {
            Ok(info) => {
                list.settle(path).map_err(|error| unwritten(&error))?;
                self.describe(list.entries(), info)
            }
            Err(error) => {
                list.remove(path).map_err(|error| unwritten(&error))?;
                Err(explain(&error))
            }
        }
    }

    pub(super) fn device_list(&self) -> Result<Vec<Device>, Failure> {
        let entries = self.device_entries()?;
        let infos = self.device_infos()?;
        infos
            .into_iter()
            .map(|info| self.describe(&entries, info))
            .collect()
    }

    pub(super) fn device_show(&self, name: &str) -> Result<Device, Failure> {
        let info = self.device_info(name)?;
        self.describe(&self.device_entries()?, info)
    }

    /// The list as it is on disk: whoever changes it may be waiting for a device.
    fn device_entries(&self) -> Result<Vec<Entry>, Failure> {
        Ok(DeviceList::load(&self.state)?.entries().to_vec())
    }

    /// Does what the new number of devices asks for at once, so that the command's end is the end of it.
    fn tidy_up(&self) {
        if let Err(failure) = self.witness_and_list() {
            tracing::warn!(%failure, "the witness could not be looked after");
        }
    }

    pub(super) fn device_remove(&self, name: &str, operator: &Operator) -> Result<(), Failure> {
        let _shared = self.shared()?;
        let mut list = lock(&self.devices);
        let info = self.device_info(name)?;
        let path = PathBuf::from(&info.path);
        let entry = list.get(&path).cloned();
        if let Some(entry) = &entry {
            list.put(Entry {
                unsettled: true,
                ..entry.clone()
            })
            .map_err(|error| unwritten(&error))?;
        }
        let pool = Arc::clone(&self.pool);
        let owned = name.to_owned();
        let removed = self.run(move || async move { pool.device_remove(&owned).await })?;
        if let Err(error) = removed {
            list.settle(&path).map_err(|error| unwritten(&error))?;
            return Err(explain(&error));
        }
        list.remove(&path).map_err(|error| unwritten(&error))?;
        self.audit.log().record(What::DeviceRemoved {
            device: name.to_owned(),
            by: operator.clone(),
        });
        drop(list);
        self.tidy_up();
        Ok(())
    }

    pub(super) fn device_evacuate(
        &self,
        name: &str,
        rate: Option<u64>,
        operator: &Operator,
    ) -> Result<Vec<Job>, Failure> {
        let _shared = self.shared()?;
        let _acting = self.audit.acting(&Audit::device(name), operator);
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        let begun = self.run(move || async move { pool.device_evacuate(&owned, rate).await })?;
        self.begun(begun)
    }

    pub(super) fn device_replace(
        &self,
        old: &str,
        new: &str,
        rate: Option<u64>,
        operator: &Operator,
    ) -> Result<Vec<Job>, Failure> {
        let _shared = self.shared()?;
        let _acting = self.audit.acting(&Audit::device(old), operator);
        let pool = Arc::clone(&self.pool);
        let (owned, with) = (old.to_owned(), new.to_owned());
        let begun =
            self.run(move || async move { pool.device_replace(&owned, &with, rate).await })?;
        self.begun(begun)
    }

    pub(super) fn device_fail(
        &self,
        name: &str,
        force: bool,
        operator: &Operator,
    ) -> Result<Device, Failure> {
        let _shared = self.shared()?;
        let _acting = self.audit.acting(&Audit::device(name), operator);
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        let failed = self.run(move || async move {
            match force {
                true => pool.device_fail_forced(&owned).await.map(drop),
                false => pool.device_fail(&owned).await,
            }
        })?;
        failed.map_err(|error| match &error {
            PoolError::Job(JobError::WouldLose { losses, .. }) => explain(&error)
                .would_lose(losses.iter().map(describe_loss).collect())
                .advise(format!(
                    "bring other devices online, or move what is there away first \
                     ('ringfence device evacuate {name}'); --force does it all the same"
                )),
            _ => explain(&error),
        })?;
        self.device_show(name)
    }

    /// Opens a device again and takes it back. The old handle is closed first: it holds the lock on the device.
    pub(super) fn device_online(
        &self,
        name: &str,
        path: Option<PathBuf>,
        operator: &Operator,
    ) -> Result<Device, Failure> {
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(Failure::usage("the path of a device is absolute"));
        }
        let _shared = self.shared()?;
        let mut list = lock(&self.devices);
        let _acting = self.audit.acting(&Audit::device(name), operator);
        let info = self.device_info(name)?;
        let before = PathBuf::from(&info.path);
        let path = path.unwrap_or_else(|| before.clone());
        if path != before {
            refuse_twice(&list, &path)?;
        } else if info.online && info.closed.is_some() {
            drop(list);
            let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
            self.run(move || async move { pool.device_reopen(&owned).await })?
                .map_err(|error| explain(&error))?;
            return self.device_show(name);
        }
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        self.run(move || async move { pool.device_release(&owned).await })?
            .map_err(|error| explain(&error))?;
        let direct = list.get(&before).is_some_and(|entry| entry.direct);
        let deadline = Instant::now() + patience::PATIENCE;
        let device = patience::until(deadline, || open_device(&path, direct))?;
        let known = list.get(&path).cloned();
        list.put(Entry {
            path: path.clone(),
            direct,
            unsettled: true,
        })
        .map_err(|error| unwritten(&error))?;
        let source = DeviceSource {
            path: path.display().to_string(),
            device: Arc::new(device),
        };
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        let taken = self.run(move || async move { pool.device_online(&owned, source).await })?;
        match taken {
            Ok(_) => {
                list.settle(&path).map_err(|error| unwritten(&error))?;
                if path != before {
                    list.remove(&before).map_err(|error| unwritten(&error))?;
                }
            }
            Err(error) => {
                let undone = match known {
                    Some(entry) => list.put(entry),
                    None => list.remove(&path),
                };
                undone.map_err(|error| unwritten(&error))?;
                drop(list);
                // A volume may have been opened anew before it came to that.
                if let Err(failure) = self.serve_what_can_be() {
                    tracing::warn!(device = name, %failure, "not all volumes are served");
                }
                return Err(explain(&error));
            }
        }
        drop(list);
        self.tidy_up();
        self.serve_what_can_be()?;
        self.device_show(name)
    }

    pub(super) fn device_infos(&self) -> Result<Vec<DeviceInfo>, Failure> {
        let pool = Arc::clone(&self.pool);
        self.run(move || async move { pool.devices().await })
    }

    pub(super) fn device_info(&self, name: &str) -> Result<DeviceInfo, Failure> {
        let pool = Arc::clone(&self.pool);
        let name = name.to_owned();
        self.run(move || async move { pool.device(&name).await })?
            .map_err(|error| explain(&error))
    }

    fn describe(&self, entries: &[Entry], info: DeviceInfo) -> Result<Device, Failure> {
        let keys_of = self
            .pool
            .volumes()
            .into_iter()
            .map(|volume| volume.record())
            .filter(|record| {
                record
                    .keys
                    .iter()
                    .any(|replica| replica.extent.device == info.uuid)
            })
            .map(|record| record.name.clone())
            .collect();
        let (state, reason) = match &info.failed {
            Some(reason) => ("failed", Some(reason.clone())),
            None if !info.present => ("missing", Some(format!("it is not at {}", info.path))),
            None if info.abandoned > 0 => (
                "hung",
                Some(format!("{} operations have not ended", info.abandoned)),
            ),
            None if !info.online => ("failed", None),
            None if !info.config_current => (
                "stale",
                Some("its copy of the configuration is behind".to_owned()),
            ),
            None => match info.closed {
                Some(Closed::Emptying) => ("evacuating", Some(EMPTYING.to_owned())),
                Some(Closed::Emptied) => ("evacuated", Some(EMPTIED.to_owned())),
                None => ("online", None),
            },
        };
        let path = PathBuf::from(&info.path);
        let entry = entries.iter().find(|entry| entry.path == path);
        Ok(Device {
            direct: entry.is_some_and(|entry| entry.direct),
            reason,
            role: match info.role {
                DeviceRole::Data => "data",
                DeviceRole::Witness => "witness",
            }
            .to_owned(),
            errors: DeviceErrors {
                read: info.errors.reads,
                write: info.errors.writes,
                flush: info.errors.flushes,
                hang: info.errors.hangs,
            },
            name: info.name,
            path,
            uuid: info.uuid.to_string(),
            state: state.to_owned(),
            size_bytes: info.size_bytes,
            used_bytes: info.capacity_bytes.saturating_sub(info.free_bytes),
            free_bytes: info.free_bytes,
            volumes: info.volumes,
            keys_of,
        })
    }
}

fn describe_loss(loss: &Loss) -> DeviceLoss {
    let of = |what: &str| DeviceLoss {
        what: what.to_owned(),
        volume: None,
        ranges: Vec::new(),
        have: None,
        need: None,
        of: None,
    };
    match loss {
        Loss::Data { volume, ranges } => DeviceLoss {
            volume: Some(volume.clone()),
            ranges: ranges.iter().copied().map(ByteRange::from).collect(),
            ..of("data")
        },
        Loss::Keys { volume, have, need } => DeviceLoss {
            volume: Some(volume.clone()),
            have: Some(*have),
            need: Some(*need),
            ..of("keys")
        },
        Loss::Configuration { have, need } => DeviceLoss {
            have: Some(*have),
            need: Some(*need),
            ..of("configuration")
        },
        Loss::QuorumDevice { of: whose } => DeviceLoss {
            of: Some(whose.clone()),
            ..of("quorum-device")
        },
    }
}

/// Refuses a device that is in the pool already, perhaps under another path.
fn refuse_twice(list: &DeviceList, path: &Path) -> Result<(), Failure> {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        // A block device is itself whatever its node: by its number, a file by its inode.
        Some(match metadata.rdev() {
            0 => (metadata.dev(), metadata.ino(), 0),
            rdev => (0, 0, rdev),
        })
    };
    let new = identity(path);
    let known = list
        .entries()
        .iter()
        .find(|entry| entry.path == path || (new.is_some() && identity(&entry.path) == new));
    match known {
        None => Ok(()),
        Some(entry) => Err(Failure::refused(format!(
            "{} is in the pool already (as {})",
            path.display(),
            entry.path.display()
        ))
        .advise("'ringfence device list' shows the devices of the pool")),
    }
}

pub(super) fn create_sparse(path: &Path, size_bytes: u64) -> Result<(), Failure> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|file| {
            let sized = file.set_len(size_bytes).and_then(|()| file.sync_all());
            sized.and_then(|()| sync_parent(path)).inspect_err(|_| {
                // It is ours and empty; if it stays, the error below tells of the path.
                let _ = std::fs::remove_file(path);
            })
        });
    made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::refused(format!("{} exists already", path.display()))
                .advise("leave --size out to use it as it is, or name a file that does not exist")
        }
        _ => Failure::failed(format!("{} cannot be made: {error}", path.display())),
    })
}

/// Makes the name of a new file durable.
fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

pub(super) fn unwritten(error: &std::io::Error) -> Failure {
    Failure::failed(format!(
        "the list of devices in the state directory cannot be written: {error}"
    ))
}
