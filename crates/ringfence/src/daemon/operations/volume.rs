//! Volumes.

use std::sync::Arc;

use ::volume::{Access, CreateVolume, Persist, Volume as PoolVolume};
use reactor::FileDevice;

use super::layout::layout_of;
use super::{Operations, explain, lock};
use crate::control::model::Volume;
use crate::control::protocol::{Growth, Shape};
use crate::events::{Operator, What};
use crate::failure::Failure;
use crate::names::object_name;
use crate::size::HumanSize;

/// What `volume create` was asked for.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) size_bytes: u64,
    pub(super) on: Vec<String>,
    pub(super) keys_on: Vec<String>,
    pub(super) block_size_bytes: u32,
    pub(super) persist_always: bool,
    pub(super) shape: Shape,
}

impl Operations {
    pub(super) fn volume_create(
        &self,
        wanted: Wanted,
        operator: &Operator,
    ) -> Result<Volume, Failure> {
        object_name(&wanted.name).map_err(Failure::usage)?;
        let request = CreateVolume {
            name: wanted.name.clone(),
            size_bytes: wanted.size_bytes,
            on: wanted.on,
            keys_on: wanted.keys_on,
            block_size: wanted.block_size_bytes.try_into().map_err(Failure::usage)?,
            persist: if wanted.persist_always {
                Persist::Always
            } else {
                Persist::Aptpl
            },
            layout: layout_of(&wanted.shape)?.unwrap_or_default(),
            mirrors: wanted.shape.mirrors.unwrap_or(1),
        };
        let _shared = self.shared()?;
        let order = self.volume_lock(&wanted.name);
        let _order = lock(&order);
        let pool = Arc::clone(&self.pool);
        let volume = self
            .run(move || async move { pool.volume_create(request).await })?
            .map_err(|error| explain(&error))?;
        self.serve(Arc::clone(&volume)).map_err(|failure| {
            Failure::failed(format!(
                "volume {} was made but cannot be served: {failure}",
                wanted.name
            ))
            .advise("restart the daemon, or delete the volume")
        })?;
        self.audit.log().record(What::VolumeCreated {
            volume: wanted.name,
            lun: volume.lun(),
            size_bytes: volume.size_bytes(),
            by: operator.clone(),
        });
        self.described(&volume)
    }

    fn described(&self, volume: &Arc<PoolVolume<FileDevice>>) -> Result<Volume, Failure> {
        let view = self.view(std::slice::from_ref(volume))?;
        Ok(self.describe_volume(volume, &view))
    }

    pub(super) fn volume_list(&self) -> Result<Vec<Volume>, Failure> {
        let volumes = self.pool.volumes();
        let view = self.view(&volumes)?;
        let described = volumes.iter().map(|v| self.describe_volume(v, &view));
        Ok(described.collect())
    }

    pub(super) fn volume_show(&self, name: &str) -> Result<Volume, Failure> {
        let volume = self.volume(name)?;
        self.described(&volume)
    }

    pub(super) fn volume_delete(
        &self,
        name: &str,
        force: bool,
        operator: &Operator,
    ) -> Result<(), Failure> {
        let _shared = self.shared()?;
        let order = self.volume_lock(name);
        let _order = lock(&order);
        let volume = self.volume(name)?;
        self.of_no_domain(&volume)?;
        let used = self.who_uses(&volume);
        if !force && let Some(used) = &used {
            return Err(Failure::refused(format!("volume {name} is in use: {used}")).advise(
                "log the initiators out and let them unregister, or delete it all the same with --force",
            ));
        }
        let _acting = self.audit.acting(name, operator);
        let lun = volume.lun();
        let target = Arc::clone(&self.target);
        self.run(move || async move { target.remove_logical_unit(lun).await })?;
        let pool = Arc::clone(&self.pool);
        let owned = name.to_owned();
        let deleted = self.run(move || async move { pool.volume_delete(&owned).await })?;
        if let Err(error) = deleted {
            let failure = explain(&error);
            return Err(match self.serve(Arc::clone(&volume)) {
                Ok(()) => failure,
                Err(again) => failure.advise(format!(
                    "the volume is still there but not served ({again}): restart the daemon"
                )),
            });
        }
        let (target, uuid) = (Arc::clone(&self.target), volume.uuid());
        self.run(move || async move { drop(target.forget_policy(uuid).await) })?;
        self.audit.log().record(What::VolumeDeleted {
            volume: name.to_owned(),
            forced: used.is_some(),
            by: operator.clone(),
        });
        Ok(())
    }

    /// Refuses for a volume that is of a domain.
    fn of_no_domain(&self, volume: &PoolVolume<FileDevice>) -> Result<(), Failure> {
        let Some(domain) = self.domains.of_volume(volume.uuid()) else {
            return Ok(());
        };
        let (name, domain) = (volume.record().name.clone(), &domain.name);
        Err(if self.is_mailbox(volume) {
            Failure::refused(format!(
                "volume {name} is the mailbox of fence domain {domain}"
            ))
            .advise(format!(
                "it goes with the domain: ringfence domain delete {domain}"
            ))
        } else {
            Failure::refused(format!("volume {name} is in fence domain {domain}")).advise(format!(
                "take it out first: ringfence domain volume remove {domain} {name}"
            ))
        })
    }

