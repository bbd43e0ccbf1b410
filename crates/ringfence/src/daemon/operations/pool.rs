//! The pool as a whole: show, import, export.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ::volume::DeviceSource;
use reactor::FileDevice;

use super::{Operations, explain, lock};
use crate::control::model::{ConfigQuorum, Pool};
use crate::daemon::device_list::{DeviceList, Entry};
use crate::daemon::pool::open_device;
use crate::daemon::{patience, witness};
use crate::events::{Operator, What};
use crate::failure::{Failure, FailureKind};

impl Operations {
    pub(super) fn pool_show(&self) -> Result<Pool, Failure> {
        let pool = Arc::clone(&self.pool);
        let Some(info) = self.run(move || async move { pool.info().await })? else {
            return Ok(Pool {
                uuid: None,
                state: "empty".to_owned(),
                devices: Vec::new(),
                devices_missing: Vec::new(),
                volumes: 0,
                volumes_not_served: Vec::new(),
                volumes_degraded: Vec::new(),
                size_bytes: 0,
                used_bytes: 0,
                free_bytes: 0,
                config: ConfigQuorum::default(),
            });
        };
        let (devices, volumes) = (self.device_list()?, self.volume_list()?);
        let bad: Vec<String> = devices
            .iter()
            .filter(|device| !device.is_well())
            .map(|device| device.name.clone())
            .collect();
        let with = |health: &str| -> Vec<String> {
            volumes
                .iter()
                .filter(|volume| volume.health == health)
                .map(|volume| volume.name.clone())
                .collect()
        };
        let (not_served, degraded) = (with("not-served"), with("degraded"));
        let good = bad.is_empty() && not_served.is_empty() && degraded.is_empty();
        Ok(Pool {
            uuid: Some(info.uuid.to_string()),
            state: if good { "online" } else { "degraded" }.to_owned(),
            devices: devices.into_iter().map(|device| device.name).collect(),
            devices_missing: bad,
            volumes: volumes.len(),
            volumes_not_served: not_served,
            volumes_degraded: degraded,
            size_bytes: info.capacity_bytes,
            used_bytes: info.capacity_bytes.saturating_sub(info.free_bytes),
            free_bytes: info.free_bytes,
            config: ConfigQuorum {
                current: info.config_current,
                of: info.config_members,
                needed: info.config_members / 2 + 1,
            },
        })
    }

