//! What the daemon does beside serving: it keeps a witness where a pool of two devices needs one, keeps the list of
//! devices in step with the pool, and measures how fast jobs are.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::volume::pool::WITNESS_BYTES;
use ::volume::{DeviceInfo, DeviceSource};

use super::device::{create_sparse, unwritten};
use super::{Operations, explain, lock};
use crate::daemon::device_list::{DeviceList, Entry};
use crate::daemon::pool::open_device;
use crate::daemon::witness;
use crate::events::What;
use crate::failure::Failure;

/// How often the speed of jobs is measured.
const MEASURE: Duration = Duration::from_secs(1);
/// How often the rest is looked after when nobody rings.
const LOOK: Duration = Duration::from_secs(5);
/// How long a failure is left alone.
const REST: Duration = Duration::from_secs(60);

/// Wakes the one who does the chores, and ends it.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Bell {
    state: Mutex<BellState>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    rung: bool,
    stop: bool,
}

impl Bell {
    /// There may be something to do.
    pub(in crate::daemon) fn ring(&self) {
        lock(&self.state).rung = true;
        self.rung.notify_all();
    }

    /// No more.
    pub(in crate::daemon) fn stop(&self) {
        lock(&self.state).stop = true;
        self.rung.notify_all();
    }

    /// Waits for the bell for at most `patience`; `None` when it is over, else whether it rang.
    fn wait(&self, patience: Duration) -> Option<bool> {
        let state = lock(&self.state);
        let waited = self
            .rung
            .wait_timeout_while(state, patience, |state| !state.rung && !state.stop);
        let (mut state, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        (!state.stop).then(|| std::mem::take(&mut state.rung))
    }
}

impl Operations {
    /// Starts the thread that does the chores; it ends after [`Bell::stop`].
    pub(in crate::daemon) fn start_chores(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let operations = Arc::clone(self);
        std::thread::Builder::new()
            .name("chores".to_owned())
            .spawn(move || operations.do_chores())
    }

    /// Lets the thread of the chores end.
    pub(in crate::daemon) fn stop_chores(&self) {
        self.chores.stop();
    }

    fn do_chores(&self) {
        let begun = Instant::now();
        let mut next = begun;
        while let Some(rung) = self.chores.wait(MEASURE) {
            self.measure(begun.elapsed());
            let now = Instant::now();
            if !rung && now < next {
                continue;
            }
            next = now + LOOK;
            if let Err(failure) = self.witness_and_list() {
                tracing::warn!(%failure, "chores");
                next = now + REST;
            }
        }
    }

    /// Notes how far the jobs are.
    fn measure(&self, now: Duration) {
        // The control reactor is gone only at the end of the daemon.
        let jobs = self.job_infos().unwrap_or_default();
        let mut rates = lock(&self.rates);
        rates.retain(|id| jobs.iter().any(|job| job.id == id));
        for job in &jobs {
            rates.note(job.id, now, job.done_bytes);
        }
    }

    /// Makes a witness where one is needed, takes away those that are not, and forgets devices that have left the pool.
    pub(in crate::daemon) fn witness_and_list(&self) -> Result<(), Failure> {
        let pool = Arc::clone(&self.pool);
        let (needed, done_with, devices) = self.run(move || async move {
            let needed = pool.witness_needed().await;
            let done_with = pool.witnesses_to_remove().await;
            (needed, done_with, pool.devices().await)
        })?;
        if needed {
            self.witness_add()?;
        }
        // The keys that are on it are moved by the keeper first.
        for witness in done_with
            .iter()
            .filter(|witness| witness.volumes.is_empty())
        {
            self.witness_remove(&witness.name, &PathBuf::from(&witness.path))?;
        }
        let gone = |entry: &Entry| {
            !entry.unsettled
                && devices
                    .iter()
                    .all(|info| entry.path != Path::new(&info.path))
        };
        if !devices.is_empty() && lock(&self.devices).entries().iter().any(gone) {
            self.forget_gone()?;
        }
        Ok(())
    }

    fn witness_add(&self) -> Result<(), Failure> {
        let mut list = lock(&self.devices);
        let pool = Arc::clone(&self.pool);
        if !self.run(move || async move { pool.witness_needed().await })? {
            return Ok(());
        }
        let path = witness::new_path(&self.state);
        create_sparse(&path, WITNESS_BYTES)?;
        let added = open_device(&path, false).and_then(|device| {
            let entry = |unsettled| Entry {
                path: path.clone(),
                direct: false,
                unsettled,
            };
            list.put(entry(true)).map_err(|error| unwritten(&error))?;
            let source = DeviceSource {
                path: path.display().to_string(),
                device: Arc::new(device),
            };
            let pool = Arc::clone(&self.pool);
            let added = self.run(move || async move { pool.witness_add(source).await })?;
            let info = added.map_err(|error| explain(&error))?;
            list.put(entry(false)).map_err(|error| unwritten(&error))?;
            Ok(info)
        });
        match added {
            Ok(info) => {
                self.audit.log().record(What::WitnessAdded {
                    device: info.name,
                    path: path.display().to_string(),
                });
                Ok(())
            }
            Err(failure) => {
                list.remove(&path).map_err(|error| unwritten(&error))?;
                std::fs::remove_file(&path).map_err(|error| {
                    Failure::failed(format!("{} was left behind: {error}", path.display()))
                })?;
                Err(failure)
            }
        }
    }

    fn witness_remove(&self, name: &str, path: &PathBuf) -> Result<(), Failure> {
        let mut list = lock(&self.devices);
        let (pool, owned) = (Arc::clone(&self.pool), name.to_owned());
        self.run(move || async move { pool.device_remove(&owned).await })?
            .map_err(|error| explain(&error))?;
        list.remove(path).map_err(|error| unwritten(&error))?;
        // Nothing but a file that this daemon made is ever deleted.
        if super::pool::is_witness(&self.state, path)
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "an old witness was left behind");
        }
        self.audit.log().record(What::WitnessRemoved {
            device: name.to_owned(),
        });
        Ok(())
    }

    fn forget_gone(&self) -> Result<(), Failure> {
        let mut list = lock(&self.devices);
        let devices = self.device_infos()?;
        forget_gone(&mut list, &devices)
    }
}

/// Forgets the paths of devices that the pool has let go of (one that was replaced, for instance): those that are not among
/// `devices`, which are all that it has.
pub(super) fn forget_gone(list: &mut DeviceList, devices: &[DeviceInfo]) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    let gone: Vec<PathBuf> = list
        .entries()
        .iter()
        .filter(|entry| !entry.unsettled)
        .map(|entry| entry.path.clone())
        .filter(|path| devices.iter().all(|info| path != Path::new(&info.path)))
        .collect();
    for path in gone {
        list.remove(&path).map_err(|error| unwritten(&error))?;
    }
    Ok(())
}
