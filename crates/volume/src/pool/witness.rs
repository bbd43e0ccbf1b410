//! The witness: a small device beside two disks, so that losing either of them leaves a majority.
//!
//! It holds a copy of the configuration and replicas of private regions, never data. The daemon makes a file for it in its
//! state directory when [`Pool::witness_needed`] says so, and removes it when [`Pool::witnesses_to_remove`] names it and
//! nothing is on it any more. A witness whose file was lost is replaced: the new one is added first.

use super::devices::info;
use super::{DeviceInfo, DeviceSource, Inner, Pool, PoolError};
use crate::block_device::BlockDevice;
use crate::config::{DeviceRecord, DeviceRole};

/// Size for a witness's file in bytes: room for a replica of every possible volume and for as large a configuration as
/// any device has. The file is sparse; it takes what is written.
pub const WITNESS_BYTES: u64 = 32 << 30;

/// Number of data devices that need a witness.
const DATA_DEVICES: usize = 2;

impl<D: BlockDevice> Inner<D> {
    fn of_role(&self, role: DeviceRole) -> impl Iterator<Item = &DeviceRecord> {
        let config = self.config.as_ref().map(|store| store.config());
        config
            .into_iter()
            .flat_map(|config| config.devices.values())
            .filter(move |record| record.role == role)
    }

    fn witness_wanted(&self) -> bool {
        self.of_role(DeviceRole::Data).count() == DATA_DEVICES
    }
}

impl<D: BlockDevice> Pool<D> {
    /// Whether a witness is to be added: there are exactly two data devices and no witness that works.
    pub async fn witness_needed(&self) -> bool {
        let inner = self.inner.lock().await;
        inner.witness_wanted()
            && !inner
                .of_role(DeviceRole::Witness)
                .any(|record| inner.is_usable(record.uuid))
    }

    /// Adds a witness; it is named `witness`, or `witness-2` and so on while there is an old one.
    ///
    /// # Errors
    /// [`PoolError`], as for [`Pool::device_add`].
    pub async fn witness_add(&self, source: DeviceSource<D>) -> Result<DeviceInfo, PoolError> {
        let name = {
            let inner = self.inner.lock().await;
            let config = inner.config()?;
            let taken = |name: &str| {
                inner.joining.contains(name)
                    || config.devices.values().any(|device| device.name == name)
            };
            // There are fewer devices than names.
            (1..=config.devices.len() + inner.joining.len() + 1)
                .map(|number| match number {
                    1 => "witness".to_owned(),
                    number => format!("witness-{number}"),
                })
                .find(|name| !taken(name))
                .unwrap_or_default()
        };
        self.join(&name, source, false, DeviceRole::Witness).await
    }

    /// Witnesses that are not needed: all when there are not exactly two data devices, else those that do not work
    /// beside one that does. [`Pool::device_remove`] removes each as soon as its `volumes` is empty; the keeper moves
    /// the replicas that are on it.
    pub async fn witnesses_to_remove(&self) -> Vec<DeviceInfo> {
        let inner = self.inner.lock().await;
        let wanted = inner.witness_wanted();
        let mut kept = false;
        let mut records: Vec<&DeviceRecord> = inner.of_role(DeviceRole::Witness).collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        let keep = records
            .iter()
            .find(|record| wanted && inner.is_usable(record.uuid))
            .map(|record| record.uuid);
        records
            .into_iter()
            .filter(|record| {
                let first = !kept && wanted && (keep.is_none() || keep == Some(record.uuid));
                kept |= first;
                !first
            })
            .filter_map(|record| info(&inner, record.uuid))
            .collect()
    }
}
