//! Taking detached plexes in again when their devices are well.

use std::sync::Arc;

use uuid::Uuid;

use super::{PoolEvent, Snapshot, position, region_count};
use crate::block_device::BlockDevice;
use crate::config::{Plex, PlexState, VolumeRecord};
use crate::pool::Pool;
use crate::volume::Volume;
use crate::volume::regions::Regions;

impl<D: BlockDevice> Pool<D> {
    /// Whether every device of a plex answers, and has nothing in flight that could still land.
    pub(super) fn is_ready(&self, snapshot: &Snapshot<D>, plex: &Plex) -> bool {
        let state = self.keeper.state.lock();
        plex.extents().all(|extent| {
            snapshot.unusable(extent.device).is_none()
                && snapshot
                    .devices
                    .get(&extent.device)
                    .is_some_and(|device| device.abandoned() == 0)
                && state
                    .devices
                    .get(&extent.device)
                    .is_none_or(|device| device.hung_since.is_none())
        })
    }

    fn forget_trouble(&self, volume: Uuid, plexes: &[Uuid]) {
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(volume).or_default();
        known.trouble.retain(|plex, _| !plexes.contains(plex));
    }

    /// Attaches the detached plexes of a volume that are ready: their intents are erased, their logs written with what is
    /// stale now, and only then the configuration says `attached`. The copier does the rest.
    pub(super) async fn attach_ready(&self, volume: &Arc<Volume<D>>) {
        let mutex = self.keeper.plexes(volume.uuid());
        let _held = mutex.lock().await;
        let snapshot = self.snapshot().await;
        let Some(clock) = snapshot.devices.values().next().cloned() else {
            return;
        };
        let record = volume.record();
        let ready: Vec<&Plex> = record
            .plexes
            .iter()
            .filter(|plex| !plex.is_attached() && self.is_ready(&snapshot, plex))
            .collect();
        let coming: Vec<Uuid> = ready.iter().map(|plex| plex.uuid).collect();
        if coming.is_empty() {
            return;
        }
        let attach = |record: &mut VolumeRecord| {
            for plex in &mut record.plexes {
                if coming.contains(&plex.uuid) {
                    plex.state = PlexState::Attached;
                }
            }
        };
        let mut next = VolumeRecord::clone(&record);
        attach(&mut next);
        // What is stale is known to the volume; nothing is added to it.
        let stale: Vec<_> = coming
            .iter()
            .map(|plex| (*plex, Regions::new(region_count(&record), false)))
            .collect();
        let mut done = volume
            .prepare_attach(&next, &snapshot.devices, &stale)
            .await
            .map_err(|error| error.to_string());
        if done.is_ok() {
            // Nothing that began before is left: whatever was said of them until now is old.
            for report in self.keeper.reports.take() {
                self.note(report, clock.now());
            }
            self.forget_trouble(volume.uuid(), &coming);
            done = self
                .change_volume(volume, Vec::new(), |record| {
                    attach(record);
                    Ok(())
                })
                .await
                .map_err(|error| error.to_string());
            if done.is_err() {
                let known = self.known_record(volume).await;
                let attached = known
                    .plexes
                    .iter()
                    .any(|plex| coming.contains(&plex.uuid) && plex.is_attached());
                if attached {
                    done = Ok(());
                } else {
                    volume.abort_attach(&coming);
                }
            }
        }
        let mut state = self.keeper.state.lock();
        let known = state.volumes.entry(volume.uuid()).or_default();
        for plex in &coming {
            // A device that comes and goes is taken back ever more slowly: what worked is forgotten by the next restart only.
            known.attach.entry(*plex).or_default().failed(clock.now());
            known.hopeless.remove(plex);
        }
        known.copy.worked();
        drop(state);
        match done {
            Ok(()) => {
                for plex in ready {
                    self.keeper.tell(PoolEvent::PlexAttached {
                        volume: record.name.clone(),
                        plex: position(&record, plex.uuid),
                        devices: snapshot.names(plex),
                    });
                }
            }
            Err(error) => {
                tracing::warn!(
                    volume = record.name,
                    error,
                    "a plex could not be attached yet"
                );
            }
        }
        self.keeper.wake();
    }
}
