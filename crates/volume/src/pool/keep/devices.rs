//! Devices in trouble: those that give errors, and those that do not answer.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::PoolEvent;
use crate::block_device::{BlockDevice, IO_ALIGNMENT_BYTES, aligned_buffer};
use crate::device::{Device, DeviceHealth};
use crate::label;
use crate::pool::Pool;

/// How long a device that did not answer has for its label.
const PROBE: Duration = Duration::from_secs(2);

impl<D: BlockDevice> Pool<D> {
    /// Looks after one device: takes it out for good when it gives errors and nothing depends on it alone, and watches
    /// one that hung until it answers again.
    pub(super) async fn look_after(&self, device: Arc<Device<D>>) {
        let uuid = device.uuid();
        let (mut suspect, hung, told, check_end) = {
            let mut state = self.keeper.state.lock();
            let known = state.devices.entry(uuid).or_default();
            let suspect = known.suspect.take();
            let check_end = std::mem::take(&mut known.check_end);
            (suspect, known.hung_since, known.told, check_end)
        };
        if check_end && suspect.is_none() {
            suspect = self.without_end(&device).await;
        }
        let broken = match device.health() {
            DeviceHealth::Failed { reason } => Some(reason),
            DeviceHealth::Online => suspect,
        };
        if let Some(reason) = broken {
            let needing = self.needing(uuid);
            if needing.is_empty() {
                if let Err(error) = self.device_down(uuid, &reason).await {
                    self.config_trouble(&error);
                    self.suspect(uuid, reason);
                    device.sleep(Duration::from_secs(1)).await;
                    return;
                }
            } else if !device.is_online() && !told {
                // Not durably: the next start may believe it again, because nobody else has the data.
                self.keeper
                    .state
                    .lock()
                    .devices
                    .entry(uuid)
                    .or_default()
                    .told = true;
                self.keeper.tell(PoolEvent::DeviceFailed {
                    device: device.name().to_owned(),
                    reason: format!("{reason}; the only copy of {}", needing.join(", ")),
                });
            }
        }
        if hung.is_some() {
            self.probe(&device).await;
        }
        self.keeper.wake();
    }

    /// Says that the last block of a device cannot be read: a file that was cut short. A write behind its end would make it
    /// long again, with zeroes in between that nobody wrote.
    async fn without_end(&self, device: &Device<D>) -> Option<String> {
        let record = self.snapshot().await.records.get(&device.uuid()).cloned()?;
        let block = IO_ALIGNMENT_BYTES as u64;
        let last = (record.data_offset_bytes + record.data_length_bytes).checked_sub(block)?;
        let reading = device.read(last, aligned_buffer(IO_ALIGNMENT_BYTES));
        match device.within(PROBE, reading).await {
            Some((Err(error), _)) => Some(format!("its end cannot be read: {error}")),
            _ => None,
        }
    }

    fn suspect(&self, device: Uuid, reason: String) {
        let mut state = self.keeper.state.lock();
        state.devices.entry(device).or_default().suspect = Some(reason);
    }

    async fn probe(&self, device: &Device<D>) {
        let uuid = device.uuid();
        {
            let mut state = self.keeper.state.lock();
            let known = state.devices.entry(uuid).or_default();
            if !std::mem::replace(&mut known.hung_told, true) {
                drop(state);
                self.keeper.tell(PoolEvent::DeviceHung {
                    device: device.name().to_owned(),
                    reason: "operations on it do not end".into(),
                });
            }
        }
        // As long as something is in flight that nobody waits for, it does not answer: no need to ask.
        let answers = device.is_online()
            && device.abandoned() == 0
            && matches!(device.within(PROBE, label::read(device)).await, Some(Ok(_)));
        let now = device.now();
        let mut state = self.keeper.state.lock();
        let known = state.devices.entry(uuid).or_default();
        if answers {
            known.hung_since = None;
            known.hung_told = false;
            drop(state);
            self.keeper.tell(PoolEvent::DeviceBack {
                device: device.name().to_owned(),
            });
        } else {
            known.back.failed(now);
        }
    }
}
