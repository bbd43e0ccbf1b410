//! Registers the key of this boot on the volumes of the domain.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};

use uuid::Uuid;

use crate::disk::Disk;
use crate::log;
use crate::persistent_reservation::register;
use crate::run::Input;

/// What the registrar is asked to do.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    /// Register; with `all` also where it was done before.
    Register {
        /// Also where it was done before.
        all: bool,
    },
    /// End all registrations of this run.
    Unregister,
}

/// What it needs.
pub struct Registrar {
    /// The mailbox, for its directory.
    pub disk: Disk,
    /// The domain.
    pub domain: Uuid,
    /// Where disks are by identity.
    pub by_id: PathBuf,
    /// The key of this boot; `None` when other software registers.
    pub key: Option<u64>,
    /// Volumes that have it, by NAA identifier.
    pub done: BTreeSet<String>,
}

impl Registrar {
    /// Works until there are no more tasks.
    pub fn work(mut self, tasks: &Receiver<Task>, answers: &Sender<Input>) {
        for task in tasks {
            let answer = match task {
                Task::Register { all } => Input::Registered(self.register(all)),
                Task::Unregister => {
                    self.unregister();
                    Input::Unregistered
                }
            };
            if answers.send(answer).is_err() {
                return;
            }
        }
    }

    fn register(&mut self, all: bool) -> bool {
        let Some(key) = self.key else {
            return true;
        };
        let directory = match self.disk.directory(self.domain) {
            Ok(directory) => directory.payload,
            Err(error) => {
                log::line(
                    4,
                    &format!("the mailbox's directory cannot be read: {error}"),
                );
                return false;
            }
        };
        if all {
            self.done.clear();
        }
        let mut fine = true;
        for naa in &directory.volumes {
            if self.done.contains(naa) {
                continue;
            }
            let Some(path) = disk_path(&self.by_id, naa) else {
                // A member need not have every volume.
                log::line(
                    5,
                    &format!("no disk here is the volume {naa}: no key there"),
                );
                continue;
            };
            match register(&path, key) {
                Ok(()) => {
                    self.done.insert(naa.clone());
                    log::line(
                        6,
                        &format!("key {key:#018x} is registered on {}", path.display()),
                    );
                }
                Err(error) => {
                    fine = false;
                    log::line(3, &format!("no key on {}: {error}", path.display()));
                }
            }
        }
        fine && (!self.done.is_empty() || directory.volumes.is_empty())
    }

    fn unregister(&mut self) {
        for naa in std::mem::take(&mut self.done) {
            let Some(path) = disk_path(&self.by_id, &naa) else {
                continue;
            };
            let result: io::Result<()> = register(&path, 0);
            if let Err(error) = result {
                log::line(4, &format!("the key stays on {}: {error}", path.display()));
            }
        }
    }
}

/// The disk with an NAA identifier: as a multipath device, which registers on all its paths, else by its own name.
fn disk_path(by_id: &Path, naa: &str) -> Option<PathBuf> {
    let names = [
        format!("dm-uuid-mpath-3{naa}"),
        format!("wwn-0x{naa}"),
        format!("scsi-3{naa}"),
    ];
    let mut paths = names.iter().map(|name| by_id.join(name));
    paths.find(|path| path.exists())
}