    /// Whether it is the mailbox of a domain.
    pub(super) fn is_mailbox(&self, volume: &PoolVolume<FileDevice>) -> bool {
        let domain = self.domains.of_volume(volume.uuid());
        domain.is_some_and(|domain| domain.mailbox == volume.uuid())
    }

    /// What an initiator may do with a volume: its own grant, else that of its domain, else everybody's.
    pub(super) fn access_of(&self, volume: &PoolVolume<FileDevice>, initiator: &str) -> Access {
        let record = volume.record();
        if let Some(access) = record.grants.get(initiator) {
            return *access;
        }
        let policy = self.target.policy(volume.uuid());
        let by_domain = policy.grants.get(initiator).copied();
        by_domain.unwrap_or_else(|| record.access_of(initiator))
    }

    /// Serves again what could not be served before and can be now: a device that it needs is back.
    pub(super) fn serve_what_can_be(&self) -> Result<(), Failure> {
        for mut volume in self.pool.volumes() {
            let name = volume.record().name.clone();
            let order = self.volume_lock(&name);
            let _order = lock(&order);
            if volume.fault().is_some() {
                let (pool, owned) = (Arc::clone(&self.pool), name.clone());
                let opened = self.run(move || async move { pool.volume_reopen(&owned).await })?;
                volume = opened.map_err(|error| explain(&error))?;
            }
            // The pool may have opened it anew by itself: what counts is which one the target serves.
            let unit = self.target.logical_unit(volume.lun());
            if unit.is_some_and(|unit| Arc::ptr_eq(unit.volume(), &volume)) {
                continue;
            }
            let (target, lun) = (Arc::clone(&self.target), volume.lun());
            self.run(move || async move { target.remove_logical_unit(lun).await })?;
            match volume.fault() {
                Some(reason) => self.audit.log().record(What::VolumeNotServed {
                    volume: name,
                    reason,
                }),
                None => self.audit.log().record(What::VolumeServed { volume: name }),
            }
            self.serve(volume)?;
        }
        Ok(())
    }

    /// Gives the volume to the target, which knows what the domains want of it.
    pub(super) fn serve(&self, volume: Arc<PoolVolume<FileDevice>>) -> Result<(), Failure> {
        let target = Arc::clone(&self.target);
        self.run(move || async move { target.add_logical_unit(volume).await.map(|_| ()) })?
            .map_err(|error| Failure::failed(error.to_string()))
    }

    /// Who would lose the volume, in words; `None` when nobody.
    fn who_uses(&self, volume: &PoolVolume<FileDevice>) -> Option<String> {
        let mut uses = Vec::new();
        let sessions: Vec<String> = self
            .service
            .sessions()
            .into_iter()
            .filter(|s| !s.discovery && self.access_of(volume, &s.initiator) != Access::None)
            .map(|s| s.initiator)
            .collect();
        if !sessions.is_empty() {
            uses.push(format!("{} logged in", sessions.join(", ")));
        }
        let unit = self.target.logical_unit(volume.lun());
        match unit.and_then(|unit| unit.reservations()) {
            Some(reservations) => match reservations.persistent.registrants.len() {
                0 => {}
                1 => uses.push("1 registration".to_owned()),
                many => uses.push(format!("{many} registrations")),
            },
            None => uses.push("its registrations cannot be read".to_owned()),
        }
        (!uses.is_empty()).then(|| uses.join("; "))
    }

    pub(super) fn volume_grow(
        &self,
        name: &str,
        growth: Growth,
        operator: &Operator,
    ) -> Result<Volume, Failure> {
        let _shared = self.shared()?;
        let order = self.volume_lock(name);
        let _order = lock(&order);
        let volume = self.volume(name)?;
        let before = volume.size_bytes();
        let size_bytes = match growth {
            Growth::To(size_bytes) => size_bytes,
            Growth::By(more_bytes) => before
                .checked_add(more_bytes)
                .ok_or_else(|| Failure::usage("a volume has at most 16 EiB"))?,
        };
        if size_bytes <= before {
            return Err(Failure::refused(format!(
                "volume {name} has {} already, {} is not more",
                HumanSize(before),
                HumanSize(size_bytes)
            ))
            .advise("a volume can only grow; +SIZE grows it by SIZE"));
        }
        let pool = Arc::clone(&self.pool);
        let owned = name.to_owned();
        self.run(move || async move { pool.volume_grow(&owned, size_bytes).await })?
            .map_err(|error| explain(&error))?;
        self.target.capacity_changed(volume.lun());
        self.audit.log().record(What::VolumeGrown {
            volume: name.to_owned(),
            size_bytes: volume.size_bytes(),
            by: operator.clone(),
        });
        self.described(&volume)
    }
}
