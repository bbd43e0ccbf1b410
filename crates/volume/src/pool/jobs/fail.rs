//! Declaring a device broken, and what that takes away.

use std::fmt;
use std::time::Duration;

use futures_lite::future::or;
use uuid::Uuid;

use super::devices::attached_on;
use super::progress::text_of;
use super::{ByteRange, JobError};
use crate::block_device::BlockDevice;
use crate::config::{Change, Plex, VolumeRecord};
use crate::page_store::ReplicaHealth;
use crate::page_store::verdict::majority;
use crate::pool::keep::PoolEvent;
use crate::pool::{Inner, Pool, PoolError};
use crate::volume::Volume;

/// How long an operator waits for a commit under way before the device is failed that may be what it waits for.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);
/// Losses that a text names; the rest is counted.
const SHOWN: usize = 8;
/// Why a device is out of use that an operator failed.
const REASON: &str = "an operator said so";

/// What is lost without a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The only valid copy of a part of a volume is there.
    Data {
        /// The volume.
        volume: String,
        /// The part; empty where that is not known, because the volume is not served.
        ranges: Vec<ByteRange>,
    },
    /// The private region of a volume loses its majority: no registration and no reservation can be changed then, and the
    /// next start does not serve the volume.
    Keys {
        /// The volume.
        volume: String,
        /// Current copies that are left.
        have: usize,
        /// Copies that are needed.
        need: usize,
    },
    /// The configuration loses its majority: nothing in the pool can be changed then, and the next start does not open it.
    Configuration {
        /// Current copies that are left.
        have: usize,
        /// Copies that are needed.
        need: usize,
    },
    /// It is a quorum device.
    QuorumDevice {
        /// Whose, such as `domain NAME (quorum)`.
        of: String,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Data { volume, ranges } if ranges.is_empty() => {
                write!(f, "volume {volume} loses the only valid copy of its data")
            }
            Loss::Data { volume, ranges } => write!(
                f,
                "volume {volume} loses the only valid copy of {}",
                text_of(ranges)
            ),
            Loss::Keys { volume, have, need } => write!(
                f,
                "the keys of volume {volume} have {have} of the {need} copies that they need"
            ),
            Loss::Configuration { have, need } => write!(
                f,
                "the configuration has {have} of the {need} copies that it needs"
            ),
            Loss::QuorumDevice { of } => write!(f, "{of} loses its quorum device"),
        }
    }
}

/// Losses for people; the first few of many.
pub(super) fn text_of_losses(losses: &[Loss]) -> String {
    let mut parts: Vec<String> = losses.iter().take(SHOWN).map(Loss::to_string).collect();
    if losses.len() > SHOWN {
        parts.push(format!("{} more", losses.len() - SHOWN));
    }
    parts.join("; ")
}

/// Whether a majority goes with some of the copies: the current ones elsewhere and the number needed, if so. What had none
/// before loses none.
fn majority_lost(members: usize, elsewhere: usize, there: usize) -> Option<(usize, usize)> {
    let need = majority(members);
    (elsewhere < need && elsewhere + there >= need).then_some((elsewhere, need))
}

impl<D: BlockDevice> Pool<D> {
    /// Declares a device broken: nothing on it is used until it is brought back. Returns when its plexes are detached.
    ///
    /// # Errors
    /// [`JobError::WouldLose`] when something else needs it; nothing was changed then. Where there is no quorum anyway the
    /// device is out of use, which ends the waiting for one that hangs, and the error tells what could not be recorded:
    /// [`JobError::NotRecorded`], [`JobError::NotDetached`]. It never waits without end.
    pub async fn device_fail(&self, name: &str) -> Result<(), PoolError> {
        let device = self.device_record(name).await?.uuid;
        let losses = self.losses_without(device).await;
        if !losses.is_empty() {
            let device = name.into();
            return Err(JobError::WouldLose { device, losses }.into());
        }
        let down = self.device_down(device, REASON).await;
        down.map_err(|error| not_recorded(name, &error))?;
        self.detach_all(device, name, &[]).await
    }

