//! Volumes as the command line shows them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ::volume::config::{PlexLayout, PlexState};
use ::volume::page_store::{ReplicaHealth, ReplicaInfo};
use ::volume::pool::jobs::PlexInfo;
use ::volume::{Access, Persist, Volume as PoolVolume};
use reactor::FileDevice;
use uuid::Uuid;

use super::Operations;
use crate::control::model::{Job, Plex, Volume};
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
    /// By volume.
    jobs: BTreeMap<String, Job>,
    /// By volume.
    plexes: BTreeMap<String, Vec<PlexInfo>>,
    /// Volumes whose keys have a copy that is not current, or on a device that is out of use.
    keys_behind: BTreeSet<String>,
    /// Why devices are out of use, by name.
    away: BTreeMap<String, String>,
}

impl Operations {
    /// The view for these volumes.
    pub(super) fn view(&self, volumes: &[Arc<PoolVolume<FileDevice>>]) -> Result<View, Failure> {
        let mut away = BTreeMap::new();
        let mut unusable = BTreeSet::new();
        for info in self.device_infos()? {
            let why = match &info.failed {
                Some(reason) => format!("device {} failed: {reason}", info.name),
                None if !info.present => format!("device {} is missing", info.name),
                None if !info.online => format!("device {} failed", info.name),
                None => continue,
            };
            unusable.insert(info.uuid);
            away.insert(info.name, why);
        }
        let (pool, volumes) = (Arc::clone(&self.pool), volumes.to_vec());
        let (plexes, keys_behind) = self.run(move || async move {
            let (mut plexes, mut keys_behind) = (BTreeMap::new(), BTreeSet::new());
            for volume in volumes {
                let name = volume.record().name.clone();
                if let Ok(region) = volume.private_region() {
                    let copies = region.health().await;
                    let good = |copy: &ReplicaInfo| {
                        let there = copy.device.is_some_and(|at| !unusable.contains(&at));
                        there && copy.health == ReplicaHealth::Current
                    };
                    if !copies.iter().all(good) {
                        keys_behind.insert(name.clone());
                    }
                }
                // One that was deleted or renamed meanwhile has none.
                if let Ok(infos) = pool.plexes(&name).await {
                    plexes.insert(name, infos);
                }
            }
            (plexes, keys_behind)
        })?;
        Ok(View {
            devices: self.device_names()?,
            sessions: self.service.sessions(),
            jobs: self
                .job_list()?
                .into_iter()
                .map(|job| (job.volume.clone(), job))
                .collect(),
            plexes,
            keys_behind,
            away,
        })
    }

    pub(super) fn describe_volume(&self, volume: &PoolVolume<FileDevice>, view: &View) -> Volume {
        let record = volume.record();
        let reason = volume.fault().or_else(|| {
            let unit = self.target.logical_unit(volume.lun())?;
            unit.failure()
        });
        let plexes = view.plexes.get(&record.name).into_iter().flatten();
        let plexes: Vec<Plex> = plexes
            .cloned()
            .map(|plex| describe_plex(plex, &view.away))
            .collect();
        let settled = || plexes.iter().filter(|plex| plex.state != "filling");
        // The first plex that is whole tells the layout; all of them have the same.
        let main = settled().next().or(plexes.first());
        let granted = |initiator: &str| self.access_of(volume, initiator) != Access::None;
        let domain = self.domains.of_volume(volume.uuid());
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
            } else if settled().any(|plex| plex.state == "detached" || plex.reason.is_some())
                || view.keys_behind.contains(&record.name)
            {
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
            job: view.jobs.get(&record.name).cloned(),
            mailbox: self.is_mailbox(volume),
            fenced: domain
                .as_ref()
                .map(|domain| domain.state.fenced.keys().cloned().collect())
                .unwrap_or_default(),
            domain: domain.map(|domain| domain.name.clone()),
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

fn describe_plex(plex: PlexInfo, away: &BTreeMap<String, String>) -> Plex {
    // The last copy stays attached whatever becomes of its devices.
    let why = || plex.devices.iter().find_map(|device| away.get(device));
    let (state, reason) = match plex.state {
        PlexState::Detached { reason } => ("detached", Some(reason)),
        PlexState::Attached if plex.fresh => ("filling", why().cloned()),
        PlexState::Attached => ("attached", why().cloned()),
    };
    let (layout, stripe_unit_bytes) = match plex.layout {
        PlexLayout::Linear => ("linear", None),
        PlexLayout::Striped { stripe_unit_bytes } => ("striped", Some(stripe_unit_bytes)),
    };
    let stale_bytes = plex.stale_bytes.min(plex.size_bytes);
    Plex {
        plex: plex.position,
        uuid: plex.uuid.to_string(),
        state: state.to_owned(),
        reason,
        layout: layout.to_owned(),
        columns: plex.columns,
        stripe_unit_bytes,
        devices: plex.devices,
        stale_bytes,
        synced_percent: Job::percent(plex.size_bytes - stale_bytes, plex.size_bytes),
    }
}
