//! What the keeper of the pool tells, as events of the log.

use std::sync::Arc;

use volume::pool::jobs::JobName;
use volume::pool::keep::{PoolEvent, PoolEvents};

use super::audit::Audit;
use super::endings::{Ending, Endings};
use crate::events::What;

/// Writes what the keeper tells to the event log, and notes how jobs end.
pub struct KeeperEvents {
    /// The log.
    pub audit: Arc<Audit>,
    /// Where those who wait for jobs look.
    pub endings: Arc<Endings>,
}

/// The position of a plex; a volume has far less.
fn position(plex: usize) -> u32 {
    u32::try_from(plex).unwrap_or(u32::MAX)
}

impl PoolEvents for KeeperEvents {
    fn record(&self, event: PoolEvent) {
        match &event {
            PoolEvent::JobDone { id, .. } => self.endings.note(*id, Ending::Done),
            PoolEvent::JobCancelled { id, .. } => self.endings.note(*id, Ending::Cancelled),
            _ => {}
        }
        let by_volume = |volume: &str| self.audit.operator_of(volume);
        let by_device = |device: &str| self.audit.operator_of(&Audit::device(device));
        let what = match event {
            PoolEvent::PlexDetached {
                volume,
                plex,
                devices,
                reason,
            } => What::PlexDetached {
                volume,
                plex: position(plex),
                devices,
                reason,
            },
            PoolEvent::PlexAttached {
                volume,
                plex,
                devices,
            } => What::PlexAttached {
                volume,
                plex: position(plex),
                devices,
            },
            PoolEvent::DeviceFailed { device, reason } => What::DeviceFailed {
                by: by_device(&device),
                device,
                reason,
            },
            PoolEvent::DeviceHung { device, reason } => What::DeviceHung { device, reason },
            PoolEvent::DeviceBack { device } => What::DeviceBack {
                by: by_device(&device),
                device,
            },
            PoolEvent::ResyncStarted { volume, size_bytes } => {
                What::ResyncStarted { volume, size_bytes }
            }
            PoolEvent::ResyncDone { volume } => What::ResyncDone { volume },
            PoolEvent::JobStarted {
                volume, job, to, ..
            } => What::JobStarted {
                by: by_volume(&volume).or_else(|| match &job {
                    JobName::Evacuate { device } | JobName::Replace { old: device, .. } => {
                        by_device(device)
                    }
                    JobName::AddMirror | JobName::Migrate | JobName::Resync => None,
                }),
                volume,
                job: job.to_string(),
                to,
            },
            PoolEvent::JobDone { volume, job, .. } => What::JobDone {
                volume,
                job: job.to_string(),
            },
            PoolEvent::JobStalled {
                volume,
                job,
                reason,
                ..
            } => What::JobStalled {
                volume,
                job: job.to_string(),
                reason,
            },
            PoolEvent::JobPaused { volume, job, .. } => What::JobPaused {
                by: by_volume(&volume),
                volume,
                job: job.to_string(),
            },
            PoolEvent::JobResumed { volume, job, .. } => What::JobResumed {
                by: by_volume(&volume),
                volume,
                job: job.to_string(),
            },
            PoolEvent::JobCancelled { volume, job, .. } => What::JobCancelled {
                by: by_volume(&volume),
                volume,
                job: job.to_string(),
            },
            PoolEvent::KeysReplicaLost {
                volume,
                device,
                reason,
            } => What::KeysReplicaLost {
                volume,
                device,
                reason,
            },
            PoolEvent::KeysReplicaRebuilt { volume, device } => {
                What::KeysReplicaRebuilt { volume, device }
            }
            PoolEvent::KeysReplicaRepaired { volume, device } => {
                What::KeysReplicaRepaired { volume, device }
            }
            PoolEvent::ConfigReplicaRepaired { device } => What::ConfigReplicaRepaired { device },
            PoolEvent::ConfigQuorumLost { reason } => What::QuorumLost {
                volume: None,
                reason,
            },
            PoolEvent::ConfigQuorumBack => What::QuorumBack { volume: None },
            PoolEvent::LastCopyFails {
                volume,
                plex,
                reason,
            } => What::LastCopyFails {
                volume,
                plex: position(plex),
                reason,
            },
            PoolEvent::DeviceReplaced { device, by } => What::DeviceReplaced { device, with: by },
            // One of a newer version of the crate below.
            other => {
                tracing::warn!(event = ?other, "an event that the log does not know");
                return;
            }
        };
        self.audit.log().record(what);
    }
}
