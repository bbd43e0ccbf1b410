//! Volumes as the command line shows them.

use std::collections::HashMap;

use ::volume::config::{PlexLayout, PlexState};
use ::volume::{Access, Persist, Volume as PoolVolume, VolumeRecord};
use reactor::FileDevice;
use uuid::Uuid;

use super::Operations;
use crate::control::model::{Plex, Volume};
use crate::failure::Failure;
use crate::iscsi::SessionInfo;

/// Names of devices by identity; a device without a name is shown by its identity.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceNames(pub(super) HashMap<Uuid, String>);

impl DeviceNames {
    /// The name of one device.
    pub(super) fn name(&self, device: Uuid) -> String {
        self.0
            .get(&device)
            .cloned()
            .unwrap_or_else(|| device.to_string())
    }

    /// The names of several, each once, in the order given.
    pub(super) fn names(&self, devices: impl IntoIterator<Item = Uuid>) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        for device in devices {
            let name = self.name(device);
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        seen
    }
}

/// What the description of every volume needs.
pub(super) struct View {
    pub(super) devices: DeviceNames,
    sessions: Vec<SessionInfo>,
}

impl Operations {
    pub(super) fn view(&self) -> Result<View, Failure> {
        Ok(View {
            devices: self.device_names()?,
            sessions: self.service.sessions(),
        })
    }

    pub(super) fn describe_volume(&self, volume: &PoolVolume<FileDevice>, view: &View) -> Volume {
        let record = volume.record();
        let reason = volume.fault().or_else(|| {
            let unit = self.target.logical_unit(volume.lun())?;
            unit.failure()
        });
        let plexes = plexes(&record, view);
        let settled = || plexes.iter().filter(|plex| plex.state != "filling");
        // The first plex that is whole tells the layout; all of them have the same.
        let main = settled().next().or(plexes.first());
        let granted = |initiator: &str| record.access_of(initiator) != Access::None;
        let sessions = view.sessions.iter();
        Volume {
            name: record.name.clone(),
            lun: record.lun,
            uuid: record.uuid.to_string(),
            naa: format!("0x{}", record.naa),
            state: if reason.is_none() {
                "online"
            } else {
                "not-served"
            }
            .to_owned(),
            health: if reason.is_some() {
                "not-served"
            } else if settled().any(|plex| plex.state == "detached") {
                "degraded"
            } else if settled().any(|plex| plex.stale_bytes > 0) {
                "resync"
            } else {
                "good"
            }
            .to_owned(),
            reason,
            size_bytes: volume.size_bytes(),
            block_size_bytes: record.block_size.bytes(),
            layout: main.map_or_else(|| "linear".to_owned(), |plex| plex.layout.clone()),
            columns: main.map_or(1, |plex| plex.columns),
            stripe_unit_bytes: main.and_then(|plex| plex.stripe_unit_bytes),
            mirrors: settled().count(),
            persist: match record.persist {
                Persist::Aptpl => "aptpl",
                Persist::Always => "always",
            }
            .to_owned(),
            devices: once(settled().flat_map(|plex| plex.devices.clone())),
            keys_on: view
                .devices
                .names(record.keys.iter().map(|replica| replica.extent.device)),
            sessions: sessions
                .filter(|s| !s.discovery && granted(&s.initiator))
                .count(),
            job: None,
            plexes,
        }
    }
}

fn once(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// The plexes of a volume by position.
fn plexes(record: &VolumeRecord, view: &View) -> Vec<Plex> {
    record
        .plexes
        .iter()
        .enumerate()
        .map(|(position, plex)| {
            let (state, reason) = match &plex.state {
                PlexState::Detached { reason } => ("detached", Some(reason.clone())),
                PlexState::Attached => ("attached", None),
            };
            let (layout, stripe_unit_bytes) = match plex.layout {
                PlexLayout::Linear => ("linear", None),
                PlexLayout::Striped { stripe_unit_bytes } => ("striped", Some(stripe_unit_bytes)),
            };
            let extents = plex.columns.iter().flat_map(|column| &column.extents);
            Plex {
                plex: position,
                uuid: plex.uuid.to_string(),
                state: state.to_owned(),
                reason,
                layout: layout.to_owned(),
                columns: plex.columns.len(),
                stripe_unit_bytes,
                devices: view.devices.names(extents.map(|extent| extent.device)),
                stale_bytes: 0,
                synced_percent: 100,
            }
        })
        .collect()
}