    /// As [`Pool::device_fail`], whatever it takes away; returns what that is.
    ///
    /// # Errors
    /// As of [`Pool::device_fail`], but for [`JobError::WouldLose`].
    pub async fn device_fail_forced(&self, name: &str) -> Result<Vec<Loss>, PoolError> {
        let device = self.device_record(name).await?.uuid;
        let losses = self.losses_without(device).await;
        let reason = match losses.as_slice() {
            [] => REASON.to_owned(),
            _ => format!("{REASON}, with --force"),
        };
        let quorum = |loss: &Loss| matches!(loss, Loss::Configuration { .. });
        let kept: Vec<String> = losses
            .iter()
            .filter_map(|loss| match loss {
                Loss::Data { volume, .. } => Some(volume.clone()),
                _ => None,
            })
            .collect();
        if losses.iter().any(quorum) {
            // As long as its copy of the configuration counts: that it failed, and that its plexes take no part.
            let recorded = self.record_failed(device, &reason).await;
            let detached = match &recorded {
                Ok(()) => self.detach_all(device, name, &kept).await,
                Err(_) => Ok(()),
            };
            drop(self.out_of_use(device, &reason).await);
            self.keeper.wake();
            recorded.map_err(|error| not_recorded(name, &error))?;
            detached?;
            return Ok(losses);
        }
        let down = self.device_down(device, &reason).await;
        down.map_err(|error| not_recorded(name, &error))?;
        self.detach_all(device, name, &kept).await?;
        Ok(losses)
    }