    /// Takes up the pool on `paths`, and serves its volumes.
    pub(super) fn pool_import(
        &self,
        paths: Vec<PathBuf>,
        direct: bool,
        operator: &Operator,
    ) -> Result<Pool, Failure> {
        if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
            let message = format!("the path {} of a device is not absolute", path.display());
            return Err(Failure::usage(message));
        }
        let _alone = self.alone()?;
        let pool = Arc::clone(&self.pool);
        if self
            .run(move || async move { pool.info().await })?
            .is_some()
        {
            return Err(Failure::refused("the daemon has a pool already").advise(
                "export it first ('ringfence pool export'), or start a second daemon with another --state",
            ));
        }
        let mut list = lock(&self.devices);
        let mut opened = Vec::new();
        let deadline = Instant::now() + patience::PATIENCE;
        for path in &paths {
            let device = patience::until(deadline, || open_device(path, direct))?;
            opened.push((path.clone(), direct, Arc::new(device)));
        }
        // The witness of a pool that was exported here is where it was.
        let witnesses = witness::files(&self.state)
            .into_iter()
            .filter(|path| !paths.contains(path))
            .filter_map(|path| {
                Some((
                    path.clone(),
                    false,
                    Arc::new(open_device(&path, false).ok()?),
                ))
            })
            .collect::<Vec<_>>();
        self.take_up(&mut list, &opened, &witnesses)?;
        drop((opened, witnesses));
        drop(list);
        // Who is fenced is known before anything is served.
        let domains = Arc::clone(&self.domains);
        self.run(move || async move { domains.load().await })??;
        for volume in self.pool.volumes() {
            let name = volume.record().name.clone();
            if let Some(reason) = volume.fault() {
                self.audit.log().record(What::VolumeNotServed {
                    volume: name.clone(),
                    reason,
                });
            }
            self.serve(volume).map_err(|failure| {
                Failure::failed(format!("volume {name} cannot be served: {failure}"))
                    .advise("the pool is imported; restart the daemon")
            })?;
        }
        self.start_domains()?;
        let pool = self.pool_show()?;
        self.audit.log().record(What::PoolImported {
            pool: pool.uuid.clone().unwrap_or_default(),
            devices: paths.iter().map(|p| p.display().to_string()).collect(),
            by: operator.clone(),
        });
        self.chores.ring();
        Ok(pool)
    }

    /// Opens the pool on `opened`, with `witnesses` where they belong to it, and notes its devices for the next start.
    fn take_up(
        &self,
        list: &mut DeviceList,
        opened: &[OpenDevice],
        witnesses: &[OpenDevice],
    ) -> Result<(), Failure> {
        for (path, direct, _) in opened.iter().chain(witnesses) {
            list.put(Entry {
                path: path.clone(),
                direct: *direct,
                unsettled: true,
            })
            .map_err(|error| super::device::unwritten(&error))?;
        }
        let mut result = self.open_pool(opened.iter().chain(witnesses));
        if result.is_err() && !witnesses.is_empty() {
            // They may be of another pool, which says nothing about this one.
            result = self.open_pool(opened.iter());
        }
        let known: Vec<PathBuf> = match &result {
            Ok(()) => self.device_infos()?,
            Err(_) => Vec::new(),
        }
        .into_iter()
        .filter(|info| info.present)
        .map(|info| PathBuf::from(info.path))
        .collect();
        for (path, ..) in opened.iter().chain(witnesses) {
            let noted = if known.contains(path) {
                list.settle(path)
            } else {
                list.remove(path)
            };
            noted.map_err(|error| super::device::unwritten(&error))?;
        }
        result
    }

    fn open_pool<'a>(&self, opened: impl Iterator<Item = &'a OpenDevice>) -> Result<(), Failure> {
        let sources: Vec<_> = opened
            .map(|(path, _, device)| DeviceSource {
                path: path.display().to_string(),
                device: Arc::clone(device),
            })
            .collect();
        let pool = Arc::clone(&self.pool);
        self.run(move || async move { pool.import(sources).await })?
            .map_err(|error| explain(&error))
    }

    /// Stops serving all volumes and lets go of the pool.
    pub(super) fn pool_export(&self, force: bool, operator: &Operator) -> Result<Pool, Failure> {
        let _alone = self.alone()?;
        let before = self.pool_show()?;
        let Some(uuid) = before.uuid.clone() else {
            return Err(Failure::refused("the daemon has no pool"));
        };
        let mut users: Vec<String> = self
            .service
            .sessions()
            .into_iter()
            .filter(|session| !session.discovery)
            .map(|session| session.initiator)
            .collect();
        users.sort();
        users.dedup();
        if !users.is_empty() && !force {
            return Err(
                Failure::refused(format!("{} logged in", users.join(", "))).advise(
                    "log the initiators out, or export it all the same with --force: their I/O is drained, and then fails",
                ),
            );
        }
        let mut list = lock(&self.devices);
        self.stop_domains(force)?;
        for volume in self.pool.volumes() {
            let (target, lun) = (Arc::clone(&self.target), volume.lun());
            self.run(move || async move { target.remove_logical_unit(lun).await })?;
        }
        let pool = Arc::clone(&self.pool);
        let exported = self.run(move || async move {
            let exported = match pool.close().await {
                Ok(()) => pool.export().await,
                Err(error) => Err(error),
            };
            // With a pool that is still there, or with the next one.
            pool.resume();
            exported
        })?;
        if let Err(error) = exported {
            let failure = explain(&error);
            return Err(match self.serve_again() {
                Ok(()) => failure,
                Err(again) => failure.advise(format!(
                    "the pool is still here but not all of it is served ({again}): restart the daemon"
                )),
            });
        }
        let entries = list.entries().to_vec();
        list.clear()
            .map_err(|error| super::device::unwritten(&error))?;
        self.audit.log().record(What::PoolExported {
            pool: uuid,
            forced: !users.is_empty(),
            by: operator.clone(),
        });
        let deadline = Instant::now() + patience::PATIENCE;
        for entry in &entries {
            let free = patience::until(deadline, || open_device(&entry.path, entry.direct));
            if free.is_err_and(|failure| failure.kind == FailureKind::Busy) {
                let path = entry.path.display();
                return Err(Failure::failed(format!(
                    "the pool is exported, but I/O on {path} has not ended and holds it"
                ))
                .advise("end the daemon before another machine imports the pool"));
            }
        }
        Ok(before)
    }
}

impl Operations {
    /// Ends the tasks of all domains; what is fenced stays so.
    fn stop_domains(&self, force: bool) -> Result<(), Failure> {
        for running in self.domains.all() {
            if self.domains.stop(&running, force) {
                continue;
            }
            let name = running.domain().name.clone();
            // Those that have ended already go on.
            let domains = Arc::clone(&self.domains);
            self.run(move || async move { domains.load().await })??;
            self.start_domains()?;
            return Err(Failure::refused(format!("something is under way in fence domain {name}"))
                .advise("wait for its end, or export the pool all the same with --force: a fence goes on when the pool is imported"));
        }
        Ok(())
    }

    fn start_domains(&self) -> Result<(), Failure> {
        let (domains, service) = (Arc::clone(&self.domains), Arc::clone(&self.service));
        self.run(move || async move { domains.start(&service).await })
    }

    /// Serves the pool that could not be exported.
    fn serve_again(&self) -> Result<(), Failure> {
        let domains = Arc::clone(&self.domains);
        self.run(move || async move { domains.load().await })??;
        for volume in self.pool.volumes() {
            self.serve(volume)?;
        }
        self.start_domains()
    }
}

/// Where a device is, whether it goes round the page cache, and the device.
type OpenDevice = (PathBuf, bool, Arc<FileDevice>);

/// Whether `path` is one of the daemon's own witnesses.
pub(super) fn is_witness(state: &Path, path: &Path) -> bool {
    witness::files(state).iter().any(|file| file == path)
}
