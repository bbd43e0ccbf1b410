//! The names that volumes have, so that a new one need not be compared with each.

use std::collections::HashSet;

use crate::config::{Change, Config};

/// The names of a pool's volumes.
pub(super) struct VolumeNames(HashSet<String>);

impl VolumeNames {
    pub(super) fn of(config: &Config) -> VolumeNames {
        let names = config.volumes.values().map(|volume| volume.name.clone());
        VolumeNames(names.collect())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Does to the names what `changes` do to the volumes of `before`.
    pub(super) fn follow(&mut self, before: &Config, changes: &[Change]) {
        for change in changes {
            let (uuid, name) = match change {
                Change::Volume(record) => (record.uuid, Some(&record.name)),
                Change::Remove(uuid) => (*uuid, None),
                Change::Pool(_) | Change::Device(_) | Change::Document(_) => continue,
            };
            let old = before.volumes.get(&uuid).map(|volume| &volume.name);
            if old != name {
                if let Some(old) = old {
                    self.0.remove(old);
                }
                self.0.extend(name.cloned());
            }
        }
    }
}