    /// Has the plexes on a device that is out of use taken out, but for those of the volumes in `kept`, which have no other.
    async fn detach_all(&self, device: Uuid, name: &str, kept: &[String]) -> Result<(), PoolError> {
        for volume in self.volumes() {
            if volume.fault().is_some() || attached_on(&volume, device).is_empty() {
                continue;
            }
            self.detach_soon(&volume, device).await;
            let record = volume.record();
            if !attached_on(&volume, device).is_empty() && !kept.contains(&record.name) {
                return Err(JobError::NotDetached {
                    volume: record.name.clone(),
                    device: name.into(),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Commits that a device failed that is still used.
    async fn record_failed(&self, device: Uuid, reason: &str) -> Result<(), PoolError> {
        let mut inner = self.inner.lock().await;
        self.settle(&mut inner).await?;
        let record = inner.config()?.devices.get(&device).cloned();
        let mut record = record.ok_or(PoolError::NoDevice)?;
        record.failed = Some(reason.to_owned());
        let name = record.name.clone();
        inner.commit(vec![Change::Device(record)]).await?;
        drop(inner);
        self.keeper.tell(PoolEvent::DeviceFailed {
            device: name,
            reason: reason.to_owned(),
        });
        Ok(())
    }

    /// What is lost without a device, by volume: all that somebody has to be told before it is failed. Nothing where it is
    /// of no use now: it is away, or hangs, which gives no quorum and stops no commit.
    ///
    /// It waits for nothing that may hang for longer than a few seconds.
    pub async fn losses_without(&self, device: Uuid) -> Vec<Loss> {
        let mut losses: Vec<Loss> = self
            .needing(device)
            .into_iter()
            .map(|volume| self.data_lost(volume, device))
            .collect();
        let Some(handle) = self.handle_of(device) else {
            return losses;
        };
        let answers = handle.is_online() && handle.abandoned() == 0 && !self.keeper.hangs(device);
        if !answers {
            return losses;
        }
        for volume in self.volumes() {
            let record = volume.record();
            if volume.fault().is_some() && self.only_there(&record, device) {
                losses.push(Loss::Data {
                    volume: record.name.clone(),
                    ranges: Vec::new(),
                });
            }
            losses.extend(self.keys_lost(&volume, &record, device).await);
        }
        // A commit that waits for this very device has the lock; then nothing is known, and it must be failed.
        let late = async {
            handle.sleep(COMMIT_PATIENCE).await;
            None
        };
        if let Some(inner) = or(async { Some(self.inner.lock().await) }, late).await {
            losses.extend(configuration_lost(&inner, device));
            let of = inner.documents_on(device).into_iter();
            losses.extend(of.map(|of| Loss::QuorumDevice { of }));
        }
        losses
    }

    fn data_lost(&self, name: String, device: Uuid) -> Loss {
        let ranges = self.volume(&name).map_or_else(
            |_| Vec::new(),
            |volume| {
                let record = volume.record();
                self.only_in(&volume, &record, &attached_on(&volume, device))
            },
        );
        Loss::Data {
            volume: name,
            ranges,
        }
    }

    /// Of a volume that is not served: whether no copy of it is left that has nothing on the device.
    fn only_there(&self, record: &VolumeRecord, device: Uuid) -> bool {
        let mut attached = record.plexes.iter().filter(|plex| plex.is_attached());
        let elsewhere = |plex: &Plex| {
            let mut extents = plex.extents();
            extents.all(|extent| extent.device != device && self.answers(extent.device))
        };
        record.plexes.iter().any(|plex| plex.is_on(device)) && !attached.any(elsewhere)
    }

    /// Whether a device can be counted on now.
    fn answers(&self, device: Uuid) -> bool {
        let hangs = self.keeper.hangs(device);
        let handle = self.handle_of(device);
        handle.is_some_and(|handle| handle.is_online() && handle.abandoned() == 0 && !hangs)
    }

    async fn keys_lost(
        &self,
        volume: &Volume<D>,
        record: &VolumeRecord,
        device: Uuid,
    ) -> Option<Loss> {
        if record.keys.iter().all(|keys| keys.extent.device != device) {
            return None;
        }
        let (members, current): (usize, Vec<Uuid>) = match volume.private_region() {
            Ok(region) => {
                let copies = region.health().await;
                let current = copies.iter().filter_map(|copy| {
                    let current = copy.health == ReplicaHealth::Current;
                    copy.device.filter(|_| current)
                });
                (copies.len(), current.collect())
            }
            // It is not served, and nobody has read which of them count: all may.
            Err(_) => {
                let devices = record.keys.iter().map(|keys| keys.extent.device);
                (record.keys.len(), devices.collect())
            }
        };
        let counted = current.into_iter().filter(|at| self.answers(*at));
        let (there, elsewhere): (Vec<Uuid>, Vec<Uuid>) = counted.partition(|at| *at == device);
        let (have, need) = majority_lost(members, elsewhere.len(), there.len())?;
        Some(Loss::Keys {
            volume: record.name.clone(),
            have,
            need,
        })
    }
}

fn not_recorded(name: &str, error: &PoolError) -> JobError {
    JobError::NotRecorded {
        device: name.into(),
        problem: error.to_string(),
    }
}

fn configuration_lost<D: BlockDevice>(inner: &Inner<D>, device: Uuid) -> Option<Loss> {
    let copies = inner.config.as_ref()?.health();
    let current = copies.iter().filter(|copy| {
        let device = copy.device.and_then(|device| inner.devices.get(&device));
        copy.health == ReplicaHealth::Current && device.is_some_and(|device| device.is_online())
    });
    let (there, elsewhere): (Vec<_>, Vec<_>) = current.partition(|at| at.device == Some(device));
    let (have, need) = majority_lost(copies.len(), elsewhere.len(), there.len())?;
    Some(Loss::Configuration { have, need })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_goes_with_the_copies_that_made_it() {
        for (members, elsewhere, there, lost) in [
            (1, 0, 1, Some((0, 1))),
            (2, 1, 1, Some((1, 2))),
            (3, 2, 1, None),
            (3, 1, 1, Some((1, 2))),
            (3, 1, 0, None),
            (3, 0, 1, None),
            (4, 2, 1, Some((2, 3))),
            (5, 3, 1, None),
        ] {
            let found = majority_lost(members, elsewhere, there);
            assert_eq!(found, lost, "{members} {elsewhere} {there}");
        }
    }

    #[test]
    fn a_text_names_the_first_losses_and_counts_the_others() {
        let losses: Vec<Loss> = (0..10)
            .map(|number| Loss::Keys {
                volume: format!("v{number}"),
                have: 1,
                need: 2,
            })
            .collect();
        let text = text_of_losses(&losses);
        assert!(text.contains("v7") && !text.contains("v8"), "{text}");
        assert!(text.ends_with("; 2 more"), "{text}");
    }
}
