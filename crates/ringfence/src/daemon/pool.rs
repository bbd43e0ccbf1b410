//! Opening devices and the pool on them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use reactor::{Caching, FileDevice, Handle, OpenError, OpenOptions};
use uuid::Uuid;
use volume::{DeviceSource, Pool, PoolError};

use super::device_list::{DeviceList, Entry};
use super::patience;
use crate::events::What;
use crate::events::writer::EventLog;
use crate::failure::Failure;

/// Opens the device at `path`.
pub fn open_device(path: &Path, direct: bool) -> Result<FileDevice, Failure> {
    let caching = if direct {
        Caching::Direct
    } else {
        Caching::PageCache
    };
    FileDevice::open(path, OpenOptions { caching }).map_err(|error| explain(&error))
}

fn explain(error: &OpenError) -> Failure {
    let message = format!("the device cannot be opened: {error}");
    match error {
        OpenError::InUse { .. } => Failure::busy(message)
            .advise("another daemon serves it (a device belongs to one), or it is mounted or part of something else"),
        OpenError::Unsuitable { .. } => Failure::refused(message)
            .advise("a device is a regular file or a block device"),
        OpenError::NoDirectIo { .. } => {
            Failure::refused(message).advise("leave --direct out, or use another file system")
        }
        OpenError::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => Failure::not_found(message)
                .advise("name an existing file or block device, or give --size to create a file"),
            _ => Failure::failed(message),
        },
    }
}

/// The kernel's identity of this boot.
fn boot_id() -> Result<Uuid, Failure> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let unknown = |why: String| Failure::failed(format!("{PATH} cannot be used: {why}"));
    let text = std::fs::read_to_string(PATH).map_err(|error| unknown(error.to_string()))?;
    text.trim()
        .parse()
        .map_err(|error: uuid::Error| unknown(error.to_string()))
}

struct Opened {
    entry: Entry,
    device: Arc<FileDevice>,
}

/// Opens the devices of `list` and the pool on them, on the reactor `control`. A device that is in use by others
/// stops the start; one that is missing does not, and is recorded: the pool decides what can be served without it.
pub fn open_pool(
    list: &mut DeviceList,
    control: &Handle,
    log: &EventLog,
) -> Result<Arc<Pool<FileDevice>>, Failure> {
    let boot_id = boot_id()?;
    let mut opened = Vec::new();
    let mut missing = Vec::new();
    let deadline = Instant::now() + patience::PATIENCE;
    for entry in list.entries() {
        match patience::until(deadline, || open_device(&entry.path, entry.direct)) {
            Ok(device) => opened.push(Opened {
                entry: entry.clone(),
                device: Arc::new(device),
            }),
            Err(failure) if failure.kind == crate::failure::FailureKind::Busy => {
                return Err(failure);
            }
            Err(failure) => {
                tracing::error!(path = %entry.path.display(), %failure, "device not opened");
                log.record(What::DeviceNotOpened {
                    path: entry.path.display().to_string(),
                    reason: failure.to_string(),
                });
                missing.push(failure);
            }
        }
    }
    if opened.is_empty()
        && let Some(failure) = missing.pop()
    {
        return Err(Failure::failed(format!(
            "none of the pool's devices can be opened; the last: {failure}"
        ))
        .advise(
            "attach the devices listed in devices.json of the state directory, then start again",
        ));
    }
    let unsettled = opened.iter().any(|device| device.entry.unsettled);
    match assemble(&opened, boot_id, control, |_| true)? {
        Ok(pool) => settle(list, &opened, control, pool),
        Err(error) if unsettled => {
            // A crash while a device joined or left: its label may be half there, or gone.
            tracing::warn!(%error, "opening the pool without the devices that were joining or leaving it");
            let settled = |entry: &Entry| !entry.unsettled;
            let expected = list.entries().iter().any(settled);
            if expected && !opened.iter().any(|device| settled(&device.entry)) {
                // There is a pool, and none of its devices is here: an empty one would be a lie.
                return Err(cannot_open(&error));
            }
            let pool = assemble(&opened, boot_id, control, |device| settled(&device.entry))?
                .map_err(|error| cannot_open(&error))?;
            settle(list, &opened, control, pool)
        }
        Err(error) => Err(cannot_open(&error)),
    }
}

fn cannot_open(error: &PoolError) -> Failure {
    Failure::failed(format!("the pool cannot be opened: {error}"))
        .advise("nothing was changed on the devices; see docs/operators/troubleshooting.md")
}

fn assemble(
    opened: &[Opened],
    boot_id: Uuid,
    control: &Handle,
    pick: impl Fn(&Opened) -> bool,
) -> Result<Result<Pool<FileDevice>, PoolError>, Failure> {
    let sources: Vec<_> = opened
        .iter()
        .filter(|device| pick(device))
        .map(|device| DeviceSource {
            path: device.entry.path.display().to_string(),
            device: Arc::clone(&device.device),
        })
        .collect();
    super::on_reactor(control, move || async move {
        Pool::open(sources, boot_id).await
    })
}

/// Ends what a crash left open: unsettled devices that the pool knows stay, the others are forgotten.
fn settle(
    list: &mut DeviceList,
    opened: &[Opened],
    control: &Handle,
    pool: Pool<FileDevice>,
) -> Result<Arc<Pool<FileDevice>>, Failure> {
    let pool = Arc::new(pool);
    let asked = Arc::clone(&pool);
    let known = super::on_reactor(control, move || async move { asked.devices().await })?;
    for device in opened.iter().filter(|device| device.entry.unsettled) {
        let path = device.entry.path.as_path();
        let belongs = known
            .iter()
            .any(|info| info.present && Path::new(&info.path) == path);
        let settled = if belongs {
            list.settle(path)
        } else {
            list.remove(path)
        };
        settled.map_err(|error| {
            Failure::failed(format!("the list of devices cannot be written: {error}"))
        })?;
    }
    Ok(pool)
}
